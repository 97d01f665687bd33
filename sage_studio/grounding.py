"""Answers from passages: looked up once, or twice with a first answer in between.

Twice is targeted query expansion, KBAlign's way of answering (arXiv 2411.14790): a first answer names what the question
only hints at, and so finds passages that the question alone does not. Knows the order of the steps and how passages get
into a conversation. Knows nothing of engines or of how passages are found: both are given.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain

from sage_studio.serving.types import ChatChunk, ChatMessage, Source
from sage_studio.text import Text

FIRST_PIECES = 128
"""So much of the first answer is looked up with, a token or little more a piece: small embedders read 256 tokens."""
LONGEST_QUERY = 4000
"""Characters that passages can be looked up with."""
GROUNDED = Text(
    "Answer the question from these passages. If they do not hold the answer, say so.\n\n{}\n\nQuestion: {}",
    "请根据以下资料回答问题。如果资料中没有答案，请直接说明。\n\n{}\n\n问题：{}",
)

Ask = Callable[[Sequence[ChatMessage]], Generator[ChatChunk, None, None]]
"""A conversation -> its answer; closing it ends it in the engine."""
LookUp = Callable[[str], Sequence[Source]]
"""Passages for a query, the best first."""


def answer_once(messages: Sequence[ChatMessage], ask: Ask, look_up: LookUp) -> Iterator[ChatChunk]:
    """Look up passages for the last question and answer from them; the last piece names them.

    Raises:
        what ``look_up`` and ``ask`` raise, before the first piece is taken.
    """
    found = look_up(question_of(messages))
    return _finished(ask(grounded(messages, found)), found, look_ups=1)


def answer_twice(messages: Sequence[ChatMessage], ask: Ask, look_up: LookUp) -> Iterator[ChatChunk]:
    """As `answer_once`, but the first answer is only looked up with, and the question is answered from what that finds.

    Where that finds the same passages the first answer stands and goes on. While it is still written, pieces without
    text come, so that whoever waits can leave: closing the iterator ends whichever answer is under way.

    Raises:
        what ``look_up`` and ``ask`` raise: for the first answer before the first piece is taken.
    """
    found = look_up(question_of(messages))
    return _anew(messages, found, ask(grounded(messages, found)), ask, look_up)


def question_of(messages: Sequence[ChatMessage]) -> str:
    """What is to be looked up: the last message."""
    return messages[-1]["content"] if messages else ""


def grounded(messages: Sequence[ChatMessage], sources: Sequence[Source]) -> list[ChatMessage]:
    """The conversation with passages put before its last question, in the question's language."""
    question = question_of(messages)
    passages = "\n\n".join(f"[{place}] {named(source)}\n{source.text}" for place, source in enumerate(sources, 1))
    chinese = any("\u4e00" <= character <= "\u9fff" for character in question)
    content = GROUNDED.in_("zh" if chinese else "en").format(passages, question)
    return [*messages[:-1], ChatMessage(role="user", content=content)]


def named(source: Source) -> str:
    """``file › heading``."""
    return " › ".join(part for part in (source.file, source.heading) if part)


def _anew(
    messages: Sequence[ChatMessage],
    found: Sequence[Source],
    first: Generator[ChatChunk, None, None],
    ask: Ask,
    look_up: LookUp,
) -> Iterator[ChatChunk]:
    began, read = time.monotonic(), list[ChatChunk]()
    with closing(first):
        for chunk in first:
            read.append(chunk)
            if chunk.done or len(read) == FIRST_PIECES:
                break
            yield ChatChunk("", chunk.model, look_ups=1)
        said = "".join(chunk.text for chunk in read).strip()
        query = f"{question_of(messages)}\n{said}"[:LONGEST_QUERY]
        again = look_up(query) if said else found
        waited = time.monotonic() - began
        if _passages(again) == _passages(found):
            stands = (replace(chunk, first_token_seconds=0.0) for chunk in chain(read, first))
            yield from _finished(stands, found, 2 if said else 1, waited)
            return
    yield from _finished(ask(grounded(messages, again)), again, 2, waited)


def _passages(sources: Sequence[Source]) -> set[tuple[str, str, str]]:
    """Without the score, which is another for another query."""
    return {(source.file, source.heading, source.text) for source in sources}


def _finished(
    chunks: Iterable[ChatChunk], sources: Sequence[Source], look_ups: int, waited: float = 0.0
) -> Iterator[ChatChunk]:
    """An answer whose last piece names what it was drawn from, and counts what it was waited for before."""
    for chunk in chunks:
        if not chunk.done:
            yield chunk
            continue
        seconds = None if chunk.first_token_seconds is None else waited + chunk.first_token_seconds
        yield replace(chunk, sources=tuple(sources), look_ups=look_ups, first_token_seconds=seconds)
