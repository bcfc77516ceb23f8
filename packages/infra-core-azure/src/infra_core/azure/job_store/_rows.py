"""What the backends exchange with the semantics above them: rows, queries and refusals.

A backend carries out these primitives, each atomic:

- `insert(row)`: store a new row, return its version, or `None` when there is one of its keys.
- `upsert(rows)`: store the rows of one planned batch, all or none, in place of whatever is there;
  return their versions.
- `replace(rows)`: store those of one batch, each in place of the version that it holds; return the
  new versions, with `None` for each row that has another one or is gone.
- `delete(rows)`: delete those of one batch, of the version that each holds if any; return how many
  there were.
- `get(partition, key)`: return one row, or `None`.
- `page(query, limit, token)`: return at most `limit` rows in key order, and where to go on.
- `tally(partition)`: count rows by partition and status; `None` where that cannot be done there.
- `reclaim()`: give the space of deleted rows back.

A write of our own whose answer was lost is not a refusal.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import NoneType
from typing import Any, NamedTuple, Protocol

from ._entity import nearest_utc
from ._keys import escape_key, unescape_key
from ._records import StatusFilter

__all__ = [
    "Backend",
    "Query",
    "Row",
    "Tally",
    "add_up",
    "doing_of",
    "keys_of_token",
    "plan_batches",
    "query_of",
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
    """Which rows to list. All conditions given must hold."""

    partition: str | None = None  # escaped batch id; all batches by default
    statuses: tuple[str, ...] = ()  # any of these values of the property `status`
    since: datetime | None = None  # `updated_at` at or after this time
    until: datetime | None = None  # `updated_at` before this time
    # Pending and not to wait any longer than this time, or running under a lease that ended before
    # it. A backend may return the keys of these rows alone.
    claimable_at: datetime | None = None
    keys_only: bool = False  # return keys and versions; other properties may be left out


class Tally(NamedTuple):
    """How many rows of a partition have a status, and when they changed first and last."""

    partition: str
    status: str | None
    number: int
    first: datetime | None = None
    last: datetime | None = None


def add_up(tallies: Iterable[Tally]) -> list[Tally]:
    """Add tallies to one for each partition and status."""
    total: dict[tuple[str, str | None], Tally] = {}
    for one in tallies:
        known = total.get(one[:2], Tally(*one[:2], 0))
        first = min(filter(None, (known.first, one.first)), default=None)
        last = max(filter(None, (known.last, one.last)), default=None)
        total[one[:2]] = Tally(*one[:2], known.number + one.number, first, last)
    return list(total.values())


class Backend(Protocol):
    """What carries out the primitives, and has words for their errors."""

    def perform(self, name: str, *args: Any) -> Any:
        """Carry out a primitive."""

    def explain(self, error: Exception, doing: str) -> Exception:
        """Return what to raise for an error of a primitive, `doing` what it was to do."""


def doing_of(name: str, *args: Any) -> str:
    """What a primitive was to do, in words for an error."""
    if name == "reclaim":
        return "giving the space of deleted jobs back"
    first = args[0]
    if name in ("page", "tally"):
        batch = first.partition if isinstance(first, Query) else first
        return "listing all jobs" if batch is None else f"listing batch {unescape_key(batch)!r}"
    rows = first if isinstance(first, list) else [first]
    if name == "get":
        rows = [Row(first, args[1], {})]
    batch_id, job_id = rows[0].ids
    jobs = f"job {job_id!r}" if len(rows) == 1 else f"{len(rows)} jobs"
    verb = {"get": "fetching", "delete": "deleting"}.get(name, "storing")
    return f"{verb} {jobs} of batch {batch_id!r}"


def keys_of_token(token: object) -> tuple[str | None, str | None]:
    """Return the two keys that a continuation token holds; a ValueError is raised for none."""
    try:
        keys = json.loads(token)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        keys = None
    fits = isinstance(keys, list) and len(keys) == 2
    if not fits or not all(isinstance(key, (str, NoneType)) for key in keys):
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
    """Split rows, with their positions, into what the Table service takes as one transaction each.

    A transaction holds one partition, at most 100 operations and 4 MiB, and each row once
    (Azure, "Performing entity group transactions"). Rows keep their order within a partition, so
    that of two writes to one row the later wins.
    """
    batches: list[_Batch] = []
    last: dict[str, _Batch] = {}  # of each partition
    for position, row in enumerate(rows):
        size = _wire_size(row) + _OPERATION_OVERHEAD
        batch = last.get(row.partition)
        full = batch and (len(batch.rows) >= max_count or batch.size + size > max_bytes)
        if batch is None or full or row.key in batch.keys:
            batch = last[row.partition] = _Batch()
            batches.append(batch)
        batch.rows.append((position, row))
        batch.keys.add(row.key)
        batch.size += size
    return [batch.rows for batch in batches]


def _wire_size(row: Row) -> int:
    """Bytes of the row as the SDK's JSON, at least: each value has its type beside it."""
    text = _SIZED.encode(row.properties)
    names = sum(len(name) + 80 for name in row.properties)
    return len(text) + names + 160 + 6 * (len(row.partition) + len(row.key)) * 2


def _as_text(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


_SIZED = json.JSONEncoder(default=_as_text)


def query_of(
    known: Sequence[str],
    batch_id: str | None,
    status: StatusFilter,
    since: datetime | None,
    until: datetime | None,
) -> Query:
    """Return the query of `iter_runs`; `known` are the states of its records, empty for any text.

    Raises:
        TypeError: A time is none.
        ValueError: Nothing can match.
    """
    for name, value in (("since", since), ("until", until)):
        if value is not None and not isinstance(value, datetime):
            raise TypeError(
                f"{name}={value!r:.80} is not a datetime: pass one, best with a timezone (without, "
                "it is taken for UTC)"
            )
    if since is not None and until is not None and nearest_utc(since) > nearest_utc(until):
        raise ValueError(
            f"since={since.isoformat()} lies after until={until.isoformat()}, so that nothing "
            "can match: swap them"
        )
    return Query(
        partition=None if batch_id is None else escape_key(batch_id, field="batch_id"),
        statuses=_statuses(status, known),
        since=None if since is None else nearest_utc(since),
        until=None if until is None else nearest_utc(until),
    )


def _statuses(status: StatusFilter, known: Sequence[str]) -> tuple[str, ...]:
    if status is None:
        return ()
    single = isinstance(status, (str, Enum)) or not isinstance(status, Iterable)
    wanted: list[object] = [status] if single else [*status]
    if not wanted:
        raise ValueError("status is an empty collection, which nothing matches; pass None")
    names = [str(getattr(item, "value", item)) for item in wanted]
    for item, name in zip(wanted, names, strict=True):
        if known and name not in known:
            raise ValueError(
                f"status={item!r} is none of this store's records: pass one or several of "
                f"{', '.join(known)}, or None for all"
            )
    return tuple(names)
