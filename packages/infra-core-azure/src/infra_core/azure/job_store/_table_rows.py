"""Rows, queries and the primitives of `_rows` in the terms of the SDK, whose client comes first."""

import asyncio
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceResponseError,
)
from azure.data.tables import EdmType, EntityProperty, TableEntity, UpdateMode

from ._binding import moment_of, same_content, same_write
from ._entity import FIRST_DATE, LATEST, SYSTEM, Int64, nearest_utc
from ._keys import odata_string
from ._rows import Query, Row, keys_of_token
from ._table_errors import is_outdated, is_table_missing

# And the primitives, by their names.
__all__ = ["CLIENT_OPTIONS", "given_up", "make_table", "odata_filter"]

_ATTEMPTS = "infra_core_attempts"

# Set once no caller waits for the operation of this context any more: it sends no further request.
given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


def _count_attempt(request: Any) -> None:
    ended = given_up.get()
    if ended is not None and ended.is_set():
        raise asyncio.CancelledError
    request.context[_ATTEMPTS] = request.context.get(_ATTEMPTS, 0) + 1


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


def if_version(row: Row) -> dict[str, Any]:
    """Return what limits a write to the version that a row holds; nothing does without one."""
    if row.etag is None:
        return {}
    return {"etag": row.etag, "match_condition": MatchConditions.IfNotModified}


def _is_int64(value: object) -> bool:
    return isinstance(value, EntityProperty) and value.edm_type == EdmType.INT64


def etag_of(metadata: Mapping[str, Any]) -> str:
    """Return the version that a write has produced."""
    return str(metadata["etag"])


_COLUMNS = ["PartitionKey", "RowKey", "status", "updated_at"]
_REPLACE = {"mode": UpdateMode.REPLACE}
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
    # Bounds are widened to whole milliseconds, since emulators compare no finer; what comes back is
    # judged to the microsecond (`_in_time`).
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


_log = logging.getLogger("infra_core.azure.job_store")


def make_table(client: Any) -> None:
    """Create the table; one that exists is kept, and a refusal to create tables is passed over."""
    try:
        client.create_table()
    except ResourceExistsError:
        return
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        # Reading and writing may still be allowed.
        _log.debug("not allowed to create the job table; going on without", extra={"status": 403})


def insert(client: Any, row: Row) -> str | None:
    try:
        return etag_of(client.create_entity(entity_of(row)))
    except ResourceExistsError:
        return None
    except ServiceResponseError as error:  # the SDK sends no POST again
        lost = error
    stored = None
    with suppress(Exception):  # the first one says more
        stored = get(client, row.partition, row.key)
    if stored is None or not same_write(row, stored):
        raise lost
    return stored.etag


def upsert(client: Any, rows: Sequence[Row]) -> list[str]:
    if len(rows) == 1:
        done = [client.upsert_entity(entity_of(rows[0]), **_REPLACE)]
    else:
        changes = [("upsert", entity_of(row), _REPLACE) for row in rows]
        done = client.submit_transaction(changes)
    return [etag_of(metadata) for metadata in done]


def replace(client: Any, rows: Sequence[Row]) -> list[str | None]:
    if len(rows) > 1:
        changes = [("update", entity_of(row), {**_REPLACE, **if_version(row)}) for row in rows]
        try:
            made = client.submit_transaction(changes)
            return [etag_of(metadata) for metadata in made]
        except HttpResponseError as error:
            if not is_outdated(error):
                raise
    # One of several has changed; which, the service does not say of all.
    return [_replace_one(client, row, again=len(rows) > 1) for row in rows]


def _replace_one(client: Any, row: Row, *, again: bool) -> str | None:
    """Replace a row; `again` where it may have been replaced by this very change already."""
    sent: list[int] = []
    try:
        metadata = client.update_entity(
            entity_of(row),
            raw_response_hook=lambda response: sent.append(response.context.get(_ATTEMPTS, 1)),
            **_REPLACE,
            **if_version(row),
        )
        return etag_of(metadata)
    except (ResourceModifiedError, ResourceNotFoundError) as error:
        if is_table_missing(error):
            raise
    if not again and sent[-1:] <= [1]:
        return None
    stored = get(client, row.partition, row.key)
    return stored.etag if stored is not None and same_content(row, stored) else None


def get(client: Any, partition: str, key: str) -> Row | None:
    try:
        return row_of(client.get_entity(partition, key))
    except ResourceNotFoundError as error:
        if is_table_missing(error):
            raise
        return None


def delete(client: Any, rows: Sequence[Row]) -> int:
    if len(rows) > 1:
        keys = [{"PartitionKey": row.partition, "RowKey": row.key} for row in rows]
        changes = [("delete", k, if_version(row)) for k, row in zip(keys, rows, strict=True)]
        try:
            return len(client.submit_transaction(changes))
        except HttpResponseError as error:
            if not is_outdated(error):
                raise
    return sum(_delete_one(client, row) for row in rows)


def _delete_one(client: Any, row: Row) -> bool:
    answers: list[Any] = []
    try:
        client.delete_entity(
            row.partition,
            row.key,
            raw_response_hook=lambda response: answers.append(response.http_response),
            **if_version(row),
        )
    except ResourceModifiedError:
        return False
    # The SDK keeps quiet about a row that is not there, and about a table.
    if not answers or answers[-1].status_code != 404:
        return True
    if "TableNotFound" in answers[-1].text():
        missing = ResourceNotFoundError("The table does not exist", response=answers[-1])
        setattr(missing, "error_code", "TableNotFound")  # noqa: B010 - as the SDK does
        raise missing
    return False


def page(client: Any, query: Query, limit: int, token: str | None) -> tuple[list[Row], str | None]:
    options: dict[str, Any] = {"select": _COLUMNS} if query.keys_only else {}
    options["results_per_page"] = limit
    # The SDK's query would send an empty filter.
    odata = odata_filter(query)
    found = client.query_entities(odata, **options) if odata else client.list_entities(**options)
    pages = found.by_page(continuation_token=read_token(token))
    rows = [row_of(entity) for entity in next(pages, ())]
    return [row for row in rows if _in_time(row, query)], write_token(pages.continuation_token)


def _in_time(row: Row, query: Query) -> bool:
    moment = moment_of(row.properties.get("updated_at"))
    return moment is None or (
        (query.since is None or query.since <= moment)
        and (query.until is None or moment < query.until)
    )


def tally(_client: Any, _partition: str | None) -> None:
    """Count nothing: the service cannot."""


def reclaim(client: Any) -> None:
    """Do nothing: the service keeps no space of deleted rows."""
