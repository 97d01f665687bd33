"""A conversation as the page keeps it, and the part of it that an engine is given.

An answer's figures stand in its metadata, apart from its words.
"""

from typing import Any

from markupsafe import Markup

from sage_studio.serving.types import ChatChunk, ChatMessage
from sage_studio.text import Language, Text
from sage_studio.ui.chat.documents_panel import sources_under

ANSWERED = Text("first token {:.1f} s")
TWICE = Text("looked up twice")
FIRST = Text("Writing a first answer to look up with …")
UNANSWERED = Text("⚠️ No answer. Your message is kept; press ⟳ to try again.")
PENDING, LOST = "pending", "lost"
"""Ids of turns that hold no words of a model: the one that is awaited, and the one that never came."""


ChatbotMessage = dict[str, Any]


def pending(message: str = "…") -> ChatbotMessage:
    """The turn that is awaited."""
    return {"role": "assistant", "content": message, "metadata": {"id": PENDING}}


def take(_: Language, message: str, turns: list[ChatbotMessage]) -> tuple[str, list[ChatbotMessage]]:
    """Put the person's message into the conversation."""
    text = message.strip()
    return "", [*turns, {"role": "user", "content": text}] if text else turns


def rewind(_: Language, turns: list[ChatbotMessage]) -> list[ChatbotMessage]:
    """The conversation up to the person's last message, which is to be answered again."""
    asked = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    return turns[: asked[-1] + 1] if asked else turns


def stopped(_: Language, turns: list[ChatbotMessage]) -> list[ChatbotMessage]:
    """What was said so far stays."""
    return [turn for turn in turns if not _is_wordless(turn)]


def unanswered(language: Language, turns: list[ChatbotMessage]) -> list[ChatbotMessage]:
    """The person's message stays, with what to do; the toast said why."""
    message = {"role": "assistant", "content": UNANSWERED.in_(language), "metadata": {"id": LOST}}
    return [*(turn for turn in turns if not _is_wordless(turn)), message]


def cleared(_: Language) -> list[ChatbotMessage]:
    """An empty conversation."""
    return []


def conversation(turns: list[ChatbotMessage], system: str) -> list[ChatMessage]:
    """The turns in the order and shape that an engine takes, without the figures under the answers."""
    first: list[ChatMessage] = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return first + [{"role": turn["role"], "content": words_of(turn)} for turn in turns if not _is_wordless(turn)]


def words_of(turn: ChatbotMessage) -> str:
    """What was said in a turn: the first part of an answer is its words, the second its figures."""
    content = turn["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


def reply(text: str, chunk: ChatChunk, language: Language) -> ChatbotMessage:
    """An answer, with which model gave it, how fast, and what it was drawn from, once that is known."""
    if not chunk.done:
        return {"role": "assistant", "content": text} if text else pending(FIRST.in_(language))
    figures = [chunk.model]
    if chunk.tokens_per_second is not None:
        figures.append(f"{chunk.tokens_per_second:.1f} tok/s")
    if chunk.first_token_seconds is not None:
        figures.append(ANSWERED.in_(language).format(chunk.first_token_seconds))
    if chunk.look_ups > 1:
        figures.append(TWICE.in_(language))
    line = Markup('<small class="answered-by">{}</small>').format(" · ".join(figures))
    under = str(line + sources_under(chunk.sources, language))
    return {"role": "assistant", "content": [{"type": "text", "text": text}, {"type": "text", "text": under}]}


def _is_wordless(turn: ChatbotMessage) -> bool:
    return (turn.get("metadata") or {}).get("id") in (PENDING, LOST)
