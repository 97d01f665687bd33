"""The one who runs the tasks: starts what waits, watches what runs, and finds again what an earlier studio started.

Knows the life of a task and the order of the queue. Knows nothing of what a training does: it looks at a task folder's
files, and at whether a process still lives.
"""

import logging
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from sage_studio.errors import Conflict, StudioError
from sage_studio.hardware import detect_hardware
from sage_studio.settings import Settings
from sage_studio.tasks import endings
from sage_studio.tasks.cards import (
    Demand,
    check_pinned,
    choose_cards,
    most_running,
    pinned_cards,
    tasks_per_card,
    usable_cards,
    write_cards,
)
from sage_studio.tasks.deadlines import Deadlines
from sage_studio.tasks.endings import Ending
from sage_studio.tasks.launcher import ChildProcess, Launcher, find_child
from sage_studio.tasks.reports import Reports
from sage_studio.tasks.resume import prepare_resume
from sage_studio.tasks.retry import prepare_smaller, should_retry
from sage_studio.tasks.standing import standing
from sage_studio.tasks.store import RUNNING, TaskStore
from sage_studio.tasks.table import Changes
from sage_studio.tasks.task import Curve, Task, TaskProgress, TaskStatus
from sage_studio.text import NOTHING
from sage_studio.training.progress import RESULT, Result, read_job, read_result

logger = logging.getLogger("sage_studio")

ROUND_SECONDS = 0.5
CLOSE_SECONDS = 10.0
AFRESH: Changes = {
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
MOST_PREPARING = 2
"""Tasks whose models and rows are made ready at the same time; that needs no GPU."""


class TaskSupervisor:
    """Runs the tasks of a store, at most ``settings.max_running`` at a time.

    Args:
        store: the tasks.
        launcher: starts the trainers.
        preparer: starts the processes that make a task's model and rows ready, before it may have a GPU.
        settings: ``max_running`` and ``stop_grace_seconds`` count here.
        before_start: called before a child starts, with the physical numbers of its GPUs; after a `Conflict` again in
            the next round. after_end: called after a child.
        engine_cards: the physical numbers of the GPUs that the chat engine holds; a training prefers another.
    """

    def __init__(
        self,
        store: TaskStore,
        launcher: Launcher,
        settings: Settings,
        before_start: Callable[[Sequence[int]], None] = lambda _: None,
        after_end: Callable[[], None] = lambda: None,
        engine_cards: Callable[[], Sequence[int]] = lambda: (),
        preparer: Launcher | None = None,
    ) -> None:
        self._before_start, self._after_end, self._engine_cards = before_start, after_end, engine_cards
        self._store = store
        self._launcher = launcher
        self._preparer = preparer if preparer is not None else launcher
        self._prepared: set[str] = set()
        self._settings, self._cards = settings, usable_cards()
        self._reports = Reports()
        self._children: dict[str, ChildProcess | None] = {}
        self._held: dict[str, tuple[int, ...]] = {}
        self._deadlines = Deadlines(settings.stop_grace_seconds)
        self._complaints: dict[str, str] = {}
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
        self._thread = threading.Thread(target=self._run, name="task-supervisor", daemon=True)
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
        return standing(task, self._reports, place_of or self._store.queue_place)

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
                return self._end(task, endings.before_start())
            if task.status is TaskStatus.STOPPING:
                return task
            if task.status.is_over:
                raise endings.over_already(task)
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
                raise endings.not_resumable(task)
            prepare_resume(task)
            queued = self._store.transition(task.id, RESUMABLE, TaskStatus.QUEUED, **AFRESH)
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
                raise endings.not_resumable(task)
            queued = self._again_smaller(task)
        self.wake()
        return queued

    # Rounds

    def _run(self) -> None:
        while not self._closing.is_set():
            self._awake.clear()
            try:
                self._round()
            except (StudioError, OSError, ValueError, sqlite3.Error) as error:
                self._complain("", error)
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
        room = most_running(self._settings.max_running, self._cards) - len(self._store.training())
        awaited: set[int] = set()
        for task in self._store.queue() if room > 0 else ():
            if not self._is_prepared(task):
                continue
            cards = self._cards_for(task, awaited)
            if cards is None and not pinned_cards(task.recipe):
                break  # no GPU is free, for nobody
            if cards is None:
                awaited.update(pinned_cards(task.recipe))
                continue
            self._guarded(partial(self._launch, cards=cards), task)
            room -= 1
            if room <= 0:
                break

    def _cards_for(self, task: Task, awaited: set[int]) -> tuple[int, ...] | None:
        demand = Demand(
            held=self._held,
            engine=self._engine_cards() if len(self._cards) > 1 else (),
            awaited=awaited,
            per_card=tasks_per_card(self._settings.max_running, self._cards),
        )
        pinned, need = pinned_cards(task.recipe), 0.0
        if not pinned and len(self._cards) > 1:
            with suppress(OSError, ValueError):  # said when it is launched
                need = read_job(task.folder).estimated_gb or 0.0
        return choose_cards(pinned, self._cards, demand, need)

    def _prepare_some(self) -> None:
        """Start preparing queued tasks, in their order, whatever is being trained."""
        room = MOST_PREPARING - sum(task.in_preparation for task in self._store.running())
        for task in self._store.queue():
            if room <= 0:
                return
            if not self._is_prepared(task):
                self._guarded(self._prepare, task)
                room -= 1

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
            self._complain(task.id, error)
        except (StudioError, OSError, ValueError) as error:
            self._complain(task.id, error)
            child = self._children.get(task.id)
            if child is None or not child.is_alive():
                self._end(self._store.get(task.id), endings.not_started(task.folder, error))

    def _launch(self, task: Task, cards: tuple[int, ...]) -> None:
        if pinned_cards(task.recipe):
            check_pinned(task.recipe, detect_hardware())  # it may have gone since the task was made
        self._before_start(cards)
        write_cards(task, cards)
        task = self._store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.PREPARING, started_at=time.time())
        self._held[task.id] = cards
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
        if not task.folder.is_dir() or self._deadlines.passed(task, result):
            logger.info("Killing task: %s (process %d)", task.id, child.pid)
            child.signal(signal.SIGKILL)

    def _settle(self, task: Task, child: ChildProcess | None, result: Result | None) -> None:
        """Say how a task ended whose process is gone."""
        if task.in_preparation:
            self._settle_preparation(task, child, result)
        elif result is not None and task.status is not TaskStatus.STOPPING and should_retry(task, result):
            self._again_smaller(task)
        elif result is not None:
            self._end(task, endings.by_itself(result))
        elif task.status is TaskStatus.STOPPING:
            self._end(task, endings.by_force())
        else:
            self._end(task, endings.without_a_word(task.folder, child.ended_by() if child is not None else ""))
        if child is not None:
            child.end_group()

    def _settle_preparation(self, task: Task, child: ChildProcess | None, result: Result | None) -> None:
        """Queue a task that is prepared, in its old place, or say why it is not."""
        if result is not None:
            self._end(task, endings.by_itself(result))
        elif task.status is TaskStatus.STOPPING:
            self._end(task, endings.before_start())
        elif not (job := read_job(task.folder)).prepared:
            signalled = child.ended_by() if child is not None else ""
            self._end(task, endings.without_a_word(task.folder, signalled, endings.PREPARER))
        else:
            changes: Changes = {"pid": None, "process_started": None}
            if job.source:
                changes |= {"dataset_id": job.dataset_id, "dataset_name": job.dataset_name}
            self._store.transition(task.id, {TaskStatus.PREPARING}, TaskStatus.QUEUED, **changes)
            self._forget(task)
            logger.info("Prepared task: %s", task.id)

    def _end(self, task: Task, ending: Ending) -> Task:
        to, changes = ending
        changes = {**changes, "finished_at": time.time()}
        ended = self._store.transition(task.id, {task.status}, to, **changes)
        self._forget(task)
        if not task.folder.is_dir():
            self._reports.forget(task.folder)
        logger.info("Task %s: %s%s", ended.status, task.id, f" ({ended.reason.en})" if ended.reason else "")
        self._after_end()
        return ended

    def _again_smaller(self, task: Task) -> Task:
        """Queue a task again with half the batch; one taken from the queue has kept its place there."""
        recipe, said = prepare_smaller(task)
        self._forget(task)
        changes: Changes = {**AFRESH, "reason": said, "recipe": recipe}
        queued = self._store.transition(task.id, {task.status}, TaskStatus.QUEUED, **changes)
        logger.info("Queued task again: %s (%s)", task.id, said.en)
        return queued

    def _forget(self, task: Task) -> None:
        self._deadlines.forget(task.id)
        self._prepared.discard(task.id)
        for known in (self._children, self._complaints, self._held):
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
            self._complain(task.id, error)
            return None

    def _complain(self, task_id: str, error: Exception) -> None:
        """Log a fault, once as long as it stays the same."""
        if self._complaints.get(task_id) != str(error):
            self._complaints[task_id] = str(error)
            logger.error("Supervisor: %s %s: %s", task_id, type(error).__name__, error)
