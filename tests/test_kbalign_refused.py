"""Recipes, knowledge bases and datasets that KBAlign cannot use: each is refused by name, and none starts a task."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_studio.catalog import BUILT_IN
from sage_studio.errors import InvalidDataset, InvalidRecipe, NotFound, StudioError
from sage_studio.settings import Settings
from sage_studio.studio import Studio

RECIPES: list[tuple[str, Any]] = [
    ("rounds", 0),
    ("rounds", 21),
    ("rounds", "many"),
    ("rounds", 1.5),
    ("verification_ratio", -0.1),
    ("verification_ratio", 2.1),
    ("verification_ratio", float("nan")),
    ("short_dependency", "perhaps"),
    ("long_dependency", 7),
    ("max_chunks", -1),
    ("chunk_size", 31),
    ("chunk_size", 32769),
    ("chunk_overlap", 0.6),
    ("chunk_overlap", -0.1),
    ("questions_per_chunk", -1),
    ("questions_per_chunk", 21),
    ("tries", 0),
    ("tries", 11),
    ("min_support", 1.1),
    ("min_agreement", -0.1),
    ("min_agreement", 1.1),
    ("answers", "copied"),
    ("general_questions", 0),
    ("cluster_size", 0),
    ("cluster_size", 11),
    ("cluster_size", 2.5),
    ("cluster_size", "all"),
    ("retrieved_chunks", 0),
    ("retrieved_chunks", 101),
    ("references", -1),
    ("references", 51),
    ("reference_size", 15),
    ("temperature", -1),
    ("temperature", 2.1),
    ("temperature", "hot"),
    ("top_p", 0),
    ("top_p", 1.1),
    ("generation_batch_size", 0),
    ("generation_batch_size", 513),
    ("num_train_epochs", 0),
    ("learning_rate", 0),
    ("beta", 0.1),
    ("input_paht", "/kb"),
    ("model_name_or_path", " "),
]
"""Also: as many as the issue asks for, and one for each of the method's own fields."""

FILES: list[tuple[str, bytes, str]] = [
    ("kb.json", b"", "kb.json is empty"),
    ("kb.json", b"[]", "0 usable rows"),
    ("kb.json", b'["a", ', "Row 2"),
    ("kb.json", b'["a", 5]', "Row 2"),
    ("kb.json", b'[{"text": "a"}, {"text": 5}]', "Row 2"),
    ("kb.json", b'[{"text": " "}]', "0 usable rows"),
    ("kb.json", b'[{"words": "a"}]', "Row 1"),
    ("kb.jsonl", b'{"text": "a"}\n{"text": "b"', "Row 2"),
    ("kb.json", b"\x80\x04pickle", "kb.json"),
    ("kb.md", b"---\n\n---\n", "kb.md"),
    ("kb.txt", b"   \n", "kb.txt"),
    ("kb.xyz", b"text", "kb.xyz"),
    ("kb.json", b'[{"query": "a", "pos": ["b"]}]', "holds no text"),
]


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    """Its verbs, without a scheduler: a task that is made would stay queued and be seen."""
    made = Studio(settings)
    yield made
    assert made.tasks.list() == []
    assert not settings.outputs_dir.exists() or not list(settings.outputs_dir.iterdir())


def values(**changes: Any) -> dict[str, Any]:
    return {"type": "kbalign", "model_name_or_path": BUILT_IN, **changes}


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    (tmp_path / "kb").mkdir()
    (tmp_path / "kb" / "towns.md").write_text("# Towns\n\nThe town of Arn has a tower that was built by a mason.\n")
    return tmp_path / "kb"


@pytest.mark.parametrize(("field", "value"), RECIPES)
def test_a_malformed_recipe_is_refused_by_its_field(studio: Studio, kb: Path, field: str, value: Any):
    with pytest.raises(InvalidRecipe) as refused:
        studio.training.start(values(**{"input_path": str(kb), field: value}))
    assert refused.value.field == field
    assert field in refused.value.message.en
    assert field in refused.value.message.zh


def test_every_field_of_the_method_has_a_bad_value_here():
    from sage_studio.training.recipes import KBAlignRecipe
    from sage_studio.training.recipes.methods import GenerativeRecipe

    own = set(KBAlignRecipe.model_fields) - set(GenerativeRecipe.model_fields)
    assert own - {field for field, _ in RECIPES} == {"input_path"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"dataset_id": "d", "input_path": "/kb"},
        {"dataset_id": "d", "train_data_path": "/kb.json"},
        {"train_data_path": "/kb.json", "input_path": "/kb"},
        {"input_path": "/kb", "short_dependency": False, "long_dependency": False},
        {"input_path": "/kb", "use_lora": False, "quantization": "4bit"},
    ],
)
def test_fields_that_do_not_fit_together_are_refused_in_both_languages(studio: Studio, given: dict[str, Any]):
    with pytest.raises(InvalidRecipe) as refused:
        studio.training.start(values(**given))
    assert refused.value.message.zh
    assert "give one of" not in refused.value.message.zh


@pytest.mark.parametrize(("name", "content", "named"), FILES)
def test_a_knowledge_base_that_cannot_be_used_is_refused(
    studio: Studio, tmp_path: Path, name: str, content: bytes, named: str
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidDataset) as refused:
        studio.training.start(values(input_path=str(tmp_path / name)))
    assert named in refused.value.message.en
    assert studio.datasets.list() == []


@pytest.mark.parametrize("path", ["none", "empty", "pictures"])
def test_a_path_without_documents_is_refused_by_its_field(studio: Studio, tmp_path: Path, path: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "pictures" / ".hidden.md").write_text("# Hidden\n\nSome words that stand here for nothing.\n")
    with pytest.raises(InvalidDataset) as refused:
        studio.training.start(values(input_path=str(tmp_path / path)))
    assert f"input_path = {tmp_path / path}" in refused.value.message.en


def test_rows_of_another_kind_are_refused(studio: Studio, tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"query": "a", "pos": ["b"]}) + "\n")
    with pytest.raises(InvalidDataset) as refused:
        studio.training.start(values(dataset_id=studio.datasets.upload(path).id))
    assert "kbalign learns from passage, conversation rows" in refused.value.message.en


def test_a_dataset_that_is_not_there_is_refused(studio: Studio):
    with pytest.raises(NotFound):
        studio.training.start(values(dataset_id="none-v1"))


def test_a_model_that_is_not_there_is_refused(studio: Studio, kb: Path):
    with pytest.raises(StudioError):
        studio.training.start(values(model_name_or_path="/no/such/model", input_path=str(kb)))


def test_a_folder_becomes_passages_with_file_and_headings(studio: Studio, kb: Path):
    (kb / "more").mkdir()
    (kb / "more" / "notes.txt").write_text(
        "桥由阿达设计，一九三一年通车，全长二百四十米，是奥维克最长的桥。\n", encoding="gb18030"
    )
    (kb / "texts.json").write_text('["The bell of Bex is heavy.", {"text": "The gate of Cos is red."}]')
    (kb / "qa.jsonl").write_text('{"question": "Who is Dol?", "answer": "A mason."}\n')
    (kb / "broken.json").write_text('["a", ')
    (kb / "picture.png").write_bytes(b"\x89PNG")
    dataset = studio.datasets.add_knowledge(kb)
    rows = studio.datasets.preview(dataset.id).rows
    assert dataset.row_kind == "passage"
    assert [(row.origin.file, row.answer[:9]) for row in rows if row.origin.file != "broken.json"] == [
        ("more/notes.txt", "桥由阿达设计，一九"),
        ("qa.jsonl", "A mason."),
        ("texts.json", "The bell "),
        ("texts.json", "The gate "),
        ("towns.md", "The town "),
    ]
    assert next(row for row in rows if row.origin.file == "qa.jsonl").origin.heading == ("Who is Dol?",)
    assert next(row for row in rows if row.origin.file == "towns.md").origin.heading == ("Towns",)
    assert [(each.count, each.rows) for each in dataset.stats.dropped] == [(1, ("broken.json",))]
