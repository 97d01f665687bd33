"""Searching a dataset: what is found without decoding a line is what the texts themselves hold."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists, sampled_from

from sage_studio.data.rows import DataRow, Example, Message, Origin, Passage, Preference, Retrieval
from sage_studio.data.store import RowWriter, search_rows

PIECES = [
    "Rain",
    "rain",
    "\n",
    "n",
    "b",
    '"',
    "\\",
    "词",
    "语",
    "É",
    "role",
    "content",
    "user",
    ",",
    "{",
    "origin",
    "u0",
    "\x01",
]


def rows_of(pieces: list[str]) -> list[DataRow]:
    """The same text in rows of one kind, at several places."""
    text, origin = "".join(pieces) or "x", Origin("Rain.md", heading=("Hills", "词"))
    return [
        Example((Message("system", "s"), Message("user", text)), "y", origin),
        Example((Message("user", "q"),), text, origin),
        Example((Message("user", "q"),), "y", Origin("user.md", heading=(text,))),
    ]


def kept(rows: list[DataRow], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    with RowWriter(folder) as writer:
        for row in rows:
            writer.write(row)
    return folder


def found_in(rows: list[DataRow], words: str) -> list[int]:
    """By the texts alone."""
    shown = [(*row.texts, " › ".join((row.origin.file, *row.origin.heading))) for row in rows]
    return [at for at, texts in enumerate(shown) if any(words.casefold() in text.casefold() for text in texts)]


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(texts=lists(lists(sampled_from(PIECES), max_size=6), min_size=1, max_size=5), at=integers(0, 10**6))
def test_what_is_found_is_what_the_texts_hold(tmp_path_factory, texts, at):
    rows = [row for pieces in texts for row in rows_of(pieces)]
    pool = "".join(piece for pieces in texts for piece in pieces) + "Rain.md"
    begin = at % len(pool)
    words = pool[begin : begin + 1 + at % 4]
    folder = kept(rows, tmp_path_factory.mktemp("rows"))
    for asked in (words, words.upper(), words.lower()):
        assert list(search_rows(folder, asked)) == found_in(rows, asked), asked


@pytest.mark.parametrize("words", ["rain", "role", "pos", "text", "词", "rejected", "query", "assistant"])
def test_rows_of_other_kinds_are_searched_too(tmp_path, words):
    origin = Origin("a.md")
    kinds: list[list[DataRow]] = [
        [
            Preference((Message("user", "q"),), "rain", "词", origin),
            Preference((Message("user", words),), "a", "b", origin),
        ],
        [Retrieval("rain", ("p",), (), origin), Retrieval("q", (words,), ("n",), origin)],
        [Passage("rain 词", origin), Passage(words, origin), Passage("b", origin)],
    ]
    for number, rows in enumerate(kinds):
        assert list(search_rows(kept(rows, tmp_path / str(number)), words)) == found_in(rows, words)
