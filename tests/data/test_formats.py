"""Every format's shape, and every wrong shape refused by its row."""

import pytest

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.dataset import FormatCount
from sage_studio.data.formats import IgnoredColumns, RecordReader, detect_format
from sage_studio.data.rows import Message, row_from_json
from sage_studio.errors import InvalidDataset

SYSTEM = Message("system", "Be brief.")
ASK = Message("user", "Hi?")
TOOL_CALL, TOOL = "a tool call, which cannot be trained on yet", {"role": "tool", "content": "a"}
USABLE = {
    "alpaca": ({"instruction": "Hi?", "input": "", "output": "Yes."}, (ASK,)),
    "alpaca without input": ({"instruction": "Hi?", "output": "Yes."}, (ASK,)),
    "alpaca with null input": ({"instruction": "Hi?", "input": None, "output": "Yes."}, (ASK,)),
    "alpaca with input": ({"instruction": "Say", "input": "Hi?", "output": "Yes."}, (Message("user", "Say\nHi?"),)),
    "alpaca with only input": ({"instruction": "", "input": "Hi?", "output": "Yes."}, (ASK,)),
    "alpaca with system": ({"instruction": "Hi?", "output": "Yes.", "system": "Be brief."}, (SYSTEM, ASK)),
    "alpaca with history": (
        {"instruction": "Hi?", "output": "Yes.", "history": [["a", "b"]]},
        (Message("user", "a"), Message("assistant", "b"), ASK),
    ),
    "alpaca with more keys": ({"instruction": "Hi?", "output": "Yes.", "id": 7, "origin": {"file": "x"}}, (ASK,)),
    "prompt, completion": ({"prompt": "Hi?", "completion": "Yes."}, (ASK,)),
    "conversational prompt, completion": (
        {"prompt": [{"role": "user", "content": "Hi?"}], "completion": [{"role": "assistant", "content": "Yes."}]},
        (ASK,),
    ),
    "question, answer": ({"question": "Hi?", "answer": "Yes."}, (ASK,)),
    "messages": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi?"},
                {"role": "assistant", "content": "Yes."},
            ]
        },
        (SYSTEM, ASK),
    ),
    "messages with text parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi?"}]},
                {"role": "assistant", "content": "Yes."},
            ]
        },
        (ASK,),
    ),
    "messages whose last answer is barred": (
        {
            "messages": [
                {"role": "User", "content": "Hi?"},
                {"role": "Assistant", "content": "Yes.", "weight": 1},
                {"role": "user", "content": "And?"},
                {"role": "assistant", "content": "No.", "weight": 0},
            ]
        },
        (ASK,),
    ),
    "a label that is no judgement": ({"question": "Hi?", "answer": "Yes.", "label": "greeting"}, (ASK,)),
    "sharegpt": (
        {"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]},
        (SYSTEM, ASK),
    ),
    "a question left open at the end": (
        {
            "conversations": [
                {"role": "user", "content": "Hi?"},
                {"role": "gpt", "content": "Yes."},
                {"from": "human", "value": "And?"},
            ]
        },
        (ASK,),
    ),
}
REFUSED = {
    "no object": (["a"], "a list, not an object"),
    "no keys": ({}, "no known format"),
    "wrong keys": ({"sentence": "a", "label": 1}, "label, sentence"),
    "half of a format": ({"instruction": "a"}, "(instruction)"),
    "a number as answer": ({"instruction": "a", "output": 42}, "output must be text, not a number: 42"),
    "a list as input": ({"instruction": "a", "input": [], "output": "b"}, "input must be text"),
    "history of strings": ({"instruction": "a", "output": "b", "history": ["c"]}, "history must be a list"),
    "history is text": ({"instruction": "a", "output": "b", "history": "c"}, "history must be a list"),
    "messages is text": ({"messages": "hello"}, "messages must be a list"),
    "a turn is text": ({"messages": ["hello"]}, "a turn of messages is text"),
    "an unknown role": ({"messages": [{"role": "judge", "content": "a"}]}, "role 'judge'"),
    "a list as role": ({"messages": [{"role": ["user"], "content": "a"}]}, "role ['user']"),
    "a part that is a number": (
        {"messages": [{"role": "user", "content": [5]}]},
        "messages must be text, not a number",
    ),
    "a judgement that is none": ({"prompt": "a", "completion": "b", "label": "good"}, "label must be true or false"),
}
DROPPED = {
    "empty answer": ({"instruction": "a", "output": " \n"}, "empty answer"),
    "null answer": ({"instruction": "a", "output": None}, "empty answer"),
    "empty question": ({"instruction": " ", "input": "", "output": "a"}, "empty question"),
    "no answer at all": ({"messages": [{"role": "user", "content": "a"}]}, "empty answer"),
    "no turns": ({"messages": []}, "empty answer"),
    "an answer first": ({"messages": [{"role": "assistant", "content": "a"}]}, "no question before the answer"),
    "a tool call": ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, TOOL_CALL),
    "a function call": ({"messages": [{"role": "assistant", "content": "", "function_call": {}}, TOOL]}, TOOL_CALL),
    "a tool's turn": ({"conversations": [{"from": "Observation", "value": "a"}]}, TOOL_CALL),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "an image, audio or file in the conversation",
    ),
    "a barred answer": (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
        "every answer has weight 0",
    ),
    "a bad answer": ({"messages": [], "label": False}, "marked as a bad answer"),
    "a broken character": (
        {"instruction": "a", "output": "\ud83d"},
        "a broken character (lone surrogate), or bytes that are not UTF-8",
    ),
}


@pytest.mark.parametrize("name", USABLE)
def test_a_usable_record_becomes_an_example(name):
    record, prompt = USABLE[name]
    example = RecordReader("rows.json").read(record, 3)
    assert example is not None
    assert (example.prompt, example.completion) == (prompt, "Yes.")
    assert (example.origin.file, example.origin.row) == ("rows.json", 3)
    assert row_from_json(example.to_json()) == example


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_record_is_refused_by_its_row(name):
    record, words = REFUSED[name]
    with pytest.raises(InvalidDataset) as caught:
        RecordReader("rows.json").read(record, 7)
    assert caught.value.row == 7
    assert caught.value.message.en.startswith("Row 7: ")
    assert words in caught.value.message.en
    assert caught.value.message.zh.startswith("第 7 行")
    assert caught.value.hint.en
    assert caught.value.hint.zh


@pytest.mark.parametrize("name", DROPPED)
def test_a_record_with_nothing_to_learn_is_dropped_and_counted(name):
    record, reason = DROPPED[name]
    reader = RecordReader("rows.json")
    assert reader.read(record, 2) is None
    assert reader.read(record, 5) is None
    (dropped,) = reader.dropped
    assert (dropped.reason.en, dropped.count, dropped.rows) == (reason, 2, ("2", "5"))


def test_a_mapped_label_must_be_a_judgement():
    columns = {"messages": "chat", "label": "verdict"}
    reader = RecordReader("rows.json", ColumnMapping(format="messages/label", columns=columns))
    with pytest.raises(InvalidDataset, match="label must be true or false"):
        reader.read({"chat": [{"role": "user", "content": "a"}], "verdict": "good"}, 1)


def test_columns_of_which_nothing_is_made_are_named():
    ignored = IgnoredColumns()
    ignored.add({"conversations": [], "tools": "[]", "meta": None, "system": "Be brief."})
    ignored.add({"conversations": [], "tools": '[{"name": "weather"}]', "id": 1})
    ignored.add({"anchor": "a", "positive": "b", "negative_1": "c", "negative_x": "d"})
    ignored.add({"of no format": 1})
    counts = (FormatCount("ShareGPT", ("conversations",), 2), FormatCount("anchor/positive", ("anchor",), 1))
    assert [each.unread for each in ignored.annotate(counts)] == [("tools", "id"), ("negative_x",)]


def test_formats_are_told_by_all_keys_not_by_their_order():
    found = detect_format(frozenset({"output", "messages", "instruction"}))
    assert found is not None
    assert found.name == "Alpaca"
    assert detect_format(frozenset({"sentence"})) is None
