"""The scheduler over the real trainer: stopped in mid-run, continued, completed, taken away."""

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from paused_trainer import PAUSE
from waiting import TRAINING, wait_until

from sage_studio.data.rows import Example, Message, Origin
from sage_studio.settings import PROJECT
from sage_studio.tasks.archive import stream_archive
from sage_studio.tasks.launcher import ProcessLauncher
from sage_studio.tasks.log import read_log
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe

STEPS = 12
PAUSED = (sys.executable, str(Path(__file__).with_name("paused_trainer.py")))

pytestmark = pytest.mark.training


@pytest.fixture
def task(store, tiny_model, tmp_path):
    data = tmp_path / "data.jsonl"
    rows = [
        Example((Message("user", f"What is {number}?"),), f"It is the number {number}.", Origin("test", row=number))
        for number in range(1, STEPS + 1)
    ]
    data.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    recipe = SFTRecipe(
        model_name_or_path=str(tiny_model), dataset_id="d", max_steps=STEPS, max_length=64, save_steps=5, lora_r=4
    )
    job = TrainingJob(model_location=str(tiny_model), data_path=str(data))
    return store.create(recipe, job, dataset_id="d", dataset_name="D")


def test_stop_continue_complete_and_take_away(store, settings, task, monkeypatch):
    """Stopped where it waits, for nobody knows how far it gets meanwhile; continued by another studio's launcher."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # PAUSED is a script, and begins in its own folder
    scheduler = TaskScheduler(store, ProcessLauncher(PAUSED), settings)
    scheduler.start()
    try:
        wait_until(lambda: (task.folder / "paused").exists() or store.get(task.id).status.is_over, TRAINING)
        wait_until(lambda: store.get(task.id).status is not TaskStatus.PREPARING)
        scheduler.stop(store.get(task.id))
        wait_until(lambda: store.get(task.id).status.is_over, TRAINING)
        stopped = store.get(task.id)
        assert stopped.status is TaskStatus.STOPPED, (stopped.reason, read_log(task.folder).lines)
        assert scheduler.curve(stopped, 1000).steps[-1] == PAUSE
        scheduler.close()
        scheduler = TaskScheduler(store, ProcessLauncher(), settings)
        scheduler.start()
        scheduler.resume(stopped)
        wait_until(lambda: store.get(task.id).status.is_over, TRAINING)
    finally:
        scheduler.close()
    done = store.get(task.id)
    assert done.status is TaskStatus.COMPLETED, (done.reason, read_log(task.folder).lines)
    assert not done.reason
    progress = scheduler.progress(done)
    assert (progress.percent, progress.now.step, progress.result.steps) == (100.0, STEPS, STEPS)
    assert scheduler.curve(done, 1000).steps == tuple(range(1, STEPS + 1)), "it did not go on where it stopped"
    check_archive(done)


def check_archive(task):
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream_archive(task)))) as tar:
        names = {name.removeprefix(f"{task.id}/") for name in tar.getnames()}
    wanted = {"adapter_model.safetensors", "adapter_config.json", "training_args.json", "recipe.yaml", "result.json"}
    assert wanted | {"train.log"} <= names
    assert not any(name.startswith(("checkpoints", ".")) for name in names)
