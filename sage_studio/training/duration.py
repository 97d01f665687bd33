"""Estimates how long a training takes, and caches how fast this machine trains each model."""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from sage_studio.hardware import detect_hardware
from sage_studio.training.environment import CPU_FLAGS, usable_cores
from sage_studio.training.memory import ChildResultCache, TraceRequest, run_child

Basis = Literal["runs", "probe", "rough"]
"""Where a duration comes from: earlier runs here, a few measured steps here, or the model's size."""

SPREAD: dict[Basis, tuple[float, float]] = {"runs": (0.8, 1.25), "probe": (0.7, 1.4), "rough": (0.4, 2.0)}
"""What the real time may be, in shares of the estimate."""
TEXTS = {"sft": 1, "dpo": 2, "embedding": 3}
"""Texts that a method runs through the model for one row; KBAlign first writes its rows, so nobody knows."""
REFERENCE = 1.5
"""DPO runs each text through the reference too: a forward pass beside the forward and backward of an adapter."""
CHECKPOINTED = {True: 1.5, False: 4 / 3}
"""One more forward pass: of an adapter's three parts two were computed, of a whole model's four three."""
QUANTIZED = {"none": 1.0, "8bit": 1.8, "4bit": 1.3}
"""What unpacking the weights costs; not measured on every GPU, so such an estimate counts as rough."""
DORA = 1.3
FORWARD = {True: 0.5, False: 1 / 3}
"""A step without its backward pass, as a share of the step: of an adapter, and of a model trained whole."""
PACKED = 1.03
"""What packing leaves unfilled."""
MEASUREMENTS = 10
"""Of a hold-out set in a run, unless the recipe says otherwise; and once before it."""
OPERATIONS = {True: 4.0, False: 6.0}
"""Floating-point operations per parameter and token: an adapter spares the gradients of the weights."""
EFFICIENCY = 0.45
"""Of a large matrix product's speed, what a whole step reaches on a CPU."""
STEP_OVERHEAD = 0.05
"""Seconds of a step that do not depend on its size."""


class StepTime(BaseModel):
    """Seconds of one step forward, backward and of the optimizer, over the rows of a batch and their tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    constant: float
    linear: float
    square: float = 0.0

    def seconds(self, rows: float, length: float, length_squared: float) -> float:
        """Of a batch of so many rows that are padded to one length, given by its mean and its mean square."""
        return self.constant + rows * (self.linear * length + self.square * length_squared)


@dataclass(frozen=True, slots=True)
class Work:
    """What a run computes.

    Attributes:
        rows: that are used, those held out included.
        batches: of the whole run, forward and backward.
        held_batches: of the hold-out set in all measurements, forward only.
        batch: rows of one of them.
        length, length_squared: of the longest row in a batch, in tokens: means over the batches.
    """

    rows: int
    batches: float
    held_batches: float
    batch: int
    length: float
    length_squared: float


@dataclass(frozen=True, slots=True)
class Duration:
    """An estimate in seconds.

    Attributes:
        low, high: what it may really be.
        rows, total_rows: rows that are used, and rows there are.
        all_rows: what all of them would take, where the recipe uses fewer; else None.
    """

    seconds: float
    low: float
    high: float
    basis: Basis
    rows: int
    total_rows: int
    all_rows: float | None = None


def work_of(recipe: dict[str, Any], lengths: Sequence[int], total_rows: int) -> Work:
    """The work that a recipe makes.

    Args:
        recipe: its fields.
        lengths: tokens of some of its rows, or of all.
        total_rows: rows of the dataset.
    """
    rows = min(total_rows, recipe["max_samples"] or total_rows)
    held = round(rows * recipe.get("eval_share", 0.0))
    learned = max(1, rows - held)
    cut = sorted(min(length, recipe["max_length"]) for length in lengths) or [recipe["max_length"]]
    if recipe.get("packing"):
        learned = max(1, math.ceil(PACKED * learned * sum(cut) / len(cut) / recipe["max_length"]))
        cut = [recipe["max_length"]]
    batch = min(recipe["per_device_train_batch_size"], learned)
    accumulated = recipe["gradient_accumulation_steps"]
    per_epoch = math.ceil(learned / batch / _devices(recipe))
    steps = math.ceil(recipe["num_train_epochs"] * math.ceil(per_epoch / accumulated))
    batches = recipe["num_train_epochs"] * per_epoch
    if recipe["max_steps"]:
        steps = recipe["max_steps"]
        batches = steps * min(accumulated, per_epoch)
    every = recipe.get("eval_steps") or max(1, math.ceil(steps / MEASUREMENTS))
    held_batches = math.ceil(held / batch) * (steps // every + 1) if held else 0
    shares = list(_longest_of(batch, len(cut)))
    return Work(
        rows=rows,
        batches=batches,
        held_batches=held_batches,
        batch=batch,
        length=sum(share * length for share, length in zip(shares, cut, strict=True)),
        length_squared=sum(share * length**2 for share, length in zip(shares, cut, strict=True)),
    )


def loop_seconds(recipe: dict[str, Any], work: Work, step_time: StepTime) -> float:
    """Of the training itself, without what stands before and after it."""
    texts = TEXTS[recipe["type"]]
    step = step_time.seconds(work.batch * texts, work.length, work.length_squared)
    if recipe["type"] == "dpo":
        step *= REFERENCE
    measured = FORWARD[recipe["use_lora"]] * step * work.held_batches
    step *= QUANTIZED[recipe.get("quantization", "none")]
    step *= CHECKPOINTED[recipe["use_lora"]] if recipe["gradient_checkpointing"] else 1.0
    step *= DORA if recipe.get("use_dora") else 1.0
    return step * work.batches + measured


def fixed_seconds(parameters: int) -> float:
    """Seconds before the first step and after the last: libraries, the model from disk, saving and checking it."""
    return 10.0 + 8e-9 * parameters


def estimate_step_time(parameters: int, use_lora: bool, operations_per_second: float) -> StepTime:
    """A step_time by the model's size alone.

    Args:
        operations_per_second: of a large matrix product on this machine.
    """
    per_token = OPERATIONS[use_lora] * parameters / (EFFICIENCY * operations_per_second)
    return StepTime(constant=STEP_OVERHEAD, linear=per_token)


def spread_lengths(histogram: Sequence[tuple[int, int]], mean: float) -> list[int]:
    """Lengths like those of a dataset: from its histogram of ``(upper bound, rows)``, brought to its mean.

    Without a histogram all are as long as the mean.
    """
    rows = sum(count for _, count in histogram)
    if not rows:
        return [max(1, round(mean))]
    made, lower = list[float](), 0
    for upper, count in histogram:
        made += [(lower + upper) / 2] * math.ceil(100 * count / rows)
        lower = upper
    scale = mean / (sum(made) / len(made)) if mean else 1.0
    return [max(1, round(scale * length)) for length in made]


def _longest_of(batch: int, count: int) -> Iterator[float]:
    """Of ``count`` values in ascending order, how often each is the largest of ``batch`` drawn ones."""
    for place in range(1, count + 1):
        yield (place / count) ** batch - ((place - 1) / count) ** batch


def _devices(recipe: dict[str, Any]) -> int:
    return max(1, len([gpu for gpu in recipe.get("gpu_vis", "").split(",") if gpu.strip()]))


# What a child process measured

PROBE = "sage_studio.training.speed_probe"
PROBE_SECONDS = 120.0
AS_TRAINED = {"OMP_WAIT_POLICY": "PASSIVE"}
"""As the launcher starts a trainer: threads that wait for each other leave the cores to others."""
SIDE, ROUNDS = 1024, 4


class StepTimeCache(ChildResultCache[StepTime]):
    """All step times measured so far, each for one machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, StepTime, prefix="pace-")

    def _ask(self, request: TraceRequest, check: Callable[[], None]) -> StepTime:
        return measure_in_child(request)

    def _holds_for(self, request: TraceRequest) -> str:
        return machine(request.on_gpu)


def measure_in_child(request: TraceRequest) -> StepTime:
    """Have a child process train a few steps. Raises `InvalidModel`."""
    return StepTime.model_validate_json(run_child(PROBE, request, AS_TRAINED, PROBE_SECONDS))


@functools.lru_cache(maxsize=2)
def machine(on_gpu: bool) -> str:
    """What a step_time belongs to: the GPU's name, or the processor's with its usable cores."""
    if on_gpu:
        return detect_hardware().gpus[0].name
    lines = CPU_FLAGS.read_text(encoding="utf-8").splitlines() if CPU_FLAGS.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
    return f"{named} x{usable_cores()}"


@functools.lru_cache(maxsize=1)
def operations_per_second() -> float:
    """Of a large matrix product on this processor, in 32-bit floats: a fraction of a second, once."""
    square, best = np.ones((SIDE, SIDE), dtype=np.float32), float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - began)
    return float(2 * SIDE**3 / best)
