"""Several processes for several GPUs, really started by accelerate; here on the CPU, where they speak through gloo."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import TRAINING, patient

from sage_studio.settings import PROJECT
from sage_studio.tasks.launcher import TRAINER, command_for, gpu_environment, trainer_environment
from sage_studio.training.progress import Reason, TrainingJob, read_result
from sage_studio.training.recipes import SFTRecipe

NewTask = Callable[..., Any]
GPUS = ["0", "1"]
HOSTILE = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_machines: 2
machine_rank: 1
main_process_ip: 192.0.2.1
main_process_port: 1
mixed_precision: fp16
num_processes: 16
gpu_ids: "7"
dynamo_config: {dynamo_backend: INDUCTOR}
"""
"""A default_config.yaml of somebody with a cluster: with it, accelerate waits for another machine."""
OUT_OF_MEMORY = """
import os, sys
from sage_studio.training.__main__ import main
from sage_studio.training.methods import sft
right = sft.AnswerTrainer.compute_loss
def compute_loss(self, *given, **options):
    if os.environ["RANK"] == "1" and self.state.global_step == 2:
        import torch
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return right(self, *given, **options)
sft.AnswerTrainer.compute_loss = compute_loss
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a task's processes as the launcher does, beside a hostile configuration of accelerate's."""
    home = tmp_path / "hub"
    (home / "accelerate").mkdir(parents=True)
    (home / "accelerate" / "default_config.yaml").write_text(HOSTILE)
    started = []

    def spawn(task: Any, command: tuple[str, ...] = TRAINER, grace: float = 60) -> "subprocess.Popen[bytes]":
        kept = trainer_environment(environment={**os.environ, "ACCELERATE_MIXED_PRECISION": "fp8"})
        own = {"HF_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
        with (task.path / "train.log").open("ab") as log:
            child = subprocess.Popen(
                [*command_for(command, GPUS), str(task.path)],
                cwd=PROJECT,
                stdout=log,
                stderr=log,
                env=kept | gpu_environment(GPUS, grace) | own,
                start_new_session=True,
            )
        started.append(child)
        return child

    yield spawn
    for child in started:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.parametrize("rank", ["0", "1", "3"])
def test_each_process_loads_a_quantized_base_onto_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, quantization: str, rank: str
):
    """accelerate refuses to train one that lies on another GPU than the process's own."""
    import torch

    from sage_studio.training import model_loading

    asked: dict[str, Any] = {}

    class Loaded:
        config = SimpleNamespace(use_cache=True)

    def from_pretrained(_: str, **options: Any) -> Loaded:
        asked.update(options)
        return Loaded()

    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(model_loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    recipe = SFTRecipe(model_name_or_path="m", dataset_id="d", quantization=quantization)
    model_loading.load_model(TrainingJob(model_location="m", data_path="d"), recipe, torch.bfloat16)
    assert asked["device_map"] == {"": int(rank)}


def log_of(task: Any) -> str:
    return str((task.path / "train.log").read_text())


@pytest.mark.training
def test_two_processes_share_the_rows_whatever_a_persons_own_configuration_says(new_task: NewTask, spawn: Any):
    task = new_task(num_train_epochs=2)
    assert spawn(task).wait(patient(TRAINING)) == 0, log_of(task)
    result = task.result()
    assert (result.status, result.steps) == ("completed", 4), "8 rows, 2 in a batch, 2 processes, twice"
    assert (task.path / "adapter_model.safetensors").exists()
    assert not list(task.path.glob(".rank*"))


@pytest.mark.training
def test_both_stop_at_the_same_step_with_a_checkpoint_and_go_on(new_task: NewTask, spawn: Any):
    task = new_task(max_steps=2000, num_train_epochs=1000, save_steps=1000)
    child = spawn(task)
    task.wait_for(lambda task: task.steps >= 3)
    os.killpg(child.pid, signal.SIGTERM)
    child.wait(patient(TRAINING))
    stopped = task.result()
    assert stopped.status == "stopped", log_of(task)
    assert (task.path / "checkpoints" / f"checkpoint-{stopped.steps}" / "trainer_state.json").exists()
    assert "SIGKILL" not in log_of(task)

    job, recipe = task.path / "job.json", task.path / "recipe.yaml"
    job.write_text(job.read_text().replace('"resume":false', '"resume":true'))
    recipe.write_text(recipe.read_text().replace("max_steps: 2000", f"max_steps: {stopped.steps + 2}"))
    (task.path / "result.json").unlink()
    assert spawn(task).wait(patient(TRAINING)) == 0, log_of(task)
    assert (task.result().status, task.result().steps) == ("completed", stopped.steps + 2)
    assert f"continuing from checkpoint-{stopped.steps}" in log_of(task)


@pytest.mark.training
def test_want_of_memory_of_the_second_process_reaches_the_result(new_task: NewTask, spawn: Any, tmp_path: Path):
    script = tmp_path / "short_of_memory.py"
    script.write_text(OUT_OF_MEMORY)
    task = new_task(num_train_epochs=1000, max_steps=1000)
    assert spawn(task, (sys.executable, str(script))).wait(patient(TRAINING)) != 0
    result = read_result(task.path)
    assert result is not None, log_of(task)
    assert (result.status, result.reason) == ("failed", Reason.MEMORY), log_of(task)
    assert result.action == "smaller_batch"
    assert not list(task.path.glob(".rank*"))
