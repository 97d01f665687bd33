"""Tasks other than training are shown, stopped, resumed and deleted by the paths of trainings, and by commands."""

import json
import threading

import pytest
from waiting import patient, wait_until

from sage_studio import cli
from sage_studio.errors import InvalidInput
from sage_studio.text import Text

ROWS = [{"instruction": f"What is {n} plus {n}?", "output": f"It is {2 * n}."} for n in range(1, 9)]
TASKS = "/api/finetune/tasks"


@pytest.fixture
def dataset(client):
    return client.post("/api/datasets", files={"file": ("sums.json", json.dumps(ROWS).encode())}).json()["id"]


@pytest.fixture
def augment(client, studio, dataset, monkeypatch):
    """A task whose answers come one by one, as `may` lets them."""
    may, asked = threading.Semaphore(0), threading.Event()

    def ask(*_):
        asked.set()
        assert may.acquire(timeout=patient())
        return "How much are the two?"

    monkeypatch.setattr(studio.serving, "ask", ask)
    started = client.post("/api/datasets/augment", json={"dataset_id": dataset, "least_alike": 0}).json()
    assert asked.wait(patient())
    yield started["id"], may
    may.release(99)


def test_it_is_listed_where_it_is_asked_for(client, dataset, augment):
    task_id, _ = augment
    assert client.get(TASKS).json() == []
    (shown,) = client.get(TASKS, params={"kind": "augment"}).json()
    assert (shown["id"], shown["kind"], shown["dataset_id"], shown["status"]) == (
        task_id,
        "augment",
        dataset,
        "running",
    )
    assert [each["id"] for each in client.get(TASKS, params={"kind": "all"}).json()] == [task_id]
    assert client.get(TASKS, params={"kind": "merge"}).json() == []


def test_it_is_stopped_resumed_and_deleted(client, augment):
    task_id, may = augment
    path = f"{TASKS}/{task_id}"
    assert client.delete(f"{path}/delete").status_code == 409
    assert client.delete(path).json()["status"] == "stopping"
    may.release(4)
    wait_until(lambda: client.get(path).json()["status"] == "stopped")
    assert client.delete(path).status_code == 409, "it is over"
    assert client.get(path).json()["progress"] == 50.0
    assert "Stopped." in client.get(f"{path}/logs").json()["lines"][-1]
    may.release(4)
    assert client.post(f"{path}/resume").status_code == 200
    wait_until(lambda: client.get(path).json()["status"] == "completed")
    assert client.get(path).json()["result"] == "sums-augmented-v1"
    assert client.post(f"{path}/resume").status_code == 409
    assert client.delete(f"{path}/delete").json() == {"status": "success", "task_id": task_id}
    assert client.get(path).status_code == 404
    assert client.get("/api/datasets/sums-augmented-v1").is_success, "what it made stays"


def test_retry_resumes_it(client, studio, dataset, monkeypatch):
    def fail(*_):
        raise InvalidInput(Text("no", "不"), Text("do", "做"))

    monkeypatch.setattr(studio.serving, "ask", fail)
    task_id = client.post("/api/datasets/annotate", json={"dataset_id": dataset}).json()["id"]
    wait_until(lambda: client.get(f"{TASKS}/{task_id}").json()["status"] == "failed")
    shown = client.get(f"{TASKS}/{task_id}").json()
    assert (shown["reason"], shown["hint"], shown["next_action"]) == ("no", "do", "resume")
    assert client.post(f"{TASKS}/{task_id}/retry").json()["status"] in ("queued", "running")
    wait_until(lambda: client.get(f"{TASKS}/{task_id}").json()["status"] == "failed")


def test_commands_take_its_id(client, augment, settings, monkeypatch, capsys):
    task_id, may = augment
    monkeypatch.setattr(cli, "load_settings", lambda: settings)
    assert cli.main(["tasks", "list", "--kind", "augment"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == [task_id]
    assert cli.main(["tasks", "log", task_id]) == 0
    assert "Paraphrasing" in capsys.readouterr().out
    may.release(8)
    wait_until(lambda: client.get(f"{TASKS}/{task_id}").json()["status"] == "completed")
    assert cli.main(["tasks", "stop", task_id]) == 2
    assert "completed" in capsys.readouterr().err


def test_what_is_imported_or_mixed_is_a_task(client, dataset, tmp_path):
    (tmp_path / "docs").mkdir()
    text = "# Windows\n\nA window groups records by time or by count, and its state is kept by key.\n"
    (tmp_path / "docs" / "a.md").write_text(text)
    made = client.post("/api/datasets/from-repository", json={"address": str(tmp_path / "docs")}).json()["id"]
    (task,) = client.get(TASKS, params={"kind": "import"}).json()
    assert (task["status"], task["result"], task["model"]) == ("completed", made, str(tmp_path / "docs"))
    mixed = client.post("/api/datasets/combine", json={"portions": [{"dataset_id": dataset}], "name": "mixed"}).json()
    (task,) = client.get(TASKS, params={"kind": "mix"}).json()
    assert (task["status"], task["result"], task["model"]) == ("completed", mixed["id"], "mixed")


def test_what_cannot_be_meant_or_holds_a_password_leaves_no_task(client):
    for path, order in (
        ("from-hub", {"repo": "no id"}),
        ("from-repository", {"address": ""}),
        ("from-repository", {"address": "https://ada:secret@127.0.0.1:9/lab/docs.git"}),
        ("combine", {"portions": []}),
    ):
        assert client.post(f"/api/datasets/{path}", json=order).is_error
    assert client.get(TASKS, params={"kind": "all"}).json() == []
