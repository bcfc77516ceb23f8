"""Which jobs a run has seen and what the store knew of them: on disk, so that memory stays flat."""

import pickle
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord

__all__ = ["JobIndex"]

_SCHEMA = """
CREATE TABLE jobs (job BLOB PRIMARY KEY, seen INTEGER, row BLOB) WITHOUT ROWID;
CREATE TABLE paths (path TEXT PRIMARY KEY, job BLOB) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY, entry TEXT) WITHOUT ROWID;
"""
_CACHE_KIB = 8192


class JobIndex:
    """A private SQLite database without a name: it vanishes with the process.

    One thread at a time uses it; every method may be called from any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # An empty name is a file that SQLite removes by itself, held in memory while it is small.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        # Nothing of it outlives the process: no journal, no flush.
        self._db.executescript(
            f"PRAGMA cache_size = -{_CACHE_KIB}; PRAGMA journal_mode = OFF; "
            f"PRAGMA synchronous = OFF; {_SCHEMA}"
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._db.execute("BEGIN")
                yield
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise sqlite3.OperationalError(
                    f"{error}: what a run has seen stands in the folder for temporary files, give "
                    "it more room or name another one (TMPDIR)"
                ) from error

    def load(
        self,
        records: Iterable["JobRecord"],
        entries: Callable[["JobRecord"], Iterable[tuple[str, str | None]]],
    ) -> int:
        """Remember the jobs that the store has, and their files; returns how many."""
        values_of = attrgetter(*_record_fields())
        count = 0
        with self._transaction():
            for record in records:
                row = pickle.dumps(values_of(record))  # without names, a million times
                self._db.execute(
                    "INSERT OR REPLACE INTO jobs VALUES (?, 0, ?)", (_key(record.job_id), row)
                )
                if path := record.payload.get("path"):
                    self._claim(str(path), _key(record.job_id))
                self._put(entries(record))
                count += 1
        return count

    def set_aside(self, job_ids: Iterable[str]) -> None:
        """Take jobs for seen, so that this run leaves them as they are."""
        with self._lock:
            self._db.executemany(
                "INSERT OR REPLACE INTO jobs VALUES (?, 1, NULL)", ((_key(i),) for i in job_ids)
            )

    def see(self, job_ids: Sequence[str]) -> "list[JobRecord | bool]":
        """Mark jobs as seen; returns the record of each, True if new, False if seen before."""
        from infra_core.azure.job_store import JobRecord

        found: list[JobRecord | bool] = []
        with self._transaction():
            for job_id in job_ids:
                key = _key(job_id)
                cursor = self._db.execute("INSERT OR IGNORE INTO jobs VALUES (?, 1, NULL)", (key,))
                if cursor.rowcount == 1:
                    found.append(True)
                    continue
                seen, row = self._db.execute(
                    "SELECT seen, row FROM jobs WHERE job = ?", (key,)
                ).fetchone()
                if seen:
                    found.append(False)
                    continue
                self._db.execute("UPDATE jobs SET seen = 1 WHERE job = ?", (key,))
                values = pickle.loads(row)  # noqa: S301 - of this process
                found.append(JobRecord(**dict(zip(_record_fields(), values, strict=True))))
        return found

    def claim_path(self, path: str, job_id: str) -> bool:
        """Take a path for a job; False where another job or a folder has it.

        Paths that differ in the case of their letters alone, or in how an accent is composed, are
        one path: some file systems keep them as one file.
        """
        with self._lock:
            return self._claim(path, _key(job_id))

    def _claim(self, path: str, key: bytes) -> bool:
        folded = unicodedata.normalize("NFC", path.casefold())
        owner = self._db.execute("SELECT job FROM paths WHERE path = ?", (folded,)).fetchone()
        if owner is not None:
            return bool(owner[0] == key)
        parts = folded.split("/")
        parents = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        for parent in parents:
            held = self._db.execute("SELECT job FROM paths WHERE path = ?", (parent,)).fetchone()
            if held is not None and held[0] != b"/":
                return False  # a file stands where a folder is needed
        folders = ((parent, b"/") for parent in parents)
        self._db.executemany("INSERT OR IGNORE INTO paths VALUES (?, ?)", folders)
        self._db.execute("INSERT INTO paths VALUES (?, ?)", (folded, key))
        return True

    def put_files(self, entries: Iterable[tuple[str, str | None]]) -> None:
        """Keep entries of the manifest by path; None forgets one, whose file is not what it was."""
        with self._transaction():
            self._put(entries)

    def _put(self, entries: Iterable[tuple[str, str | None]]) -> None:
        for path, entry in entries:
            if entry is None:
                self._db.execute("DELETE FROM files WHERE path = ?", (path,))
            else:
                self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (path, entry))

    def files(self) -> Iterator[str]:
        """The entries of the manifest, sorted by path."""
        select = "SELECT path, entry FROM files WHERE path > ? ORDER BY path LIMIT 1000"
        last = ""
        while True:
            with self._lock:
                rows = self._db.execute(select, (last,)).fetchall()
            if not rows:
                return
            yield from (entry for _, entry in rows)
            last = rows[-1][0]

    def close(self) -> None:
        """Forget everything, once no thread is at it: one goes on whose await was cancelled.

        SQLite would read freed memory.
        """
        with self._lock:
            self._db.close()


@cache
def _record_fields() -> list[str]:
    from infra_core.azure.job_store import JobRecord

    return [each.name for each in fields(JobRecord)]


def _key(job_id: str) -> bytes:
    try:
        return bytes.fromhex(job_id)
    except ValueError:  # of a record that another program wrote
        return job_id.encode("utf-8", "surrogatepass")
