"""A scripted generator, and the towns that the tests' knowledge base is about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_studio.training.methods.kbalign.generator import Completion, DecodingParams, Messages

TOWNS = ("Arn", "Bex", "Cos", "Dol", "Eck", "Fyn")


class Killed(BaseException):
    """The process dies here: nothing may catch it."""


@dataclass
class Scripted:
    """Answers each prompt by ``answer(last turn)``; a text, a `Completion`, or an exception to raise."""

    answer: Callable[[str], Any]
    asked: list[str] = field(default_factory=list)
    params: list[DecodingParams] = field(default_factory=list)
    context: int = 8192

    def generate(self, prompts: Sequence[Messages], params: DecodingParams, seed: str) -> list[Completion]:
        said = []
        for prompt in prompts:
            assert [turn["role"] for turn in prompt][-1] == "user"
            self.asked.append(prompt[-1]["content"])
            self.params.append(params)
            found = self.answer(prompt[-1]["content"])
            if isinstance(found, BaseException):
                raise found
            said.append(found if isinstance(found, Completion) else Completion(found))
        return said


def town_in(prompt: str) -> str:
    """The town that a prompt is about: the last one it names."""
    return max(TOWNS, key=prompt.rfind)


def pairs_about(town: str, count: int = 5) -> str:
    kinds = (
        "Who built the tower of",
        "What tower stands in the town of",
        "Which mason worked in",
        "What has the town of",
    )
    questions = [*(f"{kind} {town}?" for kind in kinds), f"Was the tower built in the town of {town}?"]
    answer = f"The mason {town}us built it."
    return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question in questions[:count])
