"""The real child under signals: stopped, killed, resumed, and on a full disk."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import TRAINING, patient

from sage_studio.training.progress import Phase, Reason, read_events, read_result

NewTask = Callable[..., Any]
STEPS = 20_000
"""More than a run can do before it is stopped, however late that is noticed on a busy machine."""
LONG = {"max_steps": STEPS, "save_steps": 5}


@pytest.fixture
def children() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Whatever a test started ends with it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        if child.poll() is None:
            child.kill()
        child.wait()


def test_a_stop_leaves_a_checkpoint_and_resuming_reaches_the_end(new_task: NewTask, children: list[Any]):
    task = new_task(**LONG)
    child = task.spawn()
    children.append(child)
    task.wait_for(lambda task: task.steps >= 6)
    child.send_signal(signal.SIGTERM)
    assert child.wait(patient(TRAINING)) == 0
    stopped = task.result()
    assert stopped.status == "stopped"
    assert 6 <= stopped.steps < STEPS
    assert stopped.total_steps == STEPS
    assert f"step {stopped.steps} " in stopped.message[0]
    assert (task.path / "checkpoints" / f"checkpoint-{stopped.steps}" / "trainer_state.json").exists()
    assert not (task.path / "training_args.json").exists(), "a stopped run has no finished model"

    _shorten(task, stopped.steps + 3)
    (task.path / "result.json").unlink()
    result = task.run()
    assert (result.status, result.steps) == ("completed", stopped.steps + 3)
    resumed = [event.step for event in read_events(task.path)[0] if event.loss is not None]
    assert resumed[-3:] == [stopped.steps + 1, stopped.steps + 2, stopped.steps + 3]


def test_a_stop_while_preparing_is_a_stop_with_no_steps(new_task: NewTask, children: list[Any]):
    task = new_task()
    child = task.spawn()
    children.append(child)
    task.wait_for(lambda task: (task.path / "progress.jsonl").exists())
    child.send_signal(signal.SIGTERM)
    assert child.wait(patient(TRAINING)) == 0
    assert (task.result().status, task.result().steps) == ("stopped", 0)


def test_a_killed_child_leaves_no_result(new_task: NewTask, children: list[Any]):
    task = new_task(**LONG)
    child = task.spawn()
    children.append(child)
    task.wait_for(lambda task: task.steps >= 1)
    child.kill()
    child.wait()
    assert read_result(task.path) is None


def test_a_stop_between_the_batches_of_one_step_does_not_wait_for_the_step(
    new_task: NewTask, monkeypatch: pytest.MonkeyPatch
):
    from sage_studio.training.methods.sft import AnswerTrainer
    from sage_studio.training.run import StopRequest
    from sage_studio.training.runner import follow

    stop, right, batches = StopRequest(), AnswerTrainer.compute_loss, []

    def third_is_last(*args: Any, **kwargs: Any) -> Any:
        batches.append(None)
        stop.requested = len(batches) == 5
        return right(*args, **kwargs)

    monkeypatch.setattr(AnswerTrainer, "compute_loss", third_is_last)
    task = new_task(gradient_accumulation_steps=4, per_device_train_batch_size=1, num_train_epochs=3)
    assert follow(task.path, stop) == 0
    assert len(batches) == 5
    assert (task.result().status, task.result().steps) == ("stopped", 1)
    assert (task.path / "checkpoints" / "checkpoint-1").is_dir()


@pytest.mark.parametrize("damage", ["no state", "cut weights", "cut optimizer", "half state"])
def test_a_broken_checkpoint_is_passed_over(new_task: NewTask, damage: str, capsys: pytest.CaptureFixture[str]):
    task = new_task(job={"resume": True}, max_steps=5, save_steps=2)
    task.run()
    kept = task.path / "checkpoints"
    assert sorted(path.name for path in kept.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    _damage(kept / "checkpoint-4", damage)
    task.run()
    said = capsys.readouterr().out
    assert "continuing from checkpoint-2" in said
    assert "checkpoint-4 was cut off" in said


@pytest.mark.skipif(os.name != "posix" or shutil.which("mount") is None, reason="needs a small file system to fill")
def test_a_full_disk_fails_as_disk_and_still_says_so(new_task: NewTask, tmp_path: Path):
    """The task folder on a file system that holds the progress but not the model."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    try:
        task = new_task(lora_r=64, max_steps=2, num_train_epochs=1, save_steps=1)
        shutil.copytree(task.path, small / "task")
        small_task = type(task)(small / "task")
        result = small_task.run(expect=1)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert (result.status, result.reason) == ("failed", Reason.DISK)
    assert "full" in result.message[0]


@pytest.mark.training
def test_the_built_in_model_learns(new_task: NewTask, built_in_model: Path, children: list[Any]):
    """The real child on the real model, three steps."""
    task = new_task(
        job={"model_location": str(built_in_model)}, max_steps=3, per_device_train_batch_size=4, learning_rate=2e-4
    )
    child = task.spawn()
    children.append(child)
    assert child.wait(patient(TRAINING)) == 0, (task.path / "train.log").read_text()
    result = task.result()
    assert (result.status, result.steps) == ("completed", 3)
    assert result.details["smoke_answer"]
    assert task.losses[-1] < task.losses[0]
    log = (task.path / "train.log").read_text()
    assert "step 3/3" in log
    assert "\x1b" not in log
    assert "it/s" not in log
    assert read_events(task.path)[0][0].phase == Phase.STARTING


def _shorten(task: Any, steps: int) -> None:
    import yaml

    from sage_studio.training.progress import read_job

    recipe = task.path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"max_steps": steps}))
    (task.path / "job.json").write_text(read_job(task.path).model_copy(update={"resume": True}).model_dump_json())


def _damage(checkpoint: Path, damage: str) -> None:
    state, weights = checkpoint / "trainer_state.json", checkpoint / "adapter_model.safetensors"
    optimizer = checkpoint / "optimizer.pt"
    if damage == "no state":
        state.unlink()
    elif damage == "half state":
        state.write_text(state.read_text()[:50])
    else:
        path = weights if damage == "cut weights" else optimizer
        path.write_bytes(path.read_bytes()[:-1000])
