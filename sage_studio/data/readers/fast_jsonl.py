"""Large JSONL files in UTF-8, read in parts by several processes.

Each process writes its rows itself.

Plain conversations are copied without decoding their texts; everything else goes through `RecordReader`, as in any
other file. A test compares the two.
"""

import codecs
import errno
import gc
import io
import logging
import os
import pickle
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, Self, TypeAlias, runtime_checkable

import msgspec
import orjson

from sage_studio.child_environment import Needs, child_environment
from sage_studio.data.formats import Format, FormatCounts, RecordReader, detect_format
from sage_studio.data.readers.content import MIB, FileContent, encoding_of_head
from sage_studio.data.readers.json import MAX_RECORD, is_jsonl, parse_odd_line
from sage_studio.data.rows import RowKind
from sage_studio.data.statistics import AT_ONCE, QUOTE, RunningStats, TextBatch, Texts, is_utf8, texts_as_json
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

if TYPE_CHECKING:
    from sage_studio.data.column_mapping import ColumnMapping


LEAST = 32 * MIB
"""Smaller files are read faster than processes start."""
PART = 4 * MIB


def is_large_file(path: Path) -> bool:
    """Whether the file exists and is worth reading in parts."""
    return path.is_file() and path.stat().st_size >= LEAST


def part_bounds(content: FileContent) -> list[tuple[int, int]]:
    """(begin, end) in bytes of the parts, each of whole lines; empty unless the file is JSONL in UTF-8, not gzipped."""
    if content.is_packed:
        return []
    encoding = encoding_of_head(content)
    if not encoding.startswith("utf-8") or not is_jsonl(content, encoding):
        return []
    return _cuts(content.path, len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)


def _cuts(path: Path, begin: int) -> list[tuple[int, int]]:
    cuts, size = [], path.stat().st_size
    with path.open("rb") as file:
        while begin < size:
            file.seek(min(begin + PART, size))
            line = file.readline(MAX_RECORD)
            end = file.tell()
            if len(line) == MAX_RECORD:
                return []
            cuts.append((begin, end))
            begin = end
    return cuts


# Plain records, whose texts are copied as raw JSON


RawTurns: TypeAlias = tuple[tuple[str, ...], tuple[bytes, ...]]
"""Roles of the turns before the answer; contents of all turns as raw JSON, strings or not."""
Read: TypeAlias = Callable[[Any], RawTurns | None]
Get: TypeAlias = Callable[[Any], Any]
Field: TypeAlias = tuple[str, Any] | tuple[str, Any, Any]
ALONE = ("user",)


class RawTurn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One turn; its content as raw JSON."""

    role: Literal["system", "user", "assistant"]
    content: msgspec.Raw


@dataclass(frozen=True, slots=True)
class PairFields:
    """Getters of the fields of a question-answer record.

    Attributes:
        texts: question and answer.
        others: fields that must be empty, or the record is not plain.
    """

    texts: tuple[Get, Get]
    others: tuple[Get, ...]


@dataclass(frozen=True, slots=True)
class RecordShape:
    """How to read plain records of one set of keys.

    Attributes:
        format: their format.
        decode: a line as a record. Raises `msgspec.MsgspecError` for other keys and broken JSON.
        read: the turns of a record; None if it is not plain and `RecordReader` has to read it.
        pair: None where a conversation may have more than two turns.
    """

    format: Format
    decode: Callable[[bytes], Any]
    read: Read
    pair: PairFields | None

    def pairs(self, records: Sequence[Any]) -> TextBatch | None:
        """The texts of question-answer records as one batch; None unless all are plain."""
        if self.pair is None or any(any(map(get, records)) for get in self.pair.others):
            return None
        texts: list[bytes | memoryview] = [b""] * (2 * len(records))
        texts[::2], texts[1::2] = ([memoryview(get(record)) for record in records] for get in self.pair.texts)
        batch = TextBatch(texts, [2] * len(records))
        return batch if batch.is_as_written and not len(batch.doubtful) else None


@lru_cache(maxsize=1024)
def shape_of(keys: tuple[str, ...]) -> RecordShape | None:
    """The shape of records with these keys; None where `RecordReader` has to read them all."""
    found = detect_format(frozenset(keys))
    if found is None or found.name not in PLAIN or not all(map(str.isidentifier, keys)):
        return None
    fields, read = PLAIN[found.name]
    known = {field[0] for field in fields}
    others: list[Field] = [(key, Any, None) for key in keys if key not in known]
    record = msgspec.defstruct("Record", [*fields, *others], forbid_unknown_fields=True, gc=False)
    return RecordShape(found, msgspec.json.Decoder(record).decode, read, _pair_of(fields))


def checked_turns(turns: list[RawTurns | None]) -> tuple[list[RawTurns | None], TextBatch | None]:
    """Turns ready to be written, and all of them as one batch.

    Texts are escaped as by orjson; None for records that `RecordReader` has to read.
    """
    batch = _batch_of(turns)
    if batch is not None and not batch.is_as_written:
        turns = list(map(_written_anew, turns))
        batch = _batch_of(turns)
    if batch is not None and len(batch.doubtful):
        places = [at for at, one in enumerate(turns) if one is not None]
        odd = {places[at] for at in batch.doubtful if not _is_plain(batch.row(at))}
        if odd:
            turns = [None if at in odd else one for at, one in enumerate(turns)]
            batch = _batch_of(turns)
    return turns, batch


def _batch_of(turns: list[RawTurns | None]) -> TextBatch | None:
    rows = [one[1] for one in turns if one is not None]
    return TextBatch.of(rows) if rows else None


def _written_anew(turns: RawTurns | None) -> RawTurns | None:
    if turns is None:
        return None
    roles, texts = turns
    try:
        return roles, tuple(map(orjson.dumps, map(orjson.loads, texts)))
    except orjson.JSONDecodeError:
        return None


def _is_plain(texts: Texts) -> bool:
    """Whether all are strings, and neither the last nor the one before it is blank."""
    try:
        values = list(map(orjson.loads, texts))
    except orjson.JSONDecodeError:  # a number that is too large
        return False
    return all(isinstance(value, str) for value in values) and all(value.strip() for value in values[-2:])


def _pair_of(fields: Sequence[Field]) -> PairFields | None:
    if fields[1] is SYSTEM:
        return None
    ask, answer, *others = (attrgetter(field[0]) for field in fields)
    return PairFields((ask, answer), tuple(others))


def _read_alpaca(record: Any) -> RawTurns | None:
    question, given = bytes(record.instruction), record.input
    if record.history:
        return None
    if given:
        if question[0] != QUOTE or not given.strip() or not _is_plain((question,)):
            return None
        question = question[:-1] + b"\\n" + orjson.dumps(given)[1:]
    return _asked(record, question, bytes(record.output))


def _read_pair(ask: str, answer: str) -> Read:
    return lambda record: _asked(record, bytes(getattr(record, ask)), bytes(getattr(record, answer)))


def _asked(record: Any, question: bytes, answer: bytes) -> RawTurns | None:
    if record.system:
        return None
    return ALONE, (question, answer)


def _read_messages(record: Any) -> RawTurns | None:
    turns = record.messages
    if len(turns) < 2 or record.system:
        return None
    if turns[-2].role != "user" or turns[-1].role != "assistant":
        return None
    return tuple(turn.role for turn in turns[:-1]), tuple(bytes(turn.content) for turn in turns)


RAW = msgspec.Raw
SYSTEM: Field = ("system", str | None, None)
INPUT: Field = ("input", str | None, None)
HISTORY: Field = ("history", list[Any] | None, None)
PLAIN: dict[str, tuple[list[Field], Read]] = {
    "Alpaca": (
        [("instruction", RAW), ("output", RAW), INPUT, HISTORY, SYSTEM],
        _read_alpaca,
    ),
    "prompt/completion": ([("prompt", RAW), ("completion", RAW), SYSTEM], _read_pair("prompt", "completion")),
    "question/answer": ([("question", RAW), ("answer", RAW), SYSTEM], _read_pair("question", "answer")),
    "messages": ([("messages", list[RawTurn]), SYSTEM], _read_messages),
}


# One part


PAIR_BEGIN, PAIR_MIDDLE = b'{"prompt":[{"role":"user","content":', b'}],"completion":[{"role":"assistant","content":'
PAIR_END = b'}],"origin":%b,"row":%d}}\n'
TURNS: Mapping[str, bytes] = {
    role: b'{"role":"%b","content":%%b}' % role.encode() for role in ("system", "user", "assistant")
}
LINE = b'{"prompt":[%b],"completion":[{"role":"assistant","content":%b}],"origin":%b,"row":%d}}\n'


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A part of a file to read.

    Attributes:
        begin, end: in bytes; each at the beginning of a line or the end of the file.
        name: name of the file, kept in every row's origin.
        into: file that the rows are written into.
        mapping: column mapping as JSON; empty for none.
        sampling: whether to sample texts for tokenizing.
    """

    path: str
    begin: int
    end: int
    name: str
    into: str = ""
    mapping: str = ""
    sampling: bool = False


@dataclass(frozen=True, slots=True)
class PickledError:
    """An `InvalidDataset` that can be pickled."""

    kind: type[InvalidDataset]
    message: Text
    hint: Text
    row: int | None

    def raised(self) -> InvalidDataset:
        """As an error."""
        return self.kind(self.message, self.hint, row=self.row)


@dataclass
class JsonlPart:
    """A part that was read.

    Attributes:
        lines: usable rows as lines of ``data.jsonl``, in pieces of one or many.
        lengths: bytes of each line.
        kind: kind of the rows; None without rows.
        error: why reading stopped; None if the whole part was read.
        is_utf8: whether all of it is valid UTF-8; otherwise the file may be in another encoding.
    """

    stats: RunningStats
    totals: FormatCounts
    lines: list[bytes] = field(default_factory=list)
    lengths: "array[int]" = field(default_factory=lambda: array("I"))
    kind: RowKind | None = None
    error: PickledError | None = None
    is_utf8: bool = True


class PartLines:
    """The lines of a part, and its records if all have the shape of the first and that is a plain one.

    Raises:
        ValueError: a line is too long to be read in a part.
    """

    def __init__(self, spec: PartSpec) -> None:
        with open(spec.path, "rb") as file:
            file.seek(spec.begin)
            self.split = io.BytesIO(file.read(spec.end - spec.begin)).readlines()
        if max(map(len, self.split)) >= MAX_RECORD:
            raise ValueError("a row is too long")
        self.shape = _shape_of(self.split[0]) if not spec.mapping else None
        self.records: list[Any] = []
        with suppress(msgspec.MsgspecError, RecursionError):
            self.records = list(map(self.shape.decode, self.split)) if self.shape is not None else []

    @property
    def rows(self) -> int:
        """Number of lines that hold a record."""
        return len(self.records) or len(self.split) - sum(map(bytes.isspace, self.split))


def read_part(spec: PartSpec, lines: PartLines, rows: int, before: int, longest: int = 0) -> JsonlPart:
    """Read a part's lines.

    Args:
        rows: rows of the file before this part.
        before: lines of the file before this part.
        longest: characters of the longest row before, if known.
    """
    part = JsonlPart(RunningStats(sampling=spec.sampling, before=rows, longest=longest), FormatCounts())
    reading = _Reading(spec, part, rows)
    try:
        if lines.shape is not None and lines.records:
            reading.take_plain(lines, lines.shape, before)
        else:
            reading.read(lines.split, before)
    except InvalidDataset as error:
        part.error = PickledError(type(error), error.message, error.hint, error.row)
    reading.finish()
    return part


class _Reading:
    def __init__(self, spec: PartSpec, part: JsonlPart, row: int) -> None:
        self._part, self._row = part, row
        self._origin = orjson.dumps({"file": spec.name})[:-1]
        self._pair_end = PAIR_END.replace(b"%b", self._origin.replace(b"%", b"%%"))
        self._reader = RecordReader(spec.name, _parsed_mapping(spec.mapping))
        self._reader.totals, self._stats = part.totals, part.stats
        self._last: Format | None = None

    def take_plain(self, lines: PartLines, shape: RecordShape, before: int) -> None:
        """Copy the texts of plain records; other records go through `RecordReader`."""
        for at in range(0, len(lines.records), AT_ONCE):
            records = lines.records[at : at + AT_ONCE]
            pairs = shape.pairs(records)
            if pairs is not None:
                self._take_pairs(pairs, shape.format)
                continue
            turns, batch = checked_turns(list(map(shape.read, records)))
            if batch is not None:
                self._count(shape.format, batch)
            for number, one in enumerate(turns, at):
                if one is None:
                    self._read(lines.split[number], before + number + 1)
                else:
                    self._check(shape.format)
                    self._row += 1
                    self._write(self._line_of(one))

    def read(self, lines: Sequence[bytes], before: int) -> None:
        """Read lines by `RecordReader`."""
        for number, line in enumerate(lines, before + 1):
            if not line.isspace():
                self._read(line, number)

    def finish(self) -> None:
        """Count buffered rows."""
        self._stats.finish()

    def _take_pairs(self, batch: TextBatch, found: Format) -> None:
        """What `_line_of` does, for a whole batch."""
        self._count(found, batch)
        self._check(found)
        count, first = len(batch), self._row + 1
        ends = list(map(self._pair_end.__mod__, range(first, first + count)))
        pieces: list[bytes | memoryview] = [PAIR_BEGIN, b"", PAIR_MIDDLE, b"", b""] * count
        pieces[1::5], pieces[3::5], pieces[4::5] = batch.texts[::2], batch.texts[1::2], ends
        self._part.lines.append(b"".join(pieces))
        lengths = batch.sizes + (len(PAIR_BEGIN) + len(PAIR_MIDDLE))
        lengths += list(map(len, ends))
        self._part.lengths.extend(lengths.tolist())
        self._row += count

    def _check(self, found: Format) -> None:
        """Check the kind of the next row, unless its format is that of the row before."""
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
            record = parse_odd_line(line, self._row, number)
        row = self._reader.read(record, self._row)
        if row is not None:
            self._part.kind = row.kind
            self._stats.add(texts_as_json(row.texts))
            self._write(orjson.dumps(row.to_json(), option=orjson.OPT_APPEND_NEWLINE))

    def _count(self, found: Format, batch: TextBatch) -> None:
        self._part.kind = found.kind
        self._part.totals.rows += len(batch)
        self._part.totals.counts[found.name] += len(batch)
        self._stats.add_all(batch)

    def _line_of(self, turns: RawTurns) -> bytes:
        """As by `Example.to_json`."""
        roles, texts = turns
        prompt = b",".join(TURNS[role] % text for role, text in zip(roles, texts, strict=False))
        return LINE % (prompt, texts[-1], self._origin, self._row)


def _shape_of(line: bytes) -> RecordShape | None:
    """The shape of a line's record."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return shape_of(tuple(record)) if isinstance(record, dict) else None


def _parsed_mapping(text: str) -> "ColumnMapping | None":
    if not text:
        return None
    from sage_studio.data.column_mapping import parse_mapping

    return parse_mapping(text)


# The pool of processes


logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[3]
MOST = 4
"""Processes; each has about 50 MB resident."""
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(64 * MIB), "MALLOC_MMAP_THRESHOLD_": str(64 * MIB)}
"""Lets glibc keep freed memory: returning it to the system after each batch costs a sixth of the time."""
NO_BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1"}


class ReadSequentially(Exception):
    """The file has to be read by one process, from its beginning; says why."""


class Preceding:
    """What precedes a part in the file, each as soon as it is known.

    Attributes:
        counts: rows and lines read.
        written: bytes of the rows kept.
    """

    def __init__(self) -> None:
        self.counts: Future[tuple[int, int]] = Future()
        self.written: Future[int] = Future()

    def break_off(self) -> None:
        """Fail the waiting threads, which would otherwise wait for ever."""
        for each in (self.counts, self.written):
            if not each.done():
                each.set_exception(ReadSequentially("the part before could not be read"))


@runtime_checkable
class ReadableInParts(Protocol):
    """A source whose rows can be read in parts."""

    def parts(self, into: Path, sampling: bool) -> Generator[JsonlPart]:
        """The parts in order, each written into the file. Raises `ReadSequentially`, and what `examples` raises."""
        ...


class ReaderProcess(Protocol):
    """A reader process; tests use a thread instead."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def kill(self) -> None:
        """Kill the process."""
        ...

    def wait(self) -> int:
        """Wait for its end."""
        ...


def reader_count() -> int:
    """Number of reader processes for this machine."""
    return min(MOST, os.cpu_count() or 1)


def start_reader() -> ReaderProcess:
    """Start a reader process."""
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]  # -m would name its classes __main__
    reader: Any = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=child_environment(Needs.SYSTEM, {**KEEP_MEMORY, **NO_BLAS_THREADS}),
    )
    return reader  # type: ignore[no-any-return]


class ReaderPool:
    """Reader processes that each take the next part as soon as they are free; a context manager."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._readers: list[ReaderProcess] = []
        self._idle: SimpleQueue[ReaderProcess] = SimpleQueue()
        self._is_over = False
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="parts")

    def read(self, specs: Sequence[PartSpec]) -> Iterator[JsonlPart]:
        """The parts of one file, in order, each once it is written; few are held at a time.

        Raises:
            ReadSequentially: a reader process ended.
            OSError: rows cannot be written.
        """
        before = Preceding()
        before.counts.set_result((0, 0))
        before.written.set_result(0)
        waiting: deque[Future[JsonlPart]] = deque()
        for spec in specs:
            after = Preceding()
            waiting.append(self._threads.submit(self._read, spec, before, after))
            before = after
            if len(waiting) > len(self._readers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __enter__(self) -> Self:
        try:
            for _ in range(self._count):
                self._readers.append(start_reader())
                self._idle.put(self._readers[-1])
        except OSError as error:
            self._end()
            logger.warning("no process can be started to read a part: %s", error)
            raise ReadSequentially("no process can be started") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._is_over = True
        for reader in self._readers:
            reader.kill()
        self._threads.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.stdout.close()
            _close(reader.stdin)
            reader.wait()

    def _read(self, spec: PartSpec, before: Preceding, after: Preceding) -> JsonlPart:
        reader = self._idle.get()
        try:
            rows, lines = _request(reader, spec)
            rows_before, lines_before = before.counts.result()
            after.counts.set_result((rows_before + rows, lines_before + lines))
            part: JsonlPart = _request(reader, (rows_before, lines_before))
            place = before.written.result()
            after.written.set_result(place + sum(part.lengths))
            wrong: int = _request(reader, place)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            if not self._is_over:
                logger.warning("%s: a process that read it ended; one reads it anew (%r)", spec.name, error)
            raise ReadSequentially("a process that reads parts ended") from error
        finally:
            after.break_off()
            self._idle.put(reader)
        if wrong:
            raise OSError(wrong, os.strerror(wrong), spec.into)
        return part


def _request(reader: ReaderProcess, what: object) -> Any:
    pickle.dump(what, reader.stdin)
    reader.stdin.flush()
    return pickle.load(reader.stdout)


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return


# The child process


def main() -> None:
    """Entry of the child process: serve the parent until it closes the pipe."""
    gc.freeze()
    gc.disable()  # what a part leaves behind has no cycles
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Read parts until the parent closes the pipe.

    Per part: answers its rows and lines; is told how many precede it; answers its counts; is told where in the file its
    rows belong; writes them there and answers an error number. So no row goes through a pipe.
    """
    longest = 0
    with suppress(EOFError, BrokenPipeError):
        while True:
            spec = pickle.load(requests)
            given = PartLines(spec)
            _reply((given.rows, len(given.split)), answers)
            rows, lines_before = pickle.load(requests)
            part = read_part(spec, given, rows, lines_before, longest)
            longest = part.stats.longest
            lines, part.lines = part.lines, []
            _reply(part, answers)
            _reply(_write(lines, spec.into, pickle.load(requests)), answers)


def _write(lines: Sequence[bytes], path: str, place: int) -> int:
    """Write lines at an offset; returns the error number, or 0."""
    try:
        with open(path, "r+b") as file:
            file.seek(place)
            file.writelines(lines)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _reply(answer: object, answers: BinaryIO) -> None:
    pickle.dump(answer, answers, protocol=5)
    answers.flush()
