"""The same message to several models at once, their answers side by side, and votes for one."""

import json
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from sage_studio.database import Database
from sage_studio.errors import InvalidInput, StudioError
from sage_studio.serving.types import ChatChunk
from sage_studio.text import Text

FEWEST, MOST = 2, 4

Ask = Callable[[str], Iterator[ChatChunk]]
"""A model's name -> its answer, chunk by chunk."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one model has said so far.

    Attributes:
        asked: the model that was asked.
        model: the identity that the server returned; empty before its first word.
        seconds: from asking to the newest chunk.
        error: why it says no more; None while all is well.
    """

    asked: str
    model: str = ""
    text: str = ""
    done: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_per_second: float | None = None
    first_token_seconds: float | None = None
    seconds: float = 0.0
    error: StudioError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.done or self.error is not None


@dataclass(frozen=True, slots=True)
class AnswerChunk:
    """A step forward in one column: the new characters, and the reply as it stands with them."""

    column: int
    text: str
    reply: Reply


def check_models(models: Sequence[str]) -> None:
    """Raise `InvalidInput` unless two to four different models are named."""
    if not FEWEST <= len(models) <= MOST:
        raise InvalidInput(
            Text("{count} models cannot be compared.", count=len(models)),
            Text("Name {fewest} to {most}.", fewest=FEWEST, most=MOST),
        )
    twice = [name for place, name in enumerate(models) if name in models[:place]]
    if twice:
        raise InvalidInput(
            Text("{twice} is named twice.", twice=twice[0]),
            Text("Name each model once."),
        )


def compare(ask: Ask, models: Sequence[str]) -> Iterator[AnswerChunk]:
    """Ask all models at once. Closing the iterator ends every answer at its next chunk.

    Args:
        ask: called once for each model, each call in a thread of its own.
        models: see `check_models`.

    Yields:
        chunks of any column as they come; the last one of a column has a reply that ``is_over``.
    """
    chunks: queue.SimpleQueue[AnswerChunk | None] = queue.SimpleQueue()
    over = threading.Event()
    threads = ThreadPoolExecutor(len(models), thread_name_prefix="compare")
    asked = [threads.submit(_answer, ask, name, column, chunks, over) for column, name in enumerate(models)]
    try:
        yield from _until_all_end(chunks, asked)
    finally:
        over.set()
        threads.shutdown(wait=False)  # a slow engine must not hold up whoever closes this


def _until_all_end(
    chunks: "queue.SimpleQueue[AnswerChunk | None]", asked: "Sequence[Future[None]]"
) -> Iterator[AnswerChunk]:
    ended = 0
    while ended < len(asked):
        chunk = chunks.get()
        if chunk is None:
            ended += 1
        else:
            yield chunk
    for future in asked:
        future.result()


def _answer(
    ask: Ask, name: str, column: int, chunks: "queue.SimpleQueue[AnswerChunk | None]", over: threading.Event
) -> None:
    begun = time.monotonic()
    reply = Reply(name)
    try:
        for chunk in ask(name):
            if over.is_set():
                break
            reply = _grown(reply, chunk, time.monotonic() - begun)
            chunks.put(AnswerChunk(column, chunk.text, reply))
    except StudioError as error:
        chunks.put(AnswerChunk(column, "", replace(reply, error=error, seconds=time.monotonic() - begun)))
    finally:
        chunks.put(None)


def _grown(reply: Reply, chunk: ChatChunk, seconds: float) -> Reply:
    return replace(
        reply,
        model=chunk.model,
        text=reply.text + chunk.text,
        done=chunk.done,
        prompt_tokens=chunk.prompt_tokens,
        completion_tokens=chunk.completion_tokens,
        tokens_per_second=chunk.tokens_per_second,
        first_token_seconds=chunk.first_token_seconds,
        seconds=seconds,
    )


# Votes


@dataclass(frozen=True, slots=True)
class Vote:
    """One choice. ``winner`` is one of ``models``, or empty when none was better; the time is in Unix seconds."""

    message: str
    models: tuple[str, ...]
    winner: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How often a model was preferred, of so many comparisons that it was part of."""

    model: str
    wins: int
    ties: int
    comparisons: int


class VoteStore:
    """The votes of this home.

    Example:
        >>> from pathlib import Path
        >>> book = VoteStore(Database(Path("/tmp/votes-example.db")))
        >>> book.record("What is SAGE?", ["base", "tuned"], "tuned").winner
        'tuned'
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, message: str, models: Sequence[str], winner: str) -> Vote:
        """Keep a vote.

        Args:
            message: what was asked.
            models: those that answered.
            winner: one of them; empty when none was better.

        Raises:
            InvalidInput: the winner did not answer, or fewer than two did.
        """
        if len(models) < 2 or (winner and winner not in models):
            raise InvalidInput(
                Text("winner = {winner!r}: it is none of {models}.", winner=winner, models=list(models)),
                Text("Name two models or more, and one of them."),
            )
        vote = Vote(message, tuple(models), winner, time.time())
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT INTO votes (message, models, winner, created_at) VALUES (?,?,?,?)",
                (message, json.dumps(models), winner, vote.created_at),
            )
        return vote

    def all(self) -> list[Vote]:
        """Every vote, newest first."""
        return [_vote(row) for row in self._database.rows("SELECT * FROM votes ORDER BY id DESC")]


def standings(votes: Sequence[Vote]) -> list[Standing]:
    """How each model stands, the one with the largest share of wins first."""
    wins = Counter(vote.winner for vote in votes if vote.winner)
    ties = Counter(name for vote in votes if not vote.winner for name in vote.models)
    part = Counter(name for vote in votes for name in vote.models)
    ranked = [Standing(name, wins[name], ties[name], count) for name, count in part.items()]
    return sorted(ranked, key=lambda one: (-one.wins / one.comparisons, -one.comparisons, one.model))


def _vote(row: sqlite3.Row) -> Vote:
    return Vote(row["message"], tuple(json.loads(row["models"])), row["winner"], row["created_at"])
