"""The primitives on rows as requests of the SDK, written once for its clients of both kinds.

Each is a generator that yields what a call of the client returns: the result, or what is awaited
for it. Its driver sends the result back, or throws the error in.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.data.tables import TableClient, UpdateMode

from ._rows import Query, Row, RowChangedError, RowExistsError, RowUnknownError, Tally
from ._table_errors import is_outdated, is_table_missing
from ._table_rows import (
    TALLIED,
    attempts_of,
    columns_of,
    deleting,
    entity_of,
    etag_of,
    if_version,
    keys_of,
    pages_of,
    replacing,
    row_of,
    tally_of,
    write_token,
)

__all__ = ["PRIMITIVES", "Requests", "make_table"]

_log = logging.getLogger("infra_core.azure.job_store")

T = TypeVar("T")
Requests = Generator[Any, Any, T]


def make_table(client: Any) -> Requests[None]:
    """Create the table; one that exists is kept, and a refusal to create tables is passed over."""
    try:
        yield client.create_table()
    except ResourceExistsError:
        return
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
        # Reading and writing may still be allowed.
        _log.debug("not allowed to create the job table; going on without", extra={"status": 403})


def insert(client: Any, row: Row) -> Requests[str]:
    try:
        return etag_of((yield client.create_entity(entity_of(row))))
    except ResourceExistsError as error:
        raise RowExistsError from error
    except (ServiceRequestError, ServiceResponseError) as error:
        # The SDK sends no POST again; over aiohttp a lost answer is a request error to it.
        if isinstance(error, ServiceRequestError) and isinstance(client, TableClient):
            raise
        raise RowUnknownError from error


def upsert(client: Any, row: Row) -> Requests[str]:
    return etag_of((yield client.upsert_entity(entity_of(row), mode=UpdateMode.REPLACE)))


def upsert_many(client: Any, rows: Sequence[Row]) -> Requests[list[str]]:
    mode = {"mode": UpdateMode.REPLACE}
    done = yield client.submit_transaction([("upsert", entity_of(row), mode) for row in rows])
    return [etag_of(metadata) for metadata in done]


def replace(client: Any, row: Row, etag: str) -> Requests[str]:
    sent: list[int] = []
    try:
        metadata = yield client.update_entity(
            entity_of(row),
            mode=UpdateMode.REPLACE,
            raw_response_hook=lambda response: sent.append(attempts_of(response)),
            **if_version(etag),
        )
    except (ResourceModifiedError, ResourceNotFoundError) as error:
        if is_table_missing(error):
            raise
        raise RowChangedError(resent=sent[-1:] > [1]) from error
    return etag_of(metadata)


def replace_many(client: Any, rows: Sequence[Row]) -> Requests[list[str | None]]:
    done: list[str | None] = []
    try:
        done += map(etag_of, (yield client.submit_transaction([replacing(r) for r in rows])))
    except HttpResponseError as error:
        if not is_outdated(error):
            raise
        for row in rows:  # one of them changed; which, the service does not say of all
            try:
                done.append((yield from replace(client, row, str(row.etag))))
            except RowChangedError:
                done.append(None)
    return done


def get(client: Any, partition: str, key: str) -> Requests[Row | None]:
    try:
        return row_of((yield client.get_entity(partition, key)))
    except ResourceNotFoundError as error:
        if is_table_missing(error):
            raise
        return None


def delete(client: Any, partition: str, key: str, etag: str | None) -> Requests[bool]:
    answers: list[Any] = []
    try:
        yield client.delete_entity(
            partition,
            key,
            raw_response_hook=lambda response: answers.append(response.http_response),
            **if_version(etag),
        )
    except ResourceModifiedError as error:
        raise RowChangedError from error
    # The SDK keeps quiet about a row that is not there, and about a table.
    if not answers or answers[-1].status_code != 404:
        return True
    if "TableNotFound" in answers[-1].text():
        missing = ResourceNotFoundError("The table does not exist", response=answers[-1])
        setattr(missing, "error_code", "TableNotFound")  # noqa: B010 - as the SDK does
        raise missing
    return False


def delete_many(client: Any, rows: Sequence[Row]) -> Requests[int]:
    try:
        return len((yield client.submit_transaction([deleting(row) for row in rows])))
    except HttpResponseError as error:
        if not is_outdated(error):
            raise
    count = 0
    for row in rows:
        with suppress(RowChangedError):
            count += yield from delete(client, row.partition, row.key, row.etag)
    return count


def page(
    client: Any, query: Query, limit: int, token: str | None
) -> Requests[tuple[list[Row], str | None]]:
    pages = pages_of(client, query, token, results_per_page=limit, **columns_of(query))
    entities = yield _first(pages)
    rows = keys_of(query, entities) if query.keys_only else list(map(row_of, entities))
    return rows, write_token(pages.continuation_token)


def tally(
    client: Any, partition: str | None, token: str | None
) -> Requests[tuple[list[Tally], str | None]]:
    options = {"select": TALLIED, "results_per_page": 1_000}
    pages = pages_of(client, Query(partition), token, **options)
    entities = yield _first(pages)
    return tally_of(entities), write_token(pages.continuation_token)


def reclaim(client: Any) -> Requests[None]:
    yield from ()  # the service keeps no space of deleted rows


PRIMITIVES: dict[str, Callable[..., Requests[Any]]] = {
    primitive.__name__: primitive
    for primitive in (
        *(insert, upsert, upsert_many, replace, replace_many, get, delete, delete_many),
        *(page, tally, reclaim),
    )
}
"""Those of `Primitives`, by name; each takes the client first."""


def _first(pages: Any) -> Any:
    """The entities of the first page, or what is awaited for them."""
    return _awaited(pages) if hasattr(pages, "__anext__") else list(next(pages, ()))


async def _awaited(pages: Any) -> list[Any]:
    async for page in pages:
        return [entity async for entity in page]
    return []
