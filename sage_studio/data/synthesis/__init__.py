"""New datasets made from existing ones: edited, mixed, augmented, annotated. Every row names the row it came from."""

from dataclasses import replace

from sage_studio.data.dataset import Dataset, DropCounter, Dropped, FormatCount, SourceKind
from sage_studio.data.rows import DataRow, Origin


class DerivedSource:
    """Base of the sources whose rows come from other datasets: a `DatasetSource` without its ``examples``."""

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
        """Rows dropped so far, by reason."""
        return self.left_out.dropped


def taken_from(row: DataRow, dataset: Dataset, number: int, made: str | None = None) -> DataRow:
    """The row with its provenance: the dataset and the number (from 1) of the row it was copied or derived from.

    Args:
        made: how it was derived, such as ``paraphrase``; None for a copy.
    """
    return replace(row, origin=origin_in(row.origin, dataset.id, number, made))


def origin_in(origin: Origin, dataset_id: str, number: int, made: str | None = None) -> Origin:
    """An origin that also names a dataset and the number (from 1) of a row in it."""
    return replace(origin, dataset=dataset_id, dataset_row=number, made=made or origin.made)
