"""Zip archives, checked for bombs, escaping paths, links and nesting before reading."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sage_studio.data.readers.content import RATIO, UNSUSPECTED, decompressed_too_large
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

MAX_MEMBERS = 20_000
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,
    RuntimeError,
)
"""Exceptions of the standard library for a damaged zip."""
UTF8_NAME = 0x800
ENCRYPTED = 0x1


def zip_members(
    file: Path, name: str, max_bytes: int, wanted: tuple[str, ...], told: tuple[str, ...] = ()
) -> Iterator[tuple[str, bytes]]:
    """The members whose names end in one of ``wanted``, sorted by name.

    Args:
        file: the zip.
        name: what to call it.
        max_bytes: most that all members may unpack to.
        wanted: suffixes in small letters.
        told: suffixes of members that are given without their content, which is not read.

    Raises:
        InvalidDataset: the zip is damaged, or made to do harm; then nothing of it is used.
    """
    with _damage_named(name), zipfile.ZipFile(file) as archive:
        left = _checked(archive, name, max_bytes)
        for info in sorted(archive.infolist(), key=lambda each: each.filename):
            path = _name(info)
            if path.lower().endswith(wanted):  # a folder's name ends in a slash
                content = _read(archive, info, left, name, max_bytes)
                left -= len(content)
                yield path, content
            elif path.lower().endswith(told):
                yield path, b""


def check_zip(content: bytes, name: str, max_bytes: int) -> None:
    """Raise `InvalidDataset` for a zip in memory that is damaged or malicious."""
    with _damage_named(name), zipfile.ZipFile(io.BytesIO(content)) as archive:
        _checked(archive, name, max_bytes)


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise InvalidDataset(
            Text("{name} is a damaged zip: {error}", name=name, error=error),
            Text("Pack or download the file again."),
        ) from error


def _checked(archive: zipfile.ZipFile, name: str, max_bytes: int) -> int:
    """Bytes that may be read of an archive. Raises `InvalidDataset` for a malicious one."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        said = Text("it has {count:,} members; {most:,} are allowed", count=len(infos), most=MAX_MEMBERS)
        raise _refused(name, said)
    for info in infos:
        _check(info, name)
    limit = min(max_bytes, max(UNSUSPECTED, RATIO * sum(info.compress_size for info in infos)))
    if sum(info.file_size for info in infos) > limit:
        raise decompressed_too_large(name, limit)
    return limit


def _check(info: zipfile.ZipInfo, name: str) -> None:
    path = _name(info)
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if path.startswith(("/", "\\")) or ".." in parts or path[1:2] == ":" or "\0" in path:
        raise _refused(name, Text("its member {path!r} leads out of the folder", path=path))
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _refused(name, Text("its member {path!r} is a link", path=path))
    if info.flag_bits & ENCRYPTED:
        raise _refused(name, Text("its member {path!r} needs a password", path=path))
    if path.lower().endswith(".zip"):
        raise _refused(name, Text("its member {path!r} is a zip itself", path=path))


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name; Windows in Chinese writes GBK where the standard asks for code page 437."""
    if info.flag_bits & UTF8_NAME or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("gb18030")
    except UnicodeError:
        return info.filename


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int, name: str, max_bytes: int) -> bytes:
    with archive.open(info) as member:
        content = member.read(left + 1)
    if len(content) > left:
        raise decompressed_too_large(name, max_bytes)
    return content


def _refused(name: str, why: Text) -> InvalidDataset:
    return InvalidDataset(
        Text("{name} is refused: {why}.", name=name, why=why),
        Text("Pack plain documents into one zip, without links, zips and passwords."),
    )
