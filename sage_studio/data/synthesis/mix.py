"""Mix several datasets into one, by weights and caps, shuffled with a seed.

Only row numbers and line offsets are held in memory, about 50 bytes a row; the rows are read as they are written.
"""

import json
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sage_studio.data.dataset import Dataset
from sage_studio.data.row_file import DATA
from sage_studio.data.rows import DataRow, row_from_json
from sage_studio.data.synthesis import DerivedSource, taken_from
from sage_studio.errors import InvalidInput
from sage_studio.fields import Id
from sage_studio.text import Text

MAX_DATASETS = 64
NOT_SAMPLED = Text("not sampled: weight or cap", "未抽取：权重或上限")


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
            Text(
                f"{len(ids)} datasets cannot be combined: {', '.join(ids)}.",
                f"无法合并 {len(ids)} 个数据集：{'、'.join(ids)}。",
            ),
            Text(
                f"Choose 1 to {MAX_DATASETS} datasets, each once.", f"请选择 1 到 {MAX_DATASETS} 个数据集，每个一次。"
            ),
        )
    kinds = {part.dataset.row_kind: part.dataset.id for part in parts}
    if len(kinds) > 1:
        shown = ", ".join(f"{dataset}: {kind}" for kind, dataset in kinds.items())
        raise InvalidInput(
            Text(f"Datasets of different kinds cannot be combined ({shown}).", f"不同类型的数据不能合并（{shown}）。"),
            Text("Choose datasets of one kind.", "请选择同一类型的数据集。"),
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
