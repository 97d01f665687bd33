"""Texts cut to pieces of a bounded size: nothing is lost, none is too long, sentences stay whole where they can."""

import pytest
from hypothesis import given
from hypothesis.strategies import integers, sampled_from, text

from sage_studio.data.chunking import (
    SNIPPET_TOKENS,
    Snippet,
    snippets_of,
    split_sentences,
    split_text,
    split_tokens,
    token_weight,
    utf8_size,
)
from sage_studio.data.rows import Example, Message, Origin, Passage, Retrieval

SIZES = {"bytes": utf8_size, "tokens": token_weight, "characters": len}


def without_spaces(value: str) -> str:
    return "".join(value.split())


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@given(text=text("ab. 。\n,é😀"), limit=integers(4, 40))
def test_no_piece_is_too_long_and_nothing_is_lost(size, text, limit):
    pieces = list(split_text(text, limit, size))
    assert all(0 < size(piece) <= limit for piece in pieces)
    assert without_spaces("".join(pieces)) == without_spaces(text)
    assert "".join(split_sentences(text, limit, size)) == text


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        ("One. Two.\n\nThree.", ["One. Two.", "Three."]),
        ("Short.\n\nToo.", ["Short.\n\nToo."]),
        ("三个字。四个字呢。", ["三个字。", "四个字呢。"]),
        ("abcdefghijklmnopqrst", ["abcdefghijkl", "mnopqrst"]),
        ("   \n\n ", []),
    ],
)
def test_paragraphs_stay_together_then_sentences_then_nothing(value, pieces):
    assert list(split_text(value, 12, len if value.isascii() else lambda text: 2 * len(text))) == pieces


def test_a_very_long_word_is_cut_in_linear_time():
    assert len(list(split_sentences("x" * 2_000_000, 1500, utf8_size))) == -(-2_000_000 // 1500)


@given(words=text(sampled_from("ab. "), min_size=1), size=integers(1, 12), overlap=sampled_from([0.0, 0.2, 0.5]))
def test_windows_of_tokens_reach_from_the_begin_to_the_end(words, size, overlap):
    spans = [(at, at + 1) for at, character in enumerate(words) if character != " "]
    windows = split_tokens(words, spans, size, overlap)
    assert all(len(without_spaces(window)) <= size for window in windows)
    assert not overlap or len(windows) <= max(1, 2 * len(spans))
    if not overlap:
        assert without_spaces("".join(windows)) == without_spaces(words)


def test_a_window_ends_with_a_sentence_that_ends_near_its_end():
    words = "aaaaaaaa. bbbbbbbb"
    spans = [(at, at + 1) for at, character in enumerate(words) if character != " "]
    assert split_tokens(words, spans, 10) == ["aaaaaaaa.", "bbbbbbbb"]
    assert split_tokens(words, spans, 9, overlap=0.4)[1].startswith("aa.")


def test_what_can_be_looked_up_of_rows():
    origin = Origin("a.md", heading=("A", "B"))
    rows = [
        Passage("Text.", origin),
        Passage("Text.", origin),
        Example((Message("user", "Why?"),), "So.", Origin("b.json")),
        Retrieval("Query", ("Right.",), ("Wrong.",), Origin("c.json")),
    ]
    assert list(snippets_of(rows)) == [
        Snippet("Text.", "a.md", "A › B"),
        Snippet("So.", "b.json", ""),
        Snippet("Right.", "c.json", ""),
        Snippet("Wrong.", "c.json", ""),
    ]
    assert Snippet("Text.", "a.md", "A › B").read == "A › B\nText."
    long = list(snippets_of([Passage("词语。" * 1000, origin)]))
    assert all(token_weight(snippet.text) <= SNIPPET_TOKENS for snippet in long)
