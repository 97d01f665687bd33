"""A close look at all rows of a dataset: copies, leaks, answers too short or too long, lengths by a real tokenizer.

Knows what to look for and how to sum it up. Knows no tokenizer: it is given a yardstick. One pass over the rows; memory
grows by some 40 bytes a row.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from time import time
from typing import TextIO

from pydantic import TypeAdapter

from sage_studio.data.dataset import OnProgress, ignore_progress
from sage_studio.data.example import DataRow, Passage
from sage_studio.data.quality.findings import FINDINGS, Finding, Kind, as_line
from sage_studio.data.quality.near import NearDuplicates
from sage_studio.data.report import histogram
from sage_studio.files import write_atomically
from sage_studio.text import Text

INSPECTION = "inspection.json"
LONG_CHARS = 20_000
CHUNK = 256
NAMED = 5
"""Rows that the sum names for each kind."""
READING = Text("Reading rows", "正在读取数据")
COMPARING = Text("Comparing rows", "正在比对数据")


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The tokenizer of the chosen model and the length at which a row is cut.

    Attributes:
        measure: per row its tokens and whether the cut leaves something to learn; tokens None for a row refused.
    """

    model: str
    max_length: int
    measure: Callable[[Sequence[DataRow]], Iterable[tuple[int | None, bool]]]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found. Tokens are None and the rest of their figures empty where no tokenizer was at hand.

    Attributes:
        tokens: of all rows, uncut; ``tokens_per_epoch`` as they are trained on.
        histogram: (upper bound in tokens, rows up to it) pairs, ascending.
        against: the dataset that was searched for leaks.
        counts: findings per kind, of the rows that are in the dataset; ``first`` names the first rows of each.
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


AS_JSON = TypeAdapter(Inspection)


def inspect(
    folder: Path,
    rows: Iterable[DataRow],
    total: int,
    yardstick: Yardstick | None = None,
    against: tuple[str, Iterable[DataRow]] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Inspection:
    """Look at rows, and keep the findings and their sum in a folder.

    Args:
        folder: the dataset's.
        rows: all of them, in order; ``total`` of them, for the progress.
        yardstick: None to leave tokens out.
        against: id and rows of another dataset, usually the one to validate with, to search for leaks.
        on_progress: may raise, to stop; the findings of an earlier look are then untouched.
    """
    draft = folder / f".{FINDINGS}"
    try:
        with draft.open("w", encoding="utf-8") as file, NearDuplicates(folder) as near:
            look = _Look(file, near, yardstick)
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


def read_inspection(folder: Path) -> Inspection | None:
    """What the last look found; None before the first."""
    try:
        return AS_JSON.validate_json((folder / INSPECTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def in_batches(rows: Iterable[DataRow], size: int) -> Iterator[list[DataRow]]:
    """So many at a time, the last of them maybe fewer."""
    rest = iter(rows)
    while batch := list(islice(rest, size)):
        yield batch


class _Look:
    def __init__(self, file: TextIO, near: NearDuplicates, yardstick: Yardstick | None) -> None:
        self._file, self._near, self._yardstick = file, near, yardstick
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
        if self._yardstick is not None:
            for number, row, length in zip(count(first), rows, self._yardstick.measure(rows), strict=False):
                self._measure(number, row, *length)
        self.rows += len(rows)

    def compare(self, against: tuple[str, Iterable[DataRow]] | None) -> None:
        """Copies among the rows, then rows that the other dataset has too."""
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

    def summary(self, against: str) -> Inspection:
        measured = self._yardstick
        return Inspection(
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
        assert self._yardstick is not None
        if tokens is None:
            self._note("refused", number, row)
            return
        self._tokens += tokens
        self._lengths[tokens] += 1
        if not learns:
            self._note("left_out", number, row, f"{tokens} tokens")
            return
        self._trained += min(tokens, self._yardstick.max_length)
        if tokens > self._yardstick.max_length:
            self._note("cut", number, row, f"{tokens} tokens")

    def _note(self, kind: Kind, number: int, row: DataRow, detail: str = "") -> None:
        self._write(Finding(kind, number, None, detail, place_of(row)))

    def _write(self, finding: Finding) -> None:
        self._counts[finding.kind] += 1
        named = self._first.setdefault(finding.kind, [])
        if len(named) < NAMED and finding.row is not None:
            named.append(finding.row)
        self._file.write(as_line(finding))


def place_of(row: DataRow) -> str:
    """Where a row came from, in one line."""
    origin = row.origin
    where = f"{origin.file}:{origin.row}" if origin.row is not None else origin.file
    paged = f"{where} p. {origin.page}" if origin.page is not None else where
    return " › ".join([paged, *origin.heading])


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")


def _repeats(hashes: "array[int]") -> Iterator[tuple[int, int]]:
    """(a later place, the first place) of every number that comes again."""
    import numpy as np

    if not hashes:
        return
    values = np.frombuffer(hashes, dtype=np.uint64)
    _, first, back = np.unique(values, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[back] != np.arange(len(values)))
    yield from ((int(at), int(first[back[at]])) for at in again)
