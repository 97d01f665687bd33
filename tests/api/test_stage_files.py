"""The files of a KBAlign task's stages by REST: listed, fetched, and nothing else of the machine."""

import json

import pytest
from refusing import refuse

from sage_studio.studio import Studio
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import verbatim
from sage_studio.training.methods.kbalign.stage_files import StageFile
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import KBAlignRecipe
from sage_studio.ui.tasks.tasks_table import files_table


@pytest.fixture
def task(studio: Studio) -> Task:
    """A task that nobody starts, its first stage done."""
    studio.tasks.scheduler.close()
    recipe = KBAlignRecipe(model_name_or_path="m", dataset_id="kb-v1")
    task = studio.tasks.store.create(
        recipe, TrainingJob(model_location="m", data_path="d"), dataset_id="kb-v1", dataset_name="kb"
    )
    (task.folder / "kbalign").mkdir()
    (task.folder / "kbalign" / "1-short.jsonl").write_text('{"chunk":0}\n{"chunk":1}\n')
    (task.folder / "kbalign" / "private.jsonl").write_text("{}\n")
    return task


def test_the_stages_files_are_listed_and_fetched(client, task):
    address = f"/api/finetune/tasks/{task.id}/files"
    listed = client.get(address, headers={"Accept-Language": "zh"}).json()
    assert [(file["name"], file["rows"]) for file in listed] == [("1-short.jsonl", 2)]
    assert listed[0]["meaning"].startswith("短依赖")
    fetched = client.get(f"{address}/1-short.jsonl")
    assert fetched.text == '{"chunk":0}\n{"chunk":1}\n'
    assert 'filename="1-short.jsonl"' in fetched.headers["content-disposition"]


@pytest.mark.parametrize(
    "name",
    [
        "private.jsonl",
        "recipe.yaml",
        "..%2Frecipe.yaml",
        "%2e%2e%2f%2e%2e%2fstudio.db",
        "%2Fetc%2Fpasswd",
        "2-long.jsonl",
    ],
)
def test_nothing_else_can_be_fetched(client, task, name):
    refused = client.get(f"/api/finetune/tasks/{task.id}/files/{name}")
    assert refused.status_code == 404


@pytest.mark.parametrize("task_id", ["none", "..%2F..", "finetune-0"])
def test_a_task_that_is_none_has_no_files(client, task_id):
    assert client.get(f"/api/finetune/tasks/{task_id}/files").status_code in (400, 404)


SENT = {"Content-Type": "application/jsonl"}


def test_an_edited_file_takes_the_place_of_the_old_one(client, studio, task):
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.STOPPED)
    address = f"/api/finetune/tasks/{task.id}/files/1-short.jsonl"
    text = '\ufeff{"chunk": 0, "pairs": [{"question": "谁？", "answer": "我。"}]}\r\n\n{"chunk": 2}'
    answer = client.put(address, content=text.encode(), headers=SENT)
    assert (answer.status_code, answer.json()["rows"]) == (200, 2)
    assert [json.loads(line)["chunk"] for line in client.get(address).text.splitlines()] == [0, 2]
    assert "谁？" in client.get(address).text


@pytest.mark.parametrize("line", ["[1]", "5", '{"chunk": 0', "chunk"])
def test_a_line_that_is_no_object_is_named_and_nothing_changes(client, studio, task, line):
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.STOPPED)
    address = f"/api/finetune/tasks/{task.id}/files/1-short.jsonl"
    refuse(client.put(address, content='{"chunk": 0}\n' + line, headers=SENT), 422, "1-short.jsonl, line 2")
    assert client.get(address).text == '{"chunk":0}\n{"chunk":1}\n'


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b""], ids=["bytes", "nothing"])
def test_what_is_no_text_changes_nothing(client, studio, task, content):
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.STOPPED)
    address = f"/api/finetune/tasks/{task.id}/files/1-short.jsonl"
    refuse(client.put(address, content=content, headers=SENT), 422, "body")
    assert client.get(address).text == '{"chunk":0}\n{"chunk":1}\n'


@pytest.mark.parametrize("status", ["queued", "training", "completed"])
def test_a_task_that_is_not_stopped_keeps_its_files(client, studio, task, status):
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus(status))
    address = f"/api/finetune/tasks/{task.id}/files/1-short.jsonl"
    refuse(client.put(address, content='{"chunk": 5}', headers=SENT), 409, status)
    assert client.get(address).text == '{"chunk":0}\n{"chunk":1}\n'


@pytest.mark.parametrize("name", ["private.jsonl", "recipe.yaml", "2-long.jsonl", "..%2Frecipe.yaml"])
def test_no_other_file_can_be_written(client, studio, task, name):
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.FAILED)
    before = {path: path.read_bytes() for path in task.folder.rglob("*") if path.is_file()}
    assert client.put(f"/api/finetune/tasks/{task.id}/files/{name}", content="{}", headers=SENT).status_code == 404
    assert {path: path.read_bytes() for path in task.folder.rglob("*") if path.is_file()} == before


def test_the_page_links_each_file_and_says_where_they_lie(studio, task):
    shown = files_table(task, studio.training.stage_files(task.id), "en")
    assert f'href="api/finetune/tasks/{task.id}/files/1-short.jsonl"' in shown
    assert str(task.folder / "kbalign") in shown
    assert files_table(task, [], "en") == ""


def test_a_name_is_escaped_on_the_page(task):
    file = StageFile("<b>.jsonl", task.folder, verbatim("<i>", "<i>"), 1, 1)
    assert "<b>" not in files_table(task, [file], "en")
