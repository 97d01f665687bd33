"""The studio's one SQLite file: WAL, short transactions, safe from many threads and several processes.

Knows how to connect, to change things atomically and to name a full disk. Knows no table: each store brings its own.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sage_studio.errors import naming_full_disk, storage_full

BUSY_SECONDS = 10.0


class Database:
    """A SQLite file, opened once per thread.

    Example:
        >>> db = Database(Path("/tmp/example.db"))
        >>> db.create("CREATE TABLE IF NOT EXISTS seen (name TEXT PRIMARY KEY)")
        >>> with db.transaction() as sql:
        ...     _ = sql.execute("INSERT OR IGNORE INTO seen VALUES (?)", ("x",))
        >>> [row["name"] for row in db.rows("SELECT name FROM seen")]
        ['x']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        with naming_full_disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)

    def create(self, schema: str) -> None:
        """Run one or several ``CREATE … IF NOT EXISTS`` statements."""
        with self._naming_full_disk():
            self._connection().executescript(schema)

    def rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
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
