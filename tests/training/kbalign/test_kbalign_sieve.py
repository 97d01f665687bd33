"""Each pair is kept or left out for the right reason, and a text is quoted only where it can stand alone."""

import pytest

from sage_studio.training.methods.kbalign import filters, sieve
from sage_studio.training.methods.kbalign.filters import Pair
from sage_studio.training.methods.kbalign.quotes import quotes_of, sentences_of
from sage_studio.training.methods.kbalign.roundtrip import agreement
from sage_studio.training.methods.kbalign.sieve import Sieve, strangers

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
        (GOOD, "Bob Miller drew several plans during winter.", sieve.UNSUPPORTED),
    ],
)
def test_each_fault_is_named(question, answer, fault):
    made = Sieve(TEXT, least=0.5)
    found = made.pairs_of(f"Question: {question}\nAnswer: {answer}", whole=True)
    assert dict(made.left_out) == ({fault: 1} if fault else {})
    assert len(found) == (not fault)


def test_a_question_is_good_once_however_it_is_written():
    made = Sieve(TEXT, least=0.5)
    for question in (GOOD, GOOD.upper(), GOOD.replace("?", "？")):
        made.pairs_of(f"Question: {question}\nAnswer: Ada Lind.", whole=True)
    assert made.left_out == {sieve.REPEATED: 2}


def test_an_answer_that_was_cut_off_is_left_out():
    made = Sieve(TEXT, least=0.5)
    found = made.pairs_of(
        f"Question: {GOOD}\nAnswer: Ada Lind.\n\nQuestion: What bridge did Ada design?\nAnswer: The bri", whole=False
    )
    assert [pair.question for pair in found] == [GOOD]
    assert made.left_out == {sieve.CUT_OFF: 1}


def test_support_can_be_turned_off():
    made = Sieve(TEXT, least=0.0)
    assert made.is_good(Pair(question=GOOD, answer="Bob Miller drew 3 plans during winter."))


HARBOUR = (
    "# The harbour of Bex\n"
    "The harbour of Bex was dug in 1931. It has three piers. The longest pier is made of oak. "
    "Ships from Arn land there. The harbour master is Ada Lind. She came from Arn."
)


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("When was the harbour of Bex dug?", "It was dug in 1931.", ""),
        ("When was the harbour of Bex dug?", "It was dug in 1932.", sieve.INVENTED),
        ("Who is the harbour master?", "The harbour master is Ada Lund.", sieve.INVENTED),
        ("Who is the harbour master?", "Ada Lind.", ""),
        ("Who is the harbour master of Cos?", "Ada Lind.", sieve.INVENTED),
        ("Of what is the longest pier made?", "The harbour master is Ada Lind.", sieve.APART),
        ("Of what is the longest pier made?", "The longest pier is made of oak.", ""),
        ("Is the longest pier made of oak?", "The longest pier is made of oak.", sieve.NOTHING_NEW),
        ("Is the longest pier of Bex made of oak?", "Yes, the longest pier of Bex is made of oak.", ""),
    ],
)
def test_an_answer_rests_on_its_text_in_one_place(question, answer, fault):
    made = Sieve(HARBOUR, least=0.6)
    assert made.is_good(Pair(question=question, answer=answer)) == (not fault), made.left_out
    assert dict(made.left_out) == ({fault: 1} if fault else {})


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
    assert strangers(said, text) == found


def test_sentences_in_both_scripts():
    text = "It runs, e.g. on Linux. 它很快。真的！\n- a list\n\nVersion 3.11 is new! Is it? Yes."
    assert sentences_of(text) == [
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
    assert quotes_of(text) == quotes


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
    pair = Pair(question="Who designed the Lume bridge?", answer="The Lume bridge is a work of Ada Lind.")
    assert (agreement(pair, given) >= 0.5) == same
