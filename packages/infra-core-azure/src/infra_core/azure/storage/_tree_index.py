"""The names of one side of a tree, out of memory: what a million blobs are remembered in.

A temporary SQLite database: small ones never leave its page cache, large ones spill to a file
that has no name and ends with the connection. The order in which a service lists names does not
matter (UTF-8, UTF-16 and locale orders differ), which a merge of two sorted listings depends on.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._blobs import BlobInfo
from ._names import fold_name
from ._tree_types import FileOutcome

__all__ = ["TreeIndex"]

_BATCH = 1000
_SELECT = "select name, size, md5, etag, type, written from entry"


class TreeIndex:
    """Blobs of a tree by their relative name; used from one thread at a time."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("pragma cache_size = -16000")  # KiB
        self._db.execute("pragma synchronous = off")
        self._db.execute("pragma journal_mode = off")
        self._db.execute(
            "create table entry (name text primary key, folded text, size integer, md5 blob,"
            " etag text, type text, written text, reason text) without rowid"
        )
        self._db.execute("create table folder (folded text, name text, primary key (folded, name))"
                         " without rowid")  # fmt: skip
        self._db.execute("create table seen (name text primary key) without rowid")
        self.count = 0
        self.size = 0

    def add(
        self, blobs: Iterable[BlobInfo], unsafe: Callable[[str], str | None] | None = None
    ) -> None:
        """Remember blobs; with `unsafe`, which says why a name is, also what finds collisions."""
        rows = []
        folders: dict[str, str] = {}
        for blob in blobs:
            self.count += 1
            self.size += blob.size
            key, reason = (fold_name(blob.name), unsafe(blob.name)) if unsafe else (None, None)
            properties = blob.etag, blob.content_type, blob.blob_type, reason
            rows.append((blob.name, key, blob.size, blob.md5, *properties))
            if unsafe:
                folder = blob.name.rpartition("/")[0]
                while folder and folder not in folders:
                    folders[folder] = fold_name(folder)
                    folder = folder.rpartition("/")[0]
        self._db.execute("begin")
        self._db.executemany("insert or replace into entry values (?,?,?,?,?,?,?,?)", rows)
        if folders:
            self._db.executemany(
                "insert or ignore into folder values (?,?)",
                ((key, folder) for folder, key in folders.items()),
            )
        self._db.execute("commit")

    def find_collisions(self, *, keep_one: bool) -> int:
        """Reject names that would be one file, or file and folder at once, somewhere.

        With `keep_one` the first of names that differ only in case or accents stays. Returns how
        many names are rejected, for this or as unsafe.
        """
        self._db.execute("create index by_fold on entry (folded)")
        self._db.execute(
            "create temp table twice as select folded, min(name) as first from entry"
            " group by folded having count(*) > 1"
        )
        self._db.execute(
            "update entry set reason = 'it differs from another name only in case or accents'"
            " || case when ? then ', which is kept' else '' end"
            " where reason is null and folded in (select folded from twice)"
            " and not (? and name in (select first from twice))",
            (keep_one, keep_one),
        )
        self._db.execute(
            "update entry set reason = 'it is a folder of other names as well'"
            " where reason is null and folded in (select folded from folder)"
        )
        query = "select count(*) from entry where reason is not null"
        return int(self._db.execute(query).fetchone()[0])

    def rejected(self) -> Iterator[FileOutcome]:
        """What is unsafe, and why."""
        query = "select name, size, reason from entry where reason is not null order by name"
        for name, size, reason in self._db.execute(query):
            yield FileOutcome(name, "reject", size, reason)

    def accepted(self) -> Iterator[BlobInfo]:
        """All others in order of their names; the index may be used in between."""
        return self._select("reason is null")

    def _select(self, condition: str) -> Iterator[BlobInfo]:
        last = ""
        while rows := self._db.execute(
            f"{_SELECT} where name > ? and {condition} order by name limit ?",
            (last, _BATCH),
        ).fetchall():
            last = rows[-1][0]
            yield from map(_blob, rows)

    def get(self, name: str) -> BlobInfo | None:
        """The blob of a name."""
        row = self._db.execute(f"{_SELECT} where name = ?", (name,)).fetchone()
        return None if row is None else _blob(row)

    def mark(self, names: Iterable[str]) -> None:
        """Note names that the other side has."""
        self._db.executemany("insert or ignore into seen values (?)", ((name,) for name in names))

    def marked(self) -> Iterator[str]:
        """The names that were noted."""
        for (name,) in self._db.execute("select name from seen order by name"):
            yield name

    def unmarked(self) -> Iterator[BlobInfo]:
        """Blobs that the other side does not have."""
        return self._select("name not in (select name from seen)")

    def close(self) -> None:
        """Forget everything."""
        self._db.close()


def _blob(row: tuple[Any, ...]) -> BlobInfo:
    name, size, md5, etag, content_type, blob_type = row
    return BlobInfo(name, size, md5, etag, content_type, blob_type=blob_type)
