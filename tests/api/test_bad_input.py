"""Every bad input that the studio promises to bear: a clear error in both languages, nothing lost."""

import errno
import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from rest_app import app_of

from sage_studio.studio import Studio

GOOD = [{"instruction": "a?", "input": "", "output": "b."}]


def refuse(answer, status, *said):
    """The answer has this status, and its text says all of these."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert set(detail) == {"code", "message", "hint"}
    assert "Traceback" not in answer.text
    for word in said:
        assert word in detail["message"] + detail["hint"], detail


@pytest.fixture(params=["en", "zh"])
def client(client, request):
    """The same client, asking in either language; afterwards the studio must still answer."""
    client.headers["Accept-Language"] = request.param
    yield client
    assert client.get("/api/health").json()["status"] == "ok"


def send(client, content, name="rows.json"):
    return client.post("/api/datasets", files={"file": (name, content)})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"instruction": "a?", "output": "b."}, {"instruction": ', "2"),
        (b'{"instruction": "a?", "output": "b."}\n{"instruction": oops}\n', "2"),
        (b'[{"instruction": "a?", "output": "b."}, {"question_text": "a?", "reply": "b."}]', "2"),
        (b'[{"instruction": "a?", "output": "b."}, 7]', "2"),
        (b"", ""),
        (b"   \n", ""),
        (b"[]", ""),
        (b'[{"instruction": "a?", "output": ""}, {"instruction": "b?", "output": " "}]', ""),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x04evil", ""),
        (b'{"instruction": "\xff\xfe\x81 a?", "output": "\xff"}', ""),
    ],
    ids=[
        "broken",
        "broken-line",
        "wrong-keys",
        "no-object",
        "empty",
        "blank",
        "no-rows",
        "0-usable",
        "pickle",
        "bytes",
    ],
)
def test_a_bad_file_is_refused_naming_the_row(client, content, said):
    refuse(send(client, content), 422, said)
    assert client.get("/api/datasets").json() == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_other_encodings_are_read(client, encoding):
    rows = json.dumps(
        [{"instruction": "什么是流处理？", "input": "", "output": "流处理是一种数据处理方式。"}], ensure_ascii=False
    )
    dataset = send(client, rows.encode(encoding)).json()
    page = client.get(f"/api/datasets/{dataset['id']}/preview").json()
    assert page["rows"][0]["instruction"] == "什么是流处理？"


def test_a_file_over_the_limit_is_refused(settings):

    small = TestClient(app_of(Studio(settings.model_copy(update={"max_upload_mb": 1}))), base_url="http://127.0.0.1")
    settings.uploads_dir.mkdir(parents=True)
    refuse(send(small, json.dumps(GOOD * 50_000).encode()), 422, "1")


def config(**changes):
    return {
        "type": "sft",
        "config": {"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": "none-v1", **changes},
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": "abc"}, "'abc'"),
        ({"num_train_epochs": 0}, "num_train_epochs"),
        ({"per_device_train_batch_size": -1}, "-1"),
        ({"learning_rats": 1}, "learning_rats"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"quantization": "3bit"}, "3bit"),
        ({"lora_r": 1.5}, "lora_r"),
        ({"use_lora": False, "quantization": "4bit"}, "use_lora"),
        ({"dataset_id": ""}, "dataset_id"),
        ({"train_data_path": "/x.json"}, "train_data_path"),
        ({"model_name_or_path": ""}, "model_name_or_path"),
    ],
)
def test_a_bad_recipe_is_refused_naming_the_field(client, changes, said):
    body = json.dumps(config(**changes)).replace("Infinity", "1e999")
    answer = client.post("/api/finetune/start", content=body, headers={"Content-Type": "application/json"})
    refuse(answer, 422, said)
    assert client.get("/api/finetune/tasks").json() == []


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"model_name_or_path": "no-such-model"}, 422, "no-such-model"),
        ({"model_name_or_path": "/no/such/folder"}, 422, "/no/such/folder"),
        ({"model_name_or_path": "../secrets"}, 400, "../secrets"),
        ({"dataset_id": "no-such-v1"}, 404, "no-such-v1"),
        ({"dataset_id": "../outputs"}, 400, "../outputs"),
        ({"dataset_id": "", "train_data_path": "/no/such.json"}, 422, "/no/such.json"),
        ({"dataset_id": "", "train_data_path": "/tmp"}, 422, "/tmp"),
    ],
    ids=["model", "folder", "model-climbs", "dataset", "dataset-climbs", "file", "folder-for-file"],
)
def test_what_is_not_there_is_refused_before_a_task_is_made(client, changes, status, said):
    refuse(client.post("/api/finetune/start", json=config(**changes)), status, said)
    assert client.get("/api/finetune/tasks").json() == []


def test_an_unknown_method_is_refused(client):
    refuse(client.post("/api/finetune/start", json=config() | {"type": "magic"}), 422, "magic")


def test_a_body_that_is_no_json_is_refused(client):
    refuse(client.post("/api/finetune/start", content=b"{", headers={"Content-Type": "application/json"}), 422)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["/api/finetune/tasks/{}", "/api/datasets/{}"])
def test_an_id_that_climbs_is_refused(client, method, path):
    refuse(client.request(method, path.format("..%2e")), 400)
    assert client.request(method, path.format("%2e%2e%2fstudio.db")).status_code in (400, 404, 405)


def test_an_uploaded_name_that_climbs_is_refused(client, settings):
    refuse(send(client, json.dumps(GOOD).encode(), name="../../escape.json"), 400, "../../escape.json")
    assert not list(settings.root.parent.rglob("escape.json"))


@pytest.mark.parametrize("route", ["", "/logs", "/events", "/download"])
def test_a_task_that_is_not_there_is_said(client, route):
    refuse(client.get(f"/api/finetune/tasks/finetune-1{route}"), 404, "finetune-1")


def test_a_full_disk_while_saving_loses_nothing(client, settings, monkeypatch):
    kept = send(client, json.dumps(GOOD).encode()).json()
    real = Path.open

    def full(self, mode="r", *args, **kwargs):
        file = real(self, mode, *args, **kwargs)
        if "w" in mode and str(self).startswith(str(settings.datasets_dir)):

            class Full:
                def __getattr__(self, name):
                    return getattr(file, name)

                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def write(self, _):
                    raise OSError(errno.ENOSPC, "No space left on device")

            return Full()
        return file

    monkeypatch.setattr(Path, "open", full)
    refuse(send(client, json.dumps(GOOD * 3).encode(), name="more.json"), 507, str(settings.datasets_dir))
    monkeypatch.undo()
    assert [dataset["id"] for dataset in client.get("/api/datasets").json()] == [kept["id"]]
    assert [path.name for path in settings.datasets_dir.iterdir()] == [kept["id"]]


def test_a_model_that_is_not_registered_cannot_be_switched_to(client):
    refuse(client.post("/api/models/switch", json={"model_name": "no-such-model"}), 422, "no-such-model")
