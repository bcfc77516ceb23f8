from ._policy import DEFAULT_RETRY_STATUSES as DEFAULT_RETRY_STATUSES
from .download._calls import (
    download_asset as download_asset,
    download_asset_async as download_asset_async,
    get_async_client as get_async_client,
    get_shared_client as get_shared_client,
    reset_async_client as reset_async_client,
    reset_shared_client as reset_shared_client,
    set_shared_client as set_shared_client,
)
from .download._client import AssetDownloadClient as AssetDownloadClient
from .download._commit import CommitGroup as CommitGroup
from .download._many import (
    download_many as download_many,
    download_many_async as download_many_async,
)
from .download._progress import DownloadProgress as DownloadProgress
from .download._result import (
    DownloadItem as DownloadItem,
    DownloadOutcome as DownloadOutcome,
    DownloadResult as DownloadResult,
    ProgressCallback as ProgressCallback,
)
