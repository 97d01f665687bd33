"""Rows generated from a dataset's rows, saved one by one so that a job can resume."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sage_studio import files
from sage_studio.data.dataset import Dataset, SourceKind
from sage_studio.data.jobs import Running
from sage_studio.data.quality import in_batches
from sage_studio.data.rows import DataRow, row_from_json
from sage_studio.data.synthesis import DerivedSource, taken_from
from sage_studio.text import Text

GENERATED = "rows.jsonl"
PARALLEL = 4
"""Requests sent at once; an inference engine answers several in about the time of one."""

Generate = Callable[[str, float, int], str]
"""(prompt, temperature, max_tokens) -> completion."""

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


@dataclass(slots=True)
class GeneratedRows:
    """What was generated from one source row: the rows kept, and the number of candidates rejected by reason."""

    rows: list[DataRow] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def generate_rows(
    running: Running,
    rows: Iterator[DataRow],
    total: int,
    generate: Callable[[int, DataRow], GeneratedRows],
    doing: Text,
) -> None:
    """Generate from each source row, several at once, in order; source rows already in the job's file are skipped.

    Args:
        rows: the source rows, of which the first ``total`` are used.
        generate: called with the number of a row (from 1) and the row, by several threads at once.
        doing: what the job is doing, for its status.

    Raises:
        JobStopped, and whatever ``generate`` raises; what was finished before stays in the file.
    """
    path = running.folder / GENERATED
    done = files.mend(path)
    for _ in range(done):
        next(rows, None)
    running.tell(done, total, doing)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for batch in in_batches(rows, PARALLEL):
            batch = batch[: total - done]
            if not batch:
                break
            numbers = range(done + 1, done + 1 + len(batch))
            for number, generated in zip(numbers, pool.map(generate, numbers, batch), strict=True):
                files.append(path, [_to_json(number, generated)])
                done = number
            running.tell(done, total, doing)


def read_generated(folder: Path) -> Iterator[tuple[int, GeneratedRows]]:
    """What a job has generated so far: the number (from 1) of each source row, and the rows made from it."""
    for line in files.complete_lines(folder / GENERATED):
        values = json.loads(line)
        yield (
            values["source"],
            GeneratedRows([row_from_json(row) for row in values["rows"]], Counter(values["refused"])),
        )


class GeneratedSource(DerivedSource):
    """The rows that a job generated, preceded by the original rows if they are to be kept.

    Args:
        folder: the job's.
        originals: the source rows to keep as well; None to leave them out.
        reasons: what each key of `GeneratedRows.rejected` means.
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
        """First the originals, then the rows generated from them, both in the order of the source."""
        for number, row in enumerate(self._originals or (), 1):
            yield taken_from(row, self._dataset, number)
        for number, generated in read_generated(self._folder):
            yield from generated.rows
            for reason, count in generated.rejected.items():
                for _ in range(count):
                    self.left_out.add(self._reasons[reason], f"{self._dataset.id}:{number}")


def clean_completion(completion: str) -> str:
    """A completion without the labels and quotation marks that models put around their answer.

    Example:
        >>> clean_completion('Paraphrase: "It is late."')
        'It is late.'
    """
    text = completion.strip()
    for label in LABELS:
        if text.lower().startswith(label):
            text = text[len(label) :].strip()
    for opening, closing in QUOTES:
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing):
            text = text[1:-1].strip()
    return text


def _to_json(number: int, generated: GeneratedRows) -> str:
    rows = [row.to_json() for row in generated.rows]
    return json.dumps({"source": number, "rows": rows, "refused": dict(generated.rejected)}, ensure_ascii=False)
