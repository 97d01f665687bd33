"""The knowledge base in chunks, and clusters of similar chunks that are asked about together."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sklearn.feature_extraction.text import TfidfVectorizer

from sage_studio.data.bm25 import words_of
from sage_studio.data.chunking import split_tokens
from sage_studio.data.language import detect_language
from sage_studio.data.rows import DataRow, Example, row_from_json
from sage_studio.training.methods.kbalign.stage_files import StageRecord
from sage_studio.training.tokenize import invalid_line, read_lines

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]
"""A text -> its tokens as pairs of (first character, character behind the last)."""

HEADING_SEPARATOR = " › "


class Chunk(StageRecord):
    """A piece of the knowledge base.

    Attributes:
        chunk: its number, from 0.
        heading: headings that it stands under, outermost first; may be empty.
    """

    chunk: int
    file: str = ""
    heading: tuple[str, ...] = ()
    text: str

    @property
    def with_heading(self) -> str:
        """The text as prompts show it, under its headings."""
        return HEADING_SEPARATOR.join(self.heading) + "\n" + self.text if self.heading else self.text

    @property
    def language(self) -> Literal["zh", "en"]:
        """Language of the questions about it."""
        return "zh" if detect_language(self.text) == "zh" else "en"


def read_rows(path: Path, limit: int = 0) -> list[DataRow]:
    """The rows of a ``data.jsonl``, the first ``limit`` unless it is 0. Raises `InvalidDataset` naming the line."""
    return [_row(number, values) for number, values in read_lines(path, limit)]


def chunk_rows(
    rows: Iterable[DataRow], spans: TokenSpans, size: int, overlap: float, max_chunks: int = 0
) -> list[Chunk]:
    """The texts of the rows in chunks of at most ``size`` tokens; no chunk spans two rows.

    Args:
        overlap: share of a chunk that the next one repeats.
        max_chunks: keep at most so many, spread evenly over the rows; 0: all.
    """
    pieces = [(row, text) for row in rows for text in _pieces(row, spans, size, overlap)]
    if max_chunks and len(pieces) > max_chunks:
        pieces = [pieces[at * len(pieces) // max_chunks] for at in range(max_chunks)]
    return [
        Chunk(chunk=number, file=row.origin.file, heading=_heading(row), text=text)
        for number, (row, text) in enumerate(pieces)
    ]


def token_spans(tokenizer: Any) -> TokenSpans:
    """The token spans of a transformers tokenizer."""

    def spans(text: str) -> list[tuple[int, int]]:
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [(first, last) for first, last in offsets if last > first]

    return spans


def _row(number: int, values: Any) -> DataRow:
    try:
        return row_from_json(values)
    except (ValueError, KeyError, TypeError) as error:
        raise invalid_line(number, error) from error


def _pieces(row: DataRow, spans: TokenSpans, size: int, overlap: float) -> list[str]:
    text = row.answer.strip()
    return split_tokens(text, spans(text), size, overlap)


def _heading(row: DataRow) -> tuple[str, ...]:
    if row.origin.heading or not isinstance(row, Example):
        return row.origin.heading
    return (row.prompt[-1].content,)


# Clusters

MIN_SIMILARITY = 0.2
"""Least cosine to the first chunk of a cluster. In the SAGE documentation, two random chunks have a cosine of 0.04, and
of 0.18 or more once in a hundred times; a chunk and its nearest neighbour have 0.43."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Chunks that are asked about together, in order; the first one's number identifies the cluster."""

    chunks: tuple[Chunk, ...]

    @property
    def chunk(self) -> int:
        """The number of its first chunk."""
        return self.chunks[0].chunk

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of its chunks."""
        return tuple(chunk.chunk for chunk in self.chunks)

    @property
    def language(self) -> Literal["zh", "en"]:
        """Language of the questions about it: that of its first chunk."""
        return self.chunks[0].language


def cluster_chunks(
    chunks: Sequence[Chunk], size: int, max_tokens: int, spans: TokenSpans, clustered: Collection[int] = ()
) -> list[Cluster]:
    """Clusters of chunks with similar words (cosine of TF-IDF vectors); each chunk is in one.

    Deterministic, so that a resumed run finds the same clusters.

    Args:
        size: most chunks in a cluster.
        max_tokens: most tokens in a cluster; a longer chunk stays alone.
        clustered: numbers of chunks that are in a cluster already.
    """
    free = [at for at, chunk in enumerate(chunks) if chunk.chunk not in clustered]
    if size == 1:
        return [Cluster((chunks[at],)) for at in free]
    vectorizer = TfidfVectorizer(analyzer=lambda text: words_of(text) or [text], sublinear_tf=True)
    vectors = vectorizer.fit_transform([chunk.with_heading for chunk in chunks])
    lengths = [len(spans(chunk.with_heading)) for chunk in chunks]
    clusters = list[Cluster]()
    while free:
        first = free[0]
        cosine = (vectors @ vectors[first].T).toarray()[:, 0]
        members, tokens = {first}, lengths[first]
        for at in sorted(free[1:], key=lambda at: (-cosine[at], at)):
            if cosine[at] >= MIN_SIMILARITY and len(members) < size and tokens + lengths[at] <= max_tokens:
                members.add(at)
                tokens += lengths[at]
        clusters.append(Cluster(tuple(chunks[at] for at in sorted(members))))
        free = [at for at in free if at not in members]
    return clusters
