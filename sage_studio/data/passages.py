"""What of a dataset can be looked up: its rows as short passages, each with where it stands.

Knows which part of a row holds knowledge and how long a passage may be for an embedder to read it whole. Knows nothing
of vectors.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sage_studio.data.example import DataRow, Example, Passage, Preference, Retrieval

ROOM = 220
"""Longest passage, in tokens as `weight` estimates them; small embedders read 256."""
PARAGRAPH = re.compile(r"\n\s*\n")
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])|\n")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A passage to look up.

    Attributes:
        file: the file it stands in.
        heading: the headings above it, outermost first, joined by ``›``.
    """

    text: str
    file: str
    heading: str

    @property
    def read(self) -> str:
        """What the embedder reads: the heading says what the passage is about."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


def snippets_of(rows: Iterable[DataRow]) -> Iterator[Snippet]:
    """The passages of a dataset, in order, each text of a file once."""
    seen: set[tuple[str, str]] = set()
    for row in rows:
        heading = " › ".join(row.origin.heading)
        for text in _knowledge(row):
            for piece in pieces_of(text):
                if (row.origin.file, piece) not in seen:
                    seen.add((row.origin.file, piece))
                    yield Snippet(piece, row.origin.file, heading)


def pieces_of(text: str, room: float = ROOM) -> Iterator[str]:
    """A text cut at paragraphs, else at sentences, else anywhere, into pieces that each weigh at most ``room``."""
    held: list[str] = []
    for paragraph in PARAGRAPH.split(text):
        for part in _fitting(paragraph.strip(), room):
            if held and weight("\n\n".join((*held, part))) > room:
                yield "\n\n".join(held)
                held = []
            held.append(part)
    if held:
        yield "\n\n".join(held)


def weight(text: str) -> float:
    """About how many tokens a text has: four ASCII characters make one, and each other character makes one."""
    ascii_count = sum(character < "\x80" for character in text)
    return ascii_count / 4 + (len(text) - ascii_count)


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


def _fitting(paragraph: str, room: float) -> Iterator[str]:
    if weight(paragraph) <= room:
        yield from filter(None, [paragraph])
        return
    held = ""
    for sentence in filter(None, SENTENCE.split(paragraph)):
        if held and weight(f"{held} {sentence}") > room:
            yield held
            held = ""
        held = f"{held} {sentence}".strip()
        while weight(held) > room:
            yield held[: int(room)]
            held = held[int(room) :]
    if held:
        yield held
