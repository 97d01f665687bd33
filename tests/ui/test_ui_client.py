"""The keys that the documentation names, from a script: a real gradio_client against the page."""

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from sage_studio.training.recipes import RECIPES

DOCUMENTED = {
    "model_name_or_path": "m",
    "output_dir": "/copy",
    "use_lora": False,
    "learning_rate": 0.001,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "gpu_vis": "0",
}


@pytest.fixture(scope="module")
def client(address, fake):
    """Afterwards the studio has the tasks that it had before."""
    before = list(fake.tasks.kept)
    yield Client(address, verbose=False)
    fake.tasks.kept[:] = before


@pytest.mark.parametrize("rows", ["train_data_path", "train_data", "input_path"])
@pytest.mark.parametrize("kind", RECIPES)
def test_each_method_takes_the_documented_keys(client, kind, rows):
    task = client.predict(**DOCUMENTED, **{rows: "/rows.json"}, type=kind, api_name="/start_finetune")
    assert task["type"] == kind
    assert {name: task["config"][name] for name in DOCUMENTED} == DOCUMENTED
    assert "/rows.json" in (task["config"]["train_data_path"], task["config"].get("input_path"))


@pytest.mark.parametrize("kind", RECIPES)
def test_each_method_takes_its_fields_from_a_file(client, tmp_path, kind):
    (tmp_path / "run.yaml").write_text(f"type: {kind}\nmodel_name_or_path: m\ntrain_data: /rows.json\nlora_r: 4\n")
    task = client.predict(config_file=str(tmp_path / "run.yaml"), lora_alpha=8, api_name="/start_finetune")
    assert (task["type"], task["config"]["lora_r"], task["config"]["lora_alpha"]) == (kind, 4, 8)
    assert task["config"]["train_data_path"] == "/rows.json"


@pytest.mark.parametrize("kind", RECIPES)
def test_each_method_refuses_an_unknown_key_by_name(client, tmp_path, kind):
    with pytest.raises(TypeError, match="learning_rat"):
        client.predict(type=kind, **DOCUMENTED, learning_rat=1, api_name="/start_finetune")
    (tmp_path / "run.yaml").write_text("model_name_or_path: m\ndataset_id: d\nlearning_rat: 1\n")
    with pytest.raises(AppError, match=r"learning_rat: there is no such field"):
        client.predict(type=kind, config_file=str(tmp_path / "run.yaml"), api_name="/start_finetune")
