"""Documents without Markdown as trees of sections: a PDF by its outline and pages, a text by its paragraphs.

Knows how pages and outlines become sections. Knows nothing of files or of how a PDF is read.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from sage_studio.data.documents import Piece, Section, file_title, nest

BLANK = re.compile(r"\n[ \t]*\n\s*")
LEADING_NUMBER = re.compile(r"^[\d.\s]+|^第\s*\S+\s*[章节]\s*")

Place = tuple[int, int]
"""Page and paragraph on it, both from 0."""


def plain_section(text: str, file: str) -> Section:
    """A text without marks: one section whose pieces are its paragraphs."""
    lines, pieces = text.replace("\r\n", "\n").replace("\r", "\n"), list[Piece]()
    for paragraph in BLANK.split(lines.replace("\0", "\ufffd").strip()):
        if paragraph.strip():
            pieces.append(Piece(paragraph.rstrip()))
    return Section(file_title(file), 0, 1, tuple(pieces))


def paged_section(pages: Sequence[Sequence[str]], outline: Sequence[tuple[int, str, int]], file: str) -> Section:
    """A paged document: a section for every entry of its outline, or one; its pieces know their pages.

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


def _between(pages: Sequence[Sequence[str]], begin: Place, end: Place) -> Iterator[Piece]:
    for at in range(begin[0], min(end[0] + 1, len(pages))):
        first = begin[1] if at == begin[0] else 0
        stop = end[1] if at == end[0] else None
        for text in pages[at][first:stop]:
            yield Piece(text, page=at + 1)


def _without_title(pieces: tuple[Piece, ...], title: str) -> tuple[Piece, ...]:
    return pieces[1:] if pieces and _plain(pieces[0].text) == _plain(title) else pieces


def _same(text: str, title: str) -> bool:
    return _plain(text).startswith(_plain(title))


def _plain(text: str) -> str:
    return "".join(LEADING_NUMBER.sub("", text).split()).casefold()
