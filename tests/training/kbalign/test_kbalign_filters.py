"""What a model wrote is found in whatever shape it has."""

import pytest

from sage_studio.training.methods.kbalign.filters import count_words, pairs_in, questions_in

SHAPES = [
    "Question: Who built it? Answer: Ada built it.",
    "Q: Who built it?\nA: Ada built it.",
    "Q1: Who built it?\nA1: Ada built it.",
    "1. Who built it?\nAnswer: Ada built it.",
    "1. **Who built it?**\n   Answer: Ada built it.",
    "**Question 1:** Who built it?\n**Answer 1:** Ada built it.\n\n---",
    "### Question 1: Who built it?\nAnswer: Ada built it.\n\nI hope this helps!",
    "question : Who built it?\nANSWER： Ada built it.",
]


@pytest.mark.parametrize("text", SHAPES)
def test_a_pair_is_found_in_any_usual_shape(text):
    assert [(pair.question, pair.answer) for pair in pairs_in(text)] == [("Who built it?", "Ada built it.")]


def test_pairs_in_chinese():
    text = "问题1：桥有多长？\n答案1：240 米。\n\n问：谁设计的？答：阿达。"
    assert [(pair.question, pair.answer) for pair in pairs_in(text)] == [
        ("桥有多长？", "240 米。"),
        ("谁设计的？", "阿达。"),
    ]


def test_a_year_is_no_number_of_a_list():
    assert pairs_in("Question: When was it?\nAnswer: 1931.")[0].answer == "1931."


def test_a_second_answer_belongs_to_no_question():
    pairs = pairs_in("Question: Who? Answer: Ada. Answer: Bob. Question: Where? Answer: Here.")
    assert [(pair.question, pair.answer) for pair in pairs] == [("Who?", "Ada."), ("Where?", "Here.")]


def test_nothing_is_found_in_chatter():
    assert pairs_in("Here is a text about vitamin A: it is healthy.") == []
    assert questions_in("I cannot do that.") == []


def test_questions_of_a_list_in_both_widths():
    assert questions_in("1. Why is it so?\n- 为什么？\nQuestion: How?\nNot a question.") == [
        "Why is it so?",
        "为什么？",
        "How?",
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("one two-part three's", 3), ("桥有多长？", 2), ("SAGE 的流水线做什么？", 5), ("version 3.11 runs", 3)],
)
def test_two_han_characters_count_as_a_word(text, count):
    assert count_words(text) == count
