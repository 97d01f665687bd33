"""Reads JSON arrays, JSONL and concatenated objects one record at a time.

An array may also stand within an object, as ``{"version": "1.0", "data": […]}``. Records are parsed by orjson where it
takes them, else by the standard library, which names the column of an error.
"""

import codecs
import json
import re
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, TextIO

import orjson

from sage_studio.data.readers.content import FileContent, detect_encoding, open_text
from sage_studio.data.rows import invalid_row
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

MAX_RECORD = 64 << 20
READ = 1 << 20
SPACE = re.compile(r"[ \t\r\n]*")
NESTING = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
DEEPEST, TOO_DEEP = 300, "nested too deeply"
LONGEST_TOKEN = 16
"""Characters of a number, literal or escape that may be cut at the end of the text read so far."""
LISTS = ("data", "rows", "records", "examples", "samples", "instances", "dataset", "train")
"""Keys under which an object holds the rows of a file."""
OTHER_LISTS = (*LISTS, "test", "validation", "valid", "dev", "eval")
KEY = r'"(?:[^"\\]|\\.)*+"\s*:\s*'
FLAT = r'(?:"(?:[^"\\]|\\.)*+"|[-+.\w]++|\{[^{}]*+\}|\[[^\[\]{}]*+\])\s*,\s*'
WRAPPED = re.compile(rf'\{{\s*(?:{KEY}{FLAT})*?"({"|".join(LISTS)})"\s*:\s*(?=\[\s*[{{"\]])', re.DOTALL)


def json_records(content: FileContent) -> Iterator[Any]:
    """The records, in order. Raises `InvalidDataset` for broken JSON, naming row and line."""
    encoding = detect_encoding(content)
    head = _head(content, encoding)
    if not head:
        raise empty_file(content.name)
    if head[0] not in '[{"':
        raise _broken(1, 1, f"the file begins with {head[:20].splitlines()[0]!r}, not with [ or {{")
    if _begins_jsonl(head):
        yield from _lines_of(content, encoding)
        return
    wrapped = WRAPPED.match(head)
    with open_text(content, encoding) as file:
        text = _TextStream(file)
        if wrapped is not None:
            yield from _wrapped_values(text, wrapped)
        else:
            yield from _values(text, is_array=head[0] == "[")


def is_jsonl(content: FileContent, encoding: str) -> bool:
    """Whether a file has a row on every line, as far as its first line tells."""
    return _begins_jsonl(_head(content, encoding))


def parse_odd_line(line: str | bytes, row: int, number: int) -> Any:
    """A line that orjson does not take: what else is JSON to Python, or would be without a comma at its end.

    Raises:
        InvalidDataset: names row and line.
    """
    if len(line) >= MAX_RECORD:
        raise _broken(row, number, _too_long())
    text = line if isinstance(line, str) else line.decode("utf-8", errors="surrogateescape")
    if _is_deep(text):  # how deep the parser itself can go depends on who calls it
        raise _broken(row, number, TOO_DEEP)
    try:
        return json.loads(text.rstrip().removesuffix(","))
    except json.JSONDecodeError as error:
        raise _broken(row, number, f"{error.msg}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:
        raise _broken(row, number, _limit(error)) from error


def empty_file(name: str) -> InvalidDataset:
    """The error for a file without content."""
    return InvalidDataset(
        Text("{name} is empty.", name=name),
        Text("Give a JSON array of rows, or JSONL with one row a line."),
    )


def _head(content: FileContent, encoding: str) -> str:
    """The beginning of a file's text, without leading white space and byte order mark."""
    with open_text(content, encoding, lenient=True) as file:
        while (head := file.read(READ)) and head.isspace():
            pass
    return head.lstrip().removeprefix("\ufeff").lstrip()


def _begins_jsonl(head: str) -> bool:
    first, _, rest = head.partition("\n")
    is_alone = not rest.strip()
    return first.startswith(("{", '"')) and _is_one_row(first.rstrip()) and not (is_alone and WRAPPED.match(head))


def _is_one_row(line: str) -> bool:
    """Whether a line is a JSONL row, possibly a broken one, and not the start of a pretty-printed object."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.rstrip(",").endswith("}") or len(line) >= READ // 2
    return True


def _lines_of(content: FileContent, encoding: str) -> Iterator[Any]:
    """JSONL; UTF-8 is parsed as bytes, without decoding."""
    if not encoding.startswith("utf-8"):
        with open_text(content, encoding) as text:
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
            yield parse_odd_line(line, row, number)


def _wrapped_values(text: "_TextStream", begin: re.Match[str]) -> Iterator[Any]:
    """The rows of an array within an object. Raises `InvalidDataset` where a second list of rows stands beside it."""
    text.skip(begin.end())
    row = yield from _array(text)
    while text.peek() == ",":
        text.skip(1)
        key = text.value(row)
        if text.peek() != ":":
            raise _broken(row, text.line, f"':' expected after {key!r}, found {text.peek()!r}")
        text.skip(1)
        if text.value(row) and key in OTHER_LISTS:
            raise _second_list(row + 1, begin[1], key)
    if text.peek() != "}":
        raise _broken(row, text.line, f"',' or '}}' expected after the rows, found {text.peek()!r}")
    text.skip(1)
    _check_end(text, row)


def _values(text: "_TextStream", is_array: bool) -> Iterator[Any]:
    row = 0
    if is_array:
        row = yield from _array(text)
        _check_end(text, row)
    while text.peek():
        row += 1
        yield text.value(row)


def _array(text: "_TextStream") -> Generator[Any, None, int]:
    """The rows of the array that begins here, through to its end; returns how many there are."""
    row = 0
    text.skip(1)
    while (mark := text.peek()) and mark != "]":
        row += 1
        yield text.value(row)
        if text.peek() == ",":
            text.skip(1)
            if text.peek() == "]":
                raise _broken(row, text.line, "a comma after the last row")
        elif text.peek() not in ("]", ""):
            raise _broken(row, text.line, f"',' or ']' expected after the row, found {text.peek()!r}")
    if not text.peek():
        raise _broken(row + 1, text.line, "the file ends before the closing ]")
    text.skip(1)
    return row


def _check_end(text: "_TextStream", row: int) -> None:
    if text.peek():
        raise _broken(row, text.line, f"more text after the closing ]: {text.peek()!r}")


class _TextStream:
    """The text of a file from the current position on, read as far as the next value needs."""

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
        """The JSON value that comes next. Raises `InvalidDataset` naming ``row`` and the line of the fault."""
        self.peek()
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
        """Read more and discard what is consumed. False at the end."""
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


def _is_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    depth = 0
    for token in NESTING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        if depth > DEEPEST:
            return True
    return False


def _limit(error: RecursionError | ValueError) -> str:
    return TOO_DEEP if isinstance(error, RecursionError) else "a number with too many digits"


def _too_long() -> str:
    return f"a row of more than {MAX_RECORD >> 20} million characters"


def _second_list(row: int, one: str, other: str) -> InvalidDataset:
    return invalid_row(
        row,
        Text("a second list of rows begins: {other}, after {one}.", other=other, one=one),
        Text("Save each list as a file of its own."),
    )


def _broken(row: int, line: int, cause: str) -> InvalidDataset:
    return invalid_row(
        row,
        Text("broken JSON in line {line} of the file: {cause}.", line=line, cause=cause),
        Text("Correct that place; JSON needs double quotes, commas between rows, and none after the last."),
    )
