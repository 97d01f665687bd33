"""A data file that somebody brought, as a source of rows: streamed, whatever its size.

Knows which files can be taken. Knows nothing of how they are read (`files`) or what the keys of a row mean (`formats`).
Nothing in a file is ever run.
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

from sage_studio.data.dataset import Dropped, FormatCount
from sage_studio.data.example import DataRow
from sage_studio.data.files.content import MIB, Content
from sage_studio.data.files.encoding import encoding_of, not_text
from sage_studio.data.files.json_records import empty_file
from sage_studio.data.files.kinds import Kind, kind_of
from sage_studio.data.files.records import first_records, records_of
from sage_studio.data.formats import RecordReader
from sage_studio.data.mapping import ColumnMapping
from sage_studio.data.parts.cutting import cuts_of, is_large
from sage_studio.data.parts.part import Order, Part
from sage_studio.data.parts.readers import ReadAsOne, Readers, reader_count
from sage_studio.data.unread import Unread
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
        self._content = Content(path, max_bytes)
        self._mapping = mapping
        self._reader = RecordReader(path.name, mapping)
        self.name = name or path.name.removesuffix(".gz").rpartition(".")[0] or path.name
        self.source = path.name
        self.container = ""

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out so far; complete once `examples` is exhausted."""
        return self._reader.dropped

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats found so far, each with the columns of its first rows of which nothing is made."""
        formats = self._reader.formats
        if formats:
            unread = Unread(self._mapping)
            unread.see_all(first_records(self._content, kind_of(self._content)))
            return unread.beside(formats)
        return formats

    def examples(self) -> Iterator[DataRow]:
        """The usable rows, in order, in one pass over the file.

        Raises:
            UnknownColumns: a row has the keys of no format.
            InvalidDataset: the file or a row of it cannot be used; a fault in a row names the row, counted from 1.
        """
        kind = self._begin()
        usable = 0
        for row, record in enumerate(records_of(self._content, kind), 1):
            example = self._reader.read(record, row)
            if example is not None:
                usable += 1
                yield example
        self._check_usable(usable)

    def parts(self, into: Path, sampling: bool) -> Generator[Part]:
        """The same rows of a large JSONL file, read and written by several processes; raises what `examples` raises.

        Args:
            into: the file that their lines are written into, one part behind the other.
            sampling: whether some texts are wanted to be tokenized.

        Raises:
            ReadAsOne: it has to be read by one, from its begin.
        """
        count = reader_count()
        if count < 2 or not is_large(self._content.path):
            raise ReadAsOne(f"{self.source} is small")
        cuts = cuts_of(self._content) if self._begin() is Kind.JSON else []
        if not cuts:
            raise ReadAsOne(f"{self.source} is not JSONL in UTF-8")
        mapping = self._mapping.model_dump_json() if self._mapping is not None else ""
        path = str(self._content.path.resolve())
        orders = [Order(path, begin, end, self.source, str(into), mapping, sampling) for begin, end in cuts]
        usable = 0
        with Readers(count) as readers:
            for part in readers.read(orders):
                self._check(part)
                usable += len(part.lengths)
                yield part
        self._check_usable(usable)

    def _begin(self) -> Kind:
        check_file(self._content.path, self._content.max_bytes)
        kind = kind_of(self._content)
        if not kind.holds_rows:
            raise not_text(self._content, str(kind))
        self.container = f"{kind}.gz" if self._content.is_packed else str(kind)
        self._reader = RecordReader(self.source, self._mapping)
        return kind

    def _check(self, part: Part) -> None:
        """Count what was seen. Where something is wrong, it may be the encoding: only the whole file tells that."""
        try:
            self._reader.merge(part.seen)
            if part.fault is not None:
                raise part.fault.raised()
        except InvalidDataset:
            self._check_encoding()
            raise
        if not part.is_utf8:
            self._check_encoding()

    def _check_encoding(self) -> None:
        if not encoding_of(self._content).startswith("utf-8"):
            raise ReadAsOne(f"{self.source} is not in UTF-8")

    def _check_usable(self, usable: int) -> None:
        """Raise `InvalidDataset` for a file whose rows were all left out."""
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
        raise InvalidDataset(
            Text(
                f"{path.name} has {size / MIB:.1f} MiB; the limit is {max_bytes / MIB:.1f} MiB.",
                f"{path.name} 有 {size / MIB:.1f} MiB，上限为 {max_bytes / MIB:.1f} MiB。",
            ),
            Text(
                "Split the file, or raise SAGE_STUDIO_MAX_UPLOAD_MB.", "请拆分文件，或调大 SAGE_STUDIO_MAX_UPLOAD_MB。"
            ),
        )
    if size == 0:
        raise empty_file(path.name)
