"""Local files and folders as sources of rows: any file by its type, and knowledge bases."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.dataset import DatasetSource, DropCounter, Dropped, FormatCount, SourceKind
from sage_studio.data.readers.content import FileContent
from sage_studio.data.readers.documents import files_below, single_document, zipped_documents
from sage_studio.data.readers.file_type import DOCUMENTS, JSONS, FileType, detect_file_type
from sage_studio.data.rows import DataRow, Example, Passage
from sage_studio.data.sources.data_file import UploadSource, check_file
from sage_studio.data.sources.documents import DocumentRows, DocumentSource
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

TAKEN = (*DOCUMENTS, *JSONS)
OF_ANOTHER_KIND = Text("not a text", "不是文本")


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
            raise refused[0] if refused else self._unusable("holds no text", "中没有文本")

    def _files(self) -> list[Path]:
        if self._path.is_file():
            if self._path.suffix.lower() not in TAKEN:
                raise self._unusable("is none of these", "不是可用的文件类型")
            return [self._path]
        if not self._path.is_dir():
            raise self._unusable("is not there", "不存在")
        found = files_below(self._path, TAKEN, hidden=False)
        if not found:
            raise self._unusable("holds none of these", "中没有可用的文件")
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

    def _unusable(self, en: str, zh: str) -> InvalidDataset:
        return InvalidDataset(
            Text(f"input_path = {self._path} {en}.", f"input_path = {self._path} {zh}。"),
            Text(f"Name a file or a folder with {', '.join(TAKEN)}.", f"请指定 {'、'.join(TAKEN)} 文件或其文件夹。"),
        )


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
    return Text(name, f"{name} 中")
