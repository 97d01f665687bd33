"""Child process that converts PDF, DOCX and HTML, with limited memory.

Reads ``{"kind", "size"}`` as a line and then the document's bytes; answers with one line of JSON. A document that it
cannot read ends it: its parent says so and starts another.
"""

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from pypdfium2 import PdfDocument


MAX_PAGES = 10_000
EDGE_LINES = 2
RUNNING = 0.5
LEAST_PAGES = 4
SHORT_LINE = 0.75
NUMBER = re.compile(r"\d+|[ivxlc]+", re.IGNORECASE)
PAGE_NUMBER = re.compile(r"[-–—\s]*+(?:page|第)?\s*+\d+\s*+(?:页|(?:of|/)\s*+\d+)?[-–—\s]*+", re.IGNORECASE)
ITEM = re.compile(r"[•●▪◦‣·*–-]\s|\(?\d{1,3}[.)、]\s?\D|[一二三四五六七八九十]+、|#{1,6}\s")
SENTENCE_END = (".", "!", "?", ":", "。", "！", "？", "：", "；", "”", "…")


class PdfPages(TypedDict):
    """The text of a PDF."""

    pages: list[list[str]]
    """Paragraphs of each page; none on a scanned page."""
    outline: list[tuple[int, str, int]]
    """(level from 1, title, page from 1), in order; maybe none."""


def read_pdf(content: bytes) -> PdfPages:
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
    """Remove running heads and page numbers: lines at the top or bottom of half of the pages."""
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


NO_TEXT = [
    *("script", "style", "template", "noscript", "nav", "footer", "aside", "form", "svg", "button", "iframe"),
    *("img", "picture", "video", "audio", "canvas", "object", "embed"),
]
LANGUAGE = re.compile(r"(?:language|lang|highlight-source)-([\w+#-]+)")


def html_to_markdown(text: str) -> str:
    """The main part of a page; its title becomes the first heading if it has no first-level heading."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(text, "html.parser")
    title = " ".join(page.title.get_text().split()) if page.title is not None else ""
    for tag in page(["title", *NO_TEXT]):
        tag.decompose()
    main = _main_part(page)
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", code_language_callback=_language, escape_underscores=False, wrap=False
    )
    markdown = str(converter.convert_soup(main))
    return markdown if main.find("h1") is not None or not title else f"# {title}\n\n{markdown}"


def docx_to_markdown(content: bytes) -> str:
    """A Word document: headings by their styles, lists and tables; without pictures."""
    import mammoth

    done = mammoth.convert_to_html(io.BytesIO(content), convert_image=lambda _: [])
    return html_to_markdown(f"<body>{done.value}</body>")


def _main_part(page: "BeautifulSoup") -> "BeautifulSoup | Tag":
    return page.find("main") or page.find("article") or page.body or page


def _language(tag: Any) -> str:
    inner = tag.find("code")
    classes = [*(tag.get("class") or []), *((inner.get("class") or []) if inner is not None else [])]
    found = LANGUAGE.search(" ".join(classes))
    return found[1] if found else ""


MEMORY = 3 << 30
RECURSION = 5000


def main() -> None:
    """Convert documents until the parent closes the pipe."""
    _limit_memory()
    sys.setrecursionlimit(RECURSION)
    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        answer = convert(order["kind"], sys.stdin.buffer.read(order["size"]))
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def convert(kind: str, content: bytes) -> Any:
    """``{"pages", "outline"}`` of a PDF, ``{"markdown"}`` of the others."""
    if kind == "PDF":
        return read_pdf(content)
    if kind == "DOCX":
        return {"markdown": docx_to_markdown(content)}
    return {"markdown": html_to_markdown(content.decode())}


def _limit_memory() -> None:
    """At most `MEMORY`, or the hard limit that is set already; macOS refuses a limit of the address space."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
