"""The asynchronous HTTP names of 0.7; they live in `infra_core.http.aio`."""

from infra_core.http.aio import (
    DEFAULT_HEADERS,
    DEFAULT_RETRY_STATUSES,
    AsyncHttpClient,
    RetryPolicy,
    close_async_http_client,
    fetch_async,
    get_shared_http_client,
    reconfigure_shared_http_client,
    request_async,
    reset_shared_http_client,
    set_shared_http_client,
)

__all__ = [
    "DEFAULT_HEADERS",
    "DEFAULT_RETRY_STATUSES",
    "AsyncHttpClient",
    "RetryPolicy",
    "close_async_http_client",
    "fetch_async",
    "get_shared_http_client",
    "reconfigure_shared_http_client",
    "request_async",
    "reset_shared_http_client",
    "set_shared_http_client",
]
