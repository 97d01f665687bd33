"""Local files and folders as sources of rows: data files, documents, knowledge bases.

Data files are streamed whatever their size; nothing in them is run.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.dataset import DatasetSource, DropCounter, Dropped, FormatCount, SourceKind
from sage_studio.data.formats import IgnoredColumns, RecordReader
from sage_studio.data.readers.content import MIB, FileContent, detect_encoding, unsupported_file
from sage_studio.data.readers.documents import files_below, single_document, zipped_documents
from sage_studio.data.readers.fast_jsonl import (
    JsonlPart,
    PartSpec,
    ReaderPool,
    ReadSequentially,
    is_large_file,
    part_bounds,
    reader_count,
)
from sage_studio.data.readers.file_type import DOCUMENTS, JSONS, FileType, detect_file_type, first_records, read_records
from sage_studio.data.readers.json import empty_file
from sage_studio.data.rows import DataRow, Example, Passage, RowKind
from sage_studio.data.sources.documents import DocumentRows, DocumentSource
from sage_studio.errors import InvalidDataset, UnknownColumns
from sage_studio.text import Text, verbatim

TAKEN = (*DOCUMENTS, *JSONS)
OF_ANOTHER_KIND = Text("not a text")


class KnowledgeSource:
    """The passages of a file or folder, each with its file and headings.

    Args:
        path: a file, or a folder whose files are taken in the order of their names; hidden ones and links are not.
        max_bytes: refuse a larger file.
    """

    kind: SourceKind = "documents"
    commit: str | None = None
    formats: tuple[FormatCount, ...] = ()

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._left_out = DropCounter()
        self._kinds: dict[str, None] = {}
        self.name = path.stem or "knowledge"
        self.source = path.name

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was dropped so far."""
        return self._left_out.dropped

    @property
    def container(self) -> str:
        """``Markdown, JSON``: the kinds of files read so far."""
        return ", ".join(self._kinds)

    def examples(self) -> Iterator[DataRow]:
        """The passages, in order; of a folder a file that cannot be read is left out and counted.

        Raises:
            InvalidDataset: there is no such file or folder, or nothing usable in it; says why the first file is not.
        """
        self._left_out, self._kinds = DropCounter(), {}
        refused, usable = list[InvalidDataset](), False
        for file in self._files():
            try:
                passages = list(self._passages(file))
            except InvalidDataset as error:
                if file == self._path:
                    raise
                refused.append(error)
                self._left_out.add(error.message, self._named(file))
                continue
            usable = usable or bool(passages)
            yield from passages
        if not usable:
            raise refused[0] if refused else self._unusable(Text("input_path = {path} holds no text.", path=self._path))

    def _files(self) -> list[Path]:
        if self._path.is_file():
            if self._path.suffix.lower() not in TAKEN:
                raise self._unusable(Text("input_path = {path} is none of these.", path=self._path))
            return [self._path]
        if not self._path.is_dir():
            raise self._unusable(Text("input_path = {path} is not there.", path=self._path))
        found = files_below(self._path, TAKEN, hidden=False)
        if not found:
            raise self._unusable(Text("input_path = {path} holds none of these.", path=self._path))
        return found

    def _named(self, file: Path) -> str:
        return file.relative_to(self._path).as_posix() if file != self._path else file.name

    def _passages(self, file: Path) -> Iterator[Passage]:
        """The texts of a file; of question-answer rows, the answers."""
        name = self._named(file)
        source = source_of_file(file, self._max_bytes, rows="passages")
        for row in source.examples():
            origin = replace(row.origin, file=name)
            if isinstance(row, Passage):
                yield replace(row, origin=origin)
            elif isinstance(row, Example):
                yield Passage(row.completion, replace(origin, heading=(row.prompt[-1].content,)))
            else:
                self._left_out.add(OF_ANOTHER_KIND, f"{name}:{row.origin.row}")
        self._kinds.update(dict.fromkeys(source.container.split(", ")))

    def _unusable(self, why: Text) -> InvalidDataset:
        return InvalidDataset(why, Text("Name a file or a folder with {taken}.", taken=list(TAKEN)))


def source_of_file(
    path: Path, max_bytes: int, mapping: ColumnMapping | None = None, rows: DocumentRows = "questions"
) -> DatasetSource:
    """The source for a file, told by its content.

    Args:
        path: the file.
        max_bytes: refuse a larger one, or one that unpacks to more.
        mapping: which column is which key, for records.
        rows: what documents become.

    Raises:
        InvalidDataset: it is of no kind that can be read.
        InvalidInput: the mapping does not fit its format.
    """
    content = FileContent(path, max_bytes)
    check_file(path, max_bytes)
    kind = detect_file_type(content)
    if kind.holds_rows:
        if mapping is not None:
            mapping.check()
        return UploadSource(path, max_bytes, mapping=mapping)
    if kind is FileType.ZIP:
        return DocumentSource(
            partial(zipped_documents, content), path.stem, path.name, rows, about=subject_of(path.stem)
        )
    return DocumentSource(partial(single_document, content, kind), path.stem, path.name, rows)


def subject_of(name: str) -> Text:
    """The name of a set of documents, as used in questions about them."""
    return Text("{name}", context="where something is said", name=name)


# Data files


class UploadSource:
    """The rows of one JSON, JSONL, CSV or Parquet file, gzipped or not.

    Args:
        path: the file.
        max_bytes: refuse a larger one, or one that unpacks to more.
        name: the dataset's name; the file's, without suffix, unless given.
        mapping: which column is which key; None to go by the columns' names.
    """

    kind: Literal["upload"] = "upload"
    commit: str | None = None

    def __init__(self, path: Path, max_bytes: int, name: str = "", mapping: ColumnMapping | None = None) -> None:
        self._content = FileContent(path, max_bytes)
        self._mapping = mapping
        self._reader = RecordReader(path.name, mapping)
        self.name = name or path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        self.source = path.name
        self.container = ""

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was dropped so far; complete once `examples` is exhausted."""
        return self._reader.dropped

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats so far, each with the columns of its first rows that it ignores."""
        formats = self._reader.formats
        if formats:
            ignored = IgnoredColumns(self._mapping)
            ignored.add_all(first_records(self._content, detect_file_type(self._content)))
            return ignored.annotate(formats)
        return formats

    def examples(self) -> Iterator[DataRow]:
        """The usable rows, in order, in one pass over the file.

        Raises:
            UnknownColumns: a row has the keys of no format.
            InvalidDataset: the file or a row of it cannot be used; a fault in a row names the row, counted from 1.
        """
        kind = self._begin()
        usable = 0
        for row, record in enumerate(read_records(self._content, kind), 1):
            example = self._reader.read(record, row)
            if example is not None:
                usable += 1
                yield example
        self._check_usable(usable)

    def parts(self, into: Path, sampling: bool) -> Generator[JsonlPart]:
        """The same rows of a large JSONL file, read and written by several processes; raises what `examples` raises.

        Args:
            into: the file that their lines are written into, one part behind the other.
            sampling: whether some texts are wanted to be tokenized.

        Raises:
            ReadSequentially: it has to be read by one process, from its beginning.
        """
        count = reader_count()
        if count < 2 or not is_large_file(self._content.path):
            raise ReadSequentially(f"{self.source} is small")
        cuts = part_bounds(self._content) if self._begin() is FileType.JSON else []
        if not cuts:
            raise ReadSequentially(f"{self.source} is not JSONL in UTF-8")
        mapping = self._mapping.model_dump_json() if self._mapping is not None else ""
        path = str(self._content.path.resolve())
        specs = [PartSpec(path, begin, end, self.source, str(into), mapping, sampling) for begin, end in cuts]
        usable = 0
        with ReaderPool(count) as readers:
            for part in readers.read(specs):
                self._check(part)
                usable += len(part.lengths)
                yield part
        self._check_usable(usable)

    def _begin(self) -> FileType:
        check_file(self._content.path, self._content.max_bytes)
        kind = detect_file_type(self._content)
        if not kind.holds_rows:
            raise unsupported_file(self._content, str(kind))
        self.container = f"{kind}.gz" if self._content.is_packed else str(kind)
        self._reader = RecordReader(self.source, self._mapping)
        return kind

    def _check(self, part: JsonlPart) -> None:
        """Add the counts of a part. An error may come from another encoding, which only the whole file shows."""
        try:
            self._reader.merge(part.totals)
            if part.error is not None:
                raise part.error.raised()
        except InvalidDataset:
            self._check_encoding()
            raise
        if not part.is_utf8:
            self._check_encoding()

    def _check_encoding(self) -> None:
        if not detect_encoding(self._content).startswith("utf-8"):
            raise ReadSequentially(f"{self.source} is not in UTF-8")

    def _check_usable(self, usable: int) -> None:
        """Raise `InvalidDataset` if all rows were dropped."""
        rows, dropped = self._reader.rows, self.dropped
        if not usable:
            why = [Text("{reason}: {count}", reason=each.reason, count=each.count) for each in dropped]
            raise InvalidDataset(
                Text("{source} has 0 usable rows of {rows} ({why}).", source=self.source, rows=rows, why=why)
                if why
                else Text("{source} has 0 usable rows of {rows}.", source=self.source, rows=rows),
                Text("Every row needs a question and its answer in text."),
            )


def file_too_large(name: Text, size: int, max_bytes: int) -> InvalidDataset:
    """The error for a file of ``size`` bytes where ``max_bytes`` are allowed."""
    return InvalidDataset(
        Text(
            "{name} has {size:.1f} MiB; the limit is {max_bytes:.1f} MiB.",
            name=name,
            size=size / MIB,
            max_bytes=max_bytes / MIB,
        ),
        Text("Split the file, or raise SAGE_STUDIO_MAX_UPLOAD_MB."),
    )


def check_file(path: Path, max_bytes: int) -> None:
    """Raise `InvalidDataset` unless ``path`` is a file that is neither empty nor too large."""
    if path.is_dir():
        raise InvalidDataset(
            Text("{path} is a folder.", path=path),
            Text("Give one file."),
        )
    if not path.is_file():
        raise InvalidDataset(Text("There is no file {path}.", path=path), Text("Check the path."))
    size = path.stat().st_size
    if size > max_bytes:
        raise file_too_large(verbatim(path.name), size, max_bytes)
    if size == 0:
        raise empty_file(path.name)


# Looking into a file

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
