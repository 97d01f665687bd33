"""Trainer callbacks: log lines, progress events, NaN detection, and stopping on request."""

import math
import time
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sage_studio.training.environment import memory_gb
from sage_studio.training.failures import diverged
from sage_studio.training.recipes.base import LOSS
from sage_studio.training.run import Run


class ProgressCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes an event and a log line at every logging step, and ends the training when asked to stop."""

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self._began = self._last = time.monotonic()
        self._first_step = 0
        self._first_tokens = self._last_tokens = 0
        self._names = [name for plot in (LOSS, *run.recipe.plots) for name in plot.lines if name != "loss"]

    def on_train_begin(self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any) -> None:
        """Start the clock; say how many steps there will be."""
        done = self._run.state
        done.total_steps, done.steps = state.max_steps, state.global_step
        self._began = self._last = time.monotonic()
        self._first_step = state.global_step
        self._first_tokens = self._last_tokens = state.num_input_tokens_seen
        self._run.progress.write(
            step=state.global_step, total_steps=state.max_steps, total_epochs=self._run.recipe.num_train_epochs
        )

    def on_substep_end(self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: Any) -> None:
        """Between two batches of one step: nothing is lost but the batches of this step."""
        self._stop_if_asked(state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """After a step."""
        self._count(state)
        if state.global_step >= state.max_steps:
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = args.load_best_model_at_end  # otherwise the model itself is saved next
        else:
            self._stop_if_asked(state, control)

    def on_log(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, logs: dict[str, float], **___: Any
    ) -> None:
        """Raises `ModelHealthError` when the loss or its gradient is no number."""
        for what in ("loss", "grad_norm", "eval_loss"):
            if not math.isfinite(logs.get(what, 0.0)):
                raise diverged(what, logs[what], state.global_step)
        figures = self._figures(logs)
        if "eval_loss" in logs:
            self._say_measured(state, figures)
        elif "loss" in logs:
            self._say_learned(state, logs, figures)

    def on_train_end(self, _: TrainingArguments, state: TrainerState, __: TrainerControl, **___: Any) -> None:
        """Stop the clock."""
        self._count(state)
        details = self._run.state.details
        measured = [self._figures(logs) for logs in state.log_history if "eval_loss" in logs]
        if measured:
            details["held_out_before"], details["held_out_after"] = measured[0], measured[-1]
        if state.best_metric is not None:
            details["best_eval_loss"], details["best_step"] = state.best_metric, state.best_global_step
        if not self._run.stop.requested and state.global_step < state.max_steps:
            details["stopped_early"] = True
            print(f"stopped early at step {state.global_step}: no better than at step {state.best_global_step}")

    def _figures(self, logs: dict[str, float]) -> dict[str, float]:
        return {name: logs[name] for name in self._names if name in logs}

    def _stop_if_asked(self, state: TrainerState, control: TrainerControl) -> None:
        self._run.stop.requested = any_process(self._run.stop.requested)
        if self._run.stop.requested and not control.should_training_stop:
            control.should_training_stop = True
            control.should_save = state.global_step > 0

    def _count(self, state: TrainerState) -> None:
        done, seconds = self._run.state, time.monotonic() - self._began
        done.steps, done.epochs, done.tokens = (
            state.global_step,
            state.epoch or 0.0,
            state.num_input_tokens_seen,
        )
        done.tokens_per_second = (state.num_input_tokens_seen - self._first_tokens) / max(seconds, 1e-9)

    def _seconds_left(self, state: TrainerState, now: float) -> float:
        done: int = max(state.global_step - self._first_step, 1)
        left: int = state.max_steps - state.global_step
        return (now - self._began) / done * left

    def _say_measured(self, state: TrainerState, figures: dict[str, float]) -> None:
        self._run.progress.write(step=state.global_step, total_steps=state.max_steps, figures=figures)
        print(f"step {state.global_step}/{state.max_steps} · held out: {_listed(figures)}")
        self._last, self._last_tokens = time.monotonic(), state.num_input_tokens_seen

    def _say_learned(self, state: TrainerState, logs: dict[str, float], figures: dict[str, float]) -> None:
        now = time.monotonic()
        speed = (state.num_input_tokens_seen - self._last_tokens) / max(now - self._last, 1e-9)
        self._last, self._last_tokens = now, state.num_input_tokens_seen
        left = self._seconds_left(state, now)
        used, total = memory_gb()
        self._run.state.details["final_loss"] = logs["loss"]
        self._run.progress.write(
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=state.epoch,
            loss=logs["loss"],
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens_per_second=speed,
            eta_seconds=left,
            memory_gb=used,
            memory_total_gb=total,
            figures=figures or None,
        )
        print(
            f"step {state.global_step}/{state.max_steps} · epoch {state.epoch or 0:.2f} · loss {logs['loss']:.4g}"
            f" · lr {logs.get('learning_rate', 0.0):.2g} · {speed:.0f} tok/s · {_duration(left)} left"
            + (f" · {_listed(figures)}" if figures else "")
        )


def any_process(asked: bool) -> bool:
    """Whether this is true in any of the processes of this training; all have to ask at the same moment.

    They hear of a stop one after the other: one that ended a step before the others would leave them waiting for it.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return asked
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(asked), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag.item())


def _listed(figures: dict[str, float]) -> str:
    return " · ".join(f"{name.removeprefix('eval_')} {value:.4g}" for name, value in figures.items())


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m" if whole < 3600 else f"{whole // 3600}h {whole % 3600 // 60}m"
