from infra_core.http.assets import (
    DEFAULT_RETRY_STATUSES as DEFAULT_RETRY_STATUSES,
    AssetDownloadClient as AssetDownloadClient,
    DownloadResult as DownloadResult,
    download_asset as download_asset,
    download_asset_async as download_asset_async,
    get_async_client as get_async_client,
    get_shared_client as get_shared_client,
    reset_async_client as reset_async_client,
    reset_shared_client as reset_shared_client,
    set_shared_client as set_shared_client,
)
