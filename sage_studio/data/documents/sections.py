"""Documents as trees of sections, each with its heading, its place and its text."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    pass


UNTITLED = ("readme", "index")


SpanKind = Literal["text", "code", "table"]


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A run of lines between two places where a section may be split.

    Attributes:
        text: cleaned text; code keeps its fence.
        kind: decides how a span that is too long may be split.
        glue: white space between the previous span and this one.
        page: page number from 1; None in documents without pages.
    """

    text: str
    kind: SpanKind = "text"
    glue: str = "\n\n"
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its text and subsections; ``line`` counts from 1, and is 0 in documents with pages.

    Attributes:
        broken: of a whole document, the lines where broken source text was dropped.
    """

    heading: str
    level: int
    line: int
    spans: tuple[TextSpan, ...] = ()
    children: tuple["Section", ...] = ()
    broken: tuple[int, ...] = ()


def join_spans(spans: Sequence[TextSpan]) -> str:
    """The spans as one text."""
    return "".join(span.text if index == 0 else span.glue + span.text for index, span in enumerate(spans))


def file_title(file: str) -> str:
    """A title from a file's name; a ``README`` or an ``index`` is called after its folder."""
    path = PurePosixPath(file)
    named = path.parent if path.stem.lower() in UNTITLED and path.parent.name else path
    return " ".join(re.sub(r"[_-]+", " ", named.stem if named is path else named.name).split()) or path.stem


def nest(flat: Sequence[Section]) -> tuple[Section, ...]:
    """Nest a flat list of sections by their levels."""
    nested = []
    start = 0
    while start < len(flat):
        end = start + 1
        while end < len(flat) and flat[end].level > flat[start].level:
            end += 1
        below = flat[start + 1 : end]
        nested.append(replace(flat[start], children=nest(below)) if below else flat[start])
        start = end
    return tuple(nested)


BLANK = re.compile(r"\n[ \t]*\n\s*")
LEADING_NUMBER = re.compile(r"^[\d.\s]+|^第\s*\S+\s*[章节]\s*")

Place = tuple[int, int]
"""Page and paragraph on it, both from 0."""


def plain_section(text: str, file: str) -> Section:
    """Plain text as one section whose spans are its paragraphs."""
    lines, spans = text.replace("\r\n", "\n").replace("\r", "\n"), list[TextSpan]()
    for paragraph in BLANK.split(lines.replace("\0", "\ufffd").strip()):
        if paragraph.strip():
            spans.append(TextSpan(paragraph.rstrip()))
    return Section(file_title(file), 0, 1, tuple(spans))


def paged_section(pages: Sequence[Sequence[str]], outline: Sequence[tuple[int, str, int]], file: str) -> Section:
    """A paged document: a section for every entry of its outline, or one; its spans know their pages.

    Args:
        pages: paragraphs of each page.
        outline: (level from 1, title, page from 1), in order.
        file: its path; gives the title.
    """
    starts = _starts(pages, outline)
    places: list[Place] = [(0, 0), *starts, (len(pages), 0)]
    bodies = [tuple(_between(pages, begin, end)) for begin, end in pairwise(places)]
    root = Section(file_title(file), 0, 0, bodies[0])
    flat = [
        Section(title, level, 0, _without_title(body, title))
        for (level, title, _), body in zip(outline, bodies[1:], strict=True)
    ]
    return replace(root, children=nest(flat))


def _starts(pages: Sequence[Sequence[str]], outline: Sequence[tuple[int, str, int]]) -> list[Place]:
    """Where each entry begins, never before the one above it: at its title on its page, or at the page's top."""
    starts, last = list[Place](), (0, 0)
    for _, title, page in outline:
        at = min(max(page - 1, 0), max(len(pages) - 1, 0))
        found = next((n for n, text in enumerate(pages[at]) if _same(text, title)), 0) if pages else 0
        last = max(last, (at, found))
        starts.append(last)
    return starts


def _between(pages: Sequence[Sequence[str]], begin: Place, end: Place) -> Iterator[TextSpan]:
    for at in range(begin[0], min(end[0] + 1, len(pages))):
        first = begin[1] if at == begin[0] else 0
        stop = end[1] if at == end[0] else None
        for text in pages[at][first:stop]:
            yield TextSpan(text, page=at + 1)


def _without_title(spans: tuple[TextSpan, ...], title: str) -> tuple[TextSpan, ...]:
    return spans[1:] if spans and _normalized(spans[0].text) == _normalized(title) else spans


def _same(text: str, title: str) -> bool:
    return _normalized(text).startswith(_normalized(title))


def _normalized(text: str) -> str:
    return "".join(LEADING_NUMBER.sub("", text).split()).casefold()
