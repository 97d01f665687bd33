"""Quality check of a dataset: duplicates, leaks, empty, long and truncated rows.

Findings are kept one a line beside the dataset: ``dropped.jsonl`` (left out when the dataset was made) and
``findings.jsonl`` (found in its rows). One pass; memory grows by about 40 bytes a row.
"""

import csv
import hashlib
import io
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from time import time
from typing import Literal, TextIO

from pydantic import TypeAdapter

from sage_studio.data.dataset import DROPPED, OnProgress, ignore_progress
from sage_studio.data.near_duplicates import NearDuplicates
from sage_studio.data.rows import DataRow, Passage
from sage_studio.data.statistics import histogram
from sage_studio.files import write_atomically
from sage_studio.text import Text

FINDINGS = "findings.jsonl"
FindingKind = Literal["dropped", "duplicate", "near_duplicate", "leak", "empty", "long", "cut", "left_out", "refused"]

KINDS: dict[FindingKind, Text] = {
    "dropped": Text("left out when the dataset was made"),
    "duplicate": Text("exact copy of an earlier row"),
    "near_duplicate": Text("nearly the same as an earlier row"),
    "leak": Text("also in the other dataset"),
    "empty": Text("answer without a letter or a digit"),
    "long": Text("very long answer"),
    "cut": Text("longer than max_length: truncated"),
    "left_out": Text("nothing left to learn after truncation"),
    "refused": Text("rejected by the chat template"),
}
COLUMNS = ("kind", "row", "of", "detail", "where")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding about one row.

    Attributes:
        row: row number in the dataset, from 1; None for a dropped row.
        of: row that it repeats, from 1.
        detail: a figure or a reason, in English.
        where: place in the source: a row number or ``file:line heading``.
    """

    kind: FindingKind
    row: int | None = None
    of: int | None = None
    detail: str = ""
    where: str = ""


def as_line(finding: Finding) -> str:
    """A line of either file."""
    return json.dumps({name: value for name, value in asdict(finding).items() if value}, ensure_ascii=False) + "\n"


def read_findings(folder: Path, kind: str = "") -> Iterator[Finding]:
    """The findings in a dataset's folder, dropped rows first; of one kind or all."""
    for name in (DROPPED, FINDINGS):
        if not (folder / name).is_file():
            continue
        with (folder / name).open(encoding="utf-8") as file:
            for line in file:
                finding = Finding(**json.loads(line))
                if not kind or finding.kind == kind:
                    yield finding


def as_jsonl(findings: Iterable[Finding]) -> Iterator[bytes]:
    """Line by line."""
    for finding in findings:
        yield as_line(finding).encode()


def as_csv(findings: Iterable[Finding]) -> Iterator[bytes]:
    """Line by line, with a byte order mark for spreadsheets; cells that look like formulas are quoted."""
    yield "\ufeff".encode() + _csv_line(COLUMNS)
    for finding in findings:
        values = asdict(finding)
        yield _csv_line(["" if values[name] is None else str(values[name]) for name in COLUMNS])


def _csv_line(cells: Iterable[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells])
    return line.getvalue().encode()


INSPECTION = "inspection.json"
LONG_CHARS = 20_000
CHUNK = 256
NAMED = 5
"""Row numbers that the report names per kind."""
READING = Text("Reading rows")
COMPARING = Text("Comparing rows")


@dataclass(frozen=True, slots=True)
class TokenMeasure:
    """Measures rows with a model's tokenizer and chat template.

    Attributes:
        max_length: tokens at which rows are truncated.
        measure: per row its tokens, and whether truncation leaves something to learn; tokens None if the chat template
            refuses the row.
    """

    model: str
    max_length: int
    measure: Callable[[Sequence[DataRow]], Iterable[tuple[int | None, bool]]]


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The result of a quality check. Without a tokenizer, tokens are None and their figures empty.

    Attributes:
        tokens: of all rows, not truncated; ``tokens_per_epoch`` is truncated.
        histogram: (upper bound in tokens, rows up to it) pairs, ascending.
        against: dataset that was searched for leaks.
        counts: findings per kind; ``first`` holds the first row numbers of each.
    """

    made_at: float
    rows: int
    model: str = ""
    max_length: int = 0
    tokens: int | None = None
    tokens_per_epoch: int | None = None
    longest: int | None = None
    histogram: tuple[tuple[int, int], ...] = ()
    against: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def share_cut(self) -> float | None:
        """Share of the rows that are longer than ``max_length``."""
        if self.tokens is None or not self.rows:
            return None
        return (self.counts.get("cut", 0) + self.counts.get("left_out", 0)) / self.rows


AS_JSON = TypeAdapter(QualityReport)


def check_quality(
    folder: Path,
    rows: Iterable[DataRow],
    total: int,
    measure: TokenMeasure | None = None,
    against: tuple[str, Iterable[DataRow]] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> QualityReport:
    """Check rows and write findings and report into a folder.

    Args:
        folder: the dataset's folder.
        rows: all rows, in order; ``total`` is their number, for the progress.
        measure: None to skip token counts.
        against: id and rows of another dataset, usually the validation set, to search for leaks.
        on_progress: may raise to cancel; findings of an earlier check are then kept.
    """
    draft = folder / f".{FINDINGS}"
    try:
        with draft.open("w", encoding="utf-8") as file, NearDuplicates(folder) as near:
            look = _QualityCheck(file, near, measure)
            for batch in in_batches(rows, CHUNK):
                look.at(batch)
                on_progress(0.9 * look.rows / max(total, 1), READING)
            on_progress(0.9, COMPARING)
            look.compare(against)
            inspection = look.summary(against[0] if against is not None else "")
        draft.replace(folder / FINDINGS)
        write_atomically(folder / INSPECTION, AS_JSON.dump_json(inspection, indent=1).decode())
    finally:
        draft.unlink(missing_ok=True)
    return inspection


def read_quality_report(folder: Path) -> QualityReport | None:
    """The report of the last check; None before the first."""
    try:
        return AS_JSON.validate_json((folder / INSPECTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def in_batches(rows: Iterable[DataRow], size: int) -> Iterator[list[DataRow]]:
    """Lists of ``size`` rows, the last possibly shorter."""
    rest = iter(rows)
    while batch := list(islice(rest, size)):
        yield batch


class _QualityCheck:
    def __init__(self, file: TextIO, near: NearDuplicates, measure: TokenMeasure | None) -> None:
        self._file, self._near, self._measurer = file, near, measure
        self._hashes, self._asked = array("Q"), array("Q")
        self._lengths: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[int]] = {}
        self._tokens = self._trained = 0
        self.rows = 0

    def at(self, rows: Sequence[DataRow]) -> None:
        first = self.rows + 1
        for number, row in enumerate(rows, first):
            self._take(row)
            answer = row.texts[-1]
            if not any(map(str.isalnum, answer)):
                self._note("empty", number, row)
            elif len(answer) > LONG_CHARS:
                self._note("long", number, row, f"{len(answer)} characters")
        if self._measurer is not None:
            for number, row, length in zip(count(first), rows, self._measurer.measure(rows), strict=False):
                self._measure(number, row, *length)
        self.rows += len(rows)

    def compare(self, against: tuple[str, Iterable[DataRow]] | None) -> None:
        """Find duplicates, then rows shared with the other dataset."""
        copies = dict(_repeats(self._hashes))
        near = {pair.second: pair for pair in self._near.pairs()}
        for second in sorted(copies.keys() | near.keys()):
            if second in copies:
                self._write(Finding("duplicate", second + 1, copies[second] + 1))
            else:
                pair = near[second]
                self._write(Finding("near_duplicate", second + 1, pair.first + 1, f"{pair.similarity:.2f}"))
        if against is not None:
            self._leaks(*against)

    def _leaks(self, name: str, others: Iterable[DataRow]) -> None:
        border = self.rows
        for row in others:
            self._take(row)
        asked: dict[int, int] = {}
        for at in range(border):
            asked.setdefault(self._asked[at], at)
        same = {
            at: (asked[self._asked[at]], "same question")
            for at in range(border, len(self._asked))
            if self._asked[at] in asked
        }
        alike = {pair.second: (pair.first, f"{pair.similarity:.2f} alike") for pair in self._near.pairs_across(border)}
        for at, (first, how) in sorted({**alike, **same}.items()):
            self._write(Finding("leak", first + 1, at - border + 1, f"row {at - border + 1} of {name}: {how}"))

    def summary(self, against: str) -> QualityReport:
        measured = self._measurer
        return QualityReport(
            made_at=time(),
            rows=self.rows,
            model=measured.model if measured else "",
            max_length=measured.max_length if measured else 0,
            tokens=self._tokens if measured else None,
            tokens_per_epoch=self._trained if measured else None,
            longest=max(self._lengths, default=0) if measured else None,
            histogram=histogram(self._lengths),
            against=against,
            counts=dict(self._counts),
            first={kind: tuple(rows) for kind, rows in self._first.items()},
        )

    def _take(self, row: DataRow) -> None:
        whole = "\0".join(row.texts)
        self._hashes.append(_digest(whole))
        asked = row.text if isinstance(row, Passage) else row.asked
        self._asked.append(_digest(" ".join(asked.split()).lower()))
        self._near.add("\n".join(row.texts))

    def _measure(self, number: int, row: DataRow, tokens: int | None, learns: bool) -> None:
        assert self._measurer is not None
        if tokens is None:
            self._note("refused", number, row)
            return
        self._tokens += tokens
        self._lengths[tokens] += 1
        if not learns:
            self._note("left_out", number, row, f"{tokens} tokens")
            return
        self._trained += min(tokens, self._measurer.max_length)
        if tokens > self._measurer.max_length:
            self._note("cut", number, row, f"{tokens} tokens")

    def _note(self, kind: FindingKind, number: int, row: DataRow, detail: str = "") -> None:
        self._write(Finding(kind, number, None, detail, origin_text(row)))

    def _write(self, finding: Finding) -> None:
        self._counts[finding.kind] += 1
        named = self._first.setdefault(finding.kind, [])
        if len(named) < NAMED and finding.row is not None:
            named.append(finding.row)
        self._file.write(as_line(finding))


def origin_text(row: DataRow) -> str:
    """Where a row came from, in one line."""
    origin = row.origin
    where = f"{origin.file}:{origin.row}" if origin.row is not None else origin.file
    paged = f"{where} p. {origin.page}" if origin.page is not None else where
    return " › ".join([paged, *origin.heading])


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")


def _repeats(hashes: "array[int]") -> Iterator[tuple[int, int]]:
    """(later index, first index) of every repeated number."""
    import numpy as np

    if not hashes:
        return
    values = np.frombuffer(hashes, dtype=np.uint64)
    _, first, back = np.unique(values, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[back] != np.arange(len(values)))
    yield from ((int(at), int(first[back[at]])) for at in again)
