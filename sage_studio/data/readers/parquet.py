"""Reads Parquet in small batches, never a row group whole; skips columns of bytes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_studio.data.readers.content import CHUNK, FileContent, decompressed_too_large
from sage_studio.data.rows import invalid_row
from sage_studio.errors import InvalidDataset, naming_full_disk
from sage_studio.text import Text

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


BATCH = 64
"""Rows decoded at a time: a small file can repeat one long text a thousand times."""
LEAST_ROW = 16
"""Least size of a row in bytes, against files of a few bytes that claim a billion empty rows."""


def parquet_records(content: FileContent) -> Iterator[dict[str, Any]]:
    """The rows as records.

    Raises:
        InvalidDataset: no Parquet file, or damaged: names the row; or it unpacks to more than is allowed.
    """
    import pyarrow as pa

    with _file(content) as file:
        columns = _columns(file.schema_arrow, content.name)
        unpacked, row = 0, 0
        batches = file.iter_batches(batch_size=BATCH, columns=columns, use_threads=False)
        while True:
            try:
                batch = next(batches)
                records = _records(batch)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise _not_utf8(batch, row) from error
            except (pa.ArrowException, OSError) as error:
                raise invalid_row(row + 1, _damage(error), DOWNLOAD_AGAIN) from error
            unpacked += max(batch.nbytes, LEAST_ROW * batch.num_rows)
            if unpacked > content.max_bytes:
                raise decompressed_too_large(content.name, content.max_bytes)
            row += len(records)
            yield from records


DOWNLOAD_AGAIN = Text("Write or download the file again.")


def _columns(schema: "pa.Schema", name: str) -> list[str]:
    """The columns to read. Raises `InvalidDataset` where there is none, or two of one name."""
    columns = [field.name for field in schema if not _is_bytes(field.type)]
    twice = next((each for each in columns if columns.count(each) > 1), None)
    if twice is not None:
        raise InvalidDataset(
            Text("{name} has two columns {twice!r}.", name=name, twice=twice),
            Text("Name every column once."),
        )
    if not columns:
        there = ", ".join(schema.names)[:200]
        raise InvalidDataset(
            Text("{name} has no columns of text but of bytes: {there}.", name=name, there=there),
            Text("Write the texts as strings (UTF-8), not as binary."),
        )
    return columns


@contextmanager
def _file(content: FileContent) -> "Iterator[pq.ParquetFile]":
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() if content.is_packed else _nowhere() as folder:
        path = _unpacked(content, Path(folder)) if content.is_packed else content.path
        try:
            file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=CHUNK)
        except (pa.ArrowException, OSError) as error:
            raise InvalidDataset(
                Text("{name}: {error}", name=content.name, error=_damage(error)), DOWNLOAD_AGAIN
            ) from error
        with file:
            yield file


@contextmanager
def _nowhere() -> Iterator[str]:
    yield ""


def _unpacked(content: FileContent, folder: Path) -> Path:
    """Parquet is read from its end, so a gzipped file is decompressed to disk."""
    path = folder / "data.parquet"
    with naming_full_disk(path), content.open() as packed, path.open("wb") as plain:
        shutil.copyfileobj(packed, plain, CHUNK)
    return path


def _is_bytes(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):  # a picture is a struct of its bytes and its path
        return any(_is_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _records(batch: "pa.RecordBatch") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows


def _not_utf8(batch: "pa.RecordBatch", before: int) -> InvalidDataset:
    for number in range(batch.num_rows):
        try:
            batch.slice(number, 1).to_pylist()
        except UnicodeDecodeError:
            break
    return invalid_row(before + number + 1, Text("its text is not UTF-8."), DOWNLOAD_AGAIN)


def _damage(error: Exception) -> Text:
    cause = " ".join(str(error).split())[:200]
    return Text("the Parquet data cannot be read: {cause}", cause=cause)
