"""Job tracking: one interface, kept in Azure Table storage or in an embedded SQLite file."""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from ..exceptions import (
        AzureTableError as AzureTableError,
        JobConflictError as JobConflictError,
        JobExistsError as JobExistsError,
        JobRecordError as JobRecordError,
        JobStateError as JobStateError,
    )
    from ._config import TableConfig as TableConfig
    from ._open import open_job_store as open_job_store
    from ._protocol import AsyncJobStore as AsyncJobStore, JobStore as JobStore
    from ._records import JobRecord as JobRecord, JobStatus as JobStatus
    from ._sqlite import SqliteJobStore as SqliteJobStore
    from ._table import AzureTableJobStore as AzureTableJobStore
    from ._table_async import AsyncAzureTableJobStore as AsyncAzureTableJobStore
    from ._table_clients import reset_table_client_cache as reset_table_client_cache
    from ._table_errors import (
        TableAccessError as TableAccessError,
        TableConnectionError as TableConnectionError,
        TableNotFoundError as TableNotFoundError,
        TableRequestError as TableRequestError,
    )

__all__ = [
    "AsyncAzureTableJobStore",
    "AsyncJobStore",
    "AzureTableError",
    "AzureTableJobStore",
    "JobConflictError",
    "JobExistsError",
    "JobRecord",
    "JobRecordError",
    "JobStateError",
    "JobStatus",
    "JobStore",
    "SqliteJobStore",
    "TableAccessError",
    "TableConfig",
    "TableConnectionError",
    "TableNotFoundError",
    "TableRequestError",
    "open_job_store",
    "reset_table_client_cache",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "..exceptions": [
            "AzureTableError",
            "JobConflictError",
            "JobExistsError",
            "JobRecordError",
            "JobStateError",
        ],
        "._config": ["TableConfig"],
        "._open": ["open_job_store"],
        "._protocol": ["AsyncJobStore", "JobStore"],
        "._records": ["JobRecord", "JobStatus"],
        "._sqlite": ["SqliteJobStore"],
        "._table": ["AzureTableJobStore"],
        "._table_async": ["AsyncAzureTableJobStore"],
        "._table_clients": ["reset_table_client_cache"],
        "._table_errors": [
            "TableAccessError",
            "TableConnectionError",
            "TableNotFoundError",
            "TableRequestError",
        ],
    },
)
