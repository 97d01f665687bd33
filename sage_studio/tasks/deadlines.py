"""When a process that should be gone is to be killed.

Knows how long a stop may take and how long a trainer may linger after its result. Knows nothing of processes.
"""

import time

from sage_studio.tasks.task import Task
from sage_studio.training.progress import Result

LINGER_SECONDS = 30.0
"""How long a trainer may take to leave after it wrote its result."""


class Deadlines:
    """One for each task that has been told to stop or has written its result.

    Args:
        grace: seconds that a checkpoint may take after a stop.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._at: dict[str, float] = {}

    def passed(self, task: Task, result: Result | None) -> bool:
        """Whether it is time. The wall clock is asked only once, and never trusted far."""
        if task.id not in self._at:
            if result is not None:
                self._at[task.id] = time.monotonic() + LINGER_SECONDS
            elif task.stop_requested_at is not None:
                left = task.stop_requested_at + self._grace - time.time()
                self._at[task.id] = time.monotonic() + min(self._grace, max(0.0, left))
        return time.monotonic() >= self._at.get(task.id, float("inf"))

    def forget(self, task_id: str) -> None:
        """The task is over, or begins anew."""
        self._at.pop(task_id, None)
