"""A knowledge base in pieces that a model can read at once.

Knows how a text is cut by its tokens. Knows nothing of models or questions.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from sage_studio.data.language import detect_language
from sage_studio.data.rows import DataRow, Example, row_from_json
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text
from sage_studio.training.lines import PREPARE_AGAIN
from sage_studio.training.methods.kbalign.lines import Line

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""A text's tokens as (first character, behind the last) pairs."""

SEPARATOR = " › "
BREAK = re.compile(r"\n\s*\n|\n|[。！？；]|[.!?;](?=\s)")
SOFT = 0.2
"""Share of a piece within which its end is moved back to the end of a sentence."""


class Chunk(Line):
    """A piece of the knowledge base.

    Attributes:
        chunk: its number, counted from 0.
        heading: path of headings that it stands under, outermost first; may be empty.
    """

    chunk: int
    file: str = ""
    heading: tuple[str, ...] = ()
    text: str

    @property
    def shown(self) -> str:
        """The text as the model reads it, under its headings."""
        return SEPARATOR.join(self.heading) + "\n" + self.text if self.heading else self.text

    @property
    def language(self) -> Literal["zh", "en"]:
        """Which language it is asked about in."""
        return "zh" if detect_language(self.text) == "zh" else "en"


def passages_at(path: Path, limit: int = 0) -> list[DataRow]:
    """The rows of a ``data.jsonl``, the first ``limit`` unless it is 0. Raises `InvalidDataset` naming the line."""
    passages = list[DataRow]()
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if limit and len(passages) == limit:
                    break
                if line.strip():
                    passages.append(_passage(number, line))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(
            Text(f"{path} cannot be read: {error}", f"无法读取 {path}：{error}"), PREPARE_AGAIN
        ) from error
    return passages


def cut(rows: Iterable[DataRow], spans: Spans, size: int, overlap: float, most: int = 0) -> list[Chunk]:
    """The rows' texts in chunks of at most ``size`` tokens; a chunk never spans two rows.

    Args:
        overlap: share of a chunk that the next one repeats.
        most: at most so many chunks, spread evenly over the rows; 0 for all.
    """
    pieces = [(row, text) for row in rows for text in pieces_of(row.answer.strip(), spans, size, overlap)]
    if most and len(pieces) > most:
        pieces = [pieces[at * len(pieces) // most] for at in range(most)]
    return [
        Chunk(chunk=number, file=row.origin.file, heading=_heading(row), text=text)
        for number, (row, text) in enumerate(pieces)
    ]


def pieces_of(text: str, spans: Spans, size: int, overlap: float = 0.0) -> list[str]:
    """A text in pieces of at most ``size`` tokens, each ending where a sentence does if there is one near its end."""
    tokens, pieces, start = spans(text), list[str](), 0
    while start < len(tokens):
        end = min(start + size, len(tokens))
        if end < len(tokens):
            end = _softened(text, tokens, start, end)
        pieces.append(text[tokens[start][0] : tokens[end - 1][1]].strip())
        if end == len(tokens):
            break
        start = max(end - int(overlap * size), start + 1)
    return [piece for piece in pieces if piece]


def token_spans(tokenizer: Any) -> Spans:
    """How a transformers tokenizer parts a text."""

    def spans(text: str) -> list[tuple[int, int]]:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [(first, last) for first, last in offsets if last > first]

    return spans


def _passage(number: int, line: str) -> DataRow:
    try:
        return row_from_json(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidDataset(
            Text(f"Line {number} of the data is no row: {error!r}", f"数据第 {number} 行无效：{error!r}"),
            PREPARE_AGAIN,
            row=number,
        ) from error


def _softened(text: str, tokens: Sequence[tuple[int, int]], start: int, end: int) -> int:
    """The last token within `SOFT` of the end that ends a sentence; ``end`` where there is none."""
    least = end - int(SOFT * (end - start))
    first, last = tokens[least][0], tokens[end - 1][1]
    breaks = [first + found.end() for found in BREAK.finditer(text[first:last])]
    if not breaks:
        return end
    return next((at for at in range(end, least, -1) if tokens[at - 1][1] <= breaks[-1]), end)


def _heading(row: DataRow) -> tuple[str, ...]:
    if row.origin.heading or not isinstance(row, Example):
        return row.origin.heading
    return (row.prompt[-1].content,)
