"""What a training would take, before it is started: memory, disk and time on this machine."""

import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_studio import preflight
from sage_studio.catalog import Catalog, ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.data.store import DatasetStore
from sage_studio.errors import InvalidDataset, NotFound, StudioError
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.services.models import ModelService
from sage_studio.serving.capacity import without_engine
from sage_studio.serving.engine_factory import EMBEDDER, NOT_KNOWN, Servable, configured_engine, servable_for
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.settings import Settings
from sage_studio.tasks.background import BackgroundTasks, Resource, TaskContext
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import NOTHING, Text
from sage_studio.training.duration import (
    SPREAD,
    TEXTS,
    Basis,
    Duration,
    StepTime,
    StepTimeCache,
    estimate_step_time,
    fixed_seconds,
    loop_seconds,
    operations_per_second,
    spread_lengths,
    work_of,
)
from sage_studio.training.environment import cpu_has_bf16, optimizer_for
from sage_studio.training.memory import (
    CUDA_CONTEXT,
    MemoryEstimate,
    MemorySaving,
    MemoryTrace,
    MemoryTraceCache,
    TraceRequest,
    estimate,
    longest_row,
    savings,
    trains_in_half_precision,
)
from sage_studio.training.progress import Result
from sage_studio.training.recipes import Recipe, parse_recipe
from sage_studio.training.recipes.methods import GenerativeRecipe, KBAlignRecipe
from sage_studio.training.save import COPIES

logger = logging.getLogger("sage_studio")

GIB = 2**30
RUNS_ASKED = 3
BF16_FROM = (8, 0)
"""The compute capability of Ampere."""
FACTORS = (0.67, 1.5)
"""How far earlier runs may correct an estimate: beyond that they were something else."""
STEP_TIME_FACTORS = (0.2, 5.0)
"""How far earlier runs may correct a step_time: beyond that they were something else."""
TEMPLATE_TOKENS = 25
"""What a chat template adds to a row, about; exact once the model's tokenizer has looked at the rows."""
SAME = ("use_lora", "quantization", "precision")
"""Settings in which an earlier run must agree to tell something."""
NO_ROWS_YET = Text("KBAlign writes its own rows first, so its time shows once it runs.")
FILE_UNREAD = Text("The time of a data file shows once it runs.")
MEASURING = Text("Measuring how fast this GPU trains it…")
BUSY = Text("The time shows when the running training is over: nothing is measured beside it.")
UNPACKING = Text("Unpacking the built-in model, once: about a minute. Then time and memory are known.")
READING = Text("Measuring time and memory of this model, once: some seconds.")
FETCHING = Text("Not downloaded yet: asking the hub for the model's sizes, some seconds.")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take, in bytes, and what there is.

    Attributes:
        device: ``cpu``, or the GPU's name.
        free, total: of the machine's memory, or the GPU's.
        measured: peak of the newest run of this model and method, in bytes; None before the first.
        disk, disk_free: what checkpoints and the model need, and what is left.
        remedies: changes that make it fit; empty if it fits, or if nothing does.
        remarks: what else should be known.
        duration: how long it would take; None where nobody knows.
        untimed: why there is no duration.
        serving: whether, and how, the result can be chatted with on this machine.
    """

    memory: MemoryEstimate
    device: str
    free: float
    total: float
    measured: float | None
    disk: float
    disk_free: float
    remedies: tuple[MemorySaving, ...] = ()
    remarks: tuple[Text, ...] = ()
    duration: Duration | None = None
    untimed: Text = NOTHING
    serving: Servable = NOT_KNOWN

    @property
    def fits(self) -> bool:
        """Whether there is memory enough."""
        return self.memory.total <= self.free


class EstimateService:
    """What a training will take, before it is started: memory, disk and time."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        models: ModelService,
        datasets: DatasetStore,
        tasks: TaskStore,
        scheduler: TaskScheduler,
        registry: VLLMRegistry,
        background: BackgroundTasks,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._models = models
        self._datasets = datasets
        self._tasks = tasks
        self._scheduler = scheduler
        self._registry = registry
        self._background = background
        background.register("inspect", self._inspect, Resource.CPU, forgets=True)
        self.traces = MemoryTraceCache(settings.models_dir / ".footprints")
        self.step_times = StepTimeCache(settings.models_dir / ".footprints")
        self._known_models: dict[str, ModelRef] = {}
        self._known_rows: dict[tuple[Any, ...], tuple[Text, ...]] = {}
        self._known_lengths: dict[tuple[Any, ...], tuple[int, ...]] = {}

    def estimate(self, values: Mapping[str, Any]) -> Estimate:
        """What a recipe would take. The first time for a model it takes some seconds.

        Raises:
            InvalidRecipe, InvalidModel, NotFound, HubUnavailable: naming what to correct.
        """
        recipe = parse_recipe(values, self._catalog.paths.resolve)
        trace = self._sizes(recipe, self._request(recipe))
        self._look_at_rows(recipe)
        return self._estimate(recipe, trace, wait=True)

    def known(self, values: Mapping[str, Any]) -> Estimate | None:
        """The same at once: None while the model's sizes are being found out, for a later call.

        Raises:
            InvalidRecipe: naming what to correct. InvalidModel, NotFound, HubUnavailable: why there is none.
        """
        recipe = parse_recipe(values, self._catalog.paths.resolve)
        model = self._known_models.get(recipe.model_name_or_path)
        trace = self._known_sizes(recipe, _request(recipe, model)) if model is not None else None
        if trace is not None:
            key = self._rows_key(recipe)
            if key not in self._known_rows:
                self.traces.later(f"rows {key}", lambda: self._look_at_rows(recipe))
            return self._estimate(recipe, trace)
        variant = (recipe.use_lora, recipe.precision, recipe.lora_r, recipe.lora_target_modules, recipe.optimizer)
        self.traces.later(
            f"{recipe.type} {recipe.model_name_or_path} {variant}", lambda: self._sizes(recipe, self._request(recipe))
        )
        return None

    def glance(self, values: Mapping[str, Any]) -> tuple[Duration | None, Text]:
        """What can be said while `known` knows nothing: a rough time on a CPU, and what it waits for.

        Raises:
            InvalidRecipe: naming what to correct. InvalidModel, HubUnavailable: why there will be no estimate.
        """
        recipe = parse_recipe(values, self._catalog.paths.resolve)
        entry, model = self._catalog.find(recipe.model_name_or_path), self._catalog.resolve(recipe.model_name_or_path)
        why = UNPACKING if model.packed is not None else READING if model.is_local else FETCHING
        if detect_hardware().has_gpu:
            return None, why
        try:
            return self.first_guess(recipe, entry.parameters if entry else None), why
        except NotFound:
            return None, why

    def epoch_seconds(self, dataset_id: str, model: str, max_length: int) -> float | None:
        """Seconds of one pass of an SFT over a dataset on a CPU, by what is known already; None where nothing is."""
        entry = self._catalog.find(model)
        if detect_hardware().has_gpu:
            return None
        asked = {"model_name_or_path": model, "dataset_id": dataset_id, "max_length": max_length, "num_train_epochs": 1}
        guess = self.first_guess(parse_recipe(asked), entry.parameters if entry else None)
        return None if guess is None else guess.seconds

    def first_guess(self, recipe: Recipe, parameters: int | None) -> Duration | None:
        """How long a recipe would take on the CPU, at once and by what is known already; None where nothing is.

        Args:
            parameters: of the model, by the catalogue; None for one that is not in it.
        """
        model = self._known_models.get(recipe.model_name_or_path)
        request = _request(recipe, model) if model is not None else None
        trace = self.traces.kept(request) if request is not None else None
        count = trace.parameters if trace is not None else parameters
        return None if count is None else self._guess(recipe, request, count)

    def known_gib(self, recipe: Recipe) -> float | None:
        """Memory that a recipe would take, in GiB, where the model's sizes are known; nothing is found out for it."""
        model = self._known_models.get(recipe.model_name_or_path)
        trace = self._known_sizes(recipe, _request(recipe, model)) if model is not None else None
        return None if trace is None else round(self._memory(recipe, trace).total / GIB, 3)

    # Memory

    def _sizes(self, recipe: Recipe, request: TraceRequest) -> MemoryTrace:
        """The sizes of what a recipe trains, found out where they are not known. Raises `InvalidModel`."""
        trace, hardware = self._find(request), detect_hardware()
        if trains_in_half_precision(_with_optimizer(recipe, trace, hardware)):
            return self._find(_halved(request)) if has_bf16(hardware) else _in_fp32(trace)
        return trace

    def _find(self, request: TraceRequest) -> MemoryTrace:
        """What is known of a model, or found out by a task of the kind ``inspect``. Raises as that."""
        if self.traces.kept(request) is None:
            self._background.run("inspect", {"model": request.location, "request": request.model_dump(mode="json")})
        return self.traces.find(request)

    def _inspect(self, task: TaskContext) -> str:
        task.tell(0, 1, READING)
        self.traces.find(TraceRequest.model_validate(task.order["request"]), task.check)
        task.tell(1, 1, READING)
        return ""

    def _known_sizes(self, recipe: Recipe, request: TraceRequest) -> MemoryTrace | None:
        """The same of what is known already; None where something has to be found out."""
        trace, hardware = self.traces.kept(request), detect_hardware()
        if trace is not None and trains_in_half_precision(_with_optimizer(recipe, trace, hardware)):
            return self.traces.kept(_halved(request)) if has_bf16(hardware) else _in_fp32(trace)
        return trace

    def _estimate(self, recipe: Recipe, trace: MemoryTrace, *, wait: bool = False) -> Estimate:
        hardware = detect_hardware()
        values = _with_optimizer(recipe, trace, hardware)
        device, length = "cuda" if hardware.has_gpu else "cpu", self._longest(recipe)
        peaks = self._peaks(recipe)
        name, free, total = memory_capacity(hardware, self._registry.engine_memory(for_training=True))
        memory = self._memory(recipe, trace)
        disk = float(recipe.save_total_limit + 1) * COPIES * 4 * trace.trained
        disk_free = float(shutil.disk_usage(_existing(self._settings.root)).free)
        request = _request(recipe, self._known_models[recipe.model_name_or_path])
        duration, untimed = self._time(recipe, request, trace.parameters, wait=wait)
        fitting = savings(values, trace, device, length, memory.factor, free) if memory.total > free else []
        return Estimate(
            memory=memory,
            device=name,
            free=free,
            total=total,
            measured=peaks[0][1] if peaks else None,
            disk=disk,
            disk_free=disk_free,
            serving=self._serving(recipe, trace, hardware),
            remedies=tuple(fitting),
            remarks=tuple(self._remarks(recipe, disk, disk_free)),
            duration=duration,
            untimed=untimed,
        )

    def _memory(self, recipe: Recipe, trace: MemoryTrace) -> MemoryEstimate:
        device, peaks = "cuda" if has_gpu() else "cpu", self._peaks(recipe)
        values = _with_optimizer(recipe, trace, detect_hardware())
        return estimate(values, trace, device, self._longest(recipe), self._factor(peaks, device))

    def _serving(self, recipe: Recipe, trace: MemoryTrace, hardware: Hardware) -> Servable:
        """How the result will be served once nothing is trained: what our engine holds is its own again by then."""
        if not isinstance(recipe, GenerativeRecipe):
            return EMBEDDER
        location = self._known_models[recipe.model_name_or_path].location
        return servable_for(
            self._settings,
            without_engine(hardware, self._registry.engine_memory()),
            location,
            recipe.lora_r if recipe.use_lora else 0,
            trace.parameters,
            self._why_merged(recipe),
        )

    def _why_merged(self, recipe: Recipe) -> str:
        model = self._known_models[recipe.model_name_or_path]
        adapter = preflight.adapter_folder(self._tasks, recipe, model)
        return preflight.why_merged(recipe, model.location, adapter, self._settings.max_lora_rank)

    def _remarks(self, recipe: Recipe, disk: float, disk_free: float) -> list[Text]:
        why = self._why_merged(recipe) if configured_engine(self._settings) == "vllm" else ""
        remarks = [
            *preflight.remarks_on_serving(why),
            *self._known_rows.get(self._rows_key(recipe), ()),
        ]
        if disk > disk_free:
            need, left = f"{disk / GIB:.1f}", f"{disk_free / GIB:.1f}"
            remarks.append(Text("Checkpoints need {need} GiB of disk; {left} GiB are free.", need=need, left=left))
        return remarks

    def _request(self, recipe: Recipe) -> TraceRequest:
        model = self._models.ensure(recipe.model_name_or_path)
        self._known_models[recipe.model_name_or_path] = model
        return _request(recipe, model)

    # Rows

    def _look_at_rows(self, recipe: Recipe) -> None:
        """Find out which rows will be left out, and keep what is to be said of it; once for a dataset and a length."""
        key, model = self._rows_key(recipe), self._known_models[recipe.model_name_or_path]
        if key in self._known_rows:
            return
        message: list[Text] = []
        try:
            if recipe.dataset_id:
                path = self._datasets.data_path(self._datasets.get(recipe.dataset_id).id)
                found = preflight.rows_left_out(recipe, model, path)
                message = preflight.remarks_on_rows(found, recipe)
                self._known_lengths[lengths_key(recipe)] = found.lengths
                if recipe.max_samples:  # what all rows would take is said too
                    every = recipe.model_copy(update={"max_samples": 0})
                    self._known_lengths[lengths_key(every)] = preflight.rows_left_out(every, model, path).lengths
        except NotFound:  # said when the run is started; here it may be half typed
            return
        except InvalidDataset as error:
            message = [error.message]
        self._known_rows[key] = tuple(message)

    def _rows_key(self, recipe: Recipe) -> tuple[Any, ...]:
        model = self._known_models[recipe.model_name_or_path]
        return recipe.type, model.location, recipe.dataset_id, recipe.max_length, recipe.max_samples

    def _longest(self, recipe: Recipe) -> int:
        """In tokens; KBAlign trains on rows that it has yet to write."""
        known = recipe.dataset_id and not isinstance(recipe, KBAlignRecipe)
        try:
            dataset = self._datasets.get(recipe.dataset_id) if known else None
        except NotFound:
            dataset = None
        return longest_row(dataset.stats.token_histogram if dataset else (), recipe.max_length)

    # Time

    def _time(
        self, recipe: Recipe, request: TraceRequest, parameters: int, *, wait: bool
    ) -> tuple[Duration | None, Text]:
        """The duration, or why there is none yet.

        Args:
            wait: measure now what is not known, in place of later.
        """
        if recipe.type not in TEXTS:
            return None, NO_ROWS_YET
        try:
            dataset = self._datasets.get(recipe.dataset_id) if recipe.dataset_id else None
        except NotFound:
            return None, NOTHING
        if dataset is None:
            return None, FILE_UNREAD
        step_time, basis, why = self._step_time(request, parameters, wait=wait)
        if step_time is None:
            return None, why
        return self._duration(recipe, dataset, step_time, basis, parameters), NOTHING

    def _guess(self, recipe: Recipe, request: TraceRequest | None, parameters: int) -> Duration | None:
        """By what is known already; nothing is measured or looked at for it. None where nothing is."""
        if recipe.type not in TEXTS or not recipe.dataset_id:
            return None
        step_time = self.step_times.kept(request) if request is not None else None
        basis: Basis = "probe"
        if step_time is None:
            step_time, basis = estimate_step_time(parameters, recipe.use_lora, operations_per_second()), "rough"
        return self._duration(recipe, self._datasets.get(recipe.dataset_id), step_time, basis, parameters)

    def _duration(
        self, recipe: Recipe, dataset: Dataset, step_time: StepTime, basis: Basis, parameters: int
    ) -> Duration:
        runs = self._runs(recipe)
        factor = self._step_time_factor(runs, step_time)
        if factor is not None:
            basis = "runs"
        elif getattr(recipe, "quantization", "none") != "none":
            basis = "rough"
        beside = [result.seconds - result.details["train_seconds"] for _, result in runs]
        fixed = statistics.median(beside) if beside else fixed_seconds(parameters)

        def seconds(asked: Recipe) -> float:
            values = asked.model_dump()
            work = work_of(values, self._lengths(asked, dataset), dataset.stats.total_samples)
            return fixed + (factor or 1.0) * loop_seconds(values, work, step_time)

        total = dataset.stats.total_samples
        fewer = 0 < recipe.max_samples < total
        whole = seconds(recipe.model_copy(update={"max_samples": 0})) if fewer and not recipe.max_steps else None
        estimate, (least, most) = seconds(recipe), SPREAD[basis]
        return Duration(
            seconds=estimate,
            low=least * estimate,
            high=most * estimate,
            basis=basis,
            rows=recipe.max_samples if fewer else total,
            total_rows=total,
            all_rows=whole,
        )

    def _step_time(self, request: TraceRequest, parameters: int, *, wait: bool) -> tuple[StepTime | None, Basis, Text]:
        """Measured; on a CPU guessed until it is. Beside a training nothing is measured: each would slow the other."""
        step_time, why = self.step_times.kept(request), MEASURING
        if step_time is not None:
            return step_time, "probe", NOTHING
        if self._tasks.running():
            why = BUSY
        elif wait:
            try:
                return self.step_times.find(request), "probe", NOTHING
            except StudioError as error:
                logger.warning("No measured step_time: %s", error)
                why = error.message
        else:
            try:
                self.traces.later(f"step_time {request}", lambda: self.step_times.find(request))
            except StudioError as error:
                why = error.message
        if request.on_gpu:
            return None, "rough", why
        return estimate_step_time(parameters, request.use_lora, operations_per_second()), "rough", NOTHING

    def _lengths(self, recipe: Recipe, dataset: Dataset) -> Sequence[int]:
        """Tokens of the rows: by the model's tokenizer where it has looked at them, else by the dataset's figures."""
        known = self._known_lengths.get(lengths_key(recipe))
        if known:
            return known
        stats = dataset.stats
        mean = stats.estimated_tokens / max(stats.total_samples, 1)
        texts = TEXTS[recipe.type]
        share = 1.0 if texts == 1 else 2 / 3 if texts == 2 else 1 / texts
        return [round(share * tokens) + TEMPLATE_TOKENS for tokens in spread_lengths(stats.token_histogram, mean)]

    # Earlier runs

    def _peaks(self, recipe: Recipe) -> list[tuple[Task, float]]:
        """Completed runs of the same model and method, the newest first, each with its measured peak in bytes."""
        alike = (
            task
            for task in self._tasks.list()
            if task.status is TaskStatus.COMPLETED
            and (task.model, task.type) == (recipe.model_name_or_path, recipe.type)
            and task.recipe.get("use_lora") == recipe.use_lora
        )
        found = []
        for task in alike:
            result = self._scheduler.progress(task).result
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
            model = self._known_models.get(task.model)
            trace = self._known_sizes(recipe, _request(recipe, model)) if model is not None else None
            if trace is not None:
                context = CUDA_CONTEXT if device == "cuda" else 0.0
                values = _with_optimizer(recipe, trace, detect_hardware())
                guess = estimate(values, trace, device, self._longest(recipe)).total
                factors.append((peak + context) / guess)
        return min(max(statistics.median(factors), FACTORS[0]), FACTORS[1]) if factors else 1.0

    def _runs(self, recipe: Recipe) -> list[tuple[Task, Result]]:
        """The newest completed runs of this model and method, with their results."""
        found = []
        for task in self._tasks.list():
            if task.status is not TaskStatus.COMPLETED or (task.model, task.type) != (
                recipe.model_name_or_path,
                recipe.type,
            ):
                continue
            if any(task.recipe.get(name) != getattr(recipe, name, None) for name in SAME):
                continue
            result = self._scheduler.progress(task).result
            if result is not None and result.steps and result.details.get("train_seconds"):
                found.append((task, result))
            if len(found) == RUNS_ASKED:
                break
        return found

    def _step_time_factor(self, runs: Sequence[tuple[Task, Result]], step_time: StepTime) -> float | None:
        """How much longer those runs took than the step_time says; the median, within bounds. None without any."""
        factors = []
        for task, result in runs:
            tokens, rows = result.details.get("dataset_tokens"), result.details.get("rows_used")
            if not tokens or not rows:
                continue
            known = self._known_lengths.get(lengths_of_task(task)) or self._scaled(task, tokens / rows)
            work = work_of({**task.recipe, "max_samples": 0}, known, rows)
            share = result.steps / max(result.total_steps, 1)
            factors.append(result.details["train_seconds"] / (share * loop_seconds(task.recipe, work, step_time)))
        return min(max(statistics.median(factors), STEP_TIME_FACTORS[0]), STEP_TIME_FACTORS[1]) if factors else None

    def _scaled(self, task: Task, mean: float) -> Sequence[int]:
        """Lengths of a run's rows: its dataset's, brought to the mean that the run had."""
        mean /= 2 if task.type == "dpo" else 1
        try:
            return spread_lengths(self._datasets.get(task.dataset_id).stats.token_histogram, mean)
        except StudioError:
            return spread_lengths((), mean)


def _request(recipe: Recipe, model: ModelRef) -> TraceRequest:
    on_gpu = has_gpu()
    half = recipe.precision == "bf16" or (recipe.precision == "auto" and (on_gpu or cpu_has_bf16()))
    lora = {"lora_r": recipe.lora_r, "lora_target_modules": recipe.lora_target_modules} if recipe.use_lora else {}
    return TraceRequest(
        type=recipe.type,
        location=model.location,
        trust_remote_code=model.trust_remote_code,
        generative=isinstance(recipe, GenerativeRecipe),
        use_lora=recipe.use_lora,
        lora_dropout=recipe.lora_dropout if recipe.use_lora else 0.0,
        dtype="bfloat16" if half else "float32",
        on_gpu=on_gpu,
        **lora,
    )


def _with_optimizer(recipe: Recipe, trace: MemoryTrace, hardware: Hardware) -> dict[str, Any]:
    """The recipe's fields with the optimizer that the trainer will choose."""
    values = recipe.model_dump(mode="json")
    gpu = memory_capacity(hardware)[2] if hardware.has_gpu else 0.0
    return values | {"optimizer": optimizer_for(values, trace.parameters, gpu)}


def _halved(request: TraceRequest) -> TraceRequest:
    return request.model_copy(update={"half_weights": True})


def _in_fp32(trace: MemoryTrace) -> MemoryTrace:
    """Of a model trained whole on a GPU without bf16: its weights stay in fp32 with either optimizer."""
    return trace.model_copy(update={"weight_bytes": 4})


def has_bf16(hardware: Hardware) -> bool:
    """Whether every GPU multiplies bf16, as those do from compute capability 8.0 on; true without a GPU."""
    return all((gpu.capability or BF16_FROM) >= BF16_FROM for gpu in hardware.gpus)


def memory_capacity(hardware: Hardware, yielded: Mapping[int, float] | None = None) -> tuple[str, float, float]:
    """The device that would be used: its name, free and total memory in bytes; of several GPUs the freest.

    Args:
        hardware: what is used now.
        yielded: what our own engine gives back to a training, in GiB by index of the GPU.
    """
    if not hardware.gpus:
        return "cpu", (hardware.memory_gb - hardware.used_gb) * GIB, hardware.memory_gb * GIB
    gpu = max(without_engine(hardware, yielded or {}).gpus, key=lambda gpu: gpu.free_gb)
    return gpu.name, gpu.free_gb * GIB, gpu.memory_gb * GIB


def has_gpu() -> bool:
    """Whether this machine has a GPU."""
    return detect_hardware().has_gpu


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def lengths_key(recipe: Recipe) -> tuple[Any, ...]:
    """What the lengths of a recipe's rows depend on."""
    return recipe.type, recipe.model_name_or_path, recipe.dataset_id, recipe.max_length, recipe.max_samples


def lengths_of_task(task: Task) -> tuple[Any, ...]:
    """The same for a task's recipe."""
    return task.type, task.model, task.dataset_id, task.recipe["max_length"], task.recipe["max_samples"]
