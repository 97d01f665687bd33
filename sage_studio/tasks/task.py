"""A task, its progress and its curves, as everyone outside this package sees them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sage_studio.text import NOTHING, Text
from sage_studio.training.failures import Action, next_action
from sage_studio.training.progress import Event, Reason, Result


class TaskStatus(StrEnum):
    """queued -> preparing -> training -> completed | stopped | failed; ``stopping`` on the way to stopped.

    A task whose model or rows are still to be made ready is ``preparing`` for that first, then ``queued`` again until
    there is a GPU for it; see `Task.in_preparation`. A task of another kind is ``running`` in place of both.
    """

    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether no process works on it any more."""
        return self in (TaskStatus.COMPLETED, TaskStatus.STOPPED, TaskStatus.FAILED)

    @property
    def is_running(self) -> bool:
        """Whether a process works on it now."""
        return self in (TaskStatus.PREPARING, TaskStatus.TRAINING, TaskStatus.RUNNING, TaskStatus.STOPPING)


@dataclass(frozen=True, slots=True)
class Task:
    """A task's record. Times are Unix seconds.

    Attributes:
        id: ``finetune-1234567890``.
        kind: ``train``, or what else the task does; see `sage_studio.migrations.task_kind`.
        reason_class: why it failed; None unless it did.
        started_at: when its trainer was started; None before that, also while it is prepared.
        reason: the same for a person; empty unless it failed or was stopped.
        hint: what to do next.
        pid, process_started: identify the child (a pid alone may be reused); None before the start.
        stop_requested_at: when the running child was told to stop; None unless it was.
    """

    id: str
    type: str
    name: str
    status: TaskStatus
    model: str
    dataset_id: str
    dataset_name: str
    created_at: float
    folder: Path
    recipe: dict[str, Any]
    started_at: float | None = None
    finished_at: float | None = None
    reason_class: Reason | None = None
    reason: Text = NOTHING
    hint: Text = NOTHING
    pid: int | None = None
    process_started: float | None = None
    stop_requested_at: float | None = None
    kind: str = "train"

    @property
    def in_preparation(self) -> bool:
        """Whether a process makes its model and rows ready; no trainer was started, and it uses no GPU yet."""
        return self.status in (TaskStatus.PREPARING, TaskStatus.STOPPING) and self.started_at is None

    @property
    def served_name(self) -> str:
        """The name under which its model answers: ``sage-finetuned-1234567890``."""
        return f"sage-finetuned-{self.id.removeprefix('finetune-')}"

    @property
    def next_action(self) -> Action | None:
        """What to do about it; None unless it was stopped or failed."""
        if self.status not in (TaskStatus.STOPPED, TaskStatus.FAILED):
            return None
        return next_action(self.reason_class, self.recipe)


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """Where a task stands: the newest value of everything it reported.

    Attributes:
        now: newest value of each field over all events; None before the first event.
        percent: 0 to 100; of the stage under way where that counts something else than steps.
        queue_place: 1 for the next to start; None unless queued.
        seconds: since the start, until now or until the end.
    """

    now: Event | None
    percent: float
    queue_place: int | None
    seconds: float
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of the live plots, at most as many as asked for; one tuple entry per logged step.

    Attributes:
        figures: what the method measures besides, by the names in its recipe's ``plots``.
    """

    steps: tuple[int, ...] = ()
    loss: tuple[float | None, ...] = ()
    learning_rate: tuple[float | None, ...] = ()
    tokens_per_second: tuple[float | None, ...] = ()
    figures: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[float | None, ...]:
        """The values of a figure, one a step; empty for one that was never measured."""
        values: tuple[float | None, ...] = self.loss if name == "loss" else self.figures.get(name, ())
        return values
