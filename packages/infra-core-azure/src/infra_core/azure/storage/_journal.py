"""What could not be uploaded yet, on disk: written before the upload, removed after it.

Whatever ends the process in between, each artifact is in the container or in here. Entries hold
where a file lies (or, for text that has no file, its bytes) and which blob it shall become. What
the service refuses permanently stays as `refused`, with the cause: listed, and not sent again
unless that is asked for. While a tree waits, an upload that arrives after it stays as `newer`: the
tree is not to bring its older version.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from infra_core.runtime import clock, redact_secrets

from .._process import start_of
from .._sqlite_file import SqliteFile, connect, enter_wal
from ._config import _AzureStorageConfig
from ._errors import Ending, JournalError, ending_of
from ._settings import Overwrite

__all__ = ["LAST", "Journal", "PendingUpload", "default_journal_path", "open_journal"]

_SCHEMA = """
create table if not exists pending (
    id integer primary key autoincrement,
    slot text not null unique,
    kind text not null,
    blob text not null,
    path text,
    data blob,
    content_type text,
    overwrite text not null default 'always',
    etag text,
    created real not null,
    attempts integer not null default 0,
    error text,
    owner text not null,
    refused integer not null default 0,
    details text
)
"""
_INDEX = "create index if not exists pending_kinds on pending (kind, id)"
_LATER = {"refused": "integer not null default 0", "details": "text"}  # than the first release
_FIRST_NUMBER = (
    "insert into sqlite_sequence select 'pending', ?"
    " where not exists (select 1 from sqlite_sequence where name = 'pending')"
)
LAST = 2**63 - 1  # above the number of any entry
_PAGE = 1000  # entries in memory at a time
_Kind = Literal["file", "bytes", "tree"]
_HOLDS = (
    "select 1 from pending where kind = 'tree' and id < ?"
    " and (blob = '' or substr(?, 1, length(blob) + 1) = blob || '/')"
)


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """One entry of the journal.

    Attributes:
        id: Its number; grows with each entry.
        kind: `file`, `bytes` (text that has no file of its own) or `tree` (a whole folder).
        blob: Name of the blob, or of the folder.
        path: The local file or folder.
        content_type: Media type, when it was given.
        overwrite: When the blob may be replaced, as the upload said.
        etag: ETag that goes with it.
        created: When it was entered, seconds since the epoch.
        attempts: How often the upload was tried; it failed each time.
        error: What the last one failed of.
        refused: The service refuses it permanently: it is listed here, and sent again only by
            `flush_pending(refused=True)`.
        details: Further arguments of the upload: properties of the blob, rules of a tree.
    """

    id: int
    kind: _Kind
    blob: str
    path: Path | None = None
    content_type: str | None = None
    overwrite: Overwrite = "always"
    etag: str | None = None
    created: float = 0.0
    attempts: int = 0
    error: str | None = None
    refused: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


_COLUMNS = tuple(column.name for column in fields(PendingUpload))


class Journal(SqliteFile):
    """A SQLite file of pending uploads, shared by threads and processes; made on first use.

    Each method raises `JournalError`, which names the `setting` of its path, when the file cannot
    be read or written.
    """

    def __init__(self, path: Path, setting: str = "journal") -> None:
        super().__init__(Path(path))
        self._setting = setting

    def _begin(self) -> None:
        super()._begin()
        self._busy: set[int] = set()
        self._owner = f"{os.getpid()}:{start_of(os.getpid())}"

    def enter(
        self,
        kind: _Kind,
        blob: str,
        *,
        data: bytes | None = None,
        **entry: Any,
    ) -> int:
        """Note an upload that begins; the newest of a blob replaces others. Returns its number."""
        with self._opened() as db:
            number = _insert(db, PendingUpload(0, kind, blob, **entry), self._owner, data)
            self._busy.add(number)
            return number

    def keep(self, tree: int, entries: Iterable[PendingUpload]) -> None:
        """Note, in one transaction, files of a tree that failed; newer uploads of theirs stay."""
        query = "select 1 from pending where id > ? and slot in (?, ?)"
        with self._opened() as db:
            for entry in entries:
                slots = _slot(entry), f"newer {entry.blob}"
                if db.execute(query, (tree, *slots)).fetchone() is None:
                    _insert(db, entry)

    def settle(self, number: int) -> None:
        """Forget an entry: its upload arrived, or is not to be made up for."""
        with self._opened() as db:
            db.execute("delete from pending where id = ?", (number,))
            _forget_newer(db)
            self._busy.discard(number)

    def arrived(self, *blobs: tuple[str, int], before: int | None = None) -> None:
        """Blobs arrived: forget their entries; trees that wait must not undo it.

        The entry of each, 0 for none, is that of this upload; with `before` it is that of one
        before it, and trees were entered earlier than that number.
        """
        with self._opened() as db:
            for blob, number in blobs:
                own = before is None
                held = db.execute(_HOLDS, (number if own else before, blob)).fetchone()
                db.execute("delete from pending where id = ?", (number,))
                if held:
                    _add_newer(db, blob, number if own else None)
                self._busy.discard(number)
            _forget_newer(db)

    def newer(self, number: int, below: str) -> set[str]:
        """Names of blobs that were uploaded, or are to be, after a tree was entered.

        One that ends in a slash stands for all below it, which was deleted.
        """
        with self._opened() as db:
            found = db.execute(
                "select blob from pending where id > ? and kind <> 'tree'"
                " and substr(blob, 1, ?) = ?",
                (number, len(below), below),
            )
            return {blob for (blob,) in found}

    def has_trees(self, before: int) -> bool:
        """Whether a tree waits that was entered before an entry."""
        if not self._exists():
            return False
        with self._opened() as db:
            query = "select 1 from pending where kind = 'tree' and id < ?"
            return db.execute(query, (before,)).fetchone() is not None

    def fail(self, number: int, error: BaseException) -> Ending:
        """The upload failed: keep its entry, pending or refused, or drop it; see `ending_of`."""
        ending = ending_of(error)
        with self._opened() as db:
            if ending == "dropped":
                db.execute("delete from pending where id = ?", (number,))
            db.execute(
                "update pending set attempts = attempts + 1, error = ?, owner = '', refused = ?"
                " where id = ?",
                (text_of(error), ending == "refused", number),
            )
            self._busy.discard(number)
        return ending

    def pending(self) -> list[PendingUpload]:
        """All entries that no upload of a live process is at work on, oldest first."""
        return [entry for page in self.pages() for entry in page]

    def pages(
        self, *, trees: bool = True, refused: bool | None = None, below: str = ""
    ) -> Iterator[list[PendingUpload]]:
        """The same by the page; on request without trees, only what is refused, or none of it.

        With `below` only blobs whose names begin so. What is entered meanwhile is left out.
        """
        last, newest = 0, None
        left_out = "newer" if trees else "tree"
        query = (
            f"select {', '.join(_COLUMNS)}, owner from pending where id > ? and id <= ?"  # noqa: S608
            " and kind not in ('newer', ?) and (? is null or ? = refused)"
            " and substr(blob, 1, ?) = ? order by id limit ?"
        )
        while self._exists():
            with self._opened() as db:
                if newest is None:
                    (newest,) = db.execute("select max(id) from pending").fetchone()
                values = (last, newest, left_out, refused, refused, len(below), below, _PAGE)
                rows = db.execute(query, values).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [_entry(row) for *row, owner in rows if not self._is_taken(row[0], owner)]

    def claim(self, number: int) -> bool:
        """Take an entry over for an upload of our own; False when it is gone or taken."""
        with self._opened() as db:
            row = db.execute("select owner from pending where id = ?", (number,)).fetchone()
            if row is None or self._is_taken(number, row[0]):
                return False
            db.execute("update pending set owner = ? where id = ?", (self._owner, number))
            self._busy.add(number)
            return True

    def entry_of(self, blob: str) -> int:
        """The number of a blob's entry that no upload of a live process is at work on, or 0."""
        with self._opened() as db:
            query = "select id, owner from pending where slot = ?"
            row = db.execute(query, (f"blob {blob}",)).fetchone()
        return 0 if row is None or self._is_taken(*row) else int(row[0])

    def _exists(self) -> bool:
        return self._connection is not None or self.path.exists()

    def _is_taken(self, number: int, owner: str) -> bool:
        """Whether an upload of this process, or of another live one, is at work on an entry."""
        return number in self._busy or (owner != self._owner and _is_alive(owner))

    def forget_refused(self) -> int:
        """Drop all entries that are refused permanently; returns how many there were."""
        with self._opened() as db:
            return db.execute("delete from pending where refused").rowcount

    def forget_below(self, name: str) -> None:
        """Drop the entries of a folder and of what is below it: its blobs were deleted.

        A tree above it that waits is not to bring them back.
        """
        if self.path.exists():
            with self._opened() as db:
                db.execute(
                    "delete from pending where (kind = 'tree' and blob = ?)"
                    " or substr(blob, 1, ?) = ?",
                    (name, len(name) + 1, f"{name}/"),
                )
                if db.execute(_HOLDS, (LAST, name)).fetchone():
                    _add_newer(db, f"{name}/")

    def data(self, number: int) -> bytes:
        """The bytes of an entry of kind `bytes`."""
        with self._opened() as db:
            row = db.execute("select data from pending where id = ?", (number,)).fetchone()
        return bytes(row[0]) if row and row[0] is not None else b""

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The connection, within one transaction that is on disk at the end."""
        try:
            with self._lock, self._connected() as db:  # which commits, or rolls back
                db.execute("begin immediate")
                yield db
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"the journal {self.path} cannot be used ({error})",
                operation="journal",
                remedy=f"set {self._setting} to a file that this user may write, or move away "
                "what is there",
            ) from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Its owner alone may read what it holds; SQLite takes the mode over to its WAL.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        db = connect(self.path)
        try:
            enter_wal(db)
            db.execute("pragma synchronous = full")
            db.execute(_SCHEMA)
            db.execute(_INDEX)
            _add_columns(db)
            # A new file begins with numbers that no earlier one at its place has given to entries.
            db.execute(_FIRST_NUMBER, (int(clock.time() * 1000),))
        except BaseException:  # it is not a database, say
            db.close()
            raise
        return db

    def _replaced(self, before: sqlite3.Connection) -> sqlite3.Connection:
        """A file that was removed while it was open, by a cleaner, is made anew with all in it."""
        db = self._open()
        rows = before.execute("select * from pending").fetchall()
        before.close()
        values = ", ".join("?" * len(rows[0])) if rows else ""
        db.executemany(f"insert or ignore into pending values ({values})", rows)  # noqa: S608
        return db


def _add_columns(db: sqlite3.Connection) -> None:
    """Add the columns that a journal of an earlier release lacks."""
    there = {row[1] for row in db.execute("pragma table_info(pending)")}
    for name, kind in _LATER.items():
        if name not in there:
            with contextlib.suppress(sqlite3.OperationalError):  # another process was faster
                db.execute(f"alter table pending add column {name} {kind}")


def _entry(row: list[Any]) -> PendingUpload:
    entry = PendingUpload(*row)
    return replace(
        entry,
        path=None if entry.path is None else Path(os.fsdecode(entry.path)),
        refused=bool(entry.refused),
        details=json.loads(row[-1]) if row[-1] else {},
    )


def _insert(
    db: sqlite3.Connection, entry: PendingUpload, owner: str = "", data: bytes | None = None
) -> int:
    values = {
        **{name: getattr(entry, name) for name in _COLUMNS[1:]},  # its number is to come
        "slot": _slot(entry),
        "path": None if entry.path is None else _storable(entry.path),
        "details": json.dumps(entry.details) if entry.details else None,
        "created": clock.time(),
        "owner": owner,
        "data": data,
    }
    columns, marks = ", ".join(values), ", ".join("?" * len(values))
    query = f"insert or replace into pending ({columns}) values ({marks})"  # noqa: S608
    return int(db.execute(query, tuple(values.values())).lastrowid or 0)


def _add_newer(db: sqlite3.Connection, blob: str, number: int | None = None) -> None:
    """Note that a blob, or all below a name that ends in a slash, is newer than trees that wait."""
    db.execute(
        "insert or replace into pending (id, slot, kind, blob, created, owner)"
        " values (?, ?, 'newer', ?, ?, '')",
        (number, f"newer {blob}", blob, clock.time()),
    )


def _forget_newer(db: sqlite3.Connection) -> None:
    """Drop what no tree that waits is older than."""
    first = "select coalesce(min(id), ?) from pending where kind = 'tree'"
    db.execute(f"delete from pending where kind = 'newer' and id < ({first})", (LAST,))  # noqa: S608


def text_of(error: BaseException) -> str:
    """An error as an entry keeps it."""
    return redact_secrets(f"{type(error).__name__}: {error}")[:1000]


_shared: "weakref.WeakValueDictionary[str, Journal]" = weakref.WeakValueDictionary()


def open_journal(path: Path, setting: str = "journal") -> Journal:
    """The journal in a file: one object per process, since it knows which entries are busy."""
    key = os.path.abspath(path)  # noqa: PTH100 - need not exist
    return _shared.setdefault(key, Journal(path, setting))


def _storable(path: Path) -> str | bytes:
    """A path as SQLite can hold it: names need not be UTF-8."""
    where = os.path.abspath(path)  # noqa: PTH100 - keeps links
    try:
        where.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(where)
    return where


def _slot(entry: PendingUpload) -> str:
    """What a newer entry replaces: the same folder's tree, or the same blob whatever its source."""
    if entry.kind == "tree" and entry.path is not None:
        return f"tree {entry.blob} {_storable(entry.path)!r}"
    return f"blob {entry.blob}"


def _is_alive(owner: str) -> bool:
    pid, _, started = owner.partition(":")  # a number alone is used again
    return pid.isdigit() and start_of(int(pid)) == started


def default_journal_path(config: _AzureStorageConfig) -> Path:
    """One file per account and container in the user's state folder."""
    key = hashlib.sha256(config.container_url.encode("utf-8")).hexdigest()[:16]
    try:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError:  # no home folder
        folder = Path(tempfile.gettempdir())
    return folder / "infra-core" / "pending-uploads" / f"{config.container}-{key}.sqlite"
