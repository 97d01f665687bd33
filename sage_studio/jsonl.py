"""JSON Lines files that are appended to while others read them, and that may end in a line cut off by a crash."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sage_studio.errors import naming_full_disk

READ_BYTES = 1 << 20


def append(path: Path, lines: Iterable[str], *, sync: bool = False) -> None:
    """Append lines, all of them or none.

    Args:
        path: created if missing; its folder must exist.
        lines: JSON texts without their newlines.
        sync: return only once the lines are on the disk, so that they also survive a power cut.

    Raises:
        StorageFull: nothing was appended.
    """
    data = "".join(f"{line}\n" for line in lines).encode()
    with naming_full_disk(path), path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            _write_all(file.fileno(), data)
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise
        if sync:
            os.fsync(file.fileno())


def mend(path: Path, is_record: Callable[[bytes], bool] = lambda line: False) -> int:
    """End a file with a complete line after a crash or an edit.

    Args:
        path: one that is missing counts as empty.
        is_record: whether a last line without its newline is complete nevertheless, as some editors leave it. Such a
            line gets its newline; any other is cut off.

    Returns:
        The number of lines that the file has now.
    """
    if not path.is_file():
        return 0
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return content.count(b"\n")
    if is_record(content[end:]):
        append(path, [""])
        return content.count(b"\n") + 1
    os.truncate(path, end)
    return content.count(b"\n")


def read_from(path: Path, offset: int, limit: int = READ_BYTES) -> tuple[list[bytes], int]:
    """Complete lines from a byte offset on.

    Args:
        path: one that is missing reads as empty.
        offset: byte to start at; one past the end of the file, which was replaced meanwhile, starts over.
        limit: most bytes read at once.

    Returns:
        The lines without their newlines, and the offset behind the last of them.
    """
    try:
        with path.open("rb") as file:
            if offset > file.seek(0, os.SEEK_END):
                offset = 0
            file.seek(offset)
            chunk = file.read(limit)
    except FileNotFoundError:
        return [], 0
    end = chunk.rfind(b"\n") + 1
    return chunk[:end].split(b"\n")[:-1], offset + end


def complete_lines(path: Path) -> Iterator[bytes]:
    """All complete lines without their newlines; one that is still being written is not given. Missing: none."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def _write_all(descriptor: int, data: bytes) -> None:
    """Write everything: a single call may write less where the disk is nearly full."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
