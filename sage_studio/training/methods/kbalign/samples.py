"""Distributes annotated questions, with answers and references, over the rounds."""

import random
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from sage_studio.data.bm25 import BM25
from sage_studio.data.chunking import split_tokens
from sage_studio.training.methods.kbalign import prompts
from sage_studio.training.methods.kbalign.annotate import LongAnnotation, ShortAnnotation
from sage_studio.training.methods.kbalign.chunks import Chunk, TokenSpans
from sage_studio.training.methods.kbalign.stage_files import StageRecord
from sage_studio.training.recipes.methods import KBAlignRecipe


class Sample(StageRecord):
    """A question to train on.

    Attributes:
        part: the round that trains on it, from 1.
        file: the document of its chunk.
        language: written ``spoken`` in the file.
        references: passages retrieved for it; empty if the recipe wants none.
    """

    part: int
    kind: Literal["short", "long"]
    file: str = ""
    language: prompts.Language = Field("en", alias="spoken")
    question: str
    answer: str
    references: tuple[str, ...] = ()


def build_samples(
    recipe: KBAlignRecipe,
    chunks: Sequence[Chunk],
    short: Sequence[ShortAnnotation],
    long: Sequence[LongAnnotation],
    spans: TokenSpans,
) -> list[Sample]:
    """All questions in training order, the rounds of equal size.

    The questions about each chunk, and those with the same answer, are spread over the rounds: what only an early
    round trains on is forgotten in the later ones.
    """
    by_number = {chunk.chunk: chunk for chunk in chunks}
    questions: list[tuple[Literal["short", "long"], int, str, str]] = [
        ("short", record.chunk, pair.question, pair.answer) for record in short for pair in record.pairs
    ]
    questions += [("long", record.chunk, record.question, record.answer) for record in long if record.answer]
    rng = random.Random(recipe.seed)
    rng.shuffle(questions)
    questions.sort(key=lambda each: (each[1], each[3]))
    dealt = [(at % recipe.rounds + 1, *each) for at, each in enumerate(questions)]
    rng.shuffle(dealt)
    dealt.sort(key=lambda each: each[0])
    passages = list(dict.fromkeys(_passages(chunks, spans, recipe.reference_size))) if recipe.references else []
    index = BM25(passages)
    return [
        Sample(
            part=part,
            kind=kind,
            file=by_number[chunk].file,
            language=by_number[chunk].language,
            question=question,
            answer=answer,
            references=tuple(passages[found] for found in index.nearest(question, recipe.references)),
        )
        for part, kind, chunk, question, answer in dealt
        if chunk in by_number
    ]


def training_rows(sample: Sample) -> list[dict[str, Any]]:
    """A sample as training rows: the question alone, and the question with its references if it has any."""
    rows = [conversation_row(sample.question, sample.answer, sample.file)]
    if sample.references:
        prompt = prompts.with_references(sample.question, sample.references, sample.language)
        rows.append(conversation_row(prompt, sample.answer, sample.file))
    return rows


def conversation_row(prompt: str, answer: str, file: str) -> dict[str, Any]:
    """A conversation in the format of ``data.jsonl``."""
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": answer}],
        "origin": {"file": file},
    }


def _passages(chunks: Sequence[Chunk], spans: TokenSpans, size: int) -> list[str]:
    return [piece for chunk in chunks for piece in split_tokens(chunk.text, spans(chunk.text), size)]
