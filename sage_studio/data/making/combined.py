"""Several datasets as one, by weights and caps, shuffled by a seed; each row names its dataset and row.

Knows numbers of rows and where each row's line begins; the rows themselves are read only as they are written, so memory
grows by some 50 bytes a row. Knows nothing of how a dataset is kept.
"""

import json
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from sage_studio.data.dataset import Dataset
from sage_studio.data.making.derived import DerivedSource, taken_from
from sage_studio.data.row_file import DATA
from sage_studio.data.rows import DataRow, row_from_json
from sage_studio.errors import InvalidInput
from sage_studio.text import Text

MOST_PARTS = 64
NOT_TAKEN = Text("not drawn: weight or cap", "未抽取：权重或上限")


class Portion(BaseModel):
    """How much of a dataset is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: str
    weight: float = Field(1.0, gt=0, le=100, description="1: every row once; 0.5: a random half; 2: every row twice")
    cap: int = Field(0, ge=0, description="At most so many rows; 0: no cap")


@dataclass(frozen=True, slots=True)
class Part:
    """A portion with its dataset and the folder of its rows."""

    portion: Portion
    dataset: Dataset
    folder: Path


class CombinedSource(DerivedSource):
    """The drawn rows of several datasets.

    Args:
        parts: in the order in which the rows stand where they are not shuffled.
        seed: of the draw and of the order; the same seed gives the same dataset.
        shuffle: False to let the rows stand in the order of the parts.

    Raises:
        InvalidInput: no dataset, the same one twice, or rows of more than one kind.
    """

    def __init__(self, name: str, parts: Sequence[Part], seed: int = 42, shuffle: bool = True) -> None:
        check_parts(parts)
        source = " + ".join(f"{part.dataset.id} × {part.portion.weight:g}" for part in parts)
        super().__init__("combined", name, source)
        self._parts, self._seed, self._shuffle = parts, seed, shuffle

    def examples(self) -> Iterator[DataRow]:
        """The rows as they are to stand."""
        draw = random.Random(self._seed)
        which, numbers = array("H"), array("Q")
        for at, part in enumerate(self._parts):
            drawn = drawn_rows(part.dataset.stats.total_samples, part.portion, draw)
            numbers.extend(drawn)
            which.extend([at] * len(drawn))
            for number in _missing(drawn, part.dataset.stats.total_samples):
                self.left_out.add(NOT_TAKEN, f"{part.dataset.id}:{number + 1}")
        order = array("Q", range(len(numbers)))
        if self._shuffle:
            draw.shuffle(order)
        readers = [_Lines(part.folder) for part in self._parts]
        try:
            for at in order:
                part, number = self._parts[which[at]], numbers[at]
                yield taken_from(readers[which[at]].row(number), part.dataset, number + 1)
        finally:
            for reader in readers:
                reader.close()


def drawn_rows(total: int, portion: Portion, draw: random.Random) -> "array[int]":
    """Numbers, from 0, ascending, of the rows that are taken.

    Each as often as the weight's whole part says, and a random share of them once more for the rest of it; where there
    is a cap, a random choice of these.
    """
    whole, rest = divmod(portion.weight, 1)
    numbers = array("Q", sorted([*range(total)] * int(whole) + draw.sample(range(total), round(rest * total))))
    if portion.cap and len(numbers) > portion.cap:
        numbers = array("Q", (numbers[at] for at in sorted(draw.sample(range(len(numbers)), portion.cap))))
    return numbers


def check_parts(parts: Sequence[Part]) -> None:
    """Raise `InvalidInput` unless the datasets can be one."""
    ids = [part.dataset.id for part in parts]
    if not parts or len(parts) > MOST_PARTS or len(set(ids)) < len(ids):
        raise InvalidInput(
            Text(
                f"{len(ids)} datasets cannot be combined: {', '.join(ids)}.",
                f"无法合并 {len(ids)} 个数据集：{'、'.join(ids)}。",
            ),
            Text(f"Choose 1 to {MOST_PARTS} datasets, each once.", f"请选择 1 到 {MOST_PARTS} 个数据集，每个一次。"),
        )
    kinds = {part.dataset.row_kind: part.dataset.id for part in parts}
    if len(kinds) > 1:
        shown = ", ".join(f"{dataset}: {kind}" for kind, dataset in kinds.items())
        raise InvalidInput(
            Text(f"Rows of different kinds cannot be one dataset ({shown}).", f"不同类型的数据不能合并（{shown}）。"),
            Text("Choose datasets of one kind.", "请选择同一类型的数据集。"),
        )


def _missing(drawn: "array[int]", total: int) -> Iterator[int]:
    at = 0
    for number in range(total):
        if at < len(drawn) and drawn[at] == number:
            while at < len(drawn) and drawn[at] == number:
                at += 1
        else:
            yield number


class _Lines:
    """The rows of a ``data.jsonl`` in any order."""

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
