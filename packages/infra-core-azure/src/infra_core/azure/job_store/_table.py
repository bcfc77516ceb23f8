"""The job store in Azure Table storage."""

import os
import threading
import weakref
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Generic

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableClient
from infra_core.runtime import ThreadPool, after_fork_in_child, sanitize_url

from .._checks import type_name
from .._network import sync_transport
from .._sdk_logs import tidy_sdk_logs
from ..exceptions import AzureTableError
from . import _table_rows
from ._config import CONNECTION_VAR, FALLBACK_VAR, TABLE_VAR, TableConfig
from ._records import JobRecord, RecordT
from ._row_store import RowJobStore
from ._rows import plan_batches
from ._table_errors import refusal_of, table_error
from ._table_rows import CLIENT_OPTIONS, make_table

__all__ = ["AzureTableJobStore", "TableJobStore", "reset_table_client_cache"]

_lock = threading.Lock()
# A client is closed as soon as no store holds it.
_cache: "weakref.WeakValueDictionary[TableConfig, SharedClient]" = weakref.WeakValueDictionary()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


after_fork_in_child(_new_lock)


class SharedClient:
    """The backend: primitives by one client, which is closed with the last store that holds it."""

    def __init__(self, config: TableConfig) -> None:
        self._config = config
        # For asynchronous stores. Of this client alone: operations that its service does not
        # answer hold none of another table up.
        self.threads = ThreadPool("infra-core-table", 64)
        weakref.finalize(self, self.threads.close).atexit = False
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        self._ready = threading.Lock()
        self._made: TableClient | None = None
        self._failure: Exception | None = None
        self._credential: Any = None
        self._open: list[Any] = []
        weakref.finalize(self, _close, os.getpid(), self._open)

    def table(self) -> TableClient:
        """Return the client; the first call connects and makes the table if need be.

        Calls that come meanwhile wait for it, and share its error: were each to try in its turn, a
        service that is silent would hold the last of them up for all their timeouts together.
        """
        before = self._failure
        with self._ready:
            if self._failure is not before and self._failure is not None:
                raise self._failure
            if self._made is None:
                table = self._connect()
                try:
                    make_table(table)
                except BaseException as error:
                    table.close()
                    if isinstance(error, Exception):  # no call that was given up
                        self._failure = error
                    raise
                self._open.append(table)
                self._made, self._failure = table, None
            return self._made

    def exists(self) -> bool:
        """Whether the table is there, without making it."""
        try:
            with closing(self._connect()) as table:
                next(iter(table.query_entities("PartitionKey eq ''", results_per_page=1)), None)
        except ResourceNotFoundError:
            return False
        except Exception as error:
            explained = self.explain(error, "looking for the table")
            if explained is error:
                raise
            raise explained from error
        return True

    def perform(self, name: str, *args: Any) -> Any:
        """As `Backend.perform`."""
        try:
            return getattr(_table_rows, name)(self.table(), *args)
        except Exception as error:
            # The SDK itself asks again where the service names a tenant: elsewhere, it is done
            # here, with a new token.
            refused = refusal_of(error)
            if refused is None or refused.status_code != 401 or self._credential is None:
                raise
            headers: Any = getattr(refused.response, "headers", {})
            if "authorization" in headers.get("WWW-Authenticate", ""):
                raise
        return getattr(_table_rows, name)(self.table(), *args)

    def explain(self, error: Exception, doing: str) -> Exception:
        """As `Backend.explain`."""
        return table_error(error, doing, self._config)

    def _connect(self) -> TableClient:
        """Return a client of the SDK, which has sent nothing yet."""
        tidy_sdk_logs()
        config, parts = self._config, self._config.connection()
        credential: Any
        if parts is None:
            endpoint, credential = str(config.resolved_table_endpoint), self._identity()
        else:
            endpoint = parts.table_endpoint
            credential = (
                AzureSasCredential(parts.sas_token)
                if parts.sas_token
                else AzureNamedKeyCredential(str(parts.account_name), str(parts.account_key))
            )
        transport = sync_transport(
            refused=credential.refused if parts is None else None, **CLIENT_OPTIONS
        )
        options = {**CLIENT_OPTIONS, "transport": transport}
        try:
            return TableClient(endpoint, config.table_name, credential=credential, **options)
        except ValueError as error:
            raise AzureTableError(
                f"the endpoint {sanitize_url(endpoint)!r} of the job table {config.table_name!r} "
                f"cannot be used ({str(error).rstrip('.')}); DefaultAzureCredential needs an "
                "https:// endpoint, Azurite a connection string"
            ) from error

    def _identity(self) -> Any:
        from .._tokens import SdkCredential, TokenSource

        if self._credential is None:
            self._credential = SdkCredential(TokenSource())
            self._open.append(self._credential)
        return self._credential


def _close(process: int, resources: list[Any]) -> None:
    """Close what this process has opened; a forked child leaves alone what it has inherited."""
    if process == os.getpid():
        for resource in resources:
            resource.close()


def shared_client(config: TableConfig) -> SharedClient:
    """Return the client of a configuration, which the stores of this process share."""
    with _lock:
        return _cache.get(config) or _cache.setdefault(config, SharedClient(config))


def reset_table_client_cache() -> None:
    """Forget the shared clients: stores made from now on connect anew.

    Stores that are open keep their client until they are closed.
    """
    with _lock:
        _cache.clear()


class TableJobStore(Generic[RecordT]):
    """What the synchronous and the asynchronous store share: their settings."""

    def __init__(
        self,
        *,
        record_type: type[RecordT] = JobRecord,  # type: ignore[assignment]
        connection_string_var: str = CONNECTION_VAR,
        table_name_var: str = TABLE_VAR,
        fallback_connection_var: str = FALLBACK_VAR,
        config: TableConfig | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        found: object = config or TableConfig.from_env(
            connection_var=connection_string_var,
            table_var=table_name_var,
            fallback_connection_var=fallback_connection_var,
            env=env,
        )
        if not isinstance(found, TableConfig):  # its value may hold a key
            kind = type_name(found)
            raise TypeError(f"config is {kind}: pass TableConfig(connection, table_name)")
        self._config = found
        if not (found.connection_string or found.resolved_table_endpoint):
            raise AzureTableError(
                f"no connection for the job table {found.table_name!r}: give a connection_string, "
                "or an account_name or table_endpoint to use DefaultAzureCredential"
            )
        self._open(record_type)

    def _open(self, record_type: type[RecordT]) -> None:
        raise TypeError(f"{type(self).__name__} provides no client")

    @property
    def config(self) -> TableConfig:
        """Where the table is."""
        return self._config


class AzureTableJobStore(TableJobStore[RecordT], RowJobStore[RecordT]):
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

    def _open(self, record_type: type[RecordT]) -> None:
        self._keep(record_type, plan_batches)
        self._held: SharedClient | None = shared_client(self._config)

    def _backend(self) -> SharedClient:
        self._held = held = self._held or shared_client(self._config)
        return held

    @property
    def client(self) -> TableClient:
        """The SDK's client of the table, for what this store does not do."""
        return self._backend().table()

    def table_exists(self) -> bool:
        """Whether the table is there; unlike every other operation it does not make it.

        Raises:
            TableRequestError: The service refused.
            TableConnectionError: It could not be reached.
        """
        return self._backend().exists()

    def close(self) -> None:
        """Give the shared client back. The store may be used again; it leases it anew."""
        self._held = None
