"""Records of the common fine-tuning formats as examples: Alpaca, conversations, prompt/completion, question/answer.

Knows which keys make which format and what their values must be. Knows nothing of files; row numbers are given to it.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sage_studio.data.dataset import Dropped, LeftOut
from sage_studio.data.example import Example, Message, Origin, Role
from sage_studio.errors import InvalidDataset
from sage_studio.text import NOTHING, Text

Turns = list[Message]

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
NO_ANSWER = Text("empty answer", "回答为空")
NO_QUESTION = Text("empty question", "问题为空")
NO_TURN_BEFORE = Text("no question before the answer", "回答之前没有问题")
BROKEN_CHARACTERS = Text("half a character (a lone surrogate)", "含有残缺字符（孤立的代理项）")


@dataclass(frozen=True, slots=True)
class Format:
    """A shape of records.

    Attributes:
        name: as people call it.
        needs: the keys that make it.
        turns: reads a record's conversation; the last turn is the answer. Raises `_BadValue`.
    """

    name: str
    needs: tuple[str, ...]
    turns: Callable[[Mapping[str, Any]], Turns]


class RecordReader:
    """Reads the records of one file, counting those that hold nothing to learn.

    Each record's format is told by its own keys, so rows of several formats may stand in one file.

    Example:
        >>> reader = RecordReader("rows.json")
        >>> reader.read({"instruction": "Say hi", "input": "", "output": "Hi"}, row=1).completion
        'Hi'
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._left_out = LeftOut()
        self.rows = 0

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out so far, and why."""
        return self._left_out.dropped

    def read(self, record: Any, row: int) -> Example | None:
        """One record as an example, or None when it is dropped and counted.

        Raises:
            InvalidDataset: it is no object, has the keys of no format, or a value of the wrong kind; names ``row``.
        """
        self.rows += 1
        if not isinstance(record, dict):
            raise _not_an_object(record, row)
        found = detect_format(frozenset(record))
        if found is None:
            raise _unknown_keys(record, row)
        try:
            turns = found.turns(record)
        except _BadValue as error:
            raise invalid_row(row, error.message, _value_hint(found)) from error
        reason = _reason_to_drop(turns)
        if reason is not None:
            self._left_out.add(reason, str(row))
            return None
        return Example(tuple(turns[:-1]), turns[-1].content, Origin(file=self._file, row=row))


@lru_cache(maxsize=1024)
def detect_format(keys: Collection[str]) -> Format | None:
    """The format that a record with these keys has; None for none of the known ones."""
    return next((each for each in FORMATS if all(key in keys for key in each.needs)), None)


def invalid_row(row: int, what: Text, hint: Text = NOTHING) -> InvalidDataset:
    """The error for one row, numbered from 1."""
    return InvalidDataset(Text(f"Row {row}: {what.en}", f"第 {row} 行：{what.zh}"), hint, row=row)


class _BadValue(Exception):
    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.message = Text(en, zh)


def _alpaca(record: Mapping[str, Any]) -> Turns:
    turns = _system(record)
    for pair in _list(record, "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise _BadValue("history must be a list of [question, answer] pairs.", "history 必须是 [问, 答] 的列表。")
        turns += [Message("user", _string(pair[0], "history")), Message("assistant", _string(pair[1], "history"))]
    asked = (_string(record["instruction"], "instruction"), _string(record.get("input"), "input"))
    question = "\n".join(part for part in asked if part.strip())
    return [*turns, Message("user", question), Message("assistant", _string(record["output"], "output"))]


def _pair(ask: str, answer: str) -> Callable[[Mapping[str, Any]], Turns]:
    def turns(record: Mapping[str, Any]) -> Turns:
        question, reply = record[ask], record[answer]
        before = (
            _conversation(question, ask) if isinstance(question, list) else [Message("user", _string(question, ask))]
        )
        last = _conversation(reply, answer)[-1:] if isinstance(reply, list) and reply else []
        return [*_system(record), *before, *(last or [Message("assistant", _string(reply, answer))])]

    return turns


def _turns_of(key: str) -> Callable[[Mapping[str, Any]], Turns]:
    def turns(record: Mapping[str, Any]) -> Turns:
        """The conversation up to its last answer."""
        conversation = [*_system(record), *_conversation(record[key], key)]
        while conversation and conversation[-1].role != "assistant":
            conversation.pop()
        return conversation

    return turns


FORMATS = (
    Format("Alpaca", ("instruction", "output"), _alpaca),
    Format("messages", ("messages",), _turns_of("messages")),
    Format("ShareGPT", ("conversations",), _turns_of("conversations")),
    Format("prompt/completion", ("prompt", "completion"), _pair("prompt", "completion")),
    Format("question/answer", ("question", "answer"), _pair("question", "answer")),
)
KNOWN = "; ".join(f"{each.name}: {', '.join(each.needs)}" for each in FORMATS)


def _conversation(value: Any, key: str) -> Turns:
    if not isinstance(value, list):
        raise _BadValue(f"{key} must be a list of turns, not {_kind(value)}.", f"{key} 必须是对话轮次的列表。")
    return [_turn(turn, key) for turn in value]


def _turn(turn: Any, key: str) -> Message:
    if not isinstance(turn, dict):
        raise _BadValue(f"a turn of {key} is {_kind(turn)}, not an object.", f"{key} 中有一轮不是对象。")
    speaker = turn.get("role", turn.get("from"))
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None or turn.get("tool_calls"):
        raise _BadValue(
            f"{key} has a turn of role {speaker!r}; known are {', '.join(ROLES)}; tool calls cannot be trained on yet.",
            f"{key} 中出现角色 {speaker!r}；支持的角色为 {', '.join(ROLES)}；暂不支持工具调用。",
        )
    return Message(role, _content(turn.get("content", turn.get("value")), key))


def _content(value: Any, key: str) -> str:
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "\n".join(_string(part.get("text"), key) for part in value)
    return _string(value, key)


def _system(record: Mapping[str, Any]) -> Turns:
    system = _string(record.get("system"), "system")
    return [Message("system", system)] if system.strip() else []


def _list(record: Mapping[str, Any], key: str) -> Iterator[Any]:
    value = record.get(key) or []
    if not isinstance(value, list):
        raise _BadValue(f"{key} must be a list, not {_kind(value)}.", f"{key} 必须是列表。")
    return iter(value)


def _string(value: Any, key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _BadValue(
            f"{key} must be text, not {_kind(value)}: {_shown(value)}", f"{key} 必须是文本，而不是：{_shown(value)}"
        )
    return value


def _reason_to_drop(turns: Turns) -> Text | None:
    if not turns or not turns[-1].content.strip():
        return NO_ANSWER
    if len(turns) < 2 or turns[-2].role != "user":
        return NO_TURN_BEFORE
    if not turns[-2].content.strip():
        return NO_QUESTION
    try:
        for turn in turns:
            turn.content.encode()
    except UnicodeEncodeError:
        return BROKEN_CHARACTERS
    return None


def _not_an_object(record: Any, row: int) -> InvalidDataset:
    what = Text(f"it is {_kind(record)}, not an object: {_shown(record)}", f"应为 JSON 对象，实际为：{_shown(record)}")
    return invalid_row(row, what, _keys_hint())


def _unknown_keys(record: Mapping[str, Any], row: int) -> InvalidDataset:
    keys = ", ".join(sorted(map(str, record))[:20]) or "—"
    what = Text(f"its keys ({keys}) are those of no known format.", f"字段（{keys}）不属于任何已知格式。")
    return invalid_row(row, what, _keys_hint())


def _keys_hint() -> Text:
    return Text(
        f"Every row needs the keys of one format: {KNOWN}. Rename the keys, or remove the row.",
        f"每一行都需要某一种格式的字段：{KNOWN}。请改字段名，或删除该行。",
    )


def _value_hint(found: Format) -> Text:
    return Text(f"The row was read as {found.name}. Correct its value.", f"该行按 {found.name} 读取，请改正其值。")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"
