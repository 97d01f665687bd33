"""A file's bytes, decompressed where it is gzipped, never more of them than is allowed."""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


GZIP = b"\x1f\x8b"
MIB = 1 << 20
CHUNK = 1 << 20
RATIO = 200
"""Text compresses to a third or a tenth; what expands more than this many times is a decompression bomb."""
UNSUSPECTED = 32 * MIB
"""Size up to which any ratio is accepted."""
BEGINNING = 8 * MIB


@dataclass(frozen=True)
class FileContent:
    """A file's bytes; can be opened again and again.

    Attributes:
        path: the file.
        max_bytes: limit of its decompressed size.
        faults: errors in the gzip data: reading ends there, and the reader adds the row.
    """

    path: Path
    max_bytes: int
    faults: list[InvalidDataset] = field(default_factory=list, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @cached_property
    def is_packed(self) -> bool:
        """Whether it is gzipped."""
        with self.path.open("rb") as file:
            return file.read(len(GZIP)) == GZIP

    @property
    def suffix(self) -> str:
        """The file name's suffix in lower case, without ``.gz``; may be empty."""
        path = self.path
        return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()

    def open(self) -> BinaryIO:
        """Open the decompressed bytes. Reading raises `InvalidDataset` beyond the limit."""
        if not self.is_packed:
            return self.path.open("rb", CHUNK)
        return io.BufferedReader(_Decompressed(self), CHUNK)

    def head(self, size: int) -> bytes:
        """The first bytes."""
        with self.open() as file:
            return file.read(size)

    def chunks(self) -> Iterator[bytes]:
        """All bytes, in chunks."""
        with self.open() as file:
            while chunk := file.read(CHUNK):
                yield chunk


class FileHead(FileContent):
    """The first `BEGINNING` bytes of a file, up to a line end, as if they were all of it."""

    def open(self) -> BinaryIO:
        """Their bytes."""
        with super().open() as file:
            head = file.read(BEGINNING)
        if len(head) < BEGINNING:
            return io.BytesIO(head)
        end = head.rfind(b"\n")
        return io.BytesIO(head[: end - end % 2 if b"\0" in head else end])  # a character of UTF-16 has two bytes


def decompressed_too_large(name: str, limit: int) -> InvalidDataset:
    """The error for content that is larger than allowed once it is unpacked."""
    return InvalidDataset(
        Text(f"{name} unpacks to more than {limit // MIB} MiB.", f"{name} 解压后超过 {limit // MIB} MiB。"),
        Text(
            f"A file may hold SAGE_STUDIO_MAX_UPLOAD_MB once unpacked, and at most {RATIO} times its packed size.",
            f"文件解压后不得超过 SAGE_STUDIO_MAX_UPLOAD_MB，且不得超过压缩大小的 {RATIO} 倍。",
        ),
    )


class _Decompressed(io.RawIOBase):
    """A gzipped file's content, counted."""

    def __init__(self, content: FileContent) -> None:
        super().__init__()
        self._content = content
        self._limit = min(content.max_bytes, max(UNSUSPECTED, RATIO * content.path.stat().st_size))
        self._file = gzip.GzipFile(content.path, "rb")
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        try:
            piece = self._file.read1(len(memoryview(buffer)))  # no more at a time: what came before a fault is whole
        except (EOFError, gzip.BadGzipFile, zlib.error):
            self._content.faults[:] = [_damaged(self._content.name, self._read)]
            return 0
        self._read += len(piece)
        if self._read > self._limit:
            raise decompressed_too_large(self._content.name, self._limit)
        cast(bytearray, buffer)[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _damaged(name: str, read: int) -> InvalidDataset:
    return InvalidDataset(
        Text(
            f"{name} is damaged: its gzip data is truncated or corrupt after {read:,} bytes of content.",
            f"{name} 已损坏：gzip 数据在 {read:,} 字节内容之后中断或出错。",
        ),
        Text("Pack or download the file again.", "请重新压缩或重新下载该文件。"),
    )
