"""Preference, retrieval and passage rows: every shape, and kinds that do not mix."""

import pytest

from sage_studio.data.formats import RecordReader
from sage_studio.data.rows import Message, Passage, Preference, Retrieval, row_from_json
from sage_studio.errors import InvalidDataset

ASK = Message("user", "Why?")
TURN = {"role": "user", "content": "Why?"}


def said(text):
    return {"role": "assistant", "content": text}


PREFERENCES = {
    "documented": {"query": "Why?", "chosen": {"text": "So."}, "rejected": {"text": "No."}},
    "trl": {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
    "trl, conversational": {"prompt": [TURN], "chosen": [said("So.")], "rejected": [said("No.")]},
    "trl, implicit prompt": {"chosen": [TURN, said("So.")], "rejected": [TURN, said("No.")]},
    "alpaca ranking": {"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."},
    "sharegpt ranking": {
        "conversations": [{"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "So."},
        "rejected": {"from": "gpt", "value": "No."},
    },
}


@pytest.mark.parametrize("record", PREFERENCES.values(), ids=PREFERENCES)
def test_a_preference_is_a_prompt_and_two_answers(record):
    row = RecordReader("x.json").read(record, row=3)
    assert isinstance(row, Preference)
    assert (row.prompt, row.chosen, row.rejected, row.origin.row) == ((ASK,), "So.", "No.", 3)
    assert row_from_json(row.to_json()) == row


@pytest.mark.parametrize("retrieved", ["Because rain.", ["Because", "rain."], [{"text": "Because"}, {"text": "rain."}]])
def test_what_was_retrieved_becomes_context(retrieved):
    record = {**PREFERENCES["documented"], "retrieval_result": retrieved}
    row = RecordReader("x.json").read(record, row=1)
    assert row.prompt[0].content.split() == ["Why?", "Because", "rain."]


@pytest.mark.parametrize(
    ("record", "right", "wrong"),
    [
        ({"query": "Why?", "pos": ["a", "b"], "neg": ["c"]}, ("a", "b"), ("c",)),
        ({"query": "Why?", "pos": "a"}, ("a",), ()),
        ({"anchor": "Why?", "positive": "a", "negative": "c"}, ("a",), ("c",)),
        ({"anchor": "Why?", "positive": "a", "negative_1": "c", "negative_2": "d"}, ("a",), ("c", "d")),
    ],
)
def test_a_retrieval_row_has_texts_or_lists(record, right, wrong):
    row = RecordReader("x.json").read(record, row=1)
    assert isinstance(row, Retrieval)
    assert (row.query, row.pos, row.neg) == ("Why?", right, wrong)
    assert row_from_json(row.to_json()) == row


@pytest.mark.parametrize("record", ["Rain falls.", {"text": "Rain falls."}])
def test_bare_text_is_a_passage(record):
    row = RecordReader("kb.json").read(record, row=1)
    assert isinstance(row, Passage)
    assert row.text == "Rain falls."
    assert row_from_json(row.to_json()) == row


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**PREFERENCES["trl"], "rejected": "So."}, "the same"),
        ({**PREFERENCES["trl"], "chosen": ""}, "empty answer"),
        ({**PREFERENCES["trl"], "prompt": " "}, "empty question"),
        ({**PREFERENCES["documented"], "query": "", "retrieval_result": "x"}, "empty question"),
        ({"query": "Why?", "pos": [""]}, "no passage"),
        ({"query": "", "pos": ["a"]}, "empty question"),
        ({"text": " "}, "empty text"),
        ({"text": "\ud800"}, "a broken character"),
    ],
)
def test_nothing_to_learn_is_left_out_and_counted(record, reason):
    reader = RecordReader("x.json")
    assert reader.read(record, row=7) is None
    assert reader.dropped[0].rows == ("7",)
    assert reason in reader.dropped[0].reason.en


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({**PREFERENCES["documented"], "chosen": {"score": 1}}, "chosen"),
        ({**PREFERENCES["documented"], "retrieval_result": 5}, "retrieval_result"),
        ({**PREFERENCES["trl"], "rejected": 4}, "rejected"),
        ({"chosen": [TURN, said("a")], "rejected": [said("b")]}, "same conversation"),
        ({"query": "Why?", "pos": [1]}, "pos"),
        ({"query": 5, "pos": ["a"]}, "query"),
    ],
)
def test_a_wrong_value_is_refused_by_row_and_key(record, named):
    with pytest.raises(InvalidDataset, match=r"Row 2: ") as refused:
        RecordReader("x.json").read(record, row=2)
    assert named in refused.value.message.en


def test_a_row_of_another_kind_is_refused():
    reader = RecordReader("x.json")
    reader.read({"text": "Rain"}, row=1)
    with pytest.raises(InvalidDataset, match=r"Row 2: .* prompt/chosen/rejected, that of row 1 is text") as refused:
        reader.read(PREFERENCES["trl"], row=2)
    assert refused.value.row == 2
