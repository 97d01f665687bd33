"""Reads rows as queries with positive and negative passages; splits off a test set.

Equal queries are merged first, so that no held-out query is trained on.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_studio.data.rows import DataRow, Example, Retrieval, row_from_json
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text
from sage_studio.training.tokenize import invalid_line, read_lines

MOST_HELD_OUT = 500


@dataclass(frozen=True, slots=True)
class Query:
    """A query, the passages that answer it, at least one, and passages that do not."""

    text: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetrievalTestSet:
    """Held-out queries and the passages that they are looked up in.

    Attributes:
        queries: the text of each, by its id.
        corpus: the text of each passage, by its id.
        relevant: by query id, the ids of the passages that answer it.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, set[str]]


def read_queries(path: Path, limit: int = 0) -> list[Query]:
    """The rows of ``data.jsonl`` as queries, the first ``limit`` of them unless it is 0; equal queries become one.

    Raises:
        InvalidDataset: the file is missing or empty, a line is no such row (the text names it), or all rows have the
            same query or the same passage, so that nothing can be told apart.
    """
    merged: dict[str, Query] = {}
    for number, values in read_lines(path, limit):
        try:
            query = _query(row_from_json(values))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise invalid_line(number, error) from error
        before = merged.get(query.text)
        merged[query.text] = query if before is None else _joined(before, query)
    queries = list(merged.values())
    if len(queries) < 2 or len({passage for query in queries for passage in query.right}) < 2:
        raise InvalidDataset(
            Text("All rows have the same query or the same passage: there is nothing to tell apart."),
            Text("Add rows with other queries and passages."),
        )
    return queries


def split(queries: Sequence[Query], share: float, seed: int) -> tuple[list[Query], list[Query]]:
    """Queries to train on, at least two, and queries to measure by, at least one and at most `MOST_HELD_OUT`.

    The same seed splits the same way.
    """
    count = max(1, min(round(share * len(queries)), MOST_HELD_OUT, len(queries) - 2))
    held = set(random.Random(seed).sample(range(len(queries)), count))
    kept = [query for place, query in enumerate(queries) if place not in held]
    return kept, [queries[place] for place in sorted(held)]


def build_test_set(held: Sequence[Query], trained: Sequence[Query], most_passages: int, seed: int) -> RetrievalTestSet:
    """What is measured: the held-out queries against their passages and others, ``most_passages`` in all or a few more.

    Every passage that answers a held-out query is among them, and its hard negatives are; the others are drawn.
    """
    own = dict.fromkeys(text for query in held for text in (*query.right, *query.wrong))
    others = sorted({text for query in trained for text in (*query.right, *query.wrong)} - own.keys())
    random.Random(seed).shuffle(others)
    texts = [*own, *others[: max(0, most_passages - len(own))]]
    ids = {text: f"p{number}" for number, text in enumerate(texts)}
    return RetrievalTestSet(
        queries={f"q{number}": query.text for number, query in enumerate(held)},
        corpus={name: text for text, name in ids.items()},
        relevant={f"q{number}": {ids[text] for text in query.right} for number, query in enumerate(held)},
    )


def columns_of(queries: Sequence[Query], hard_negatives: int, seed: int) -> dict[str, list[str]]:
    """One row for each query and each passage that answers it: columns ``query``, ``pos`` and ``neg1``, ``neg2``, ….

    There are as many ``neg`` columns as the row with the most wrong passages has, at most ``hard_negatives``. What a
    row lacks is filled with passages of other queries.
    """
    count = min(hard_negatives, max(len(query.wrong) for query in queries))
    passages = sorted({text for query in queries for text in query.right})
    draw = random.Random(seed)
    columns: dict[str, list[str]] = {name: [] for name in ("query", "pos", *(f"neg{n}" for n in range(1, count + 1)))}
    for query in queries:
        for right in query.right:
            wrong = list(draw.sample(query.wrong, min(count, len(query.wrong))))
            wrong += _others(passages, {*query.right, *wrong}, count - len(wrong), draw)
            for column, text in zip(columns.values(), (query.text, right, *wrong), strict=True):
                column.append(text)
    return columns


def _query(row: DataRow) -> Query:
    if isinstance(row, Retrieval):
        return _checked(_joined(Query(row.query, row.pos, row.neg)))
    if isinstance(row, Example):
        asked = [message.content for message in row.prompt if message.role == "user"]
        return _checked(Query(asked[-1], (row.completion,), ()))
    raise TypeError(f"{row.kind} rows have no query")


def _checked(query: Query) -> Query:
    for text in (query.text, *query.right, *query.wrong):
        if not isinstance(text, str) or not text.strip():
            raise ValueError("query and passages must be texts that are not empty")
    if not query.right:
        raise ValueError("pos must not be empty")
    return query


def _joined(*same: Query) -> Query:
    """Equal queries as one: each passage once, and right wins over wrong."""
    right = tuple(dict.fromkeys(text for query in same for text in query.right))
    wrong = tuple(text for text in dict.fromkeys(text for query in same for text in query.wrong) if text not in right)
    return Query(same[0].text, right, wrong)


def _others(passages: Sequence[str], taken: set[str], count: int, draw: random.Random) -> list[str]:
    """Passages that are not taken; where there are too few, some come twice."""
    if count <= 0:
        return []
    found = [text for text in draw.sample(passages, min(len(passages), count + len(taken))) if text not in taken]
    found = found or [text for text in passages if text not in taken] or list(passages)
    return [found[place % len(found)] for place in range(count)]
