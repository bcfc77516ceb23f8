"""The job store that the environment asks for."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from ._config import ACCOUNT_VAR, CONNECTION_VAR, ENDPOINT_VAR, FALLBACK_VAR, TABLE_VAR
from ._protocol import JobStore
from ._records import JobRecord, RecordT

__all__ = ["open_job_store"]

_log = logging.getLogger("infra_core.azure.job_store")


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
