"""Final status of a task, with reason and remedy, from ``result.json`` or its absence."""

from pathlib import Path

from sage_studio.errors import Conflict, StorageFull, StudioError
from sage_studio.tasks.log import read_log
from sage_studio.tasks.store import Changes
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import NOTHING, Text
from sage_studio.training.progress import Reason, Result

LONGEST_QUOTE = 300
CONTINUE = Text("Continue it: it goes on from its newest checkpoint.", "可点击“继续”，将从最新的检查点接着训练。")
GONE = Text("Restore the folder and continue, or train again.", "请恢复该文件夹后继续，或重新训练。")

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
    reason = Text("It was stopped before it started.", "任务在开始之前被停止。")
    return TaskStatus.STOPPED, {
        "reason": reason,
        "hint": Text("Continue it to queue it again.", "点击“继续”可重新排队。"),
    }


def killed_after_stop() -> Outcome:
    """Stopped, and it ended without a result: it was killed, or had not come far enough to save anything."""
    reason = Text("It was stopped and ended without a last checkpoint.", "任务被停止，结束时未能保存最后的检查点。")
    return TaskStatus.STOPPED, {"reason": reason, "hint": CONTINUE}


TRAINER = Text("The trainer process", "训练进程")
PREPARER = Text("The process that prepares the task", "准备任务的进程")


def ended_without_result(folder: Path, exit_signal: str, who: Text = TRAINER) -> Outcome:
    """The process ended without a result and nobody had asked it to stop."""
    if not folder.is_dir():
        return folder_gone(folder)
    page = read_log(folder, limit=20)
    message = next((line.strip() for line in reversed((*page.lines, page.partial)) if line.strip()), "")[
        -LONGEST_QUOTE:
    ]
    how = Text(f" ({exit_signal})", f"（{exit_signal}）") if exit_signal else NOTHING
    reason = Text(
        f"{who.en} ended{how.en} without a result; "
        + (f"the last log line was: {message}" if message else "its log is empty."),
        f"{who.zh}没有留下结果就结束了{how.zh}；" + (f"日志的最后一行是：{message}" if message else "日志为空。"),
    )
    return TaskStatus.FAILED, {"reason_class": Reason.KILLED, "reason": reason, "hint": _remedy(exit_signal)}


def folder_gone(folder: Path) -> Outcome:
    """Someone removed the task's folder."""
    reason = Text(f"The task's folder is gone: {folder}.", f"任务文件夹已不存在：{folder}。")
    return TaskStatus.FAILED, {"reason_class": Reason.DISK, "reason": reason, "hint": GONE}


def not_started(folder: Path, error: StudioError | OSError | ValueError) -> Outcome:
    """The process could not be started, or its end could not be read."""
    if not folder.is_dir():
        return folder_gone(folder)
    reason_class = Reason.DISK if isinstance(error, StorageFull | OSError) else Reason.BUG
    if isinstance(error, StudioError):
        return TaskStatus.FAILED, {"reason_class": reason_class, "reason": error.message, "hint": error.hint}
    reason = Text(f"The studio could not run it: {error}", f"工作室无法运行该任务：{error}")
    hint = Text("Correct the cause and continue the task.", "请排除原因后继续该任务。")
    return TaskStatus.FAILED, {"reason_class": reason_class, "reason": reason, "hint": hint}


def over_already(task: Task) -> Conflict:
    """Why a task cannot be stopped."""
    return Conflict(
        Text(f"{task.id} is over: {task.status}.", f"{task.id} 已结束，状态是 {task.status}。"),
        Text("There is nothing to stop.", "无需停止。"),
    )


def not_resumable(task: Task) -> Conflict:
    """Why a task cannot continue."""
    return Conflict(
        Text(
            f"{task.id} is {task.status}, neither stopped nor failed.",
            f"{task.id} 的状态是 {task.status}，既未停止也未失败。",
        ),
        Text("Only a stopped or failed task can continue.", "只有已停止或失败的任务才能继续。"),
    )


def _remedy(exit_signal: str) -> Text:
    if exit_signal != "SIGKILL":
        return Text(f"See the log. {CONTINUE.en}", f"请查看日志。{CONTINUE.zh}")
    return Text(
        "Most often the system killed it for want of memory: choose a smaller batch size or max length, "
        f"or 4-bit quantization. {CONTINUE.en}",
        f"多半是内存不足而被系统终止：请减小批大小或最大长度，或使用 4 位量化。{CONTINUE.zh}",
    )
