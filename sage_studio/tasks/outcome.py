"""Final status of a task, with reason and remedy, from ``result.json`` or its absence."""

from pathlib import Path

from sage_studio.errors import Conflict, StorageFull, StudioError
from sage_studio.tasks.log import read_log
from sage_studio.tasks.store import Changes
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import NOTHING, Text
from sage_studio.training.progress import Reason, Result

LONGEST_QUOTE = 300
CONTINUE = Text("Continue it: it goes on from its newest checkpoint.")
GONE = Text("Restore the folder and continue, or train again.")

Outcome = tuple[TaskStatus, Changes]
"""The status that a task gets, and why."""


def from_result(result: Result) -> Outcome:
    """The run wrote ``result.json``: what it says counts."""
    if result.status == "completed":
        return TaskStatus.COMPLETED, {}
    changes: Changes = {"reason_class": result.reason, "reason": result.message_text, "hint": result.hint_text}
    return TaskStatus(result.status), changes


def before_start() -> Outcome:
    """Stopped while it waited in the queue."""
    reason = Text("It was stopped before it started.")
    return TaskStatus.STOPPED, {
        "reason": reason,
        "hint": Text("Continue it to queue it again."),
    }


def killed_after_stop() -> Outcome:
    """Stopped, and it ended without a result: it was killed, or had not come far enough to save anything."""
    reason = Text("It was stopped and ended without a last checkpoint.")
    return TaskStatus.STOPPED, {"reason": reason, "hint": CONTINUE}


TRAINER = Text("The trainer process")
PREPARER = Text("The process that prepares the task")


def ended_without_result(folder: Path, exit_signal: str, who: Text = TRAINER) -> Outcome:
    """The process ended without a result and nobody had asked it to stop."""
    if not folder.is_dir():
        return folder_gone(folder)
    page = read_log(folder, limit=20)
    message = next((line.strip() for line in reversed((*page.lines, page.partial)) if line.strip()), "")[
        -LONGEST_QUOTE:
    ]
    how = Text(" ({exit_signal})", exit_signal=exit_signal) if exit_signal else NOTHING
    log = Text("the last log line was: {said}", said=message) if message else Text("its log is empty.")
    reason = Text("{who} ended{how} without a result; {log}", who=who, how=how, log=log)
    return TaskStatus.FAILED, {"reason_class": Reason.KILLED, "reason": reason, "hint": _remedy(exit_signal)}


def folder_gone(folder: Path) -> Outcome:
    """Someone removed the task's folder."""
    reason = Text("The task's folder is gone: {folder}.", folder=folder)
    return TaskStatus.FAILED, {"reason_class": Reason.DISK, "reason": reason, "hint": GONE}


def not_started(folder: Path, error: StudioError | OSError | ValueError) -> Outcome:
    """The process could not be started, or its end could not be read."""
    if not folder.is_dir():
        return folder_gone(folder)
    reason_class = Reason.DISK if isinstance(error, StorageFull | OSError) else Reason.BUG
    if isinstance(error, StudioError):
        return TaskStatus.FAILED, {"reason_class": reason_class, "reason": error.message, "hint": error.hint}
    reason = Text("The studio could not run it: {error}", error=error)
    hint = Text("Correct the cause and continue the task.")
    return TaskStatus.FAILED, {"reason_class": reason_class, "reason": reason, "hint": hint}


def over_already(task: Task) -> Conflict:
    """Why a task cannot be stopped."""
    return Conflict(
        Text("{id} is over: {status}.", id=task.id, status=task.status),
        Text("There is nothing to stop."),
    )


def not_resumable(task: Task) -> Conflict:
    """Why a task cannot continue."""
    return Conflict(
        Text("{id} is {status}, neither stopped nor failed.", id=task.id, status=task.status),
        Text("Only a stopped or failed task can continue."),
    )


def _remedy(exit_signal: str) -> Text:
    if exit_signal != "SIGKILL":
        return Text("See the log. {remedy}", remedy=CONTINUE)
    return Text(
        "Most often the system killed it for want of memory: choose a smaller batch size or max "
        "length, or 4-bit quantization. {remedy}",
        remedy=CONTINUE,
    )
