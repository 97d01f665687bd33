"""Runs a training task in the child process: reads the job, calls the method, writes result.json last."""

import contextlib
import importlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sage_studio.errors import StudioError
from sage_studio.text import Text
from sage_studio.training import environment, save
from sage_studio.training.failures import Action, explain, is_expected, next_action
from sage_studio.training.progress import (
    RECIPE,
    RESULT,
    Phase,
    ProgressWriter,
    Result,
    read_job,
    result_for,
    write_result,
)
from sage_studio.training.recipes import load_recipe
from sage_studio.training.run import Run, Stopped, StopRequest

METHODS = {
    "sft": "sage_studio.training.methods.sft",
    "dpo": "sage_studio.training.methods.dpo",
    "embedding": "sage_studio.training.methods.embedding",
    "kbalign": "sage_studio.training.methods.kbalign.pipeline",
}
"""The module of each training method, by the recipe's ``type``; imported when needed, for they import torch."""
RESERVE = ".reserve"
RESERVE_BYTES = 64 << 10
"""Kept aside so that ``result.json`` can be written even on a full disk."""

DONE = Text("The model is trained and passed its checks.")


def follow(folder: Path, stop: StopRequest) -> int:
    """Run the task in a folder and write ``result.json`` last of all. Returns the exit code: 0 unless it failed."""
    began, rank = time.monotonic(), int(os.environ.get("RANK", "0"))
    orders, folder = folder, own_folder(folder, rank)
    run: Run[Any] | None = None
    try:
        stop.interrupt()
        run = _read_orders(orders, folder, rank, stop)
        run.progress.phase(Phase.STARTING)
        (folder / RESERVE).write_bytes(bytes(RESERVE_BYTES))
        environment.prepare(run.job.model_location)
        environment.check_gpus(run.job.gpus)
        method_for(run.recipe.type)(run)
        result = Result(status="completed", message=DONE.pair(), **_figures(run, began))
    except Stopped:
        result = _stopped(run, folder, began)
    except Exception as error:  # the process ends here: whatever it was, the person must learn of it
        result = _failed(error, run, began)
    stop.requested = False
    (folder / RESERVE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a full disk must not keep the result from being written
        _say(result)
    _report(orders, result, rank)
    if rank:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if result.status == "failed" else 0


def method_for(kind: str) -> Callable[[Run[Any]], None]:
    """The ``train(run)`` of a method; imports its module.

    It leaves the finished model in the run's folder, keeps ``run.state`` up to date and, when asked to stop, raises
    `Stopped` once a checkpoint is written.
    """
    return cast("Callable[[Run[Any]], None]", importlib.import_module(METHODS[kind]).train)


def _report(task: Path, result: Result, rank: int) -> None:
    """Write ``result.json``. Of several processes the first writes it, or the first of the others that fails.

    When one of them fails, torch's agent stops the rest, or they lose their connection to it: what they report then
    says nothing of the cause, and does not replace what the one that failed has written.
    """
    if rank and result.status != "failed":
        return
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and result.status != "completed" and (task / RESULT).exists():
        return
    write_result(task, result)


def own_folder(folder: Path, rank: int) -> Path:
    """Where a process of several may write: the first one into the task's folder, each other into one within it."""
    if not rank:
        return folder
    own = folder / f".rank{rank}"
    own.mkdir(exist_ok=True)
    return own


def _read_orders(orders: Path, folder: Path, rank: int, stop: StopRequest) -> Run[Any]:
    recipe = load_recipe(orders / RECIPE)
    return Run(
        folder=folder,
        recipe=recipe.model_copy(update={"output_dir": ""}) if rank else recipe,
        job=read_job(orders),
        rank=rank,
        progress=ProgressWriter(folder),
        stop=stop,
    )


def _stopped(run: Run[Any] | None, folder: Path, began: float) -> Result:
    figures = _figures(run, began)
    newest = save.newest_checkpoint(folder / "checkpoints")
    if not figures.get("steps") and newest is not None:
        figures["steps"] = save.step_of(newest)
    done, total = figures.get("steps", 0), figures.get("total_steps", 0)
    message = Text("Stopped at step {done} of {total}.", done=done, total=total or "?")
    if run is not None and run.state.place:
        message = Text("Stopped {place}.", place=run.state.place)
    return Result(
        status="stopped",
        message=message.pair(),
        action=Action.RESUME,
        hint=Text("Resume to continue from there.").pair(),
        **figures,
    )


def _failed(error: Exception, run: Run[Any] | None, began: float) -> Result:
    with contextlib.suppress(OSError):
        if not is_expected(error) or not isinstance(error, StudioError):
            traceback.print_exc(file=sys.stdout)
    if run is not None:
        save.remove_broken(run.checkpoints)
    reason, message, hint = explain(error)
    action = next_action(reason, run.recipe.model_dump() if run is not None else {})
    return result_for(message, hint, reason=reason, action=action, **_figures(run, began))


def _figures(run: Run[Any] | None, began: float) -> dict[str, Any]:
    if run is None:
        return {"seconds": time.monotonic() - began}
    state = run.state
    return {
        "steps": state.steps,
        "total_steps": state.total_steps,
        "epochs": state.epochs,
        "train_loss": state.train_loss,
        "seconds": time.monotonic() - began,
        "rows": state.rows,
        "tokens": state.tokens,
        "tokens_per_second": state.tokens_per_second,
        "peak_memory_gb": environment.peak_memory_gb() if "torch" in sys.modules else None,
        "estimated_memory_gb": run.job.estimated_gb,
        "model_kind": state.model_kind,
        "base_model": run.job.model_location,
        "versions": environment.versions(),
        "details": state.details,
    }


def _say(result: Result) -> None:
    print(" ".join(part for part in (f"{result.status}:", result.message[0], result.hint[0]) if part))
    if result.status == "completed":
        memory = f", {result.peak_memory_gb:.1f} GiB at most" if result.peak_memory_gb else ""
        print(f"{result.steps} steps, {result.tokens:,} tokens in {result.seconds:.0f} s{memory}")
