"""Background tasks: work other than training, in threads, queued per resource.

They are kept like trainings.

A task is a row of the table ``tasks``, whose status counts, and a folder with ``order.json`` (what was asked),
``state.json`` (how far it is), ``task.log`` and what the work writes. A task that was cut off, by a person, a fault or
the end of the studio, is run again on the same folder and continues from what it finds there. What another process of
the same home (a command) queues or wants stopped is found in the table.
"""

import json
import logging
import os
import shutil
import sqlite3
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter, ValidationError

from sage_studio.data.dataset import OnProgress, ignore_progress
from sage_studio.data.jobs import Job, JobState, JobStopped, StudioCloses
from sage_studio.errors import Conflict, NotFound, StudioError, naming_full_disk
from sage_studio.files import safe_name, write_atomically
from sage_studio.processes import known_process
from sage_studio.tasks.store import Changes, TaskStore
from sage_studio.tasks.task import Task, TaskProgress, TaskStatus
from sage_studio.text import NOTHING, Text

logger = logging.getLogger("sage_studio")

ORDER, STATE, LOG = "order.json", "state.json", "task.log"
TELL_SECONDS = 0.3
CLOSE_SECONDS = 30.0
ROUND_SECONDS = 0.5
NEWEST = 200
INTERRUPTED = Text("The studio was closed meanwhile.")
UNEXPECTED = Text("An unexpected fault; the log has the details.")
WAITING = Text("Waiting for another task to finish")
UNDER_WAY = frozenset({TaskStatus.RUNNING, TaskStatus.STOPPING})
STATES = {
    TaskStatus.COMPLETED: JobState.COMPLETED,
    TaskStatus.STOPPED: JobState.STOPPED,
    TaskStatus.FAILED: JobState.FAILED,
}
AS_JSON = TypeAdapter(Job)
STARTED = psutil.Process().create_time()


class Resource(StrEnum):
    """What a kind of task needs for itself."""

    ENGINE = "engine"
    MEMORY = "memory"
    CPU = "cpu"
    NETWORK = "network"


CAPACITY = {Resource.ENGINE: 1, Resource.MEMORY: 1, Resource.CPU: 2, Resource.NETWORK: 4}
"""How many tasks may use a resource at a time."""


class TaskContext:
    """A background task as its work sees it.

    Attributes:
        folder: the task's own, to write into.
        order: what was asked.
        on_progress: told too, besides the task's folder; for who waits for the work.
    """

    def __init__(
        self, job: Job, folder: Path, order: Mapping[str, Any], on_progress: OnProgress = ignore_progress
    ) -> None:
        self.job, self.folder, self.order, self._on_progress = job, folder, order, on_progress
        self.stop, self._thread = threading.Event(), threading.current_thread()
        self.studio_closes = False
        self._written = 0.0

    def tell(self, done: int, total: int, doing: Text) -> None:
        """Report progress.

        Args:
            done, total: units of work.
            doing: the phase, for a person.

        Raises:
            JobStopped: the task is to stop.
        """
        if doing != self.job.doing:
            self.log(doing.en)
        self.job = replace(self.job, done=done, total=total, doing=doing)
        self._on_progress(done / total if total else 0.0, doing)
        if time.monotonic() - self._written > TELL_SECONDS:
            self._written = time.monotonic()
            self.write()
        self.check()

    def begin(self) -> None:
        """From now on the calling thread does it."""
        self._thread = threading.current_thread()

    def check(self) -> None:
        """Raise `JobStopped` if the task is to stop. Only in the thread that does it: git reports from another."""
        if self.stop.is_set() and threading.current_thread() is self._thread:
            raise StudioCloses if self.studio_closes else JobStopped

    def log(self, line: str) -> None:
        """Append a line to the task's log."""
        if not self.job.id:
            return
        with naming_full_disk(self.folder), (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def write(self) -> None:
        """Write ``state.json``; not of work that another task is recorded for."""
        if self.job.id:
            write_atomically(self.folder / STATE, AS_JSON.dump_json(self.job).decode())


Run = Callable[[TaskContext], str]
"""Does the work and returns the id of what it made, or an empty text. Raises `JobStopped` when it was stopped."""


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A kind of background task.

    Attributes:
        run: does the work.
        resource: what it queues for.
        forgets: a task that completed is deleted at once: there is nothing to see, and there are many of them.
        restarts: a task that was cut off by the end of the studio runs again by itself.
    """

    name: str
    run: Run
    resource: Resource
    forgets: bool = False
    restarts: bool = False


class BackgroundTasks:
    """Runs and keeps background tasks; safe to use from many threads.

    Args:
        store: the table of tasks.
        folder: holds a folder for each.
        queues_only: leave what is queued to the studio that runs, or to the next one; for a command, which soon ends.
    """

    def __init__(self, store: TaskStore, folder: Path, *, queues_only: bool = False) -> None:
        self._store, self._folder, self._queues_only = store, folder, queues_only
        self._kinds: dict[str, TaskKind] = {}
        self._running: dict[str, tuple[TaskContext, threading.Thread]] = {}
        self._unsaved: dict[str, Job] = {}
        self._errors: dict[str, StudioError] = {}
        self._ended = threading.Condition(threading.RLock())  # also the lock of all the above
        self._closing = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def register(
        self, name: str, run: Run, resource: Resource, *, forgets: bool = False, restarts: bool = False
    ) -> None:
        """Make a kind of task known; see `TaskKind`."""
        self._kinds[name] = TaskKind(name, run, resource, forgets, restarts)

    def recover(self) -> None:
        """At the studio's start: stop what an earlier studio left running, run what it left in the queue.

        Jobs of 0.1, which are folders only, get their rows.
        """
        with self._ended:
            for path in sorted(self._folder.glob(f"*/{STATE}")):
                self._adopt_folder(path)
            self._recover_rows()
            self._start_waiting()

    def watch(self) -> None:
        """From now on, also look after what other processes of this home queue, stop or leave behind."""
        self._thread = threading.Thread(target=self._watch, name="background-tasks", daemon=True)
        self._thread.start()

    def start(self, kind: str, dataset_id: str, order: Mapping[str, Any]) -> Job:
        """Queue a task; it starts at once if its resource is free.

        Raises:
            Conflict: the same kind of work is done on the same dataset.
            StorageFull: nothing is left behind then.
        """
        with self._ended:
            if other := self._under_way(kind, dataset_id, order):
                subject = dataset_id or other.model
                raise Conflict(
                    Text("{id} already works on {subject}.", id=other.id, subject=subject),
                    Text("Wait for its end, or stop it."),
                )
            job = self._create(kind, dataset_id, order)
            self._start_waiting()
            return self.get(job.id)

    def ensure(self, kind: str, order: Mapping[str, Any]) -> Job:
        """Queue a task, unless one of that kind is under way for the same model (``order["model"]``)."""
        with self._ended:
            other = self._under_way(kind, "", order)
            return self.get(other.id) if other is not None else self.start(kind, "", order)

    def run(self, kind: str, order: Mapping[str, Any], on_progress: OnProgress = ignore_progress) -> str:
        """Do a task in the calling thread, at once, and return what it made; for who needs the result to go on.

        Raises:
            StudioError: whatever the work raises; the task is kept as failed, and can be resumed.
            Conflict: it was stopped.
        """
        with self._ended:
            if other := self._under_way(kind, "", order):
                unrecorded = TaskContext(Job("", kind, "", 0.0), self._folder / other.id, order, on_progress)
            else:
                task = self._store.background_task(self._create(kind, "", order).id)
                context = self._begin(task, on_progress)
                self._running[task.id] = (context, threading.current_thread())
        if other is not None:  # the work itself waits for the other, and finds all done
            return self._kinds[kind].run(unrecorded)
        try:
            return self._work(context, self._kinds[kind])
        except JobStopped as stopped:
            raise _was_stopped(context.job.id) from stopped

    def finish(self, kind: str, order: Mapping[str, Any]) -> str:
        """Queue a task, unless one of that kind is under way for the same model; wait for its end, return what it made.

        Raises:
            StudioError: whatever the work raises; the task is kept as failed, and can be resumed.
            Conflict: it was stopped, or the studio closes.
        """
        if self._queues_only:
            return self.run(kind, order)
        job = self.ensure(kind, order)
        with self._ended:
            while (job := self.get(job.id)).state is JobState.RUNNING and not self._closing:
                self._ended.wait(ROUND_SECONDS)  # another process may have ended it
            error = self._errors.get(job.id)
        if error is not None:
            raise error
        if job.state is JobState.FAILED:
            raise StudioError(job.message, job.hint)
        if job.state is not JobState.COMPLETED:
            raise _was_stopped(job.id)
        return job.result

    def resume(self, job_id: str) -> Job:
        """Queue a stopped or failed task again. Raises `Conflict` where there is nothing to continue."""
        with self._ended:
            job = self.get(job_id)
            if job.state not in (JobState.STOPPED, JobState.FAILED):
                raise Conflict(
                    Text("{job_id} is {state}.", job_id=job_id, state=job.state),
                    Text("Only a stopped or failed one goes on."),
                )
            if other := self._under_way(job.kind, job.dataset_id, self.order(job_id)):
                raise Conflict(
                    Text("{id} does the same already.", id=other.id),
                    Text("Wait for its end, or stop it."),
                )
            fresh: Changes = {"finished_at": None, "started_at": None, "reason": NOTHING, "hint": NOTHING}
            self._store.transition(job_id, set(TaskStatus), TaskStatus.QUEUED, **fresh)
            self._unsaved.pop(job_id, None)
            self._errors.pop(job_id, None)
            self._start_waiting()
            return self.get(job_id)

    def stop(self, job_id: str) -> Job:
        """Stop a task; a running one ends after the piece of work at hand. What it has done stays."""
        with self._ended:
            job, task = self.get(job_id), self._store.background_task(job_id)
            if task.status is TaskStatus.QUEUED:
                self._store.transition(job_id, {TaskStatus.QUEUED}, TaskStatus.STOPPED, finished_at=time.time())
                self._ended.notify_all()
                return self.get(job_id)
            if task.status is TaskStatus.RUNNING and self._runs(task):
                now = time.time()
                self._store.transition(job_id, {TaskStatus.RUNNING}, TaskStatus.STOPPING, stop_requested_at=now)
            if job_id in self._running:  # else the process that works on it finds the request in the table
                self._running[job_id][0].stop.set()
            return job

    def get(self, job_id: str) -> Job:
        """How a task stands. Raises `NotFound`."""
        return self._in_memory(job_id) or self._job_of(self._store.background_task(safe_name(job_id)))

    def task(self, job_id: str) -> Task:
        """The row of a task, with the status that it has in truth. Raises `NotFound`."""
        return _in_truth(self._store.background_task(safe_name(job_id)), self.get(job_id))

    def list_with_tasks(self) -> "list[tuple[Task, Job]]":
        """The newest tasks first, each with how it stands."""
        found = [(row, self._in_memory(row.id) or self._job_of(row)) for row in self._store.background()[:NEWEST]]
        return [(_in_truth(row, job), job) for row, job in found]

    def progress(self, job_id: str) -> TaskProgress:
        """Where a task stands, as of a training. Raises `NotFound`."""
        job, task = self.get(job_id), self._store.background_task(safe_name(job_id))
        share = 1.0 if job.state is JobState.COMPLETED else job.done / job.total if job.total else 0.0
        end = task.finished_at or time.time()
        return TaskProgress(
            now=None,
            percent=100.0 * share,
            queue_place=None,
            seconds=max(0.0, end - task.started_at) if task.started_at is not None else 0.0,
        )

    @property
    def kinds(self) -> Set[str]:
        """The names of the kinds that are known."""
        return self._kinds.keys()

    def order(self, job_id: str) -> dict[str, Any]:
        """What was asked."""
        return self._store.background_task(safe_name(job_id)).recipe

    def list(self, dataset_id: str = "") -> "list[Job]":
        """The newest tasks first, of one dataset or of all."""
        tasks = self._store.background()[:NEWEST]
        return [self.get(task.id) for task in tasks if not dataset_id or task.dataset_id == dataset_id]

    def delete(self, job_id: str) -> None:
        """Forget a task and what it wrote into its folder. Raises `Conflict` while it runs or waits."""
        with self._ended:
            if self.get(job_id).state is JobState.RUNNING:
                raise Conflict(Text("{job_id} is running.", job_id=job_id), Text("Stop it first."))
            self._store.remove_background(job_id)
            self._unsaved.pop(job_id, None)
            self._errors.pop(job_id, None)
            shutil.rmtree(self._folder / safe_name(job_id), ignore_errors=True)

    def wait(self, job_id: str, seconds: float = CLOSE_SECONDS) -> Job:
        """Wait for a task's end, and say how it stands then."""
        deadline = time.monotonic() + seconds
        with self._ended:
            while self.get(job_id).state is JobState.RUNNING and (left := deadline - time.monotonic()) > 0:
                self._ended.wait(left)
            return self.get(job_id)

    def close(self) -> None:
        """Stop what runs, to be continued another time; what waits stays in the queue."""
        self._closed.set()
        with self._ended:
            self._closing = True
            running = [each for each in self._running.values() if each[1] is not threading.current_thread()]
            for context, _ in running:
                context.studio_closes = not context.stop.is_set()
                context.stop.set()
            self._ended.notify_all()
            deadline, ids = time.monotonic() + CLOSE_SECONDS, {context.job.id for context, _ in running}
            while ids & set(self._running) and (left := deadline - time.monotonic()) > 0:
                self._ended.wait(left)
        for context, thread in running:
            if thread.name == context.job.id:  # ours, and not the thread of somebody who waits
                thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    # Inside

    def _in_memory(self, job_id: str) -> Job | None:
        """How a task stands that a thread of this studio works on, or whose end could not be recorded."""
        with self._ended:
            running = self._running.get(job_id)
            return running[0].job if running is not None else self._unsaved.get(job_id)

    def _watch(self) -> None:
        while not self._closed.wait(ROUND_SECONDS):
            try:
                with self._ended:
                    for task in self._store.unfinished_background():
                        if task.status is TaskStatus.STOPPING and task.id in self._running:
                            self._running[task.id][0].stop.set()
                    self._recover_rows()
                    self._start_waiting()
            except (StudioError, OSError, sqlite3.Error) as error:
                logger.error("Background tasks: %s", error)
        self._store.close()

    def _recover_rows(self) -> None:
        """Stop, or queue again, what nobody works on any more."""
        for task in self._store.unfinished_background():
            if task.status not in UNDER_WAY or self._runs(task) or task.id in self._unsaved:
                continue
            if task.kind in self._kinds and self._kinds[task.kind].restarts:
                self._store.transition(task.id, UNDER_WAY, TaskStatus.QUEUED)
            else:
                stopped: Changes = {"finished_at": time.time(), "reason": INTERRUPTED}
                self._store.transition(task.id, UNDER_WAY, TaskStatus.STOPPED, **stopped)

    def _start_waiting(self) -> None:
        """Start queued tasks whose resource is free, in their order."""
        busy = Counter(self._kinds[context.job.kind].resource for context, _ in self._running.values())
        for task in () if self._closing or self._queues_only else self._store.unfinished_background():
            kind = self._kinds.get(task.kind)
            if kind is None or task.status is not TaskStatus.QUEUED or busy[kind.resource] >= CAPACITY[kind.resource]:
                continue
            busy[kind.resource] += 1
            self._launch(task, kind)

    def _under_way(self, kind: str, dataset_id: str, order: Mapping[str, Any]) -> Task | None:
        """A task that waits or runs, of the same kind and for the same dataset or, without one, the same model."""
        subject = dataset_id or str(order.get("model") or order.get("source") or "")
        same = (
            task
            for task in self._store.unfinished_background()
            if (task.kind, task.dataset_id or task.model) == (kind, subject)
        )
        return next((task for task in same if task.status is TaskStatus.QUEUED or self._runs(task)), None)

    def _runs(self, task: Task) -> bool:
        """Whether a thread of this studio, or another process of the same home, works on a task."""
        if task.status not in UNDER_WAY:
            return False
        if task.id in self._running:
            return True
        if task.pid is None or task.process_started is None or task.pid == os.getpid():
            return False
        return known_process(task.pid, task.process_started).is_alive()

    def _create(self, kind: str, dataset_id: str, order: Mapping[str, Any]) -> Job:
        number = self._store.next_number()
        folder = self._folder / f"{kind}-{number}"
        job = Job(folder.name, kind, dataset_id, time.time())
        try:
            with naming_full_disk(folder):
                folder.mkdir(parents=True)
            write_atomically(folder / ORDER, json.dumps(dict(order), ensure_ascii=False, indent=1))
            TaskContext(job, folder, order).write()
            self._store.add_background(number, job.id, kind, dataset_id, dict(order), job.created_at)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return job

    def _begin(self, task: Task, on_progress: OnProgress = ignore_progress) -> TaskContext:
        me: Changes = {"started_at": time.time(), "pid": os.getpid(), "process_started": STARTED}
        self._store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.RUNNING, **me)
        job = replace(self._job_of(task), state=JobState.RUNNING, doing=NOTHING, message=NOTHING, hint=NOTHING)
        return TaskContext(job, self._folder / task.id, task.recipe, on_progress)

    def _launch(self, task: Task, kind: TaskKind) -> None:
        context = self._begin(task)
        thread = threading.Thread(target=self._in_thread, args=(context, kind), name=task.id, daemon=True)
        self._running[task.id] = (context, thread)
        thread.start()

    def _in_thread(self, context: TaskContext, kind: TaskKind) -> None:
        try:
            self._work(context, kind)
        except (StudioError, JobStopped):
            pass  # recorded
        finally:
            self._store.close()

    def _work(self, context: TaskContext, kind: TaskKind) -> str:
        context.begin()
        try:
            result = kind.run(context)
            self._end(context, TaskStatus.COMPLETED, result=result, done=context.job.total)
            return result
        except JobStopped as stopped:
            if isinstance(stopped, StudioCloses) and kind.restarts:
                self._store.transition(context.job.id, UNDER_WAY, TaskStatus.QUEUED)
            else:
                with suppress(StudioError, OSError):
                    context.log("Stopped.")
                self._end(context, TaskStatus.STOPPED)
            raise
        except StudioError as error:
            with suppress(StudioError, OSError):
                context.log(error.say("en"))
            self._errors[context.job.id] = error
            self._end(context, TaskStatus.FAILED, message=error.message, hint=error.hint)
            raise
        except BaseException:
            with suppress(StudioError, OSError):
                context.log(traceback.format_exc())
            self._end(context, TaskStatus.FAILED, message=UNEXPECTED)
            raise
        finally:
            with self._ended:
                del self._running[context.job.id]
                try:
                    self._start_waiting()
                except (StudioError, sqlite3.Error) as error:
                    logger.error("Queued tasks could not be started: %s", error)
                self._ended.notify_all()

    def _end(self, context: TaskContext, status: TaskStatus, **changes: Any) -> None:
        """Record how a task ended; where that cannot be written, it is remembered as long as this studio runs."""
        job = replace(context.job, state=STATES[status], **changes)
        ended: Changes = {"finished_at": time.time(), "reason": job.message, "hint": job.hint}
        with self._ended:
            context.job = self._unsaved[job.id] = job
            try:
                self._store.transition(job.id, UNDER_WAY, status, **ended)
                context.write()
                del self._unsaved[job.id]
                if status is TaskStatus.COMPLETED and self._kinds[job.kind].forgets:
                    self._store.remove_background(job.id)
                    shutil.rmtree(context.folder, ignore_errors=True)
            except (StudioError, OSError, sqlite3.Error) as error:
                logger.error("The end of %s could not be recorded: %s", job.id, error)

    def _job_of(self, task: Task) -> Job:
        """A task's row and its ``state.json``, as one; the row counts."""
        try:
            found = AS_JSON.validate_json((self._folder / task.id / STATE).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            found = Job(task.id, task.kind, task.dataset_id, task.created_at)
        if task.status is TaskStatus.QUEUED:
            return replace(found, state=JobState.RUNNING, doing=WAITING)
        if self._runs(task):
            return replace(found, state=JobState.RUNNING)
        if task.status in UNDER_WAY:  # by a studio that is gone
            return replace(found, state=JobState.STOPPED, message=INTERRUPTED)
        return replace(found, state=STATES[task.status], message=task.reason, hint=task.hint)

    def _adopt_folder(self, path: Path) -> None:
        """Give a job of 0.1 its row."""
        try:
            self._store.background_task(path.parent.name)
        except NotFound:
            try:
                job = AS_JSON.validate_json(path.read_text(encoding="utf-8"))
                order = json.loads(path.with_name(ORDER).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                logger.warning("%s cannot be read: %s", path.parent, error)
                return
            state = {each: status for status, each in STATES.items()}.get(job.state, TaskStatus.RUNNING)
            number = self._store.next_number()
            self._store.add_background(number, job.id, job.kind, job.dataset_id, order, job.created_at)
            ended: Changes = {"finished_at": path.stat().st_mtime, "reason": job.message, "hint": job.hint}
            self._store.transition(job.id, {TaskStatus.QUEUED}, state, **ended)


def _in_truth(task: Task, job: Job) -> Task:
    """A row with the status of its task, where the row could not be written."""
    if job.state is JobState.RUNNING:
        return task
    ended = next(status for status, state in STATES.items() if state is job.state)
    return replace(task, status=ended, reason=job.message, hint=job.hint)


def _was_stopped(job_id: str) -> Conflict:
    return Conflict(
        Text("{job_id} was stopped.", job_id=job_id),
        Text("Resume it on the Tasks tab, or ask again."),
    )
