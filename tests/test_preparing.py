"""What is made ready for a task in a process of its own: the model, the data file, the rows; and how it breaks off."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_folder import write_model
from waiting import TRAINING, patient, wait_until

from sage_studio import preflight
from sage_studio.catalog import BUILT_IN, BUILT_IN_EMBEDDER
from sage_studio.preparing.child import prepare
from sage_studio.settings import PROJECT, Settings
from sage_studio.studio import Studio
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.training.progress import Phase, Reason, Result, read_events, read_job, read_result
from sage_studio.training.run import StopRequest
from sage_studio.training.save import base_revision, write_lineage

ROW = {"instruction": "Why?", "output": "Because."}
MANY = 6000
"""Rows that are more than is read while somebody waits for a click."""


@pytest.fixture
def studio(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Its verbs, without a scheduler; a child reads the same settings."""
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    return Studio(settings)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[[list[Any]], Path]:
    def file_of(rows: list[Any]) -> Path:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows))
        return path

    return file_of


def prepared(task: Task) -> Result | None:
    """What the child says of a task: nothing where it is ready."""
    return (prepare(task.folder, StopRequest()) and None) or read_result(task.folder)


def phases(task: Task) -> list[Phase]:
    return list(dict.fromkeys(event.phase for event in read_events(task.folder)[0]))


def test_what_is_small_and_here_needs_no_preparation(studio, model, file_of):
    task = studio.training.start({"model_name_or_path": str(model), "train_data_path": str(file_of([ROW]))})
    job = read_job(task.folder)
    assert job.prepared
    assert len(job.dataset_sha256) == 64


def test_many_rows_are_read_with_their_number(studio, model, file_of):
    dataset = studio.datasets.upload(file_of([{**ROW, "instruction": f"Why {n}?"} for n in range(MANY)]))
    assert not preflight.is_small(studio.datasets.store.data_path(dataset.id))
    task = studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id})
    assert (task.status, read_job(task.folder).prepared) == ("queued", False)
    assert prepared(task) is None
    job = read_job(task.folder)
    assert (job.prepared, job.dataset_sha256, job.dataset_id) == (
        True,
        studio.datasets.store.hashed(dataset).sha256,
        dataset.id,
    )
    events, _ = read_events(task.folder)
    counted = [event for event in events if event.phase is Phase.CHECKING_ROWS and event.total]
    assert [(event.done, event.total, event.unit) for event in (counted[0], counted[-1])] == [
        (0, MANY, "rows"),
        (MANY, MANY, "rows"),
    ]


def test_a_large_file_becomes_the_dataset(studio, model, file_of):
    path = file_of([{**ROW, "instruction": f"Why {n}?"} for n in range(MANY)])
    task = studio.training.start({"model_name_or_path": str(model), "train_data_path": str(path)})
    assert (task.dataset_id, task.dataset_name, studio.datasets.list()) == ("", "rows.json", [])
    assert prepared(task) is None
    job = read_job(task.folder)
    (dataset,) = studio.datasets.list()
    assert (job.dataset_id, job.dataset_name, dataset.stats.total_samples) == (dataset.id, "rows", MANY)
    assert Path(job.data_path).is_file()
    assert phases(task)[:2] == [Phase.READING_FILE, Phase.CHECKING_ROWS]


@pytest.mark.parametrize("kind", ["sft", "kbalign"])
def test_a_large_file_that_is_none_is_refused_at_once_or_fails_with_the_same_words(studio, model, tmp_path, kind):
    path = tmp_path / "rows.json"
    path.write_text("[1, 2" + " " * (300 << 10))
    field = "input_path" if kind == "kbalign" else "train_data_path"
    task = studio.training.start({"type": kind, "model_name_or_path": str(model), field: str(path)})
    result = prepared(task)
    assert (result.status, result.reason) == ("failed", Reason.DATA)
    assert all((*result.message, *result.hint)) or result.message[0] != result.message[1]
    assert not read_job(task.folder).prepared


def test_a_row_far_behind_that_the_template_refuses_fails_the_task_before_it_has_a_gpu(studio, model, file_of):
    (model / "chat_template.jinja").write_text(
        "{% if 'Bad' in messages[0].content %}{{ raise_exception('no') }}{% endif %}{{ messages }}"
    )
    rows = [{**ROW, "instruction": f"Why {n}?"} for n in range(MANY)]
    rows[4321]["instruction"] = "Bad"
    dataset = studio.datasets.upload(file_of(rows))
    result = prepared(studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id}))
    assert (result.status, result.reason) == ("failed", Reason.DATA)
    assert "row 4322" in result.message[0]
    assert "第 4322 行" in result.message[1]


def test_rows_with_nothing_to_learn_fail_it(studio, model, file_of):
    rows = [{"instruction": f"{n} " + "word " * 100, "output": "Because."} for n in range(MANY)]
    dataset = studio.datasets.upload(file_of(rows))
    values = {"model_name_or_path": str(model), "dataset_id": dataset.id, "max_length": 64}
    result = prepared(studio.training.start(values))
    assert f"In all {MANY} rows the prompt alone fills max_length = 64" in result.message[0]


def test_a_dataset_that_was_deleted_meanwhile_fails_it(studio, model, file_of):
    dataset = studio.datasets.upload(file_of([{**ROW, "instruction": f"Why {n}?"} for n in range(MANY)]))
    task = studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id})
    studio.datasets.store.delete(dataset.id)
    result = prepared(task)
    assert (result.reason, result.message[0]) == (Reason.DATA, f"There is no dataset {dataset.id}.")


def test_what_nobody_foresaw_is_told_and_logged(studio, model, file_of, capsys, monkeypatch):
    dataset = studio.datasets.upload(file_of([{**ROW, "instruction": f"Why {n}?"} for n in range(MANY)]))
    task = studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id})
    monkeypatch.setattr(preflight, "check_rows", lambda *_: 1 // 0)
    assert prepared(task).reason is Reason.BUG
    assert "ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize("same", [True, False])
def test_a_run_that_is_repeated_has_the_same_rows_and_model(studio, model, file_of, same):
    dataset = studio.datasets.upload(file_of([{**ROW, "instruction": f"Why {n}?"} for n in range(MANY)]))
    task = studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id})
    dataset = studio.datasets.store.hashed(dataset)
    (task.folder / "training_args.json").write_text("{}")
    write_lineage(
        task.folder,
        dataset_id=dataset.id,
        dataset_sha256=dataset.sha256,
        docs_commit="",
        rows=1,
        base_model=str(model),
        base_revision=base_revision(str(model)) if same else "fingerprint:other",
        chat_template_sha256="",
        versions={},
        hardware="CPU",
        recipe=task.recipe,
    )
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.COMPLETED)
    again = studio.training.reproduce(task.id)
    result = prepared(again)
    if same:
        assert result is None
    else:
        assert (result.reason, "is not what it was" in result.message[0]) == (Reason.MODEL, True)


# The built-in models, and a process that is really started and stopped


def child(task: Task) -> "subprocess.Popen[bytes]":
    log = (task.folder / "train.log").open("ab")
    with log:
        command = [sys.executable, "-m", "sage_studio.preparing", str(task.folder)]
        return subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log, start_new_session=True)


def test_the_built_in_model_is_unpacked_for_the_task(studio, file_of):
    values = {"type": "embedding", "model_name_or_path": BUILT_IN_EMBEDDER}
    rows = [{"query": f"q{n}", "pos": [f"p{n}"]} for n in range(8)]
    task = studio.training.start({**values, "train_data_path": str(file_of(rows))})
    assert not read_job(task.folder).prepared
    assert child(task).wait(patient(TRAINING)) == 0
    job = read_job(task.folder)
    assert job.prepared
    assert (Path(job.model_location) / "config.json").is_file()
    assert phases(task)[0] is Phase.UNPACKING


def test_a_stop_while_the_model_is_unpacked_leaves_nothing_half_done(studio, file_of):
    task = studio.training.start({"model_name_or_path": BUILT_IN, "train_data_path": str(file_of([ROW]))})
    process = child(task)
    models = studio.settings.models_dir
    wait_until(lambda: list(models.glob(f".{BUILT_IN}.*/")), TRAINING)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(patient()) == 0
    result = read_result(task.folder)
    assert (result.status, result.message[0]) == ("stopped", "It was stopped while it was being prepared.")
    assert not (models / BUILT_IN).exists()
    assert not read_job(task.folder).prepared
