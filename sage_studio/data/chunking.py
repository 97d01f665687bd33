"""Cuts texts into chunks at headings, paragraphs and sentences, within a size limit.

Sizes of rows are in bytes of UTF-8, of which a tokenizer makes at most about half as many tokens in any language (of
English a quarter). Code blocks are never cut open.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from sage_studio.data.documents.sections import Section, TextSpan, join_spans
from sage_studio.data.language import useful_chars
from sage_studio.data.rows import DataRow, Example, Passage, Preference, Retrieval

MIN_USEFUL = 40
LOOK = 2 * MIN_USEFUL
MAX_BYTES = 1500
"""Keeps every row of the SAGE documentation, question included, within 1024 tokens of SmolLM2."""

SNIPPET_TOKENS = 220
"""Longest passage, in tokens as `token_weight` estimates them; small embedders read 256."""
SOFT_END = 0.2
"""Share of a window of tokens within which its end is moved back to the end of a sentence."""

PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE_END = re.compile(r"(?<=[.!?;])(?=\s)|(?<=[。！？；])|(?<=\n)")
LEADS_ON = re.compile(r"(?:^|\n)(?:.*[:：]\**|#{1,6} .*|\*\*[^*\n]+\*\*)$")
"""A last line that introduces what follows."""
PADDING = re.compile(r"(?<=\S) {2,}(?=\S)|(?<=-{3})-+")
OPENING = re.compile(r"^(?P<before>[^`~]*)(?P<marks>`{3,}|~{3,})")


@dataclass(frozen=True, slots=True)
class SectionChunk:
    """The text of one row: a section, or a numbered part of one that was too long."""

    path: tuple[str, ...]
    line: int
    spans: tuple[TextSpan, ...]
    number: int = 1
    total: int = 1

    @property
    def text(self) -> str:
        """The answer."""
        return join_spans(self.spans)

    @property
    def page(self) -> int | None:
        """The page it begins on; None in documents without pages."""
        return next((span.page for span in self.spans if span.page is not None), None)


def chunk_document(document: Section) -> Iterator[SectionChunk]:
    """The chunks of a document, in order; if one is still too short, it is the whole document."""
    folded = _fold(document)
    yield from _parts(folded, ())


def is_short(spans: Sequence[TextSpan]) -> bool:
    """Whether the text is too short to be worth a row."""
    looks = (span.text[at : at + LOOK] for span in spans for at in range(0, len(span.text), LOOK))
    return all(useful < MIN_USEFUL for useful in accumulate(map(useful_chars, looks)))


def _fold(section: Section) -> Section:
    """Merge short sections into their parent, and short introductions into the first section below."""
    if not section.children:
        return section
    spans, kept = section.spans, list[Section]()
    for child in map(_fold, section.children):
        if child.children or not is_short(child.spans):
            kept.append(child)
        elif child.spans:
            spans += (TextSpan(f"{'#' * child.level} {child.heading}"), *_apart(child.spans))
    if spans and kept and is_short(spans):
        kept[0] = replace(kept[0], spans=spans + _apart(kept[0].spans))
        spans = ()
    return replace(section, spans=spans, children=tuple(kept))


def _apart(spans: tuple[TextSpan, ...]) -> tuple[TextSpan, ...]:
    return (replace(spans[0], glue="\n\n"), *spans[1:]) if spans else ()


def _parts(section: Section, above: tuple[str, ...]) -> Iterator[SectionChunk]:
    path = (*above, section.heading)
    chunks = list(_chunks(section.spans)) if section.spans else []
    for number, chunk in enumerate(chunks, 1):
        yield SectionChunk(path, section.line, chunk, number, len(chunks))
    for child in section.children:
        yield from _parts(child, path)


def _chunks(spans: Sequence[TextSpan]) -> Iterator[tuple[TextSpan, ...]]:
    """Pack spans into chunks of at most `MAX_BYTES`, about equally long."""
    if utf8_size(join_spans(spans)) <= MAX_BYTES:
        yield tuple(spans)
        return
    small = [part for span in spans for part in _split(span)]
    total = utf8_size(join_spans(small))
    goal = total / -(-total // MAX_BYTES)
    chunk, size, goes_on = list[TextSpan](), 0, False
    for span in small:
        grown = size + utf8_size(span.glue) + utf8_size(span.text)
        if chunk and (grown > MAX_BYTES or (size >= goal and not is_short(chunk))):
            kept, chunk = _without_lead(chunk, MAX_BYTES - utf8_size(span.glue) - utf8_size(span.text))
            yield tuple(_outdented(kept) if goes_on else kept)
            goes_on, grown = True, utf8_size(join_spans([*chunk, span]))
        chunk.append(span)
        size = grown
    yield tuple(_outdented(chunk) if goes_on else chunk)


def _without_lead(chunk: list[TextSpan], limit: int) -> tuple[list[TextSpan], list[TextSpan]]:
    """The chunk and the last line that introduces the next chunk, if that line fits there."""
    if len(chunk) > 1 and LEADS_ON.search(chunk[-1].text) and utf8_size(chunk[-1].text) <= limit:
        return (chunk[:-1], chunk[-1:]) if not is_short(chunk[:-1]) else (chunk, [])
    return chunk, []


def _outdented(chunk: list[TextSpan]) -> list[TextSpan]:
    """A chunk that begins inside a nested list, outdented so that its first line has no indentation."""
    first = chunk[0].text
    indent = len(first) - len(first.lstrip(" "))
    if not indent or (chunk[0].kind == "code" and not OPENING.match(first)):
        return chunk
    spans = list[TextSpan]()
    for at, span in enumerate(chunk):
        if len(span.text) - len(span.text.lstrip(" ")) < indent:
            return spans + chunk[at:]
        lines = [line[min(indent, len(line) - len(line.lstrip(" "))) :] for line in span.text.split("\n")]
        spans.append(replace(span, text="\n".join(lines)))
    return spans


def _split(span: TextSpan) -> list[TextSpan]:
    if utf8_size(span.text) <= MAX_BYTES:
        return [span]
    if span.kind == "table":
        span = replace(span, text=PADDING.sub(_narrow, span.text))
        if utf8_size(span.text) <= MAX_BYTES:
            return [span]
    lines = span.text.split("\n")
    head: list[str] = []
    tail: list[str] = []
    opening = OPENING.match(lines[0]) if span.kind == "code" else None
    if opening:
        head, tail, lines = lines[:1], lines[-1:], lines[1:-1]
    elif span.kind == "table":
        head, lines = lines[:2], lines[2:]
    limit = MAX_BYTES - sum(utf8_size(line) + 1 for line in (*head, *tail))
    if limit < MAX_BYTES // 2:  # a header that long is not worth repeating
        head, tail, lines, limit = [], [], span.text.split("\n"), MAX_BYTES
    bodies = _packed([part for line in lines for part in split_sentences(line, limit, utf8_size)], limit)
    texts = ["\n".join((*head, *body, *tail)) for body in bodies]
    return [replace(span, text=text, glue=span.glue if i == 0 else "\n\n") for i, text in enumerate(texts)]


def _narrow(padding: re.Match[str]) -> str:
    """Remove the padding that makes a table's columns equally wide."""
    return " " if padding[0].startswith(" ") else ""


def _packed(lines: Sequence[str], limit: int) -> Iterator[list[str]]:
    body, size = list[str](), 0
    for line in lines:
        if body and size + utf8_size(line) > limit:
            yield body
            body, size = [], 0
        body.append(line)
        size += utf8_size(line) + 1
    yield body


# Texts to pieces of a bounded size


Size = Callable[[str], float]
"""The size of a text; that of two texts together is the sum of both."""


def split_text(text: str, limit: float, size: Size) -> Iterator[str]:
    """A text cut at paragraphs, else at sentences, else anywhere, into pieces of at most ``limit`` by ``size``."""
    piece = ""
    for paragraph in map(str.strip, PARAGRAPH.split(text)):
        for part in filter(None, map(str.strip, split_sentences(paragraph, limit, size))):
            grown = f"{piece}\n\n{part}" if piece else part
            if piece and size(grown) > limit:
                yield piece
                grown = part
            piece = grown
    if piece:
        yield piece


def split_sentences(text: str, limit: float, size: Size) -> Iterator[str]:
    """A text cut at the ends of sentences, or anywhere in one that is too long, into pieces of at most ``limit``.

    Example:
        >>> list(split_sentences("One. Two. 三。四。", 9, utf8_size))
        ['One. Two.', ' 三。', '四。']
    """
    piece = ""
    for sentence in SENTENCE_END.split(text) if size(text) > limit else [text]:
        if piece and size(piece) + size(sentence) > limit:
            yield piece
            piece = ""
        piece += sentence
        if size(piece) > limit:
            *whole, piece = _cut_anywhere(piece, limit, size)
            yield from whole
    if piece:
        yield piece


def split_tokens(text: str, spans: Sequence[tuple[int, int]], size: int, overlap: float = 0.0) -> list[str]:
    """A text in windows of at most ``size`` tokens; each ends with a sentence if one ends in its last fifth.

    Args:
        spans: (first character, behind the last) of each token.
        overlap: share of a window that the next one repeats.
    """
    pieces, start = list[str](), 0
    while start < len(spans):
        end = min(start + size, len(spans))
        if end < len(spans):
            end = _sentence_end(text, spans, start, end)
        pieces.append(text[spans[start][0] : spans[end - 1][1]].strip())
        if end == len(spans):
            break
        start = max(end - int(overlap * size), start + 1)
    return [piece for piece in pieces if piece]


def utf8_size(text: str) -> int:
    """In bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def token_weight(text: str) -> float:
    """Tokens of a text, rather too many than too few: one for four ASCII characters, one for each other character."""
    if text.isascii():
        return len(text) / 4
    ascii_count = sum(character < "\x80" for character in text)
    return ascii_count / 4 + (len(text) - ascii_count)


def _cut_anywhere(text: str, limit: float, size: Size) -> Iterator[str]:
    start = 0
    while start < len(text):
        window = text[start : start + int(4 * limit) + 1]  # no character has less than a quarter
        fitting = bisect_right(range(1, len(window) + 1), limit, key=lambda count: size(window[:count]))
        yield window[: max(fitting, 1)]
        start += max(fitting, 1)


def _sentence_end(text: str, spans: Sequence[tuple[int, int]], start: int, end: int) -> int:
    """The last token within `SOFT_END` of the end that ends a sentence; ``end`` where there is none."""
    least = end - int(SOFT_END * (end - start))
    first, last = spans[least][0], spans[end - 1][1]
    ends = [first + found.end() for found in SENTENCE_END.finditer(text[first:last])]
    if not ends:
        return end
    return next((at for at in range(end, least, -1) if spans[at - 1][1] <= ends[-1]), end)


# Rows to passages that can be looked up


@dataclass(frozen=True, slots=True)
class Snippet:
    """A passage of a retrieval index.

    Attributes:
        file: its file.
        heading: the headings above it, outermost first, joined by ``›``.
    """

    text: str
    file: str
    heading: str

    @property
    def read(self) -> str:
        """The text for the embedder, with the headings as context."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


def snippets_of(rows: Iterable[DataRow]) -> Iterator[Snippet]:
    """The passages of a dataset, in order, without repeats within a file."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        heading = " › ".join(row.origin.heading)
        for text in _knowledge(row):
            for piece in split_text(text, SNIPPET_TOKENS, token_weight):
                if (row.origin.file, piece) not in seen:
                    seen.add((row.origin.file, piece))
                    yield Snippet(piece, row.origin.file, heading)


def _knowledge(row: DataRow) -> Iterator[str]:
    if isinstance(row, Passage):
        yield row.text
    elif isinstance(row, Example):
        yield row.completion
    elif isinstance(row, Preference):
        yield row.chosen
    elif isinstance(row, Retrieval):
        yield from row.pos
        yield from row.neg
