"""Sections brought to a size that is worth training on: short ones folded, long ones split, code never cut open.

Knows sizes in bytes of UTF-8, of which a tokenizer makes at most about half as many tokens in any language; of Latin
words a quarter. Knows neither questions nor files.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from sage_studio.data.documents import Piece, Section, join_pieces
from sage_studio.data.script import useful_chars

MIN_USEFUL = 40
LOOK = 2 * MIN_USEFUL
MAX_BYTES = 1500
"""With which every row of the SAGE documentation, its question included, is within 1024 tokens of SmolLM2."""

SENTENCE_END = re.compile(r"(?<=[.!?;])(?=\s)|(?<=[。！？；])")
LEADS_ON = re.compile(r"(?:^|\n)(?:.*[:：]\**|#{1,6} .*|\*\*[^*\n]+\*\*)$")
"""A last line that announces what follows."""
PADDING = re.compile(r"(?<=\S) {2,}(?=\S)|(?<=-{3})-+")
OPENING = re.compile(r"^(?P<before>[^`~]*)(?P<marks>`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes one row: a section, or a numbered part of one that was too long."""

    path: tuple[str, ...]
    line: int
    pieces: tuple[Piece, ...]
    number: int = 1
    total: int = 1

    @property
    def text(self) -> str:
        """The answer."""
        return join_pieces(self.pieces)

    @property
    def page(self) -> int | None:
        """Where it begins; None in documents without pages."""
        return next((piece.page for piece in self.pieces if piece.page is not None), None)


def parts_of(document: Section) -> Iterator[Part]:
    """Every part of a document, in order; a part that is still too short is the whole document."""
    folded = _fold(document)
    yield from _parts(folded, ())


def is_short(pieces: Sequence[Piece]) -> bool:
    """Whether there is too little in it to be worth a row. Looks no further than it must."""
    looks = (piece.text[at : at + LOOK] for piece in pieces for at in range(0, len(piece.text), LOOK))
    return all(useful < MIN_USEFUL for useful in accumulate(map(useful_chars, looks)))


def size_of(text: str) -> int:
    """In bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _fold(section: Section) -> Section:
    """Move the text of short sections into their parent, and of short introductions into the first section below."""
    if not section.children:
        return section
    pieces, kept = section.pieces, list[Section]()
    for child in map(_fold, section.children):
        if child.children or not is_short(child.pieces):
            kept.append(child)
        elif child.pieces:
            pieces += (Piece(f"{'#' * child.level} {child.heading}"), *_apart(child.pieces))
    if pieces and kept and is_short(pieces):
        kept[0] = replace(kept[0], pieces=pieces + _apart(kept[0].pieces))
        pieces = ()
    return replace(section, pieces=pieces, children=tuple(kept))


def _apart(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    return (replace(pieces[0], glue="\n\n"), *pieces[1:]) if pieces else ()


def _parts(section: Section, above: tuple[str, ...]) -> Iterator[Part]:
    path = (*above, section.heading)
    chunks = list(_chunks(section.pieces)) if section.pieces else []
    for number, chunk in enumerate(chunks, 1):
        yield Part(path, section.line, chunk, number, len(chunks))
    for child in section.children:
        yield from _parts(child, path)


def _chunks(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, ...]]:
    """Pack pieces into chunks of at most `MAX_BYTES`, about equally long."""
    if size_of(join_pieces(pieces)) <= MAX_BYTES:
        yield tuple(pieces)
        return
    small = [part for piece in pieces for part in _split(piece)]
    total = size_of(join_pieces(small))
    goal = total / -(-total // MAX_BYTES)
    chunk, size, goes_on = list[Piece](), 0, False
    for piece in small:
        grown = size + size_of(piece.glue) + size_of(piece.text)
        if chunk and (grown > MAX_BYTES or (size >= goal and not is_short(chunk))):
            kept, chunk = _without_lead(chunk, MAX_BYTES - size_of(piece.glue) - size_of(piece.text))
            yield tuple(_outdented(kept) if goes_on else kept)
            goes_on, grown = True, size_of(join_pieces([*chunk, piece]))
        chunk.append(piece)
        size = grown
    yield tuple(_outdented(chunk) if goes_on else chunk)


def _without_lead(chunk: list[Piece], room: int) -> tuple[list[Piece], list[Piece]]:
    """The chunk without a last line that announces what follows, if that has room before what follows."""
    if len(chunk) > 1 and LEADS_ON.search(chunk[-1].text) and size_of(chunk[-1].text) <= room:
        return (chunk[:-1], chunk[-1:]) if not is_short(chunk[:-1]) else (chunk, [])
    return chunk, []


def _outdented(chunk: list[Piece]) -> list[Piece]:
    """A chunk that begins inside a list, as if its first line stood at the margin."""
    first = chunk[0].text
    indent = len(first) - len(first.lstrip(" "))
    if not indent or (chunk[0].kind == "code" and not OPENING.match(first)):
        return chunk
    pieces = list[Piece]()
    for at, piece in enumerate(chunk):
        if len(piece.text) - len(piece.text.lstrip(" ")) < indent:
            return pieces + chunk[at:]
        lines = [line[min(indent, len(line) - len(line.lstrip(" "))) :] for line in piece.text.split("\n")]
        pieces.append(replace(piece, text="\n".join(lines)))
    return pieces


def _split(piece: Piece) -> list[Piece]:
    if size_of(piece.text) <= MAX_BYTES:
        return [piece]
    if piece.kind == "table":
        piece = replace(piece, text=PADDING.sub(_narrow, piece.text))
        if size_of(piece.text) <= MAX_BYTES:
            return [piece]
    lines = piece.text.split("\n")
    head: list[str] = []
    tail: list[str] = []
    opening = OPENING.match(lines[0]) if piece.kind == "code" else None
    if opening:
        head, tail, lines = lines[:1], lines[-1:], lines[1:-1]
    elif piece.kind == "table":
        head, lines = lines[:2], lines[2:]
    room = MAX_BYTES - sum(size_of(line) + 1 for line in (*head, *tail))
    if room < MAX_BYTES // 2:  # a header that long is no header worth repeating
        head, tail, lines, room = [], [], piece.text.split("\n"), MAX_BYTES
    bodies = _packed([part for line in lines for part in _short_lines(line, room)], room)
    texts = ["\n".join((*head, *body, *tail)) for body in bodies]
    return [replace(piece, text=text, glue=piece.glue if i == 0 else "\n\n") for i, text in enumerate(texts)]


def _narrow(padding: re.Match[str]) -> str:
    """A table's columns without the spaces and dashes that make them equally wide."""
    return " " if padding[0].startswith(" ") else ""


def _packed(lines: Sequence[str], room: int) -> Iterator[list[str]]:
    body, size = list[str](), 0
    for line in lines:
        if body and size + size_of(line) > room:
            yield body
            body, size = [], 0
        body.append(line)
        size += size_of(line) + 1
    yield body


def _short_lines(line: str, room: int) -> Iterator[str]:
    """A line that is too long by itself, at the ends of its sentences or, where it has none, anywhere."""
    if size_of(line) <= room:
        yield line
        return
    rest = ""
    for sentence in SENTENCE_END.split(line):
        if rest and size_of(rest) + size_of(sentence) > room:
            yield rest
            rest = ""
        rest += sentence
        while size_of(rest) > room:
            whole = rest.encode(errors="replace")[:room].decode(errors="ignore")
            yield whole
            rest = rest[len(whole) :]
    if rest:
        yield rest
