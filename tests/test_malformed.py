"""Recipes and data files that are no good, per method: each is refused by field or row, and no task is made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_studio.errors import InvalidDataset, InvalidRecipe, StudioError
from sage_studio.settings import Settings
from sage_studio.studio import Studio
from sage_studio.training.recipes import RECIPES

SHARED: list[tuple[str, Any]] = [
    ("name", "x" * 81),
    ("model_name_or_path", None),
    ("model_name_or_path", ["a", "b"]),
    ("num_train_epochs", 0),
    ("num_train_epochs", "three"),
    ("num_train_epochs", float("inf")),
    ("per_device_train_batch_size", 0),
    ("per_device_train_batch_size", 2.5),
    ("learning_rate", -1e-4),
    ("learning_rate", "fast"),
    ("learning_rate", float("nan")),
    ("max_length", 8),
    ("max_steps", -1),
    ("max_samples", -5),
    ("gradient_accumulation_steps", 0),
    ("warmup_ratio", 1),
    ("lr_scheduler_type", "staircase"),
    ("optimizer", "sgd"),
    ("weight_decay", 2),
    ("max_grad_norm", 0),
    ("logging_steps", 0),
    ("save_steps", 0),
    ("save_total_limit", 0),
    ("precision", "int4"),
    ("gpu_vis", "first"),
    ("seed", -1),
    ("learning_rat", 1e-4),
    ("config_file", "/no/such.yaml"),
]
GENERATIVE: list[tuple[str, Any]] = [
    ("use_lora", "perhaps"),
    ("lora_r", 0),
    ("lora_alpha", 0),
    ("lora_dropout", 1.5),
    ("lora_target_modules", ""),
    ("quantization", "2bit"),
    ("use_dora", "very"),
    ("use_rslora", 3),
    ("eval_share", 0.6),
    ("eval_steps", -1),
    ("load_best_model", "best"),
    ("early_stopping_patience", -1),
    ("start_from", "finetune-1"),
    ("start_from", "../elsewhere"),
    ("start_from", "/no/such/folder"),
]
DPO: list[tuple[str, Any]] = [
    ("beta", 0),
    ("beta", 11),
    ("loss_type", "magic"),
    ("label_smoothing", 0.5),
    ("sft_weight", -1),
]
FIELDS: dict[str, list[tuple[str, Any]]] = {
    "sft": [*SHARED, *GENERATIVE, ("packing", "tightly")],
    "dpo": [*SHARED, *GENERATIVE, *DPO],
}

TOGETHER: list[dict[str, Any]] = [
    {"quantization": "4bit", "use_lora": False},
    {"start_from": "finetune-1", "use_lora": False},
    {"use_dora": True, "use_lora": False},
    {"early_stopping_patience": 2},
    {"early_stopping_patience": 2, "eval_share": 0.1, "load_best_model": False},
    {"train_data_path": "/also/this.json", "dataset_id": "d"},
    {"train_data_path": ""},
]
DPO_TOGETHER: list[dict[str, Any]] = [{"loss_type": "robust"}, {"label_smoothing": 0.1}]

TOLD = {"instruction": "Why?", "output": "Because."}
PAIR = {"query": "Why?", "retrieval_result": "It rains.", "chosen": {"text": "Rain."}, "rejected": {"text": "No."}}
SFT_ROWS: dict[str, tuple[list[Any], str]] = {
    "an answer that is a number": ([TOLD, {**TOLD, "output": 7}], "2"),
    "an instruction that is a list": ([TOLD, TOLD, {**TOLD, "instruction": ["Why?"]}], "3"),
    "no answer at all": ([TOLD, {"instruction": "Why?"}], "2"),
    "a history of single turns": ([{**TOLD, "history": ["hi"]}], "1"),
    "a row that is no object": ([TOLD, 5], "2"),
    "a role nobody knows": ([{"messages": [{"role": "wizard", "content": "x"}]}], "1"),
    "a turn that is text": ([{"messages": ["hi", "ho"]}], "1"),
    "turns that are text": ([{"messages": "hi"}], "1"),
    "rows of two kinds": ([TOLD, PAIR], "2"),
    "answers that are all empty": ([{**TOLD, "output": " "}], "0 usable rows"),
    "no row": ([], "0 usable rows"),
    "rows that only a retriever learns from": ([{"query": "q", "pos": ["p"]}], "retrieval"),
}
DPO_ROWS: dict[str, tuple[list[Any], str]] = {
    "chosen that is a number": ([PAIR, {**PAIR, "chosen": 1}], "2"),
    "chosen without a text": ([PAIR, PAIR, {**PAIR, "chosen": {"score": 1}}], "3"),
    "rejected whose text is a list": ([{**PAIR, "rejected": {"text": ["a"]}}], "1"),
    "no rejected": ([PAIR, {"query": "q", "chosen": {"text": "a"}}], "2"),
    "a query that is an object": ([{**PAIR, "query": {}}], "1"),
    "retrieved numbers": ([{**PAIR, "retrieval_result": [1, 2]}], "1"),
    "a row that is no object": ([PAIR, "text"], "2"),
    "conversations that begin differently": (
        [{side: [{"role": "user", "content": side}, {"role": "assistant", "content": side}] for side in
          ("chosen", "rejected")}],
        "1",
    ),
    "chosen like rejected": ([{**PAIR, "rejected": PAIR["chosen"]}], "0 usable rows"),
    "answers that are all empty": ([{**PAIR, "chosen": {"text": ""}}], "0 usable rows"),
    "rows of two kinds": ([PAIR, TOLD], "2"),
    "rows with one answer": ([TOLD], "conversation"),
}  # fmt: skip
ROWS: dict[str, dict[str, tuple[list[Any], str]]] = {"sft": SFT_ROWS, "dpo": DPO_ROWS}
GOOD = {"sft": TOLD, "dpo": PAIR}
CASES = [(kind, field, value) for kind, fields in FIELDS.items() for field, value in fields]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(Settings(home=tmp_path_factory.mktemp("home")))


@pytest.fixture
def start(studio: Studio, tiny_model: Path, tmp_path: Path) -> Iterator[Any]:
    """Try to start a training on some rows; afterwards there must be no task and no folder of one."""

    def start(kind: str, rows: list[Any], **values: Any) -> None:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        base = {"type": kind, "model_name_or_path": str(tiny_model), "train_data_path": str(path)}
        studio.training.start({name: value for name, value in {**base, **values}.items() if value is not None})

    yield start
    assert studio.tasks.list() == []
    assert not studio.settings.outputs_dir.exists() or not list(studio.settings.outputs_dir.iterdir())


def test_there_are_at_least_thirty_for_each_method():
    for kind in FIELDS:
        assert len(FIELDS[kind]) + len(ROWS[kind]) >= 30
        assert {field for field, _ in FIELDS[kind]} >= set(RECIPES[kind].model_fields) - {
            "type", "dataset_id", "train_data_path", "output_dir", "gradient_checkpointing",
        }  # fmt: skip


@pytest.mark.parametrize(("kind", "field", "value"), CASES)
def test_a_malformed_recipe_is_refused_by_its_field(start: Any, kind: str, field: str, value: Any):
    with pytest.raises(InvalidRecipe) as caught:
        start(kind, [GOOD[kind]], **{field: value})
    assert caught.value.field == field
    assert field in caught.value.message.en
    assert field in caught.value.message.zh


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("values", [*TOGETHER, *DPO_TOGETHER], ids=lambda values: ",".join(values))
def test_fields_that_do_not_fit_together_are_refused(start: Any, kind: str, values: dict[str, Any]):
    with pytest.raises(InvalidRecipe) as caught:
        start(kind, [GOOD[kind]], **values)
    assert any(field in caught.value.message.en for field in ("dataset_id", *values))
    assert caught.value.message.zh != caught.value.message.en


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, files in ROWS.items() for name in files])
def test_a_malformed_dataset_is_refused_by_its_row(start: Any, kind: str, name: str):
    rows, named = ROWS[kind][name]
    with pytest.raises(InvalidDataset) as caught:
        start(kind, rows)
    assert named in caught.value.message.en
    assert named.isdigit() is (caught.value.row is not None)


@pytest.mark.parametrize("kind", FIELDS)
def test_what_is_not_there_is_refused_by_name(start: Any, kind: str):
    for values in ({"model_name_or_path": "/no/model"}, {"train_data_path": "/no/file.json"}):
        with pytest.raises(StudioError) as caught:
            start(kind, [GOOD[kind]], **values)
        assert next(iter(values.values())) in caught.value.message.en
    with pytest.raises(StudioError, match="no-such"):
        start(kind, [GOOD[kind]], train_data_path=None, dataset_id="no-such")


def test_a_whole_model_is_no_adapter_to_start_from(start: Any, tiny_model: Path):
    with pytest.raises(InvalidRecipe, match="whole model") as caught:
        start("dpo", [PAIR], start_from=str(tiny_model))
    assert "model_name_or_path" in caught.value.hint.en


def test_an_adapter_of_another_base_is_refused(start: Any, tmp_path: Path):
    (tmp_path / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "/models/another"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InvalidRecipe, match="/models/another") as caught:
        start("dpo", [PAIR], start_from=str(tmp_path / "adapter"))
    assert caught.value.field == "start_from"
