"""What a file's first bytes and its encoding say about it: text or not, and in which encoding.

Knows byte order marks, the marks of binary formats, UTF-8, UTF-16 and GB18030. Knows nothing of JSON.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path

from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
BINARY = (
    (b"\x80\x02", "pickle"),
    (b"\x80\x03", "pickle"),
    (b"\x80\x04", "pickle"),
    (b"\x80\x05", "pickle"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"PAR1", "Parquet"),
    (b"%PDF", "PDF"),
    (b"SQLite format 3", "SQLite"),
)
CHUNK = 1 << 20
MOSTLY = 0.1


def encoding_of(path: Path) -> str:
    """The encoding of a text file: ``utf-8``, ``utf-8-sig``, ``utf-16`` or ``gb18030``.

    The whole file is read once, in pieces: one Chinese character may stand only at its end.

    Raises:
        InvalidDataset: it is binary, or in no known encoding; names the byte.
    """
    with path.open("rb") as file:
        head = file.read(CHUNK)
    marked = next((encoding for mark, encoding in BOMS if head.startswith(mark)), None)
    if marked == "utf-16":
        _check(path, marked)
        return marked
    _refuse_binary(path, head)
    wrong = _first_wrong_byte(path, "utf-8")
    if wrong is None:
        return marked or "utf-8"
    if marked is None and not _is_damaged_utf8(path, wrong) and _first_wrong_byte(path, "gb18030") is None:
        return "gb18030"
    raise _undecodable(path, wrong)


def _check(path: Path, encoding: str) -> None:
    wrong = _first_wrong_byte(path, encoding)
    if wrong is not None:
        raise _undecodable(path, wrong)


def _refuse_binary(path: Path, head: bytes) -> None:
    kind = next((name for mark, name in BINARY if head.startswith(mark)), "binary" if b"\0" in head else "")
    if kind:
        raise InvalidDataset(
            Text(f"{path.name} is a {kind} file, not text.", f"{path.name} 是 {kind} 文件，不是文本。"),
            Text(
                "Export the rows as JSON or JSONL; compressed files must be unpacked first.",
                "请将数据导出为 JSON 或 JSONL；压缩文件请先解压。",
            ),
        )


def _first_wrong_byte(path: Path, encoding: str) -> int | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    done = 0
    for chunk in _chunks(path):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            return done - pending + error.start
        done += len(chunk)
    return None


def _chunks(path: Path) -> Iterator[bytes]:
    """The file in pieces, the last one empty."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
    yield b""


def _is_damaged_utf8(path: Path, wrong: int) -> bool:
    """Whether the file is UTF-8 with few bad bytes, rather than GB18030, whose bytes hardly ever make valid UTF-8."""
    with path.open("rb") as file:
        file.seek(max(0, wrong - CHUNK))
        text = file.read(2 * CHUNK).decode("utf-8", errors="replace")
    foreign = sum(character > "\x7f" for character in text)
    return text.count("\ufffd") < MOSTLY * foreign


def _undecodable(path: Path, wrong: int) -> InvalidDataset:
    with path.open("rb") as file:
        line = sum(
            chunk.count(b"\n") for chunk in iter(lambda: file.read(min(CHUNK, max(0, wrong - file.tell()))), b"")
        )
    return InvalidDataset(
        Text(
            f"{path.name} is in no known encoding: byte {wrong} (line {line + 1}) is not valid.",
            f"{path.name} 的编码无法识别：第 {wrong} 字节（第 {line + 1} 行）无效。",
        ),
        Text(
            "Save the file as UTF-8; UTF-16 and GB18030 (GBK) are read too.",
            "请将文件保存为 UTF-8；也支持 UTF-16 和 GB18030（GBK）。",
        ),
    )
