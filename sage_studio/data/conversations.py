"""The formats of conversations: Alpaca, messages, ShareGPT, prompt/completion, question/answer.

Knows how each is read as a prompt and its answer. Knows nothing of files or rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sage_studio.data.example import Example, Message, Origin
from sage_studio.data.values import (
    BadValue,
    NothingToLearn,
    Turns,
    check_characters,
    conversation,
    items,
    shown,
    string,
    unpacked,
)
from sage_studio.text import Text

NO_ANSWER = Text("empty answer", "回答为空")
NO_QUESTION = Text("empty question", "问题为空")
NO_TURN_BEFORE = Text("no question before the answer", "回答之前没有问题")
JUDGED_BAD = Text("marked as a bad answer", "标记为差的回答")
NOT_WEIGHTED = Text("every answer has weight 0", "所有回答的权重均为 0")
JUDGEMENTS: Mapping[Any, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}

Reader = Callable[[Mapping[str, Any], Origin], Example]


def read_alpaca(record: Mapping[str, Any], origin: Origin) -> Example:
    """``instruction``, ``input``, ``output``, with ``system`` and ``history``."""
    return _example([*alpaca_prompt(record), Message("assistant", string(record["output"], "output"))], origin)


def read_pair(ask: str, answer: str) -> Reader:
    """A reader of a question under one key and its answer under another; each is text or a list of turns."""

    def read(record: Mapping[str, Any], origin: Origin) -> Example:
        return _example([*prompt_of(record, ask), Message("assistant", answer_of(record, answer))], origin)

    return read


def read_turns(key: str) -> Reader:
    """A reader of a whole conversation under one key, up to its last answer that OpenAI's ``weight`` does not bar."""

    def read(record: Mapping[str, Any], origin: Origin) -> Example:
        said = unpacked(record[key])
        turns = conversation(said, key)
        has_answer = any(turn.role == "assistant" for turn in turns)
        while turns and (turns[-1].role != "assistant" or said[len(turns) - 1].get("weight") == 0):
            turns.pop()
        if has_answer and not turns:
            raise NothingToLearn(NOT_WEIGHTED)
        return _example([*system_of(record), *turns] if turns else [], origin)

    return read


def read_judged(read: Reader, key: str) -> Reader:
    """A reader of KTO's rows, good and bad answers by true and false under ``key``: the good ones are kept."""

    def read_good(record: Mapping[str, Any], origin: Origin) -> Example:
        value = record[key]
        is_good = judgement(value)
        if is_good is None:
            raise BadValue(
                f"{key} must be true or false, not {shown(value)}",
                f"{key} 必须是 true 或 false：{shown(value)}",
            )
        if not is_good:
            raise NothingToLearn(JUDGED_BAD)
        return read(record, origin)

    return read_good


def judgement(value: Any) -> bool | None:
    """Good or bad, as KTO's rows say it: true and false, 1 and 0, or the words for them; None for anything else."""
    plain = value.strip().lower() if isinstance(value, str) else value
    return JUDGEMENTS.get(plain) if isinstance(plain, bool | int | float | str) else None


def alpaca_prompt(record: Mapping[str, Any]) -> Turns:
    """System, history and the instruction with its input. Raises `BadValue`."""
    turns = system_of(record)
    for pair in items(record.get("history"), "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadValue("history must be a list of [question, answer] pairs.", "history 必须是 [问, 答] 的列表。")
        turns += [Message("user", string(pair[0], "history")), Message("assistant", string(pair[1], "history"))]
    asked = (string(record["instruction"], "instruction"), string(record.get("input"), "input"))
    return [*turns, Message("user", "\n".join(part for part in asked if part.strip()))]


def prompt_of(record: Mapping[str, Any], key: str) -> Turns:
    """A prompt that is text or a list of turns, after the record's ``system``. Raises `BadValue`."""
    value = record[key]
    asked = conversation(value, key) if isinstance(value, list) else [Message("user", string(value, key))]
    return [*system_of(record), *asked]


def answer_of(record: Mapping[str, Any], key: str) -> str:
    """An answer that is text or a list whose last turn it is. Raises `BadValue`."""
    value = record[key]
    turns = conversation(value, key)[-1:] if isinstance(value, list) and value else []
    return turns[0].content if turns else string(value, key)


def system_of(record: Mapping[str, Any]) -> Turns:
    """The record's ``system`` as a turn; none without. Raises `BadValue`."""
    system = string(record.get("system"), "system")
    return [Message("system", system)] if system.strip() else []


def check_prompt(turns: Turns) -> None:
    """Raise `NothingToLearn` unless the last turn is a question."""
    if not turns or turns[-1].role != "user":
        raise NothingToLearn(NO_TURN_BEFORE)
    if not turns[-1].content.strip():
        raise NothingToLearn(NO_QUESTION)


def _example(turns: Turns, origin: Origin) -> Example:
    if not turns or not turns[-1].content.strip():
        raise NothingToLearn(NO_ANSWER)
    check_prompt(turns[:-1])
    check_characters(turn.content for turn in turns)
    return Example(tuple(turns[:-1]), turns[-1].content, origin)
