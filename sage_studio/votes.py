"""Which answers people preferred, without knowing whose they were.

Knows the table of votes and how to count them. Knows nothing of models beyond their names.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sage_studio.database import Database
from sage_studio.errors import InvalidInput
from sage_studio.text import Text

SCHEMA = """
CREATE TABLE IF NOT EXISTS votes (
  id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL, models TEXT NOT NULL, winner TEXT NOT NULL,
  created_at REAL NOT NULL);
"""


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


class VoteBook:
    """The votes of this home.

    Example:
        >>> from pathlib import Path
        >>> book = VoteBook(Database(Path("/tmp/votes-example.db")))
        >>> book.record("What is SAGE?", ["base", "tuned"], "tuned").winner
        'tuned'
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

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
                Text(
                    f"winner = {winner!r}: it is none of {list(models)}.",
                    f"winner = {winner!r}：不在 {list(models)} 中。",
                ),
                Text("Name two models or more, and one of them.", "请给出至少两个模型，并选择其中之一。"),
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


def tally(votes: Sequence[Vote]) -> list[Standing]:
    """How each model stands, the one with the largest share of wins first."""
    wins = Counter(vote.winner for vote in votes if vote.winner)
    ties = Counter(name for vote in votes if not vote.winner for name in vote.models)
    part = Counter(name for vote in votes for name in vote.models)
    standings = [Standing(name, wins[name], ties[name], count) for name, count in part.items()]
    return sorted(standings, key=lambda one: (-one.wins / one.comparisons, -one.comparisons, one.model))


def _vote(row: sqlite3.Row) -> Vote:
    return Vote(row["message"], tuple(json.loads(row["models"])), row["winner"], row["created_at"])
