"""Tasks: list, watch, compare, stop, resume, delete and take away."""

import builtins
from collections.abc import Iterator, Sequence
from pathlib import Path

from sage_studio.data.jobs import Job
from sage_studio.errors import Conflict
from sage_studio.files import safe_name
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.retriever import Retriever
from sage_studio.tasks.archive import stream_archive
from sage_studio.tasks.background import LOG, BackgroundTasks
from sage_studio.tasks.compare import TaskComparison, compare_runs
from sage_studio.tasks.log import LogPage, read_log
from sage_studio.tasks.outcome import over_already
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import Curve, Task, TaskProgress, TaskStatus
from sage_studio.text import Text
from sage_studio.training.progress import Event, numbered_events


class TaskService:
    """Tasks of every method, from the queue to the archive."""

    def __init__(
        self,
        store: TaskStore,
        scheduler: TaskScheduler,
        registry: VLLMRegistry,
        retriever: Retriever,
        background: BackgroundTasks,
    ) -> None:
        self.store = store
        self.scheduler = scheduler
        self._registry = registry
        self._retriever = retriever
        self._background = background

    def list(self) -> list[Task]:
        """All trainings, newest first."""
        return self.store.list()

    def background(self, kind: str = "") -> builtins.list[Job]:
        """Tasks that are no trainings, of one kind or of all, newest first."""
        return [job for job in self._background.list() if kind in ("", job.kind)]

    def find(self, task_id: str) -> Task:
        """One task of whatever kind. Raises `NotFound`."""
        return self.get(task_id) if self.is_training(task_id) else self._background.task(task_id)

    def is_training(self, task_id: str) -> bool:
        """Whether an id is a training's; every other task's begins with its kind."""
        return safe_name(task_id).partition("-")[0] not in self._background.kinds

    def job(self, task_id: str) -> Job:
        """How a task stands that is no training. Raises `NotFound`."""
        return self._background.get(task_id)

    def others(self) -> builtins.list[tuple[Task, Job]]:
        """The newest tasks that are no trainings, newest first, each with how it stands."""
        return self._background.list_with_tasks()

    def list_with_progress(self) -> builtins.list[tuple[Task, TaskProgress]]:
        """All tasks, newest first, each with where it stands; made for thousands of them."""
        tasks = self.store.list()
        places = {task.id: place for place, task in enumerate(self.store.queue(), 1)}
        return [(task, self.scheduler.progress(task, places.get)) for task in tasks]

    def get(self, task_id: str) -> Task:
        """One task. Raises `NotFound`."""
        return self.store.get(safe_name(task_id))

    def progress(self, task_id: str) -> TaskProgress:
        """Where a task of whatever kind stands now."""
        if self.is_training(task_id):
            return self.scheduler.progress(self.get(task_id))
        return self._background.progress(task_id)

    def curve(self, task_id: str, points: int = 500) -> Curve:
        """The points of its plots, thinned to at most ``points``."""
        return self.scheduler.curve(self.get(task_id), points)

    def logs(self, task_id: str, limit: int = 100, offset: int | None = None) -> LogPage:
        """The last ``limit`` lines of the log of a task of whatever kind, or the lines from a byte ``offset`` on."""
        if self.is_training(task_id):
            return read_log(self.get(task_id).folder, limit, offset)
        return read_log(self._background.task(task_id).folder, limit, offset, LOG)

    def events(self, task_id: str, offset: int = 0) -> builtins.list[tuple[int, Event]]:
        """Events of a task from a byte offset on, each with the offset behind it."""
        return numbered_events(self.get(task_id).folder, offset)

    def compare(self, task_ids: Sequence[str], points: int = 500) -> TaskComparison:
        """Two to eight runs beside each other. Raises `InvalidInput` for another number, `NotFound`."""
        tasks = [self.get(task_id) for task_id in dict.fromkeys(task_ids)]
        return compare_runs(
            tasks,
            [self.scheduler.progress(task) for task in tasks],
            [self.scheduler.curve(task, points) for task in tasks],
        )

    def stop(self, task_id: str) -> Task:
        """Stop a task of whatever kind.

        A training first writes a checkpoint to continue from; other work ends after the piece at hand.

        Raises:
            Conflict: it is over.
        """
        task = self.find(task_id)
        if task.kind == "train":
            return self.scheduler.stop(task)
        if task.status.is_over:
            raise over_already(task)
        self._background.stop(task_id)
        return self._background.task(task_id)

    def resume(self, task_id: str) -> Task:
        """Queue a stopped or failed task of whatever kind again.

        A training goes on from its newest checkpoint, other work from what lies in its folder.

        Raises:
            Conflict: it is neither.
        """
        if self.is_training(task_id):
            return self.scheduler.resume(self.get(task_id))
        self._background.resume(task_id)
        return self._background.task(task_id)

    def delete(self, task_id: str) -> None:
        """Delete a task of whatever kind and its folder; what other work made elsewhere, as a dataset, stays.

        Raises:
            Conflict: it runs, it is the retriever, or a task that is not over starts from its adapter or model.
        """
        if not self.is_training(task_id):
            self._background.delete(task_id)
            return
        task = self.get(task_id)
        if not task.status.is_over and task.status is not TaskStatus.QUEUED:
            raise Conflict(Text("{id} is still running.", id=task.id), Text("Stop it first."))
        chosen = self._retriever.chosen
        if chosen is not None and chosen.task_id == task.id:
            raise Conflict(
                Text("{id} is the retriever.", id=task.id),
                Text("Set another retriever first."),
            )
        users = [other.id for other in self.store.list() if not other.status.is_over and _starts_from(other, task)]
        if users:
            raise Conflict(
                Text("{id} is what {users} starts from.", id=task.id, users=", ".join(users)),
                Text("Stop that task first, or wait for its end."),
            )
        if any(model.name == task.served_name for model in self._registry.models()):
            self._registry.unregister_model(task.served_name)
        self.store.delete(task)

    def download(self, task_id: str) -> Iterator[bytes]:
        """The task's model as a tar.gz, in pieces. Raises `Conflict` unless it is completed."""
        return stream_archive(self.store.completed(task_id))


def _starts_from(other: Task, task: Task) -> bool:
    """Whether a task's recipe names another task, by id or folder, as the adapter or model that it starts from."""
    named = {str(other.recipe.get(field) or "") for field in ("start_from", "model_name_or_path")}
    return task.id in named or any(Path(each).is_absolute() and Path(each) == task.folder for each in named if each)
