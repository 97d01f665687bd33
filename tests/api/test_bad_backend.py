"""What goes wrong around the chat's backend: a clear error by REST, and the model before it goes on answering."""

import json
import shutil

import httpx
import pytest
from refusing import refuse
from rest_app import LOGIN
from waiting import wait_until

from sage_studio.tasks.task import TaskStatus
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe

QUEUED, COMPLETED = TaskStatus.QUEUED, TaskStatus.COMPLETED


@pytest.fixture(params=["en", "zh"])
def asking(asking, request):
    """In either language; whatever happens, ``small`` answers before and after it."""
    asking.headers["Accept-Language"] = request.param
    known = asking.get("/api/models").json()
    yield asking
    now = asking.get("/api/models").json()
    assert now["current"] == known["current"] == "small"
    answer = asking.post("/api/chat", json={"message": "hello"})
    assert answer.json()["response"] == "small: hello "
    assert answer.json()["model"] == "small"


@pytest.fixture
def task_in(answering):
    """Make a task that is in a status, without a trainer."""
    answering.tasks.scheduler.close()

    def task_in(status):
        recipe = SFTRecipe(model_name_or_path=str(answering.settings.root / "no-base"), dataset_id="docs-v1")
        job = TrainingJob(model_location="/nowhere", data_path="/nowhere")
        task = answering.tasks.store.create(recipe, job, dataset_id="docs-v1", dataset_name="docs")
        return task if status is QUEUED else answering.tasks.store.transition(task.id, {QUEUED}, status)

    return task_in


def use(client, task):
    return client.post("/api/finetune/use-as-backend", json={"task_id": task.id})


@pytest.mark.parametrize("status", [status for status in TaskStatus if status is not COMPLETED])
def test_a_task_that_is_not_completed_is_no_backend(asking, task_in, status):
    task = task_in(status)
    refuse(use(asking, task), 409, (f"{task.id} is {status}, not completed", f"{task.id} 的状态是 {status}"))
    refuse(asking.get(f"/api/finetune/tasks/{task.id}/download"), 409, task.id)
    assert task.served_name not in asking.get("/api/models").text


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_task_whose_folder_is_gone_is_no_backend(asking, task_in, left):
    task = task_in(COMPLETED)
    shutil.rmtree(task.folder)
    if left != "nothing":
        task.folder.mkdir()
    gone = (f"The model folder of {task.id} is gone: {task.folder}", f"{task.id} 的模型文件夹已不存在：{task.folder}")
    refuse(use(asking, task), 404, gone)
    refuse(asking.get(f"/api/finetune/tasks/{task.id}/download"), 404, gone)
    assert task.served_name not in asking.get("/api/models").text


def test_an_unknown_task_is_no_backend(asking):
    answer = asking.post("/api/finetune/use-as-backend", json={"task_id": "finetune-1"})
    refuse(answer, 404, ("no task 'finetune-1'", "没有任务 'finetune-1'"))


def test_an_engine_that_does_not_start_is_said_with_its_last_words(asking, answering, tmp_path):
    folder = tmp_path / "bases" / "faulty"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    answering.serving.registry.register_model("faulty", str(folder), {"kind": "base"})
    answer = asking.post("/api/models/switch", json={"model_name": "faulty"})
    refuse(answer, 503, ("engine with faulty exited unexpectedly", "（faulty）意外退出"), "CUDA out of memory")
    assert "SAGE_STUDIO_GPU_MEMORY_UTILIZATION" in answer.json()["detail"]["hint"]


def test_a_prompt_that_is_too_long_names_the_limit(asking):
    for stream in (False, True):
        answer = asking.post("/api/chat", json={"message": "long", "stream": stream})
        refuse(answer, 422, ("context length of 64 tokens", "最多 64 个 token"))


@pytest.mark.parametrize("name", ["nobody", "../tuned"])
def test_a_name_that_no_model_has_gets_no_answer(asking, name):
    refuse(asking.post("/api/chat", json={"message": "hello", "model": name}), 404, f"'{name}'")
    refuse(asking.delete(f"/api/models/{name.replace('/', '%2F')}"), 404, f"'{name}'")


def test_an_engine_killed_in_mid_answer_ends_the_stream_with_an_error(asking):
    stream = asking.post("/api/chat", json={"message": "one die two", "stream": True}).text
    events = [json.loads(line.removeprefix("data: ")) for line in stream.split("\n\n") if line]
    assert [event["text"] for event in events] == ["small: ", "one ", ""]
    assert not any(event["done"] for event in events)
    said = {"en": "The connection to the engine was lost in the middle of the answer.", "zh": "引擎在回答过程中断开。"}
    assert events[-1]["error"]["code"] == "engine_unavailable"
    assert events[-1]["error"]["message"] == said[asking.headers["Accept-Language"]]
    assert events[-1]["error"]["hint"]


def test_an_engine_killed_in_mid_answer_is_an_error_without_a_stream_too(asking):
    answer = asking.post("/api/chat", json={"message": "one die two"})
    refuse(answer, 503, ("in the middle of the answer", "在回答过程中断开"))


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("path", ["chat", "compare"])
def test_a_client_that_leaves_in_mid_stream_ends_the_answer_in_the_engine(answering, address, tmp_path, path):
    body = {"message": "slow " * 1000, "stream": True}
    models = {"models": ["small", "tuned"]} if path == "compare" else {}
    with httpx.stream("POST", f"{address}/api/{path}", json=body | models, auth=LOGIN) as answer:
        assert "small" in next(answer.iter_lines())
    journal = tmp_path / "journal.jsonl"
    wait_until(lambda: '"cancelled": "small"' in journal.read_text())
    wait_until(lambda: answering.serving.registry.metrics()["vllm:num_requests_running"] == 0)
