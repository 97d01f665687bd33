"""What a file is, told by its content; the name decides only between things that look the same.

Knows the marks of formats and the look of JSON, tables and HTML. Knows nothing of records or documents.
"""

import re
import zipfile
from enum import StrEnum

from sage_studio.data.files.content import GZIP, Content
from sage_studio.data.files.csv_records import SAMPLE, delimiter_of, header_of
from sage_studio.data.files.encoding import not_text, sample_of
from sage_studio.data.files.zipped import DAMAGE
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text


class Kind(StrEnum):
    """What a file can be."""

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
        """Whether records are read from it; documents are from the others."""
        return self in (Kind.JSON, Kind.CSV, Kind.PARQUET)


DOCUMENTS = {
    ".md": Kind.MARKDOWN,
    ".markdown": Kind.MARKDOWN,
    ".mdx": Kind.MARKDOWN,
    ".html": Kind.HTML,
    ".htm": Kind.HTML,
    ".txt": Kind.TEXT,
    ".pdf": Kind.PDF,
    ".docx": Kind.DOCX,
}
"""The suffixes by which documents are found in a folder or a zip."""
TABLES = (".csv", ".tsv")
JSONS = (".json", ".jsonl", ".ndjson")
ROWS = {**dict.fromkeys(JSONS, Kind.JSON), **dict.fromkeys(TABLES, Kind.CSV), ".parquet": Kind.PARQUET}
"""The suffixes by which files of rows are found among documents."""
SUFFIXES = (*ROWS, ".gz", *DOCUMENTS, ".zip")
"""What an upload may be called; any name is taken, these are offered."""

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


def kind_of(content: Content) -> Kind:
    """What a file is.

    Raises:
        InvalidDataset: it is none of the kinds that can be read; says what it seems to be.
    """
    head = content.head(HEAD)
    if head.startswith(PARQUET):
        return Kind.PARQUET
    if PDF in head[:1024]:
        return Kind.PDF
    if head.startswith(ZIP):
        return _kind_of_zip(content)
    foreign = next((name for mark, name in FOREIGN if mark.match(head)), None)
    if foreign is not None:
        raise not_text(content, foreign)
    return _kind_of_text(sample_of(content, SAMPLE), content)


def _kind_of_zip(content: Content) -> Kind:
    if content.is_packed:
        raise not_text(content, "gzipped zip")
    try:
        with zipfile.ZipFile(content.path) as archive:
            names = archive.namelist()
    except DAMAGE as error:
        raise InvalidDataset(
            Text(f"{content.name} is a damaged zip: {error}.", f"{content.name} 是损坏的 zip：{error}。"),
            Text("Pack or download the file again.", "请重新压缩或重新下载该文件。"),
        ) from error
    if "[Content_Types].xml" not in names:
        return Kind.ZIP
    if "word/document.xml" in names:
        return Kind.DOCX
    raise not_text(content, "Office (.xlsx, .pptx)")


def _kind_of_text(sample: str, content: Content) -> Kind:
    begin, suffix = sample.lstrip(), content.suffix
    named = DOCUMENTS.get(suffix)
    if BEGINS_JSON.match(begin) and not (named and begin.startswith("{") and begin[1:].lstrip()[:1] not in ('"', "}")):
        return Kind.JSON
    if suffix in TABLES:
        return Kind.CSV
    if _is_table(sample, named is not None):
        return Kind.CSV
    if BEGINS_HTML.match(begin) and suffix not in (".md", ".markdown", ".mdx"):
        return Kind.HTML
    if named in (Kind.MARKDOWN, Kind.HTML, Kind.TEXT):
        return named
    if suffix in JSONS or not begin or named is not None:
        return Kind.JSON
    raise InvalidDataset(
        Text(
            f"{content.name} is text, but neither JSON nor a table.",
            f"{content.name} 是文本，但既不是 JSON 也不是表格。",
        ),
        Text(
            f"Rename a document to end in {', '.join(DOCUMENTS)}.",
            f"如果它是文档，请把后缀改为 {'、'.join(DOCUMENTS)}。",
        ),
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
