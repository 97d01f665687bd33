"""``data.jsonl``: rows written one by one, paged and searched without reading the whole file.

The index beside it holds one byte offset for every hundredth row.
"""

import hashlib
import json
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from sage_studio.data.rows import DataRow, RowKind, row_from_json
from sage_studio.errors import InvalidDataset, InvalidInput
from sage_studio.text import Text

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
                Text(f"offset {offset}, limit {limit} is no page.", f"offset {offset}、limit {limit} 不是有效的分页。"),
                Text(f"offset >= 0 and 1 <= limit <= {LARGEST_PAGE}.", f"offset ≥ 0 且 1 ≤ limit ≤ {LARGEST_PAGE}。"),
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
