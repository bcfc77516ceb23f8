"""Azure for services: blob mirroring, job tracking, monitoring, telemetry and Functions clients.

Nothing of the Azure SDKs is imported before the name that needs it is used.
"""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from . import client as client, monitoring as monitoring
    from .client import (
        AzureFunctionAsyncClient as AzureFunctionAsyncClient,
        AzureFunctionSyncClient as AzureFunctionSyncClient,
        RequestOptions as RequestOptions,
    )
    from .exceptions import (
        AzureServiceError as AzureServiceError,
        AzureTableError as AzureTableError,
        ConfigurationError as ConfigurationError,
        JobConflictError as JobConflictError,
        JobExistsError as JobExistsError,
        JobNotFoundError as JobNotFoundError,
        JobTimeoutError as JobTimeoutError,
        ResumeSourceActive as ResumeSourceActive,
        ResumeSourceNotFound as ResumeSourceNotFound,
        RunNotFound as RunNotFound,
        RunServiceError as RunServiceError,
    )
    from .function_cli import (
        add_azure_service_arguments as add_azure_service_arguments,
    )
    from .job_store import (
        AzureTableJobStore as AzureTableJobStore,
        TableConfig as TableConfig,
        reset_table_client_cache as reset_table_client_cache,
    )
    from .monitoring import (
        HeartbeatMonitor as HeartbeatMonitor,
        RunLogWriter as RunLogWriter,
        TelemetryClient as TelemetryClient,
        TelemetryConfig as TelemetryConfig,
        TelemetryEvent as TelemetryEvent,
    )
    from .run_service import (
        RunStorageMixin as RunStorageMixin,
    )
    from .run_storage import (
        build_manifest as build_manifest,
        build_run_storage_path as build_run_storage_path,
        collect_blob_files as collect_blob_files,
        collect_local_files as collect_local_files,
        resolve_base_path as resolve_base_path,
    )
    from .storage import (
        AzureStorageClient as AzureStorageClient,
        AzureStorageSettings as AzureStorageSettings,
        StorageMode as StorageMode,
        get_client as get_client,
        get_shared_client as get_shared_client,
        is_configured as is_configured,
        reset_all_clients as reset_all_clients,
        reset_shared_client as reset_shared_client,
        reset_shared_client_async as reset_shared_client_async,
        set_shared_client as set_shared_client,
    )

__all__ = [
    "AzureFunctionAsyncClient",
    "AzureFunctionSyncClient",
    "AzureServiceError",
    "AzureStorageClient",
    "AzureStorageSettings",
    "AzureTableError",
    "AzureTableJobStore",
    "ConfigurationError",
    "HeartbeatMonitor",
    "JobConflictError",
    "JobExistsError",
    "JobNotFoundError",
    "JobTimeoutError",
    "RequestOptions",
    "ResumeSourceActive",
    "ResumeSourceNotFound",
    "RunLogWriter",
    "RunNotFound",
    "RunServiceError",
    "RunStorageMixin",
    "StorageMode",
    "TableConfig",
    "TelemetryClient",
    "TelemetryConfig",
    "TelemetryEvent",
    "add_azure_service_arguments",
    "build_manifest",
    "build_run_storage_path",
    "client",
    "collect_blob_files",
    "collect_local_files",
    "get_client",
    "get_shared_client",
    "is_configured",
    "monitoring",
    "reset_all_clients",
    "reset_shared_client",
    "reset_shared_client_async",
    "reset_table_client_cache",
    "resolve_base_path",
    "set_shared_client",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".client": [
            "AzureFunctionAsyncClient",
            "AzureFunctionSyncClient",
            "RequestOptions",
        ],
        ".exceptions": [
            "AzureServiceError",
            "AzureTableError",
            "ConfigurationError",
            "JobConflictError",
            "JobExistsError",
            "JobNotFoundError",
            "JobTimeoutError",
            "ResumeSourceActive",
            "ResumeSourceNotFound",
            "RunNotFound",
            "RunServiceError",
        ],
        ".function_cli": [
            "add_azure_service_arguments",
        ],
        ".job_store": [
            "AzureTableJobStore",
            "TableConfig",
            "reset_table_client_cache",
        ],
        ".monitoring": [
            "HeartbeatMonitor",
            "RunLogWriter",
            "TelemetryClient",
            "TelemetryConfig",
            "TelemetryEvent",
        ],
        ".run_service": [
            "RunStorageMixin",
        ],
        ".run_storage": [
            "build_manifest",
            "build_run_storage_path",
            "collect_blob_files",
            "collect_local_files",
            "resolve_base_path",
        ],
        ".storage": [
            "AzureStorageClient",
            "AzureStorageSettings",
            "StorageMode",
            "get_client",
            "get_shared_client",
            "is_configured",
            "reset_all_clients",
            "reset_shared_client",
            "reset_shared_client_async",
            "set_shared_client",
        ],
    },
    submodules=["client", "monitoring"],
)
