"""Task store: a row in the studio's database and a folder under ``outputs/`` for each task.

A crash or a second thread never leaves half of a created, moved or deleted task.
"""

import json
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypedDict, Unpack

from sage_studio.database import Database, insert
from sage_studio.errors import Conflict, InvalidName, NotFound, naming_full_disk
from sage_studio.files import safe_name, write_atomically
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Text, verbatim
from sage_studio.training.progress import JOB, RECIPE, Reason, TrainingJob
from sage_studio.training.recipes import Recipe, dump_recipe

logger = logging.getLogger("sage_studio")

DELETED = ".deleted-"
DELETABLE = frozenset(status for status in TaskStatus if status.is_over or status is TaskStatus.QUEUED)
RUNNING = frozenset(status for status in TaskStatus if status.is_running)

Tasks: TypeAlias = list[Task]

TRAINING = "kind = 'train'"
NEXT_NUMBER = """
INSERT INTO task_numbers VALUES (1, ?) ON CONFLICT DO UPDATE SET last = max(last + 1, excluded.last) RETURNING last
"""
NEXT_PLACE = "SELECT coalesce(max(place), 0) + 1 AS place FROM tasks"
PLACE = """
SELECT count(*) AS place FROM tasks AS one JOIN tasks AS other
WHERE one.id = ? AND one.kind = 'train' AND one.status = 'queued'
  AND other.kind = 'train' AND other.status = 'queued' AND other.place <= one.place
"""


class TaskRow(NamedTuple):
    """A row of the table ``tasks``, by column name."""

    number: int
    id: str
    type: str
    name: str
    status: str
    model: str
    dataset_id: str
    dataset_name: str
    created_at: float
    recipe: str
    place: int
    started_at: float | None
    finished_at: float | None
    reason_class: str | None
    reason_en: str
    reason_zh: str
    hint_en: str
    hint_zh: str
    pid: int | None
    process_started: float | None
    stop_requested_at: float | None
    kind: str


class Changes(TypedDict, total=False):
    """What may change together with a task's status; see `Task`."""

    recipe: dict[str, Any]
    dataset_id: str
    dataset_name: str
    started_at: float | None
    finished_at: float | None
    reason_class: Reason | None
    reason: Text
    hint: Text
    pid: int | None
    process_started: float | None
    stop_requested_at: float | None


class Records:
    """Rows as tasks. A row that is as it was is the same object as before: a page asks for all of them every second.

    Args:
        outputs_dir, background_dir: hold the folders of trainings and of other tasks; not stored, so that the studio's
            home may be moved.
    """

    def __init__(self, outputs_dir: Path, background_dir: Path) -> None:
        self._outputs_dir, self._background_dir = outputs_dir, background_dir
        self._known: dict[str, tuple[TaskRow, Task]] = {}

    def task_of(self, row: sqlite3.Row) -> Task:
        """The task in a row."""
        typed = TaskRow(**dict(row))
        known = self._known.get(typed.id)
        if known is None or known[0] != typed:
            known = self._known[typed.id] = (
                typed,
                _task_of(typed, (self._outputs_dir if typed.kind == "train" else self._background_dir) / typed.id),
            )
        return known[1]

    def forget(self, task_id: str) -> None:
        """Drop what is kept of a task that is no more."""
        self._known.pop(task_id, None)


class TaskStore:
    """All tasks; safe to use from many threads.

    Args:
        database: the studio's database.
        outputs_dir: the folder that holds one folder per training.
        background_dir: the same for tasks of other kinds.
    """

    def __init__(self, database: Database, outputs_dir: Path, background_dir: Path | None = None) -> None:
        self._database = database
        self._outputs = outputs_dir
        self._records = Records(outputs_dir, background_dir or outputs_dir)

    def create(self, recipe: Recipe, job: TrainingJob, dataset_id: str, dataset_name: str) -> Task:
        """Keep a new task, last in the queue. Its folder is complete before anyone can see the task.

        Raises:
            StorageFull: nothing is left behind then.
        """
        number, folder = self._new_folder()
        with _removing_on_failure(folder), naming_full_disk(folder):
            write_atomically(folder / RECIPE, dump_recipe(recipe))
            write_atomically(folder / JOB, job.model_dump_json(indent=2))
            self._insert(number, folder.name, recipe, dataset_id, dataset_name)
        logger.info("Queued task: %s", folder.name)
        return self.get(folder.name)

    def get(self, task_id: str) -> Task:
        """One training. Raises `NotFound`."""
        rows = self._database.rows(f"SELECT * FROM tasks WHERE id = ? AND {TRAINING}", (task_id,))
        if not rows:
            raise NotFound(
                Text("There is no task {task_id!r}.", task_id=task_id),
                Text("It may have been deleted; take one from the list."),
            )
        return self._records.task_of(rows[0])

    def completed(self, task_id: str) -> Task:
        """A completed task whose model is in its folder. Raises `NotFound`, `Conflict`."""
        task = self.get(safe_name(task_id))
        if task.status is not TaskStatus.COMPLETED:
            raise Conflict(
                Text("{id} is {status}, not completed.", id=task.id, status=task.status),
                Text("Only a completed task has a model to use."),
            )
        if not (task.folder / "training_args.json").is_file():
            raise NotFound(
                Text("The model folder of {id} is gone: {folder}.", id=task.id, folder=task.folder),
                Text("Restore the folder, or train again."),
            )
        return task

    def queue(self) -> Tasks:
        """The queued tasks, the next to start first."""
        rows = self._database.rows(
            f"SELECT * FROM tasks WHERE {TRAINING} AND status = ? ORDER BY place", (TaskStatus.QUEUED.value,)
        )
        return [self._records.task_of(row) for row in rows]

    def queue_place(self, task_id: str) -> int | None:
        """1 for the next to start; None for a task that is not queued."""
        found = self._database.rows(PLACE, (task_id,))
        return found[0]["place"] or None

    def running(self) -> Tasks:
        """The tasks that a process works on, the oldest first."""
        marks = ", ".join("?" * len(RUNNING))
        values = tuple(status.value for status in RUNNING)
        rows = self._database.rows(
            f"SELECT * FROM tasks WHERE {TRAINING} AND status IN ({marks}) ORDER BY number", values
        )
        return [self._records.task_of(row) for row in rows]

    def training(self) -> Tasks:
        """The running tasks that use the machine's GPUs: all but those in preparation, the oldest first."""
        return [task for task in self.running() if not task.in_preparation]

    def transition(
        self, task_id: str, since: Collection[TaskStatus], to: TaskStatus, **changes: Unpack[Changes]
    ) -> Task:
        """Move a task to another status, if it is in one of ``since`` at that very moment.

        Args:
            since: the statuses that it may be in.
            to: the status that it gets. A task that was over and is queued again goes to the end of the queue.
            changes: fields of `Task` that change with it.

        Raises:
            NotFound: there is no such task.
            Conflict: it is in none of the statuses ``since``; nothing was changed.
        """
        columns = {"status": to.value, **columns_of(changes)}
        place = NEXT_PLACE if to is TaskStatus.QUEUED else "place"
        assignments = ", ".join(f"{column} = ?" for column in columns)
        query = f"""
            UPDATE tasks SET {assignments}, place = CASE WHEN finished_at IS NULL THEN place ELSE ({place}) END
            WHERE id = ? AND status IN ({", ".join("?" * len(since))}) RETURNING *
        """
        values = (*columns.values(), task_id, *(status.value for status in since))
        with self._database.transaction() as sql:
            row = sql.execute(query, values).fetchone()
        if row is None:
            raise _not_in(self._of_any_kind(task_id), to)
        return self._records.task_of(row)

    def delete(self, task: Task) -> None:
        """Delete a task and its folder; a folder that is gone already is no error.

        Raises:
            Conflict: a process works on it.
            InvalidName: its folder is not the one that this store would give it.
            NotFound: there is no such task.
        """
        folder = self._outputs / safe_name(task.id)
        if task.folder != folder:
            raise InvalidName(
                Text("{folder} does not belong to {id}.", folder=task.folder, id=task.id),
                Text("Only {folder} may be deleted.", folder=folder),
            )
        aside = self._outputs / f"{DELETED}{task.id}"
        _remove(aside)
        with _moved_back_on_failure(folder, aside), self._database.transaction() as sql:
            self._delete_row(sql, task.id)
            if os.path.lexists(folder):
                folder.rename(aside)
        _remove(aside)
        self._records.forget(task.id)
        logger.info("Deleted task: %s", task.id)

    def remove_leftovers(self) -> None:
        """Finish deletions that a crash cut short."""
        for path in self._outputs.glob(f"{DELETED}*"):
            _remove(path)

    def list(self) -> Tasks:
        """All trainings, newest first."""
        rows = self._database.rows(f"SELECT * FROM tasks WHERE {TRAINING} ORDER BY number DESC")
        return [self._records.task_of(row) for row in rows]

    # Tasks of other kinds; see `sage_studio.tasks.background`

    def background(self) -> Tasks:
        """All tasks that are no trainings, newest first."""
        rows = self._database.rows(f"SELECT * FROM tasks WHERE NOT {TRAINING} ORDER BY created_at DESC, number DESC")
        return [self._records.task_of(row) for row in rows]

    def unfinished_background(self) -> Tasks:
        """Those that wait or run, the next to start first."""
        statuses = tuple(status.value for status in TaskStatus if not status.is_over)
        marks = ", ".join("?" * len(statuses))
        rows = self._database.rows(
            f"SELECT * FROM tasks WHERE NOT {TRAINING} AND status IN ({marks}) ORDER BY place", statuses
        )
        return [self._records.task_of(row) for row in rows]

    def background_task(self, task_id: str) -> Task:
        """One of them. Raises `NotFound`."""
        rows = self._database.rows(f"SELECT * FROM tasks WHERE id = ? AND NOT {TRAINING}", (task_id,))
        if not rows:
            raise NotFound(Text("There is no job {task_id}.", task_id=task_id), Text("See the list."))
        return self._records.task_of(rows[0])

    def add_background(
        self, number: int, task_id: str, kind: str, dataset_id: str, order: dict[str, Any], created_at: float
    ) -> None:
        """Keep a new task of another kind, last in the queue."""
        row = {
            "number": number,
            "id": task_id,
            "kind": kind,
            "type": kind,
            "name": "",
            "status": TaskStatus.QUEUED.value,
            "model": str(order.get("model") or order.get("source") or ""),
            "dataset_id": dataset_id,
            "dataset_name": dataset_id,
            "created_at": created_at,
            "recipe": json.dumps(order, ensure_ascii=False),
        }
        with self._database.transaction() as sql:
            insert(sql, "tasks", {**row, "place": sql.execute(NEXT_PLACE).fetchone()["place"]})

    def remove_background(self, task_id: str) -> None:
        """Delete the row of a task of another kind."""
        with self._database.transaction() as sql:
            sql.execute(f"DELETE FROM tasks WHERE id = ? AND NOT {TRAINING}", (task_id,))
        self._records.forget(task_id)

    def next_number(self) -> int:
        """A number that no task ever had, even if the clock was set back."""
        with self._database.transaction() as sql:
            return int(sql.execute(NEXT_NUMBER, (int(time.time()),)).fetchone()["last"])

    def close(self) -> None:
        """Close this thread's connection to the database."""
        self._database.close()

    def _of_any_kind(self, task_id: str) -> Task:
        rows = self._database.rows("SELECT * FROM tasks WHERE id = ?", (task_id,))
        return self._records.task_of(rows[0]) if rows else self.get(task_id)

    def _new_folder(self) -> tuple[int, Path]:
        """An id never used before, even if the clock was set back, and its new, empty folder."""
        with naming_full_disk(self._outputs):
            self._outputs.mkdir(parents=True, exist_ok=True)
        while True:
            number = self.next_number()
            folder = self._outputs / f"finetune-{number}"
            try:
                with naming_full_disk(folder):
                    folder.mkdir()
            except FileExistsError:  # of a database that was lost: its model stays
                continue
            return number, folder

    def _insert(self, number: int, task_id: str, recipe: Recipe, dataset_id: str, dataset_name: str) -> None:
        row = {
            "number": number,
            "id": task_id,
            "kind": "train",
            "type": recipe.type,
            "name": recipe.name,
            "status": TaskStatus.QUEUED.value,
            "model": recipe.model_name_or_path,
            "dataset_id": dataset_id,
            "dataset_name": dataset_name,
            "created_at": time.time(),
            "recipe": json.dumps(recipe.model_dump(mode="json"), ensure_ascii=False),
        }
        with self._database.transaction() as sql:
            insert(sql, "tasks", {**row, "place": sql.execute(NEXT_PLACE).fetchone()["place"]})

    def _delete_row(self, sql: sqlite3.Connection, task_id: str) -> None:
        marks = ", ".join("?" * len(DELETABLE))
        values = (task_id, *(status.value for status in DELETABLE))
        if not sql.execute(f"DELETE FROM tasks WHERE id = ? AND status IN ({marks})", values).rowcount:
            task = self.get(task_id)
            raise Conflict(
                Text("{id} is {status}.", id=task.id, status=task.status),
                Text("Stop it first."),
            )


def _not_in(task: Task, to: TaskStatus) -> Conflict:
    return Conflict(
        Text("{id} is {status}; it cannot become {to}.", id=task.id, status=task.status, to=to),
        Text("Look at the task again; it has changed meanwhile."),
    )


@contextmanager
def _removing_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _moved_back_on_failure(folder: Path, aside: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if os.path.lexists(aside):
            aside.rename(folder)
        raise


def _remove(path: Path) -> None:
    """Remove a folder, or a link in its place without what it points to."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def columns_of(changes: Changes) -> dict[str, Any]:
    """Fields of a task as columns: a text fills two."""
    columns: dict[str, Any] = {}
    for name, value in changes.items():
        if isinstance(value, Text):
            columns |= {f"{name}_en": value.en, f"{name}_zh": value.zh}
        elif isinstance(value, dict):
            columns[name] = json.dumps(value, ensure_ascii=False)
        else:
            columns[name] = value.value if isinstance(value, Reason) else value
    return columns


def _task_of(row: TaskRow, folder: Path) -> Task:
    return Task(
        id=row.id,
        kind=row.kind,
        type=row.type,
        name=row.name,
        status=TaskStatus(row.status),
        model=row.model,
        dataset_id=row.dataset_id,
        dataset_name=row.dataset_name,
        created_at=row.created_at,
        folder=folder,
        recipe=json.loads(row.recipe),
        started_at=row.started_at,
        finished_at=row.finished_at,
        reason_class=Reason(row.reason_class) if row.reason_class else None,
        reason=verbatim(row.reason_en, row.reason_zh),
        hint=verbatim(row.hint_en, row.hint_zh),
        pid=row.pid,
        process_started=row.process_started,
        stop_requested_at=row.stop_requested_at,
    )
