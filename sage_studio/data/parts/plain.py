"""Conversations of the commonest shapes, read without the detour over the objects that a row is made of.

Knows what such a record looks like, and takes it for what `formats` takes it for: a test compares the two. Knows
nothing of faults: whatever is unusual about a record is left to those who can say so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from sage_studio.data.formats import Format, detect_format

Said: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""The roles of the turns before the answer, and the texts of all turns."""
Reads: TypeAlias = Callable[[Mapping[str, Any]], Said | None]
ALONE = ("user",)
TURN = ("role", "content")
ROLES = ("system", "user", "assistant")
NOTHING_SAID = (None, "")


@dataclass(frozen=True, slots=True)
class Shape:
    """Records with certain keys.

    Attributes:
        format: theirs.
        read: a record's conversation; None for a record that has to be read with care.
    """

    format: Format
    read: Reads


@lru_cache(maxsize=1024)
def shape_of(keys: tuple[str, ...]) -> Shape | None:
    """The shape of records with these keys; None where all of them have to be read with care."""
    found = detect_format(frozenset(keys))
    read = PLAIN.get(found.name) if found is not None else None
    return Shape(found, read) if found is not None and read is not None else None


def _alpaca(record: Mapping[str, Any]) -> Said | None:
    given = record.get("input")
    if record.get("history") not in (None, []) or not (given is None or type(given) is str):
        return None
    question = record["instruction"]
    if given and not given.isspace() and _is_said(question):
        question = f"{question}\n{given}"
    return _asked(record, question, record["output"])


def _pair(ask: str, answer: str) -> Reads:
    return lambda record: _asked(record, record[ask], record[answer])


def _asked(record: Mapping[str, Any], question: Any, answer: Any) -> Said | None:
    if type(question) is not str or type(answer) is not str or record.get("system") not in NOTHING_SAID:
        return None
    if not question or question.isspace() or not answer or answer.isspace():
        return None
    return ALONE, (question, answer)


def _messages(record: Mapping[str, Any]) -> Said | None:
    turns = record["messages"]
    if type(turns) is not list or len(turns) < 2 or record.get("system") not in NOTHING_SAID:
        return None
    for turn in turns:
        if type(turn) is not dict or tuple(turn) != TURN or turn["role"] not in ROLES:
            return None
        if type(turn["content"]) is not str:
            return None
    asked, said = turns[-2:]
    if asked["role"] != "user" or said["role"] != "assistant":
        return None
    if not (_is_said(asked["content"]) and _is_said(said["content"])):
        return None
    return tuple(turn["role"] for turn in turns[:-1]), tuple(turn["content"] for turn in turns)


def _is_said(text: Any) -> bool:
    return type(text) is str and bool(text) and not text.isspace()


PLAIN: Mapping[str, Reads] = {
    "Alpaca": _alpaca,
    "prompt/completion": _pair("prompt", "completion"),
    "question/answer": _pair("question", "answer"),
    "messages": _messages,
}
