"""A home made by 0.1 opens with everything that is in it. `make_home.py` says how it was made and recorded.

Paths in it begin with /srv/sage, where it was made; they are rewritten to where a test unpacks it.
"""

import io
import json
import sqlite3
import tarfile
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from rest_app import app_of
from waiting import wait_until

from sage_studio.migrations import MIGRATIONS
from sage_studio.settings import load_settings
from sage_studio.studio import Studio
from sage_studio.tasks.task import TaskStatus

HERE = Path(__file__).parent
RECORD = json.loads((HERE / "home-0.1.json").read_text(encoding="utf-8"))
ANSWERS = RECORD["answers"]
TASKS = {task["name"]: task for task in ANSWERS["/api/finetune/tasks"]}
DONE = [name for name, task in TASKS.items() if task["status"] == "completed"]
SWITCHED_OFF = TASKS["for long"]["id"]
"""Was training when the answers were recorded, and was killed after that: its own figures went on."""


def unpacked(folder):
    """The home as 0.1 left it, at another place."""
    with tarfile.open(HERE / "home-0.1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    was, now = RECORD["home"], str(folder)
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".log", ".md") and path.is_file():
            path.write_text(path.read_text(encoding="utf-8").replace(was, now), encoding="utf-8")
    with closing(sqlite3.connect(folder / "studio_finetune/studio.db")) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for column in [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[2] == "TEXT"]:
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (was, now))
        database.commit()
    return folder


@contextmanager
def opened(home):
    studio = Studio(load_settings(home=home, engine="transformers", stop_grace_seconds=60))
    studio._jobs.recover()  # as `Studio.start` does, without the scheduler, which would run what is queued
    try:
        yield studio
    finally:
        studio.close()
        studio.database.close()


@pytest.fixture(scope="module")
def read_home(tmp_path_factory):
    """For tests that only read."""
    return unpacked(tmp_path_factory.mktemp("read") / "home")


@pytest.fixture(scope="module")
def read_studio(read_home):
    with opened(read_home) as studio:
        yield studio


@pytest.fixture(scope="module")
def client(read_studio):
    return TestClient(app_of(read_studio), base_url="http://localhost:7860")


@pytest.fixture
def home(tmp_path):
    """For tests that write."""
    return unpacked(tmp_path / "home")


@pytest.fixture
def studio(home):
    with opened(home) as studio:
        yield studio


def recorded(path, home):
    """What 0.1 answered, with the paths of this home."""
    return json.loads(json.dumps(ANSWERS[path]).replace(RECORD["home"], str(home)))


NOT_KEPT = ("offset", "size", "meaning", "loaded", "note")
"""Lengths of a log, which holds paths; words of the page; what a running engine held."""


def kept(path, answer):
    """What of an answer belongs to the home."""
    if path == "/api/finetune/tasks":
        answer = [task for task in answer if task["id"] != SWITCHED_OFF]
    if path == "/api/finetune/templates":
        answer = [template for template in answer if template["title"]["en"] == "My sums"]
    if path == "/api/models":
        answer = {name: answer[name] for name in ("current", "models")}
    if path == "/api/retriever":
        answer = {name: answer[name] for name in ("model", "task_id", "dataset_id")}
    return answer


def missing(was, now, where=""):
    """Where an answer of today has less than, or something else than, that of 0.1."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            each
            for key in was
            if key not in NOT_KEPT
            for each in missing(was[key], now.get(key, "gone"), f"{where}.{key}")
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [each for at, pair in enumerate(zip(was, now, strict=True)) for each in missing(*pair, f"{where}[{at}]")]
    return [] if was == now else [f"{where}: {was!r} is now {now!r}"]


@pytest.mark.parametrize("path", [path for path in ANSWERS if SWITCHED_OFF not in path.partition("?")[0]])
def test_rest_answers_as_0_1_did(client, read_home, path):
    was, now = recorded(path, read_home), client.get(path).json()
    assert missing(kept(path, was), kept(path, now)) == []


def test_a_copy_of_the_database_is_kept_before_it_is_migrated(home, studio):
    with closing(sqlite3.connect(home / "studio_finetune/studio.db.v0.bak")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (0,)
        assert copy.execute("SELECT count(*) FROM tasks").fetchone() == (len(TASKS),)
        assert len(copy.execute("SELECT * FROM votes").fetchall()) == 2
    assert studio.database.rows("PRAGMA user_version")[0][0] == len(MIGRATIONS)


def test_the_second_opening_changes_nothing(home):
    kept = []
    for _ in range(2):
        with opened(home):
            pass
        with closing(sqlite3.connect(home / "studio_finetune/studio.db")) as database:
            kept.append((list(database.iterdump()), sorted(map(str, home.rglob("*")))))
    assert kept[0] == kept[1]


def test_the_services_find_what_is_there(read_studio):
    assert {task.name: task.status for task in read_studio.tasks.list()} == {
        name: TaskStatus(task["status"]) for name, task in TASKS.items()
    }
    assert {task.type for task in read_studio.tasks.list() if task.status is TaskStatus.COMPLETED} == {
        *("sft", "dpo", "embedding", "kbalign")
    }
    for dataset in read_studio.datasets.list():
        rows = list(read_studio.datasets.store.rows(dataset.id))
        assert len(rows) == dataset.stats.total_samples > 0
    assert [vote.winner for vote in read_studio.chat.votes()] == [
        vote["winner"] for vote in ANSWERS["/api/compare/votes"]["votes"]
    ]
    assert "My sums" in {preset.title["en"] for preset in read_studio.presets.all()}


@pytest.mark.parametrize("name", DONE)
def test_a_done_task_is_described_compared_and_exported(client, name):
    task, other = TASKS[name]["id"], next(TASKS[each]["id"] for each in DONE if each != name)
    assert client.get(f"/api/finetune/tasks/{task}/logs").json()["lines"]
    both = client.get("/api/finetune/compare", params={"ids": f"{task},{other}"}).json()
    assert [run["id"] for run in both["tasks"]] == [task, other]
    packed = client.get(f"/api/finetune/tasks/{task}/download")
    with tarfile.open(fileobj=io.BytesIO(packed.content)) as archive:
        names = {Path(entry).name for entry in archive.getnames()}
    assert {"training_args.json", "lineage.json"} <= names
    assert any(file.endswith(".safetensors") for file in names)


@pytest.mark.parametrize("name", [name for name in DONE if TASKS[name]["type"] in ("sft", "dpo", "kbalign")])
def test_a_done_task_is_the_start_of_another(studio, home, built_in_model, name):
    models = home / "studio_finetune/models"
    models.mkdir(exist_ok=True)
    (models / built_in_model.name).symlink_to(built_in_model)
    was = studio.tasks.get(TASKS[name]["id"])
    whole = not was.recipe["use_lora"]
    begin = {"model_name_or_path": str(was.folder)} if whole else {"start_from": was.id}
    data = TASKS["sums"]["dataset_id"]
    recipe = {"model_name_or_path": was.model, "lora_r": 1, "max_steps": 1, "dataset_id": data, **begin}
    new = studio.training.start(recipe)
    assert new.status is TaskStatus.QUEUED
    job = json.loads((new.folder / "job.json").read_text(encoding="utf-8"))
    assert str(was.folder) in (job["model_location"], job["adapter_location"])


@pytest.mark.training
def test_what_waited_is_trained_and_what_was_cut_off_is_known(studio):
    """As the first start of today's studio after the update finds it."""
    studio.start()
    queued = TASKS["queued"]["id"]
    wait_until(lambda: studio.tasks.get(queued).status.is_over, seconds=240)
    assert studio.tasks.get(queued).status is TaskStatus.COMPLETED, studio.tasks.get(queued).reason
    cut_off = studio.tasks.get(SWITCHED_OFF)
    assert cut_off.status is TaskStatus.FAILED
    assert cut_off.next_action is not None
