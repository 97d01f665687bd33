"""Where a task stands: its record and the trainer's reports, added up.

Knows how a share of steps is a share of the way. Knows nothing of processes or of the queue.
"""

import time
from collections.abc import Callable

from sage_studio.tasks.reports import Reports
from sage_studio.tasks.task import Task, TaskProgress, TaskStatus
from sage_studio.training.progress import Event


def standing(task: Task, reports: Reports, place_of: Callable[[str], int | None]) -> TaskProgress:
    """Where a task stands now; cheap enough for many viewers to ask each second."""
    now = reports.newest(task.folder)
    return TaskProgress(
        now=now,
        percent=_percent(task, now),
        queue_place=place_of(task.id) if task.status is TaskStatus.QUEUED else None,
        seconds=_seconds(task),
        result=reports.result(task.folder),
    )


def _percent(task: Task, now: Event | None) -> float:
    if task.status is TaskStatus.COMPLETED:
        return 100.0
    if now is not None and now.done is not None and now.total:
        return min(100.0, max(0.0, 100.0 * now.done / now.total))
    if now is None or now.step is None or not now.total_steps:
        return 0.0
    return min(100.0, max(0.0, 100.0 * now.step / now.total_steps))


def _seconds(task: Task) -> float:
    if task.started_at is None:
        return 0.0
    end = task.finished_at if task.finished_at is not None else time.time()
    return max(0.0, end - task.started_at)
