"""What all sources have in common whose rows come from other datasets.

Knows the words that a dataset's manifest asks for. Knows nothing of how the rows are made.
"""

from dataclasses import replace

from sage_studio.data.dataset import Dataset, DropCounter, Dropped, FormatCount, SourceKind
from sage_studio.data.rows import DataRow, Origin


class DerivedSource:
    """A `DatasetSource` but for its ``examples``."""

    def __init__(self, kind: SourceKind, name: str, source: str, commit: str | None = None) -> None:
        self.kind: SourceKind = kind
        self.name = name
        self.source = source
        self.commit = commit
        self.container = ""
        self.formats: tuple[FormatCount, ...] = ()
        self.left_out = DropCounter()

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out so far."""
        return self.left_out.dropped


def taken_from(row: DataRow, dataset: Dataset, number: int, made: str | None = None) -> DataRow:
    """The row with a note of the dataset and the row (from 1) that it was taken from or made of."""
    return replace(row, origin=origin_in(row.origin, dataset.id, number, made))


def origin_in(origin: Origin, dataset_id: str, number: int, made: str | None = None) -> Origin:
    """An origin that also names the dataset and the row (from 1)."""
    return replace(origin, dataset=dataset_id, dataset_row=number, made=made or origin.made)
