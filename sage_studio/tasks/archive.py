"""A task's folder as a ``tar.gz``, made while it is sent, without a temporary file."""

import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sage_studio.errors import NotFound
from sage_studio.tasks.task import Task
from sage_studio.text import Text

LEFT_OUT = ("checkpoints", "merged")
"""What can be had again: states of the optimizer, and the adapter merged into its base."""
PIECE = 1 << 20
LEVEL = 1
"""Weights hardly shrink: a higher level costs time and saves nothing."""
GZIP = 31
"""zlib's number for the gzip format."""


def archive_name(task: Task) -> str:
    """The file name to save it under."""
    return f"{task.id}.tar.gz"


def stream_archive(task: Task) -> Iterator[bytes]:
    """The task's folder, without optimizer checkpoints and merged copies, under one top folder named like the task.

    Returns:
        Pieces of about 1 MiB at most; closing the iterator closes what it has open.

    Raises:
        NotFound: at once, before the first piece: the folder is gone.
    """
    if not task.folder.is_dir():
        raise NotFound(
            Text("The folder of {id} is gone: {folder}.", id=task.id, folder=task.folder),
            Text("Restore the folder, or train again."),
        )
    return _compressed(task.folder, list(_files(task.folder)), task.id)


def _compressed(folder: Path, files: list[Path], top: str) -> Iterator[bytes]:
    gzip = zlib.compressobj(LEVEL, wbits=GZIP)
    for piece in _tar(folder, files, top):
        if packed := gzip.compress(piece):
            yield packed
    yield gzip.flush()


def _tar(folder: Path, files: list[Path], top: str) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield _header(file, f"{top}/{path.relative_to(folder).as_posix()}", size)
            yield from _content(file, size, path)
            yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(file: BinaryIO, name: str, size: int) -> bytes:
    """A header that says nothing of this machine's users."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = int(os.fstat(file.fileno()).st_mtime)
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _content(file: BinaryIO, size: int, path: Path) -> Iterator[bytes]:
    """Exactly ``size`` bytes: what is appended meanwhile is left out."""
    left = size
    while left:
        piece = file.read(min(PIECE, left))
        if not piece:
            raise NotFound(Text("{path} became shorter while it was sent.", path=path))
        left -= len(piece)
        yield piece


def _files(folder: Path) -> Iterator[Path]:
    """The regular files to take, in order. A link is not followed: it may lead out of the folder."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not (parent == str(folder) and name in LEFT_OUT))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                yield path
