"""The tables of tasks, and a row of them as a `Task`.

Knows columns. Knows nothing of transactions, of folders' content or of what a status means.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any, TypedDict

from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Text
from sage_studio.training.progress import Reason

SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    model TEXT NOT NULL,
    dataset_id TEXT NOT NULL,
    dataset_name TEXT NOT NULL,
    created_at REAL NOT NULL,
    recipe TEXT NOT NULL,
    place INTEGER NOT NULL,
    started_at REAL,
    finished_at REAL,
    reason_class TEXT,
    reason_en TEXT NOT NULL DEFAULT '',
    reason_zh TEXT NOT NULL DEFAULT '',
    hint_en TEXT NOT NULL DEFAULT '',
    hint_zh TEXT NOT NULL DEFAULT '',
    pid INTEGER,
    process_started REAL,
    stop_requested_at REAL
);
CREATE INDEX IF NOT EXISTS tasks_by_status ON tasks (status, place);
CREATE TABLE IF NOT EXISTS task_numbers (only INTEGER PRIMARY KEY CHECK (only = 1), last INTEGER NOT NULL);
"""
NEXT_NUMBER = """
INSERT INTO task_numbers VALUES (1, ?) ON CONFLICT DO UPDATE SET last = max(last + 1, excluded.last) RETURNING last
"""
INSERT = """
INSERT INTO tasks (number, id, type, name, status, model, dataset_id, dataset_name, created_at, recipe, place)
SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, coalesce(max(place), 0) + 1 FROM tasks
"""
LAST_PLACE = "SELECT max(place) + 1 FROM tasks"
PLACE = """
SELECT count(*) AS place FROM tasks AS one JOIN tasks AS other
WHERE one.id = ? AND one.status = 'queued' AND other.status = 'queued' AND other.place <= one.place
"""


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
        outputs_dir: where their folders lie; that is not stored, so the studio's home may be moved.
    """

    def __init__(self, outputs_dir: Path) -> None:
        self._outputs_dir = outputs_dir
        self._known: dict[str, tuple[tuple[Any, ...], Task]] = {}

    def task_of(self, row: sqlite3.Row) -> Task:
        """The task in a row."""
        values, task_id = tuple(row), row["id"]
        known = self._known.get(task_id)
        if known is None or known[0] != values:
            known = self._known[task_id] = values, _task_of(row, self._outputs_dir)
        return known[1]

    def forget(self, task_id: str) -> None:
        """Drop what is kept of a task that is no more."""
        self._known.pop(task_id, None)


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


def _task_of(row: sqlite3.Row, outputs_dir: Path) -> Task:
    return Task(
        id=row["id"],
        type=row["type"],
        name=row["name"],
        status=TaskStatus(row["status"]),
        model=row["model"],
        dataset_id=row["dataset_id"],
        dataset_name=row["dataset_name"],
        created_at=row["created_at"],
        folder=outputs_dir / row["id"],
        recipe=json.loads(row["recipe"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        reason_class=Reason(row["reason_class"]) if row["reason_class"] else None,
        reason=Text(row["reason_en"], row["reason_zh"]),
        hint=Text(row["hint_en"], row["hint_zh"]),
        pid=row["pid"],
        process_started=row["process_started"],
        stop_requested_at=row["stop_requested_at"],
    )
