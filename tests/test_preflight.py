"""What is seen of a run before a task is made of it: the model's files, template, rows, the place for a copy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_folder import MODULES, write_model

from sage_studio.errors import InvalidDataset, InvalidModel, InvalidRecipe, StudioError
from sage_studio.hardware import Hardware
from sage_studio.settings import Settings
from sage_studio.studio import Studio
from sage_studio.training import truncation

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
CUT = 64
"""Tokens: the words above do not fit, a short question with its answer does."""
SHORT = {"instruction": "Why?", "output": "Because."}
LONG = {"instruction": WORDS, "output": "Because."}
PAIR = {"prompt": "Why?", "chosen": "Rain.", "rejected": "Snow."}
LONG_PAIR = {"prompt": WORDS, "chosen": "Rain.", "rejected": "Snow."}
LATE_PAIR = {"prompt": "Why?", "chosen": f"{WORDS} rain", "rejected": f"{WORDS} snow"}


@pytest.fixture
def studio(settings: Settings) -> Studio:
    """Its verbs, without a scheduler: a task that is made stays queued and is seen."""
    return Studio(settings)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def start(studio: Studio, model: Path, tmp_path: Path) -> Callable[..., Any]:
    def start(rows: list[Any], **values: Any) -> Any:
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        asked = {"model_name_or_path": str(model), "train_data_path": str(tmp_path / "rows.json"), **values}
        return studio.training.start(asked)

    return start


@pytest.fixture
def refused(studio: Studio, start: Callable[..., Any]) -> Callable[..., StudioError]:
    """What a run is refused with; no task is made, and no folder of one."""

    def refused(kind: type[StudioError], rows: list[Any] | None = None, **values: Any) -> StudioError:
        with pytest.raises(kind) as caught:
            start(rows or [SHORT], **values)
        assert all((*caught.value.message.pair(), *caught.value.hint.pair()))
        assert studio.tasks.list() == []
        assert not list(studio.settings.outputs_dir.glob("*"))
        return caught.value

    return refused


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)


INDEX, TEMPLATE = "model.safetensors.index.json", "chat_template.jinja"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut off": (lambda folder: cut(folder / "model.safetensors"), "model.safetensors is cut off"),
    "weights that are none": (lambda folder: write(folder, "model.safetensors", "{}"), "cut off or damaged"),
    "a part that is missing": (
        lambda folder: write(folder, INDEX, '{"weight_map": {"a": "part-2.safetensors"}}'),
        "part-2.safetensors are missing",
    ),
    "a list of parts that is none": (lambda folder: write(folder, INDEX, "[1"), "index.json cannot be read"),
    "a tokenizer cut off": (lambda folder: cut(folder / "tokenizer.json"), "The tokenizer of"),
    "no chat template": (lambda folder: (folder / TEMPLATE).unlink(), "no chat template"),
    "a template that is none": (lambda folder: write(folder, TEMPLATE, "{% if"), "The tokenizer of"),
}


@pytest.mark.parametrize("kind", ["sft", "dpo", "kbalign"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_model_that_cannot_be_used_is_refused(refused: Any, model: Path, broken: str, kind: str):
    damage, named = BROKEN[broken]
    damage(model)
    error = refused(InvalidModel, [PAIR] if kind == "dpo" else [SHORT], type=kind)
    assert named in error.message.en


@pytest.mark.parametrize("targets", ["q_proj,w_proj", "proj", ",", "model"])
def test_target_modules_that_the_model_does_not_have_are_refused(refused: Any, targets: str):
    error = refused(InvalidRecipe, lora_target_modules=targets)
    assert error.field == "lora_target_modules"
    assert "q_proj" in error.hint.en


@pytest.mark.parametrize("targets", ["all-linear", "q_proj, v_proj", *MODULES])
def test_target_modules_of_the_model_pass(start: Any, studio: Studio, targets: str):
    assert start([SHORT], lora_target_modules=targets).status == "queued"
    assert start([SHORT], lora_target_modules="nobody", use_lora=False).status == "queued"


@pytest.mark.parametrize(
    ("kind", "rows", "named"),
    [
        ("sft", [LONG, LONG], "In all 2 rows the prompt alone fills max_length = 64"),
        ("dpo", [LONG_PAIR], "In all 1 rows nothing that differs"),
        ("dpo", [LATE_PAIR, LONG_PAIR], "In all 2 rows nothing that differs"),
        ("embedding", [{"query": "same", "pos": [f"p{n}"]} for n in range(5)], "nothing to tell apart"),
    ],
)
def test_rows_with_nothing_to_learn_are_refused(refused: Any, model: Path, kind: str, rows: list[Any], named: str):
    if kind == "embedding":
        (model / "config.json").write_text('{"architectures": ["BertModel"]}')
        (model / "modules.json").write_text("[]")
    assert named in refused(InvalidDataset, rows, type=kind, max_length=CUT).message.en


def test_a_row_that_the_template_refuses_is_named(refused: Any, model: Path):
    (model / "chat_template.jinja").write_text(
        "{% if 'Bad' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    )
    assert refused(InvalidDataset, [SHORT, {**SHORT, "instruction": "Bad"}]).row == 2  # fmt: skip


def test_one_row_that_can_be_learned_is_enough_and_of_many_rows_not_all_are_read(start: Any, monkeypatch: Any):
    monkeypatch.setattr(truncation, "AT_ONCE", 2)
    monkeypatch.setattr(truncation, "MOST", 4)
    assert start([LONG, LONG, SHORT], max_length=CUT).status == "queued"
    assert start([LONG] * 4 + [SHORT], max_length=CUT).status == "queued", "only the trainer can say"
    with pytest.raises(InvalidDataset, match="all 3 rows"):
        start([LONG] * 4, max_length=CUT, max_samples=3)


def test_a_copy_that_has_no_place_is_refused(refused: Any, tmp_path: Path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    error = refused(InvalidRecipe, output_dir=str(tmp_path / "taken"))
    assert (error.field, "is not empty" in error.message.en) == ("output_dir", True)
    error = refused(InvalidRecipe, output_dir=str(tmp_path / "taken" / "file" / "below"))
    assert (error.field, "cannot be made" in error.message.en) == ("output_dir", True)


# What is said, and refused by nobody


@pytest.fixture
def remarks(studio: Studio, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What the estimate says besides; the child that finds out sizes answers at once."""
    from test_forecast import FOOTPRINT

    from sage_studio.training import memory

    monkeypatch.setattr(memory, "trace_in_child", lambda *_: FOOTPRINT)
    monkeypatch.setattr("sage_studio.services.estimates.detect_hardware", lambda: Hardware((), 64.0, 6.0, 2))

    def remarks(rows: list[Any], **values: Any) -> list[str]:
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        dataset = studio.datasets.upload(tmp_path / "rows.json")
        asked = {"model_name_or_path": str(model), "dataset_id": dataset.id, **values}
        return [remark.en for remark in studio.estimates.estimate(asked).remarks]

    return remarks


def test_rows_that_will_be_left_out_are_named_and_counted(remarks: Any):
    said = remarks([SHORT, LONG, SHORT, *[LONG] * 6], max_length=CUT)
    assert said == [
        "7 of 9 rows will be left out (row 2, 4, 5, 6, 7, …): max_length = 64 cuts off all there is to learn."
    ]
    assert remarks([SHORT, LONG], max_length=512) == []
    assert "row 2)" in remarks([PAIR, LONG_PAIR], type="dpo", max_length=CUT)[0]


def test_what_would_refuse_the_run_is_said(remarks: Any):
    assert "In all 2 rows" in remarks([LONG, LONG], max_length=CUT)[0]


def test_an_adapter_that_will_be_merged_is_said(remarks: Any):
    assert "(DoRA)" in remarks([SHORT], use_dora=True)[0]
    assert "rank 128 (limit 64)" in remarks([SHORT], lora_r=128)[0]
    assert remarks([SHORT], lora_r=64) == remarks([SHORT], use_lora=False) == []


def test_an_adapter_to_go_on_from_is_looked_at(remarks: Any, model: Path, tmp_path: Path):
    from safetensors.numpy import load_file, save_file

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": str(model), "modules_to_save": ["lm_head"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    save_file(load_file(model / "model.safetensors"), adapter / "adapter_model.safetensors")
    assert "modules_to_save" in remarks([SHORT], start_from=str(adapter))[0]
