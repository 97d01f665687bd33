"""The database: migrations from 0.1, the copy before them, a newer home."""

import sqlite3
from contextlib import closing

import pytest

from sage_studio import __version__
from sage_studio.database import Database, insert
from sage_studio.errors import NewerHome
from sage_studio.migrations import MIGRATIONS, TABLES_OF_0_1
from sage_studio.tasks.store import TaskRow, TaskStore
from sage_studio.tasks.task import TaskStatus

OLD_TASK = (
    "INSERT INTO tasks (number, id, type, name, status, model, dataset_id, dataset_name, created_at, recipe, place)"
    " VALUES (7, 'finetune-7', 'sft', 'Old', 'completed', 'm', 'd-1', 'D', 1.5, '{}', 1)"
)


@pytest.fixture
def old_home(tmp_path):
    """A database as 0.1 left it, with a task."""
    path = tmp_path / "studio.db"
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA journal_mode=WAL")
        sql.executescript(TABLES_OF_0_1)
        sql.execute(OLD_TASK)
        sql.commit()
    return path


def version(path):
    with closing(sqlite3.connect(path)) as sql:
        return sql.execute("PRAGMA user_version").fetchone()[0]


def columns(path, table):
    with closing(sqlite3.connect(path)) as sql:
        return [row[1] for row in sql.execute(f"PRAGMA table_info({table})")]


def test_a_new_home_has_the_newest_schema_and_no_copy(tmp_path):
    Database(tmp_path / "studio.db")
    assert version(tmp_path / "studio.db") == len(MIGRATIONS)
    assert not list(tmp_path.glob("*.bak*"))


def test_a_home_of_0_1_opens_with_its_tasks_and_a_copy_is_kept(old_home, tmp_path):
    task = TaskStore(Database(old_home), tmp_path / "outputs").get("finetune-7")
    assert (task.name, task.status, task.kind, task.created_at) == ("Old", TaskStatus.COMPLETED, "train", 1.5)
    assert version(old_home) == len(MIGRATIONS)
    copy = tmp_path / "studio.db.v0.bak"
    assert version(copy) == 0
    assert "kind" not in columns(copy, "tasks")
    assert copy.stat().st_mode & 0o077 == 0, "it holds the engine's key"
    with closing(sqlite3.connect(copy)) as sql:
        assert sql.execute("SELECT id FROM tasks").fetchall() == [("finetune-7",)]


def test_a_home_between_0_1_and_0_2_whose_engines_have_the_new_columns_opens(old_home):
    with closing(sqlite3.connect(old_home)) as sql:
        sql.execute("ALTER TABLE engines ADD COLUMN cards TEXT NOT NULL DEFAULT ''")
    Database(old_home)
    assert {"cards", "memory_share", "form"} <= set(columns(old_home, "engines"))


def test_it_is_migrated_once(old_home, tmp_path):
    Database(old_home)
    (tmp_path / "studio.db.v0.bak").unlink()
    Database(old_home)
    assert not list(tmp_path.glob("*.bak*"))


def test_a_migration_that_fails_changes_nothing(old_home):
    def breaks(sql):
        sql.execute("ALTER TABLE tasks ADD COLUMN half TEXT")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Database(old_home, (*MIGRATIONS, breaks))
    assert version(old_home) == 0
    assert not {"half", "kind"} & set(columns(old_home, "tasks"))


def test_a_home_of_a_newer_studio_is_refused_in_words(old_home, tmp_path):
    with closing(sqlite3.connect(old_home)) as sql:
        sql.execute("PRAGMA user_version = 99")
    before = old_home.read_bytes()
    with pytest.raises(NewerHome) as caught:
        Database(old_home)
    for language in ("en", "zh"):
        said = caught.value.say(language)
        assert all(each in said for each in ("99", str(len(MIGRATIONS)), __version__, "SAGE_STUDIO_HOME"))
    assert old_home.read_bytes() == before
    assert not list(tmp_path.glob("*.bak*"))


def test_a_task_row_has_the_columns_of_its_table(tmp_path):
    Database(tmp_path / "studio.db")
    assert set(TaskRow._fields) == set(columns(tmp_path / "studio.db", "tasks"))


def test_a_row_is_inserted_by_name_and_replaced_by_key(tmp_path):
    database = Database(tmp_path / "studio.db")
    for value in ("a", "b"):
        with database.transaction() as sql:
            insert(sql, "serving", {"value": value, "key": "k"}, replace=True)
    assert [dict(row) for row in database.rows("SELECT * FROM serving")] == [{"key": "k", "value": "b"}]
