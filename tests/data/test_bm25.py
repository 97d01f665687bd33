"""Which texts a query finds, in English and in Chinese."""

import pytest

from sage_studio.data.bm25 import BM25, words_of

TEXTS = [
    "The bridge of Orvik was designed by Ada Lind.",
    "Orvik has a cheese market. Cheese, cheese and more cheese.",
    "奥维克的大桥由阿达设计。",
    "奶酪市场每周三开放。",
    "",
]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("Don't stop: x_1!", ["don", "t", "stop", "x", "1"]),
        ("处理数据", ["处理", "理数", "数据"]),
        ("用", ["用"]),
        ("SAGE3框架v2", ["sage3", "框架", "v2"]),
        ("Überfall ΑΒ", ["überfall", "αβ"]),
    ],
)
def test_words(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("Who designed the bridge?", 0),
        ("Where is the cheese market?", 1),
        ("大桥是谁设计的？", 2),
        ("奶酪市场什么时候开放", 3),
    ],
)
def test_the_nearest_text_is_found(query, first):
    assert BM25(TEXTS).nearest(query, 3)[0] == first


def test_only_texts_that_share_a_word_are_found_and_at_most_as_many_as_asked():
    index = BM25(TEXTS)
    assert index.nearest("zebra", 5) == []
    assert sorted(index.nearest("Orvik", 5)) == [0, 1]
    assert len(index.nearest("Orvik", 1)) == 1
    assert BM25([]).nearest("Orvik", 5) == []


def test_a_rare_word_tells_more_than_a_common_one():
    texts = [*(f"common words number {at}" for at in range(20)), "rare words"]
    assert BM25(texts).nearest("common rare", 1) == [20]


def test_a_long_text_that_repeats_a_word_does_not_drown_the_others():
    assert BM25(["tower " * 50 + "filler " * 500, "the tower of Arn"]).nearest("tower of Arn", 1) == [1]
