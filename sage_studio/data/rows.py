"""``data.jsonl``: rows written one by one, and found again without reading the whole file.

Knows the file and its index, one byte offset for every hundredth row. Knows nothing of datasets.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from sage_studio.data.example import DataRow, RowKind, row_from_json
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

DATA = "data.jsonl"
INDEX = "index.u64"
STRIDE = 100
ORIGIN, CONTROL, BACKSLASH = b',"origin":{', b"\\u00", ord("\\")
SYNTAX = (
    b'{"prompt":[{"role":"system","content":"},{"role":"user","content":"},{"role":"assistant","content":"}],'
    b'"completion":[{"chosen":[{"rejected":[{"query":"","pos":["","neg":["","neg":[],"text":"'
)
"""What stands in every line between its texts; words that are found there may be in no text."""


class RowWriter:
    """Writes a new ``data.jsonl`` and its index into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO = open_for_writing(folder / DATA)
        self._hash: hashlib._Hash | None = hashlib.sha256()
        self._offsets = array("Q")
        self.rows = self.bytes = 0
        self.kind: RowKind = "conversation"

    def write(self, row: DataRow) -> None:
        """Append one row, of the kind of those before it."""
        line = orjson.dumps(row.to_json(), option=orjson.OPT_APPEND_NEWLINE)
        self._count((len(line),), row.kind)
        self._file.write(line)
        if self._hash is not None:
            self._hash.update(line)

    def note(self, lengths: Sequence[int], kind: RowKind) -> None:
        """Count rows that another process has written next, of these lengths in bytes and of the kind of those before.

        No row is to be written here any more.
        """
        self._hash = None
        self._count(lengths, kind)

    @property
    def sha256(self) -> str:
        """Of all that was written; empty where others wrote it."""
        return self._hash.hexdigest() if self._hash is not None else ""

    def _count(self, lengths: Sequence[int], kind: RowKind) -> None:
        if self.rows == 0:
            self.kind = kind
        elif kind != self.kind:
            raise InvalidDataset(
                Text(f"A {kind} row among {self.kind} rows.", f"{self.kind} 数据中混入了 {kind} 数据。"),
                Text("Put them into two datasets.", "请分成两个数据集。"),
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
    """What tells from a line whether its texts hold the words; None where only the decoded texts tell."""
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
    """Whether it has no case but that of ASCII, which bytes know too."""
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
