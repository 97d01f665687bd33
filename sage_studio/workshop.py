"""The trainings: the verbs of `Studio` about tasks.

Knows how a recipe, a model and a dataset become a task, and what may be done with one. Knows nothing of how a child
trains, nor of widgets or routes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sage_studio import preflight
from sage_studio.catalog import Catalog, ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.data.sources import source_of_file
from sage_studio.data.store import DatasetStore
from sage_studio.errors import Conflict, InvalidModel, InvalidName, InvalidRecipe, NotFound
from sage_studio.files import safe_name
from sage_studio.hardware import detect_hardware
from sage_studio.serving.adapter_compat import check_adapter
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.retriever import Retriever
from sage_studio.settings import Settings
from sage_studio.tasks.archive import stream_archive
from sage_studio.tasks.cards import check_pinned
from sage_studio.tasks.compare import TaskComparison, compare_runs
from sage_studio.tasks.logs import LogPage, read_log
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.supervisor import RESUMABLE, TaskSupervisor
from sage_studio.tasks.task import Curve, Task, TaskProgress, TaskStatus
from sage_studio.text import Text
from sage_studio.training.actions import SLOWER, Action
from sage_studio.training.lineage import base_revision, read_lineage
from sage_studio.training.methods.kbalign.folder import StageFile, replace_stage_file, stage_file, stage_files
from sage_studio.training.progress import Event, Job, numbered_events
from sage_studio.training.recipe import parse_recipe
from sage_studio.training.recipes import RECIPES, Recipe
from sage_studio.training.recipes.generative import GenerativeRecipe

WHOLE_MODEL = Text("It holds a whole model, no adapter.", "其中是完整的模型，而不是适配器。")
WHOLE_MODEL_HINT = Text(
    "Name its folder as model_name_or_path, and leave start_from empty.",
    "请将其文件夹填入 model_name_or_path，并将 start_from 留空。",
)


class Workshop:
    """The part of the house that trains."""

    settings: Settings
    catalog: Catalog
    datasets: DatasetStore
    tasks: TaskStore
    supervisor: TaskSupervisor
    registry: VLLMRegistry
    finder: Retriever
    upload_dataset: Callable[..., Dataset]
    add_knowledge: Callable[..., Dataset]
    get_dataset: Callable[[str], Dataset]
    kept_estimate: Callable[[Recipe], float | None]

    def start_finetune(self, values: Mapping[str, Any]) -> Task:
        """Check a recipe's fields, its model and data as far as that takes no time, and queue a training.

        What takes time is done when the task is prepared (`sage_studio.preparing`): a model is fetched or unpacked, a
        large file is read, large data is checked row by row. If that fails, the task has failed, with the same text
        that is raised here for what is small; see `sage_studio.preflight.is_small`.

        Raises:
            InvalidRecipe, InvalidModel, InvalidDataset, NotFound, HubUnavailable: naming what to correct; no task is
                made then.
        """
        recipe = parse_recipe(values)
        if recipe.gpu_vis:
            check_pinned(recipe.model_dump(), detect_hardware())
        model = self.catalog.resolve(recipe.model_name_or_path, ask_hub=False)
        preflight.check_model(recipe, model, at_once=True)
        self.adapter_for(recipe, model)  # refused before an upload is kept
        source = _source_of(recipe)
        if source is not None and not preflight.is_small(source):
            if not getattr(recipe, "input_path", ""):
                source_of_file(source, self.settings.max_upload_mb << 20)  # a folder, or a file of no known kind
            preflight.check_copy(recipe)
            return self._queue_source(recipe, model, source)
        dataset = self.get_dataset(recipe.dataset_id) if source is None else add_source(self, recipe, source)
        preflight.check_kind(recipe, dataset)
        rows = self.datasets.data_path(dataset.id)
        at_once = preflight.can_be_read_at_once(model) and preflight.is_small(rows)
        if at_once:
            preflight.check_rows(recipe, model, rows, dataset.stats.total_samples)
        preflight.check_copy(recipe)
        return self._queue(recipe, model, dataset, prepared=at_once)

    def reproduce_task(self, task_id: str) -> Task:
        """Queue the very run of a completed task again: the same rows, base model, recipe and seed.

        Raises:
            NotFound: the dataset is gone, or the task has no lineage.
            Conflict: it is not completed, or the dataset or the base model is not what it was.
        """
        task = self._completed(task_id)
        lineage = read_lineage(task.folder)
        dataset, model = self.get_dataset(task.dataset_id), self.catalog.resolve(task.model)
        if dataset.sha256 and dataset.sha256 != lineage.dataset_sha256:
            raise Conflict(*not_the_same(dataset.id, lineage.dataset_sha256, dataset.sha256))
        at_once = preflight.can_be_read_at_once(model) and preflight.is_small(self.datasets.data_path(dataset.id))
        if at_once and (revision := base_revision(model.location)) != lineage.base_revision:
            raise Conflict(*not_the_same(task.model, lineage.base_revision, revision))
        elsewhere = dict.fromkeys((*RECIPES[task.type].sources, "output_dir"), "")
        recipe = parse_recipe({**task.recipe, **elsewhere, "dataset_id": dataset.id})
        return self._queue(recipe, model, dataset, reproduces=task.id, prepared=at_once)

    def retry_task(self, task_id: str) -> Task:
        """Do what is to be done next about a stopped or failed task, where the studio can do it by itself.

        Returns:
            The task, queued again; a new one if the learning rate had to be lowered.

        Raises:
            Conflict: it is neither stopped nor failed, or a person has to choose something else first.
        """
        task = self.get_task(task_id)
        match task.next_action:
            case Action.SMALLER_BATCH:
                return self.supervisor.retry_smaller(task)
            case Action.LOWER_RATE:
                return self.start_finetune({**task.recipe, "learning_rate": task.recipe["learning_rate"] / SLOWER})
            case Action.OTHER_DATA | Action.OTHER_MODEL | Action.OTHER_SETTINGS:
                raise Conflict(
                    Text(f"{task.id} would fail again: {task.reason.en}", f"{task.id} 会再次失败：{task.reason.zh}"),
                    task.hint,
                )
            case _:
                return self.supervisor.resume(task)

    def compare_tasks(self, task_ids: Sequence[str], points: int = 500) -> TaskComparison:
        """Two to eight runs beside each other. Raises `InvalidInput` for another number, `NotFound`."""
        tasks = [self.get_task(task_id) for task_id in dict.fromkeys(task_ids)]
        return compare_runs(
            tasks,
            [self.supervisor.progress(task) for task in tasks],
            [self.supervisor.curve(task, points) for task in tasks],
        )

    def _queue(
        self, recipe: Recipe, model: ModelRef, dataset: Dataset, reproduces: str = "", *, prepared: bool
    ) -> Task:
        if prepared:
            dataset = self.datasets.hashed(dataset)
        job = Job(
            model_location=model.location,
            trust_remote_code=model.trust_remote_code,
            adapter_location=self.adapter_for(recipe, model),
            data_path=str(self.datasets.data_path(dataset.id)),
            dataset_id=dataset.id,
            dataset_sha256=dataset.sha256,
            docs_commit=dataset.commit or "",
            reproduces=reproduces,
            estimated_gb=self.kept_estimate(recipe),
            prepared=prepared,
        )
        task = self.tasks.create(recipe, job, dataset_name=dataset.name, dataset_id=dataset.id)
        self.supervisor.wake()
        return task

    def _queue_source(self, recipe: Recipe, model: ModelRef, source: Path) -> Task:
        """Queue a task whose dataset is made of a file or folder when it is prepared."""
        job = Job(
            model_location=model.location,
            trust_remote_code=model.trust_remote_code,
            data_path="",
            gpus=recipe.gpu_vis,
            estimated_gb=self.kept_estimate(recipe),
            source=str(source),
            prepared=False,
        )
        task = self.tasks.create(recipe, job, dataset_name=source.name, dataset_id="")
        self.supervisor.wake()
        return task

    def list_tasks(self) -> list[Task]:
        """All tasks, newest first."""
        return self.tasks.list()

    def tasks_with_progress(self) -> list[tuple[Task, TaskProgress]]:
        """All tasks, newest first, each with where it stands; made for thousands of them."""
        tasks = self.tasks.list()
        places = {task.id: place for place, task in enumerate(self.tasks.queue(), 1)}
        return [(task, self.supervisor.progress(task, places.get)) for task in tasks]

    def get_task(self, task_id: str) -> Task:
        """One task. Raises `NotFound`."""
        return self.tasks.get(safe_name(task_id))

    def task_progress(self, task_id: str) -> TaskProgress:
        """Where a task stands now."""
        return self.supervisor.progress(self.get_task(task_id))

    def task_curve(self, task_id: str, points: int = 500) -> Curve:
        """The points of its plots, thinned to at most ``points``."""
        return self.supervisor.curve(self.get_task(task_id), points)

    def task_logs(self, task_id: str, limit: int = 100, offset: int | None = None) -> LogPage:
        """The last ``limit`` lines of the log, or the lines from a byte ``offset`` on."""
        return read_log(self.get_task(task_id).folder, limit=limit, offset=offset)

    def task_events(self, task_id: str, offset: int = 0) -> list[tuple[int, Event]]:
        """Events of a task from a byte offset on, each with the offset behind it."""
        return numbered_events(self.get_task(task_id).folder, offset)

    def task_files(self, task_id: str) -> list[StageFile]:
        """The files that the stages of a KBAlign task have left so far; none for other methods."""
        return stage_files(self.get_task(task_id).folder)

    def task_file(self, task_id: str, name: str) -> StageFile:
        """One of `task_files`, by its name. Raises `NotFound`."""
        return stage_file(self.get_task(task_id).folder, name)

    def edit_task_file(self, task_id: str, name: str, text: str) -> StageFile:
        """Put an edited text in the place of one of `task_files`, for when the task goes on.

        Raises:
            NotFound: there is no such file. InvalidDataset: a line is no JSON object.
            Conflict: the task is neither stopped nor failed.
        """
        task = self.get_task(task_id)
        if task.status not in RESUMABLE:
            raise Conflict(
                Text(
                    f"{task.id} is {task.status}: nobody would read it.",
                    f"{task.id} 的状态是 {task.status}，修改不会生效。",
                ),
                Text("Stop the task, edit the file, and resume.", "请先停止任务，修改文件后再继续。"),
            )
        return replace_stage_file(task.folder, name, text)

    def stop_task(self, task_id: str) -> Task:
        """Stop a task; a running one first writes a checkpoint to continue from. Raises `Conflict` if it is over."""
        return self.supervisor.stop(self.get_task(task_id))

    def resume_task(self, task_id: str) -> Task:
        """Queue a stopped or failed task again, from its newest checkpoint. Raises `Conflict` if it is neither."""
        return self.supervisor.resume(self.get_task(task_id))

    def delete_task(self, task_id: str) -> None:
        """Delete a task and its folder. Raises `Conflict` while it runs or while its model is in use."""
        task = self.get_task(task_id)
        if not task.status.is_over and task.status is not TaskStatus.QUEUED:
            raise Conflict(
                Text(f"{task.id} is still running.", f"{task.id} 仍在运行。"), Text("Stop it first.", "请先停止它。")
            )
        chosen = self.finder.chosen
        if chosen is not None and chosen.task_id == task.id:
            raise Conflict(
                Text(f"{task.id} is the retriever.", f"{task.id} 正用作检索器。"),
                Text("Set another retriever first.", "请先设置其他检索器。"),
            )
        if any(model.name == task.served_name for model in self.registry.models()):
            self.registry.unregister_model(task.served_name)
        self.tasks.delete(task)

    def download_task(self, task_id: str) -> Iterator[bytes]:
        """The task's model as a tar.gz, in pieces. Raises `Conflict` unless it is completed."""
        return stream_archive(self._completed(task_id))

    def _completed(self, task_id: str) -> Task:
        task = self.get_task(task_id)
        if task.status is not TaskStatus.COMPLETED:
            raise Conflict(
                Text(f"{task.id} is {task.status}, not completed.", f"{task.id} 的状态是 {task.status}，尚未完成。"),
                Text("Only a completed task has a model to use.", "只有已完成的任务才有可用的模型。"),
            )
        if not (task.folder / "training_args.json").is_file():
            raise NotFound(
                Text(
                    f"The model folder of {task.id} is gone: {task.folder}.",
                    f"{task.id} 的模型文件夹已不存在：{task.folder}。",
                ),
                Text("Restore the folder, or train again.", "请恢复该文件夹，或重新训练。"),
            )
        return task

    def adapter_for(self, recipe: Recipe, model: ModelRef) -> str:
        """The folder of the adapter that a recipe goes on with; empty for a new one."""
        start = recipe.start_from if isinstance(recipe, GenerativeRecipe) else ""
        if not start:
            return ""
        try:
            folder = Path(start) if Path(start).is_absolute() else self._completed(start).folder
            if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
                raise InvalidModel(WHOLE_MODEL, WHOLE_MODEL_HINT)
            check_adapter(folder, model.location, "transformers", max_rank=0)
        except (NotFound, Conflict, InvalidModel, InvalidName) as error:
            raise InvalidRecipe(
                Text(f"start_from = {start}: {error.message.en}", f"start_from = {start}：{error.message.zh}"),
                error.hint,
                field="start_from",
            ) from error
        return str(folder)


class Takes(Protocol):
    """What can keep a file as a dataset: the studio."""

    @property
    def upload_dataset(self) -> Callable[..., Dataset]:
        """As of `sage_studio.intake.Intake`."""

    @property
    def add_knowledge(self) -> Callable[..., Dataset]:
        """As of `sage_studio.library.Library`."""


def add_source(studio: Takes, recipe: Recipe, source: Path) -> Dataset:
    """Keep the file or folder that a recipe names as a dataset. Raises `InvalidDataset`."""
    add = studio.add_knowledge if getattr(recipe, "input_path", "") else studio.upload_dataset
    return add(source)


def _source_of(recipe: Recipe) -> Path | None:
    """The file or folder that a recipe names in place of a dataset; None where it names a dataset."""
    if recipe.dataset_id:
        return None
    return Path(str(getattr(recipe, "input_path", "")) or recipe.train_data_path).expanduser()


def not_the_same(what: str, was: str, now: str) -> tuple[Text, Text]:
    """What to say, and to do, about a dataset or a model that is not what it was when a run was made with it."""
    return (
        Text(
            f"{what} is not what it was: {was[:24]}… then, {now[:24]}… now.",
            f"{what} 已改变：{was[:24]}… → {now[:24]}…。",
        ),
        Text("Start a new task with the same settings.", "请用相同的设置新建任务。"),
    )
