"""What is wrong with which row: written one line a finding, read again for people, CSV and JSONL.

Knows the files ``dropped.jsonl`` (what was left out when the dataset was made) and ``findings.jsonl`` (what a check
found in the rows that are there), both in the dataset's folder. Knows nothing of how anything is found.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from sage_studio.data.dataset import Dropped
from sage_studio.text import Text

DROPPED, FINDINGS = "dropped.jsonl", "findings.jsonl"
Kind = Literal["dropped", "duplicate", "near_duplicate", "leak", "empty", "long", "cut", "left_out", "refused"]

KINDS: dict[Kind, Text] = {
    "dropped": Text("left out when the dataset was made", "建立数据集时已剔除"),
    "duplicate": Text("exact copy of an earlier row", "与前面某行完全相同"),
    "near_duplicate": Text("nearly the same as an earlier row", "与前面某行几乎相同"),
    "leak": Text("also in the other dataset", "另一数据集中也有"),
    "empty": Text("answer without a letter or a digit", "回答没有文字或数字"),
    "long": Text("very long answer", "回答过长"),
    "cut": Text("longer than max_length: its end is cut", "超过 max_length：末尾会被截断"),
    "left_out": Text("nothing left to learn after the cut", "截断后没有可学习的内容"),
    "refused": Text("refused by the chat template", "被对话模板拒绝"),
}
COLUMNS = ("kind", "row", "of", "detail", "where")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one row.

    Attributes:
        row: of the dataset, from 1; None for a row that is not in it.
        of: the row that it repeats, from 1.
        detail: a figure or a reason, in English.
        where: the place in the source: a row number or ``file:line heading``.
    """

    kind: Kind
    row: int | None = None
    of: int | None = None
    detail: str = ""
    where: str = ""


def write_dropped(folder: Path, dropped: Iterable[Dropped]) -> None:
    """Keep what was left out, every place that is known."""
    with (folder / DROPPED).open("w", encoding="utf-8") as file:
        for each in dropped:
            for place in each.rows:
                file.write(as_line(Finding("dropped", detail=each.reason.en, where=place)))


def as_line(finding: Finding) -> str:
    """A line of either file."""
    return json.dumps({name: value for name, value in asdict(finding).items() if value}, ensure_ascii=False) + "\n"


def read_findings(folder: Path, kind: str = "") -> Iterator[Finding]:
    """All that is known of the rows in a folder, what was left out first; of one kind or of all."""
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
    """Line by line, with a byte order mark for spreadsheets; no cell can be taken for a formula."""
    yield "\ufeff".encode() + _csv_line(COLUMNS)
    for finding in findings:
        values = asdict(finding)
        yield _csv_line(["" if values[name] is None else str(values[name]) for name in COLUMNS])


def _csv_line(cells: Iterable[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells])
    return line.getvalue().encode()
