"""The records of a data file of any type: one iterator over JSON, CSV and Parquet."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sage_studio.data.readers.content import FileContent, FileHead
from sage_studio.data.readers.csv import csv_records
from sage_studio.data.readers.file_type import FileType
from sage_studio.data.readers.json import json_records
from sage_studio.data.readers.parquet import parquet_records
from sage_studio.data.rows import invalid_row
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

READERS: Mapping[FileType, Callable[[FileContent], Iterator[Any]]] = {
    FileType.JSON: json_records,
    FileType.CSV: csv_records,
    FileType.PARQUET: parquet_records,
}


FIRST = 1000


def first_records(content: FileContent, kind: FileType) -> Iterator[Any]:
    """The first thousand records, or fewer if they are long; ends at the first error, which `read_records` reports."""
    records = read_records(FileHead(content.path, content.max_bytes), kind)
    try:
        for _ in range(FIRST):
            yield next(records)
    except (StopIteration, InvalidDataset):
        return


def read_records(content: FileContent, kind: FileType) -> Iterator[Any]:
    """The records, in order, one at a time.

    Args:
        content: the file.
        kind: one that holds rows.

    Raises:
        InvalidDataset: naming the row where the file goes wrong, or what is wrong with the whole of it.
    """
    row = 0
    try:
        for record in READERS[kind](content):
            row += 1
            yield record
    except UnicodeDecodeError as error:
        what = Text(f"it holds bytes that are not {error.encoding}.", f"其中含有不属于 {error.encoding} 编码的字节。")
        raise invalid_row(row + 1, what, Text("Save the file as UTF-8.", "请将文件保存为 UTF-8。")) from error
    except InvalidDataset as error:
        fault = next(iter(content.faults), error)
        if not row or (fault is error and error.row is not None):
            raise fault from None
        raise invalid_row(row + 1, fault.message, fault.hint) from error
    for fault in content.faults:
        raise invalid_row(row + 1, fault.message, fault.hint)
