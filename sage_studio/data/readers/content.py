"""A file's bytes, decompressed where gzipped and limited in size, and its text encoding."""

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

import codecs
import re
from collections import Counter
from typing import TextIO

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
        read_errors: errors in the gzip data: reading ends there, and the reader adds the row.
    """

    path: Path
    max_bytes: int
    read_errors: list[InvalidDataset] = field(default_factory=list, compare=False, repr=False)

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
        Text("{name} unpacks to more than {limit} MiB.", name=name, limit=limit // MIB),
        Text(
            "A file may hold SAGE_STUDIO_MAX_UPLOAD_MB once unpacked, and at most {ratio} times its packed size.",
            ratio=RATIO,
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
            self._content.read_errors[:] = [_damaged(self._content.name, self._read)]
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
            "{name} is damaged: its gzip data is truncated or corrupt after {read:,} bytes of content.",
            name=name,
            read=read,
        ),
        Text("Pack or download the file again."),
    )


# Encodings

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ERRORS = {"utf-8": "surrogateescape", "utf-8-sig": "surrogateescape", "gb18030": "strict"}
"""Invalid UTF-8 becomes lone surrogates, so that only the rows that hold it are dropped, not the whole file; UTF-16
passes its own lone surrogates on."""
MOSTLY_FOREIGN, MOSTLY = 0.1, 0.02
LOOKED_AT = 4096
FOREIGN_ENOUGH, USUAL = 4, 0.5
"""Of at least so many two-byte characters, this share is in GB2312 if they are Chinese; of traditional ones 2/3."""
CHARSET = re.compile(rb"<meta[^>]{1,200}charset\s*=\s*[\"']?\s*([\w.:-]{2,40})", re.IGNORECASE)


def open_text(content: FileContent, encoding: str, newline: str | None = None, *, lenient: bool = False) -> TextIO:
    """The file as text, in the encoding found by `detect_encoding`.

    Reading UTF-16 may raise `UnicodeDecodeError`, unless ``lenient``.
    """
    errors = ERRORS.get(encoding, "replace" if lenient else "surrogatepass")
    return io.TextIOWrapper(content.open(), encoding, errors, newline=newline)


def detect_encoding(content: FileContent) -> str:
    """The encoding of a text file: ``utf-8``, ``utf-8-sig``, one of ``utf-16`` or ``gb18030``.

    The whole file is read once, in pieces: one Chinese character may stand only at its end.

    Raises:
        InvalidDataset: it is binary, or in no known encoding; names the line.
    """
    head = content.head(LOOKED_AT)
    encoding = _marked(head)
    if encoding is not None and encoding != "utf-8-sig":
        return encoding
    if b"\0" in head:
        raise unsupported_file(content, "binary")
    wrong = _first_wrong_byte(content, "utf-8")
    if wrong is None:
        return encoding or "utf-8"
    piece = _around(content, wrong)
    damaged = piece.decode("utf-8", errors="replace")
    if not _has_few_bad(damaged, foreign=True) and not encoding and _first_wrong_byte(content, "gb18030") is None:
        if not _is_usual(piece.decode("gb18030", errors="ignore")):
            raise _undecodable(content, wrong)
        return "gb18030"
    if _has_few_bad(damaged, foreign=False):
        return encoding or "utf-8"
    raise _undecodable(content, wrong)


def encoding_of_head(content: FileContent) -> str:
    """The encoding as the first bytes have it: what `detect_encoding` says if the rest does not contradict."""
    return _marked(content.head(LOOKED_AT)) or "utf-8"


def read_sample(content: FileContent, size: int) -> str:
    """The first bytes as text, whatever is wrong with them or with what follows. Raises `InvalidDataset` for binary."""
    head = content.head(size)
    encoding = _marked(head)
    if encoding is None and b"\0" in head[:LOOKED_AT]:
        raise unsupported_file(content, "binary")
    for tried in [encoding] if encoding else ["utf-8", "gb18030"]:
        try:
            return codecs.getincrementaldecoder(tried)().decode(head).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    return head.decode(encoding or "utf-8", errors="replace").removeprefix("\ufeff")


def decode_text(content: bytes, *, is_page: bool = False) -> str | None:
    """Bytes as text: by their mark, as UTF-8, as a page declares, or as GB18030; None where they are none of these."""
    encoding = _marked(content[:LOOKED_AT])
    if encoding is None and b"\0" in content:
        return None
    declared = CHARSET.search(content[:LOOKED_AT]) if is_page else None
    for tried in [encoding] if encoding else ["utf-8", *([declared[1].decode()] if declared else []), "gb18030"]:
        try:
            text = content.decode(tried).removeprefix("\ufeff")
            text.encode()
        except (UnicodeError, LookupError):  # a page may declare anything
            continue
        return text if tried != "gb18030" or _is_usual(text) else None
    return None


def unsupported_file(content: FileContent, kind: str) -> InvalidDataset:
    """The error for a file that is neither text nor of a kind that can be read."""
    return InvalidDataset(
        Text(
            "{name} is {article} {kind} file.", name=content.name, article="an" if kind[0] in "aoAO" else "a", kind=kind
        ),
        Text(
            "Rows are read from JSON, JSONL, CSV and Parquet (each also .gz), documents from Markdown, HTML, TXT, PDF, "
            "DOCX and a zip of them."
        ),
    )


def _marked(head: bytes) -> str | None:
    """The encoding by the first bytes, if they tell."""
    return next((encoding for mark, encoding in BOMS if head.startswith(mark)), None) or _unmarked_utf16(head)


def _unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 without a mark, by the NULs beside the ASCII characters that a data file begins with."""
    begin = head[:8]
    if len(begin) < 4 or begin.count(0) < len(begin) // 2:
        return None
    if not any(begin[0::2]):
        return "utf-16-be"
    return "utf-16-le" if not any(begin[1::2]) else None


def _first_wrong_byte(content: FileContent, encoding: str) -> int | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    done = 0
    try:
        for chunk in content.chunks():
            pending = len(decoder.getstate()[0])
            if pending or not chunk.isascii():
                decoder.decode(chunk)
            done += len(chunk)
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return done - pending + error.start
    return None


def _has_few_bad(text: str, *, foreign: bool) -> bool:
    """Whether few bytes of UTF-8 are bad: of the foreign ones (GB18030's hardly ever make valid UTF-8), or of all."""
    of = sum(character > "\x7f" for character in text) if foreign else len(text)
    return text.count("\ufffd") < (MOSTLY_FOREIGN if foreign else MOSTLY) * of


def _is_usual(text: str) -> bool:
    """Whether a text decoded as GB18030 is plausible: Big5 and Shift JIS decode too, to rare characters."""
    foreign = Counter(character for character in text if character > "\x7f")
    pairs = Counter({each: times for each, times in foreign.items() if len(each.encode("gb18030")) == 2})
    usual = sum(times for each, times in pairs.items() if each.encode("gb2312", errors="ignore"))
    return pairs.total() < FOREIGN_ENOUGH or usual >= USUAL * pairs.total()


def _around(content: FileContent, place: int) -> bytes:
    with content.open() as file:
        skip = max(0, place - CHUNK)
        while skip:
            skip -= len(file.read(min(skip, CHUNK)))
        return file.read(2 * CHUNK)


def _undecodable(content: FileContent, wrong: int) -> InvalidDataset:
    line, left = 1, wrong
    for chunk in content.chunks():
        line += chunk.count(b"\n", 0, max(left, 0))
        left -= len(chunk)
    return InvalidDataset(
        Text(
            "{name} is in no known encoding: byte {wrong} (line {line}) is not valid.",
            name=content.name,
            wrong=wrong,
            line=line,
        ),
        Text("Save the file as UTF-8; UTF-16 and GB18030 (GBK) are read too."),
    )
