"""Which optimizer a run has: decided once, kept for a resumption, and with it the type of a whole model's weights."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sage_studio.training import environment, trainer

NewTask = Callable[..., Any]
SMALL = 10**6
"""Bytes of a GPU that the tiny model would fill."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was trained, once a run is over."""
    import torch

    found: dict[str, Any] = {}
    right = trainer.fit

    def fit(run: Any, trainer: Any) -> None:
        found["weights"] = {str(weight.dtype) for weight in trainer.model.parameters() if weight.requires_grad}
        right(run, trainer)
        optimizer = trainer.optimizer.optimizer
        found["optimizer"] = type(optimizer).__name__
        states = [state for state in optimizer.state.values() if "state1" in state]
        found["small"] = any(state["state1"].dtype == torch.uint8 for state in states)

    monkeypatch.setattr(trainer, "fit", fit)
    return found


@pytest.mark.training
def test_a_whole_model_trains_in_bf16_with_8_bit_adam(new_task: NewTask, seen: dict[str, Any]):
    task = new_task(use_lora=False, optimizer="adamw_8bit", precision="bf16", learning_rate=1e-3, num_train_epochs=4)
    assert task.run().model_kind == "full"
    assert seen["weights"] == {"torch.bfloat16"}
    assert (seen["optimizer"], seen["small"]) == ("AdamW", True)
    assert task.losses[-1] < 0.9 * task.losses[0]
    assert json.loads((task.path / "training_args.json").read_text())["recipe"]["optimizer"] == "adamw_8bit"


@pytest.mark.training
def test_an_adapter_may_have_it_and_stays_in_fp32(new_task: NewTask, seen: dict[str, Any]):
    task = new_task(optimizer="adamw_8bit", num_train_epochs=4)
    task.run()
    assert seen["weights"] == {"torch.float32"}
    assert task.losses[-1] < task.losses[0]


@pytest.mark.training
@pytest.mark.parametrize(
    ("memory", "use_lora", "chosen"),
    [(SMALL, False, "adamw_8bit"), (10**12, False, "adamw"), (SMALL, True, "adamw"), (0, False, "adamw")],
)
def test_auto_asks_how_large_the_gpu_is(
    new_task: NewTask, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, memory: int, use_lora: bool, chosen: str
):
    monkeypatch.setattr(environment, "gpu_bytes", lambda: float(memory))
    task = new_task(use_lora=use_lora, precision="bf16", max_steps=1)
    task.run()
    assert (task.path / ".optimizer").read_text() == chosen
    whole_in_bf16 = chosen == "adamw_8bit"
    assert seen["weights"] == {"torch.bfloat16" if whole_in_bf16 else "torch.float32"}


@pytest.mark.training
def test_a_run_with_the_small_optimizer_goes_on_from_its_checkpoint(
    new_task: NewTask, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(environment, "gpu_bytes", lambda: float(SMALL))
    task = new_task(use_lora=False, precision="bf16", max_steps=2, save_steps=1)
    task.run()
    (task.path / "result.json").unlink()
    job, recipe = task.path / "job.json", task.path / "recipe.yaml"
    job.write_text(job.read_text().replace('"resume":false', '"resume":true'))
    recipe.write_text(recipe.read_text().replace("max_steps: 2", "max_steps: 4"))
    monkeypatch.setattr(environment, "gpu_bytes", lambda: 1e12)
    assert (task.run().status, task.result().steps) == ("completed", 4)
    assert seen["weights"] == {"torch.bfloat16"}
    assert seen["small"]


@pytest.mark.training
@pytest.mark.parametrize("kept", [True, False])
def test_a_resumed_run_keeps_its_optimizer_on_another_gpu(
    new_task: NewTask, seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kept: bool
):
    """A checkpoint holds the state of one optimizer. Without the file it is of a studio that knew only AdamW."""
    task = new_task(use_lora=False, precision="bf16", max_steps=2, save_steps=1)
    task.run()
    assert seen["optimizer"] == "AdamW"
    assert not seen["small"]
    if not kept:
        (task.path / ".optimizer").unlink()
    (task.path / "result.json").unlink()
    job, recipe = task.path / "job.json", task.path / "recipe.yaml"
    job.write_text(job.read_text().replace('"resume":false', '"resume":true'))
    recipe.write_text(recipe.read_text().replace("max_steps: 2", "max_steps: 3"))
    monkeypatch.setattr(environment, "gpu_bytes", lambda: float(SMALL))
    assert (task.run().status, task.result().steps) == ("completed", 3)
    assert not seen["small"]
