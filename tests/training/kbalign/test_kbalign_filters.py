"""What a model wrote: found in whatever shape it has, and kept or left out for the right reason."""

import pytest

from sage_studio.training.methods.kbalign import filters
from sage_studio.training.methods.kbalign.filters import Sieve, count_words, pairs_in, questions_in

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


TEXT = "The bridge of Orvik was designed by Ada Lind. 奥维克的大桥由阿达设计。"
GOOD = "Who designed the bridge of Orvik?"


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        (GOOD, "Ada Lind designed it.", ""),
        ("Who designed the bridge of Orvik？", "Ada Lind designed it.", ""),
        ("奥维克的大桥是谁设计的？", "大桥由阿达设计。", ""),
        ("奥维克的大桥是谁设计的?", "大桥由阿达设计。", ""),
        ("Tell me who designed the bridge.", "Ada Lind designed it.", filters.NO_MARK),
        ("奥维克的大桥是谁设计的。", "大桥由阿达设计。", filters.NO_MARK),
        ("Who designed it?", "Ada Lind designed it.", filters.WRONG_LENGTH),
        ("谁设计的？", "阿达设计。", filters.WRONG_LENGTH),
        (f"Who {'really ' * 24}designed it?", "Ada Lind designed it.", filters.WRONG_LENGTH),
        (f"{'大桥' * 26}？", "大桥由阿达设计。", filters.WRONG_LENGTH),
        ("Who is named in the text as the designer?", "Ada Lind.", filters.ABOUT_TEXT),
        ("文中提到的设计者是谁？", "阿达。", filters.ABOUT_TEXT),
        (GOOD, " . ", filters.EMPTY),
        (GOOD, "Ada Lind designed the bridge of Orvik. " * 11, filters.TOO_LONG),
        ("奥维克的大桥是谁设计的？", "阿达设计" * 36, filters.TOO_LONG),
        (GOOD, "This is not mentioned in the bridge of Orvik.", filters.NOT_MENTIONED),
        ("奥维克的大桥是谁设计的？", "奥维克的大桥未提及。", filters.NOT_MENTIONED),
        (GOOD, "Bob Miller drew several plans during winter.", filters.UNSUPPORTED),
    ],
)
def test_each_fault_is_named(question, answer, fault):
    sieve = Sieve(TEXT, least=0.5)
    sieve.add(f"Question: {question}\nAnswer: {answer}", whole=True)
    assert dict(sieve.left_out) == ({fault: 1} if fault else {})
    assert len(sieve.pairs) == (not fault)


def test_a_question_is_kept_once_however_it_is_written():
    sieve = Sieve(TEXT, least=0.5)
    for question in (GOOD, GOOD.upper(), GOOD.replace("?", "？")):
        sieve.add(f"Question: {question}\nAnswer: Ada Lind.", whole=True)
    assert len(sieve.pairs) == 1
    assert sieve.left_out == {filters.REPEATED: 2}


def test_an_answer_that_was_cut_off_is_left_out():
    sieve = Sieve(TEXT, least=0.5)
    sieve.add(
        f"Question: {GOOD}\nAnswer: Ada Lind.\n\nQuestion: What bridge did Ada design?\nAnswer: The bri", whole=False
    )
    assert [pair.question for pair in sieve.pairs] == [GOOD]
    assert sieve.left_out == {filters.CUT_OFF: 1}


def test_support_can_be_turned_off():
    sieve = Sieve(TEXT, least=0.0)
    sieve.add(f"Question: {GOOD}\nAnswer: Bob Miller drew several plans during winter.", whole=True)
    assert len(sieve.pairs) == 1
