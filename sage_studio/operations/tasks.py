"""Operations on tasks: list, watch, compare, stop, resume, delete."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from sage_studio.data.jobs import Job
from sage_studio.errors import Conflict, InvalidInput, InvalidName, NotFound
from sage_studio.fields import Id, Ids, LineCount, Offset
from sage_studio.operations.operation import SCRIPTS, Acknowledged, Noun
from sage_studio.studio import Studio
from sage_studio.tasks.compare import TaskComparison, last_loss
from sage_studio.tasks.task import Task, TaskProgress
from sage_studio.text import Language

tasks = Noun("tasks")


OfKind = Annotated[str, Field(description="train; all; or a kind of other work, e.g. merge")]


class TaskView(BaseModel):
    """A task and where it stands: a run of a recipe, or other work."""

    id: str
    kind: str = Field("train", description="train, or the kind of other work, e.g. merge")
    type: str = Field(description="The training method; of other work its kind")
    name: str
    status: str
    model: str
    dataset_id: str
    dataset_name: str
    created_at: float = Field(description="Unix seconds")
    started_at: float | None
    finished_at: float | None
    reason_class: str | None
    reason: str
    hint: str
    next_action: str | None = Field(description="What to do about it; POST …/retry does what the studio can by itself")
    served_name: str
    output_dir: str
    progress: float = Field(description="0 to 100")
    phase: str | None
    step: int | None
    total_steps: int | None
    epoch: float | None
    total_epochs: float | None
    loss: float | None
    learning_rate: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    doing: str = Field("", description="What work other than training is doing now")
    result: str = Field("", description="What such work made: the id of a dataset, or a folder")
    queue_place: int | None
    seconds: float
    peak_memory_gb: float | None = Field(description="GiB; known when the run is over")
    estimated_memory_gb: float | None = Field(description="GiB, as estimated before; null where nobody knew")
    config: dict[str, Any]

    @classmethod
    def of(cls, task: Task, progress: TaskProgress, language: Language = "en", job: Job | None = None) -> "TaskView":
        """The view of a task; of one that is no training with its ``job``."""
        now, result = progress.now, progress.result
        return cls(
            id=task.id,
            kind=task.kind,
            type=task.type,
            name=task.name,
            status=str(task.status),
            model=task.model,
            dataset_id=task.dataset_id,
            dataset_name=task.dataset_name,
            created_at=task.created_at,
            started_at=task.started_at,
            finished_at=task.finished_at,
            reason_class=str(task.reason_class) if task.reason_class is not None else None,
            reason=task.reason.in_(language),
            hint=task.hint.in_(language),
            next_action=str(task.next_action) if task.next_action is not None else None,
            served_name=task.served_name if job is None else "",
            output_dir=str(task.folder),
            progress=round(progress.percent, 1),
            phase=str(now.phase) if now is not None else None,
            step=now.step if now is not None else None,
            total_steps=now.total_steps if now is not None else None,
            epoch=now.epoch if now is not None else None,
            total_epochs=now.total_epochs if now is not None else None,
            loss=now.loss if now is not None else None,
            learning_rate=now.learning_rate if now is not None else None,
            tokens_per_second=now.tokens_per_second if now is not None else None,
            eta_seconds=now.eta_seconds if now is not None else None,
            doing=job.doing.in_(language) if job is not None else "",
            result=job.result if job is not None else "",
            queue_place=progress.queue_place,
            seconds=round(progress.seconds, 1),
            peak_memory_gb=result.peak_memory_gb if result is not None else None,
            estimated_memory_gb=result.estimated_memory_gb if result is not None else None,
            config=task.recipe,
        )


class ComparedTaskView(BaseModel):
    """One run of a comparison and its curves."""

    id: str
    name: str
    status: str
    model: str
    loss: float | None
    seconds: float
    peak_memory_gb: float | None
    steps: list[int]
    losses: list[float | None]
    learning_rates: list[float | None]


class TaskComparisonView(BaseModel):
    """Runs beside each other; ``settings`` holds only the fields that differ, one value a run in the runs' order."""

    tasks: list[ComparedTaskView]
    settings: dict[str, list[Any]]

    @classmethod
    def of(cls, compared: TaskComparison) -> "TaskComparisonView":
        """The view of a comparison."""
        runs = zip(compared.tasks, compared.progress, compared.curves, strict=True)
        return cls(
            tasks=[
                ComparedTaskView(
                    id=task.id,
                    name=task.name,
                    status=str(task.status),
                    model=task.model,
                    loss=last_loss(progress),
                    seconds=round(progress.seconds, 1),
                    peak_memory_gb=progress.result.peak_memory_gb if progress.result is not None else None,
                    steps=list(curve.steps),
                    losses=list(curve.loss),
                    learning_rates=list(curve.learning_rate),
                )
                for task, progress, curve in runs
            ],
            settings={name: list(values) for name, values in compared.settings.items()},
        )


class LogView(BaseModel):
    """Lines of a log and the byte offset to go on from."""

    lines: list[str]
    offset: int
    size: int


class TaskDeleted(Acknowledged):
    """Which task is gone."""

    task_id: str


def shown(studio: Studio, task_id: str, language: Language) -> TaskView:
    """The view of a task of whatever kind as it is now."""
    task = studio.tasks.find(task_id)
    job = studio.tasks.job(task_id) if task.kind != "train" else None
    return TaskView.of(task, studio.tasks.progress(task_id), language, job)


def listed(studio: Studio, kind: str, language: Language) -> list[TaskView]:
    """The tasks of a kind, newest first; ``all`` for every kind."""
    views = []
    if kind in ("train", "all"):
        views = [TaskView.of(task, progress, language) for task, progress in studio.tasks.list_with_progress()]
    if kind != "train":
        views += [shown(studio, job.id, language) for job in studio.tasks.background("" if kind == "all" else kind)]
    return sorted(views, key=lambda view: view.created_at, reverse=True) if kind == "all" else views


@tasks.get("/api/finetune/tasks", "list", interfaces=SCRIPTS, parallel=True)
def list_tasks(studio: Studio, language: Language, kind: OfKind = "train") -> list[TaskView]:
    """All trainings, or the tasks of another kind, newest first."""
    return listed(studio, kind, language)


@tasks.get("/api/finetune/compare", "compare", raises=(NotFound, InvalidName, InvalidInput), interfaces=("rest",))
def compare_tasks_by_rest(studio: Studio, ids: Ids) -> TaskComparisonView:
    """Two to eight runs beside each other, given by their ids separated by commas."""
    return TaskComparisonView.of(studio.tasks.compare([part.strip() for part in ids.split(",") if part.strip()]))


@tasks.get("/api/finetune/compare", "compare", interfaces=SCRIPTS)
def compare_tasks(studio: Studio, task_ids: list[str]) -> TaskComparisonView:
    """Two to eight runs beside each other: curves, and the settings that differ."""
    return TaskComparisonView.of(studio.tasks.compare(task_ids))


@tasks.get("/api/finetune/tasks/{task_id}", "show", raises=(NotFound, InvalidName), parallel=True)
def get_task(studio: Studio, language: Language, task_id: Id) -> TaskView:
    """One task and how far it is."""
    return shown(studio, task_id, language)


@tasks.get(
    "/api/finetune/tasks/{task_id}/logs", "log", raises=(NotFound, InvalidName, InvalidInput), interfaces=("rest",)
)
def task_logs_by_rest(studio: Studio, task_id: Id, limit: LineCount = 100, offset: Offset | None = None) -> LogView:
    """The last lines of the log, or those from a byte offset on."""
    page = studio.tasks.logs(task_id, limit=limit, offset=offset)
    return LogView(lines=list(page.lines), offset=page.offset, size=page.size)


@tasks.get("/api/finetune/tasks/{task_id}/logs", "log", interfaces=SCRIPTS, parallel=True)
def task_logs(studio: Studio, task_id: Id, limit: LineCount = 100) -> str:
    """The last lines of a task's log."""
    return "\n".join(studio.tasks.logs(task_id, limit=limit).lines)


@tasks.delete("/api/finetune/tasks/{task_id}", "stop", raises=(NotFound, InvalidName, Conflict))
def stop_task(studio: Studio, language: Language, task_id: Id) -> TaskView:
    """Stop a task. A training keeps a checkpoint to resume from, other work what it has done."""
    return shown(studio, studio.tasks.stop(task_id).id, language)


@tasks.post("/api/finetune/tasks/{task_id}/resume", "resume", raises=(NotFound, InvalidName, Conflict))
def resume_task(studio: Studio, language: Language, task_id: Id) -> TaskView:
    """Resume a stopped or failed task: a training from its newest checkpoint, other work where it was or anew."""
    return shown(studio, studio.tasks.resume(task_id).id, language)


@tasks.delete("/api/finetune/tasks/{task_id}/delete", "delete", raises=(NotFound, InvalidName, Conflict))
def delete_task(studio: Studio, task_id: Id) -> TaskDeleted:
    """Delete a task and its folder; what other work made elsewhere, as a dataset, stays."""
    studio.tasks.delete(task_id)
    return TaskDeleted(task_id=task_id)
