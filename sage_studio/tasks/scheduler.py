"""Task scheduler: starts queued tasks, monitors running ones, re-attaches after a restart."""

import logging
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sage_studio.errors import Conflict, NotFound, StudioError
from sage_studio.files import write_atomically
from sage_studio.hardware import detect_hardware
from sage_studio.models.model_folder import is_here
from sage_studio.processes import ChildProcess
from sage_studio.settings import Settings
from sage_studio.tasks import outcome
from sage_studio.tasks.gpu_assignment import (
    GpuUsage,
    check_pinned_gpus,
    choose_gpus,
    max_running_tasks,
    pinned_gpus,
    tasks_per_gpu,
    usable_gpus,
    write_gpus,
)
from sage_studio.tasks.launcher import Launcher, find_child
from sage_studio.tasks.outcome import GONE, Outcome
from sage_studio.tasks.progress import ProgressReader, task_progress
from sage_studio.tasks.store import RUNNING, Changes, TaskStore
from sage_studio.tasks.task import Curve, Task, TaskProgress, TaskStatus
from sage_studio.text import NOTHING, Text
from sage_studio.training.failures import smaller_batch
from sage_studio.training.progress import JOB, LOG, RECIPE, RESULT, Reason, Result, read_job, read_result
from sage_studio.training.recipes import dump_recipe, parse_recipe

logger = logging.getLogger("sage_studio")

ROUND_SECONDS = 0.5
CLOSE_SECONDS = 10.0
FRESH_RUN: Changes = {
    "started_at": None,
    "finished_at": None,
    "reason_class": None,
    "reason": NOTHING,
    "hint": NOTHING,
    "pid": None,
    "process_started": None,
    "stop_requested_at": None,
}
"""What a task that is queued again forgets."""
RESUMABLE = frozenset({TaskStatus.STOPPED, TaskStatus.FAILED})
LINGER_SECONDS = 30.0
"""How long a trainer may take to leave after it wrote its result."""
MAX_AUTOMATIC_RETRIES = 1
"""How often a task is retried with a smaller batch without being asked."""
MOST_PREPARING = 2
"""Tasks whose models and rows are made ready at the same time; that needs no GPU."""


class KillTimeouts:
    """When the processes of tasks that were stopped, or have written their result, are killed.

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


class TaskScheduler:
    """Runs the tasks of a store, at most ``settings.max_running`` at a time.

    Args:
        store: the tasks.
        launcher: starts the trainers.
        preparer: starts the processes that make a task's model and rows ready, before it may have a GPU.
        settings: ``max_running`` and ``stop_grace_seconds`` count here.
        before_start: called before a child starts, with the physical numbers of its GPUs; after a `Conflict` again in
            the next round. after_end: called after a child.
        engine_gpus: the physical numbers of the GPUs that the chat engine holds; a training prefers another.
    """

    def __init__(
        self,
        store: TaskStore,
        launcher: Launcher,
        settings: Settings,
        before_start: Callable[[Sequence[int]], None] = lambda _: None,
        after_end: Callable[[], None] = lambda: None,
        engine_gpus: Callable[[], Sequence[int]] = lambda: (),
        preparer: Launcher | None = None,
    ) -> None:
        self._before_start, self._after_end, self._engine_gpus = before_start, after_end, engine_gpus
        self._store = store
        self._launcher = launcher
        self._preparer = preparer if preparer is not None else launcher
        self._prepared: set[str] = set()
        self._settings, self._gpus = settings, usable_gpus()
        self._reports = ProgressReader()
        self._children: dict[str, ChildProcess | None] = {}
        self._held: dict[str, tuple[int, ...]] = {}
        self._kill_timeouts = KillTimeouts(settings.stop_grace_seconds)
        self._reported_errors: dict[str, str] = {}
        self._lock = threading.RLock()  # one at a time: a round, a stop, a resume
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Find the children that an earlier studio started, then supervise in a thread of its own."""
        self._store.remove_leftovers()
        with self._lock:
            for task in self._store.running():
                self._adopt(task)
        self._closing.clear()
        self._thread = threading.Thread(target=self._run, name="task-scheduler", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look now, not at the next round."""
        self._awake.set()

    def close(self) -> None:
        """Stop supervising. The children live on."""
        self._closing.set()
        self._awake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
            self._thread = None

    def progress(self, task: Task, place_of: Callable[[str], int | None] | None = None) -> TaskProgress:
        """Where a task stands now; who asks about many tasks brings their places in the queue along."""
        return task_progress(task, self._reports, place_of or self._store.queue_place)

    def curve(self, task: Task, points: int) -> Curve:
        """The points of its plots, at most ``points``; where a resumed run repeats steps, the later run counts."""
        return self._reports.curve(task.folder, points)

    # What a person orders

    def stop(self, task: Task) -> Task:
        """Stop a task. A running one is asked to save a checkpoint, and killed after ``stop_grace_seconds``.

        Raises:
            Conflict: it is over.
        """
        with self._lock:
            if task.status in RUNNING:
                self._guarded(self._watch, self._store.get(task.id))  # it may have ended since the last round
            task = self._store.get(task.id)
            if task.status is TaskStatus.QUEUED:
                return self._end(task, outcome.before_start())
            if task.status is TaskStatus.STOPPING:
                return task
            if task.status.is_over:
                raise outcome.over_already(task)
            if child := self._child(task):
                child.signal(signal.SIGTERM)
            stopping = self._store.transition(task.id, RUNNING, TaskStatus.STOPPING, stop_requested_at=time.time())
        logger.info("Stopping task: %s", task.id)
        self.wake()
        return stopping

    def resume(self, task: Task) -> Task:
        """Queue a stopped or failed task again, last in the queue; it goes on from its newest checkpoint.

        Raises:
            Conflict: it is neither stopped nor failed.
            NotFound: its folder is gone.
        """
        with self._lock:
            task = self._store.get(task.id)
            if task.status not in RESUMABLE:
                raise outcome.not_resumable(task)
            prepare_resume(task)
            queued = self._store.transition(task.id, RESUMABLE, TaskStatus.QUEUED, **FRESH_RUN)
        logger.info("Queued task again: %s", task.id)
        self.wake()
        return queued

    def retry_smaller(self, task: Task) -> Task:
        """Queue a stopped or failed task again with half the batch and double accumulation.

        Raises:
            Conflict: it is neither stopped nor failed, or its batch is one row.
            NotFound: its folder is gone.
        """
        with self._lock:
            task = self._store.get(task.id)
            if task.status not in RESUMABLE:
                raise outcome.not_resumable(task)
            queued = self._requeue_with_smaller_batch(task)
        self.wake()
        return queued

    # Rounds

    def _run(self) -> None:
        while not self._closing.is_set():
            self._awake.clear()
            try:
                self._round()
            except (StudioError, OSError, ValueError, sqlite3.Error) as error:
                self._log_error("", error)
            self._awake.wait(ROUND_SECONDS)
        self._store.close()

    def _round(self) -> None:
        """Look at every running task once, then start what there is room for."""
        with self._lock:
            for task in self._store.running():
                self._guarded(self._watch, task)
            self._prepare_some()
            self._start_waiting()

    def _start_waiting(self) -> None:
        """Start what there is room for, in the queue's order; a task that waits for its GPUs is passed by."""
        places = max_running_tasks(self._settings.max_running, self._gpus) - len(self._store.training())
        awaited: set[int] = set()
        for task in self._store.queue() if places > 0 else ():
            if not self._is_prepared(task):
                continue
            gpus = self._gpus_for(task, awaited)
            if gpus is None and not pinned_gpus(task.recipe):
                break  # no GPU is free, for nobody
            if gpus is None:
                awaited.update(pinned_gpus(task.recipe))
                continue
            self._guarded(partial(self._launch, gpus=gpus), task)
            places -= 1
            if places <= 0:
                break

    def _gpus_for(self, task: Task, awaited: set[int]) -> tuple[int, ...] | None:
        usage = GpuUsage(
            held=self._held,
            engine=self._engine_gpus() if len(self._gpus) > 1 else (),
            awaited=awaited,
            per_gpu=tasks_per_gpu(self._settings.max_running, self._gpus),
        )
        pinned, need = pinned_gpus(task.recipe), 0.0
        if not pinned and len(self._gpus) > 1:
            with suppress(OSError, ValueError):  # said when it is launched
                need = read_job(task.folder).estimated_gb or 0.0
        return choose_gpus(pinned, self._gpus, usage, need)

    def _prepare_some(self) -> None:
        """Start preparing queued tasks, in their order, whatever is being trained."""
        places = MOST_PREPARING - sum(task.in_preparation for task in self._store.running())
        for task in self._store.queue():
            if places <= 0:
                return
            if not self._is_prepared(task):
                self._guarded(self._prepare, task)
                places -= 1

    def _prepare(self, task: Task) -> None:
        task = self._store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.PREPARING)
        child = self._preparer.launch(task.folder)
        self._children[task.id] = child
        logger.info("Preparing task: %s (process %d)", task.id, child.pid)
        self._record(task, child)

    def _is_prepared(self, task: Task) -> bool:
        """By its orders, which are read once; what is wrong with them is said when it is launched."""
        if task.id not in self._prepared:
            try:
                if not read_job(task.folder).prepared:
                    return False
            except (OSError, ValueError):
                return True
            self._prepared.add(task.id)
        return True

    def _guarded(self, work: Callable[[Task], None], task: Task) -> None:
        """Do something about one task. What goes wrong ends that task, unless its process lives, and no other."""
        try:
            work(task)
        except Conflict as error:  # another process changed it at the same time
            self._log_error(task.id, error)
        except (StudioError, OSError, ValueError) as error:
            self._log_error(task.id, error)
            child = self._children.get(task.id)
            if child is None or not child.is_alive():
                self._end(self._store.get(task.id), outcome.not_started(task.folder, error))

    def _launch(self, task: Task, gpus: tuple[int, ...]) -> None:
        if pinned_gpus(task.recipe):
            check_pinned_gpus(task.recipe, detect_hardware())  # it may have gone since the task was made
        self._before_start(gpus)
        write_gpus(task, gpus)
        task = self._store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.PREPARING, started_at=time.time())
        self._held[task.id] = gpus
        child = self._launcher.launch(task.folder)
        self._children[task.id] = child
        logger.info("Started task: %s (process %d)", task.id, child.pid)
        self._record(task, child)

    def _watch(self, task: Task) -> None:
        child = self._child(task)
        # Liveness first: a child that ends between the two looks has written its result by the second.
        alive = child is not None and child.is_alive()
        result = self._result(task, alive)
        if child is not None and alive:
            self._watch_living(task, child, result)
        else:
            self._settle(task, child, result)

    def _watch_living(self, task: Task, child: ChildProcess, result: Result | None) -> None:
        if task.pid != child.pid:
            self._record(task, child)
        began = task.started_at
        if (
            task.status is TaskStatus.PREPARING
            and began is not None
            and self._reports.trained_since(task.folder, began)
        ):
            self._store.transition(task.id, {TaskStatus.PREPARING}, TaskStatus.TRAINING)
            logger.info("Training task: %s", task.id)
        if not task.folder.is_dir() or self._kill_timeouts.passed(task, result):
            logger.info("Killing task: %s (process %d)", task.id, child.pid)
            child.signal(signal.SIGKILL)

    def _settle(self, task: Task, child: ChildProcess | None, result: Result | None) -> None:
        """Say how a task ended whose process is gone."""
        if task.in_preparation:
            self._settle_preparation(task, child, result)
        elif result is not None and task.status is not TaskStatus.STOPPING and should_retry(task, result):
            self._requeue_with_smaller_batch(task)
        elif result is not None:
            self._end(task, outcome.from_result(result))
        elif task.status is TaskStatus.STOPPING:
            self._end(task, outcome.killed_after_stop())
        else:
            self._end(task, outcome.ended_without_result(task.folder, child.exit_signal() if child is not None else ""))
        if child is not None:
            child.kill_group()

    def _settle_preparation(self, task: Task, child: ChildProcess | None, result: Result | None) -> None:
        """Queue a task that is prepared, in its old place, or say why it is not."""
        if result is not None:
            self._end(task, outcome.from_result(result))
        elif task.status is TaskStatus.STOPPING:
            self._end(task, outcome.before_start())
        elif not (job := read_job(task.folder)).prepared:
            signalled = child.exit_signal() if child is not None else ""
            self._end(task, outcome.ended_without_result(task.folder, signalled, outcome.PREPARER))
        else:
            changes: Changes = {"pid": None, "process_started": None}
            if job.source:
                changes |= {"dataset_id": job.dataset_id, "dataset_name": job.dataset_name}
            self._store.transition(task.id, {TaskStatus.PREPARING}, TaskStatus.QUEUED, **changes)
            self._forget(task)
            logger.info("Prepared task: %s", task.id)

    def _end(self, task: Task, how: Outcome) -> Task:
        to, changes = how
        changes = {**changes, "finished_at": time.time()}
        ended = self._store.transition(task.id, {task.status}, to, **changes)
        self._forget(task)
        if not task.folder.is_dir():
            self._reports.forget(task.folder)
        logger.info("Task %s: %s%s", ended.status, task.id, f" ({ended.reason.en})" if ended.reason else "")
        self._after_end()
        return ended

    def _requeue_with_smaller_batch(self, task: Task) -> Task:
        """Queue a task again with half the batch; one taken from the queue has kept its place there."""
        recipe, message = prepare_smaller_batch(task)
        self._forget(task)
        changes: Changes = {**FRESH_RUN, "reason": message, "recipe": recipe}
        queued = self._store.transition(task.id, {task.status}, TaskStatus.QUEUED, **changes)
        logger.info("Queued task again: %s (%s)", task.id, message.en)
        return queued

    def _forget(self, task: Task) -> None:
        self._kill_timeouts.forget(task.id)
        self._prepared.discard(task.id)
        for known in (self._children, self._reported_errors, self._held):
            known.pop(task.id, None)

    def _adopt(self, task: Task) -> None:
        child = self._child(task)
        if child is not None:
            with suppress(OSError, ValueError):  # without its folder it is ended in the next round
                held = read_job(task.folder).gpus if not task.in_preparation else ""
                self._held[task.id] = tuple(int(number) for number in held.split(",") if number)
            logger.info("Adopted task: %s (process %d)", task.id, child.pid)
        elif task.pid is None and task.status is TaskStatus.PREPARING and not (task.folder / RESULT).exists():
            # The earlier studio ended between taking it from the queue and starting a process for it.
            self._store.transition(task.id, {TaskStatus.PREPARING}, TaskStatus.QUEUED, started_at=None)

    def _child(self, task: Task) -> ChildProcess | None:
        """The task's process, looked for once if this studio did not start it."""
        if task.id not in self._children:
            self._children[task.id] = find_child(task.pid, task.process_started, task.folder)
        return self._children[task.id]

    def _record(self, task: Task, child: ChildProcess) -> None:
        self._store.transition(task.id, {task.status}, task.status, pid=child.pid, process_started=child.started)

    def _result(self, task: Task, alive: bool) -> Result | None:
        try:
            return read_result(task.folder)
        except (ValueError, OSError) as error:
            if not alive:
                raise
            self._log_error(task.id, error)
            return None

    def _log_error(self, task_id: str, error: Exception) -> None:
        """Log a fault, once as long as it stays the same."""
        if self._reported_errors.get(task_id) != str(error):
            self._reported_errors[task_id] = str(error)
            logger.error("Supervisor: %s %s: %s", task_id, type(error).__name__, error)


# Resume: what changes in a task's folder


def prepare_resume(task: Task) -> None:
    """Put the last result aside as ``result.1.json`` and tell the child to continue.

    Where the model is no longer on this machine, it is prepared again first.

    To be called before the task is queued again: a crash in between leaves a task that can still be resumed.

    Raises:
        NotFound: the folder is gone.
        Conflict: the child's orders in it cannot be read.
        StorageFull: nothing has changed.
    """
    if not task.folder.is_dir():
        raise NotFound(
            Text("The folder of {id} is gone: {folder}.", id=task.id, folder=task.folder),
            GONE,
        )
    try:
        job = read_job(task.folder)
        job = job.model_copy(update={"resume": True, "prepared": job.prepared and is_here(job.model_location)})
    except (ValueError, FileNotFoundError) as error:
        raise Conflict(
            Text("{folder} cannot be read: {error}", folder=task.folder / JOB, error=error),
            Text("Start a new task with the same settings."),
        ) from error
    write_atomically(task.folder / JOB, job.model_dump_json(indent=2))
    result = task.folder / RESULT
    if result.exists():
        result.rename(_free_name(result))


def _free_name(path: Path) -> Path:
    """``result.1.json`` for ``result.json``, or the next number that is free."""
    number = 1
    while (free := path.with_suffix(f".{number}{path.suffix}")).exists():
        number += 1
    return free


# Retry with a smaller batch after an out-of-memory error


def should_retry(task: Task, result: Result) -> bool:
    """Whether a run that ended for want of memory is to be tried again at once, with a smaller batch."""
    if result.reason is not Reason.MEMORY or task.recipe.get("per_device_train_batch_size", 1) < 2:
        return False
    return read_job(task.folder).smaller_batches < MAX_AUTOMATIC_RETRIES


def prepare_smaller_batch(task: Task) -> tuple[dict[str, Any], Text]:
    """Write the smaller batch into the folder, and into its log.

    It goes on from the newest checkpoint if a step still is the same number of rows, else from the beginning.

    Returns:
        The task's new recipe, and what is said about it.

    Raises:
        Conflict: the batch is one row already, or the folder's orders cannot be read.
        NotFound: the folder is gone.
    """
    before = task.recipe
    if before.get("per_device_train_batch_size", 1) < 2:
        raise Conflict(
            Text("The batch of {id} is one row already.", id=task.id),
            Text("Use a smaller max_length, gradient checkpointing, or 8 or 4 bits."),
        )
    after = {**before, **smaller_batch(before)}
    prepare_resume(task)
    write_atomically(task.folder / RECIPE, dump_recipe(parse_recipe(after)))
    job = read_job(task.folder)
    update = {"smaller_batches": job.smaller_batches + 1, "resume": _rows(after) == _rows(before)}
    write_atomically(task.folder / JOB, job.model_copy(update=update).model_dump_json(indent=2))
    message = _batch_message(before, after)
    with (task.folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"{message.en}\n")
    return after, message


def _rows(recipe: dict[str, Any]) -> int:
    return int(recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"])


def _batch_message(before: dict[str, Any], after: dict[str, Any]) -> Text:
    old, new = before["per_device_train_batch_size"], after["per_device_train_batch_size"]
    accumulated = after["gradient_accumulation_steps"]
    return Text(
        "Memory was not enough for batch size {old}: again with batch size {new}, accumulated {accumulated} times.",
        old=old,
        new=new,
        accumulated=accumulated,
    )
