from . import (
    client as client,
    exceptions as exceptions,
    function_cli as function_cli,
    function_http as function_http,
    job_store as job_store,
    monitoring as monitoring,
    run_service as run_service,
    run_storage as run_storage,
    storage as storage,
)
from .client import (
    AzureFunctionAsyncClient as AzureFunctionAsyncClient,
    AzureFunctionSyncClient as AzureFunctionSyncClient,
    DurableInstance as DurableInstance,
    DurableStatus as DurableStatus,
    RequestOptions as RequestOptions,
    wait_for_completion as wait_for_completion,
    wait_for_completion_async as wait_for_completion_async,
)
from .exceptions import (
    AzureServiceError as AzureServiceError,
    AzureTableError as AzureTableError,
    ConfigurationError as ConfigurationError,
    JobConflictError as JobConflictError,
    JobExistsError as JobExistsError,
    JobNotFoundError as JobNotFoundError,
    JobRecordError as JobRecordError,
    JobStateError as JobStateError,
    JobTimeoutError as JobTimeoutError,
    OrchestrationError as OrchestrationError,
    OrchestrationFailedError as OrchestrationFailedError,
    OrchestrationTimeoutError as OrchestrationTimeoutError,
    ResumeSourceActive as ResumeSourceActive,
    ResumeSourceNotFound as ResumeSourceNotFound,
    RunNotFound as RunNotFound,
    RunServiceError as RunServiceError,
)
from .function_cli import add_azure_service_arguments as add_azure_service_arguments
from .job_store import (
    AsyncAzureTableJobStore as AsyncAzureTableJobStore,
    AzureTableJobStore as AzureTableJobStore,
    JobRecord as JobRecord,
    JobStatus as JobStatus,
    JobStore as JobStore,
    SqliteJobStore as SqliteJobStore,
    TableConfig as TableConfig,
    open_job_store as open_job_store,
    reset_table_client_cache as reset_table_client_cache,
)
from .monitoring import (
    HeartbeatMonitor as HeartbeatMonitor,
    RunLogWriter as RunLogWriter,
    TelemetryClient as TelemetryClient,
    TelemetryConfig as TelemetryConfig,
    TelemetryEvent as TelemetryEvent,
)
from .run_service import RunStorageMixin as RunStorageMixin
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
