"""The question which column is which: asked for a file of no known format, answered, and offered again."""

import gradio as gr
import pytest

from sage_studio.data.column_mapping import ColumnMapping, guess_mapping
from sage_studio.studio import Studio
from sage_studio.ui.components.localization import LabelRegistry
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.datasets.dataset_report import read_as
from sage_studio.ui.datasets.intake_panel import IntakePanel, shown
from sage_studio.ui.datasets.mapping_panel import KEYS, keys_of

CSV = "甲,乙\n为什么？,因为下雨。\n"


@pytest.fixture
def panel(settings):
    with gr.Blocks() as page:
        tabs, timer = gr.Tabs(), gr.Timer(active=False)
        frame = PageContext(
            Studio(settings),
            LabelRegistry(),
            tabs,
            timer,
            page,
            gr.State(""),
            gr.State(""),
            gr.State(0),
            gr.State(None),
        )
        panel = IntakePanel(frame)
    page.close()
    return panel


def test_a_file_of_unknown_columns_is_asked_about_and_then_kept(panel, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(CSV, encoding="utf-8")
    _, _, asked_path, columns, box, sample, known, *keys = panel.add_file("zh", str(path), "questions")
    assert (asked_path, columns, box["visible"], known) == (str(path), ["甲", "乙"], True, "Alpaca")
    assert "因为下雨。" in sample
    assert [key["label"] for key in keys if key["visible"]] == [
        "instruction *",
        "output *",
        "input",
        "system",
        "history",
    ]

    answered = ["甲", "乙", *["—"] * (KEYS - 2)]
    dataset_id, _, _, _, box, *_ = panel.add_mapped("zh", asked_path, "Alpaca", *answered)
    assert box["visible"] is False
    (row,) = panel.studio.datasets.preview(dataset_id).rows
    assert (row.asked, row.answer) == ("为什么？", "因为下雨。")

    *_, known, first, second, third = panel.add_file("zh", str(path), "questions")[: 7 + 3]
    assert (known, first["value"], second["value"], third["value"]) == ("Alpaca", "甲", "乙", "—")


def test_columns_that_say_what_they_are_are_filled_in(panel, tmp_path):
    path = tmp_path / "dolly.jsonl"
    path.write_text('{"Instruction": "Why?", "context": "Rain.", "response": "So."}\n', encoding="utf-8")
    *_, sample, known, output, answer, given = panel.add_file("en", str(path), "questions")[: 7 + 3]
    assert "please check" in sample
    assert (known, output["value"], answer["value"], given["value"]) == (
        "Alpaca",
        "Instruction",
        "response",
        "context",
    )


@pytest.mark.parametrize(
    ("columns", "known", "found"),
    [
        (["Question", "ANSWER "], "question/answer", {"question": "Question", "answer": "ANSWER "}),
        (["问题", "答案", "来源"], "question/answer", {"question": "问题", "answer": "答案"}),
        (["prompt", "response"], "prompt/completion", {"prompt": "prompt", "completion": "response"}),
        (["id", "content"], "text", {"text": "content"}),
        (["prompt", "better", "worse"], "prompt/chosen/rejected", {"prompt": "prompt", "chosen": "better"}),
        (["sentence1", "sentence2"], None, {}),
    ],
)
def test_what_columns_seem_to_be(columns, known, found):
    mapping = guess_mapping(columns)
    assert (mapping.format if mapping else None) == known
    assert found.items() <= (mapping.columns if mapping else {}).items()


def test_a_column_of_the_keys_own_name_is_chosen_already():
    keys = keys_of("en", "query/pos/neg", ["query", "positive passages", "neg"])
    assert [key["value"] for key in keys[:3]] == ["query", "—", "neg"]
    assert not any(key["visible"] for key in keys[3:])


def test_the_answer_leaves_out_what_was_not_named(panel):
    said = panel.mapping.chosen("Alpaca", ["q", "a", "—", "", None])
    assert said == ColumnMapping(format="Alpaca", columns={"instruction": "q", "output": "a"})


@pytest.mark.parametrize(("source", "seen"), [("upload", 0), ("repository", 1), ("hub", 2), ("docs", None)])
def test_one_way_is_seen_at_a_time(source, seen):
    assert [box["visible"] for box in shown(source)] == [seen == number for number in range(3)]


def test_the_format_why_and_the_methods_are_shown(panel, tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text('{"question": "Why?", "answer": "So.", "context": "Rain."}\n', encoding="utf-8")
    dataset_id, *_ = panel.add_file("en", str(path), "questions")
    shown = read_as(panel.studio.datasets.get(dataset_id), "en")
    for said in ("JSON", "question/answer (told by question, answer) × 1", "not read: context", "trains: SFT"):
        assert said in shown
