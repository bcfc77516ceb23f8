"""infra-core: fetch and download by the thousand, mirror, track and poll, and lose nothing.

The facade of the packages: every name here belongs to a slice (`infra_core.fs`, `.runtime`,
`.polling`, `.http`, `.azure`) and is imported when it is first used, so `import infra_core`
costs next to nothing.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

__path__ = extend_path(__path__, __name__)  # slices installed elsewhere still join

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from infra_core import capabilities as capabilities, polling as polling
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
        DEFAULT_HEADERS as http_default_headers,  # noqa: N811 - the name of 0.7
        fetch as fetch,
        fetch_async as fetch_async,
        request as request,
        request_async as request_async,
    )
    from infra_core.http.aio import (
        DEFAULT_HEADERS as http_async_default_headers,  # noqa: N811 - the name of 0.7
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

__all__ = [
    "CAPABILITIES",
    "AssetDownloadClient",
    "AzureStorageClient",
    "AzureStorageSettings",
    "Capability",
    "ConfigurationError",
    "DownloadResult",
    "PollingConfig",
    "PollingError",
    "PollingFailureError",
    "PollingTimeoutError",
    "RuntimeCancellationError",
    "RuntimeConfig",
    "StatusPoller",
    "StorageMode",
    "TaskRuntime",
    "capabilities",
    "compute_checksum",
    "download_asset",
    "download_asset_async",
    "ensure_parent",
    "fetch",
    "fetch_async",
    "find_capabilities",
    "get_client",
    "get_shared_client",
    "hashed_asset_path",
    "http_async_default_headers",
    "http_default_headers",
    "is_configured",
    "poll_until",
    "poll_until_async",
    "polling",
    "request",
    "request_async",
    "reset_all_clients",
]

_resolve, __dir__ = lazy_exports(
    __name__,
    {
        "infra_core.azure": [
            "AzureStorageClient",
            "AzureStorageSettings",
            "ConfigurationError",
            "StorageMode",
            "get_client",
            "get_shared_client",
            "is_configured",
            "reset_all_clients",
        ],
        "infra_core.capabilities": [
            "CAPABILITIES",
            "Capability",
            "find_capabilities",
        ],
        "infra_core.fs": [
            "compute_checksum",
            "ensure_parent",
            "hashed_asset_path",
        ],
        "infra_core.http": [
            "DEFAULT_HEADERS as http_default_headers",
            "fetch",
            "fetch_async",
            "request",
            "request_async",
        ],
        "infra_core.http.aio": [
            "DEFAULT_HEADERS as http_async_default_headers",
        ],
        "infra_core.http.assets": [
            "AssetDownloadClient",
            "DownloadResult",
            "download_asset",
            "download_asset_async",
        ],
        "infra_core.polling": [
            "PollingConfig",
            "PollingError",
            "PollingFailureError",
            "PollingTimeoutError",
            "StatusPoller",
            "poll_until",
            "poll_until_async",
        ],
        "infra_core.runtime": [
            "RuntimeCancellationError",
            "RuntimeConfig",
            "TaskRuntime",
        ],
    },
    submodules=["capabilities", "polling"],
)


def __getattr__(name: str) -> object:
    """Import a name when it is first used; of a slice that is missing say how to install it."""
    try:
        return _resolve(name)
    except ModuleNotFoundError as error:
        parts = (error.name or "").split(".")
        if parts[0] != "infra_core" or len(parts) < 2:
            raise
        missing = f"infra-core-{parts[1]}"
        raise ModuleNotFoundError(
            f"infra_core.{name} needs {missing}, which is not installed; pip install {missing}, "
            "or infra-core, which brings all slices",
            name=error.name,
        ) from error
