"""Dataset jobs as ``/api/dataset-jobs`` shows them, and as they see themselves.

They are background tasks: `sage_studio.tasks.background` starts, stops and keeps them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from sage_studio.text import NOTHING, Text


class JobState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A background task.

    Attributes:
        kind: ``report``, ``augment``, ``merge``, or another that was registered.
        dataset_id: the dataset that is worked on; empty for a kind that works on none.
        state: ``running`` while it waits in the queue too; ``doing`` says so.
        done: of ``total`` units; 0 of 0 until it is known.
        result: id of the dataset that was made, once there is one.
        message: why it stopped or failed.
    """

    id: str
    kind: str
    dataset_id: str
    created_at: float
    state: JobState = JobState.RUNNING
    done: int = 0
    total: int = 0
    doing: Text = NOTHING
    message: Text = NOTHING
    hint: Text = NOTHING
    result: str = ""


class JobStopped(Exception):
    """The work was asked to stop."""


class StudioCloses(JobStopped):
    """The work is to stop because the studio ends; a kind that ``restarts`` is then queued for the next one."""


class Running(Protocol):
    """A job as its work sees it.

    Attributes:
        folder: the job's own, to write into.
        order: what was asked.
    """

    folder: Path
    order: Mapping[str, Any]

    def tell(self, done: int, total: int, doing: Text) -> None:
        """Say how far it is. Raises `JobStopped` when it is to stop."""
        ...
