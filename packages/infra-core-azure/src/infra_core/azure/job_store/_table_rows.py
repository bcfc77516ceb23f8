"""Rows and queries in the terms of the Azure Tables SDK; no I/O."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from azure.core import MatchConditions
from azure.data.tables import EdmType, EntityProperty, TableEntity, UpdateMode

from ._binding import moment_of
from ._entity import EARLIEST, FIRST_DATE, LATEST, SYSTEM, Int64, nearest_utc
from ._keys import odata_string
from ._rows import Query, Row, Tally, add_up, keys_of_token
from ._types import plain_datetime

__all__ = [
    "CLIENT_OPTIONS",
    "TALLIED",
    "attempts_of",
    "columns_of",
    "deleting",
    "entity_of",
    "etag_of",
    "if_version",
    "keys_of",
    "odata_filter",
    "pages_of",
    "read_token",
    "replacing",
    "row_of",
    "tally_of",
    "write_token",
]

_ATTEMPTS = "infra_core_attempts"


def _count_attempt(request: Any) -> None:
    request.context[_ATTEMPTS] = request.context.get(_ATTEMPTS, 0) + 1


def attempts_of(response: Any) -> int:
    """How often the SDK has sent the request of a response, for a hook of the call."""
    return int(response.context.get(_ATTEMPTS, 1))


# The SDK's own defaults allow ten retries and a wait of two minutes between two of them.
CLIENT_OPTIONS: Mapping[str, Any] = {
    "raw_request_hook": _count_attempt,
    "retry_total": 4,
    "retry_backoff_factor": 0.5,
    "retry_backoff_max": 20,
    "connection_timeout": 20,
    "read_timeout": 60,
}


def entity_of(row: Row) -> dict[str, Any]:
    """Return a row as the SDK takes it."""
    entity: dict[str, Any] = {"PartitionKey": row.partition, "RowKey": row.key}
    for name, value in row.properties.items():
        if isinstance(value, Int64):
            entity[name] = EntityProperty(int(value), EdmType.INT64)
        else:
            entity[name] = value
    return entity


def row_of(entity: TableEntity) -> Row:
    """Return what the SDK gave as a row."""
    properties = {
        name: Int64(value.value) if _is_int64(value) else value
        for name, value in entity.items()
        if name not in SYSTEM
    }
    metadata: Mapping[str, Any] = entity.metadata
    return Row(
        entity["PartitionKey"],
        entity["RowKey"],
        properties,
        metadata.get("etag"),
        metadata.get("timestamp"),
    )


TALLIED = ["PartitionKey", "status", "updated_at"]


def tally_of(entities: Iterable[Mapping[str, Any]]) -> list[Tally]:
    """Count entities that hold the properties `TALLIED`, by partition and status."""
    found: dict[tuple[str, str | None], Tally] = {}
    for entity in entities:
        key = entity["PartitionKey"], entity.get("status")
        moment = moment_of(entity.get("updated_at"))
        moment = moment and plain_datetime(moment)
        one = Tally(*key, 1, moment, moment)
        found[key] = add_up(found[key], one) if key in found else one
    return list(found.values())


def columns_of(query: Query) -> dict[str, Any]:
    """Return what limits the properties that a query returns."""
    return {"select": ["PartitionKey", "RowKey", "updated_at"]} if query.keys_only else {}


def keys_of(query: Query, entities: Iterable[TableEntity]) -> list[Row]:
    """Return rows of keys alone, judged to the microsecond: the filter's bounds are wider."""
    since, until = query.since or EARLIEST, query.until or LATEST
    found = []
    for entity in entities:
        moment = moment_of(entity.pop("updated_at", None)) or since
        if since <= moment and (moment < until or query.until is None):
            found.append(row_of(entity))
    return found


def pages_of(client: Any, query: Query, token: str | None, **options: Any) -> Any:
    """Return the pages of a query, by the client of either kind; nothing is sent before the first.

    Without a condition the SDK's plain listing is asked: its query would send an empty filter.
    """
    odata = odata_filter(query)
    found = client.query_entities(odata, **options) if odata else client.list_entities(**options)
    return found.by_page(continuation_token=read_token(token))


def if_version(etag: str | None) -> dict[str, Any]:
    """Return what limits a write to that version; nothing does without one."""
    return {} if etag is None else {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def replacing(row: Row) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the operation of a transaction that replaces the version that a row holds."""
    return "update", entity_of(row), {"mode": UpdateMode.REPLACE, **if_version(row.etag)}


def deleting(row: Row) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the operation of a transaction that deletes the version that a row holds."""
    return "delete", {"PartitionKey": row.partition, "RowKey": row.key}, if_version(row.etag)


def _is_int64(value: object) -> bool:
    return isinstance(value, EntityProperty) and value.edm_type == EdmType.INT64


def etag_of(metadata: Mapping[str, Any]) -> str:
    """Return the version that a write has produced."""
    return str(metadata["etag"])


_MILLISECOND = timedelta(milliseconds=1)


def odata_filter(query: Query) -> str:
    """Return a query as an OData filter, empty for all rows.

    Example:
        >>> odata_filter(Query(partition="it's", statuses=("failed",)))
        "PartitionKey eq 'it''s' and (status eq 'failed')"
    """
    parts = []
    if query.partition is not None:
        parts.append(f"PartitionKey eq {odata_string(query.partition)}")
    if query.statuses:
        alternatives = " or ".join(f"status eq {odata_string(s)}" for s in query.statuses)
        parts.append(f"({alternatives})")
    # Bounds are widened to whole milliseconds, since emulators compare no finer; the records that
    # come back are judged to the microsecond (`RecordBinding.matches`).
    if query.since is not None:
        parts.append(f"updated_at ge {_literal(query.since)}")
    if query.until is not None:
        parts.append(f"updated_at lt {_literal(query.until, _MILLISECOND)}")
    if query.claimable_at is not None:
        end = _literal(query.claimable_at, _MILLISECOND)
        ended = f"(status eq 'running' and lease_until lt {end})"
        parts.append(f"(status eq 'pending' or {ended})")
    return " and ".join(parts)


def _literal(moment: datetime, later: timedelta = timedelta()) -> str:
    # A table holds no dates before 1601, and Python none after 9999.
    moment = max(nearest_utc(moment), FIRST_DATE)
    moment = moment + later if moment < LATEST - later else LATEST
    return f"datetime'{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z'"


def write_token(continuation: Any) -> str | None:
    """Return the SDK's continuation (two keys) as text that callers can keep."""
    if not continuation:
        return None
    return json.dumps([continuation.get("PartitionKey"), continuation.get("RowKey")])


def read_token(token: Any) -> Any:  # the SDK declares it as text, and takes a dict
    """Return the SDK's continuation of a token; one of an earlier version is passed on."""
    if token is None or isinstance(token, Mapping):
        return dict(token) if token else None
    partition, key = keys_of_token(token)
    return {"PartitionKey": partition, "RowKey": key}
