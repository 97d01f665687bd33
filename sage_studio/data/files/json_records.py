"""The records of a JSON array, of JSONL, or of JSON objects one after another: one at a time, whatever the file's size.

Knows JSON and where in the file a fault is. Knows nothing of what a record means. Each record is read whole by a parser
in C: orjson for the lines it takes, the standard one for all others, as that names the column of a fault.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

import orjson

from sage_studio.data.faults import invalid_row
from sage_studio.data.files.content import Content
from sage_studio.data.files.encoding import encoding_of, text_of
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

MAX_RECORD = 64 << 20
READ = 1 << 20
SPACE = re.compile(r"[ \t\r\n]*")
LONGEST_TOKEN = 16
"""Characters of a number, a literal or an escape that the end of the text read so far may have cut."""


def json_records(content: Content) -> Iterator[Any]:
    """The records, in order. Raises `InvalidDataset` for broken JSON, naming row and line."""
    encoding = encoding_of(content)
    with text_of(content, encoding) as file:
        first = _first_line(file)
    if not first:
        raise empty_file(content.name)
    if first[0] not in "[{":
        raise _broken(1, 1, f"the file begins with {first[:20]!r}, not with [ or {{")
    if _begins_jsonl(first):
        yield from _lines_of(content, encoding)
        return
    with text_of(content, encoding) as file:
        yield from _values(_Ahead(file), is_array=first[0] == "[")


def is_jsonl(content: Content, encoding: str) -> bool:
    """Whether a file has a row on every line, as far as its first line tells."""
    with text_of(content, encoding) as file:
        return _begins_jsonl(_first_line(file))


def odd_line(line: str | bytes, row: int, number: int) -> Any:
    """A line that orjson does not take: what else is JSON to Python. Raises `InvalidDataset` naming row and line."""
    if len(line) >= MAX_RECORD:
        raise _broken(row, number, _too_long())
    try:
        return json.loads(line if isinstance(line, str) else line.decode("utf-8", errors="surrogateescape"))
    except json.JSONDecodeError as error:
        raise _broken(row, number, f"{error.msg}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:
        raise _broken(row, number, _limit(error)) from error


def empty_file(name: str) -> InvalidDataset:
    """The error for a file without content."""
    return InvalidDataset(
        Text(f"{name} is empty.", f"{name} 是空文件。"),
        Text("Give a JSON array of rows, or JSONL with one row a line.", "请提供 JSON 数组，或每行一条的 JSONL。"),
    )


def _first_line(file: TextIO) -> str:
    while (line := file.readline(READ)) and line.isspace():
        pass
    return line.strip().removeprefix("\ufeff")


def _begins_jsonl(first: str) -> bool:
    return first.startswith("{") and _is_one_row(first)


def _is_one_row(line: str) -> bool:
    """Whether a line is JSONL's: whole, or broken though it closes; an object printed over several lines is neither."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.rstrip(",").endswith("}") or len(line) >= READ // 2
    return True


def _lines_of(content: Content, encoding: str) -> Iterator[Any]:
    """JSONL; UTF-8 goes to the parser as it lies on the disk."""
    if not encoding.startswith("utf-8"):
        with text_of(content, encoding) as text:
            yield from _lines(text)
        return
    with content.open() as file:
        file.read(len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)
        yield from _lines(file)


def _lines(file: TextIO | BinaryIO) -> Iterator[Any]:
    row = number = 0
    while line := file.readline(MAX_RECORD):
        number += 1
        try:
            yield orjson.loads(line)
            row += 1
        except orjson.JSONDecodeError:
            if line.isspace():
                continue
            row += 1
            yield odd_line(line, row, number)


def _values(text: "_Ahead", is_array: bool) -> Iterator[Any]:
    row = 0
    if is_array:
        text.skip(1)
    while (mark := text.peek()) and not (is_array and mark == "]"):
        row += 1
        yield text.value(row)
        if is_array and text.peek() == ",":
            text.skip(1)
            if text.peek() == "]":
                raise _broken(row, text.line, "a comma after the last row")
        elif is_array and text.peek() not in ("]", ""):
            raise _broken(row, text.line, f"',' or ']' expected after the row, found {text.peek()!r}")
    if is_array:
        _check_end(text, row)


def _check_end(text: "_Ahead", row: int) -> None:
    if not text.peek():
        raise _broken(row + 1, text.line, "the file ends before the closing ]")
    text.skip(1)
    if text.peek():
        raise _broken(row, text.line, f"more text after the closing ]: {text.peek()!r}")


class _Ahead:
    """A file's text from the present place on, read as far as the next record needs."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._lines_before = 0
        self._decode = json.JSONDecoder().raw_decode

    @property
    def line(self) -> int:
        """The line of the present place, counted from 1."""
        return self._line_of(self._at)

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            found = SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(READ):
                return ""

    def skip(self, count: int) -> None:
        """Go past characters that `peek` showed."""
        self.peek()
        self._at += count

    def value(self, row: int) -> Any:
        """The JSON value that begins here. Raises `InvalidDataset` naming ``row`` and the line of the fault."""
        while True:
            try:
                value, self._at = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - LONGEST_TOKEN
                if cut and len(self._text) - self._at > MAX_RECORD:
                    raise _broken(row, self.line, _too_long()) from error
                if not cut or not self._more(max(READ, len(self._text) - self._at)):  # doubled: linear in all
                    raise _broken(row, self._line_of(error.pos), self._cause(error)) from error
            except (RecursionError, ValueError) as error:
                raise _broken(row, self.line, _limit(error)) from error
            else:
                return value

    def _more(self, size: int) -> bool:
        """Read on, forgetting what lies behind. False at the end."""
        more = self._file.read(size)
        self._lines_before += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + more
        self._at = 0
        return bool(more)

    def _line_of(self, position: int) -> int:
        return self._lines_before + self._text.count("\n", 0, position) + 1

    def _cause(self, error: json.JSONDecodeError) -> str:
        if not self._text[error.pos :].strip():
            return "the file ends within the row"
        return f"{error.msg}, column {error.colno}" if self._lines_before == 0 or error.lineno > 1 else error.msg


def _limit(error: RecursionError | ValueError) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"


def _too_long() -> str:
    return f"a row of more than {MAX_RECORD >> 20} million characters"


def _broken(row: int, line: int, cause: str) -> InvalidDataset:
    return invalid_row(
        row,
        Text(f"broken JSON in line {line} of the file: {cause}.", f"文件第 {line} 行的 JSON 有误：{cause}。"),
        Text(
            "Correct that place; JSON needs double quotes, commas between rows, and none after the last.",
            "请改正该处；JSON 需要双引号，各条之间用逗号分隔，最后一条之后没有逗号。",
        ),
    )
