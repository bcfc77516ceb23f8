"""Shared table clients: stores of one configuration use one, closed with the last of them."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.data.tables import TableClient
from infra_core.runtime import sanitize_url

from .._checks import type_name
from .._network import sync_transport
from .._sdk_logs import tidy_sdk_logs
from ..exceptions import AzureTableError
from ._config import TableConfig
from ._table_rows import CLIENT_OPTIONS

__all__ = ["SharedClient", "acquire_client", "reset_table_client_cache", "table_client_options"]

_log = logging.getLogger("infra_core.azure.job_store")

_MAX_CACHED = 16

_lock = threading.Lock()
_cache: OrderedDict[tuple[int, TableConfig], "SharedClient"] = OrderedDict()


def table_client_options(config: TableConfig) -> dict[str, Any]:
    """Return the keyword arguments of a client of this configuration.

    Raises:
        AzureTableError: There is neither a connection string nor an endpoint.
        TypeError: It is no configuration.
    """
    if not isinstance(config, TableConfig):  # its value may hold a key
        raise TypeError(f"config is {type_name(config)}: pass TableConfig(connection, table_name)")
    if config.connection_string or config.resolved_table_endpoint:
        return dict(CLIENT_OPTIONS)
    raise AzureTableError(
        f"no connection for the job table {config.table_name!r}: give a connection_string, or an "
        "account_name or table_endpoint to use DefaultAzureCredential"
    )


class SharedClient:
    """A table client, its credential, and how many stores lease it."""

    def __init__(self, config: TableConfig) -> None:
        self.config = config
        self.leases = 0
        self.cached = True
        self._ready = threading.Lock()
        self._table: TableClient | None = None
        self._credential: Any = None
        self._options = table_client_options(config)

    def table(self) -> TableClient:
        """Return the client; the first call connects and makes the table if need be."""
        with self._ready:
            if self._table is None:
                table = self._connect()
                try:
                    create_table(table.create_table)
                except BaseException:
                    table.close()
                    raise
                self._table = table
            return self._table

    def exists(self) -> bool:
        """Whether the table is there, without making it."""
        with self._ready:
            if self._table is not None:
                return True
            table = self._connect()
        try:
            next(iter(table.query_entities("PartitionKey eq ''", results_per_page=1)), None)
        except ResourceNotFoundError:
            return False
        finally:
            table.close()
        return True

    def close(self) -> None:
        """Close the client and its credential."""
        with self._ready:
            table, self._table = self._table, None
            credential, self._credential = self._credential, None
        for resource in (table, credential):
            if resource is not None:
                resource.close()

    def _connect(self) -> TableClient:
        tidy_sdk_logs()
        config = self.config
        connection = config.plain_connection()
        options = {**self._options, "transport": sync_transport(**self._options)}
        try:
            if connection is not None:
                return TableClient.from_connection_string(connection, config.table_name, **options)
            from .._tokens import SdkCredential, TokenSource

            self._credential = self._credential or SdkCredential(TokenSource())
            endpoint = str(config.resolved_table_endpoint)
            return TableClient(endpoint, config.table_name, credential=self._credential, **options)
        except ValueError as error:
            raise malformed(config, error) from error


def malformed(config: TableConfig, error: ValueError) -> AzureTableError:
    """Return the error for settings that the SDK refuses; without the connection string."""
    said = str(error).rstrip(".")
    parts = config.connection()
    endpoint = parts.table_endpoint if parts else config.resolved_table_endpoint
    return AzureTableError(
        f"the endpoint {sanitize_url(str(endpoint))!r} of the job table {config.table_name!r} "
        f"cannot be used ({said}); DefaultAzureCredential needs an https:// endpoint, Azurite a "
        "connection string"
    )


def create_table(create: Callable[[], object]) -> None:
    """Make the table; that it is there, or that we may not make tables, is no error."""
    try:
        create()
    except ResourceExistsError:
        return
    except HttpResponseError as error:
        tolerate_refusal(error)


def tolerate_refusal(error: HttpResponseError) -> None:
    """Go on when the credential may not make tables: reading and writing may still be allowed."""
    if error.status_code != 403:
        raise error
    _log.debug("not allowed to create the job table; going on without", extra={"status": 403})


def acquire_client(config: TableConfig) -> tuple[SharedClient, Callable[[], None]]:
    """Lease the shared client of a configuration; the second item gives it back, once."""
    key = (os.getpid(), config)  # sockets must not be shared with a forked parent
    evicted: SharedClient | None = None
    with _lock:
        shared = _cache.get(key)
        if shared is None:
            shared = _cache[key] = SharedClient(config)
            if len(_cache) > _MAX_CACHED:
                _, oldest = _cache.popitem(last=False)
                oldest.cached = False
                evicted = oldest if oldest.leases == 0 else None
        _cache.move_to_end(key)
        shared.leases += 1
    if evicted is not None:
        evicted.close()
    released = False

    def release() -> None:
        nonlocal released
        with _lock:
            if released:
                return
            released = True
            shared.leases -= 1
            if shared.leases == 0 and shared.cached:
                _cache.pop(key, None)
                shared.cached = False
            last = shared.leases == 0
        if last:
            shared.close()

    return shared, release


def reset_table_client_cache() -> None:
    """Forget the shared clients: stores made from now on connect anew.

    Stores that are open keep their client until they are closed.
    """
    with _lock:
        dropped = list(_cache.values())
        _cache.clear()
        for shared in dropped:
            shared.cached = False
    for shared in dropped:
        if shared.leases == 0:
            shared.close()
