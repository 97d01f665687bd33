"""Dataset store: one folder and one database row per dataset, written together or not at all.

Rows are in ``data.jsonl``, paged and searched without reading the whole file; the index beside it holds one byte
offset for every hundredth row.
"""

import hashlib
import json
import logging
import shutil
import sqlite3
import sys
import tempfile
import threading
import unicodedata
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from time import time
from types import TracebackType
from typing import BinaryIO, Self

import orjson
from pydantic import TypeAdapter

from sage_studio.data.dataset import Dataset, DatasetSource, DatasetStats, OnProgress, ignore_progress, write_dropped
from sage_studio.data.readers.fast_jsonl import JsonlPart, ReadableInParts, ReadSequentially
from sage_studio.data.rows import DataRow, RowKind, row_from_json
from sage_studio.data.statistics import StatsCollector
from sage_studio.database import Database, insert
from sage_studio.errors import InvalidDataset, InvalidInput, InvalidName, NotFound, naming_full_disk
from sage_studio.files import safe_name, slug, write_atomically
from sage_studio.text import Text

# The file of rows

DATA = "data.jsonl"
INDEX = "index.u64"
STRIDE = 100
ORIGIN, CONTROL, BACKSLASH = b',"origin":{', b"\\u00", ord("\\")
SYNTAX = (
    b'{"prompt":[{"role":"system","content":"},{"role":"user","content":"},{"role":"assistant","content":"}],'
    b'"completion":[{"chosen":[{"rejected":[{"query":"","pos":["","neg":["","neg":[],"text":"'
)
"""JSON syntax of every line; a search term found in it may be in no text."""


class RowWriter:
    """Writes a new ``data.jsonl`` and its index into a folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO = open_for_writing(folder / DATA)
        self._hash: hashlib._Hash | None = hashlib.sha256()
        self._offsets = array("Q")
        self.rows = self.bytes = 0
        self.kind: RowKind = "conversation"

    def write(self, row: DataRow) -> None:
        """Append a row. Raises `InvalidDataset` if its kind differs from that of the rows before."""
        line = orjson.dumps(row.to_json(), option=orjson.OPT_APPEND_NEWLINE)
        self._count((len(line),), row.kind)
        self._file.write(line)
        if self._hash is not None:
            self._hash.update(line)

    def note(self, lengths: Sequence[int], kind: RowKind) -> None:
        """Register rows that another process has written, by their lengths in bytes; `write` may not follow."""
        self._hash = None
        self._count(lengths, kind)

    @property
    def sha256(self) -> str:
        """Of all rows; empty where other processes wrote them."""
        return self._hash.hexdigest() if self._hash is not None else ""

    def _count(self, lengths: Sequence[int], kind: RowKind) -> None:
        if self.rows == 0:
            self.kind = kind
        elif kind != self.kind:
            raise InvalidDataset(
                Text("A {kind} row among {self__kind} rows.", kind=kind, self__kind=self.kind),
                Text("Put them into two datasets."),
            )
        *begins, end = accumulate(lengths, initial=self.bytes)
        self._offsets.extend(begins[-self.rows % STRIDE :: STRIDE])
        self.rows += len(begins)
        self.bytes = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            (self._folder / INDEX).write_bytes(self._offsets.tobytes())


def open_for_writing(path: Path) -> BinaryIO:
    """A new file to append rows to."""
    return path.open("wb")


def read_rows(folder: Path, offset: int, limit: int) -> Iterator[DataRow]:
    """Rows from ``offset`` on, at most ``limit``; what lies before is skipped by the index."""
    index = _index(folder)
    if not index or offset >= len(index) * STRIDE:
        return
    with (folder / DATA).open("rb") as file:
        file.seek(index[offset // STRIDE])
        for number, line in enumerate(file, offset // STRIDE * STRIDE):
            if number >= offset + limit:
                return
            if number >= offset:
                yield row_from_json(orjson.loads(line))


def rows_between(folder: Path, begin: int, end: int) -> Iterator[DataRow]:
    """The rows that lie between two places of the file, in bytes; nothing is read before the first is asked for."""
    with (folder / DATA).open("rb") as file:
        file.seek(begin)
        while file.tell() < end:
            yield row_from_json(orjson.loads(file.readline()))


def rows_at(folder: Path, numbers: Iterable[int]) -> Iterator[DataRow]:
    """The rows with these numbers, from 0, in the order given; one that is not there is left out."""
    for number in numbers:
        yield from read_rows(folder, number, 1)


def search_rows(folder: Path, words: str) -> "array[int]":
    """Numbers, from 0, of the rows that hold ``words`` in a text, in the heading path or in the file's name.

    In any case: of Latin letters, and of scripts without case, for which hardly a line is decoded, and of all others.
    """
    wanted, found, sight = words.casefold(), array("Q"), _sight_of(words)
    with (folder / DATA).open("rb") as file:
        for number, line in enumerate(file):
            seen = sight(line)
            if seen or (
                seen is None and any(wanted in text.casefold() for text in _searched(row_from_json(orjson.loads(line))))
            ):
                found.append(number)
    return found


def _sight_of(words: str) -> Callable[[bytes], bool | None]:
    """A test of a line for the words: True, False, or None if its texts have to be decoded."""
    in_json = json.dumps(words, ensure_ascii=False)[1:-1]
    if not all(map(_has_plain_case, in_json)):
        folded = in_json.casefold()
        return lambda line: None if folded in line.decode().casefold() else False
    needle = in_json.lower().encode()
    is_syntax = needle in SYNTAX

    def sight(line: bytes) -> bool | None:
        lower = line.lower()
        at = lower.find(needle)
        if at < 0:
            return False
        is_escape = lower[at - 1] == BACKSLASH or CONTROL in lower
        return None if is_syntax or is_escape or at > lower.rfind(ORIGIN) else True

    return sight


def _has_plain_case(character: str) -> bool:
    """Whether the character has no case beyond ASCII's, which `bytes.lower` handles."""
    return character.isascii() or character.lower() == character.upper()


def _searched(row: DataRow) -> Iterator[str]:
    yield from row.texts
    yield " › ".join((row.origin.file, *row.origin.heading))


def _index(folder: Path) -> "array[int]":
    """The index; built anew where the file is missing."""
    offsets = array("Q")
    try:
        offsets.frombytes((folder / INDEX).read_bytes())
    except FileNotFoundError:
        at = 0
        with (folder / DATA).open("rb") as file:
            for number, line in enumerate(file):
                if number % STRIDE == 0:
                    offsets.append(at)
                at += len(line)
        (folder / INDEX).write_bytes(offsets.tobytes())
    return offsets


LARGEST_PAGE = 1000
SEARCHES_KEPT = 8


@dataclass(frozen=True, slots=True)
class Preview:
    """A page of rows; ``total`` rows match in all, the first of the page is number ``offset`` of them, from 0.

    Attributes:
        numbers: row numbers in the dataset, from 1.
    """

    rows: tuple[DataRow, ...]
    total: int
    offset: int
    numbers: tuple[int, ...] = ()


class RowPager:
    """Reads pages of rows and caches the last searches; thread-safe."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, int, str], array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, folder: Path, total: int, offset: int, limit: int, search: str) -> Preview:
        """A page of all ``total`` rows in a folder, or of those that match; only a new search reads the whole file.

        Raises:
            InvalidInput: ``offset`` or ``limit`` is out of range.
        """
        if offset < 0 or not 1 <= limit <= LARGEST_PAGE:
            raise InvalidInput(
                Text("offset {offset}, limit {limit} is no page.", offset=offset, limit=limit),
                Text("offset >= 0 and 1 <= limit <= {largest_page}.", largest_page=LARGEST_PAGE),
            )
        words = search.strip()
        if not words:
            rows = tuple(read_rows(folder, offset, limit))
            return Preview(rows, total, offset, tuple(range(offset + 1, offset + len(rows) + 1)))
        found = self._finds(folder, words)
        numbers = found[offset : offset + limit]
        return Preview(tuple(rows_at(folder, numbers)), len(found), offset, tuple(each + 1 for each in numbers))

    def _finds(self, folder: Path, words: str) -> "array[int]":
        key = (str(folder), folder.stat().st_mtime_ns, words)
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = search_rows(folder, words)
        with self._lock:
            self._found[key] = found
            while len(self._found) > SEARCHES_KEPT:
                self._found.popitem(last=False)
        return found


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
                Text("There is no dataset {dataset_id}.", dataset_id=dataset_id),
                Text("Choose one from the list."),
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
                Text("The file of dataset {dataset_id} is gone: {path}.", dataset_id=dataset_id, path=path),
                Text("Delete the dataset and add it again."),
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
            Text("{name!r} cannot be a dataset's name.", name=name[:120]),
            Text(
                "Give 1 to {longest_name} characters of any script, without slashes and control characters.",
                longest_name=LONGEST_NAME,
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
                on_progress(0.0, Text("{told:,} rows", told=told))
    if not writer.rows:
        raise InvalidDataset(Text("{source} has no row.", source=source.source))
    write_dropped(folder, source.dropped)
    stats = report.stats(tuple(dropped.shortened for dropped in source.dropped))
    on_progress(1.0, Text("{rows:,} rows", rows=writer.rows))
    return writer, stats


def _take(part: JsonlPart, writer: RowWriter, report: StatsCollector, folder: Path) -> None:
    begin = writer.bytes
    if part.kind is not None:
        writer.note(part.lengths, part.kind)
    report.merge(part.stats, rows_between(folder, begin, writer.bytes))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
