"""What may be asked of tasks and cannot be done: each refused by name, in both languages, and nothing changes."""

import json

import pytest
from fastapi.testclient import TestClient
from model_folder import write_model
from refusing import refuse
from rest_app import app_of

from sage_studio.studio import Studio
from sage_studio.tasks.task import TaskStatus

OVER = [status for status in TaskStatus if status.is_over]
RUNNING = [status for status in TaskStatus if status.is_running]
NO_ID = ("is no valid id", "不是有效的 id")
CONTROL = ("holds control characters", "含有控制字符")
NO_TASK = ("There is no task", "没有任务")
NO_FIT = ("The request does not fit", "请求格式不正确")
NO_TEMPLATE = ("There is no template", "没有模板")
TASKS, TEMPLATES, ESTIMATE = "/api/finetune/tasks", "/api/finetune/templates", "/api/finetune/estimate"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Nothing supervises: a task stays as it is put, one in each state."""
    from sage_studio.settings import load_settings

    folder = tmp_path_factory.mktemp("task-inputs")
    studio = Studio(load_settings(home=folder / "home"))
    (folder / "rows.json").write_text('[{"instruction": "a", "output": "b"}]')
    dataset = studio.datasets.upload(folder / "rows.json")
    model = str(write_model(folder / "model"))
    for status in TaskStatus:
        task = studio.training.start({"model_name_or_path": model, "dataset_id": dataset.id, "name": status.value})
        if status is not TaskStatus.QUEUED:
            studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, status)
    return studio


@pytest.fixture
def ids(studio: Studio):
    """The id of the task in each state; afterwards they are in it still, and there is no other."""
    before = studio.tasks.list()
    yield {task.name: task.id for task in before}
    assert studio.tasks.list() == before
    assert sorted(path.name for path in studio.settings.outputs_dir.iterdir()) == sorted(task.id for task in before)
    assert len(studio.presets.all()) == len(studio.presets.store.ready)


@pytest.fixture(scope="module", params=["en", "zh"])
def client(studio, request):
    with TestClient(app_of(studio), base_url="http://127.0.0.1") as client:
        client.headers["Accept-Language"] = request.param
        yield client


ROUTES = [
    ("GET", ""),
    ("GET", "/logs"),
    ("GET", "/events"),
    ("GET", "/files"),
    ("GET", "/files/1-short.jsonl"),
    ("GET", "/download"),
    ("DELETE", ""),
    ("DELETE", "/delete"),
    ("POST", "/resume"),
    ("POST", "/retry"),
    ("POST", "/reproduce"),
]
BAD_IDS = {
    "finetune-1": (404, NO_TASK),
    "...": (400, NO_ID),
    ".hidden": (400, NO_ID),
    "a%20b": (400, NO_ID),
    "finetune-1%00": (400, CONTROL),
    "finetune-1;--": (400, NO_ID),
    "%E5%90%8D": (400, NO_ID),
    "x" * 300: (400, NO_ID),
}


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize("task_id", BAD_IDS)
def test_an_id_of_no_task(client, ids, method, route, task_id):
    status, said = BAD_IDS[task_id]
    answer = client.request(method, f"{TASKS}/{task_id}{route}")
    if "%E5" in task_id:  # its letters are in the text, whatever the language
        assert answer.status_code == status
        return
    refuse(answer, status, said)


WRONG_STATES = [
    *(("POST", "/resume", status) for status in TaskStatus if status.value not in ("stopped", "failed")),
    *(("POST", "/retry", status) for status in TaskStatus if status.value not in ("stopped", "failed")),
    *(("POST", "/reproduce", status) for status in TaskStatus if status is not TaskStatus.COMPLETED),
    *(("GET", "/download", status) for status in TaskStatus if status is not TaskStatus.COMPLETED),
    *(("DELETE", "", status) for status in OVER),
    *(("DELETE", "/delete", status) for status in RUNNING),
]


@pytest.mark.parametrize(("method", "route", "status"), WRONG_STATES)
def test_a_task_in_the_wrong_state(client, ids, method, route, status):
    said = ("still running", "仍在运行") if route == "/delete" else status.value
    refuse(client.request(method, f"{TASKS}/{ids[status.value]}{route}"), 409, ids[status.value], said)


@pytest.mark.parametrize("verb", ["backend", "retriever"])
@pytest.mark.parametrize("status", [status for status in TaskStatus if status is not TaskStatus.COMPLETED])
def test_a_model_that_is_not_there_yet(client, ids, verb, status):
    answer = client.post(f"/api/finetune/use-as-{verb}", json={"task_id": ids[status.value]})
    refuse(answer, 409, ids[status.value], status.value)


@pytest.mark.parametrize("route", ["/download", "/reproduce"])
def test_a_completed_task_whose_model_is_gone(client, ids, route):
    answer = client.request("GET" if route == "/download" else "POST", f"{TASKS}/{ids['completed']}{route}")
    refuse(answer, 404, ids["completed"], ("is gone", "已不存在"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", ("limit = 0: it must be at least 1", "limit = 0：必须不小于 1")),
        ("limit=-5", ("limit = -5", "limit = -5")),
        ("limit=ten", "limit = 'ten'"),
        ("limit=1.5", "limit = '1.5'"),
        ("limit=", "limit = ''"),
        ("offset=-1", ("offset = -1: it must be at least 0", "offset = -1：必须不小于 0")),
        ("offset=end", "offset = 'end'"),
        ("offset=1e3", "offset = '1e3'"),
    ],
)
def test_a_page_of_a_log_that_is_none(client, ids, query, said):
    refuse(client.get(f"{TASKS}/{ids['completed']}/logs?{query}"), 422, said)


@pytest.mark.parametrize("query", ["limit=1" + "0" * 30, "offset=1" + "0" * 30])
def test_a_number_beyond_every_log_is_an_empty_page(client, ids, query):
    answer = client.get(f"{TASKS}/{ids['completed']}/logs?{query}")
    assert answer.json() == {"lines": [], "offset": 0, "size": 0}


@pytest.mark.parametrize("last", ["-1", "begin", "1.5", "0x10", ""])
def test_a_place_in_the_events_that_is_none(client, ids, last):
    refuse(
        client.get(f"{TASKS}/{ids['completed']}/events", headers={"Last-Event-ID": last}), 422, NO_FIT, "last-event-id"
    )


EVENTS = [{"time": 1.0, "phase": "training", "step": step} for step in (1, 2, 3)]


@pytest.mark.parametrize(
    ("last", "steps"), [("0", [1, 2, 3]), ("5", [2, 3]), ("9" * 40, [1, 2, 3])], ids=["begin", "within", "beyond"]
)
def test_a_place_within_an_event_or_behind_the_end_loses_no_later_one(client, ids, studio, last, steps):
    """So does half an event of a trainer that was killed while it wrote."""
    first, *others = (json.dumps(event) + "\n" for event in EVENTS)
    file = studio.tasks.get(ids["completed"]).folder / "progress.jsonl"
    file.write_text(first + '{"time": 1.5, "pha\n' + "no event\n" + "".join(others))
    stream = client.get(f"{TASKS}/{ids['completed']}/events", headers={"Last-Event-ID": last}).text
    blocks = [block.splitlines() for block in stream.split("\n\n") if block]
    file.unlink()
    assert [json.loads(block[2].removeprefix("data: "))["step"] for block in blocks[:-1]] == steps
    assert blocks[-1][1] == "event: end"


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ("", 422, ("0 tasks cannot be compared", "无法比较 0 个任务")),
        (",,", 422, ("0 tasks", "0 个任务")),
        ("{completed}", 422, ("1 tasks", "1 个任务")),
        ("{completed}, {completed}", 422, ("1 tasks", "1 个任务")),
        ("finetune-1,finetune-2", 404, NO_TASK),
        ("{completed},finetune-2", 404, "finetune-2"),
        ("../x,{completed}", 400, NO_ID),
    ],
)
def test_runs_that_cannot_be_compared(client, ids, asked, status, said):
    refuse(client.get("/api/finetune/compare", params={"ids": asked.format(**ids)}), status, said)


def test_runs_to_compare_must_be_named(client, ids):
    refuse(client.get("/api/finetune/compare"), 422, NO_FIT, "ids")


BAD_TEMPLATES = {
    "no title": ({}, "title = ''"),
    "a blank title": ({"title": "  "}, "title = ''"),
    "a long title": ({"title": "x" * 81}, "title ="),
    "an unseen title": ({"title": "a\0b"}, "title = 'a\\x00b'"),
    "a title of two lines": ({"title": "a\nb"}, "title = 'a\\nb'"),
    "a title that is no text": ({"title": 5}, "title = 5"),
    "no fields": ({"title": "a", "config": []}, "config = []"),
    "a bad value": ({"title": "a", "config": {"lora_r": 0}}, "lora_r = 0"),
    "an unknown field": ({"title": "a", "config": {"lora": 8}}, "lora = 8"),
    "an unknown method": ({"title": "a", "type": "magic"}, "magic"),
    "an unknown key": ({"title": "a", "recipe": {}}, "recipe = {}"),
    "a file that is not there": ({"title": "a", "config": {"config_file": "/no.yaml"}}, "config_file = '/no.yaml'"),
    "no YAML": ({"title": "a", "yaml": "[1, 2"}, ("no YAML", "不是有效的 YAML")),
    "YAML that runs code": ({"title": "a", "yaml": "!!python/object/apply:os.abort []"}, ("no YAML", "不是有效的")),
    "a YAML list": ({"title": "a", "yaml": "- a"}, ("no recipe", "没有训练配置")),
    "YAML numbers": ({"title": "a", "yaml": "1: 2"}, ("no recipe", "没有训练配置")),
    "YAML values that are none": ({"title": "a", "yaml": "values: 3"}, ("no recipe", "没有训练配置")),
    "a bad value in YAML": ({"title": "a", "yaml": "lora_r: 0"}, "lora_r = 0"),
    "an unknown field in YAML": ({"title": "a", "yaml": "lora: 8"}, "lora = 8"),
    "an unknown method in YAML": ({"title": "a", "yaml": "type: [1]"}, "[1]"),
    "YAML without a name": ({"yaml": "lora_r: 8"}, "title = ''"),
}


@pytest.mark.parametrize("bad", BAD_TEMPLATES)
def test_a_template_that_is_none(client, ids, bad):
    body, said = BAD_TEMPLATES[bad]
    refuse(client.post(TEMPLATES, json=body), 422, said)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/nobody/yaml", None, 404, NO_TEMPLATE),
        ("GET", "/.../yaml", None, 404, NO_TEMPLATE),
        ("GET", "/diff", None, 422, NO_FIT),
        ("GET", "/diff?first=quick-cpu&second=nobody", None, 404, NO_TEMPLATE),
        ("POST", "/nobody/duplicate", {"title": "a"}, 404, NO_TEMPLATE),
        ("POST", "/quick-cpu/duplicate", {"title": ""}, 422, "title = ''"),
        ("POST", "/quick-cpu/duplicate", {}, 422, "title"),
        ("DELETE", "/my-nobody", None, 404, NO_TEMPLATE),
        ("DELETE", "/quick-cpu", None, 409, ("comes with the studio", "是内置模板")),
    ],
)
def test_a_template_that_is_not_there_or_not_ones_own(client, ids, method, path, body, status, said):
    refuse(client.request(method, TEMPLATES + path, json=body), status, said)


BAD_ESTIMATES = {
    "no body": ({}, 422, "config"),
    "no fields": ({"config": []}, 422, "config = []"),
    "no model": ({"config": {}}, 422, "model_name_or_path"),
    "an unknown method": ({"type": "magic", "config": {}}, 422, "magic"),
    "a method that is no text": ({"type": None, "config": {}}, 422, "type = None"),
    "an unknown key": ({"config": {}, "more": 1}, 422, "more = 1"),
    "an unknown field": ({"config": {"model_name_or_path": "m", "dataset_id": "d", "lora": 1}}, 422, "lora = 1"),
    "a bad value": ({"config": {"model_name_or_path": "m", "dataset_id": "d", "lora_r": 0}}, 422, "lora_r = 0"),
    "an unknown model": ({"config": {"model_name_or_path": "nobody", "dataset_id": "d"}}, 422, "'nobody'"),
    "a folder that is not there": ({"config": {"model_name_or_path": "/no", "dataset_id": "d"}}, 422, "/no"),
    "a name that climbs": ({"config": {"model_name_or_path": "../x", "dataset_id": "d"}}, 400, "'../x'"),
}


@pytest.mark.parametrize("bad", BAD_ESTIMATES)
def test_an_estimate_of_nothing(client, ids, bad):
    body, status, said = BAD_ESTIMATES[bad]
    refuse(client.post(ESTIMATE, json=body), status, said)
