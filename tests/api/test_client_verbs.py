"""What ``gradio_client`` may call about datasets, without the app around it: the same verbs as the routes."""

import json

import pytest

from sage_studio.data.jobs import JobState
from sage_studio.errors import Conflict, NotFound
from sage_studio.tasks.task import TaskStatus
from sage_studio.ui.curation_endpoints import curation_verbs
from sage_studio.ui.endpoints import _data_verbs

ROWS = [{"instruction": f"What is {n} plus {n}?", "output": f"It is {2 * n}."} for n in range(1, 9)]


@pytest.fixture
def verbs(studio):
    return {verb.__name__: verb for verb in (*_data_verbs(studio), *curation_verbs(studio))}


@pytest.fixture
def dataset(studio, tmp_path):
    path = tmp_path / "sums.json"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    return studio.datasets.upload(path).id


def test_datasets_are_listed_and_deleted(verbs, dataset):
    (listed,) = verbs["list_datasets"]()
    assert (listed["id"], listed["stats"]["total_samples"]) == (dataset, 8)
    assert verbs["delete_dataset"](dataset)["status"] == "success"
    assert verbs["list_datasets"]() == []
    with pytest.raises(NotFound):
        verbs["delete_dataset"](dataset)


def test_a_dataset_that_a_task_needs_is_not_deleted(verbs, dataset, studio, monkeypatch):
    class Waiting:
        id, dataset_id, status = "finetune-1", dataset, TaskStatus.QUEUED

    monkeypatch.setattr(studio.tasks.store, "list", lambda: [Waiting])
    with pytest.raises(Conflict, match="in use by finetune-1"):
        verbs["delete_dataset"](dataset)
    assert verbs["list_datasets"]()


def test_the_band_is_the_callers_and_work_is_forgotten(verbs, dataset, studio, monkeypatch):
    monkeypatch.setattr(
        studio.serving, "ask", lambda prompt, *_: prompt.split("-----")[1].strip().replace("What is", "Tell")
    )
    band = {"least_alike": 0.0, "most_alike": 0.2, "temperature": 0.1, "keep_originals": False}
    strict = verbs["augment_dataset"](dataset, name="strict", **band)
    assert studio._jobs.wait(strict["id"]).state is JobState.FAILED, "all are too much like their sources"
    mild = verbs["augment_dataset"](dataset, name="mild", **{**band, "most_alike": 1.0})
    assert studio._jobs.wait(mild["id"]).state is JobState.COMPLETED
    assert studio._jobs.order(mild["id"])["temperature"] == 0.1
    assert studio.datasets.get("mild-v1").stats.total_samples == 8
    verbs["delete_dataset_job"](mild["id"])
    assert [job["id"] for job in verbs["list_dataset_jobs"]()] == [strict["id"]]


def test_the_quick_start_set_and_its_test_questions(verbs):
    dataset = verbs["add_quickstart_dataset"]()
    assert dataset["name"] == "sage-quickstart"
    assert verbs["list_datasets"]() == [dataset]
    rows = verbs["preview_dataset"](dataset["id"], limit=1000)["rows"]
    assert not {row["instruction"] for row in rows} & {each["question"] for each in verbs["quickstart_test"]()}
