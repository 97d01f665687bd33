"""The text of a PDF, page by page: running heads dropped, lines joined to paragraphs, and its outline.

Runs in the conversion child only: PDFium is C++ and reads what strangers send. Knows nothing of sections.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

MAX_PAGES = 10_000
EDGE_LINES = 2
RUNNING = 0.5
LEAST_PAGES = 4
SHORT_LINE = 0.75
NUMBER = re.compile(r"\d+|[ivxlc]+", re.IGNORECASE)
PAGE_NUMBER = re.compile(r"[-–—\s]*(?:page|第)?\s*\d+\s*(?:页|(?:of|/)\s*\d+)?[-–—\s]*", re.IGNORECASE)
ITEM = re.compile(r"[•●▪◦‣·*–-]\s|\(?\d{1,3}[.)、]\s?\D|[一二三四五六七八九十]+、|#{1,6}\s")
SENTENCE_END = (".", "!", "?", ":", "。", "！", "？", "：", "；", "”", "…")


class Pages(TypedDict):
    """What a PDF holds."""

    pages: list[list[str]]
    """Paragraphs of each page; none on a page that is only a picture."""
    outline: list[tuple[int, str, int]]
    """(level from 1, title, page from 1), in order; maybe none."""


def read_pdf(content: bytes) -> Pages:
    """Read a PDF. Raises ``pypdfium2.PdfiumError`` where it is damaged or locked."""
    import pypdfium2

    with pypdfium2.PdfDocument(content) as pdf:
        lines = []
        for number in range(min(len(pdf), MAX_PAGES)):
            page = pdf[number]
            text = page.get_textpage()
            lines.append([" ".join(line.split()) for line in text.get_text_bounded().splitlines()])
            text.close()
            page.close()
        return {"pages": [list(paragraphs_of(page)) for page in without_running_heads(lines)], "outline": _outline(pdf)}


def without_running_heads(pages: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lines that stand at the top or the bottom of half of the pages, and page numbers there, are no text."""
    edges = Counter(mark for page in pages for mark in {_mark(page[at]) for at in _edges(page)})
    often = max(LEAST_PAGES - 1, RUNNING * len(pages))
    return [
        [
            line
            for at, line in enumerate(page)
            if at not in _edges(page) or not (edges[_mark(line)] >= often or PAGE_NUMBER.fullmatch(line))
        ]
        for page in pages
    ]


def paragraphs_of(lines: Sequence[str]) -> Iterator[str]:
    """Lines that were broken to fit the page, joined again; items of a list and short last lines end a paragraph.

    Example:
        >>> list(paragraphs_of(["A sentence that goes over the", "end of the line.", "• one", "• two"]))
        ['A sentence that goes over the end of the line.', '• one', '• two']
    """
    width = max(map(len, lines), default=0)
    paragraph, before = "", ""
    for line in lines:
        ends = before.endswith(SENTENCE_END) or len(before) < SHORT_LINE * width
        if paragraph and (not line or ITEM.match(line) or (ends and len(before) < SHORT_LINE * width)):
            yield paragraph
            paragraph = ""
        paragraph, before = _joined(paragraph, line), line
    if paragraph:
        yield paragraph


def _joined(text: str, line: str) -> str:
    if not text or not line:
        return text or line
    if text.endswith("-") and text[-2:-1].isalpha() and line[0].islower():
        return text[:-1] + line
    return text + ("" if text[-1] > "\u2e7f" and line[0] > "\u2e7f" else " ") + line


def _edges(page: Sequence[str]) -> set[int]:
    filled = [at for at, line in enumerate(page) if line]
    return (
        {*filled[:EDGE_LINES], *filled[-EDGE_LINES:]} if len(filled) > 2 * EDGE_LINES else {*filled[:1], *filled[-1:]}
    )


def _mark(line: str) -> str:
    return NUMBER.sub("#", line)


def _outline(pdf: "PdfDocument") -> list[tuple[int, str, int]]:
    found = []
    for entry in pdf.get_toc(max_depth=6):
        target = entry.get_dest()
        index = target.get_index() if target is not None else None
        title = " ".join(entry.get_title().split())
        if index is not None and title:
            found.append((entry.level + 1, title, index + 1))
    return found
