"""Reads CSV with a header line: detects the delimiter, yields one row at a time.

Quoted line ends are kept.
"""

import ast
import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TextIO

from sage_studio.data.readers.content import FileContent, detect_encoding, open_text, read_sample
from sage_studio.data.rows import invalid_row
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text, verbatim

DELIMITERS = ",\t;|"
MAX_CELL = 16 << 20
SAMPLE = 1 << 16
SAMPLE_ROWS = 50
AGREE = 0.9
HINT = re.compile(r'sep=([^"\r\n])\r?\n', re.IGNORECASE)
"""A first line that names the delimiter, as spreadsheets write it."""
NESTED = ("[", "{")
AS_PYTHON, LONGEST_PYTHON = ("[{'", "['", "{'"), 1 << 20
"""Prefixes of lists in Python notation, as pandas writes them; longer cells are not parsed."""
STRUCTURED = frozenset({"messages", "conversations", "history", "retrieval_result"}) | frozenset(
    {"pos", "neg", "positive", "negative", "prompt", "completion", "chosen", "rejected"}
)
"""Columns whose cells may hold lists or objects as JSON."""

Cells = list[str]


def csv_records(content: FileContent) -> Iterator[dict[str, Any]]:
    """The rows as records, named by the header.

    Raises:
        InvalidDataset: a header that names nothing or a column twice; a row with more or fewer cells, by its number.
    """
    with open_text(content, detect_encoding(content), newline="") as file:
        delimiter = delimiter_of(read_sample(content, SAMPLE)) or ","
        rows = _rows(file, delimiter)
        header = _header(next(rows, []), content.name)
        for row, cells in enumerate(rows, 1):
            yield _record(header, cells, row)


def delimiter_of(sample: str) -> str | None:
    """The delimiter under which the lines of a text have the same number of cells, two at least; None for none.

    Example:
        >>> delimiter_of('question;answer\\n"a;b";c\\n')
        ';'
    """
    if hint := HINT.match(sample):
        return hint[1]
    widths = {delimiter: _width(sample, delimiter) for delimiter in DELIMITERS}
    best = max(widths, key=lambda delimiter: widths[delimiter])
    return best if widths[best] > 1 else None


def header_of(sample: str) -> Cells:
    """The first line's cells; empty unless it is a table of two columns or more."""
    delimiter = delimiter_of(sample)
    if delimiter is None:
        return []
    rows = csv.reader(sample.splitlines(keepends=True), delimiter=delimiter)
    first = next(rows, [])
    return [cell.strip() for cell in (next(rows, []) if HINT.match(sample) else first)]


def _width(sample: str, delimiter: str) -> int:
    """Cells per row, if nearly all rows of the sample have as many as the header; 0 if they have not."""
    lines = sample.splitlines(keepends=True)
    whole = lines[:-1] if len(sample) >= SAMPLE else lines
    try:
        rows = [row for row in islice(csv.reader(whole, delimiter=delimiter), SAMPLE_ROWS) if row]
    except csv.Error:
        return 0
    if len(rows) > 1 and len(sample) >= SAMPLE:
        rows.pop()  # it may be cut within quotes
    if not rows:
        return 0
    width = len(rows[0])
    return width if sum(len(row) == width for row in rows) >= AGREE * len(rows) else 0


def _rows(file: TextIO, delimiter: str) -> Iterator[Cells]:
    """Non-empty rows, the header first. Errors name the row; the header is row 0."""
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    number = 0
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _broken(number, line, str(error)) from error
        if not any(cells) or (line == 1 and HINT.fullmatch(delimiter.join(cells) + "\n")):
            continue
        yield cells
        number += 1


def _header(cells: Cells, name: str) -> Cells:
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    twice = sorted({each for each in names if each and names.count(each) > 1})
    if not names or twice:
        what = Text("names {twice!r} twice", twice=twice[0]) if twice else Text("is empty")
        raise InvalidDataset(
            Text("The header line of {name} {what}.", name=name, what=what),
            Text("Name every column once in the first line."),
        )
    return names


def _record(header: Sequence[str], cells: Cells, row: int) -> dict[str, Any]:
    while len(cells) > len(header) and not cells[-1]:
        cells.pop()
    if len(cells) != len(header):
        raise invalid_row(
            row,
            Text("it has {cells} cells, the header {header}.", cells=len(cells), header=len(header)),
            Text('Put text with delimiters, quotes or line ends into "double quotes".'),
        )
    return {key: _value(key, cell) for key, cell in zip(header, cells, strict=True) if key}


def _value(key: str, cell: str) -> Any:
    if key not in STRUCTURED or not cell.startswith(NESTED):
        return cell
    try:
        value = _literal(cell) if cell.startswith(AS_PYTHON) else json.loads(cell)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return cell
    return value if isinstance(value, list | dict) else cell


def _literal(cell: str) -> Any:
    """A literal in Python notation (never evaluated) that is also valid JSON. Raises what both parsers raise."""
    return json.loads(json.dumps(ast.literal_eval(cell))) if len(cell) <= LONGEST_PYTHON else cell


def _broken(row: int, line: int, cause: str) -> InvalidDataset:
    unclosed = "unexpected end of data" in cause or "field limit" in cause
    message = Text("a quote that never closes") if unclosed else verbatim(cause)
    return invalid_row(
        max(row, 1),
        Text("broken CSV from line {line} of the file on: {message}.", line=line, message=message),
        Text("A quote inside a quoted cell is written twice."),
    )
