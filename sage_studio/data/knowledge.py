"""A knowledge base on this machine as a source of passages: one file, or a folder of documents and JSON.

Knows which files are taken and that each becomes passages. Knows nothing of how a file is read (`sources`), nor of
training.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sage_studio.data.dataset import Dropped, FormatCount, LeftOut, SourceKind
from sage_studio.data.example import DataRow, Example, Passage
from sage_studio.data.files.kinds import DOCUMENTS, JSONS
from sage_studio.data.sources import source_of_file
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
        self._left_out = LeftOut()
        self._kinds: dict[str, None] = {}
        self.name = path.stem or "knowledge"
        self.source = path.name

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out so far."""
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
        self._left_out, self._kinds = LeftOut(), {}
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
        found = [path for path in sorted(self._path.rglob("*")) if self._is_taken(path)]
        if not found:
            raise self._unusable("holds none of these", "中没有可用的文件")
        return found

    def _is_taken(self, path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(self._path).parts)
        return path.suffix.lower() in TAKEN and path.is_file() and not path.is_symlink() and not hidden

    def _named(self, file: Path) -> str:
        return file.relative_to(self._path).as_posix() if file != self._path else file.name

    def _passages(self, file: Path) -> Iterator[Passage]:
        """The texts of a file; of questions with answers the answers."""
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
