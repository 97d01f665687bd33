"""Inspects a data file before anything is kept: its columns, first rows, and the formats of all its rows."""

from dataclasses import dataclass
from typing import Any

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.dataset import FormatCount
from sage_studio.data.formats import IgnoredColumns, RecordReader
from sage_studio.data.readers.content import FileContent
from sage_studio.data.readers.file_type import FileType, detect_file_type
from sage_studio.data.readers.records import first_records, read_records
from sage_studio.data.rows import RowKind
from sage_studio.errors import InvalidDataset, UnknownColumns

SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class FileInspection:
    """What a file holds.

    Attributes:
        container: ``JSON``, ``CSV``, ``PDF``, ….
        columns: of its first thousand rows, in order of appearance; none for documents and bare text.
        sample: its first rows, as they stand.
        rows: how many were read: all, unless one is of no known format or wrong.
        formats: those of the rows that were read, the most frequent first.
        row_kind: what can be learned from them; None where no row could be read.
        fault: why a row cannot be used as it is; None where all can.
        remembered: the column mapping last used for these columns.
        guess: a likely column mapping, where one is needed.
    """

    container: str
    columns: tuple[str, ...] = ()
    sample: tuple[dict[str, Any], ...] = ()
    rows: int = 0
    formats: tuple[FormatCount, ...] = ()
    row_kind: RowKind | None = None
    fault: InvalidDataset | None = None
    remembered: ColumnMapping | None = None
    guess: ColumnMapping | None = None

    @property
    def needs_mapping(self) -> bool:
        """Whether a person has to say which column is which."""
        return isinstance(self.fault, UnknownColumns)


def inspect_file(content: FileContent) -> FileInspection:
    """Inspect a whole file. Raises `InvalidDataset` for an unknown file type."""
    kind = detect_file_type(content)
    if not kind.holds_rows:
        return FileInspection(str(kind))
    columns, sample = _first_rows(content, kind)
    reader, ignored = RecordReader(content.name), IgnoredColumns()
    row_kind: RowKind | None = None
    fault = None
    try:
        for number, record in enumerate(read_records(content, kind), 1):
            row = reader.read(record, number)
            ignored.add(record)
            row_kind = row_kind or (row.kind if row is not None else None)
    except InvalidDataset as error:
        fault = error
    return FileInspection(str(kind), columns, sample, reader.rows, ignored.annotate(reader.formats), row_kind, fault)


def file_columns(content: FileContent) -> tuple[str, ...]:
    """The columns of a data file's first thousand rows, as far as they can be read."""
    return _first_rows(content, detect_file_type(content))[0]


def _first_rows(content: FileContent, kind: FileType) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
    columns: dict[str, None] = {}
    sample: list[dict[str, Any]] = []
    for record in first_records(content, kind):
        if isinstance(record, dict):
            columns.update(dict.fromkeys(record))
            if len(sample) < SHOWN_ROWS:
                sample.append(record)
    return tuple(columns), tuple(sample)
