"""Which datasets a method may learn from."""

import json

import pytest

from sage_studio.data.dataset import Dataset, DatasetStats
from sage_studio.errors import InvalidDataset, InvalidRecipe
from sage_studio.hardware import Gpu, Hardware, Unusable
from sage_studio.preflight import check_kind
from sage_studio.settings import Settings
from sage_studio.studio import Studio
from sage_studio.training.progress import read_job
from sage_studio.training.recipes import RECIPES, SFTRecipe


def dataset(row_kind):
    stats = DatasetStats(1, 1, 1.0, 1, 1)
    return Dataset("d-v1", "d", 1, "upload", "d.json", "0", 1, 0.0, stats, row_kind=row_kind)


@pytest.mark.parametrize("kind", ["retrieval", "passage"])
def test_rows_that_a_method_cannot_learn_from_are_refused(kind):
    recipe = SFTRecipe(model_name_or_path="m", dataset_id="d-v1")
    with pytest.raises(InvalidDataset) as refused:
        check_kind(recipe, dataset(kind))
    assert refused.value.message.en.startswith(f"d-v1 holds {kind} rows; sft learns from conversation, preference")
    assert refused.value.hint.zh


def test_rows_that_a_method_can_learn_from_pass():
    for kind in SFTRecipe.accepts:
        check_kind(SFTRecipe(model_name_or_path="m", dataset_id="d-v1"), dataset(kind))


def test_every_method_learns_from_something():
    assert all(recipe.accepts and recipe.title.zh for recipe in RECIPES.values())


def test_a_task_starts_from_an_adapter_and_not_from_a_task_that_is_not_done(tmp_path, tiny_model):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16), LoraConfig(r=4))
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "pairs.json").write_text(json.dumps([{"prompt": "Why?", "chosen": "Rain.", "rejected": "No."}]))
    studio = Studio(Settings(home=tmp_path / "home"))
    values = {"type": "dpo", "model_name_or_path": str(tiny_model), "train_data_path": str(tmp_path / "pairs.json")}
    task = studio.training.start({**values, "start_from": str(tmp_path / "adapter")})
    assert read_job(task.folder).adapter_location == str(tmp_path / "adapter")
    assert read_job(studio.training.start(values).folder).adapter_location == ""
    with pytest.raises(InvalidRecipe, match=rf"start_from = {task.id}: .*not completed") as refused:
        studio.training.start({**values, "start_from": task.id})
    assert refused.value.field == "start_from"
    assert len(studio.tasks.list()) == 2


@pytest.mark.parametrize("door", ["sft", "dpo", "embedding", "kbalign"])
def test_a_pin_to_a_hidden_gpu_is_refused_before_anything_is_made(settings, monkeypatch, door):
    found = Hardware((Gpu(0, "RTX 3090", 24, 1),), 64, 8, 8, ((Gpu(1, "RTX 3090", 24, 1), Unusable.HIDDEN),))
    monkeypatch.setattr("sage_studio.services.training.detect_hardware", lambda: found)
    studio = Studio(settings)
    values = {"type": door, "model_name_or_path": "/no/model", "dataset_id": "d", "gpu_vis": "1"}
    with pytest.raises(InvalidRecipe, match="CUDA_VISIBLE_DEVICES hides") as refused:
        studio.training.start(values)
    assert refused.value.field == "gpu_vis"
    assert not studio.tasks.list()
