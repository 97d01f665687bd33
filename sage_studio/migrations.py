"""Schema of ``studio.db`` as numbered migrations: number N brings ``PRAGMA user_version`` from N - 1 to N.

A change of the schema is a new function at the end of `MIGRATIONS`; one that was released is never edited.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sage_studio import __version__
from sage_studio.errors import NewerHome
from sage_studio.text import Text

TABLES_OF_0_1 = """
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
    model TEXT NOT NULL, dataset_id TEXT NOT NULL, dataset_name TEXT NOT NULL, created_at REAL NOT NULL,
    recipe TEXT NOT NULL, place INTEGER NOT NULL, started_at REAL, finished_at REAL, reason_class TEXT,
    reason_en TEXT NOT NULL DEFAULT '', reason_zh TEXT NOT NULL DEFAULT '',
    hint_en TEXT NOT NULL DEFAULT '', hint_zh TEXT NOT NULL DEFAULT '',
    pid INTEGER, process_started REAL, stop_requested_at REAL);
CREATE INDEX IF NOT EXISTS tasks_by_status ON tasks (status, place);
CREATE TABLE IF NOT EXISTS task_numbers (only INTEGER PRIMARY KEY CHECK (only = 1), last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS datasets (
    id TEXT PRIMARY KEY, slug TEXT NOT NULL, version INTEGER NOT NULL, sha256 TEXT NOT NULL,
    created_at REAL NOT NULL, manifest TEXT NOT NULL, UNIQUE (slug, version));
CREATE TABLE IF NOT EXISTS dataset_versions (slug TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS column_mappings (
    columns_key TEXT PRIMARY KEY, mapping TEXT NOT NULL, used_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL, base TEXT NOT NULL,
    created_at REAL NOT NULL, config TEXT NOT NULL, size_bytes INTEGER NOT NULL, last_used_at REAL);
CREATE TABLE IF NOT EXISTS engines (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, base TEXT NOT NULL, base_name TEXT NOT NULL,
    trust_remote_code INTEGER NOT NULL, rank INTEGER NOT NULL, url TEXT NOT NULL, key TEXT NOT NULL,
    pid INTEGER, create_time REAL, owner_pid INTEGER, phase TEXT NOT NULL,
    started_at REAL NOT NULL, ready_at REAL, restarts INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS engine_adapters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, engine INTEGER NOT NULL, model TEXT NOT NULL, path TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS engine_starts (
    kind TEXT NOT NULL, base TEXT NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (kind, base));
CREATE TABLE IF NOT EXISTS serving (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS retriever (
    id INTEGER PRIMARY KEY CHECK (id = 1), model TEXT NOT NULL, location TEXT NOT NULL,
    trust_remote_code INTEGER NOT NULL, task_id TEXT NOT NULL, dataset_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL, models TEXT NOT NULL, winner TEXT NOT NULL,
    created_at REAL NOT NULL);
"""

Migration = Callable[[sqlite3.Connection], None]


def tables_of_0_1(sql: sqlite3.Connection) -> None:
    """The tables of 0.1, whose homes have ``user_version`` 0."""
    for statement in TABLES_OF_0_1.split(";"):
        sql.execute(statement)


def engine_resources(sql: sqlite3.Connection) -> None:
    """Which GPUs an engine holds and why vLLM refused to start; homes made before 0.2 may have these already."""
    columns = {str(row[1]) for row in sql.execute("PRAGMA table_info(engines)")}
    for name, declaration in (
        ("cards", "TEXT NOT NULL DEFAULT ''"),
        ("memory_share", "REAL NOT NULL DEFAULT 0"),
        ("form", "TEXT NOT NULL DEFAULT ''"),
    ):
        if name not in columns:
            sql.execute(f"ALTER TABLE engines ADD COLUMN {name} {declaration}")
    sql.execute(
        "CREATE TABLE IF NOT EXISTS engine_refusals ("
        "base TEXT PRIMARY KEY, python TEXT NOT NULL, en TEXT NOT NULL, zh TEXT NOT NULL)"
    )


def task_kind(sql: sqlite3.Connection) -> None:
    """Tasks of other kinds than training."""
    sql.execute("ALTER TABLE tasks ADD COLUMN kind TEXT NOT NULL DEFAULT 'train'")


MIGRATIONS: tuple[Migration, ...] = (tables_of_0_1, engine_resources, task_kind)


def migrate(connection: sqlite3.Connection, path: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring a database to the newest schema: all migrations or none; a copy of it as it was is kept beside it.

    Args:
        connection: in autocommit mode.
        path: the database's file; the copy is named ``studio.db.v0.bak`` after the version that it has.

    Raises:
        NewerHome: a newer studio made it; nothing is changed.
        sqlite3.Error: nothing is changed.
    """
    found = _version(connection)
    if found > len(migrations):
        raise _newer(path, found, len(migrations))
    if found == len(migrations):
        return
    if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        _back_up(connection, path.with_name(f"{path.name}.v{found}.bak"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[_version(connection) :]:  # read again: another process may have been quicker
            migration(connection)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself when the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _back_up(connection: sqlite3.Connection, copy: Path) -> None:
    unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(unfinished)) as target:
            unfinished.chmod(0o600)  # it holds the engine's key
            connection.backup(target)
        unfinished.replace(copy)
    finally:
        unfinished.unlink(missing_ok=True)


def _newer(path: Path, found: int, known: int) -> NewerHome:
    return NewerHome(
        Text(
            "{path} was made by a newer studio: its schema has version {found}, SAGE Studio {version} "
            "knows versions up to {known}.",
            path=path,
            found=found,
            version=__version__,
            known=known,
        ),
        Text(
            "Update SAGE Studio, set SAGE_STUDIO_HOME to another folder, or restore the copy that was "
            "made before the update: {name}.v{known}.bak.",
            name=path.name,
            known=known,
        ),
    )
