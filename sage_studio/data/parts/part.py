"""One part of a JSONL file, read on its own: its rows as lines, and all that was counted on the way.

Knows how a part is read, row by row as a whole file is. Knows nothing of the parts before but how many rows and lines
they have.
"""

import io
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from sage_studio.data.block import Block, is_utf8
from sage_studio.data.example import RowKind
from sage_studio.data.files.json_records import MAX_RECORD, odd_line
from sage_studio.data.formats import Format, RecordReader, Seen
from sage_studio.data.parts.plain import Said, Shape, looked_at, shape_of
from sage_studio.data.tally import AT_ONCE, Tally, in_json
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

if TYPE_CHECKING:
    from sage_studio.data.mapping import ColumnMapping


PAIR_BEGIN, PAIR_MIDDLE = b'{"prompt":[{"role":"user","content":', b'}],"completion":[{"role":"assistant","content":'
PAIR_END = b'}],"origin":%b,"row":%d}}\n'
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
        into: the file that the rows are to be written into.
        mapping: which column is which key, as JSON; empty to go by the keys as they are.
        sampling: whether texts are kept to be tokenized.
    """

    path: str
    begin: int
    end: int
    name: str
    into: str = ""
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
        lines: the usable rows as lines of ``data.jsonl``, in pieces of one or many.
        lengths: of these lines, in bytes.
        kind: of the rows; None where there is none.
        fault: why the rest of the part cannot be used; None where all was read.
        is_utf8: whether every byte of it was; a file that is not may be in another encoding.
    """

    tally: Tally
    seen: Seen
    lines: list[bytes] = field(default_factory=list)
    lengths: "array[int]" = field(default_factory=lambda: array("I"))
    kind: RowKind | None = None
    fault: Fault | None = None
    is_utf8: bool = True


class Lines:
    """The lines of a part, and its records where all of them are plain ones of the first one's shape.

    Raises:
        ValueError: a line is too long to be read in a part.
    """

    def __init__(self, order: Order) -> None:
        with open(order.path, "rb") as file:
            file.seek(order.begin)
            self.split = io.BytesIO(file.read(order.end - order.begin)).readlines()
        if max(map(len, self.split)) >= MAX_RECORD:
            raise ValueError("a row is too long")
        self.shape = _shape_of(self.split[0]) if not order.mapping else None
        self.records: list[Any] = []
        with suppress(msgspec.MsgspecError, RecursionError):
            self.records = list(map(self.shape.decode, self.split)) if self.shape is not None else []

    @property
    def rows(self) -> int:
        """How many of them hold a record."""
        return len(self.records) or len(self.split) - sum(map(bytes.isspace, self.split))


def read_part(order: Order, lines: Lines, rows: int, before: int, longest: int = 0) -> Part:
    """Read a part's lines.

    Args:
        rows: of the file before this part.
        before: lines of the file before it.
        longest: characters of the longest row that was read before, as far as that is known.
    """
    part = Part(Tally(sampling=order.sampling, before=rows, longest=longest), Seen())
    reading = _Reading(order, part, rows)
    try:
        if lines.shape is not None and lines.records:
            reading.take_plain(lines, lines.shape, before)
        else:
            reading.read(lines.split, before)
    except InvalidDataset as error:
        part.fault = Fault(type(error), error.message, error.hint, error.row)
    reading.finish()
    return part


class _Reading:
    def __init__(self, order: Order, part: Part, row: int) -> None:
        self._part, self._row = part, row
        self._origin = orjson.dumps({"file": order.name})[:-1]
        self._pair_end = PAIR_END.replace(b"%b", self._origin.replace(b"%", b"%%"))
        self._reader = RecordReader(order.name, _mapping(order.mapping))
        self._reader.seen, self._tally = part.seen, part.tally
        self._last: Format | None = None

    def take_plain(self, lines: Lines, shape: Shape, before: int) -> None:
        """Copy the texts of plain records; what is unusual about one is read with care."""
        for at in range(0, len(lines.records), AT_ONCE):
            records = lines.records[at : at + AT_ONCE]
            pairs = shape.pairs(records)
            if pairs is not None:
                self._take_pairs(pairs, shape.format)
                continue
            said, block = looked_at(list(map(shape.read, records)))
            if block is not None:
                self._count(shape.format, block)
            for number, one in enumerate(said, at):
                if one is None:
                    self._read(lines.split[number], before + number + 1)
                else:
                    self._check(shape.format)
                    self._row += 1
                    self._write(self._line_of(one))

    def read(self, lines: Sequence[bytes], before: int) -> None:
        """Read lines as any file's."""
        for number, line in enumerate(lines, before + 1):
            if not line.isspace():
                self._read(line, number)

    def finish(self) -> None:
        """Count the last rows."""
        self._tally.finish()

    def _take_pairs(self, block: Block, found: Format) -> None:
        """What `_line_of` makes of each, at once."""
        self._count(found, block)
        self._check(found)
        count, first = len(block), self._row + 1
        ends = list(map(self._pair_end.__mod__, range(first, first + count)))
        pieces: list[bytes | memoryview] = [PAIR_BEGIN, b"", PAIR_MIDDLE, b"", b""] * count
        pieces[1::5], pieces[3::5], pieces[4::5] = block.texts[::2], block.texts[1::2], ends
        self._part.lines.append(b"".join(pieces))
        lengths = block.sizes + (len(PAIR_BEGIN) + len(PAIR_MIDDLE))
        lengths += list(map(len, ends))
        self._part.lengths.extend(lengths.tolist())
        self._row += count

    def _check(self, found: Format) -> None:
        """Look at the format of the next row, unless it is that of the one before."""
        if self._last is not found:
            self._reader.check_kind(found, self._row + 1)
            self._last = found

    def _write(self, line: bytes) -> None:
        self._part.lines.append(line)
        self._part.lengths.append(len(line))

    def _read(self, line: bytes, number: int) -> None:
        self._row += 1
        self._last = None
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            self._part.is_utf8 = self._part.is_utf8 and is_utf8(line)
            record = odd_line(line, self._row, number)
        row = self._reader.read(record, self._row)
        if row is not None:
            self._part.kind = row.kind
            self._tally.add(in_json(row.texts))
            self._write(orjson.dumps(row.to_json(), option=orjson.OPT_APPEND_NEWLINE))

    def _count(self, found: Format, block: Block) -> None:
        self._part.kind = found.kind
        self._part.seen.rows += len(block)
        self._part.seen.counts[found.name] += len(block)
        self._tally.add_all(block)

    def _line_of(self, said: Said) -> bytes:
        """As `Example.to_json` has it."""
        roles, texts = said
        prompt = b",".join(TURNS[role] % text for role, text in zip(roles, texts, strict=False))
        return LINE % (prompt, texts[-1], self._origin, self._row)


def _shape_of(line: bytes) -> Shape | None:
    """Of a line's record."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return shape_of(tuple(record)) if isinstance(record, dict) else None


def _mapping(text: str) -> "ColumnMapping | None":
    if not text:
        return None
    from sage_studio.data.mapping import parse_mapping  # brings pydantic along: not for every child

    return parse_mapping(text)
