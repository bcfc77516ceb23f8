"""The download names of 0.7; they live in `infra_core.http.assets`."""

from infra_core.http.assets import (
    DEFAULT_RETRY_STATUSES,
    AssetDownloadClient,
    DownloadResult,
    download_asset,
    download_asset_async,
    get_async_client,
    get_shared_client,
    reset_async_client,
    reset_shared_client,
    set_shared_client,
)

__all__ = [
    "DEFAULT_RETRY_STATUSES",
    "AssetDownloadClient",
    "DownloadResult",
    "download_asset",
    "download_asset_async",
    "get_async_client",
    "get_shared_client",
    "reset_async_client",
    "reset_shared_client",
    "set_shared_client",
]
