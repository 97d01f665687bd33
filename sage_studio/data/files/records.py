"""The records of a data file, whatever holds them.

Knows which reader takes which kind, and that a fault between two rows belongs to the next. Knows nothing of what a
record means.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sage_studio.data.faults import invalid_row
from sage_studio.data.files.content import Beginning, Content
from sage_studio.data.files.csv_records import csv_records
from sage_studio.data.files.json_records import json_records
from sage_studio.data.files.kinds import Kind
from sage_studio.data.files.parquet_records import parquet_records
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

READERS: Mapping[Kind, Callable[[Content], Iterator[Any]]] = {
    Kind.JSON: json_records,
    Kind.CSV: csv_records,
    Kind.PARQUET: parquet_records,
}


FIRST = 1000


def first_records(content: Content, kind: Kind) -> Iterator[Any]:
    """The first thousand records, or fewer long ones; ends quietly where one is wrong: reading all of them says why."""
    records = records_of(Beginning(content.path, content.max_bytes), kind)
    try:
        for _ in range(FIRST):
            yield next(records)
    except (StopIteration, InvalidDataset):
        return


def records_of(content: Content, kind: Kind) -> Iterator[Any]:
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
