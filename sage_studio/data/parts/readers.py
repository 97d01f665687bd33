"""Several processes that read the parts of one file, each the next one as soon as it is free; the parts come in order.

Knows the processes and what is said to them. Knows nothing of what stands in a part.
"""

import logging
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, Protocol, Self, runtime_checkable

from sage_studio.data.files.content import MIB
from sage_studio.data.parts.part import Order, Part

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[3]
MOST = 4
"""Each has about 50 MB resident."""
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(64 * MIB), "MALLOC_MMAP_THRESHOLD_": str(64 * MIB)}
"""Lets glibc keep what a part has freed: to get it from the system anew for each batch takes a sixth of the time."""
NO_ALGEBRA = {"OPENBLAS_NUM_THREADS": "1"}
"""Else numpy starts threads that nobody needs."""


class ReadAsOne(Exception):
    """A file has to be read by one process, from its begin; says why."""


class Before:
    """What comes before a part, each as soon as it is known.

    Attributes:
        counts: rows and lines that were read.
        written: bytes of the rows that are kept.
    """

    def __init__(self) -> None:
        self.counts: Future[tuple[int, int]] = Future()
        self.written: Future[int] = Future()

    def break_off(self) -> None:
        """Tell those who wait for what will never be known, or they would do so for ever."""
        for each in (self.counts, self.written):
            if not each.done():
                each.set_exception(ReadAsOne("the part before could not be read"))


@runtime_checkable
class InParts(Protocol):
    """A source whose rows can be read in parts."""

    def parts(self, into: Path, sampling: bool) -> Generator[Part]:
        """The parts, in order, each written into the file. Raises `ReadAsOne`, and what reading row by row raises."""
        ...


class Reader(Protocol):
    """A process that reads parts; a test puts a thread in its place."""

    stdin: IO[bytes]
    stdout: IO[bytes]

    def kill(self) -> None:
        """End it at once."""
        ...

    def wait(self) -> int:
        """Until it has ended."""
        ...


def reader_count() -> int:
    """How many processes are worth their start on this machine."""
    return min(MOST, os.cpu_count() or 1)


def start_reader() -> Reader:
    """A new process."""
    command = [sys.executable, "-m", "sage_studio.data.parts.reading_child"]
    reader: Any = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **KEEP_MEMORY, **NO_ALGEBRA},
    )
    return reader  # type: ignore[no-any-return]


class Readers:
    """As many processes as are worth it; to be used as a context."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._readers: list[Reader] = []
        self._idle: SimpleQueue[Reader] = SimpleQueue()
        self._is_over = False
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="parts")

    def read(self, orders: Sequence[Order]) -> Iterator[Part]:
        """The parts of one file, in order, each once it is written; few are held at a time.

        Raises:
            ReadAsOne: a reader ended.
            OSError: what it read cannot be written.
        """
        before = Before()
        before.counts.set_result((0, 0))
        before.written.set_result(0)
        waiting: deque[Future[Part]] = deque()
        for order in orders:
            after = Before()
            waiting.append(self._threads.submit(self._read, order, before, after))
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
            raise ReadAsOne("no process can be started") from error
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

    def _read(self, order: Order, before: Before, after: Before) -> Part:
        reader = self._idle.get()
        try:
            rows, lines = _ask(reader, order)
            rows_before, lines_before = before.counts.result()
            after.counts.set_result((rows_before + rows, lines_before + lines))
            part: Part = _ask(reader, (rows_before, lines_before))
            place = before.written.result()
            after.written.set_result(place + sum(part.lengths))
            wrong: int = _ask(reader, place)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            if not self._is_over:
                logger.warning("%s: a process that read it ended; one reads it anew (%r)", order.name, error)
            raise ReadAsOne("a process that reads parts ended") from error
        finally:
            after.break_off()
            self._idle.put(reader)
        if wrong:
            raise OSError(wrong, os.strerror(wrong), order.into)
        return part


def _ask(reader: Reader, what: object) -> Any:
    pickle.dump(what, reader.stdin)
    reader.stdin.flush()
    return pickle.load(reader.stdout)


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return  # what was still to be written has no reader any more
