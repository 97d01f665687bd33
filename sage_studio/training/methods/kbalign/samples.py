"""Stage 3 makes rows of the questions: with the answer and what a search finds, dealt into one part a round.

Knows how the questions of both stages become training rows. Knows nothing of models or training.
"""

import random
from collections.abc import Sequence
from typing import Any, Literal

from sage_studio.data.bm25 import BM25
from sage_studio.training.methods.kbalign import prompts
from sage_studio.training.methods.kbalign.chunks import Chunk, Spans, pieces_of
from sage_studio.training.methods.kbalign.lines import Line
from sage_studio.training.methods.kbalign.long import LongLine
from sage_studio.training.methods.kbalign.short import ShortLine
from sage_studio.training.recipes.kbalign import KBAlignRecipe


class Sample(Line):
    """A question to learn.

    Attributes:
        part: the round that learns it, counted from 1.
        file: where its chunk came from.
        references: passages shown beside it in its second form; none if the recipe wants none.
    """

    part: int
    kind: Literal["short", "long"]
    file: str = ""
    spoken: Literal["en", "zh"] = "en"
    question: str
    answer: str
    references: tuple[str, ...] = ()


def mix(
    recipe: KBAlignRecipe,
    chunks: Sequence[Chunk],
    short: Sequence[ShortLine],
    long: Sequence[LongLine],
    spans: Spans,
) -> list[Sample]:
    """All questions in the order in which they are learned; every round has its share, as even as can be.

    Dealt out are also those of each chunk, and those of each answer: what only an early round learns is forgotten in
    the later ones.
    """
    by_number = {chunk.chunk: chunk for chunk in chunks}
    asked: list[tuple[Literal["short", "long"], int, str, str]] = [
        ("short", line.chunk, pair.question, pair.answer) for line in short for pair in line.pairs
    ]
    asked += [("long", line.chunk, line.question, line.answer) for line in long if line.answer]
    draw = random.Random(recipe.seed)
    draw.shuffle(asked)
    asked.sort(key=lambda each: (each[1], each[3]))
    dealt = [(at % recipe.rounds + 1, *each) for at, each in enumerate(asked)]
    draw.shuffle(dealt)
    dealt.sort(key=lambda each: each[0])
    passages = list(dict.fromkeys(_passages(chunks, spans, recipe.reference_size))) if recipe.references else []
    index = BM25(passages)
    return [
        Sample(
            part=part,
            kind=kind,
            file=by_number[chunk].file,
            spoken=by_number[chunk].language,
            question=question,
            answer=answer,
            references=tuple(passages[found] for found in index.nearest(question, recipe.references)),
        )
        for part, kind, chunk, question, answer in dealt
        if chunk in by_number
    ]


def rows_of(sample: Sample) -> list[dict[str, Any]]:
    """A sample as rows to train on: the question alone, and the question under its references if it has any."""
    rows = [row(sample.question, sample.answer, sample.file)]
    if sample.references:
        asked = prompts.with_references(sample.question, sample.references, sample.spoken)
        rows.append(row(asked, sample.answer, sample.file))
    return rows


def row(asked: str, answer: str, file: str) -> dict[str, Any]:
    """A conversation row as it stands in ``data.jsonl``."""
    return {
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": answer}],
        "origin": {"file": file},
    }


def _passages(chunks: Sequence[Chunk], spans: Spans, size: int) -> list[str]:
    return [piece for chunk in chunks for piece in pieces_of(chunk.text, spans, size)]
