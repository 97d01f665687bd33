"""A dataset on the hub as a source of rows: one file after the other, none kept longer than it is read.

Knows the order of the files and when to stop. How the hub is asked is `hub_files`'; knows nothing of formats.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from sage_studio.data.dataset import Dropped, FormatCount, OnProgress, ignore_progress
from sage_studio.data.example import DataRow
from sage_studio.data.files.content import Content
from sage_studio.data.files.encoding import not_text
from sage_studio.data.files.kinds import kind_of
from sage_studio.data.files.records import records_of
from sage_studio.data.formats import RecordReader
from sage_studio.data.hub_files import Hub
from sage_studio.data.mapping import ColumnMapping
from sage_studio.data.unread import Unread
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text


class HubSource:
    """The rows of one split.

    Args:
        repo: ``owner/name``.
        config: empty for ``default`` or the only one.
        split: empty for ``train`` or the only one.
        max_rows: most rows to take; 0 for all. Files behind them are not fetched.
        max_bytes: refuse a larger file, or one that unpacks to more.
        work_dir: where a file lies while it is read.
        mapping: which column is which key; None to go by the columns' names.
    """

    kind: Literal["hub"] = "hub"

    def __init__(
        self,
        repo: str,
        config: str,
        split: str,
        max_rows: int,
        max_bytes: int,
        work_dir: Path,
        mapping: ColumnMapping | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        self._config, self._split, self._max_rows, self._max_bytes = config, split, max_rows, max_bytes
        self._work_dir, self._on_progress = work_dir, on_progress
        self._reader, self._unread = RecordReader(repo, mapping), Unread(mapping)
        self.name = PurePosixPath(repo).name or "hub"
        self.source, self.container = repo, ""
        self.commit: str | None = None

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out so far."""
        return self._reader.dropped

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats found so far, each with the columns of which nothing is made."""
        return self._unread.beside(self._reader.formats)

    def examples(self) -> Iterator[DataRow]:
        """The usable rows, in order.

        Raises:
            HubUnavailable, NotFound, InvalidInput: as `Hub.files`.
            InvalidDataset: a file cannot be used, naming the row; or there is no usable row.
        """
        rows = 0
        for row in self._rows():
            yield row
            rows += 1
            if rows == self._max_rows:
                return
        if not rows:
            raise InvalidDataset(
                Text(f"{self.source} has no usable row.", f"{self.source} 没有可用的数据。"),
                Text("Choose another split or dataset.", "请选择其他数据划分或数据集。"),
            )

    def _rows(self) -> Iterator[DataRow]:
        self._work_dir.mkdir(parents=True, exist_ok=True)
        with Hub() as hub, tempfile.TemporaryDirectory(dir=self._work_dir, prefix="hub-") as folder:
            found = hub.files(self.source, self._config, self._split)
            self.commit = found.revision
            for file in found.files:
                path = Path(folder) / f"data{''.join(PurePosixPath(file.path).suffixes[-2:])}"
                hub.fetch(file, path, self._max_bytes, self._on_progress)
                yield from self._read(path, file.path)
                path.unlink()

    def _read(self, path: Path, file: str) -> Iterator[DataRow]:
        content = Content(path, self._max_bytes)
        kind = kind_of(content)
        if not kind.holds_rows:
            raise not_text(content, str(kind))
        self.container, self._reader.file = str(kind), file
        for number, record in enumerate(records_of(content, kind), 1):
            row = self._reader.read(record, number)
            self._unread.see(record)
            if row is not None:
                yield row
