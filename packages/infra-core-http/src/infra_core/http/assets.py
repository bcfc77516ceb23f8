"""Download files: whole, verified and flushed to the disk, or not there at all.

The names of 0.7's `infra_core.asset_client`, and those that are new in 1.0: `download_many` and
`download_many_async` with `DownloadItem` and `DownloadOutcome`, and `DownloadProgress`.

Example:
    ::

        from pathlib import Path
        from infra_core.http.assets import download_asset

        result = download_asset("https://example.com/logo.png", Path("assets/logo.png"))
        print(result.path, result.checksum, result.mime, result.size)
"""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from ._policy import DEFAULT_RETRY_STATUSES
    from .download._client import (
        AssetDownloadClient,
        download_asset,
        download_asset_async,
        get_async_client,
        get_shared_client,
        reset_async_client,
        reset_shared_client,
        set_shared_client,
    )
    from .download._many import (
        download_many,
        download_many_async,
    )
    from .download._progress import DownloadProgress
    from .download._result import (
        DownloadItem,
        DownloadOutcome,
        DownloadResult,
        ProgressCallback,
    )

__all__ = [
    "DEFAULT_RETRY_STATUSES",
    "AssetDownloadClient",
    "DownloadItem",
    "DownloadOutcome",
    "DownloadProgress",
    "DownloadResult",
    "ProgressCallback",
    "download_asset",
    "download_asset_async",
    "download_many",
    "download_many_async",
    "get_async_client",
    "get_shared_client",
    "reset_async_client",
    "reset_shared_client",
    "set_shared_client",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "infra_core.http._policy": ["DEFAULT_RETRY_STATUSES"],
        "infra_core.http.download._client": [
            "AssetDownloadClient",
            "download_asset",
            "download_asset_async",
            "get_async_client",
            "get_shared_client",
            "reset_async_client",
            "reset_shared_client",
            "set_shared_client",
        ],
        "infra_core.http.download._many": ["download_many", "download_many_async"],
        "infra_core.http.download._progress": ["DownloadProgress"],
        "infra_core.http.download._result": [
            "DownloadItem",
            "DownloadOutcome",
            "DownloadResult",
            "ProgressCallback",
        ],
    },
)
