"""File types by content, and the records of a data file of any type.

The name decides only between types that look the same.
"""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from sage_studio.data.readers.content import GZIP, FileContent, FileHead, read_sample, unsupported_file
from sage_studio.data.readers.csv import SAMPLE, csv_records, delimiter_of, header_of
from sage_studio.data.readers.json import json_records
from sage_studio.data.readers.parquet import parquet_records
from sage_studio.data.readers.zip import DAMAGE
from sage_studio.data.rows import invalid_row
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text


class FileType(StrEnum):
    """Types of files that can be read."""

    JSON = "JSON"
    CSV = "CSV"
    PARQUET = "Parquet"
    MARKDOWN = "Markdown"
    HTML = "HTML"
    TEXT = "TXT"
    PDF = "PDF"
    DOCX = "DOCX"
    ZIP = "zip"

    @property
    def holds_rows(self) -> bool:
        """Whether it holds rows; the others are documents."""
        return self in (FileType.JSON, FileType.CSV, FileType.PARQUET)


DOCUMENTS = {
    ".md": FileType.MARKDOWN,
    ".markdown": FileType.MARKDOWN,
    ".mdx": FileType.MARKDOWN,
    ".html": FileType.HTML,
    ".htm": FileType.HTML,
    ".txt": FileType.TEXT,
    ".pdf": FileType.PDF,
    ".docx": FileType.DOCX,
}
"""Suffixes of documents in a folder or zip."""
TABLES = (".csv", ".tsv")
JSONS = (".json", ".jsonl", ".ndjson")
ROWS = {**dict.fromkeys(JSONS, FileType.JSON), **dict.fromkeys(TABLES, FileType.CSV), ".parquet": FileType.PARQUET}
"""Suffixes of data files among documents."""
SUFFIXES = (*ROWS, ".gz", *DOCUMENTS, ".zip")
"""Suffixes offered for uploads; files of other names are accepted too."""

PARQUET, PDF, ZIP = b"PAR1", b"%PDF-", b"PK\x03\x04"
FOREIGN = (
    (re.compile(rb"\x80[\x02-\x05]"), "pickle"),
    (re.compile(rb"SQLite format 3"), "SQLite"),
    (re.compile(rb"7z\xbc\xaf|Rar!|\xfd7zXZ|BZh\d|\x28\xb5\x2f\xfd"), "7z, RAR, xz, bz2 or zstd"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF"), "picture"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "old Office (.doc, .xls)"),
    (re.compile(rb"\x93NUMPY|ARROW1|\x89HDF"), "NumPy, Arrow or HDF5"),
    (re.compile(rb"\x7fELF|MZ"), "program"),
    (re.compile(rb"\{\\rtf"), "rich text (.rtf)"),
    (re.compile(GZIP), "doubly gzipped"),
)
HEAD = 4096
BEGINS_JSON = re.compile(r"\{|\[\s*(?:[{\"\]]|\[\s*[\"{\[\]\d])|\[\s*$")
BEGINS_HTML = re.compile(
    r"(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body|article|main|div|h1|p)\b", re.IGNORECASE | re.DOTALL
)
COLUMN = re.compile(r"[\w .:/()\-]{1,60}")
WELL_KNOWN = frozenset(
    {"instruction", "input", "output", "prompt", "completion", "question", "answer", "response", "text", "messages"}
) | frozenset({"query", "pos", "neg", "chosen", "rejected", "label", "anchor", "positive", "negative", "conversations"})


def detect_file_type(content: FileContent) -> FileType:
    """What a file is.

    Raises:
        InvalidDataset: it is none of the kinds that can be read; says what it seems to be.
    """
    head = content.head(HEAD)
    if head.startswith(PARQUET):
        return FileType.PARQUET
    if PDF in head[:1024]:
        return FileType.PDF
    if head.startswith(ZIP):
        return _kind_of_zip(content)
    foreign = next((name for mark, name in FOREIGN if mark.match(head)), None)
    if foreign is not None:
        raise unsupported_file(content, foreign)
    return _kind_of_text(read_sample(content, SAMPLE), content)


def _kind_of_zip(content: FileContent) -> FileType:
    if content.is_packed:
        raise unsupported_file(content, "gzipped zip")
    try:
        with zipfile.ZipFile(content.path) as archive:
            names = archive.namelist()
    except DAMAGE as error:
        raise InvalidDataset(
            Text("{name} is a damaged zip: {error}.", name=content.name, error=error),
            Text("Pack or download the file again."),
        ) from error
    if "[Content_Types].xml" not in names:
        return FileType.ZIP
    if "word/document.xml" in names:
        return FileType.DOCX
    raise unsupported_file(content, "Office (.xlsx, .pptx)")


def _kind_of_text(sample: str, content: FileContent) -> FileType:
    begin, suffix = sample.lstrip(), content.suffix
    named = DOCUMENTS.get(suffix)
    if BEGINS_JSON.match(begin) and not (named and begin.startswith("{") and begin[1:].lstrip()[:1] not in ('"', "}")):
        return FileType.JSON
    if suffix in TABLES:
        return FileType.CSV
    if _is_table(sample, named is not None):
        return FileType.CSV
    if BEGINS_HTML.match(begin) and suffix not in (".md", ".markdown", ".mdx"):
        return FileType.HTML
    if named in (FileType.MARKDOWN, FileType.HTML, FileType.TEXT):
        return named
    if suffix in JSONS or not begin or named is not None:
        return FileType.JSON
    raise InvalidDataset(
        Text("{name} is text, but neither JSON nor a table.", name=content.name),
        Text("Rename a document to end in {documents}.", documents=list(DOCUMENTS)),
    )


def _is_table(sample: str, is_named_document: bool) -> bool:
    """Whether the first line names columns; a document must name two that data files have, to be a table after all.

    Or be cut into cells by tabs in every line: spreadsheets call their "Unicode text" ``.txt``.
    """
    header = header_of(sample)
    names = {name.lower() for name in header}
    if len(names) < 2 or len(names) < len(header) or not all(map(COLUMN.fullmatch, header)):
        return False
    if not is_named_document:
        return "\n" in sample.strip()
    return len(names & WELL_KNOWN) >= 2 or (delimiter_of(sample) == "\t" and sample.count("\n") > 1)


# Reading rows

READERS: Mapping[FileType, Callable[[FileContent], Iterator[Any]]] = {
    FileType.JSON: json_records,
    FileType.CSV: csv_records,
    FileType.PARQUET: parquet_records,
}


FIRST = 1000


def first_records(content: FileContent, kind: FileType) -> Iterator[Any]:
    """The first thousand records, or fewer if they are long; ends at the first error, which `read_records` reports."""
    records = read_records(FileHead(content.path, content.max_bytes), kind)
    try:
        for _ in range(FIRST):
            yield next(records)
    except (StopIteration, InvalidDataset):
        return


def read_records(content: FileContent, kind: FileType) -> Iterator[Any]:
    """The records, in order, one at a time.

    Args:
        content: the file.
        kind: one that holds rows.

    Raises:
        InvalidDataset: naming the row where the file goes wrong, or what is wrong with the whole of it.
    """
    row = 0
    try:
        for record in READERS[kind](content):
            row += 1
            yield record
    except UnicodeDecodeError as error:
        what = Text("it holds bytes that are not {encoding}.", encoding=error.encoding)
        raise invalid_row(row + 1, what, Text("Save the file as UTF-8.")) from error
    except InvalidDataset as error:
        fault = next(iter(content.read_errors), error)
        if not row or (fault is error and error.row is not None):
            raise fault from None
        raise invalid_row(row + 1, fault.message, fault.hint) from error
    for fault in content.read_errors:
        raise invalid_row(row + 1, fault.message, fault.hint)
