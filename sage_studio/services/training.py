"""Fine-tuning: start, retry and reproduce trainings."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from sage_studio import preflight
from sage_studio.catalog import Catalog, ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.data.sources.local import source_of_file
from sage_studio.errors import Conflict, NotFound, StudioError
from sage_studio.files import path_of
from sage_studio.hardware import detect_hardware
from sage_studio.services.datasets import DatasetService
from sage_studio.services.estimates import EstimateService
from sage_studio.services.models import ModelService
from sage_studio.services.tasks import TaskService
from sage_studio.settings import Settings
from sage_studio.tasks.gpu_assignment import check_pinned_gpus
from sage_studio.tasks.scheduler import RESUMABLE
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Text
from sage_studio.training.failures import LOWER_RATE_FACTOR, Action
from sage_studio.training.methods.kbalign.stage_files import StageFile, replace_stage_file, stage_file, stage_files
from sage_studio.training.progress import TrainingJob, read_result
from sage_studio.training.recipes import RECIPES, Recipe, parse_recipe
from sage_studio.training.save import base_revision, read_lineage

RUNS_ASKED = 5
"""The speed of a model is the median of its newest so many runs."""


class TrainingService:
    """Fine-tuning tasks: start, retry, reproduce; and the files that their stages leave."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        models: ModelService,
        datasets: DatasetService,
        estimates: EstimateService,
        tasks: TaskService,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._models = models
        self._datasets = datasets
        self._estimates = estimates
        self._tasks = tasks

    def start(self, values: Mapping[str, Any]) -> Task:
        """Check a recipe's fields, its model and data as far as that takes no time, and queue a training.

        What takes time is done when the task is prepared (`sage_studio.preparing`): a model is fetched or unpacked, a
        large file is read, large data is checked row by row. If that fails, the task has failed, with the same text
        that is raised here for what is small; see `sage_studio.preflight.is_small`.

        Raises:
            InvalidRecipe, InvalidModel, InvalidDataset, NotFound, HubUnavailable: naming what to correct; no task is
                made then.
        """
        recipe = parse_recipe(values, self._catalog.paths.resolve)
        if recipe.gpu_vis:
            check_pinned_gpus(recipe.model_dump(), detect_hardware())
        model = self._catalog.resolve(recipe.model_name_or_path, ask_hub=False)
        preflight.check_model(recipe, model, at_once=True)
        preflight.adapter_folder(self._tasks.store, recipe, model)  # refused before an upload is kept
        source = _source_of(recipe)
        if source is not None and not preflight.is_small(source):
            if not getattr(recipe, "input_path", ""):
                source_of_file(source, self._settings.max_upload_mb << 20)  # a folder, or a file of no known kind
            preflight.check_copy(recipe)
            return self._queue_source(recipe, model, source)
        preflight.check_copy(recipe)
        if source is None:
            return self._start_with(recipe, model, self._datasets.get(recipe.dataset_id))
        known = {dataset.id for dataset in self._datasets.list()}
        dataset = add_source(self._datasets, recipe, source)
        try:
            return self._start_with(recipe, model, dataset)
        except StudioError:
            if dataset.id not in known:  # the file was read for a training that will not be
                with contextlib.suppress(Conflict, NotFound):
                    self._datasets.delete(dataset.id)
            raise

    def _start_with(self, recipe: Recipe, model: ModelRef, dataset: Dataset) -> Task:
        preflight.check_kind(recipe, dataset)
        rows = self._datasets.store.data_path(dataset.id)
        at_once = preflight.can_be_read_at_once(model) and preflight.is_small(rows)
        if at_once:
            preflight.check_rows(recipe, model, rows, dataset.stats.total_samples)
        return self._queue(recipe, model, dataset, prepared=at_once)

    def reproduce(self, task_id: str) -> Task:
        """Queue the very run of a completed task again: the same rows, base model, recipe and seed.

        Raises:
            NotFound: the dataset is gone, or the task has no lineage.
            Conflict: it is not completed, or the dataset or the base model is not what it was.
        """
        task = self._tasks.store.completed(task_id)
        lineage = read_lineage(task.folder)
        dataset, model = self._datasets.get(task.dataset_id), self._catalog.resolve(task.model)
        if dataset.sha256 and dataset.sha256 != lineage.dataset_sha256:
            raise Conflict(*not_the_same(dataset.id, lineage.dataset_sha256, dataset.sha256))
        at_once = preflight.can_be_read_at_once(model) and preflight.is_small(
            self._datasets.store.data_path(dataset.id)
        )
        if at_once and (revision := base_revision(model.location)) != lineage.base_revision:
            raise Conflict(*not_the_same(task.model, lineage.base_revision, revision))
        elsewhere = dict.fromkeys((*RECIPES[task.type].sources, "output_dir"), "")
        recipe = parse_recipe({**task.recipe, **elsewhere, "dataset_id": dataset.id})
        return self._queue(recipe, model, dataset, reproduces=task.id, prepared=at_once)

    def retry(self, task_id: str) -> Task:
        """Do what is to be done next about a stopped or failed task, where the studio can do it by itself.

        Work other than training is resumed.

        Returns:
            The task, queued again; a new one if the learning rate had to be lowered.

        Raises:
            Conflict: it is neither stopped nor failed, or a person has to choose something else first.
        """
        task = self._tasks.find(task_id)
        if task.kind != "train":
            return self._tasks.resume(task_id)
        match task.next_action:
            case Action.SMALLER_BATCH:
                return self._tasks.scheduler.retry_smaller(task)
            case Action.LOWER_RATE:
                return self.start({**task.recipe, "learning_rate": task.recipe["learning_rate"] / LOWER_RATE_FACTOR})
            case Action.OTHER_DATA | Action.OTHER_MODEL | Action.OTHER_SETTINGS:
                raise Conflict(
                    Text("{id} would fail again: {reason}", id=task.id, reason=task.reason),
                    task.hint,
                )
            case _:
                return self._tasks.scheduler.resume(task)

    def stage_files(self, task_id: str) -> list[StageFile]:
        """The files that the stages of a KBAlign task have left so far; none for other methods."""
        return stage_files(self._tasks.get(task_id).folder)

    def stage_file(self, task_id: str, name: str) -> StageFile:
        """One of `stage_files`, by its name. Raises `NotFound`."""
        return stage_file(self._tasks.get(task_id).folder, name)

    def edit_stage_file(self, task_id: str, name: str, text: str) -> StageFile:
        """Put an edited text in the place of one of `stage_files`, for when the task goes on.

        Raises:
            NotFound: there is no such file. InvalidDataset: a line is no JSON object.
            Conflict: the task is neither stopped nor failed.
        """
        task = self._tasks.get(task_id)
        if task.status not in RESUMABLE:
            raise Conflict(
                Text("{id} is {status}: nobody would read it.", id=task.id, status=task.status),
                Text("Stop the task, edit the file, and resume."),
            )
        return replace_stage_file(task.folder, name, text)

    def tokens_per_second(self, model: str = "") -> float | None:
        """How fast this model was trained on this machine; None where it never was."""
        name, speeds = model or self._models.default(), list[float]()
        for task in self._tasks.list():
            if task.model == name and task.status is TaskStatus.COMPLETED and len(speeds) < RUNS_ASKED:
                result = read_result(task.folder)
                if result is not None and result.tokens_per_second:
                    speeds.append(result.tokens_per_second)
        return median(speeds) if speeds else None

    def _queue(
        self, recipe: Recipe, model: ModelRef, dataset: Dataset, reproduces: str = "", *, prepared: bool
    ) -> Task:
        if prepared:
            dataset = self._datasets.store.hashed(dataset)
        job = TrainingJob(
            model_location=model.location,
            trust_remote_code=model.trust_remote_code,
            adapter_location=preflight.adapter_folder(self._tasks.store, recipe, model),
            data_path=str(self._datasets.store.data_path(dataset.id)),
            dataset_id=dataset.id,
            dataset_sha256=dataset.sha256,
            docs_commit=dataset.commit or "",
            reproduces=reproduces,
            estimated_gb=self._estimates.known_gib(recipe),
            prepared=prepared,
        )
        task = self._tasks.store.create(recipe, job, dataset_name=dataset.name, dataset_id=dataset.id)
        self._tasks.scheduler.wake()
        return task

    def _queue_source(self, recipe: Recipe, model: ModelRef, source: Path) -> Task:
        """Queue a task whose dataset is made of a file or folder when it is prepared."""
        job = TrainingJob(
            model_location=model.location,
            trust_remote_code=model.trust_remote_code,
            data_path="",
            gpus=recipe.gpu_vis,
            estimated_gb=self._estimates.known_gib(recipe),
            source=str(source),
            prepared=False,
        )
        task = self._tasks.store.create(recipe, job, dataset_name=source.name, dataset_id="")
        self._tasks.scheduler.wake()
        return task


def add_source(datasets: DatasetService, recipe: Recipe, source: Path) -> Dataset:
    """Keep the file or folder that a recipe names as a dataset. Raises `InvalidDataset`."""
    add = datasets.add_knowledge if getattr(recipe, "input_path", "") else datasets.upload
    return add(source)


def _source_of(recipe: Recipe) -> Path | None:
    """The file or folder that a recipe names in place of a dataset; None where it names a dataset."""
    if recipe.dataset_id:
        return None
    return path_of(str(getattr(recipe, "input_path", "")) or recipe.train_data_path)


def not_the_same(what: str, was: str, now: str) -> tuple[Text, Text]:
    """What to say, and to do, about a dataset or a model that is not what it was when a run was made with it."""
    return (
        Text("{what} is not what it was: {was}… then, {now}… now.", what=what, was=was[:24], now=now[:24]),
        Text("Start a new task with the same settings."),
    )
