"""One part of a JSONL file, read on its own: its rows as lines, and all that was counted on the way.

Knows how a part is read, row by row as a whole file is. Knows nothing of the parts before but how many rows and lines
they have.
"""

import io
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from sage_studio.data.example import DataRow, RowKind
from sage_studio.data.files.json_records import MAX_RECORD, odd_line
from sage_studio.data.formats import RecordReader, Seen
from sage_studio.data.parts.plain import ALONE, Said, shape_of
from sage_studio.data.tally import Tally
from sage_studio.data.token_count import Guesses
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

if TYPE_CHECKING:
    from sage_studio.data.mapping import ColumnMapping


TURNS: Mapping[str, bytes] = {
    role: b'{"role":"%b","content":%%b}' % role.encode() for role in ("system", "user", "assistant")
}
LINE = b'{"prompt":[%b],"completion":[{"role":"assistant","content":%b}],"origin":%b,"row":%d}}\n'


@dataclass(frozen=True, slots=True)
class Order:
    """Which part of a file to read, and how.

    Attributes:
        begin, end: bytes; both at the begin of a line or the end of the file.
        name: of the file, kept in every row's origin.
        mapping: which column is which key, as JSON; empty to go by the keys as they are.
        sampling: whether texts are kept to be tokenized.
    """

    path: str
    begin: int
    end: int
    name: str
    mapping: str = ""
    sampling: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """An error on its way from one process to another."""

    kind: type[InvalidDataset]
    message: Text
    hint: Text
    row: int | None

    def raised(self) -> InvalidDataset:
        """As an error."""
        return self.kind(self.message, self.hint, row=self.row)


@dataclass
class Part:
    """What was read.

    Attributes:
        lines: the usable rows as lines of ``data.jsonl``.
        lengths: of these lines, in bytes.
        kind: of the rows; None where there is none.
        fault: why the rest of the part cannot be used; None where all was read.
        is_utf8: whether every byte of it was; a file that is not may be in another encoding.
    """

    tally: Tally
    guesses: Guesses
    seen: Seen
    lines: bytes = b""
    lengths: "array[int]" = field(default_factory=lambda: array("I"))
    kind: RowKind | None = None
    fault: Fault | None = None
    is_utf8: bool = True


def lines_of(order: Order) -> list[bytes]:
    """The lines of a part. Raises `ValueError` for one that is too long to be read in a part."""
    with open(order.path, "rb") as file:
        file.seek(order.begin)
        lines = io.BytesIO(file.read(order.end - order.begin)).readlines()
    if max(map(len, lines), default=0) >= MAX_RECORD:
        raise ValueError("a row is too long")
    return lines


def count_records(lines: Sequence[bytes]) -> int:
    """How many of the lines hold a record."""
    return len(lines) - sum(map(bytes.isspace, lines))


def read_part(order: Order, lines: Sequence[bytes], rows: int, before: int) -> Part:
    """Read a part's lines.

    Args:
        lines: as `lines_of` gives them.
        rows: of the file before this part.
        before: lines of the file before it.
    """
    part = Part(Tally(), Guesses(order.sampling), Seen())
    try:
        _Reading(order, part).read(lines, rows, before)
    except InvalidDataset as error:
        part.fault = Fault(type(error), error.message, error.hint, error.row)
    return part


class _Reading:
    def __init__(self, order: Order, part: Part) -> None:
        self._part, self._origin = part, orjson.dumps({"file": order.name})[:-1]
        self._reader = RecordReader(order.name, _mapping(order.mapping))
        self._reader.seen, self._tally, self._guesses = part.seen, part.tally, part.guesses
        self._is_mapped = bool(order.mapping)
        self._written: list[bytes] = []

    def read(self, lines: Sequence[bytes], row: int, before: int) -> None:
        """Read all lines, the plain ones without detour."""
        last, seen = None, self._part.seen
        for number, line in enumerate(lines, before + 1):
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                if line.isspace():
                    continue
                row += 1
                self._part.is_utf8 = self._part.is_utf8 and _is_utf8(line)
                self._write(self._reader.read(odd_line(line, row, number), row))
                continue
            row += 1
            shape = shape_of(tuple(record)) if type(record) is dict and not self._is_mapped else None
            said = shape.read(record) if shape is not None else None
            if shape is None or said is None:
                self._write(self._reader.read(record, row))
                continue
            if shape is not last:
                self._reader.check_kind(shape.format, row)
                self._part.kind = shape.format.kind
                last = shape
            seen.rows += 1
            seen.counts[shape.format.name] += 1
            self._write_said(said, row)
        self._part.lines = b"".join(self._written)
        self._part.lengths = array("I", map(len, self._written))

    def _write_said(self, said: Said, row: int) -> None:
        """As `Example.to_json` has it; text by text, as that is twice as fast."""
        roles, texts = said
        in_json = list(map(orjson.dumps, texts))
        if roles is ALONE:
            prompt, asked = TURNS["user"] % in_json[0], texts[0]
        else:
            prompt = b",".join(TURNS[role] % text for role, text in zip(roles, in_json, strict=False))
            asked = "\n\n".join(texts[:-1])
        self._written.append(LINE % (prompt, in_json[-1], self._origin, row))
        digest, tokens = self._tally.add(texts, asked)
        self._guesses.add(texts, digest, tokens)

    def _write(self, row: DataRow | None) -> None:
        if row is not None:
            self._part.kind = row.kind
            self._written.append(orjson.dumps(row.to_json(), option=orjson.OPT_APPEND_NEWLINE))
            self._guesses.add(row.texts, *self._tally.add(row.texts, row.asked))


def _mapping(text: str) -> "ColumnMapping | None":
    if not text:
        return None
    from sage_studio.data.mapping import parse_mapping  # brings pydantic along: not for every child

    return parse_mapping(text)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
