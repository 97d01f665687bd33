"""The care of datasets through the routes: reports, rows as a model sees them, edits, combinations, enlargements."""

import csv
import io
import json
import threading

import pytest
from waiting import patient

from sage_studio.data.jobs import JobState
from sage_studio.errors import Conflict
from sage_studio.operations.jobs import JobView
from sage_studio.tasks.background import Resource
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import verbatim
from sage_studio.training.progress import Result, write_result

ROWS = [
    {"instruction": f"What is {n} plus {n}?", "output": f"It is {2 * n}, for {n} and {n} make {2 * n}."}
    for n in range(1, 41)
]
PARAPHRASE = "How much are the two?"


@pytest.fixture
def dataset(client):
    return upload(
        client, [*ROWS, ROWS[4], {"instruction": "Long?", "output": "word " * 300}, {"instruction": "", "output": "x"}]
    )


def upload(client, rows, name="sums"):
    return client.post("/api/datasets", files={"file": (f"{name}.json", json.dumps(rows).encode())}).json()["id"]


def done(studio, answer, state=JobState.COMPLETED):
    assert answer.status_code == 202, answer.json()
    job = studio._jobs.wait(answer.json()["id"])
    assert job.state is state, job
    return job


def refused(answer, status=422):
    assert answer.status_code == status, answer.json()
    return answer.json()["detail"]["message"]


@pytest.fixture
def report(client, studio, dataset, built_in_model):
    order = {"dataset_id": dataset, "model": str(built_in_model), "max_length": 128}
    done(studio, client.post("/api/datasets/report", json=order))
    return client.get(f"/api/datasets/{dataset}/report").json()["report"]


def test_a_report_is_made_in_the_background_by_the_models_own_tokenizer(client, dataset, report, built_in_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built_in_model)
    rows = [*ROWS, ROWS[4], {"instruction": "Long?", "output": "word " * 300}]
    lengths = [
        len(
            tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": row["instruction"]},
                    {"role": "assistant", "content": row["output"]},
                ],
                return_dict=True,
            )["input_ids"]
        )
        for row in rows
    ]
    assert report["tokens"] == sum(lengths)
    assert report["tokens_per_epoch"] == sum(min(length, 128) for length in lengths)
    assert report["longest"] == max(lengths) > 128
    assert report["share_cut"] == 1 / 42
    assert report["counts"]["duplicate"] == 1
    assert report["counts"]["cut"] == 1
    assert sum(count for _, count in report["histogram"]) == 42
    assert report["seconds_per_epoch"] is None, "nobody has trained this model here"
    assert client.get("/api/datasets").json()[0]["id"] == dataset


def test_a_dataset_is_checked_once_there_is_a_report(studio, dataset, report):
    assert studio.datasets.is_inspected(dataset)
    assert not studio.datasets.is_inspected("none-v1")


def test_the_list_of_rows_is_a_file_in_two_shapes(client, dataset, report):
    answer = client.get(f"/api/datasets/{dataset}/findings", params={"format": "csv"})
    assert "attachment" in answer.headers["content-disposition"]
    cells = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert {row["kind"] for row in cells} >= {"dropped", "duplicate", "cut"}
    assert next(row for row in cells if row["kind"] == "dropped")["where"] == "43"
    assert next((row["row"], row["of"]) for row in cells if row["kind"] == "duplicate") == ("41", "5")
    lines = client.get(f"/api/datasets/{dataset}/findings", params={"kind": "cut"}).text.splitlines()
    assert [json.loads(line)["row"] for line in lines] == [42]


def test_a_dataset_without_a_report_says_so(client, dataset):
    assert client.get(f"/api/datasets/{dataset}/report").json() == {"report": None}
    lines = client.get(f"/api/datasets/{dataset}/findings").text.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["dropped"]
    assert refused(client.get("/api/datasets/none-v1/report"), 404)


def test_leaks_into_the_dataset_to_validate_with(client, studio, dataset, built_in_model):
    other = upload(client, [ROWS[7], {"instruction": "Who?", "output": "Nobody at all knows that."}], "held-out")
    order = {"dataset_id": dataset, "model": str(built_in_model), "against": other}
    done(studio, client.post("/api/datasets/report", json=order))
    lines = client.get(f"/api/datasets/{dataset}/findings", params={"kind": "leak"}).text.splitlines()
    assert [(json.loads(line)["row"], json.loads(line)["of"]) for line in lines] == [(8, 1)]


def test_time_is_estimated_by_earlier_runs_of_the_model(studio, dataset, report, client, tmp_path, monkeypatch):
    model = report["model"]
    folder = tmp_path / "task"
    folder.mkdir()
    write_result(folder, Result(status="completed", tokens_per_second=100.0))

    class Run:
        status, folder = TaskStatus.COMPLETED, tmp_path / "task"
        dataset_id = ""

    Run.model = model
    monkeypatch.setattr(studio.tasks.store, "list", lambda: [Run])
    again = client.get(f"/api/datasets/{dataset}/report").json()["report"]
    assert again["seconds_per_epoch"] == pytest.approx(report["tokens_per_epoch"] / 100, abs=0.1)


def test_a_row_as_the_model_sees_it(client, dataset, built_in_model):
    address = f"/api/datasets/{dataset}/rows/3/tokens"
    (seen,) = client.get(address, params={"model": str(built_in_model), "max_length": 64}).json()
    assert len(seen["ids"]) == len(seen["labels"]) == seen["tokens"]
    learned = "".join(piece["text"] for piece in seen["pieces"] if piece["fate"] == "learned")
    assert learned.startswith("It is 6")
    assert "What is 3 plus 3?" in "".join(piece["text"] for piece in seen["pieces"] if piece["fate"] == "read")
    for row in (0, 43):
        where = f"/api/datasets/{dataset}/rows/{row}/tokens"
        assert f"no row {row}" in refused(client.get(where, params={"model": str(built_in_model)}))


def test_rows_are_changed_into_a_new_version(client, dataset):
    changes = [{"row": 1, "answer": "Two."}, {"row": 41, "exclude": True}]
    new = client.post(f"/api/datasets/{dataset}/edit", json={"changes": changes}).json()
    assert (new["id"], new["stats"]["total_samples"]) == ("sums-v2", 41)
    first = client.get(f"/api/datasets/{new['id']}/preview", params={"limit": 1}).json()["rows"][0]
    assert (first["row"], first["output"], first["origin"]["dataset_row"]) == (1, "Two.", 1)
    before = client.get(f"/api/datasets/{dataset}/preview", params={"search": "1 plus 1?", "limit": 1}).json()["rows"][
        0
    ]
    assert before["output"].startswith("It is 2")
    assert refused(client.post(f"/api/datasets/{dataset}/edit", json={"changes": [{"row": 99}]}))


def test_datasets_are_combined(client, dataset):
    other = upload(client, [{"instruction": "Who?", "output": "Ada."}], "people")
    body = {"portions": [{"dataset_id": dataset, "cap": 10}, {"dataset_id": other, "weight": 3}], "name": "mix"}
    new = client.post("/api/datasets/combine", json=body).json()
    assert (new["kind"], new["stats"]["total_samples"]) == ("combined", 13)
    rows = client.get(f"/api/datasets/{new['id']}/preview").json()["rows"]
    assert sum(row["origin"]["dataset"] == other for row in rows) == 3
    assert refused(client.post("/api/datasets/combine", json={"portions": []}))
    assert "weight" in refused(
        client.post("/api/datasets/combine", json={"portions": [{"dataset_id": dataset, "weight": 0}]})
    )


def test_rows_are_said_in_other_words_and_questions_are_written(client, studio, dataset, monkeypatch):
    monkeypatch.setattr(studio.serving, "ask", lambda *_: PARAPHRASE)
    order = {"dataset_id": dataset, "max_rows": 5, "least_alike": 0, "name": "more"}
    job = done(studio, client.post("/api/datasets/augment", json=order))
    assert (job.done, job.total, job.result) == (5, 5, "more-v1")
    made = client.get("/api/datasets/more-v1/preview", params={"search": PARAPHRASE}).json()
    assert [row["origin"]["dataset_row"] for row in made["rows"]] == [1, 2, 3, 4, 5]

    said = "Q: How much do seven and seven make?\nA: 14.\nE: for 7 and 7 make 14"
    monkeypatch.setattr(studio.serving, "ask", lambda *_: said)
    job = done(studio, client.post("/api/datasets/annotate", json={"dataset_id": dataset}))
    (row,) = client.get(f"/api/datasets/{job.result}/preview").json()["rows"]
    assert (row["instruction"], row["origin"]["dataset_row"]) == ("How much do seven and seven make?", 7)
    assert row["origin"]["evidence"] == "for 7 and 7 make 14"
    ids = [known["id"] for known in client.get("/api/dataset-jobs", params={"dataset_id": dataset}).json()]
    assert len(ids) == 2
    assert client.delete(f"/api/dataset-jobs/{ids[0]}").status_code == 200
    assert refused(client.get(f"/api/dataset-jobs/{ids[0]}"), 404)


def test_such_work_is_stopped_and_gone_on_with_and_keeps_its_dataset(client, studio, dataset, monkeypatch):
    asked, may = threading.Semaphore(0), threading.Semaphore(0)

    def ask(*_):
        asked.release()
        assert may.acquire(timeout=patient())
        return PARAPHRASE

    monkeypatch.setattr(studio.serving, "ask", ask)
    started = client.post("/api/datasets/augment", json={"dataset_id": dataset, "least_alike": 0}).json()
    assert asked.acquire(timeout=patient())
    assert "in use by augment-" in refused(client.delete(f"/api/datasets/{dataset}"), 409)
    client.post(f"/api/dataset-jobs/{started['id']}/stop")
    may.release(4)
    stopped = studio._jobs.wait(started["id"])
    assert (stopped.state, stopped.done) == (JobState.STOPPED, 4)
    may.release(200)
    assert client.post(f"/api/dataset-jobs/{started['id']}/resume").status_code == 200
    job = studio._jobs.wait(started["id"])
    assert (job.state, job.done) == (JobState.COMPLETED, 42)
    assert refused(client.post(f"/api/dataset-jobs/{started['id']}/resume"), 409)
    assert client.delete(f"/api/datasets/{dataset}").status_code == 200


def test_the_current_chat_model_answers_what_a_job_asks(asking, answering):
    dataset = upload(asking, ROWS[:3])
    job = done(
        answering,
        asking.post("/api/datasets/augment", json={"dataset_id": dataset, "keep_originals": False}),
        JobState.FAILED,
    )
    assert "no row" in job.message.en, "the fake engine only echoes, so that nothing is worth keeping"
    assert answering.serving.ask("hello", 0.5, 10).startswith("small: hello")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("report", {"dataset_id": "sums-v1", "max_length": 3}),
        ("report", {"dataset_id": "sums-v1", "model": "no such model"}),
        ("augment", {"dataset_id": "sums-v1", "ways": []}),
        ("augment", {"dataset_id": "sums-v1", "ways": ["shout"]}),
        ("augment", {"dataset_id": "sums-v1", "least_alike": 0.9, "most_alike": 0.2}),
        ("augment", {"dataset_id": "passages-v1"}),
        ("annotate", {"dataset_id": "sums-v1", "pairs": 0}),
        ("annotate", {"dataset_id": "pairs-v1"}),
    ],
)
def test_orders_that_cannot_be_are_refused(client, path, body):
    upload(client, ROWS[:2])
    upload(client, [{"text": "rain falls"}], "passages")
    upload(client, [{"prompt": "Why?", "chosen": "So.", "rejected": "No."}], "pairs")
    assert refused(client.post(f"/api/datasets/{path}", json=body))
    assert client.get("/api/dataset-jobs").json() == []


def test_datasets_that_are_not_there_are_refused(client):
    for path in ("report", "augment", "annotate"):
        assert refused(client.post(f"/api/datasets/{path}", json={"dataset_id": "none-v1"}), 404)
    assert refused(client.post("/api/datasets/combine", json={"portions": [{"dataset_id": "none-v1"}]}), 404)


def test_a_job_is_shown_in_the_callers_language(studio, dataset):
    def fail(_):
        raise Conflict(verbatim("no", "不行"))

    studio._jobs.register("report", fail, Resource.CPU)
    job = studio._jobs.wait(studio._jobs.start("report", dataset, {}).id)
    assert (JobView.of(job, "zh").message, JobView.of(job, "en").message) == ("不行", "no")
