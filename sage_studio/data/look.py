"""What a data file is, before anything is kept of it: its columns, its first rows and the formats of all its rows.

Knows how to look. Knows nothing of where it is shown.
"""

from dataclasses import dataclass
from typing import Any

from sage_studio.data.dataset import FormatCount
from sage_studio.data.example import RowKind
from sage_studio.data.files.content import Content
from sage_studio.data.files.kinds import Kind, kind_of
from sage_studio.data.files.records import first_records, records_of
from sage_studio.data.formats import RecordReader
from sage_studio.data.unread import Unread
from sage_studio.errors import InvalidDataset, UnknownColumns

SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class Look:
    """What a file holds.

    Attributes:
        container: ``JSON``, ``CSV``, ``PDF``, ….
        columns: of its first thousand rows, in order of appearance; none for documents and bare text.
        sample: its first rows, as they stand.
        rows: how many were read: all, unless one is of no known format or wrong.
        formats: those of the rows that were read, the most frequent first.
        row_kind: what can be learned from them; None where no row could be read.
        fault: why a row cannot be used as it stands; None where all can.
    """

    container: str
    columns: tuple[str, ...] = ()
    sample: tuple[dict[str, Any], ...] = ()
    rows: int = 0
    formats: tuple[FormatCount, ...] = ()
    row_kind: RowKind | None = None
    fault: InvalidDataset | None = None

    @property
    def needs_mapping(self) -> bool:
        """Whether somebody has to say which column is which."""
        return isinstance(self.fault, UnknownColumns)


def look_at(content: Content) -> Look:
    """Look at a file, all of it. Raises `InvalidDataset` where it is of no kind that can be read."""
    kind = kind_of(content)
    if not kind.holds_rows:
        return Look(str(kind))
    columns, sample = _first_rows(content, kind)
    reader, unread = RecordReader(content.name), Unread()
    row_kind: RowKind | None = None
    fault = None
    try:
        for number, record in enumerate(records_of(content, kind), 1):
            row = reader.read(record, number)
            unread.see(record)
            row_kind = row_kind or (row.kind if row is not None else None)
    except InvalidDataset as error:
        fault = error
    return Look(str(kind), columns, sample, reader.rows, unread.beside(reader.formats), row_kind, fault)


def columns_of(content: Content) -> tuple[str, ...]:
    """The columns of a data file's first thousand rows, as far as they can be read."""
    return _first_rows(content, kind_of(content))[0]


def _first_rows(content: Content, kind: Kind) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
    columns: dict[str, None] = {}
    sample: list[dict[str, Any]] = []
    for record in first_records(content, kind):
        if isinstance(record, dict):
            columns.update(dict.fromkeys(record))
            if len(sample) < SHOWN_ROWS:
                sample.append(record)
    return tuple(columns), tuple(sample)
