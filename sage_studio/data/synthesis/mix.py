"""New datasets from rows of others: mixed by weights and caps, edited, or excluded.

Only row numbers and line offsets are held in memory, about 50 bytes a row; the rows are read as they are written.
"""

import json
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sage_studio.data.dataset import Dataset
from sage_studio.data.rows import DataRow, Example, Message, Passage, Preference, row_from_json
from sage_studio.data.store import DATA
from sage_studio.data.synthesis import DerivedSource, origin_in, taken_from
from sage_studio.errors import InvalidInput
from sage_studio.fields import Id
from sage_studio.text import Text

MAX_DATASETS = 64
NOT_SAMPLED = Text("not sampled: weight or cap")


class MixtureWeight(BaseModel):
    """How much of a dataset goes into a mixture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: Id
    weight: float = Field(1.0, gt=0, le=100, description="1: every row once; 0.5: a random half; 2: every row twice")
    cap: int = Field(0, ge=0, description="Maximum number of rows; 0: no cap")


@dataclass(frozen=True, slots=True)
class MixturePart:
    """A dataset of a mixture, its weight, and the folder of its rows."""

    weight: MixtureWeight
    dataset: Dataset
    folder: Path


class MixedSource(DerivedSource):
    """The sampled rows of several datasets.

    Args:
        parts: in the order in which their rows follow each other if not shuffled.
        seed: of the sampling and of the order; the same seed gives the same dataset.
        shuffle: False to keep the order of the parts.

    Raises:
        InvalidInput: no dataset, the same one twice, or rows of more than one kind.
    """

    def __init__(self, name: str, parts: Sequence[MixturePart], seed: int = 42, shuffle: bool = True) -> None:
        check_parts(parts)
        source = " + ".join(f"{part.dataset.id} × {part.weight.weight:g}" for part in parts)
        super().__init__("combined", name, source)
        self._parts, self._seed, self._shuffle = parts, seed, shuffle

    def examples(self) -> Iterator[DataRow]:
        """The rows of the mixture, in order."""
        rng = random.Random(self._seed)
        which, numbers = array("H"), array("Q")
        for at, part in enumerate(self._parts):
            total = part.dataset.stats.total_samples
            sampled = sample_numbers(total, part.weight, rng)
            numbers.extend(sampled)
            which.extend([at] * len(sampled))
            taken = bytearray(total)
            for number in sampled:
                taken[number] = True
            for number, is_taken in enumerate(taken, 1):
                if not is_taken:
                    self.left_out.add(NOT_SAMPLED, f"{part.dataset.id}:{number}")
        order = array("Q", range(len(numbers)))
        if self._shuffle:
            rng.shuffle(order)
        readers = [_RowReader(part.folder) for part in self._parts]
        try:
            for at in order:
                part, number = self._parts[which[at]], numbers[at]
                yield taken_from(readers[which[at]].row(number), part.dataset, number + 1)
        finally:
            for reader in readers:
                reader.close()


def sample_numbers(total: int, weight: MixtureWeight, rng: random.Random) -> "array[int]":
    """The numbers of the sampled rows, from 0, ascending.

    Every row is taken as often as the integer part of the weight says, and a random share of the rows, its fraction,
    once more. A cap keeps a random choice of these.
    """
    whole, fraction = divmod(weight.weight, 1)
    numbers = array("Q", sorted([*range(total)] * int(whole) + rng.sample(range(total), round(fraction * total))))
    if weight.cap and len(numbers) > weight.cap:
        numbers = array("Q", (numbers[at] for at in sorted(rng.sample(range(len(numbers)), weight.cap))))
    return numbers


def check_parts(parts: Sequence[MixturePart]) -> None:
    """Raise `InvalidInput` unless the datasets can be mixed."""
    ids = [part.dataset.id for part in parts]
    if not parts or len(parts) > MAX_DATASETS or len(set(ids)) < len(ids):
        raise InvalidInput(
            Text("{count} datasets cannot be combined: {ids}.", count=len(ids), ids=list(ids)),
            Text("Choose 1 to {max_datasets} datasets, each once.", max_datasets=MAX_DATASETS),
        )
    kinds = {part.dataset.row_kind: part.dataset.id for part in parts}
    if len(kinds) > 1:
        shown = ", ".join(f"{dataset}: {kind}" for kind, dataset in kinds.items())
        raise InvalidInput(
            Text("Datasets of different kinds cannot be combined ({shown}).", shown=shown),
            Text("Choose datasets of one kind."),
        )


class _RowReader:
    """Random access to the rows of a ``data.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / DATA).open("rb")
        self._offsets, at = array("Q"), 0
        for line in self._file:
            self._offsets.append(at)
            at += len(line)

    def row(self, number: int) -> DataRow:
        self._file.seek(self._offsets[number])
        return row_from_json(json.loads(self._file.readline()))

    def close(self) -> None:
        self._file.close()


# Editing

EXCLUDED = Text("excluded by hand")


class RowChange(BaseModel):
    """The edit of one row; a text that is null is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: int = Field(ge=1, description="Number of the row, from 1")
    exclude: bool = False
    question: str | None = Field(None, description="The last turn of the prompt, or the query")
    answer: str | None = Field(None, description="The answer, chosen answer, first positive passage, or text")
    rejected: str | None = Field(None, description="The rejected answer of a preference")


class EditedSource(DerivedSource):
    """The edited rows of a dataset.

    Raises:
        InvalidInput: a change names no row or the same row as another, or would empty a text.
    """

    def __init__(self, dataset: Dataset, rows: Iterable[DataRow], changes: Sequence[RowChange]) -> None:
        super().__init__(dataset.kind, dataset.name, dataset.source, dataset.commit)
        self.container, self.formats = dataset.container, dataset.formats
        self._dataset, self._rows = dataset, rows
        self._changes = _changes_by_row(dataset, changes)

    def examples(self) -> Iterator[DataRow]:
        """The rows, in their order."""
        for number, row in enumerate(self._rows, 1):
            change = self._changes.get(number)
            if change is None:
                yield row
            elif change.exclude:
                self.left_out.add(EXCLUDED, f"{self._dataset.id}:{number}")
            else:
                yield replace(
                    apply_change(row, change), origin=origin_in(row.origin, self._dataset.id, number, "edited")
                )


def apply_change(row: DataRow, change: RowChange) -> DataRow:
    """The row with the texts of a change."""
    if isinstance(row, (Example, Preference)) and change.question is not None:
        row = replace(row, prompt=(*row.prompt[:-1], Message(row.prompt[-1].role, change.question)))
    if isinstance(row, Example):
        return row if change.answer is None else replace(row, completion=change.answer)
    if isinstance(row, Preference):
        chosen = row.chosen if change.answer is None else change.answer
        return replace(row, chosen=chosen, rejected=row.rejected if change.rejected is None else change.rejected)
    if isinstance(row, Passage):
        return row if change.answer is None else replace(row, text=change.answer)
    query = row.query if change.question is None else change.question
    return replace(row, query=query, pos=row.pos if change.answer is None else (change.answer, *row.pos[1:]))


def _changes_by_row(dataset: Dataset, changes: Sequence[RowChange]) -> Mapping[int, RowChange]:
    if not changes:
        raise InvalidInput(Text("No change was given."), Text("Edit or exclude a row."))
    found: dict[int, RowChange] = {}
    for change in changes:
        if change.row > dataset.stats.total_samples or change.row in found:
            raise InvalidInput(
                Text(
                    "Row {row} of {id} cannot be changed: it does not exist, or is given twice.",
                    row=change.row,
                    id=dataset.id,
                ),
                Text("Give each row once, from 1 to {total_samples}.", total_samples=dataset.stats.total_samples),
            )
        texts = (change.question, change.answer, change.rejected)
        if any(text is not None and not text.strip() for text in texts):
            raise InvalidInput(
                Text("Row {row}: a text must not be empty.", row=change.row),
                Text("Exclude the row instead."),
            )
        found[change.row] = change
    return found
