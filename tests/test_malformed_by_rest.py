"""The malformed recipes and data files of every method through the REST door: field or row named, and no task made."""

import json
from pathlib import Path
from typing import Any

import pytest
import test_embedding_refused as embedding
import test_kbalign_refused as kbalign
import test_malformed as generative
from fastapi.testclient import TestClient
from model_folder import write_model
from rest_app import app_of

from sage_studio.settings import load_settings
from sage_studio.studio import Studio

RECIPES: dict[str, list[tuple[str, Any]]] = {
    **generative.FIELDS,
    "embedding": embedding.RECIPES,
    "kbalign": kbalign.RECIPES,
}
FILES: dict[str, list[tuple[str, bytes, str]]] = {
    **{
        kind: [("rows.json", json.dumps(rows).encode(), named) for rows, named in files.values()]
        for kind, files in generative.ROWS.items()
    },
    "embedding": [("rows.json", content.encode(), named) for content, named in embedding.ROWS],
    "kbalign": kbalign.FILES,
}
GOOD = {**generative.GOOD, "embedding": {"query": "q", "pos": ["p"]}, "kbalign": {"text": "The tower is tall."}}
WHERE = {"kbalign": "input_path"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Nothing supervises: a task that is made stays queued and is seen."""
    return Studio(load_settings(home=tmp_path_factory.mktemp("malformed")))


@pytest.fixture(scope="module")
def client(studio: Studio):
    with TestClient(app_of(studio), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model for each method."""
    folder = tmp_path_factory.mktemp("models")
    writes = str(write_model(folder / "model"))
    embeds = write_model(folder / "embedder", architectures=["BertModel"])
    (embeds / "modules.json").write_text("[]")
    return {kind: str(embeds) if kind == "embedding" else writes for kind in RECIPES}


def refused(client: TestClient, studio: Studio, kind: str, config: dict[str, Any], language: str) -> dict[str, str]:
    """What the route says against a run; afterwards there is no task and no folder of one."""
    answer = client.post(
        "/api/finetune/start",
        content=json.dumps({"type": kind, "config": config}),  # the client's own encoder takes no NaN
        headers={"Content-Type": "application/json", "Accept-Language": language},
    )
    assert answer.status_code == 422, answer.text
    assert studio.tasks.list() == []
    assert not list(studio.settings.outputs_dir.glob("*"))
    detail: dict[str, str] = answer.json()["detail"]
    return detail


def test_there_are_at_least_thirty_for_each_method_of_both_kinds():
    for kind in GOOD:
        assert len(RECIPES[kind]) + len(FILES[kind]) >= 30
        assert min(len(RECIPES[kind]), len(FILES[kind])) >= 9


@pytest.mark.parametrize(
    ("kind", "field", "value"), [(kind, *case) for kind, cases in RECIPES.items() for case in cases]
)
def test_a_malformed_recipe(
    client: TestClient, studio: Studio, models: dict[str, str], tmp_path: Path, kind: str, field: str, value: Any
):
    (tmp_path / "rows.json").write_text(json.dumps([GOOD[kind]] * 4))
    rows = {WHERE.get(kind, "train_data_path"): str(tmp_path / "rows.json")}
    config = {"model_name_or_path": models[kind], **rows, field: value}
    config = {name: value for name, value in config.items() if value is not None or kind == "embedding"}
    for language in ("en", "zh"):
        detail = refused(client, studio, kind, config, language)
        assert detail["code"] == "invalid_recipe"
        assert field in detail["message"]
        assert detail["hint"]


@pytest.mark.parametrize(
    ("kind", "name", "content", "named"), [(kind, *case) for kind, cases in FILES.items() for case in cases]
)
def test_a_malformed_file(
    client: TestClient,
    studio: Studio,
    models: dict[str, str],
    tmp_path: Path,
    kind: str,
    name: str,
    content: bytes,
    named: str,
):
    (tmp_path / name).write_bytes(content)
    config = {"model_name_or_path": models[kind], WHERE.get(kind, "train_data_path"): str(tmp_path / name)}
    detail = refused(client, studio, kind, config, "en")
    assert detail["code"] in ("invalid_dataset", "unknown_columns")
    assert named
    assert named in detail["message"]
