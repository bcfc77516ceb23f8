"""The embedded job store: one SQLite file, safe for many threads and processes."""

import json
import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from .._sqlite_file import BUSY_SECONDS, SqliteFile, connect, enter_wal
from ..exceptions import AzureTableError
from ._records import JobRecord, RecordT
from ._row_store import RowJobStore
from ._rows import Query, Row, Tally, keys_of_token
from ._sqlite_rows import ONE_STATUS, SCHEMA, conditions_of, moment_at, row_of, values_of

__all__ = ["SqliteJobStore"]

_log = logging.getLogger("infra_core.azure.job_store")

_BATCH_ROWS = 1_000  # bounds how long one batch keeps other writers waiting
_COLUMNS = "batch, job, etag, properties"
_KEY_COLUMNS = "batch, job, etag, ''"
# Each is answered from one index alone, so that a claim takes as long among a million completed
# jobs as among none; an OR of the conditions, or the primary key, would read the whole batch.
_TO_START = (
    "SELECT NULL, job FROM jobs INDEXED BY jobs_to_start "
    "WHERE batch = :batch AND status = 'pending' AND lease IS NULL "
    "AND job > :job ORDER BY job LIMIT :count"
)
_DUE = (
    "SELECT lease, job FROM jobs INDEXED BY {} WHERE batch = :batch AND status = '{}' "
    "AND (lease, job) > (:lease, :job) AND lease < :now ORDER BY lease, job LIMIT :count"
)
_TO_CLAIM = (
    _DUE.format("jobs_leased", "running"), _DUE.format("jobs_to_start", "pending"), _TO_START
)  # fmt: skip
_CLAIM_KEYS = 16  # so many that processes which claim at once rarely meet at one job
_DELETE = "DELETE FROM jobs WHERE batch = ? AND job = ? AND etag = coalesce(?, etag)"
_COPY_SMALLER = "PRAGMA auto_vacuum = INCREMENTAL; VACUUM"
_RECLAIM_SECONDS = 2  # the space is there for new rows anyway
_LONG_AGO = -1e18
# By name: a later version may have added columns.
_VALUES = (
    "INTO jobs (batch, job, etag, status, updated, lease, properties) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_REPLACE = (
    "UPDATE jobs SET etag = ?, status = ?, updated = ?, lease = ?, properties = ? "
    "WHERE batch = ? AND job = ? AND etag = ?"
)


class SqliteJobStore(RowJobStore[RecordT]):
    """Keeps jobs in a SQLite file: no account, no server, the interface of the Table store.

    The file is in WAL mode: readers and one writer at a time, in any number of threads and
    processes of one machine; writers wait for each other up to 30 s. A write that has returned
    survives the death of the process; not on a network file system, where WAL does not work.
    The limits of a table entity are checked here as well, so that what works embedded works in
    Azure.

    Args:
        path: The file; it and its folder are made on first use. `:memory:` is refused, because
            every connection would see another database.
        record_type: A dataclass with `batch_id` and `job_id`, or a class with `to_entity()` and
            `from_entity()`. `JobRecord` by default.

    Raises:
        JobRecordError: The record type cannot be stored.
        AzureTableError: From operations: the file is not a database, is damaged, or not opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, SqliteJobStore(
        ...     Path(folder) / "jobs.sqlite3"
        ... ) as store:
        ...     _ = store.create(JobRecord("batch-1", "job-1"))
        ...     store.claim("batch-1", worker="me", lease_seconds=60).status.value
        'running'
    """

    def __init__(
        self,
        path: Path | str,
        record_type: type[RecordT] = JobRecord,  # type: ignore[assignment]
    ) -> None:
        if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
            raise AzureTableError(
                f"path={path!r} is not a path: pass that of the file to keep jobs in"
            )
        if str(path) in ("", ":memory:"):
            raise AzureTableError(
                f"path is {str(path)!r}: jobs are kept in a file that all threads and processes "
                "share; give the path of one"
            )
        self._path = Path(path)
        self._keep(record_type, _plan)
        self._rows = _JobFile(self._path.absolute())  # a daemon changes its folder

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    def _backend(self) -> "_JobFile":
        return self._rows

    def close(self) -> None:
        """Close the file. The store may be used again; it opens the file anew."""
        self._rows.close()


def _plan(rows: Any) -> list[list[tuple[int, Row]]]:
    everything = list(enumerate(rows))
    return [everything[i : i + _BATCH_ROWS] for i in range(0, len(everything), _BATCH_ROWS)]


class _JobFile(SqliteFile):
    """The backend: the file, and what is done in it."""

    def perform(self, name: str, *args: Any) -> Any:
        return getattr(self, name)(*args)

    def explain(self, error: Exception, doing: str) -> Exception:
        if not isinstance(error, (sqlite3.Error, OSError)):
            return error
        explained = AzureTableError(
            f"{doing} in the job store {str(self.path)!r} failed: {_problem(error, self.path)}"
        )
        explained.__cause__ = error
        return explained

    def insert(self, row: Row) -> str | None:
        values = values_of(row)
        try:
            self._change(f"INSERT {_VALUES}", [values])
        except sqlite3.IntegrityError:
            return None
        return str(values[2])

    def upsert(self, rows: Sequence[Row]) -> list[str]:
        values = [values_of(row) for row in rows]
        self._change(f"INSERT OR REPLACE {_VALUES}", values)
        return [str(value[2]) for value in values]

    def replace(self, rows: Sequence[Row]) -> list[str | None]:
        changes = []
        for row in rows:
            batch, job, *changed = values_of(row)
            changes.append((*changed, batch, job, row.etag))
        counts = self._change(_REPLACE, changes)
        return [each[0] if count else None for each, count in zip(changes, counts, strict=True)]

    def delete(self, rows: Sequence[Row]) -> int:
        return sum(self._change(_DELETE, [(row.partition, row.key, row.etag) for row in rows]))

    def reclaim(self) -> None:
        with self._lock:
            connection = self._connected()
            try:
                connection.execute(f"PRAGMA busy_timeout = {_RECLAIM_SECONDS * 1000}")
                (kind,) = connection.execute("PRAGMA auto_vacuum").fetchone()
                # A file of version 1.0 can only be copied, and has the new kind from then on.
                vacuum = "PRAGMA incremental_vacuum" if kind else _COPY_SMALLER
                connection.executescript(f"{vacuum}; PRAGMA wal_checkpoint(TRUNCATE);")
            except sqlite3.OperationalError as error:
                _log.info("the space of deleted jobs is used for new ones: %s", error)
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")

    def get(self, partition: str, key: str) -> Row | None:
        found = self._execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE batch = ? AND job = ?",  # noqa: S608
            (partition, key),
        )
        return row_of(found[0]) if found else None

    def page(self, query: Query, limit: int, token: str | None) -> tuple[list[Row], str | None]:
        if query.claimable_at is not None and query.partition is not None:
            return self._claimable(query.partition, query.claimable_at, limit, token)
        where, arguments = conditions_of(query)
        if token is not None:
            where.append("(batch, job) > (?, ?)")
            arguments += keys_of_token(token)
        condition = " AND ".join(where) or "1"
        columns = _KEY_COLUMNS if query.keys_only else _COLUMNS
        # Fixed texts and question marks: no value stands in the statement itself.
        select = f"SELECT {columns} FROM jobs WHERE {condition} ORDER BY batch, job LIMIT ?"  # noqa: S608
        found = self._execute(select, (*arguments, limit + 1))
        rows = [row_of(item) for item in found[:limit]]
        more = len(found) > limit
        return rows, json.dumps([rows[-1].partition, rows[-1].key]) if more else None

    def _claimable(
        self, batch: str, now: datetime, limit: int, token: Any
    ) -> tuple[list[Row], Any]:
        """Return the keys alone of jobs to claim: leases that ended, then delayed, then new jobs.

        The token says after which of which kind to go on.
        """
        limit, found = min(limit, _CLAIM_KEYS), list[Row]()
        place, lease, job = token or (0, _LONG_AGO, "")
        while place < len(_TO_CLAIM):
            wanted = limit - len(found)
            bounds = {"batch": batch, "lease": lease, "job": job, "now": now.timestamp()}
            rows = self._execute(_TO_CLAIM[place], {**bounds, "count": wanted})
            found += [Row(batch, key, {}, partial=True) for _, key in rows]
            if len(rows) == wanted:
                return found, (place, *rows[-1])
            place, lease, job = place + 1, _LONG_AGO, ""
        return found, None

    def tally(self, partition: str | None) -> list[Tally]:
        # Times stand in the rows alone: the counts of one batch are answered from an index.
        times, where = ("min(updated), max(updated)", "? IS NULL") if partition is None else (
            "NULL, NULL", "batch = ?"
        )  # fmt: skip
        select = f"SELECT batch, status, count(*), {times} FROM jobs WHERE {where} GROUP BY 1, 2"  # noqa: S608
        found = self._execute(select, (partition,))
        return [Tally(*row[:3], *map(moment_at, row[3:])) for row in found]

    def _execute(self, statement: str, arguments: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """Return what a statement selects."""
        with self._lock:
            return self._connected().execute(statement, arguments).fetchall()

    def _change(self, statement: str, values: Sequence[Sequence[Any]]) -> list[int]:
        """Carry out a statement with each of these, all or none; return how many rows each changed.

        SQLite does a single one whole or not at all, also where Ctrl-C comes in between.
        """
        with self._lock:
            connection = self._connected()
            # A signal handler may be here in the midst of another change.
            if len(values) == 1 or connection.in_transaction:
                return _changed(connection, statement, values)
            # The connection commits or rolls back, in C: no Ctrl-C leaves a transaction open.
            with connection:
                # IMMEDIATE takes the write lock at once, where waiting for it is allowed; a lock
                # that is upgraded later fails instead of waiting.
                connection.execute("BEGIN IMMEDIATE")
                return _changed(connection, statement, values)

    def _replaced(self, before: sqlite3.Connection) -> sqlite3.Connection:
        raise _FileGoneError(
            "the file was removed or replaced while it was open; put it back or restore a copy, "
            "then close this store to open the file anew"
        )

    def _open(self) -> sqlite3.Connection:
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # In this order: another process may make the file in between.
        there = os.path.exists(path)  # noqa: PTH110 - never raises
        if there and not all(os.access(each, os.W_OK) for each in (path, path.parent)):
            # To be read, such as in a mounted copy. Without a log beside it, no process writes to
            # it. https://www.sqlite.org/wal.html#read_only_databases
            how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
            return connect(f"{path.absolute().as_uri()}?{how}", uri=True)
        connection = connect(path)
        try:
            # Only a file without any table takes it.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            enter_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(SCHEMA)
            with suppress(sqlite3.OperationalError):  # built without JSON
                connection.execute("SELECT json_valid('{}')")
                connection.executescript(ONE_STATUS)
        except BaseException:
            connection.close()
            raise
        return connection


class _FileGoneError(sqlite3.Error):
    """The open file is no longer at its path: what is written to it is lost with it."""


def _changed(
    connection: sqlite3.Connection, statement: str, values: Sequence[Sequence[Any]]
) -> list[int]:
    # Not inside of the block that holds the lock: on Python 3.13 what a tracer raises where a
    # comprehension ends leaves such a block without its end.
    return [connection.execute(statement, each).rowcount for each in values]


# What SQLite says (codes come with Python 3.11 only), and what to do about it.
_REMEDIES = (
    ("not a database", "it is a file of another kind; choose another path"),
    ("malformed", "it is damaged: restore a copy, or try the .recover command of sqlite3"),
    ("no such", "it is the database of another program; choose another path"),
    ("has no column", "it is the database of another program; choose another path"),
    ("columns", "it is the database of another program; choose another path"),
    ("readonly", "give this user write permission on the file and its folder"),
    ("unable to open", "let this user write to the file and its folder, or raise ulimit -n"),
    ("locked", f"another process has held its lock for {BUSY_SECONDS:.0f} s: find and end it"),
    ("full", "free some space"),
    ("disk i/o", "check the disk; a network file system will not do"),
)  # fmt: skip


def _problem(error: Exception, path: Path) -> str:
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        return "it is a folder; name a file in it"
    if isinstance(error, OSError):
        said = error.strerror or type(error).__name__
        return f"its folder {str(path.parent)!r} cannot be made ({said}); choose another path"
    text = str(error)
    if isinstance(error, _FileGoneError):
        return text
    remedy = next((what for sign, what in _REMEDIES if sign in text.lower()), "check the file")
    return f"{text}; {remedy}"
