"""Every bad input that the studio promises to bear: a clear error in both languages, nothing lost."""

import errno
import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from refusing import refuse
from rest_app import app_of

from sage_studio.studio import Studio

GOOD = [{"instruction": "a?", "input": "", "output": "b."}]


@pytest.fixture(params=["en", "zh"])
def client(client, request):
    """The same client, asking in either language; afterwards the studio must still answer."""
    client.headers["Accept-Language"] = request.param
    yield client
    assert client.get("/api/health").json()["status"] == "ok"


def send(client, content, name="rows.json"):
    return client.post("/api/datasets", files={"file": (name, content)})


BAD_FILES = {
    "broken": (
        b'[{"instruction": "a?", "output": "b."}, {"instruction": ',
        ("Row 2: broken JSON in line 1", "第 2 行：文件第 1 行的 JSON 有误"),
    ),
    "broken-line": (
        b'{"instruction": "a?", "output": "b."}\n\n{"instruction": oops}\n',
        ("Row 2: broken JSON in line 3", "第 2 行：文件第 3 行的 JSON 有误"),
    ),
    "wrong-keys": (
        b'[{"instruction": "a?", "output": "b."}, {"question_text": "a?", "reply": "b."}]',
        ("Row 2: its keys (question_text, reply)", "第 2 行：字段（question_text, reply）"),
    ),
    "no-object": (b'[{"instruction": "a?", "output": "b."}, 7]', ("Row 2: it is a number", "第 2 行：应为 JSON 对象")),
    "wrong-value": (
        b'[{"instruction": "a?", "output": "b."}, {"instruction": 7, "output": "b."}]',
        ("Row 2: instruction must be text", "第 2 行：instruction 必须是文本"),
    ),
    "empty": (b"", ("is empty", "是空文件")),
    "blank": (b"   \n", ("is empty", "是空文件")),
    "no-rows": (b"[]", ("0 usable rows of 0", "共 0 行，可用 0 行")),
    "0-usable": (
        b'[{"instruction": "a?", "output": ""}, {"instruction": "b?", "output": " "}]',
        ("0 usable rows of 2 (empty answer: 2)", "共 2 行，可用 0 行（回答为空：2）"),
    ),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x04evil", ("a pickle file", "是 pickle 文件")),
    "bytes": (b'{"instruction": "\xff\xfe\x81 a?", "output": "\xff"}', ("no known encoding: byte 17", "第 17 字节")),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_refused_naming_the_row(client, settings, bad):
    content, said = BAD_FILES[bad]
    refuse(send(client, content), 422, said)
    assert client.get("/api/datasets").json() == []
    assert not list(settings.datasets_dir.glob("*"))
    assert not list(settings.uploads_dir.glob("*"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_other_encodings_are_read(client, encoding):
    rows = json.dumps(
        [{"instruction": "什么是流处理？", "input": "", "output": "流处理是一种数据处理方式。"}], ensure_ascii=False
    )
    dataset = send(client, rows.encode(encoding)).json()
    page = client.get(f"/api/datasets/{dataset['id']}/preview").json()
    assert page["rows"][0]["instruction"] == "什么是流处理？"


def test_a_file_over_the_limit_is_refused_naming_both_sizes(client, settings):
    small = TestClient(app_of(Studio(settings.model_copy(update={"max_upload_mb": 1}))), base_url="http://127.0.0.1")
    small.headers["Accept-Language"] = client.headers["Accept-Language"]
    big = b"[" + b" " * (3 << 20) + json.dumps(GOOD[0]).encode() + b"]"
    refuse(send(small, big), 422, ("has 3.0 MiB; the limit is 1.0 MiB", "有 3.0 MiB，上限为 1.0 MiB"))
    assert not list(settings.datasets_dir.glob("*"))
    assert not list(settings.uploads_dir.glob("*"))
    assert send(client, big).status_code == 201, "below the usual limit it is taken"


def config(**changes):
    return {
        "type": "sft",
        "config": {"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": "none-v1", **changes},
    }


BATCH = "per_device_train_batch_size"
BAD_RECIPES = {
    "rate-abc": ({"learning_rate": "abc"}, ("learning_rate = 'abc': it must be a number", "'abc'：必须是数字")),
    "rate-infinite": ({"learning_rate": float("inf")}, ("learning_rate = inf: it must be at most 1", "必须不大于 1")),
    "rate-0": ({"learning_rate": 0}, ("learning_rate = 0: it must be greater than 0", "必须大于 0")),
    "epochs-0": ({"num_train_epochs": 0}, ("num_train_epochs = 0: it must be greater than 0", "必须大于 0")),
    "batch-negative": ({BATCH: -1}, (f"{BATCH} = -1: it must be at least 1", "必须不小于 1")),
    "unknown-key": ({"learning_rats": 1}, ("learning_rats = 1: there is no such field", "没有这个字段")),
    "no-choice": ({"quantization": "3bit"}, ("quantization = '3bit': it must be one of", "必须是 'none', '8bit'")),
    "rank-1.5": ({"lora_r": 1.5}, ("lora_r = 1.5: it must be a whole number", "必须是整数")),
    "quantized-whole": ({"use_lora": False, "quantization": "4bit"}, ("quantized base", "量化的基座")),
    "no-data": ({"dataset_id": ""}, ("give one of dataset_id, train_data_path", "填写且只填写一个")),
    "two-data": ({"train_data_path": "/x.json"}, ("give one of dataset_id, train_data_path", "填写且只填写一个")),
    "no-model": ({"model_name_or_path": ""}, ("model_name_or_path = '': it must not be empty", "不能为空")),
}


@pytest.mark.parametrize("bad", BAD_RECIPES)
def test_a_bad_recipe_is_refused_naming_the_field(client, bad):
    changes, said = BAD_RECIPES[bad]
    body = json.dumps(config(**changes)).replace("Infinity", "1e999")
    answer = client.post("/api/finetune/start", content=body, headers={"Content-Type": "application/json"})
    refuse(answer, 422, said)
    assert client.get("/api/finetune/tasks").json() == []


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"model_name_or_path": "no-such-model"}, 422, ("no model 'no-such-model'", "没有名为 'no-such-model' 的模型")),
        ({"model_name_or_path": "/no/such"}, 422, ("There is no model folder /no/such", "模型文件夹 /no/such 不存在")),
        ({"model_name_or_path": "../secrets"}, 400, ("'../secrets' contains '..'", "'../secrets' 含有")),
        ({"dataset_id": "no-such-v1"}, 404, ("no dataset no-such-v1", "数据集 no-such-v1 不存在")),
        ({"dataset_id": "../outputs"}, 400, ("'../outputs' is no valid id", "'../outputs' 不是有效的 id")),
        (
            {"dataset_id": "", "train_data_path": "/no/such.json"},
            422,
            ("no file /no/such.json", "such.json 不存在"),
        ),
        ({"dataset_id": "", "train_data_path": "/tmp"}, 422, ("/tmp is a folder", "/tmp 是文件夹")),
    ],
    ids=["model", "folder", "model-climbs", "dataset", "dataset-climbs", "file", "folder-for-file"],
)
def test_what_is_not_there_is_refused_before_a_task_is_made(client, settings, changes, status, said):
    refuse(client.post("/api/finetune/start", json=config(**changes)), status, said)
    assert client.get("/api/finetune/tasks").json() == []
    assert not list(settings.outputs_dir.glob("*"))


def test_with_an_unknown_model_not_even_the_data_file_is_kept(client, tmp_path):
    data = tmp_path / "good.json"
    data.write_text(json.dumps(GOOD))
    changes = {"model_name_or_path": "no-such-model", "dataset_id": "", "train_data_path": str(data)}
    refuse(client.post("/api/finetune/start", json=config(**changes)), 422, "no-such-model")
    assert client.get("/api/datasets").json() == []


def test_a_dataset_whose_file_is_gone_is_refused_before_a_task_is_made(client, settings):
    kept = send(client, json.dumps(GOOD).encode()).json()["id"]
    (settings.datasets_dir / kept / "data.jsonl").unlink()
    answer = client.post("/api/finetune/start", json=config(dataset_id=kept))
    refuse(answer, 404, (f"The file of dataset {kept} is gone", f"数据集 {kept} 的文件已不存在"))
    assert client.get("/api/finetune/tasks").json() == []


def test_an_unknown_method_is_refused(client):
    refuse(client.post("/api/finetune/start", json=config() | {"type": "magic"}), 422, "magic")


def test_a_body_that_is_no_json_is_refused(client):
    body = client.post("/api/finetune/start", content=b"{", headers={"Content-Type": "application/json"})
    refuse(body, 422, ("The request does not fit", "请求格式不正确"))


ID = "..."
"""What a client leaves of ``..`` in a path; in a body it may send anything."""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/datasets/{ID}"),
        ("GET", f"/api/datasets/{ID}/preview"),
        ("DELETE", f"/api/datasets/{ID}"),
        ("GET", f"/api/finetune/tasks/{ID}"),
        ("GET", f"/api/finetune/tasks/{ID}/logs"),
        ("GET", f"/api/finetune/tasks/{ID}/events"),
        ("GET", f"/api/finetune/tasks/{ID}/download"),
        ("DELETE", f"/api/finetune/tasks/{ID}"),
        ("POST", f"/api/finetune/tasks/{ID}/resume"),
        ("DELETE", f"/api/finetune/tasks/{ID}/delete"),
    ],
)
def test_an_id_that_climbs_is_refused(client, method, path):
    refuse(client.request(method, path), 400, (f"'{ID}' is no valid id", f"'{ID}' 不是有效的 id"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/finetune/use-as-backend", {"task_id": "../studio.db"}),
        ("/api/finetune/start", config(dataset_id="../studio.db")),
        ("/api/finetune/start", config(model_name_or_path="../studio.db")),
        ("/api/models/switch", {"model_name": "../studio.db"}),
    ],
    ids=["use-as-backend", "dataset", "model", "switch"],
)
def test_a_name_in_a_body_that_climbs_is_refused(client, path, body):
    refuse(client.post(path, json=body), 400, "'../studio.db'")
    assert client.get("/api/finetune/tasks").json() == []
    assert client.get("/api/models").json()["models"] == []


def test_an_uploaded_name_that_climbs_is_refused(client, settings):
    refuse(send(client, json.dumps(GOOD).encode(), name="../../escape.json"), 400, "'../../escape.json'")
    assert not list(settings.root.parent.rglob("escape.json"))


def test_a_dataset_name_that_climbs_is_refused(client, settings):
    file = {"file": ("rows.json", json.dumps(GOOD).encode())}
    refuse(client.post("/api/datasets", files=file, data={"name": "../escape"}), 400, "'../escape'")
    assert not list(settings.root.parent.rglob("escape*"))
    assert client.get("/api/datasets").json() == []


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
    refuse(
        send(client, json.dumps(GOOD * 3).encode(), name="more.json"),
        507,
        str(settings.datasets_dir),
        ("No room", "已满"),
    )
    monkeypatch.undo()
    assert [dataset["id"] for dataset in client.get("/api/datasets").json()] == [kept["id"]]
    assert [path.name for path in settings.datasets_dir.iterdir()] == [kept["id"]]


def test_a_model_that_is_not_registered_cannot_be_switched_to(client):
    refuse(client.post("/api/models/switch", json={"model_name": "no-such-model"}), 422, "no-such-model")
