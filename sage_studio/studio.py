"""The house: the services wired together, and the verbs that a person, a script or a route can say.

Knows which service does what, and the few verbs that span two of them. Knows nothing of widgets, routes or HTTP; every
door calls these verbs and adds nothing of its own.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sage_studio.backend import Backend
from sage_studio.catalog import Catalog, ModelEntry
from sage_studio.data.dataset import Dataset, DatasetSource, OnProgress, ignore_progress
from sage_studio.data.docs_processor import SAGEDocsProcessor
from sage_studio.data.store import DatasetStore, Preview
from sage_studio.data.upload import UploadSource
from sage_studio.database import Database
from sage_studio.errors import Conflict, NotFound, StudioError
from sage_studio.files import safe_name
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.performance.sampler import Sampler
from sage_studio.serving import vllm_registry
from sage_studio.serving.types import RegisteredModel
from sage_studio.settings import PREFIX, Settings
from sage_studio.tasks.archive import stream_archive
from sage_studio.tasks.launcher import ProcessLauncher
from sage_studio.tasks.logs import LogPage, read_log
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.supervisor import TaskSupervisor
from sage_studio.tasks.task import Curve, Task, TaskProgress, TaskStatus
from sage_studio.text import Text
from sage_studio.training.progress import Event, Job, numbered_events
from sage_studio.training.recipe import Recipe, load_presets, parse_recipe
from sage_studio.votes import VoteBook

logger = logging.getLogger("sage_studio")

FETCHED = 0.7
"""Share of a progress bar that fetching takes; the rest is counting and keeping the rows."""


class Studio(Backend):
    """Everything the studio can do.

    Example:
        >>> studio = Studio(load_settings())  # doctest: +SKIP
        >>> studio.start()  # doctest: +SKIP
        >>> docs = studio.prepare_sage_docs()  # doctest: +SKIP
        >>> recipe = {"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": docs.id}
        >>> task = studio.start_finetune(recipe)  # doctest: +SKIP
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.hardware: Hardware = detect_hardware()
        self.catalog = Catalog(settings)
        self._lock = FileLock(settings.root / "studio.lock")
        self.database = Database(settings.database_path)
        self.datasets = DatasetStore(self.database, settings.datasets_dir)
        self.docs = SAGEDocsProcessor(settings)
        self.tasks = TaskStore(self.database, settings.outputs_dir)
        self.registry = vllm_registry
        self.registry.configure(settings, self.database)
        self.supervisor = TaskSupervisor(
            self.tasks,
            ProcessLauncher(),
            settings,
            before_start=self.registry.before_training,
            after_end=self._after_training,
        )
        self.vote_book = VoteBook(self.database)
        self.sampler = Sampler(self._metrics_address, lambda: detect_hardware().cards)
        self.presets = load_presets()

    # Life

    def start(self) -> None:
        """Take the home for this process, adopt running tasks and engine, and begin to supervise.

        Raises:
            Conflict: another studio works on the same home.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            home = self.settings.root.parent
            raise Conflict(
                Text(f"Another studio already works in {home}.", f"已有另一个工作室在使用 {home}。"),
                Text(
                    f"Stop it, or set {PREFIX}HOME to another folder.",
                    f"请先停止它，或将 {PREFIX}HOME 设为其他文件夹。",
                ),
            ) from error
        self.settings.uploads_dir.mkdir(parents=True, exist_ok=True)
        self.registry.adopt()
        self.supervisor.start()
        self._after_training()  # the last one may have ended while no studio ran
        self.sampler.start()

    def close(self) -> None:
        """Stop supervising; trainings go on by themselves. The engine stops unless ``keep_engine``."""
        self.sampler.close()
        self.supervisor.close()
        self.registry.close()
        self._lock.release()

    # Datasets

    def prepare_sage_docs(self, force_refresh: bool = False, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Fetch the SAGE documentation and make it a dataset. Cached until ``force_refresh``.

        Raises:
            DocsUnavailable: it cannot be fetched; a cached copy, if any, is untouched and named in the hint.
        """
        self.docs.prepare_training_data(
            force_refresh, on_progress=lambda share, doing: on_progress(FETCHED * share, doing)
        )
        return self.add_dataset(
            self.docs, on_progress=lambda share, doing: on_progress(FETCHED + (1 - FETCHED) * share, doing)
        )

    def upload_dataset(self, path: Path, name: str = "", on_progress: OnProgress = ignore_progress) -> Dataset:
        """Check a JSON or JSONL file and keep it as a dataset. Raises `InvalidDataset` naming the row."""
        return self.add_dataset(UploadSource(path, max_bytes=self.settings.max_upload_mb << 20), name, on_progress)

    def add_dataset(self, source: DatasetSource, name: str = "", on_progress: OnProgress = ignore_progress) -> Dataset:
        """Keep the rows of any source. The same rows under the same name are the same dataset, not a new version."""
        return self.datasets.add(source, name=name, tokenizer=self._tokenizer(), on_progress=on_progress)

    def list_datasets(self) -> list[Dataset]:
        """All datasets, newest first."""
        return self.datasets.list()

    def get_dataset(self, dataset_id: str) -> Dataset:
        """One dataset. Raises `NotFound`."""
        return self.datasets.get(safe_name(dataset_id))

    def preview_dataset(self, dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> Preview:
        """Some rows of a dataset, and how many match."""
        return self.datasets.preview(safe_name(dataset_id), offset=offset, limit=limit, search=search)

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset. Raises `Conflict` while a task that is not over needs it."""
        users = [task.id for task in self.list_tasks() if task.dataset_id == dataset_id and not task.status.is_over]
        if users:
            raise Conflict(
                Text(f"{dataset_id} is in use by {', '.join(users)}.", f"{dataset_id} 正被 {', '.join(users)} 使用。"),
                Text("Stop the task first, or wait for its end.", "请先停止该任务，或等待其结束。"),
            )
        self.datasets.delete(safe_name(dataset_id))

    # Models

    def model_choices(self) -> list[ModelEntry]:
        """The catalogue, the default first."""
        default = self.default_model()
        return sorted(self.catalog.entries, key=lambda entry: entry.id != default)

    # Tasks

    def start_finetune(self, values: Mapping[str, Any]) -> Task:
        """Check a recipe, model and data, then queue a training. Nothing is created unless all of it is usable.

        Args:
            values: the recipe's fields; see `sage_studio.training.recipe.SFTRecipe`.

        Raises:
            InvalidRecipe, InvalidModel, InvalidDataset, NotFound, HubUnavailable: naming what to correct.
        """
        recipe = parse_recipe(values)
        self.catalog.resolve(recipe.model_name_or_path)
        dataset = self._dataset_for(recipe)
        model = self.ensure_model(recipe.model_name_or_path)
        job = Job(
            model_location=model.location,
            trust_remote_code=model.trust_remote_code,
            data_path=str(self.datasets.data_path(dataset.id)),
            dataset_sha256=dataset.sha256,
        )
        task = self.tasks.create(recipe, job, dataset_name=dataset.name, dataset_id=dataset.id)
        self.supervisor.wake()
        return task

    def list_tasks(self) -> list[Task]:
        """All tasks, newest first."""
        return self.tasks.list()

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

    def stop_task(self, task_id: str) -> Task:
        """Stop a task; a running one first writes a checkpoint to continue from. Raises `Conflict` if it is over."""
        return self.supervisor.stop(self.get_task(task_id))

    def resume_task(self, task_id: str) -> Task:
        """Queue a stopped or failed task again, from its newest checkpoint. Raises `Conflict` if it is neither."""
        return self.supervisor.resume(self.get_task(task_id))

    def delete_task(self, task_id: str) -> None:
        """Delete a task and its folder. Raises `Conflict` while it runs or while its model is the chat backend."""
        task = self.get_task(task_id)
        if not task.status.is_over and task.status is not TaskStatus.QUEUED:
            raise Conflict(
                Text(f"{task.id} is still running.", f"{task.id} 仍在运行。"), Text("Stop it first.", "请先停止它。")
            )
        if any(model.name == task.served_name for model in self.registry.models()):
            self.registry.unregister_model(task.served_name)
        self.tasks.delete(task)

    def download_task(self, task_id: str) -> Iterator[bytes]:
        """The task's model as a tar.gz, in pieces. Raises `Conflict` unless it is completed."""
        return stream_archive(self._completed(task_id))

    # Serving: the rest of its verbs stand in `sage_studio.backend`

    def use_as_backend(self, task_id: str) -> RegisteredModel:
        """Let a completed task's model answer the chat from the next message on.

        Raises:
            Conflict: the task is not completed.
            NotFound: its folder is gone.
            EngineUnavailable: the engine did not load it; the model before it is current again.
        """
        task = self._completed(task_id)
        result = self.supervisor.progress(task).result
        base = self.ensure_model(task.model)
        kind = result.model_kind if result is not None and result.model_kind is not None else "adapter"
        self.registry.register_model(
            task.served_name,
            str(task.folder),
            {
                "kind": kind,
                "base": base.location,
                "base_name": base.name,
                "task_id": task.id,
                "trust_remote_code": base.trust_remote_code,
            },
        )
        return self.switch_model(task.served_name)

    def _after_training(self) -> None:
        """Give the engine its card back once no training runs or waits. Never waits for it."""
        if not self.tasks.running() and not self.tasks.queue():
            threading.Thread(target=self._bring_engine_back, name="engine-back", daemon=True).start()

    def _bring_engine_back(self) -> None:
        try:
            self.registry.after_training()
        except StudioError as error:
            logger.error("The engine did not come back: %s", error)
        self.database.close()

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

    def _dataset_for(self, recipe: Recipe) -> Dataset:
        if recipe.dataset_id:
            return self.get_dataset(recipe.dataset_id)
        return self.upload_dataset(Path(recipe.train_data_path).expanduser())

    def _tokenizer(self) -> Path | None:
        """The default model's ``tokenizer.json``, if it is on this machine already."""
        path = self.settings.models_dir / self.default_model() / "tokenizer.json"
        return path if path.is_file() else None
