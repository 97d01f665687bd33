"""Estimates the memory of a training, and caches what a child process measured of its model."""

import hashlib
import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from sage_studio.child_environment import Needs, child_environment
from sage_studio.errors import HubUnavailable, InvalidModel, StudioError
from sage_studio.files import write_atomically
from sage_studio.models.model_folder import is_here
from sage_studio.processes import run_to_end
from sage_studio.settings import PROJECT
from sage_studio.text import Text
from sage_studio.training.environment import EAGER_LENGTH, versions

SEQUENCES = {"sft": 1, "kbalign": 1, "dpo": 2, "embedding": 3}
"""Texts that a method runs through the model for one row: chosen and rejected; query, positive and negative."""
ALLOCATOR_OVERHEAD = {"cpu": 1.18, "cuda": 1.06}
"""What an allocator takes beyond what is asked of it, on activations: measured on the CPU and on an H100."""
CUDA_CONTEXT = 0.6 * 2**30
"""What the driver takes of a GPU for a process: on an H100."""
LEFT_BY_LOADING = 0.2 * 2**30
"""What the loading of a quantized base leaves with the GPU's allocator: on an H100."""
STATE_BYTES = {"adamw": 8.0, "adamw_8bit": 2.04}
"""Of AdamW's two moments for each trained parameter; in 8 bits with a scale for each 256 of them."""
BYTES_PER_WEIGHT = {"8bit": 1.0, "4bit": 0.53}
"""Of a quantized weight, its scales included."""
UPDATED_ON_CPU = 24.0
"""Bytes that 8-bit Adam takes on a CPU for each parameter of the tensor that it updates: it works on copies in fp32.
Measured; on a GPU it works in place."""
SHORTEST = 256
FEW_MORE_TOKENS = 64
"""What a chat template adds to a row, at most as a rule."""


class TraceRequest(BaseModel):
    """What a trace depends on.

    Attributes:
        dtype: computed in; that of the weights under an adapter.
        half_weights: whether the weights of a model that is trained whole are in ``dtype``, too, and not in fp32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    location: str
    trust_remote_code: bool = False
    generative: bool = True
    use_lora: bool = True
    lora_r: int = 16
    lora_dropout: float = 0.0
    lora_target_modules: str = "all-linear"
    dtype: str = "bfloat16"
    half_weights: bool = False
    on_gpu: bool = False


class StepMemory(BaseModel):
    """Bytes over the tokens of a row; ``linear`` and ``square`` count for each row of a batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    constant: float
    linear: float
    square: float

    def at(self, rows: int, length: int) -> float:
        """Bytes for a batch of rows of one length."""
        return max(0.0, self.constant + rows * (self.linear * length + self.square * length**2))


class MemoryTrace(BaseModel):
    """Sizes of a model in training: parameters in numbers, everything else in bytes.

    Attributes:
        quantizable: parameters that 8- and 4-bit loading shrinks.
        weight_bytes: of one weight of the base, unquantized.
        trained: parameters of the adapter, or all of them.
        context: resident bytes of a process on the CPU that has loaded libraries and tokenizer.
        steps: what a step takes besides weights, by attention with or without checkpointing; an adapter's gradients are
            in it, those of a model trained whole are not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: int
    quantizable: int
    trained: int
    weight_bytes: int
    context: int
    steps: dict[str, StepMemory]


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """An estimate in bytes, by component.

    Attributes:
        factor: measured over estimated peak of earlier runs of this model and method; 1 before the first.
    """

    context: float
    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    factor: float = 1.0

    @property
    def total(self) -> float:
        """The peak."""
        parts = (self.context, self.weights, self.adapter, self.gradients, self.optimizer, self.activations)
        return self.factor * sum(parts)


@dataclass(frozen=True, slots=True)
class MemorySaving:
    """Changes to a recipe, by field, with which it would take ``total`` bytes."""

    label: Text
    changes: dict[str, Any]
    total: float


def estimate(
    recipe: dict[str, Any], trace: MemoryTrace, device: str, length: int, factor: float = 1.0
) -> MemoryEstimate:
    """The peak memory of a run.

    Args:
        recipe: its fields; an ``optimizer`` that is ``auto`` counts as AdamW.
        device: ``cpu`` or ``cuda``.
        length: tokens of the longest row; ``max_length`` bounds it.
        factor: measured over estimated peak of earlier runs.
    """
    length = min(length, recipe["max_length"])
    rows = recipe["per_device_train_batch_size"] * SEQUENCES.get(recipe["type"], 1)
    quantized = BYTES_PER_WEIGHT.get(recipe.get("quantization", "none"), trace.weight_bytes)
    plain = trace.parameters - trace.quantizable
    small = recipe.get("quantization", "none") != "none"
    base = plain * trace.weight_bytes + trace.quantizable * quantized
    base += LEFT_BY_LOADING if small and device == "cuda" else 0.0
    optimizer = "adamw_8bit" if recipe.get("optimizer") == "adamw_8bit" else "adamw"
    each = float(trace.weight_bytes) if trains_in_half_precision(recipe) else 4.0
    trained = each * trace.trained
    attention = "eager" if device == "cpu" and recipe["max_length"] <= EAGER_LENGTH else "sdpa"
    step = trace.steps[attention + ("+checkpointing" if recipe["gradient_checkpointing"] else "")].at(rows, length)
    kept = max(0.0, step - trained) if recipe["gradient_accumulation_steps"] == 1 else step
    if not recipe["use_lora"]:
        kept = max(kept, 2 * each * plain)  # the embedding's gradient is the sum of two as large as it
        if optimizer == "adamw_8bit" and device == "cpu":
            kept = max(kept, UPDATED_ON_CPU * plain)
    return MemoryEstimate(
        context=trace.context if device == "cpu" else CUDA_CONTEXT,
        weights=base if recipe["use_lora"] else each * trace.parameters,
        adapter=trained if recipe["use_lora"] else 0.0,
        gradients=trained,
        optimizer=STATE_BYTES[optimizer] * trace.trained,
        activations=ALLOCATOR_OVERHEAD[device] * kept,
        factor=factor,
    )


def trains_in_half_precision(recipe: dict[str, Any]) -> bool:
    """Whether a model that is trained whole has its weights and gradients in the type that is computed in."""
    return recipe.get("optimizer") == "adamw_8bit" and not recipe["use_lora"] and recipe["type"] != "embedding"


def savings(
    recipe: dict[str, Any], trace: MemoryTrace, device: str, length: int, factor: float, available: float
) -> list[MemorySaving]:
    """Changes that make a run fit into ``available`` bytes: each that does alone, else the first few together."""

    def with_changes(changes: dict[str, Any]) -> float:
        return estimate({**recipe, **changes}, trace, device, length, factor).total

    single = [MemorySaving(label, changes, with_changes(changes)) for label, changes in _changes(recipe, device)]
    fitting = [remedy for remedy in single if remedy.total <= available]
    if fitting:
        return _least_of_each(fitting)
    together: dict[str, Any] = {}
    for label, changes in _changes(recipe, device):
        together |= changes
        if (total := with_changes(together)) <= available:
            return [MemorySaving(TOGETHER if len(together) > len(changes) else label, together, total)]
    return []


def longest_row(histogram: tuple[tuple[int, int], ...], max_length: int) -> int:
    """Tokens of a dataset's longest row, from its histogram of ``(upper bound, rows)``; ``max_length`` without one."""
    bounds = [bound for bound, rows in histogram if rows]
    return min(max_length, max(bounds) + FEW_MORE_TOKENS) if bounds else max_length


TOGETHER = Text("Several changes together")
CHECKPOINTING = Text("Gradient checkpointing")
SMALL_OPTIMIZER = Text("8-bit Adam, weights in bf16")


def _changes(recipe: dict[str, Any], device: str) -> Iterator[tuple[Text, dict[str, Any]]]:
    """From what costs least to what costs most of quality or time."""
    if not recipe["gradient_checkpointing"]:
        yield CHECKPOINTING, {"gradient_checkpointing": True}
    batch, accumulated = recipe["per_device_train_batch_size"], recipe["gradient_accumulation_steps"]
    while batch > 1:
        batch, accumulated = (batch + 1) // 2, accumulated * 2
        message = Text("Batch size {batch}, accumulated", batch=batch)
        yield message, {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
    whole = not recipe["use_lora"] and recipe["type"] != "embedding"
    if whole and device == "cuda" and recipe.get("optimizer") != "adamw_8bit":  # on a CPU it takes many times as long
        yield SMALL_OPTIMIZER, {"optimizer": "adamw_8bit"}
    if recipe["use_lora"]:
        order = ("none", "8bit", "4bit")
        for bits in order[order.index(recipe.get("quantization", "4bit")) + 1 :]:
            yield Text("Base in {bits}", bits=bits), {"quantization": bits}
    length = recipe["max_length"]
    while length > SHORTEST:
        length = max(SHORTEST, length // 2)
        yield Text("Max sequence length {length}", length=length), {"max_length": length}


def _least_of_each(fitting: list[MemorySaving]) -> list[MemorySaving]:
    """Of several changes to the same fields, the smallest."""
    kept: dict[tuple[str, ...], MemorySaving] = {}
    for remedy in fitting:
        kept.setdefault(tuple(remedy.changes), remedy)
    return list(kept.values())


# What a child process found out about a model

logger = logging.getLogger("sage_studio")

CHILD_SECONDS = 300.0
RETRY_SECONDS = 60.0
NO_HUB = re.compile(r"couldn.t connect|LocalEntryNotFound|Connection|offline|resolve|timed? ?out", re.I)
NAMES_ERROR = re.compile(r"[\w.]*(Error|Exception): ")
CHILD = "sage_studio.training.memory_trace"
Answer = TypeVar("Answer", bound=BaseModel)


class ChildResultCache(Generic[Answer]):
    """What was found out so far about requests, a file each; safe to use from many threads.

    Args:
        folder: of the files.
        answer: their model.
        prefix: with which their names begin.
    """

    def __init__(self, folder: Path, answer: type[Answer], prefix: str = "") -> None:
        self._folder, self._answer, self._prefix = folder, answer, prefix
        self._one_at_a_time = threading.Lock()

    def kept(self, request: TraceRequest) -> Answer | None:
        """What is known already; None if nothing is."""
        try:
            return self._answer.model_validate_json(self._path(request).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def find(self, request: TraceRequest, check: Callable[[], None] = lambda: None) -> Answer:
        """The answer; some seconds the first time.

        Args:
            check: asked meanwhile; what it raises ends the child.

        Raises:
            InvalidModel: with what the child said.
        """
        with self._one_at_a_time:
            found = self.kept(request)
            if found is None:
                found = self._ask(request, check)
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path(request), found.model_dump_json())
        return found

    def _ask(self, request: TraceRequest, check: Callable[[], None]) -> Answer:
        raise NotImplementedError

    def _holds_for(self, request: TraceRequest) -> str:
        """What the answer depends on besides the request and the versions of the libraries."""
        return ""

    def _path(self, request: TraceRequest) -> Path:
        asked = request.model_dump_json() + json.dumps(versions()) + self._holds_for(request)
        return self._folder / f"{self._prefix}{hashlib.sha256(asked.encode()).hexdigest()[:24]}.json"


class MemoryTraceCache(ChildResultCache[MemoryTrace]):
    """All sizes found out so far."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, MemoryTrace)
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._failed: dict[str, tuple[StudioError, float]] = {}

    def _ask(self, request: TraceRequest, check: Callable[[], None]) -> MemoryTrace:
        return trace_in_child(request, check)

    def later(self, key: str, work: Callable[[], object]) -> None:
        """Do something in a thread, unless it is being done; for those who may not wait.

        Raises:
            StudioError: what it ended with less than a minute ago.
        """
        with self._lock:
            error, at = self._failed.get(key, (None, 0.0))
            if error is not None and time.monotonic() - at < RETRY_SECONDS:
                raise error
            if key in self._under_way:
                return
            self._under_way.add(key)
        threading.Thread(target=self._do, args=(key, work), name="trace", daemon=True).start()

    def _do(self, key: str, work: Callable[[], object]) -> None:
        try:
            work()
        except StudioError as error:
            logger.warning("No memory estimate for %s: %s", key, error)
            self._failed[key] = error, time.monotonic()
        finally:
            self._under_way.discard(key)


def trace_in_child(request: TraceRequest, check: Callable[[], None] = lambda: None) -> MemoryTrace:
    """Have a child process find out the sizes. Raises `InvalidModel`, or `HubUnavailable` for a model not yet here."""
    return MemoryTrace.model_validate_json(
        run_child(CHILD, request, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}, check=check)
    )


def run_child(
    child: str,
    request: TraceRequest,
    variables: Mapping[str, str],
    seconds: float = CHILD_SECONDS,
    check: Callable[[], None] = lambda: None,
) -> str:
    """What a child process prints last about a model: a line of JSON.

    Args:
        child: a module that reads the request from its standard input.
        variables: of the environment, besides this process's own.
        seconds: how long it may take.
        check: asked meanwhile; what it raises ends the child.

    Raises:
        InvalidModel: with what the child said.
        HubUnavailable: the model is not on this machine, and its hub does not answer.
    """
    try:
        done = run_to_end(
            [sys.executable, "-m", child],
            child_environment(Needs.LIBRARIES if is_here(request.location) else Needs.HUB, variables),
            PROJECT,
            input=request.model_dump_json(),
            seconds=seconds,
            check=check,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_found_out(request, f"> {seconds:.0f} s") from error
    if done.returncode:
        raise _not_found_out(request, _last_error(done.stderr)[:300])
    return done.stdout.strip().rpartition("\n")[2]


def _last_error(stderr: str) -> str:
    """What a traceback ends with: the line that names the error; a message may have more lines after it."""
    lines = stderr.strip().splitlines() or [""]
    return next((line for line in reversed(lines) if NAMES_ERROR.match(line)), lines[-1])


def _not_found_out(request: TraceRequest, message: str) -> StudioError:
    if not Path(request.location).is_absolute() and NO_HUB.search(message):
        return HubUnavailable(
            Text(
                "{location} is not downloaded yet, and the hub does not answer: no estimate.", location=request.location
            ),
            Text("Check the network, set HF_ENDPOINT to a mirror, or choose a model that is on this machine."),
        )
    return InvalidModel(
        Text(
            "What {location} takes in training could not be found out: {message}",
            location=request.location,
            message=message,
        ),
        Text("Check that it is a whole transformers model."),
    )
