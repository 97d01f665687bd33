"""The REST routes over the real services: shapes, and the story from upload to a finished task."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from rest_app import app_of
from waiting import TRAINING, wait_until

from sage_studio.studio import Studio

ROWS = [{"instruction": f"What is {n} plus {n}?", "input": "", "output": f"It is {2 * n}."} for n in range(1, 9)]


def upload(client, rows=ROWS, name="sums.json"):
    content = json.dumps(rows).encode() if isinstance(rows, list) else rows
    return client.post("/api/datasets", files={"file": (name, content)})


def test_health(client):
    answer = client.get("/api/health").json()
    assert answer["status"] == "ok"
    assert answer["engine"]["state"] == "down"


def test_the_documentation_of_the_routes_works_without_a_network(client):
    page = client.get("/docs").text
    assert "https://" not in page.split("<title>")[1]
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert "/api/finetune/tasks/{task_id}/events" in paths
    assert not any(path.startswith("/gradio_api") for path in paths)


def test_a_dataset_comes_is_seen_and_goes(client):
    dataset = upload(client).json()
    assert dataset["stats"]["total_samples"] == len(ROWS)
    page = client.get(f"/api/datasets/{dataset['id']}/preview", params={"limit": 3, "offset": 2}).json()
    assert page["total"] == len(ROWS)
    assert [row["output"] for row in page["rows"]] == ["It is 6.", "It is 8.", "It is 10."]
    assert page["rows"][0]["origin"]["row"] == 3
    assert [known["id"] for known in client.get("/api/datasets").json()] == [dataset["id"]]
    assert client.get(f"/api/datasets/{dataset['id']}").json()["sha256"] == dataset["sha256"]
    assert client.delete(f"/api/datasets/{dataset['id']}").status_code == 200
    assert client.get(f"/api/datasets/{dataset['id']}").status_code == 404


def test_the_sage_documentation_becomes_a_dataset(settings, docs_repository):

    studio = Studio(settings.model_copy(update={"docs_repo": docs_repository}))
    client = TestClient(app_of(studio), base_url="http://127.0.0.1")
    answer = client.post("/api/finetune/prepare-sage-docs").json()
    assert answer["status"] == "success"
    assert answer["stats"]["total_samples"] > 5
    assert json.loads(Path(answer["data_file"]).read_text(encoding="utf-8"))[0].keys() >= {
        "instruction",
        "input",
        "output",
    }
    again = client.post("/api/finetune/prepare-sage-docs", json={"force_refresh": True}).json()
    assert again["dataset_id"] == answer["dataset_id"], "the same rows are the same dataset"


def test_templates_are_ready_recipes(client):
    assert {template["id"] for template in client.get("/api/finetune/templates").json()} >= {
        "quick-cpu",
        "rtx3060-8bit",
    }


def test_models_lists_the_catalogue(client):
    answer = client.get("/api/models").json()
    assert answer["current"] is None
    assert answer["catalogue"][0] == "SmolLM2-135M-Instruct"


@pytest.mark.training
def test_a_task_from_start_to_download(client, tiny_model):
    dataset = upload(client).json()
    config = {
        "model_name_or_path": str(tiny_model),
        "dataset_id": dataset["id"],
        "num_train_epochs": 1,
        "max_length": 64,
    }
    started = client.post("/api/finetune/start", json={"type": "sft", "config": config})
    assert started.status_code == 201
    task_id = started.json()["id"]
    assert client.post("/api/finetune/use-as-backend", json={"task_id": task_id}).status_code == 409
    assert client.delete(f"/api/datasets/{dataset['id']}").status_code == 409, "a task needs it"

    def task():
        return client.get(f"/api/finetune/tasks/{task_id}").json()

    wait_until(lambda: task()["status"] in ("completed", "failed"), TRAINING)
    done = task()
    assert done["status"] == "completed", (done["reason"], client.get(f"/api/finetune/tasks/{task_id}/logs").json())
    assert (done["progress"], done["step"], done["total_steps"]) == (100, 8, 8)
    assert client.get("/api/finetune/tasks").json()[0]["id"] == task_id

    stream = client.get(f"/api/finetune/tasks/{task_id}/events").text
    events = [block for block in stream.split("\n\n") if block]
    assert events[-1].splitlines()[1:] == ["event: end", 'data: {"status": "completed"}']
    third = events[2].splitlines()[0].removeprefix("id: ")
    resumed = client.get(f"/api/finetune/tasks/{task_id}/events", headers={"Last-Event-ID": third}).text
    assert [block for block in resumed.split("\n\n") if block] == events[3:]

    page = client.get(f"/api/finetune/tasks/{task_id}/logs", params={"limit": 2}).json()
    assert len(page["lines"]) == 2
    packed = client.get(f"/api/finetune/tasks/{task_id}/download")
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        names = archive.getnames()
        lineage = json.load(archive.extractfile(f"{task_id}/lineage.json"))
    assert f"{task_id}/adapter_model.safetensors" in names
    assert (lineage["task"], lineage["dataset_sha256"]) == (task_id, dataset["sha256"])
    assert lineage["base_revision"].startswith("fingerprint:")
    assert {"torch", "trl"} <= set(lineage["versions"])
    assert not any(str(tiny_model.parent) in str(lineage[name]) for name in ("versions", "dataset_id", "base_revision"))
    check_reproduction(client, done)
    assert not any("checkpoint" in name for name in names)

    assert client.delete(f"/api/finetune/tasks/{task_id}").status_code == 409, "it is over"
    assert client.delete(f"/api/finetune/tasks/{task_id}/delete").status_code == 200
    assert client.get(f"/api/finetune/tasks/{task_id}").status_code == 404


def check_reproduction(client, done):
    """The same run again: on the CPU every step has the same loss; nothing but the id differs."""
    answer = client.post(f"/api/finetune/tasks/{done['id']}/reproduce")
    assert answer.status_code == 201, answer.json()
    again = answer.json()["id"]
    wait_until(lambda: client.get(f"/api/finetune/tasks/{again}").json()["status"] == "completed", TRAINING)
    compared = client.get("/api/finetune/compare", params={"ids": f"{done['id']},{again}"}).json()
    first, second = compared["tasks"]
    assert compared["settings"] == {}
    assert len(first["losses"]) == 8
    assert second["losses"] == first["losses"]
    assert second["loss"] == first["loss"]
    assert second["peak_memory_gb"] > 0
    assert client.delete(f"/api/finetune/tasks/{again}/delete").status_code == 200


def test_what_cannot_be_compared_is_refused(client):
    assert client.get("/api/finetune/compare", params={"ids": ""}).status_code == 422
    assert client.get("/api/finetune/compare", params={"ids": "finetune-1,finetune-2"}).status_code == 404


def test_templates_are_saved_loaded_copied_compared_and_deleted(client):
    route = "/api/finetune/templates"
    ready = len(client.get(route).json())
    saved = client.post(route, json={"title": "mine", "config": {"learning_rate": 1e-4}}).json()
    text = client.get(f"{route}/{saved['id']}/yaml").text
    assert "learning_rate: 0.0001" in text
    loaded = client.post(route, json={"title": "theirs", "yaml": text.replace("0.0001", "0.001")}).json()
    copied = client.post(f"{route}/{saved['id']}/duplicate", json={"title": "a copy"}).json()
    assert len(client.get(route).json()) == ready + 3
    answer = client.get(f"{route}/diff", params={"first": saved["id"], "second": loaded["id"]}).json()
    assert answer == {"learning_rate": [1e-4, 1e-3]}
    for each in (saved, loaded, copied):
        assert client.delete(f"{route}/{each['id']}").status_code == 200
    assert client.delete(f"{route}/{saved['id']}").status_code == 404
    refused = client.post(route, json={"title": "mine", "config": {"lora_r": 0}})
    assert refused.status_code == 422
    assert "lora_r" in refused.json()["detail"]["message"]
