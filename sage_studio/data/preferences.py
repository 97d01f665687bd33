"""The formats of preference pairs: the studio's documented one, TRL's and LLaMA-Factory's.

Knows how each is read as a prompt with a better and a worse answer. Knows nothing of files or rows.
"""

import re
from collections.abc import Mapping
from typing import Any

from sage_studio.data.conversations import NO_ANSWER, alpaca_prompt, check_prompt, prompt_of, system_of
from sage_studio.data.example import Message, Origin, Preference
from sage_studio.data.values import (
    BadValue,
    NothingToLearn,
    Turns,
    check_characters,
    conversation,
    shown,
    string,
    unpacked,
)
from sage_studio.text import Text

SAME_ANSWER = Text("chosen and rejected are the same", "chosen 与 rejected 相同")
SPEAKER = re.compile(r"^(Human|Assistant):", re.MULTILINE)
CONTEXT = "{query}\n\n{retrieved}"


def read_retrieved(record: Mapping[str, Any], origin: Origin) -> Preference:
    """``query``, ``retrieval_result``, ``chosen``, ``rejected``; what was retrieved becomes context in the prompt."""
    query = string(record["query"], "query")
    retrieved = _retrieved(record.get("retrieval_result"))
    asked = CONTEXT.format(query=query, retrieved=retrieved) if retrieved else query
    if not query.strip():
        asked = ""
    return _preference([*system_of(record), Message("user", asked)], record, origin)


def read_prompted(record: Mapping[str, Any], origin: Origin) -> Preference:
    """TRL's ``prompt``, ``chosen``, ``rejected``, each text or a list of turns."""
    return _preference(prompt_of(record, "prompt"), record, origin)


def read_instructed(record: Mapping[str, Any], origin: Origin) -> Preference:
    """LLaMA-Factory's Alpaca ranking: ``instruction``, ``input``, ``chosen``, ``rejected``."""
    return _preference(alpaca_prompt(record), record, origin)


def read_conversed(record: Mapping[str, Any], origin: Origin) -> Preference:
    """LLaMA-Factory's ShareGPT ranking: ``conversations``, ``chosen``, ``rejected``."""
    turns = [*system_of(record), *conversation(unpacked(record["conversations"]), "conversations")]
    return _preference(turns, record, origin)


def read_implicit(record: Mapping[str, Any], origin: Origin) -> Preference:
    """TRL's two whole conversations, lists or Anthropic's ``Human:``/``Assistant:`` text; what they share is asked."""
    chosen, rejected = (_turns(record[key], key) for key in ("chosen", "rejected"))
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise BadValue(
            "chosen and rejected must be the same conversation but for the last answer, or a prompt must be given.",
            "chosen 与 rejected 除最后的回答外必须是同一段对话，或另外给出 prompt。",
        )
    answers = {"chosen": chosen[-1].content, "rejected": rejected[-1].content}
    return _preference([*system_of(record), *chosen[:-1]], answers, origin)


def _turns(value: Any, key: str) -> Turns:
    if not isinstance(value, str):
        return conversation(value, key)
    _, *parts = SPEAKER.split(value.strip())
    if not parts:
        raise BadValue(
            f"{key} is one text without a prompt: {shown(value)}", f"{key} 只是一段文本，缺少 prompt：{shown(value)}"
        )
    return [
        Message("user" if who == "Human" else "assistant", said.strip())
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _preference(prompt: Turns, record: Mapping[str, Any], origin: Origin) -> Preference:
    chosen, rejected = (_answer(record[key], key) for key in ("chosen", "rejected"))
    if not chosen.strip() or not rejected.strip():
        raise NothingToLearn(NO_ANSWER)
    if chosen == rejected:
        raise NothingToLearn(SAME_ANSWER)
    check_prompt(prompt)
    check_characters((*(turn.content for turn in prompt), chosen, rejected))
    return Preference(tuple(prompt), chosen, rejected, origin)


def _answer(value: Any, key: str) -> str:
    """Text, ``{"text": …}``, a turn, or a list whose last turn it is."""
    if isinstance(value, list) and value:
        return conversation(value, key)[-1].content
    if isinstance(value, dict):
        named = next((name for name in ("text", "content", "value") if name in value), None)
        if named is None:
            raise BadValue(f"{key} has no text: {shown(value)}", f"{key} 中没有 text：{shown(value)}")
        return string(value[named], f"{key}.{named}")
    return string(value, key)


def _retrieved(value: Any) -> str:
    """What was retrieved: text, or a list of texts or of objects with a ``text``."""
    parts = value if isinstance(value, list) else [value]
    return "\n\n".join(filter(None, (_answer(part, "retrieval_result").strip() for part in parts)))
