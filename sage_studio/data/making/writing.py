"""Rows that a model writes, kept line by line while they come, so that the work can be stopped and gone on with.

Knows the file: one line for each row of the source, with what was made of it and why the rest was not kept. Knows
nothing of what is asked of the model; it is given a function that answers.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sage_studio.data.dataset import Dataset, SourceKind
from sage_studio.data.jobs import Running
from sage_studio.data.making.derived import DerivedSource, taken_from
from sage_studio.data.quality import in_batches
from sage_studio.data.rows import DataRow, row_from_json
from sage_studio.text import Text

MADE = "rows.jsonl"
PARALLEL = 4
"""Rows at a time; an engine answers several requests in about the time of one."""

Ask = Callable[[str, float, int], str]
"""(prompt, temperature, most tokens) -> the model's answer."""


@dataclass(slots=True)
class Made:
    """What was made of one row of the source, and how many tries were not kept, per reason."""

    rows: list[DataRow] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def write_all(
    running: Running, rows: Iterator[DataRow], total: int, make: Callable[[int, DataRow], Made], doing: Text
) -> None:
    """Have something made of each row, several at a time, in order; go on behind what the job's file holds already.

    Args:
        rows: of the source, the first ``total`` of which are used.
        make: called with the row's number, from 1, and the row; by several threads at once.

    Raises:
        JobStopped, and whatever ``make`` raises; what was finished before stays in the file.
    """
    path = running.folder / MADE
    done = _mend(path)
    for _ in range(done):
        next(rows, None)
    running.tell(done, total, doing)
    with path.open("a", encoding="utf-8") as file, ThreadPoolExecutor(PARALLEL) as pool:
        for batch in in_batches(rows, PARALLEL):
            batch = batch[: total - done]
            if not batch:
                break
            numbers = range(done + 1, done + 1 + len(batch))
            for number, made in zip(numbers, pool.map(make, numbers, batch), strict=True):
                file.write(_line(number, made))
                done = number
            file.flush()
            running.tell(done, total, doing)


def read_made(folder: Path) -> Iterator[tuple[int, Made]]:
    """What a job has made so far: the number of each row of the source, from 1, and what came of it."""
    path = folder / MADE
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return  # being written
            values = json.loads(line)
            yield values["source"], Made([row_from_json(row) for row in values["rows"]], Counter(values["refused"]))


class MadeSource(DerivedSource):
    """The rows that a job made, behind the rows that they were made of or by themselves.

    Args:
        folder: the job's.
        originals: the rows of the source to be kept too; none to leave them out.
        reasons: what each key of `Made.refused` means.
    """

    def __init__(
        self,
        kind: SourceKind,
        name: str,
        dataset: Dataset,
        folder: Path,
        originals: Iterator[DataRow] | None,
        reasons: dict[str, Text],
    ) -> None:
        super().__init__(kind, name, dataset.id, dataset.commit)
        self._dataset, self._folder, self._originals, self._reasons = dataset, folder, originals, reasons

    def examples(self) -> Iterator[DataRow]:
        """First the originals, then what was made of them, in their order."""
        for number, row in enumerate(self._originals or (), 1):
            yield taken_from(row, self._dataset, number)
        for number, made in read_made(self._folder):
            yield from made.rows
            for reason, times in made.refused.items():
                for _ in range(times):
                    self.left_out.add(self._reasons[reason], f"{self._dataset.id}:{number}")


def spoken(answer: str) -> str:
    """A model's answer without the quotes, labels and bullets that it likes to put around it."""
    text = answer.strip()
    for label in LABELS:
        if text.lower().startswith(label):
            text = text[len(label) :].strip()
    for opening, closing in QUOTES:
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing):
            text = text[1:-1].strip()
    return text


LABELS: Sequence[str] = (
    "rewritten text:",
    "paraphrase:",
    "translation:",
    "rewritten:",
    "here is the paraphrase:",
    "here is the translation:",
    "改写：",
    "改写后：",
    "翻译：",
    "译文：",
)
QUOTES = (('"', '"'), ("“", "”"), ("「", "」"), ("'", "'"))


def _mend(path: Path) -> int:
    """Cut off a line that was not finished, and count the others."""
    if not path.is_file():
        return 0
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("rb+") as file:
            file.truncate(end)
    return content.count(b"\n")


def _line(number: int, made: Made) -> str:
    values = {"source": number, "rows": [row.to_json() for row in made.rows], "refused": dict(made.refused)}
    return json.dumps(values, ensure_ascii=False) + "\n"
