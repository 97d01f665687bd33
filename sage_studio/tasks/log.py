"""Reads ``train.log`` from its end or from a byte offset, at a cost independent of its size."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sage_studio.errors import InvalidInput
from sage_studio.text import Text
from sage_studio.training.progress import LOG

BLOCK = 1 << 16
MOST = 1 << 20
"""Bytes read at most for one page; a longer line is cut there."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some lines of a log.

    Attributes:
        lines: whole lines, without their ends.
        offset: byte from which to read on; the next page begins with the line that follows ``lines``.
        size: bytes in the file.
        partial: the file's unfinished last line, as far as it is written; it comes again, whole, in a later page.
    """

    lines: tuple[str, ...] = ()
    offset: int = 0
    size: int = 0
    partial: str = ""


def read_log(folder: Path, limit: int = 100, offset: int | None = None, name: str = LOG) -> LogPage:
    """Lines of a task's log.

    Args:
        folder: the task's; without a log in it the page is empty.
        limit: most lines.
        offset: byte to read on from, as a page gave it; one beyond the file's end (it was replaced) begins anew.
            None: the last ``limit`` lines.
        name: of the file.

    Raises:
        InvalidInput: ``limit`` below 1 or ``offset`` below 0.
    """
    _check("limit", limit, at_least=1)
    _check("offset", offset or 0, at_least=0)
    try:
        with (folder / name).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if offset is None:
                return _tail(file, limit, size)
            return _forward(file, limit, offset if offset <= size else 0, size)
    except (FileNotFoundError, NotADirectoryError):
        return LogPage()


def _tail(file: BinaryIO, limit: int, size: int) -> LogPage:
    start, chunk = size, b""
    while start > 0 and chunk.count(b"\n") <= limit and size - start < MOST:
        begin = max(0, start - BLOCK)
        file.seek(begin)
        chunk = file.read(start - begin) + chunk
        start = begin
    whole, _, partial = chunk.rpartition(b"\n")
    lines = whole.split(b"\n") if b"\n" in chunk else []
    if start > 0 and len(lines) > 1:  # the first of them begins before what was read
        lines = lines[1:]
    return LogPage(_texts(lines[-limit:]), size - len(partial), size, _text(partial))


def _forward(file: BinaryIO, limit: int, offset: int, size: int) -> LogPage:
    file.seek(offset)
    chunk = file.read(MOST)
    if len(chunk) == MOST and b"\n" not in chunk:  # no end in sight: cut, or nobody would ever get past it
        return LogPage((_text(chunk),), offset + len(chunk), size)
    *lines, rest = chunk.split(b"\n")
    taken = lines[:limit]
    after = offset + sum(len(line) + 1 for line in taken)
    partial = rest if taken == lines and after + len(rest) == size else b""
    return LogPage(_texts(taken), after, size, _text(partial))


def _texts(lines: list[bytes]) -> tuple[str, ...]:
    return tuple(_text(line) for line in lines)


def _text(line: bytes) -> str:
    """A line as a terminal shows it: a progress bar that was redrawn over itself is its last state."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", errors="replace")


def _check(name: str, value: int, at_least: int) -> None:
    if value < at_least:
        raise InvalidInput(
            Text("{name} = {value}: it must be at least {at_least}.", name=name, value=value, at_least=at_least),
            Text("Give lines to read at most as limit, and as offset what the page before gave."),
        )
