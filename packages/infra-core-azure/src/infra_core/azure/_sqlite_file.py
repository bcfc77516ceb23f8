"""A SQLite file that many threads and processes share: the connection of this process to it."""

import os
import sqlite3
import threading
import weakref
from contextlib import closing, suppress
from pathlib import Path

from infra_core.runtime import after_fork_in_child, clock

from ._process import alive_of, file_id

__all__ = ["BUSY_SECONDS", "SqliteFile", "connect", "enter_wal"]

BUSY_SECONDS = 30.0
# Seconds that a fork waits for a thread that is at work on a file. One that takes longer waits for
# the lock of another process, and holds none of SQLite's own then.
_FORK_SECONDS = 1
_inherited: list[sqlite3.Connection] = []


class SqliteFile:
    """One connection per process, used by one thread at a time, which holds `_lock`.

    A subclass says how the file is opened (`_open`), and what becomes of a connection whose file
    was removed or replaced (`_replaced`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._begin()
        after_fork_in_child(self._begin)
        _files.add(self)

    def _begin(self) -> None:
        # A SQLite connection must not be used across a fork, nor closed in the child: closing it
        # would drop the locks of the parent. It is kept, untouched, until the process ends.
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = None
        self._lock = threading.RLock()

    def _open(self) -> sqlite3.Connection:
        raise NotImplementedError

    def _replaced(self, before: sqlite3.Connection) -> sqlite3.Connection:
        raise NotImplementedError

    def _connected(self) -> sqlite3.Connection:
        """The connection to what is at the path now."""
        before = self._connection
        if before is None:
            self._connection = self._open()
        elif file_id(self.path) != self._identity:
            self._connection = self._replaced(before)
        else:
            return before
        self._identity = file_id(self.path)
        return self._connection

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __del__(self) -> None:
        if (connection := self.__dict__.get("_connection")) is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def hold(self) -> bool:
        """Keep other threads away for a fork; return whether they are, soon."""
        return self._lock.acquire(timeout=_FORK_SECONDS)

    def release(self) -> None:
        """End a `hold`."""
        self._lock.release()


# SQLite has locks of its own for all of a process: one that another thread holds while this one
# forks is never released in the child.
_files: "weakref.WeakSet[SqliteFile]" = weakref.WeakSet()
_held = threading.local()


def _before_fork() -> None:
    _held.files = [file for file in alive_of(_files) if file.hold()]


def _after_fork() -> None:
    for file in _held.files:
        file.release()


if hasattr(os, "register_at_fork"):  # the child begins with locks of its own
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork)


def connect(database: str | Path, *, uri: bool = False) -> sqlite3.Connection:
    """Connect; writers wait for each other, and transactions are begun by statements."""
    return sqlite3.connect(
        database, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
    )


def enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait for other processes that are doing the same."""
    deadline = clock.monotonic() + BUSY_SECONDS
    while True:
        try:
            with closing(connection.execute("PRAGMA journal_mode = WAL")) as cursor:
                cursor.fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or clock.monotonic() >= deadline:
                raise
            clock.sleep(0.01)
        else:
            return
