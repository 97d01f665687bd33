"""One row to train on, the same whatever file or document it came from.

Knows the shape of a row and of its origin. Knows no file format, no tokenizer and no trainer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from. Line numbers count from 1; ``heading`` is the path of headings, outermost first."""

    file: str
    row: int | None = None
    heading: tuple[str, ...] = ()
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the one answer that is trained on.

    Attributes:
        prompt: earlier turns, the last of them the user's; never empty.
        completion: the assistant's answer; the loss falls on it alone.
        origin: where the row came from.
    """

    prompt: tuple[Message, ...]
    completion: str
    origin: Origin

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in ``data.jsonl``: conversational prompt and completion, and the origin."""
        origin = self.origin
        values = {"file": origin.file, "row": origin.row, "heading": list(origin.heading), "commit": origin.commit}
        return {
            "prompt": [{"role": message.role, "content": message.content} for message in self.prompt],
            "completion": [{"role": "assistant", "content": self.completion}],
            "origin": {key: value for key, value in values.items() if value},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        origin = dict(row["origin"])
        origin["heading"] = tuple(origin.get("heading", ()))
        return cls(
            prompt=tuple(Message(**message) for message in row["prompt"]),
            completion=row["completion"][0]["content"],
            origin=Origin(**origin),
        )
