"""The job store in Azure Table storage."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, overload

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceResponseError,
)
from azure.data.tables import TableClient, UpdateMode

from ._config import CONNECTION_VAR, FALLBACK_VAR, TABLE_VAR, TableConfig
from ._records import JobRecord
from ._rows import Query, Row, RowChangedError, RowExistsError, RowUnknownError, Tally, plan_batches
from ._steps import JobSteps
from ._sync import SyncJobStore
from ._table_clients import SharedClient, acquire_client
from ._table_errors import is_outdated, is_table_missing, table_error
from ._table_rows import (
    TALLIED,
    attempts_of,
    columns_of,
    deleting,
    entity_of,
    etag_of,
    if_version,
    pages_of,
    replacing,
    row_of,
    tally_of,
    write_token,
)

__all__ = ["AzureTableJobStore"]

RecordT = TypeVar("RecordT")

_DEFAULT: Any = JobRecord


class AzureTableJobStore(SyncJobStore[RecordT]):
    """Keeps jobs in an Azure table: one partition per batch, one row per job.

    Stores of the same configuration share one client, which is closed with the last of them; a
    store that is dropped without `close()` gives its share back as well. Nothing is sent before
    the first operation, which also makes the table.

    Args:
        record_type: A dataclass with `batch_id` and `job_id`, or a class with `to_entity()` and
            `from_entity()`. `JobRecord` by default.
        connection_string_var: Environment variable with the connection string.
        table_name_var: Environment variable with the table's name.
        fallback_connection_var: Variable to look into when the first is empty.
        config: The configuration, in place of environment variables.
        env: The environment; that of the process by default.

    Raises:
        AzureTableError: A setting is missing or malformed; the message names it.
        JobRecordError: The record type cannot be stored.
        TableRequestError: From operations: the service refused, after the SDK's retries.
        TableConnectionError: From operations: it could not be reached, or its answer was lost.
    """

    @overload
    def __init__(
        self: "AzureTableJobStore[JobRecord]",
        *,
        connection_string_var: str = ...,
        table_name_var: str = ...,
        fallback_connection_var: str = ...,
        config: TableConfig | None = ...,
        env: Mapping[str, str] | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        record_type: type[RecordT],
        connection_string_var: str = ...,
        table_name_var: str = ...,
        fallback_connection_var: str = ...,
        config: TableConfig | None = ...,
        env: Mapping[str, str] | None = ...,
    ) -> None: ...

    def __init__(
        self,
        *,
        record_type: type[RecordT] = _DEFAULT,
        connection_string_var: str = CONNECTION_VAR,
        table_name_var: str = TABLE_VAR,
        fallback_connection_var: str = FALLBACK_VAR,
        config: TableConfig | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config or TableConfig.from_env(
            connection_var=connection_string_var,
            table_var=table_name_var,
            fallback_connection_var=fallback_connection_var,
            env=env,
        )
        self._steps = JobSteps(record_type, plan_batches)
        self._table = _TableRows(self._config)
        self._release = weakref.finalize(self, self._table.close)

    @property
    def config(self) -> TableConfig:
        """Where the table is."""
        return self._config

    @property
    def client(self) -> TableClient:
        """The SDK's client of the table, for what this store does not do."""
        return self._table.client()

    def table_exists(self) -> bool:
        """Whether the table is there; unlike every other operation it does not make it.

        Raises:
            TableRequestError: The service refused.
            TableConnectionError: It could not be reached.
        """
        return self._table.exists()

    def close(self) -> None:
        """Give the shared client back. The store may be used again; it leases it anew."""
        self._table.close()

    def _backend(self) -> "_TableRows":
        return self._table


class _TableRows:
    """The backend: primitives on rows, by the SDK's synchronous client."""

    def __init__(self, config: TableConfig) -> None:
        self._config = config
        self._shared, release = acquire_client(config)
        self._release: Callable[[], None] | None = release

    def _leased(self) -> SharedClient:
        if self._release is None:
            self._shared, self._release = acquire_client(self._config)
        return self._shared

    def client(self) -> TableClient:
        return self._leased().table()

    def exists(self) -> bool:
        shared = self._leased()
        try:
            return shared.exists()
        except Exception as error:
            explained = self.explain(error, "looking for the table")
            if explained is error:
                raise
            raise explained from error

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()

    def explain(self, error: Exception, doing: str) -> Exception:
        return table_error(error, doing, self._config)

    def insert(self, row: Row) -> str:
        try:
            return etag_of(self.client().create_entity(entity_of(row)))
        except ResourceExistsError as error:
            raise RowExistsError from error
        except ServiceResponseError as error:  # the SDK sends no POST again
            raise RowUnknownError from error

    def upsert(self, row: Row) -> str:
        return etag_of(self.client().upsert_entity(entity_of(row), mode=UpdateMode.REPLACE))

    def upsert_many(self, rows: Sequence[Row]) -> list[str]:
        mode = {"mode": UpdateMode.REPLACE}
        done = self.client().submit_transaction([("upsert", entity_of(r), mode) for r in rows])
        return [etag_of(metadata) for metadata in done]

    def replace(self, row: Row, etag: str) -> str:
        sent: list[int] = []
        try:
            metadata = self.client().update_entity(
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

    def get(self, partition: str, key: str) -> Row | None:
        try:
            return row_of(self.client().get_entity(partition, key))
        except ResourceNotFoundError as error:
            if is_table_missing(error):
                raise
            return None

    def delete(self, partition: str, key: str, etag: str | None) -> bool:
        statuses: list[int] = []
        try:
            self.client().delete_entity(
                partition,
                key,
                raw_response_hook=lambda r: statuses.append(r.http_response.status_code),
                **if_version(etag),
            )
        except ResourceModifiedError as error:
            raise RowChangedError from error
        return statuses[-1:] != [404]  # the SDK keeps quiet about a row that is not there

    def page(self, query: Query, limit: int, token: str | None) -> tuple[list[Row], str | None]:
        client = self.client()
        pages = pages_of(client, query, token, results_per_page=limit, **columns_of(query))
        rows = [row_of(entity) for entity in next(pages, ())]
        return rows, write_token(pages.continuation_token)

    def tally(self, partition: str | None, token: str | None) -> tuple[list[Tally], str | None]:
        options = {"select": TALLIED, "results_per_page": 1_000}
        pages = pages_of(self.client(), Query(partition), token, **options)
        tallies = tally_of(next(pages, ()))
        return tallies, write_token(pages.continuation_token)

    def replace_many(self, rows: Sequence[Row]) -> list[str | None]:
        done: list[str | None] = []
        try:
            done += map(etag_of, self.client().submit_transaction([replacing(r) for r in rows]))
        except HttpResponseError as error:
            if not is_outdated(error):
                raise
            for row in rows:  # one of them changed; which, the service does not say of all
                try:
                    done.append(self.replace(row, str(row.etag)))
                except RowChangedError:
                    done.append(None)
        return done

    def delete_many(self, rows: Sequence[Row]) -> int:
        try:
            return len(self.client().submit_transaction([deleting(r) for r in rows]))
        except HttpResponseError as error:
            if not is_outdated(error):
                raise
        count = 0
        for row in rows:
            with suppress(RowChangedError):
                count += self.delete(row.partition, row.key, row.etag)
        return count

    def reclaim(self) -> None:
        """Nothing to do: the service keeps no space of deleted rows."""
