"""Where the job table is and how to reach it."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from infra_core.runtime import sanitize_url

from ..exceptions import AzureTableError, ConfigurationError
from ..storage._connection_string import (
    ACCOUNT,
    ConnectionParts,
    check_endpoint,
    parse_connection_string,
    shown,
    sibling_endpoint,
)
from ._protocol import JobStore
from ._records import JobRecord, RecordT

__all__ = ["TableConfig", "open_job_store"]

_log = logging.getLogger("infra_core.azure.job_store")

CONNECTION_VAR: Final = "AZURE_JOB_CONNECTION"
TABLE_VAR: Final = "AZURE_JOB_TABLE"
FALLBACK_VAR: Final = "AZURE_STORAGE_CONNECTION_STRING"
ACCOUNT_VAR: Final = "AZURE_STORAGE_ACCOUNT"
ENDPOINT_VAR: Final = "AZURE_STORAGE_TABLE_ENDPOINT"
BLOB_ENDPOINT_VAR: Final = "AZURE_STORAGE_BLOB_ENDPOINT"

# Azure, "Understanding the Table service data model": table names.
_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}\Z")


@dataclass(frozen=True)
class TableConfig:
    """The job table: its name and either a connection string or an account.

    With a connection string its key or SAS is used (`UseDevelopmentStorage=true` means Azurite);
    with an account name or endpoint, `DefaultAzureCredential`.

    Args:
        connection_string: Connection string of the storage account.
        table_name: Name of the table; it is made on first use.
        account_name: Storage account, when there is no connection string.
        table_endpoint: Endpoint of its table service, when it is not the usual one.

    Raises:
        TypeError: No table name is given.
        AzureTableError: The table name is one that Azure refuses.
    """

    connection_string: str | None = field(default=None, repr=False)  # holds the account key
    table_name: str = None  # type: ignore[assignment] # 0.7's order: the default is refused
    account_name: str | None = field(default=None, kw_only=True)
    table_endpoint: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.table_name is None:
            raise TypeError("TableConfig needs a table_name; pass the name of the job table")
        names = ("table_name", "connection_string", "account_name", "table_endpoint")
        _check(*((name, getattr(self, name)) for name in names))

    @property
    def resolved_table_endpoint(self) -> str | None:
        """The endpoint, made from the account name when none is given."""
        if self.table_endpoint:
            return self.table_endpoint
        if self.account_name:
            return f"https://{self.account_name}.table.core.windows.net"
        return None

    @classmethod
    def from_env(
        cls,
        *,
        connection_var: str = CONNECTION_VAR,
        table_var: str = TABLE_VAR,
        fallback_connection_var: str = FALLBACK_VAR,
        env: Mapping[str, str] | None = None,
    ) -> "TableConfig":
        """Read the configuration from environment variables.

        Args:
            connection_var: Variable with the connection string.
            table_var: Variable with the table name.
            fallback_connection_var: Variable to look into when `connection_var` is empty.
            env: The environment; that of the process by default. An empty mapping is honoured.

        Raises:
            AzureTableError: A setting is missing; the message names the variable.
        """
        source = os.environ if env is None else env

        def read(variable: str) -> str | None:
            return (source.get(variable) or "").strip() or None

        table_name = read(table_var)
        if table_name is None:
            raise AzureTableError(
                f"{table_var} is not set; set it to the name of the table that tracks the jobs"
            )
        connection = read(connection_var) or read(fallback_connection_var)
        account, endpoint = read(ACCOUNT_VAR), read(ENDPOINT_VAR)
        if connection is None and account is None and endpoint is None:
            raise AzureTableError(
                f"no connection for the job table {table_name!r}: set {connection_var} (or "
                f"{fallback_connection_var}) to a connection string, or {ACCOUNT_VAR} (or "
                f"{ENDPOINT_VAR}) to use DefaultAzureCredential"
            )
        if connection is None and endpoint is None:
            # A sovereign cloud or a private host is named once, for blobs: tables are beside them.
            endpoint = sibling_endpoint(read(BLOB_ENDPOINT_VAR) or "", "table") or None
        used = connection_var if read(connection_var) else fallback_connection_var
        _check(
            (table_var, table_name),
            (used, connection),
            (ACCOUNT_VAR, account),
            (ENDPOINT_VAR, endpoint),
        )
        config = cls(connection, table_name, account_name=account, table_endpoint=endpoint)
        object.__setattr__(config, "_connection_name", used)
        return config

    def connection(self) -> ConnectionParts | None:
        """Read the connection string; `None` where there is none.

        Raises:
            AzureTableError: It is malformed; names the variable and the part, never the secret.
        """
        if not self.connection_string:
            return None
        name = self.__dict__.get("_connection_name", "the connection string")
        try:
            return parse_connection_string(self.connection_string, name, service="table")
        except ConfigurationError as error:
            raise AzureTableError(
                f"the connection string of the job table {self.table_name!r} cannot be read: "
                f"{error}"
            ) from None


_Setting = tuple[str, str | None]  # where it comes from, and its value


def _check(table: _Setting, connection: _Setting, account: _Setting, endpoint: _Setting) -> None:
    """Refuse settings that cannot be right; account and endpoint only where they are used."""
    if isinstance(table[1], str) and ("=" in table[1] or ";" in table[1]):
        raise AzureTableError(
            f"{table[0]} holds what looks like a connection string: put the name of the table "
            f"there, and the connection string into {connection[0]}"
        )
    name = table[1]
    if not isinstance(name, str) or not _TABLE_NAME.match(name) or name.lower() == "tables":
        raise AzureTableError(
            f"{table[0]}={shown(name)} cannot name a table: 3 to 63 letters and digits, the first "
            "one a letter, and not 'tables'; choose another name"
        )
    if not isinstance(connection[1], (str, type(None))):
        raise AzureTableError(f"{connection[0]} is not text: pass a connection string, or None")
    if connection[1]:
        return
    if endpoint[1]:
        try:
            check_endpoint(endpoint[1], endpoint[0], "the connection string", "table")
        except ConfigurationError:
            raise AzureTableError(
                f"{endpoint[0]}={shown(sanitize_url(endpoint[1]))} is not an endpoint: give the "
                "plain https:// URL of the table service, such as "
                "https://ACCOUNT.table.core.windows.net, without key or query"
            ) from None
    elif account[1] and not ACCOUNT.fullmatch(account[1]):
        raise AzureTableError(
            f"{account[0]}={shown(sanitize_url(account[1]))} cannot name a storage account: 3 to "
            f"24 lower-case letters and digits; give the name alone, or a URL as {endpoint[0]}"
        )


def open_job_store(
    env: Mapping[str, str] | None = None,
    *,
    sqlite_path: Path | str,
    record_type: type[RecordT] = JobRecord,  # type: ignore[assignment]
) -> JobStore[RecordT]:
    """Open the Azure Table store when the environment configures one, else the embedded one.

    The table is used when `AZURE_JOB_TABLE` names it and `AZURE_JOB_CONNECTION`,
    `AZURE_STORAGE_CONNECTION_STRING`, `AZURE_STORAGE_ACCOUNT` or `AZURE_STORAGE_TABLE_ENDPOINT`
    says where it is. A table name without any of these is logged as a warning.

    Args:
        env: The environment; that of the process by default.
        sqlite_path: File of the embedded store.
        record_type: Type of the records.
    """
    source = os.environ if env is None else env
    connections = (CONNECTION_VAR, FALLBACK_VAR, ACCOUNT_VAR, ENDPOINT_VAR)
    if (source.get(TABLE_VAR) or "").strip():
        if any((source.get(variable) or "").strip() for variable in connections):
            from ._table import AzureTableJobStore

            return AzureTableJobStore(record_type=record_type, env=source)
        _log.warning(
            "%s is set and none of %s is: jobs are kept in %s",
            TABLE_VAR,
            ", ".join(connections),
            sqlite_path,
        )
    from ._sqlite import SqliteJobStore

    return SqliteJobStore(sqlite_path, record_type)
