"""Dataset store: one folder and one database row per dataset, written together or not at all."""

import hashlib
import logging
import shutil
import sqlite3
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from time import time

from pydantic import TypeAdapter

from sage_studio.data.dataset import Dataset, DatasetSource, DatasetStats, OnProgress, ignore_progress, write_dropped
from sage_studio.data.readers.fast_jsonl import JsonlPart, ReadableInParts, ReadSequentially
from sage_studio.data.row_file import DATA, Preview, RowPager, RowWriter, read_rows, rows_between
from sage_studio.data.rows import DataRow
from sage_studio.data.statistics import StatsCollector
from sage_studio.database import Database, insert
from sage_studio.errors import InvalidDataset, InvalidName, NotFound, naming_full_disk
from sage_studio.files import safe_name, slug, write_atomically
from sage_studio.text import Text

LONGEST_NAME = 100
MANIFEST = "manifest.json"
UNFINISHED = ".new-"
TELL_EVERY = 1000
logger = logging.getLogger(__name__)
AS_JSON = TypeAdapter(Dataset)
Datasets = list[Dataset]


class DatasetStore:
    """Stores datasets under ``datasets_dir``; thread-safe.

    A new version gets a new id, never one that was used before, even by a deleted dataset.
    """

    def __init__(self, database: Database, datasets_dir: Path) -> None:
        self._database = database
        self._folder = datasets_dir
        self._lock, self._hashing = threading.Lock(), threading.Lock()
        self._pages = RowPager()

    def add(
        self,
        source: DatasetSource,
        name: str = "",
        tokenizer: Path | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> Dataset:
        """Store the rows of a source.

        Args:
            source: read once, row by row.
            name: display name in any script; the source's name unless given.
            tokenizer: a ``tokenizer.json`` to count tokens with; None to estimate.
            on_progress: called every thousand rows; the share is 0 until the end, as a source does not know its length.

        Returns:
            The new dataset, or the one of that name that holds exactly the same rows.

        Raises:
            InvalidName: the name cannot be used.
            InvalidDataset: from the source, naming the row; or it has no row.
            StorageFull: nothing is stored.
        """
        name = checked_name(name or source.name)
        with naming_full_disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=self._folder))
            try:
                writer, stats = _write(source, new, tokenizer, on_progress)
                dataset = self._keep(new, source, name, writer, stats)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        if not dataset.sha256:
            threading.Thread(target=self._hash_behind, args=(dataset,), daemon=True).start()
        return dataset

    def hashed(self, dataset: Dataset) -> Dataset:
        """The dataset with its SHA-256, computed now if it is not known yet. Raises `NotFound`."""
        if dataset.sha256:
            return dataset
        with self._hashing:
            dataset = self.get(dataset.id)
            if dataset.sha256:
                return dataset
            path = self.data_path(dataset.id)
            dataset = replace(dataset, sha256=_sha256(path))
            manifest = AS_JSON.dump_json(dataset, indent=1).decode()
            with self._database.transaction() as sql:
                given = (dataset.sha256, manifest, dataset.id)
                if sql.execute("UPDATE datasets SET sha256 = ?, manifest = ? WHERE id = ?", given).rowcount:
                    write_atomically(path.with_name(MANIFEST), manifest)
        return dataset

    def get(self, dataset_id: str) -> Dataset:
        """One dataset. Raises `NotFound`."""
        rows = self._database.rows("SELECT manifest FROM datasets WHERE id = ?", (dataset_id,))
        if not rows:
            raise NotFound(
                Text(f"There is no dataset {dataset_id}.", f"数据集 {dataset_id} 不存在。"),
                Text("Choose one from the list.", "请从列表中选择。"),
            )
        return AS_JSON.validate_json(rows[0]["manifest"])

    def preview(self, dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> Preview:
        """Some rows, read without the rest of the file; a search reads all of it.

        Args:
            offset: how many rows, or matching rows, to skip; at least 0.
            limit: most rows to return; 1 to 1000.
            search: words to look for in any case; empty for all rows.

        Raises:
            NotFound, InvalidInput.
        """
        dataset = self.get(dataset_id)
        return self._pages.page(self.folder(dataset_id), dataset.stats.total_samples, offset, limit, search)

    def rows(self, dataset_id: str, offset: int = 0) -> Iterator[DataRow]:
        """Its rows in order, from number ``offset`` (from 0) on, read as they are asked for. Raises `NotFound`."""
        return read_rows(self.folder(dataset_id), offset, sys.maxsize)

    def place(self, dataset_id: str) -> Path:
        """The folder of a dataset, whether it exists or not. Raises `InvalidName`."""
        return self._folder / safe_name(dataset_id)

    def folder(self, dataset_id: str) -> Path:
        """The folder of a dataset. Raises `NotFound` if the dataset or its rows are gone."""
        return self.data_path(dataset_id).parent

    def data_path(self, dataset_id: str) -> Path:
        """Its ``data.jsonl``. Raises `NotFound` if the dataset or the file is gone."""
        path = self._folder / safe_name(self.get(dataset_id).id) / DATA
        if not path.is_file():
            raise NotFound(
                Text(
                    f"The file of dataset {dataset_id} is gone: {path}.",
                    f"数据集 {dataset_id} 的文件已不存在：{path}。",
                ),
                Text("Delete the dataset and add it again.", "请删除该数据集并重新添加。"),
            )
        return path

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset and its folder. Raises `NotFound`."""
        dataset = self.get(dataset_id)
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM datasets WHERE id = ?", (dataset.id,))
        shutil.rmtree(self._folder / safe_name(dataset.id), ignore_errors=True)

    def list(self) -> Datasets:
        """All datasets, newest first."""
        rows = self._database.rows("SELECT manifest FROM datasets ORDER BY created_at DESC, id DESC")
        return [AS_JSON.validate_json(row["manifest"]) for row in rows]

    def _keep(self, new: Path, source: DatasetSource, name: str, writer: RowWriter, stats: DatasetStats) -> Dataset:
        """Make the written rows a new version, unless one under this name holds the same rows.

        Files are hashed outside the lock: that of a large dataset takes seconds, in which others can be added.
        """
        stem, compared = slug(name, "dataset"), set[str]()
        sha256 = writer.sha256
        while True:
            for known in self._of_size(stem, writer.bytes):
                if known.id in compared:
                    continue
                compared.add(known.id)
                sha256 = sha256 or _sha256(new / DATA)
                with suppress(NotFound):  # deleted meanwhile
                    known = self.hashed(known)
                if known.sha256 == sha256:
                    return known
            with self._lock:
                if all(known.id in compared for known in self._of_size(stem, writer.bytes)):
                    return self._add_version(new, source, name, stem, writer, stats)

    def _of_size(self, stem: str, size: int) -> Datasets:
        """Versions of a name whose files have exactly ``size`` bytes."""
        rows = self._database.rows("SELECT manifest FROM datasets WHERE slug = ?", (stem,))
        versions = [AS_JSON.validate_json(row["manifest"]) for row in rows]
        return [each for each in versions if each.size_bytes == size and (self._folder / each.id / DATA).is_file()]

    def _add_version(
        self, new: Path, source: DatasetSource, name: str, stem: str, writer: RowWriter, stats: DatasetStats
    ) -> Dataset:
        with self._database.transaction() as sql:
            last = sql.execute("SELECT last FROM dataset_versions WHERE slug = ?", (stem,)).fetchone()
            version = last["last"] + 1 if last else 1
            dataset = Dataset(
                id=f"{stem}-v{version}",
                name=name,
                version=version,
                kind=source.kind,
                source=source.source,
                sha256=writer.sha256,
                size_bytes=writer.bytes,
                created_at=time(),
                stats=stats,
                commit=source.commit,
                row_kind=writer.kind,
                container=source.container,
                formats=source.formats,
            )
            manifest = AS_JSON.dump_json(dataset, indent=1).decode()
            write_atomically(new / MANIFEST, manifest)
            shutil.rmtree(self._folder / dataset.id, ignore_errors=True)  # left by a crash: not in the database
            new.rename(self._folder / dataset.id)
            insert(sql, "dataset_versions", {"slug": stem, "last": version}, replace=True)
            row = {"id": dataset.id, "slug": stem, "version": version, "sha256": dataset.sha256}
            insert(sql, "datasets", {**row, "created_at": dataset.created_at, "manifest": manifest})
        return dataset

    def _hash_behind(self, dataset: Dataset) -> None:
        """Compute the SHA-256 in the background; the dataset can be used meanwhile."""
        try:
            self.hashed(dataset)
        except (NotFound, OSError, sqlite3.Error) as error:
            logger.info("%s: its SHA-256 is left for when it is asked for: %s", dataset.id, error)


def checked_name(name: str) -> str:
    """A dataset's display name, trimmed and normalized.

    Raises:
        InvalidName: empty, too long, or with a slash, a backslash or a control character.
    """
    name = unicodedata.normalize("NFC", name.strip())
    bad = [character for character in name if character in "/\\" or unicodedata.category(character) in ("Cc", "Cs")]
    if not name or len(name) > LONGEST_NAME or bad or name.strip(".") == "":
        raise InvalidName(
            Text(f"{name[:120]!r} cannot be a dataset's name.", f"{name[:120]!r} 不能作为数据集名称。"),
            Text(
                f"Give 1 to {LONGEST_NAME} characters of any script, without slashes and control characters.",
                f"请填写 1 到 {LONGEST_NAME} 个字符，不含斜杠和控制字符。",
            ),
        )
    return name


def _write(
    source: DatasetSource, folder: Path, tokenizer: Path | None, on_progress: OnProgress
) -> tuple[RowWriter, DatasetStats]:
    if isinstance(source, ReadableInParts):
        try:
            with closing(source.parts(folder / DATA, sampling=tokenizer is not None)) as parts:
                return _written(parts, source, folder, tokenizer, on_progress)
        except ReadSequentially as why:
            logger.debug("read by one process: %s", why)
    return _written(source.examples(), source, folder, tokenizer, on_progress)


def _written(
    rows: Iterable[DataRow | JsonlPart],
    source: DatasetSource,
    folder: Path,
    tokenizer: Path | None,
    on_progress: OnProgress,
) -> tuple[RowWriter, DatasetStats]:
    report, told = StatsCollector(tokenizer), 0
    with RowWriter(folder) as writer:
        for each in rows:
            if isinstance(each, JsonlPart):
                _take(each, writer, report, folder)
            else:
                writer.write(each)
                report.add(each)
            if writer.rows - told >= TELL_EVERY:
                told = writer.rows
                on_progress(0.0, Text(f"{told:,} rows", f"{told:,} 行"))
    if not writer.rows:
        raise InvalidDataset(Text(f"{source.source} has no row.", f"{source.source} 没有任何一行。"))
    write_dropped(folder, source.dropped)
    stats = report.stats(tuple(dropped.shortened for dropped in source.dropped))
    on_progress(1.0, Text(f"{writer.rows:,} rows", f"{writer.rows:,} 行"))
    return writer, stats


def _take(part: JsonlPart, writer: RowWriter, report: StatsCollector, folder: Path) -> None:
    begin = writer.bytes
    if part.kind is not None:
        writer.note(part.lengths, part.kind)
    report.merge(part.stats, rows_between(folder, begin, writer.bytes))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
