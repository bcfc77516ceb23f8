from infra_core import (
    asset_client as asset_client,
    asyncio_utils as asyncio_utils,
    azure as azure,
    capabilities as capabilities,
    fs_utils as fs_utils,
    http as http,
    http_async as http_async,
    http_utils as http_utils,
    logging_utils as logging_utils,
    polling as polling,
    retry as retry,
    task_runtime as task_runtime,
)
from infra_core.azure import (
    AzureStorageClient as AzureStorageClient,
    AzureStorageSettings as AzureStorageSettings,
    ConfigurationError as ConfigurationError,
    StorageMode as StorageMode,
    get_client as get_client,
    get_shared_client as get_shared_client,
    is_configured as is_configured,
    reset_all_clients as reset_all_clients,
)
from infra_core.capabilities import (
    CAPABILITIES as CAPABILITIES,
    Capability as Capability,
    find_capabilities as find_capabilities,
)
from infra_core.fs import (
    compute_checksum as compute_checksum,
    ensure_parent as ensure_parent,
    hashed_asset_path as hashed_asset_path,
)
from infra_core.http import (
    fetch as fetch,
    fetch_async as fetch_async,
    request as request,
    request_async as request_async,
)
from infra_core.http.assets import (
    AssetDownloadClient as AssetDownloadClient,
    DownloadResult as DownloadResult,
    download_asset as download_asset,
    download_asset_async as download_asset_async,
)
from infra_core.polling import (
    PollingConfig as PollingConfig,
    PollingError as PollingError,
    PollingFailureError as PollingFailureError,
    PollingTimeoutError as PollingTimeoutError,
    StatusPoller as StatusPoller,
    poll_until as poll_until,
    poll_until_async as poll_until_async,
)
from infra_core.runtime import (
    RuntimeCancellationError as RuntimeCancellationError,
    RuntimeConfig as RuntimeConfig,
    TaskRuntime as TaskRuntime,
)

http_async_default_headers: dict[str, str]
http_default_headers: dict[str, str]
