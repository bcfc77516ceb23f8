from ._async import (
    fetch_async as fetch_async,
    request_async as request_async,
    stream_async as stream_async,
)
from ._async_client import AsyncHttpClient as AsyncHttpClient
from ._errors import (
    ChecksumMismatchError as ChecksumMismatchError,
    DeadlineExceeded as DeadlineExceeded,
    DownloadDeadlineError as DownloadDeadlineError,
    DownloadDiskError as DownloadDiskError,
    DownloadError as DownloadError,
    DownloadTooLargeError as DownloadTooLargeError,
    HttpError as HttpError,
    IncompleteDownloadError as IncompleteDownloadError,
    InvalidRequestError as InvalidRequestError,
    OutcomeUnknown as OutcomeUnknown,
    PrivateAddressError as PrivateAddressError,
    ResponseTooLarge as ResponseTooLarge,
)
from ._headers import (
    DEFAULT_HEADERS as DEFAULT_HEADERS,
    checked_headers as checked_headers,
)
from ._policy import (
    DEFAULT_RETRY_STATUSES as DEFAULT_RETRY_STATUSES,
    is_idempotent as is_idempotent,
)
from ._sync import fetch as fetch, request as request, stream as stream
from ._sync_client import (
    RequestsHttpClient as RequestsHttpClient,
    get_shared_http_client as get_shared_http_client,
    reset_shared_http_client as reset_shared_http_client,
    set_shared_http_client as set_shared_http_client,
)
from ._urls import absolute_url as absolute_url
from .assets import (
    AssetDownloadClient as AssetDownloadClient,
    DownloadItem as DownloadItem,
    DownloadOutcome as DownloadOutcome,
    DownloadProgress as DownloadProgress,
    DownloadResult as DownloadResult,
    download_asset as download_asset,
    download_asset_async as download_asset_async,
    download_many as download_many,
    download_many_async as download_many_async,
)
