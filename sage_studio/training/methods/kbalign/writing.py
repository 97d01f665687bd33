"""The seam between the stages and whatever writes: a stage asks, a model or a test answers.

Knows what is asked for and what comes back. Knows nothing of models; imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Messages = list[dict[str, str]]
"""A conversation whose next turn is to be written."""


@dataclass(frozen=True, slots=True)
class Style:
    """How something is written. ``temperature`` 0 takes the likeliest word each time."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. ``whole``: it ended by itself; ``error``: nothing could be written, and why."""

    text: str
    whole: bool = True
    error: str = ""


class Writer(Protocol):
    """Whatever can continue conversations.

    Attributes:
        context: most tokens that a conversation may have, what is written included.
    """

    context: int

    def write(self, prompts: Sequence[Messages], style: Style, seed: str) -> list[Written]:
        """Continue each conversation; one that fails has its ``error`` and does not spoil the others.

        Args:
            seed: the same prompts, style and seed give the same texts.
        """
        ...


def ask(system: str, *turns: str) -> Messages:
    """A conversation: who the model is, then what the user and it said in turn, the last of it the user's."""
    roles = ("user", "assistant")
    said = [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)]
    return [{"role": "system", "content": system}, *said] if system else said
