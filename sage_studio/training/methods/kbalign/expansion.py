"""Targeted query expansion, KBAlign's way of answering (arXiv 2411.14790): answer, look up with that, answer anew.

A first answer names what the question only hints at, and so finds passages that the question alone does not. Knows the
order of the steps. Knows nothing of models or of how passages are found: both are given. Imports no torch, so that the
chat can use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Passage = TypeVar("Passage")
Retrieve = Callable[[str], Sequence[Passage]]
"""Passages for a query, the best first."""
Ask = Callable[[str, Sequence[Passage]], str]
"""The answer to a question with passages at hand."""


@dataclass(frozen=True, slots=True)
class Expanded(Generic[Passage]):
    """What was found for a question in two goes; ``first`` is the answer that the second look-up used."""

    first: str
    references: tuple[Passage, ...]
    changed: bool


@dataclass(frozen=True, slots=True)
class Answered(Generic[Passage]):
    """An answer, the passages it rests on, and the answer before it."""

    answer: str
    first: str
    references: tuple[Passage, ...]


def expand(question: str, ask: Ask[Passage], retrieve: Retrieve[Passage]) -> Expanded[Passage]:
    """Answer once and look up again; for callers who stream the last answer themselves.

    ``changed`` is False where the second look-up found the same, so that the first answer stands.
    """
    before = tuple(retrieve(question))
    first = ask(question, before)
    after = tuple(retrieve(f"{question}\n{first}")) if first.strip() else before
    return Expanded(first, after, after != before)


def answer_twice(question: str, ask: Ask[Passage], retrieve: Retrieve[Passage]) -> Answered[Passage]:
    """Answer once, retrieve again with question and answer, answer again.

    Example:
        >>> def ask(question, found):
        ...     return "It is the Lume bridge." if not found else f"It is {found[0]} long."
        >>> def look_up(query):
        ...     return ["240 metres"] if "Lume" in query else []
        >>> answer_twice("How long is Orvik's bridge?", ask, look_up).answer
        'It is 240 metres long.'
    """
    found = expand(question, ask, retrieve)
    answer = ask(question, found.references) if found.changed else found.first
    return Answered(answer, found.first, found.references)
