"""What a training would take, before it is started: the verbs of `Studio` about memory and disk; time is `timing`'s.

Knows how a recipe, a dataset, the machine and earlier runs become an estimate. Knows nothing of how the sizes of a
model are found out (`sage_studio.footprints`), nor of the arithmetic (`sage_studio.training.memory`).
"""

import shutil
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_studio import preflight
from sage_studio.catalog import ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.data.store import DatasetStore
from sage_studio.errors import InvalidDataset, NotFound
from sage_studio.footprints import FootprintBook
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.serving.capacity import without_engine
from sage_studio.serving.engine_factory import EMBEDDER, NOT_KNOWN, Servable, configured_engine, servable_for
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.settings import Settings
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.supervisor import TaskSupervisor
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import NOTHING, Text
from sage_studio.timing import Timing, lengths_key
from sage_studio.training.checkpoints import COPIES
from sage_studio.training.duration import Duration
from sage_studio.training.environment import cpu_has_bf16
from sage_studio.training.memory import (
    CUDA_CONTEXT,
    Footprint,
    FootprintRequest,
    Memory,
    Remedy,
    estimate,
    halved,
    longest_row,
    remedies,
)
from sage_studio.training.optimizer import optimizer_for
from sage_studio.training.recipe import parse_recipe
from sage_studio.training.recipes import Recipe
from sage_studio.training.recipes.generative import GenerativeRecipe
from sage_studio.training.recipes.kbalign import KBAlignRecipe

GIB = 2**30
RUNS_ASKED = 3
BF16_FROM = (8, 0)
"""The compute capability of Ampere."""
FACTORS = (0.67, 1.5)
"""How far earlier runs may correct an estimate: beyond that they were something else."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would take, in bytes, and what there is.

    Attributes:
        device: ``cpu``, or the card's name.
        free, total: of the machine's memory, or the card's.
        measured: peak of the newest run of this model and method, in bytes; None before the first.
        disk, disk_free: what checkpoints and the model need, and what is left.
        remedies: changes that make it fit; empty if it fits, or if nothing does.
        remarks: what else should be known.
        duration: how long it would take; None where nobody knows.
        untimed: why there is no duration.
        serving: whether, and how, the result can be chatted with on this machine.
    """

    memory: Memory
    device: str
    free: float
    total: float
    measured: float | None
    disk: float
    disk_free: float
    remedies: tuple[Remedy, ...] = ()
    remarks: tuple[Text, ...] = ()
    duration: Duration | None = None
    untimed: Text = NOTHING
    serving: Servable = NOT_KNOWN

    @property
    def fits(self) -> bool:
        """Whether there is memory enough."""
        return self.memory.total <= self.free


class Forecasts(Timing):
    """The part of the house that says what a training will take."""

    settings: Settings
    footprints: FootprintBook
    known_models: dict[str, ModelRef]
    known_rows: dict[tuple[Any, ...], tuple[Text, ...]]
    datasets: DatasetStore
    tasks: TaskStore
    supervisor: TaskSupervisor
    registry: VLLMRegistry
    ensure_model: Callable[[str], ModelRef]
    get_dataset: Callable[[str], Dataset]
    adapter_for: Callable[[Recipe, ModelRef], str]

    def estimate_memory(self, values: Mapping[str, Any]) -> Forecast:
        """What a recipe would take. The first time for a model it takes some seconds.

        Raises:
            InvalidRecipe, InvalidModel, NotFound, HubUnavailable: naming what to correct.
        """
        recipe = parse_recipe(values)
        footprint = self._sizes(recipe, self._request(recipe))
        self._look_at_rows(recipe)
        return self._forecast(recipe, footprint, wait=True)

    def known_estimate(self, values: Mapping[str, Any]) -> Forecast | None:
        """The same at once: None while the model's sizes are being found out, for a later call.

        Raises:
            InvalidRecipe: naming what to correct. InvalidModel, NotFound, HubUnavailable: why there is none.
        """
        recipe = parse_recipe(values)
        model = self.known_models.get(recipe.model_name_or_path)
        footprint = self._known_sizes(recipe, _request(recipe, model)) if model is not None else None
        if footprint is not None:
            key = self._rows_key(recipe)
            if key not in self.known_rows:
                self.footprints.later(f"rows {key}", lambda: self._look_at_rows(recipe))
            return self._forecast(recipe, footprint)
        variant = (recipe.use_lora, recipe.precision, recipe.lora_r, recipe.lora_target_modules, recipe.optimizer)
        self.footprints.later(
            f"{recipe.type} {recipe.model_name_or_path} {variant}", lambda: self._sizes(recipe, self._request(recipe))
        )
        return None

    def first_guess(self, recipe: Recipe, parameters: int | None) -> Duration | None:
        """How long a recipe would take on the CPU, at once and by what is known already; None where nothing is.

        Args:
            parameters: of the model, by the catalogue; None for one that is not in it.
        """
        model = self.known_models.get(recipe.model_name_or_path)
        request = _request(recipe, model) if model is not None else None
        footprint = self.footprints.kept(request) if request is not None else None
        count = footprint.parameters if footprint is not None else parameters
        return None if count is None else self._guess(recipe, request, count)

    def kept_estimate(self, recipe: Recipe) -> float | None:
        """Memory that a recipe would take, in GiB, where the model's sizes are known; nothing is found out for it."""
        model = self.known_models.get(recipe.model_name_or_path)
        footprint = self._known_sizes(recipe, _request(recipe, model)) if model is not None else None
        return None if footprint is None else round(self._memory(recipe, footprint).total / GIB, 3)

    def _sizes(self, recipe: Recipe, request: FootprintRequest) -> Footprint:
        """The sizes of what a recipe trains, found out where they are not known. Raises `InvalidModel`."""
        footprint, hardware = self.footprints.find(request), detect_hardware()
        if halved(_with_optimizer(recipe, footprint, hardware)):
            return self.footprints.find(_halved(request)) if has_bf16(hardware) else _in_fp32(footprint)
        return footprint

    def _known_sizes(self, recipe: Recipe, request: FootprintRequest) -> Footprint | None:
        """The same of what is known already; None where something has to be found out."""
        footprint, hardware = self.footprints.kept(request), detect_hardware()
        if footprint is not None and halved(_with_optimizer(recipe, footprint, hardware)):
            return self.footprints.kept(_halved(request)) if has_bf16(hardware) else _in_fp32(footprint)
        return footprint

    def _forecast(self, recipe: Recipe, footprint: Footprint, *, wait: bool = False) -> Forecast:
        hardware = detect_hardware()
        values = _with_optimizer(recipe, footprint, hardware)
        device, length = "cuda" if hardware.has_gpu else "cpu", self._longest(recipe)
        peaks = self._peaks(recipe)
        name, free, total = room(hardware, self.registry.engine_memory(yielding=True))
        memory = self._memory(recipe, footprint)
        disk = float(recipe.save_total_limit + 1) * COPIES * 4 * footprint.trained
        disk_free = float(shutil.disk_usage(_existing(self.settings.root)).free)
        request = _request(recipe, self.known_models[recipe.model_name_or_path])
        duration, untimed = self._time(recipe, request, footprint.parameters, wait=wait)
        fitting = remedies(values, footprint, device, length, memory.factor, free) if memory.total > free else []
        return Forecast(
            memory=memory,
            device=name,
            free=free,
            total=total,
            measured=peaks[0][1] if peaks else None,
            disk=disk,
            disk_free=disk_free,
            serving=self._serving(recipe, footprint, hardware),
            remedies=tuple(fitting),
            remarks=tuple(self._remarks(recipe, disk, disk_free)),
            duration=duration,
            untimed=untimed,
        )

    def _memory(self, recipe: Recipe, footprint: Footprint) -> Memory:
        device, peaks = "cuda" if has_card() else "cpu", self._peaks(recipe)
        values = _with_optimizer(recipe, footprint, detect_hardware())
        return estimate(values, footprint, device, self._longest(recipe), self._factor(peaks, device))

    def _serving(self, recipe: Recipe, footprint: Footprint, hardware: Hardware) -> Servable:
        """How the result will be served once nothing is trained: what our engine holds is its own again by then."""
        if not isinstance(recipe, GenerativeRecipe):
            return EMBEDDER
        location = self.known_models[recipe.model_name_or_path].location
        return servable_for(
            self.settings,
            without_engine(hardware, self.registry.engine_memory()),
            location,
            recipe.lora_r if recipe.use_lora else 0,
            footprint.parameters,
            self._why_merged(recipe),
        )

    def _why_merged(self, recipe: Recipe) -> str:
        model = self.known_models[recipe.model_name_or_path]
        adapter = self.adapter_for(recipe, model)
        return preflight.why_merged(recipe, model.location, adapter, self.settings.max_lora_rank)

    def _remarks(self, recipe: Recipe, disk: float, disk_free: float) -> list[Text]:
        why = self._why_merged(recipe) if configured_engine(self.settings) == "vllm" else ""
        remarks = [
            *preflight.said_of_serving(why),
            *self.known_rows.get(self._rows_key(recipe), ()),
        ]
        if disk > disk_free:
            need, left = f"{disk / GIB:.1f}", f"{disk_free / GIB:.1f}"
            remarks.append(
                Text(
                    f"Checkpoints need {need} GiB of disk; {left} GiB are free.",
                    f"检查点需要 {need} GiB 磁盘空间，剩余 {left} GiB。",
                )
            )
        return remarks

    # The rows

    def _look_at_rows(self, recipe: Recipe) -> None:
        """Find out which rows will be left out, and keep what is to be said of it; once for a dataset and a length."""
        key, model = self._rows_key(recipe), self.known_models[recipe.model_name_or_path]
        if key in self.known_rows:
            return
        said: list[Text] = []
        try:
            if recipe.dataset_id:
                path = self.datasets.data_path(self.get_dataset(recipe.dataset_id).id)
                found = preflight.rows_left_out(recipe, model, path)
                said = preflight.said_of(found, recipe)
                self.known_lengths[lengths_key(recipe)] = found.lengths
                if recipe.max_samples:  # what all rows would take is said too
                    every = recipe.model_copy(update={"max_samples": 0})
                    self.known_lengths[lengths_key(every)] = preflight.rows_left_out(every, model, path).lengths
        except NotFound:  # said when the run is started; here it may be half typed
            return
        except InvalidDataset as error:
            said = [error.message]
        self.known_rows[key] = tuple(said)

    def _rows_key(self, recipe: Recipe) -> tuple[Any, ...]:
        model = self.known_models[recipe.model_name_or_path]
        return recipe.type, model.location, recipe.dataset_id, recipe.max_length, recipe.max_samples

    def _longest(self, recipe: Recipe) -> int:
        """In tokens; KBAlign trains on rows that it has yet to write."""
        known = recipe.dataset_id and not isinstance(recipe, KBAlignRecipe)
        try:
            dataset = self.get_dataset(recipe.dataset_id) if known else None
        except NotFound:
            dataset = None
        return longest_row(dataset.stats.token_histogram if dataset else (), recipe.max_length)

    # Earlier runs

    def _peaks(self, recipe: Recipe) -> list[tuple[Task, float]]:
        """Completed runs of the same model and method, the newest first, each with its measured peak in bytes."""
        alike = (
            task
            for task in self.tasks.list()
            if task.status is TaskStatus.COMPLETED
            and (task.model, task.type) == (recipe.model_name_or_path, recipe.type)
            and task.recipe.get("use_lora") == recipe.use_lora
        )
        found = []
        for task in alike:
            result = self.supervisor.progress(task).result
            if result is not None and result.peak_memory_gb:
                found.append((task, result.peak_memory_gb * GIB))
            if len(found) == RUNS_ASKED:
                break
        return found

    def _factor(self, peaks: list[tuple[Task, float]], device: str) -> float:
        """How much more those runs took than was estimated; the median, within bounds."""
        factors = []
        for task, peak in peaks:
            recipe = parse_recipe(task.recipe)
            model = self.known_models.get(task.model)
            footprint = self._known_sizes(recipe, _request(recipe, model)) if model is not None else None
            if footprint is not None:
                context = CUDA_CONTEXT if device == "cuda" else 0.0
                values = _with_optimizer(recipe, footprint, detect_hardware())
                guess = estimate(values, footprint, device, self._longest(recipe)).total
                factors.append((peak + context) / guess)
        return min(max(statistics.median(factors), FACTORS[0]), FACTORS[1]) if factors else 1.0

    def _request(self, recipe: Recipe) -> FootprintRequest:
        model = self.ensure_model(recipe.model_name_or_path)
        self.known_models[recipe.model_name_or_path] = model
        return _request(recipe, model)


def _request(recipe: Recipe, model: ModelRef) -> FootprintRequest:
    on_card = has_card()
    half = recipe.precision == "bf16" or (recipe.precision == "auto" and (on_card or cpu_has_bf16()))
    lora = {"lora_r": recipe.lora_r, "lora_target_modules": recipe.lora_target_modules} if recipe.use_lora else {}
    return FootprintRequest(
        type=recipe.type,
        location=model.location,
        trust_remote_code=model.trust_remote_code,
        generative=isinstance(recipe, GenerativeRecipe),
        use_lora=recipe.use_lora,
        lora_dropout=recipe.lora_dropout if recipe.use_lora else 0.0,
        dtype="bfloat16" if half else "float32",
        on_card=on_card,
        **lora,
    )


def _with_optimizer(recipe: Recipe, footprint: Footprint, hardware: Hardware) -> dict[str, Any]:
    """The recipe's fields with the optimizer that the trainer will choose."""
    values = recipe.model_dump(mode="json")
    card = room(hardware)[2] if hardware.has_gpu else 0.0
    return values | {"optimizer": optimizer_for(values, footprint.parameters, card)}


def _halved(request: FootprintRequest) -> FootprintRequest:
    return request.model_copy(update={"half_weights": True})


def _in_fp32(footprint: Footprint) -> Footprint:
    """Of a model trained whole on a GPU without bf16: its weights stay in fp32 with either optimizer."""
    return footprint.model_copy(update={"weight_bytes": 4})


def has_bf16(hardware: Hardware) -> bool:
    """Whether every GPU multiplies bf16, as those do from compute capability 8.0 on; true without a GPU."""
    return all((card.capability or BF16_FROM) >= BF16_FROM for card in hardware.cards)


def room(hardware: Hardware, yielded: Mapping[int, float] | None = None) -> tuple[str, float, float]:
    """The device that would be used: its name, free and total memory in bytes; of several GPUs the freest.

    Args:
        hardware: what is used now.
        yielded: what our own engine gives back to a training, in GiB by index of the GPU.
    """
    if not hardware.cards:
        return "cpu", (hardware.memory_gb - hardware.used_gb) * GIB, hardware.memory_gb * GIB
    card = max(without_engine(hardware, yielded or {}).cards, key=lambda card: card.free_gb)
    return card.name, card.free_gb * GIB, card.memory_gb * GIB


def has_card() -> bool:
    """Whether this machine has a card."""
    return detect_hardware().has_gpu


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
