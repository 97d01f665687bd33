"""Values of a record, each taken as what it must be or refused in words for a person.

Knows the kinds of JSON values and who may speak in a conversation. Knows no format; which row a value stood in is known
to the caller.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sage_studio.data.example import Message, Role
from sage_studio.text import Text

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "developer": "system",
    "prompter": "user",
    "assistant": "assistant",
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "ai", "model"), "assistant"),
}
"""In any case: dumps of the same tool write ``Human`` and ``human``."""
TOOLS = frozenset(
    {"tool", "tool_call", "tool_calls", "tool_response", "function", "function_call", "observation", "ipython"}
)
"""Roles of turns that are a tool's, or a call to one."""
CALLS = ("tool_calls", "function_call")
TEXT_PARTS = ("text", "input_text", "output_text")
TOOL_CALL = Text("a tool call, which cannot be trained on yet", "含有工具调用，暂不支持训练")
NOT_TEXT = Text("a picture, sound or file among the turns", "对话中含有图片、音频或文件")
Turns = list[Message]


class BadValue(Exception):
    """A value that is not what its key calls for."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.message = Text(en, zh)


class NothingToLearn(Exception):
    """A record that is well formed and holds nothing to train on: it is left out and counted."""

    def __init__(self, reason: Text) -> None:
        super().__init__(reason.en)
        self.reason = reason


def string(value: Any, key: str) -> str:
    """Text; null is empty text. Raises `BadValue`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadValue(
            f"{key} must be text, not {kind_of(value)}: {shown(value)}", f"{key} 必须是文本，而不是：{shown(value)}"
        )
    return value


def items(value: Any, key: str) -> list[Any]:
    """A list; null is an empty one. Raises `BadValue`."""
    if value is not None and not isinstance(value, list):
        raise BadValue(f"{key} must be a list, not {kind_of(value)}.", f"{key} 必须是列表。")
    return value or []


def conversation(value: Any, key: str) -> Turns:
    """A list of turns, ``role``/``content`` or ``from``/``value``. Raises `BadValue`, `NothingToLearn`."""
    if not isinstance(value, list):
        raise BadValue(
            f"{key} must be a list of turns, not {kind_of(value)}: {shown(value)}",
            f"{key} 必须是对话轮次的列表，而不是：{shown(value)}",
        )
    return [_turn(turn, key) for turn in value]


def unpacked(value: Any) -> Any:
    """A list that was written as text, as tools do that know no lists; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list) else value


def check_characters(texts: Iterable[str]) -> None:
    """Raise `NothingToLearn` for text that cannot be written as UTF-8."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise NothingToLearn(BROKEN_CHARACTERS) from error


BROKEN_CHARACTERS = Text(
    "half a character (a lone surrogate), or bytes that are not UTF-8",
    "含有残缺字符（孤立的代理项），或不是 UTF-8 的字节",
)


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def shown(value: Any) -> str:
    """A value as it may stand in a message."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _turn(turn: Any, key: str) -> Message:
    if not isinstance(turn, dict):
        raise BadValue(f"a turn of {key} is {kind_of(turn)}, not an object.", f"{key} 中有一轮不是对象。")
    speaker = turn.get("role", turn.get("from"))
    name = speaker.strip().lower() if isinstance(speaker, str) else ""
    if name in TOOLS or any(turn.get(call) for call in CALLS):
        raise NothingToLearn(TOOL_CALL)
    if name not in ROLES:
        raise BadValue(
            f"{key} has a turn of role {speaker!r}; known are {', '.join(ROLES)}.",
            f"{key} 中出现角色 {speaker!r}；支持的角色为 {', '.join(ROLES)}。",
        )
    return Message(ROLES[name], _content(turn.get("content", turn.get("value")), key))


def _content(value: Any, key: str) -> str:
    """Text, or a list of parts of it. Raises `NothingToLearn` for a part of another type."""
    if not isinstance(value, list):
        return string(value, key)
    types = {part.get("type") for part in value if isinstance(part, dict) and isinstance(part.get("type"), str)}
    if types - set(TEXT_PARTS):
        raise NothingToLearn(NOT_TEXT)
    return "\n".join(string(part.get("text") if isinstance(part, dict) else part, key) for part in value)
