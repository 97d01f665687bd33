"""The studio's SQLite file: WAL, short transactions, many threads and processes."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sage_studio.errors import naming_full_disk, storage_full
from sage_studio.migrations import MIGRATIONS, Migration, migrate

BUSY_SECONDS = 10.0


class Database:
    """A SQLite file, opened once per thread, its schema brought up to date when it is opened.

    Raises:
        NewerHome: a newer studio made it.
        StorageFull: there is no room to create or migrate it.

    Example:
        >>> db = Database(Path("/tmp/example.db"))
        >>> with db.transaction() as sql:
        ...     _ = sql.execute("INSERT OR REPLACE INTO serving VALUES (:key, :value)", {"key": "x", "value": "1"})
        >>> [row["value"] for row in db.rows("SELECT value FROM serving WHERE key = :key", {"key": "x"})]
        ['1']
    """

    def __init__(self, path: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
        self.path = path
        self._local = threading.local()
        with naming_full_disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            _keep_from_others(path)
        with self._naming_full_disk():
            migrate(self._connection(), path, migrations)

    def rows(self, query: str, parameters: tuple[Any, ...] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a ``SELECT``."""
        return self._connection().execute(query, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it or nothing. Raises `StorageFull` when the disk is."""
        connection = self._connection()
        with self._naming_full_disk():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite has rolled back by itself when the disk was full
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close this thread's connection; others close with their threads."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._local.connection = connection
        return connection

    @contextmanager
    def _naming_full_disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise storage_full(self.path) from error
            raise


def _keep_from_others(path: Path) -> None:
    """Mode 0600 before SQLite opens it, for it holds the engine's key: ``-wal`` and ``-shm`` get the mode it has then.

    One that is there is not opened: closing it would end the locks that SQLite holds on it in this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with suppress(FileNotFoundError):
            found = file.stat()
            if found.st_mode & 0o077 and found.st_uid == os.geteuid():
                file.chmod(0o600)


def insert(sql: sqlite3.Connection, table: str, row: Mapping[str, Any], replace: bool = False) -> int:
    """Insert a row by column name, within a `Database.transaction`.

    Args:
        replace: take the place of a row with the same key.

    Returns:
        Its rowid.
    """
    columns, marks = ", ".join(row), ", ".join(f":{column}" for column in row)
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    return int(sql.execute(f"{verb} INTO {table} ({columns}) VALUES ({marks})", dict(row)).lastrowid or 0)
