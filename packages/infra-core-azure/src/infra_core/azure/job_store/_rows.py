"""What the backends exchange with the semantics above them: rows, queries and refusals."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple, Protocol

from ._entity import Int64
from ._keys import unescape_key

__all__ = [
    "Backend",
    "Primitives",
    "Query",
    "Row",
    "RowChangedError",
    "RowExistsError",
    "RowUnknownError",
    "Tally",
    "add_up",
    "keys_of_token",
    "plan_batches",
]


@dataclass(slots=True)
class Row:
    """One stored record: escaped keys, packed properties, version."""

    partition: str
    key: str
    properties: dict[str, Any]
    etag: str | None = None
    timestamp: datetime | None = None
    partial: bool = False  # its keys alone were read: `get` it
    damage: str = ""  # why its properties cannot be read, where the backend itself cannot

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of its batch and job, as the caller gave them."""
        return unescape_key(self.partition), unescape_key(self.key)


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows to list. All conditions given must hold.

    Attributes:
        partition: Escaped batch id, `None` for all batches.
        statuses: Any of these values of the property `status`.
        since: `updated_at` at or after this time.
        until: `updated_at` before this time.
        claimable_at: Pending and not to wait any longer than this time, or running under a lease
            that ended before it. A backend may return the keys of these rows alone.
        keys_only: Return keys and versions alone.
    """

    partition: str | None = None
    statuses: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    claimable_at: datetime | None = None
    keys_only: bool = False


class Tally(NamedTuple):
    """How many rows of a partition have a status, and when they changed first and last."""

    partition: str
    status: str | None
    number: int
    first: datetime | None = None
    last: datetime | None = None


def add_up(one: Tally, other: Tally) -> Tally:
    """Add two tallies of one partition and status."""
    first = [moment for moment in (one.first, other.first) if moment]
    last = [moment for moment in (one.last, other.last) if moment]
    return Tally(
        *one[:2],
        one.number + other.number,
        min(first, default=None),
        max(last, default=None),
    )


class RowExistsError(Exception):
    """An insert met a row of the same keys."""


class RowUnknownError(Exception):
    """The answer to an insert was lost; `__cause__` is what lost it."""


class RowChangedError(Exception):
    """A conditional write met another version, or no row at all.

    Attributes:
        resent: Whether it may have been sent more than once, so that what it met may be its own
            doing.
    """

    def __init__(self, *, resent: bool = True) -> None:
        super().__init__()
        self.resent = resent


class Backend(Protocol):
    """What carries out `Primitives`, and has words for their errors."""

    def perform(self, name: str, *args: Any) -> Any:
        """Carry out a primitive; an asynchronous backend returns what is awaited for it."""

    def explain(self, error: Exception, doing: str) -> Exception:
        """Return what to raise for an error of a primitive, `doing` what it was to do."""


class Primitives(Protocol):
    """What a backend is asked for, each atomic."""

    def insert(self, row: Row) -> str:
        """Store a new row; return its version. `RowExistsError` when it is there.

        `RowUnknownError` when the answer was lost: the row may be there or not.
        """

    def upsert(self, row: Row) -> str:
        """Store a row in place of whatever is there; return its version."""

    def replace(self, row: Row, etag: str) -> str:
        """Store a row in place of that version. `RowChangedError` when there is another or none."""

    def get(self, partition: str, key: str) -> Row | None:
        """Return one row."""

    def delete(self, partition: str, key: str, etag: str | None) -> bool:
        """Delete one row, of that version if one is given; return whether there was one."""

    def page(self, query: Query, limit: int, token: str | None) -> tuple[list[Row], str | None]:
        """Return at most `limit` rows in key order, and where to go on."""

    def tally(self, partition: str | None, token: str | None) -> tuple[list["Tally"], str | None]:
        """Count rows by partition and status, and return where to go on."""

    def upsert_many(self, rows: Sequence[Row]) -> list[str]:
        """Store the rows of one planned batch, all or none; return their versions."""

    def replace_many(self, rows: Sequence[Row]) -> list[str | None]:
        """Store the rows of one planned batch, each in place of the version that it holds.

        Return the new versions, `None` for each row that has another version or is gone.
        """

    def delete_many(self, rows: Sequence[Row]) -> int:
        """Delete the rows of one planned batch, each of the version it holds; return how many."""

    def reclaim(self) -> None:
        """Give the space of deleted rows back."""


def keys_of_token(token: object) -> tuple[str | None, str | None]:
    """Return the two keys that a continuation token holds.

    Raises:
        ValueError: It is none.
    """
    try:
        keys = json.loads(token)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        keys = None
    if not isinstance(keys, list) or [k for k in keys if not isinstance(k, (str, NoneType))]:
        keys = []
    if len(keys) != 2:
        raise ValueError(
            f"continuation_token={token!r:.60} is none of this store: pass what list_runs "
            "returned, or None for the first page"
        )
    return keys[0], keys[1]


MAX_BATCH_COUNT = 100
MAX_BATCH_BYTES = 4 * 1024 * 1024
# What one operation costs in a $batch body besides its JSON: MIME parts, request line, headers.
_OPERATION_OVERHEAD = 1_200
_BODY_OVERHEAD = 1_000


@dataclass(slots=True)
class _Batch:
    rows: list[tuple[int, Row]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    size: int = _BODY_OVERHEAD


def plan_batches(
    rows: Iterable[Row], *, max_count: int = MAX_BATCH_COUNT, max_bytes: int = MAX_BATCH_BYTES
) -> list[list[tuple[int, Row]]]:
    """Split rows into batches that the Table service takes as one transaction each.

    A transaction holds one partition, at most 100 operations and 4 MiB, and each row once
    (Azure, "Performing entity group transactions"). Rows keep their order within a partition, so
    that of two writes to one row the later wins.

    Returns:
        Batches of `(position in the input, row)`.
    """
    finished: list[list[tuple[int, Row]]] = []
    open_batches: dict[str, _Batch] = {}
    for position, row in enumerate(rows):
        size = _wire_size(row) + _OPERATION_OVERHEAD
        batch = open_batches.setdefault(row.partition, _Batch())
        full = len(batch.rows) >= max_count or batch.size + size > max_bytes
        if batch.rows and (full or row.key in batch.keys):
            finished.append(batch.rows)
            batch = open_batches[row.partition] = _Batch()
        batch.rows.append((position, row))
        batch.keys.add(row.key)
        batch.size += size
    return finished + [batch.rows for batch in open_batches.values()]


def _wire_size(row: Row) -> int:
    """Bytes of the row as JSON, at least: what is not ASCII travels escaped."""
    size = 160 + 6 * (len(row.partition) + len(row.key)) * 2
    for name, value in row.properties.items():
        size += 2 * len(name) + 60  # the name twice: the property and its type
        if isinstance(value, str):
            size += _escaped_length(value)
        elif isinstance(value, bytes):
            size += len(value) * 4 // 3 + 4
        elif isinstance(value, Int64):
            size += 20
    return size


def _escaped_length(text: str) -> int:
    if text.isascii() and text.isprintable():
        return len(text) + text.count('"') + text.count("\\")
    return 12 * len(text) if max(text) > "\uffff" else 6 * len(text)
