"""Files: atomic writes, private folders, paths that callers give, bounded reads, JSON lines."""

import contextlib
import errno
import hashlib
import logging
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sage_studio.errors import InvalidInput, InvalidName, naming_full_disk
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

PRIVATE = 0o077
"""The umask of the studio and its children: whatever they make is for their user alone."""
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content by an atomic rename: a reader sees the old or the new, never a part.

    Threads and processes may write the same path at once; the last one to finish wins. Raises `StorageFull`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # not tempfile's: those files are for the owner only
    with naming_full_disk(path):
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def make_private(*folders: Path) -> None:
    """Keep folders from the machine's other users: mode 0700, also for one that is there; the log says what changed.

    One that is not the studio's alone (``/``, a person's home, one like ``/tmp``) or that belongs to another user is
    left as it is; the log says that too.

    Raises:
        StorageFull: it is not there and cannot be made.
    """
    for folder in folders:
        with naming_full_disk(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            logger.warning("%s belongs to another user (uid %d), who can read all in it.", folder, found.st_uid)
        elif found.st_mode & PRIVATE and _is_for_others_too(folder, found):
            logger.warning("Other users may look into %s (mode %o).", folder, stat.S_IMODE(found.st_mode))
        elif found.st_mode & PRIVATE:
            try:
                folder.chmod(0o700)
            except OSError as error:
                logger.warning("Other users may look into %s: %s", folder, error)
            else:
                logger.info("Closed %s to other users: mode 700, was %o.", folder, stat.S_IMODE(found.st_mode))


def _is_for_others_too(folder: Path, found: os.stat_result) -> bool:
    return folder.resolve() in (Path("/"), Path.home()) or bool(found.st_mode & stat.S_ISVTX)


def safe_name(name: str) -> str:
    """Return an id that is to become a file name, unchanged.

    Raises:
        InvalidName: it holds anything but letters, digits, dot, dash and underscore, or begins with a dot.
    """
    if not SAFE_NAME.fullmatch(name) or ".." in name:
        raise InvalidName(
            Text("{name!r} is no valid id.", name=name),
            Text("Ids hold letters, digits, '.', '_' and '-' only; take one from the list."),
        )
    return name


def upload_name(name: str) -> str:
    """The last part of a name that a client sent, fit to be a file's name here.

    Raises:
        InvalidName: it climbs with ``..`` or is hidden.
    """
    last = re.split(r"[\\/]", name)[-1].strip()
    if ".." in re.split(r"[\\/]", name) or last.startswith("."):
        raise InvalidName(
            Text("{name!r} is no valid file name.", name=name),
            Text("Rename the file, without '..' or a leading dot."),
        )
    return re.sub(r"[^\w.-]", "_", last)[-128:] or "data"


def slug(name: str, fallback: str, longest: int = 48) -> str:
    """The part of an id, in ASCII, that stands for a name; a name that loses characters gets a digest.

    Args:
        fallback: stands in for a name without a letter or a digit of ASCII.
        longest: most characters, without the digest.

    Example:
        >>> slug("sage-docs", "dataset"), slug("我的数据", "dataset")
        ('sage-docs', 'dataset-de2ef7fa')
    """
    found = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")[:longest].rstrip("-_")
    return found if found == name else f"{found or fallback}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


# Paths that callers name

LONGEST_PATH = 4096
"""Bytes that Linux takes."""


def path_of(text: str, field: str = "path") -> Path:
    """A path as a caller gave it, with ``~`` filled in.

    Args:
        field: what the caller calls it, for the error.

    Raises:
        InvalidInput: no system could have such a path: too long, with NUL or half a character, or of an unknown user.
    """
    try:
        known = os.fsencode(text)
        path = Path(text).expanduser()
    except (UnicodeError, RuntimeError) as error:
        unknown = isinstance(error, RuntimeError)
        why = Text("there is no such user") if unknown else Text("it holds half a character")
        raise _no_path(text, field, why) from error
    if len(known) > LONGEST_PATH or any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise _no_path(text, field, Text("it is longer than a path can be"))
    if "\0" in text:
        raise _no_path(text, field, Text("it holds a NUL character"))
    return path


def _no_path(text: str, field: str, why: Text) -> InvalidInput:
    shown = repr(text if len(text) <= 80 else f"{text[:80]}…")
    return InvalidInput(
        Text("{field} = {shown}: {why}.", field=field, shown=shown, why=why),
        Text("Give a path as this machine knows it."),
    )


def read_regular(path: Path, most: int) -> bytes:
    """All of a regular file, which is read once and never beyond the limit, whatever its size is said to be.

    Args:
        most: bytes that it may hold.

    Raises:
        OSError: it cannot be read, is a device, a pipe or a folder, or (``EFBIG``) holds more.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its other end
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


# JSON lines

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
