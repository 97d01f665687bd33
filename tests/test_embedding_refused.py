"""Recipes, models and datasets that cannot train an embedder: each is refused by name, and none starts a task."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_studio.catalog import BUILT_IN, BUILT_IN_EMBEDDER
from sage_studio.errors import InvalidDataset, InvalidModel, InvalidRecipe, StudioError
from sage_studio.settings import Settings
from sage_studio.studio import Studio

RECIPES: list[tuple[str, Any]] = [
    ("per_device_train_batch_size", 1),
    ("per_device_train_batch_size", 4097),
    ("per_device_train_batch_size", "many"),
    ("learning_rate", 0),
    ("learning_rate", "fast"),
    ("max_length", 15),
    ("max_length", 32769),
    ("hard_negatives", -1),
    ("hard_negatives", 17),
    ("hard_negatives", 1.5),
    ("temperature", 0),
    ("temperature", 1.1),
    ("temperature", float("nan")),
    ("mini_batch_size", -1),
    ("mini_batch_size", 1025),
    ("eval_share", 0),
    ("eval_share", 0.6),
    ("eval_share", None),
    ("eval_passages", 9),
    ("eval_passages", 100001),
    ("eval_steps", -1),
    ("use_lora", "perhaps"),
    ("lora_r", 0),
    ("num_train_epochs", 0),
    ("quantization", "4bit"),
    ("beta", 0.1),
    ("model_name_or_path", " "),
    ("loss", "triplet"),
]

ROWS: list[tuple[str, str]] = [
    ('[{"query": 5, "pos": ["a"]}]', "1"),
    ('[{"query": "a", "pos": ["A"]}, {"query": "b", "pos": {"text": "B"}}]', "2"),
    ('[{"query": "a", "pos": ["A"]}, {"query": "b", "pos": ["B"], "neg": 7}]', "2"),
    ('[{"query": "a", "pos": ["A"]}, {"query": "b", "pos": [null]}]', "1 rows"),
    ('[{"query": "a", "pos": ["A"]}]', "at least 4"),
    ("[]", "0 usable rows"),
    ('{"query": "a"', "Row 1"),
    ('[{"text": "one"}, {"text": "two"}, {"text": "three"}, {"text": "four"}]', "passage"),
    (json.dumps([{"prompt": "q", "chosen": "a", "rejected": "b"}] * 4), "preference"),
]


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    """Its verbs, without a scheduler: a task that is made would stay queued and be seen."""
    made = Studio(settings)
    yield made
    assert made.tasks.list() == []
    assert not settings.outputs_dir.exists() or not list(settings.outputs_dir.iterdir())


@pytest.fixture
def dataset_id(studio: Studio, tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"query": f"q{n}", "pos": [f"p{n}"]}) + "\n" for n in range(8)))
    return studio.datasets.upload(path).id


def values(dataset_id: str, **changes: Any) -> dict[str, Any]:
    return {"type": "embedding", "model_name_or_path": BUILT_IN_EMBEDDER, "dataset_id": dataset_id, **changes}


@pytest.mark.parametrize(("field", "value"), RECIPES)
def test_a_malformed_recipe_is_refused_by_its_field(studio: Studio, dataset_id: str, field: str, value: Any):
    with pytest.raises(InvalidRecipe) as caught:
        studio.training.start(values(dataset_id, **{field: value}))
    assert caught.value.field == field
    assert field in caught.value.message.en
    assert field in caught.value.message.zh


@pytest.mark.parametrize(("content", "named"), ROWS)
def test_a_malformed_dataset_is_refused_by_its_row(studio: Studio, tmp_path: Path, content: str, named: str):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(InvalidDataset) as caught:
        studio.training.start(values("", train_data_path=str(path)))
    assert named in caught.value.message.en
    assert all((*caught.value.message.pair(), *caught.value.hint.pair())) or caught.value.row


def test_a_model_that_writes_text_cannot_be_trained_as_an_embedder(studio: Studio, dataset_id: str):
    with pytest.raises(InvalidModel, match="a model that writes text; embedding trains an embedder") as caught:
        studio.training.start(values(dataset_id, model_name_or_path=BUILT_IN))
    assert "嵌入模型" in caught.value.message.zh


def test_an_embedder_cannot_be_trained_to_write(studio: Studio, dataset_id: str):
    with pytest.raises(InvalidModel, match="is an embedder; sft trains a model that writes text"):
        studio.training.start(values(dataset_id, type="sft"))


@pytest.mark.parametrize(
    ("files", "method"),
    [
        ({"config.json": {"architectures": ["LlamaForCausalLM"]}}, "embedding"),
        ({"config.json": {"architectures": ["BertModel"]}, "modules.json": []}, "sft"),
        ({"config.json": {"architectures": ["BertModel"]}}, "sft"),
    ],
)
def test_a_local_folder_says_what_its_model_is_for(
    studio: Studio, dataset_id: str, tmp_path: Path, files: dict[str, Any], method: str
):
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    with pytest.raises(InvalidModel, match=method):
        studio.training.start(values(dataset_id, type=method, model_name_or_path=str(folder)))


def test_too_few_rows_are_refused_however_they_come_about(studio: Studio, dataset_id: str):
    with pytest.raises(InvalidDataset, match="gives 3 rows; embedding needs at least 4"):
        studio.training.start(values(dataset_id, max_samples=3))


def test_an_embedder_cannot_become_the_chat_model(studio: Studio):
    with pytest.raises(StudioError, match="is an embedder and cannot chat"):
        studio.serving.switch(BUILT_IN_EMBEDDER)
