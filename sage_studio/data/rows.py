"""The four kinds of rows to train on, the same whatever file they came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias

from sage_studio.errors import InvalidDataset
from sage_studio.text import NOTHING, Text

Role = Literal["system", "user", "assistant"]
RowKind = Literal["conversation", "preference", "retrieval", "passage"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from. Lines and pages count from 1; ``heading`` is the path of headings, outermost first.

    Attributes:
        dataset: the dataset that this row was derived from; ``dataset_row`` is its row there.
        made: how it was derived from that row: ``edited``, ``paraphrase``, ``back_translation``, ``annotated``.
        evidence: quotation from that row that supports an answer written by a model.
    """

    file: str
    row: int | None = None
    heading: tuple[str, ...] = ()
    commit: str | None = None
    dataset: str | None = None
    dataset_row: int | None = None
    made: str | None = None
    page: int | None = None
    evidence: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Its non-empty fields."""
        values = {
            "file": self.file,
            "row": self.row,
            "heading": list(self.heading),
            "commit": self.commit,
            "dataset": self.dataset,
            "dataset_row": self.dataset_row,
            "made": self.made,
            "page": self.page,
            "evidence": self.evidence,
        }
        return {key: value for key, value in values.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**values, "heading": tuple(values.get("heading", ()))})


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the one answer that is trained on.

    Attributes:
        prompt: earlier turns, the last of them the user's; never empty.
        completion: the assistant's answer; the loss falls on it alone.
        origin: where the row came from.
    """

    kind: ClassVar[RowKind] = "conversation"

    prompt: tuple[Message, ...]
    completion: str
    origin: Origin

    @property
    def asked(self) -> str:
        """The question, for display."""
        return _read_out(self.prompt)

    @property
    def answer(self) -> str:
        """The answer, for display."""
        return self.completion

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the row, in order."""
        return (*(message.content for message in self.prompt), self.completion)

    def to_json(self) -> dict[str, Any]:
        """The row as in ``data.jsonl``: conversational prompt and completion, and the origin."""
        return {
            "prompt": _turns(self.prompt),
            "completion": _answer(self.completion),
            "origin": self.origin.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a preferred and a rejected answer."""

    kind: ClassVar[RowKind] = "preference"

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    origin: Origin

    @property
    def asked(self) -> str:
        """The question, for display."""
        return _read_out(self.prompt)

    @property
    def answer(self) -> str:
        """The answer, for display."""
        return f"✓ {self.chosen}\n\n✗ {self.rejected}"

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the row, in order."""
        return (*(message.content for message in self.prompt), self.chosen, self.rejected)

    def to_json(self) -> dict[str, Any]:
        """The row as in ``data.jsonl``: conversational prompt, chosen and rejected, and the origin."""
        return {
            "prompt": _turns(self.prompt),
            "chosen": _answer(self.chosen),
            "rejected": _answer(self.rejected),
            "origin": self.origin.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A query with positive passages (at least one) and negative passages (possibly none)."""

    kind: ClassVar[RowKind] = "retrieval"

    query: str
    pos: tuple[str, ...]
    neg: tuple[str, ...]
    origin: Origin

    @property
    def asked(self) -> str:
        """The question, for display."""
        return self.query

    @property
    def answer(self) -> str:
        """The answer, for display."""
        return "\n\n".join((*(f"✓ {text}" for text in self.pos), *(f"✗ {text}" for text in self.neg)))

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the row, in order."""
        return (self.query, *self.pos, *self.neg)

    def to_json(self) -> dict[str, Any]:
        """The row as in ``data.jsonl``."""
        return {
            "query": self.query,
            "pos": list(self.pos),
            "neg": list(self.neg),
            "origin": self.origin.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Passage:
    """A text without a question."""

    kind: ClassVar[RowKind] = "passage"

    text: str
    origin: Origin

    @property
    def asked(self) -> str:
        """Its heading path, for display."""
        return " › ".join(self.origin.heading)

    @property
    def answer(self) -> str:
        """The answer, for display."""
        return self.text

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the row, in order."""
        return (self.text,)

    def to_json(self) -> dict[str, Any]:
        """The row as in ``data.jsonl``."""
        return {"text": self.text, "origin": self.origin.to_json()}


DataRow: TypeAlias = Example | Preference | Retrieval | Passage


def row_from_json(row: Mapping[str, Any]) -> DataRow:
    """A line of ``data.jsonl`` as the row it was written from."""
    origin = Origin.from_json(row["origin"])
    if "completion" in row:
        return Example(_messages(row["prompt"]), row["completion"][0]["content"], origin)
    if "chosen" in row:
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        return Preference(_messages(row["prompt"]), chosen, rejected, origin)
    if "query" in row:
        return Retrieval(row["query"], tuple(row["pos"]), tuple(row["neg"]), origin)
    return Passage(row["text"], origin)


def invalid_row(row: int, what: Text, hint: Text = NOTHING) -> InvalidDataset:
    """The error for one row, numbered from 1."""
    return InvalidDataset(Text("Row {row}: {what}", row=row, what=what), hint, row=row)


def _read_out(prompt: tuple[Message, ...]) -> str:
    return "\n\n".join(message.content for message in prompt)


def _turns(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _messages(turns: list[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(**turn) for turn in turns)
