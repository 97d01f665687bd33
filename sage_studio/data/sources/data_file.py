"""Data files as sources of rows: JSON, JSONL, CSV and Parquet, streamed whatever their size; nothing in them is run."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.dataset import Dropped, FormatCount
from sage_studio.data.formats import IgnoredColumns, RecordReader
from sage_studio.data.readers.content import MIB, FileContent
from sage_studio.data.readers.encoding import detect_encoding, unsupported_file
from sage_studio.data.readers.fast_jsonl import (
    JsonlPart,
    PartSpec,
    ReaderPool,
    ReadSequentially,
    is_large_file,
    part_bounds,
    reader_count,
)
from sage_studio.data.readers.file_type import FileType, detect_file_type
from sage_studio.data.readers.json import empty_file
from sage_studio.data.readers.records import first_records, read_records
from sage_studio.data.rows import DataRow
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text


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
        why = Text(
            "; ".join(f"{each.reason.en}: {each.count}" for each in dropped),
            "；".join(f"{each.reason.zh}：{each.count}" for each in dropped),
        )
        if not usable:
            raise InvalidDataset(
                Text(
                    f"{self.source} has 0 usable rows of {rows}{f' ({why.en})' if why else ''}.",
                    f"{self.source} 共 {rows} 行，可用 0 行{f'（{why.zh}）' if why else ''}。",
                ),
                Text("Every row needs a question and its answer in text.", "每一行都需要文本形式的问题和回答。"),
            )


def file_too_large(name: Text, size: int, max_bytes: int) -> InvalidDataset:
    """The error for a file of ``size`` bytes where ``max_bytes`` are allowed."""
    return InvalidDataset(
        Text(
            f"{name.en} has {size / MIB:.1f} MiB; the limit is {max_bytes / MIB:.1f} MiB.",
            f"{name.zh} 有 {size / MIB:.1f} MiB，上限为 {max_bytes / MIB:.1f} MiB。",
        ),
        Text("Split the file, or raise SAGE_STUDIO_MAX_UPLOAD_MB.", "请拆分文件，或调大 SAGE_STUDIO_MAX_UPLOAD_MB。"),
    )


def check_file(path: Path, max_bytes: int) -> None:
    """Raise `InvalidDataset` unless ``path`` is a file that is neither empty nor too large."""
    if path.is_dir():
        raise InvalidDataset(
            Text(f"{path} is a folder.", f"{path} 是文件夹。"),
            Text("Give one file.", "请选择一个文件。"),
        )
    if not path.is_file():
        raise InvalidDataset(
            Text(f"There is no file {path}.", f"文件 {path} 不存在。"), Text("Check the path.", "请检查路径。")
        )
    size = path.stat().st_size
    if size > max_bytes:
        raise file_too_large(Text(path.name, path.name), size, max_bytes)
    if size == 0:
        raise empty_file(path.name)
