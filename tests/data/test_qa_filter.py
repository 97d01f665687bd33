"""Pairs are parsed in whatever form a model wrote them; each is kept or rejected for the right reason."""

import pytest

from sage_studio.data.synthesis import qa_filter
from sage_studio.data.synthesis.qa_filter import (
    QAFilter,
    QAPair,
    agreement,
    count_words,
    parse_pairs,
    parse_questions,
    quotable_sentences,
    split_sentences,
    unsupported_entities,
)

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
    assert [(pair.question, pair.answer) for pair in parse_pairs(text)] == [("Who built it?", "Ada built it.")]


def test_pairs_in_chinese():
    text = "问题1：桥有多长？\n答案1：240 米。\n\n问：谁设计的？答：阿达。"
    assert [(pair.question, pair.answer) for pair in parse_pairs(text)] == [
        ("桥有多长？", "240 米。"),
        ("谁设计的？", "阿达。"),
    ]


def test_a_year_is_no_number_of_a_list():
    assert parse_pairs("Question: When was it?\nAnswer: 1931.")[0].answer == "1931."


def test_a_second_answer_belongs_to_no_question():
    pairs = parse_pairs("Question: Who? Answer: Ada. Answer: Bob. Question: Where? Answer: Here.")
    assert [(pair.question, pair.answer) for pair in pairs] == [("Who?", "Ada."), ("Where?", "Here.")]


def test_nothing_is_found_in_chatter():
    assert parse_pairs("Here is a text about vitamin A: it is healthy.") == []
    assert parse_questions("I cannot do that.") == []


def test_questions_of_a_list_in_both_widths():
    assert parse_questions("1. Why is it so?\n- 为什么？\nQuestion: How?\nNot a question.") == [
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


# Rejection

TEXT = "The bridge of Orvik was designed by Ada Lind. 奥维克的大桥由阿达设计。"
GOOD = "Who designed the bridge of Orvik?"


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        (GOOD, "Ada Lind designed it.", ""),
        ("Who designed the bridge of Orvik？", "Ada Lind designed it.", ""),
        ("奥维克的大桥是谁设计的？", "大桥由阿达设计。", ""),
        ("奥维克的大桥是谁设计的?", "大桥由阿达设计。", ""),
        ("Tell me who designed the bridge.", "Ada Lind designed it.", qa_filter.NO_MARK),
        ("奥维克的大桥是谁设计的。", "大桥由阿达设计。", qa_filter.NO_MARK),
        ("Who designed it?", "Ada Lind designed it.", qa_filter.WRONG_LENGTH),
        ("谁设计的？", "阿达设计。", qa_filter.WRONG_LENGTH),
        (f"Who {'really ' * 24}designed it?", "Ada Lind designed it.", qa_filter.WRONG_LENGTH),
        (f"{'大桥' * 26}？", "大桥由阿达设计。", qa_filter.WRONG_LENGTH),
        ("Who is named in the text as the designer?", "Ada Lind.", qa_filter.ABOUT_TEXT),
        ("文中提到的设计者是谁？", "阿达。", qa_filter.ABOUT_TEXT),
        (GOOD, " . ", qa_filter.EMPTY),
        (GOOD, "Ada Lind designed the bridge of Orvik. " * 11, qa_filter.TOO_LONG),
        ("奥维克的大桥是谁设计的？", "阿达设计" * 36, qa_filter.TOO_LONG),
        (GOOD, "This is not mentioned in the bridge of Orvik.", qa_filter.NOT_MENTIONED),
        ("奥维克的大桥是谁设计的？", "奥维克的大桥未提及。", qa_filter.NOT_MENTIONED),
        (GOOD, "Bob Miller drew several plans during winter.", qa_filter.UNSUPPORTED),
    ],
)
def test_each_fault_is_named(question, answer, fault):
    made = QAFilter(TEXT, min_support=0.5)
    found = made.parse(f"Question: {question}\nAnswer: {answer}", finished=True)
    assert dict(made.rejected) == ({fault: 1} if fault else {})
    assert len(found) == (not fault)


def test_a_question_is_good_once_however_it_is_written():
    made = QAFilter(TEXT, min_support=0.5)
    for question in (GOOD, GOOD.upper(), GOOD.replace("?", "？")):
        made.parse(f"Question: {question}\nAnswer: Ada Lind.", finished=True)
    assert made.rejected == {qa_filter.REPEATED: 2}


def test_an_answer_that_was_cut_off_is_left_out():
    made = QAFilter(TEXT, min_support=0.5)
    found = made.parse(
        f"Question: {GOOD}\nAnswer: Ada Lind.\n\nQuestion: What bridge did Ada design?\nAnswer: The bri", finished=False
    )
    assert [pair.question for pair in found] == [GOOD]
    assert made.rejected == {qa_filter.CUT_OFF: 1}


def test_support_can_be_turned_off():
    made = QAFilter(TEXT, min_support=0.0)
    assert made.accepts(QAPair(question=GOOD, answer="Bob Miller drew 3 plans during winter."))


HARBOUR = (
    "# The harbour of Bex\n"
    "The harbour of Bex was dug in 1931. It has three piers. The longest pier is made of oak. "
    "Ships from Arn land there. The harbour master is Ada Lind. She came from Arn."
)


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("When was the harbour of Bex dug?", "It was dug in 1931.", ""),
        ("When was the harbour of Bex dug?", "It was dug in 1932.", qa_filter.INVENTED),
        ("Who is the harbour master?", "The harbour master is Ada Lund.", qa_filter.INVENTED),
        ("Who is the harbour master?", "Ada Lind.", ""),
        ("Who is the harbour master of Cos?", "Ada Lind.", qa_filter.INVENTED),
        ("Of what is the longest pier made?", "The harbour master is Ada Lind.", qa_filter.APART),
        ("Of what is the longest pier made?", "The longest pier is made of oak.", ""),
        ("Is the longest pier made of oak?", "The longest pier is made of oak.", qa_filter.NOTHING_NEW),
        ("Is the longest pier of Bex made of oak?", "Yes, the longest pier of Bex is made of oak.", ""),
    ],
)
def test_an_answer_rests_on_its_text_in_one_place(question, answer, fault):
    made = QAFilter(HARBOUR, min_support=0.6)
    assert made.accepts(QAPair(question=question, answer=answer)) == (not fault), made.rejected
    assert dict(made.rejected) == ({fault: 1} if fault else {})


@pytest.mark.parametrize(
    ("said", "text", "found"),
    [
        ("In 1931 it was.", "Since 1931.", []),
        ("In 1931 it was.", "Since 19310.", ["1931"]),
        ("Version 3.12 runs.", "Version 3.11 runs.", ["12"]),
        ("Ask Ada Lind, or Bob.", "ada lind", ["Bob"]),
        ("Who? Nobody knows.", "", []),
        ("It is Orvik's.", "Orvik", []),
        ("桥长240米。", "桥长240米。", []),
        ("桥长250米。", "桥长240米。", ["250"]),
    ],
)
def test_numbers_and_names_that_the_text_does_not_hold_are_found(said, text, found):
    assert unsupported_entities(said, text) == found


def test_sentences_in_both_scripts():
    text = "It runs, e.g. on Linux. 它很快。真的！\n- a list\n\nVersion 3.11 is new! Is it? Yes."
    assert split_sentences(text) == [
        "It runs, e.g. on Linux.",
        "它很快。",
        "真的！",
        "- a list",
        "Version 3.11 is new!",
        "Is it?",
        "Yes.",
    ]


@pytest.mark.parametrize(
    ("text", "quotes"),
    [
        ("The bridge of Orvik is old.", ["The bridge of Orvik is old."]),
        ("the end of one that was cut. The bridge of Orvik is old.", ["The bridge of Orvik is old."]),
        ("The bridge of Orvik is old. It was opened", ["The bridge of Orvik is old."]),
        ("It was opened in 1931. They say so now.", []),
        ("Old is it. It was opened in 1931.", []),
        (
            "The bridge of Orvik is old. It was opened in 1931.",
            ["The bridge of Orvik is old.", "The bridge of Orvik is old. It was opened in 1931."],
        ),
        ("- The bridge of Orvik is old.\n| The bridge of Orvik | is old. |", []),
        ("1. The bridge of Orvik is old.", ["The bridge of Orvik is old."]),
        ("Run `make bridge` to open it now.", []),
        ("Is the bridge of Orvik old?", []),
        ("奥维克的大桥很古老。它于1931年通车。短。", ["奥维克的大桥很古老。", "奥维克的大桥很古老。它于1931年通车。"]),
        (f"The bridge {'very ' * 70}old.", []),
    ],
)
def test_only_what_stands_alone_is_quoted(text, quotes):
    assert quotable_sentences(text) == quotes


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("It was designed by Ada Lind.", True),
        ("Ada Lind.", True),
        ("The Lume bridge was opened in 1931.", False),
        ("The Lume bridge.", False),
        ("none", False),
        ("", False),
    ],
)
def test_another_answer_agrees_by_what_it_adds_to_the_question(given, same):
    pair = QAPair(question="Who designed the Lume bridge?", answer="The Lume bridge is a work of Ada Lind.")
    assert (agreement(pair, given) >= 0.5) == same


def test_operators_and_names_of_code_are_not_taken_for_bold_text():
    text = "**Question:** What does `2**10 - 2**3` give in __init__?\n**Answer:** It gives 1016, as **all** agree."
    assert [(pair.question, pair.answer) for pair in parse_pairs(text)] == [
        ("What does `2**10 - 2**3` give in __init__?", "It gives 1016, as all agree.")
    ]


def test_an_answer_that_evidence_follows_may_have_several_lines():
    (pair,) = parse_pairs("Q: What are the steps?\nA: There are two:\n\n1. open it\n2. close it\nE: two steps\n\nDone.")
    assert (pair.answer, pair.evidence) == ("There are two:\n1. open it\n2. close it", "two steps")
