"""What a caller selects jobs by, as a query."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum

from ._entity import nearest_utc
from ._keys import escape_key
from ._protocol import StatusFilter
from ._rows import Query

__all__ = ["query_of"]


def query_of(
    known: Sequence[str],
    batch_id: str | None,
    status: StatusFilter,
    since: datetime | None,
    until: datetime | None,
) -> Query:
    """Return the query of `iter_runs`.

    Args:
        known: The states that the store's records have; empty where any text is one.
        batch_id: The batch, `None` for all.
        status: The states to find, `None` for all.
        since: The earliest last change.
        until: The end of the last changes, not included.

    Raises:
        TypeError: A time is none.
        ValueError: Nothing can match.
    """
    _check_times(since, until)
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


def _check_times(since: datetime | None, until: datetime | None) -> None:
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
