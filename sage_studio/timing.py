"""How long a training will take on this machine: the verbs of `Studio` about time.

Knows where lengths of rows and paces come from, what earlier runs say of them, and when nothing may be measured. Knows
nothing of the arithmetic (`sage_studio.training.duration`) nor of how it is shown.
"""

import logging
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from sage_studio.data.dataset import Dataset
from sage_studio.errors import NotFound, StudioError
from sage_studio.footprints import FootprintBook
from sage_studio.paces import PaceBook, operations_per_second
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.supervisor import TaskSupervisor
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import NOTHING, Text
from sage_studio.training.duration import (
    SPREAD,
    TEXTS,
    Basis,
    Duration,
    Pace,
    around,
    loop_seconds,
    rough_pace,
    spread,
    work_of,
)
from sage_studio.training.memory import FootprintRequest
from sage_studio.training.progress import Result
from sage_studio.training.recipes import Recipe

logger = logging.getLogger("sage_studio")

RUNS_ASKED = 3
FACTORS = (0.2, 5.0)
"""How far earlier runs may correct a pace: beyond that they were something else."""
TEMPLATE_TOKENS = 25
"""What a chat template adds to a row, about; exact once the model's tokenizer has looked at the rows."""
SAME = ("use_lora", "quantization", "precision")
"""Settings in which an earlier run must agree to tell something."""
NO_ROWS_YET = Text(
    "KBAlign writes its own rows first, so its time shows once it runs.",
    "KBAlign 会先自行编写数据，耗时在开始运行后显示。",
)
FILE_UNREAD = Text("The time of a data file shows once it runs.", "使用数据文件时，耗时在开始运行后显示。")
MEASURING = Text("Measuring how fast this GPU trains it…", "正在测量此 GPU 的训练速度…")
BUSY = Text(
    "The time shows when the running training is over: nothing is measured beside it.",
    "当前训练结束后才能测量并显示耗时。",
)


class Timing:
    """The part of the house that says how long a training will take."""

    footprints: FootprintBook
    paces: PaceBook
    tasks: TaskStore
    supervisor: TaskSupervisor
    get_dataset: Callable[[str], Dataset]
    known_lengths: dict[tuple[Any, ...], tuple[int, ...]]

    def _time(
        self, recipe: Recipe, request: FootprintRequest, parameters: int, *, wait: bool
    ) -> tuple[Duration | None, Text]:
        """The duration, or why there is none yet.

        Args:
            wait: measure now what is not known, in place of later.
        """
        if recipe.type not in TEXTS:
            return None, NO_ROWS_YET
        try:
            dataset = self.get_dataset(recipe.dataset_id) if recipe.dataset_id else None
        except NotFound:
            return None, NOTHING
        if dataset is None:
            return None, FILE_UNREAD
        pace, basis, why = self._pace(request, parameters, wait=wait)
        if pace is None:
            return None, why
        return self._duration(recipe, dataset, pace, basis, parameters), NOTHING

    def _guess(self, recipe: Recipe, request: FootprintRequest | None, parameters: int) -> Duration | None:
        """By what is known already; nothing is measured or looked at for it. None where nothing is."""
        if recipe.type not in TEXTS or not recipe.dataset_id:
            return None
        pace = self.paces.kept(request) if request is not None else None
        basis: Basis = "probe"
        if pace is None:
            pace, basis = rough_pace(parameters, recipe.use_lora, operations_per_second()), "rough"
        return self._duration(recipe, self.get_dataset(recipe.dataset_id), pace, basis, parameters)

    def _duration(self, recipe: Recipe, dataset: Dataset, pace: Pace, basis: Basis, parameters: int) -> Duration:
        runs = self._runs(recipe)
        factor = self._pace_factor(runs, pace)
        if factor is not None:
            basis = "runs"
        elif getattr(recipe, "quantization", "none") != "none":
            basis = "rough"
        beside = [result.seconds - result.details["train_seconds"] for _, result in runs]
        fixed = statistics.median(beside) if beside else around(parameters)

        def seconds(asked: Recipe) -> float:
            values = asked.model_dump()
            work = work_of(values, self._lengths(asked, dataset), dataset.stats.total_samples)
            return fixed + (factor or 1.0) * loop_seconds(values, work, pace)

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

    def _pace(self, request: FootprintRequest, parameters: int, *, wait: bool) -> tuple[Pace | None, Basis, Text]:
        """Measured; on a CPU guessed until it is. Beside a training nothing is measured: each would slow the other."""
        pace, why = self.paces.kept(request), MEASURING
        if pace is not None:
            return pace, "probe", NOTHING
        if self.tasks.running():
            why = BUSY
        elif wait:
            try:
                return self.paces.find(request), "probe", NOTHING
            except StudioError as error:
                logger.warning("No measured pace: %s", error)
                why = error.message
        else:
            try:
                self.footprints.later(f"pace {request}", lambda: self.paces.find(request))
            except StudioError as error:
                why = error.message
        if request.on_card:
            return None, "rough", why
        return rough_pace(parameters, request.use_lora, operations_per_second()), "rough", NOTHING

    def _lengths(self, recipe: Recipe, dataset: Dataset) -> Sequence[int]:
        """Tokens of the rows: by the model's tokenizer where it has looked at them, else by the dataset's figures."""
        known = self.known_lengths.get(lengths_key(recipe))
        if known:
            return known
        stats = dataset.stats
        mean = stats.estimated_tokens / max(stats.total_samples, 1)
        texts = TEXTS[recipe.type]
        share = 1.0 if texts == 1 else 2 / 3 if texts == 2 else 1 / texts
        return [round(share * tokens) + TEMPLATE_TOKENS for tokens in spread(stats.token_histogram, mean)]

    # Earlier runs

    def _runs(self, recipe: Recipe) -> list[tuple[Task, Result]]:
        """The newest completed runs of this model and method, with their results."""
        found = []
        for task in self.tasks.list():
            if task.status is not TaskStatus.COMPLETED or (task.model, task.type) != (
                recipe.model_name_or_path,
                recipe.type,
            ):
                continue
            if any(task.recipe.get(name) != getattr(recipe, name, None) for name in SAME):
                continue
            result = self.supervisor.progress(task).result
            if result is not None and result.steps and result.details.get("train_seconds"):
                found.append((task, result))
            if len(found) == RUNS_ASKED:
                break
        return found

    def _pace_factor(self, runs: Sequence[tuple[Task, Result]], pace: Pace) -> float | None:
        """How much longer those runs took than the pace says; the median, within bounds. None without any."""
        factors = []
        for task, result in runs:
            tokens, rows = result.details.get("dataset_tokens"), result.details.get("rows_used")
            if not tokens or not rows:
                continue
            known = self.known_lengths.get(lengths_of_task(task)) or self._scaled(task, tokens / rows)
            work = work_of({**task.recipe, "max_samples": 0}, known, rows)
            share = result.steps / max(result.total_steps, 1)
            factors.append(result.details["train_seconds"] / (share * loop_seconds(task.recipe, work, pace)))
        return min(max(statistics.median(factors), FACTORS[0]), FACTORS[1]) if factors else None

    def _scaled(self, task: Task, mean: float) -> Sequence[int]:
        """Lengths of a run's rows: its dataset's, brought to the mean that the run had."""
        mean /= 2 if task.type == "dpo" else 1
        try:
            return spread(self.get_dataset(task.dataset_id).stats.token_histogram, mean)
        except StudioError:
            return spread((), mean)


def lengths_key(recipe: Recipe) -> tuple[Any, ...]:
    """What the lengths of a recipe's rows depend on."""
    return recipe.type, recipe.model_name_or_path, recipe.dataset_id, recipe.max_length, recipe.max_samples


def lengths_of_task(task: Task) -> tuple[Any, ...]:
    """The same for a task's recipe."""
    return task.type, task.model, task.dataset_id, task.recipe["max_length"], task.recipe["max_samples"]
