"""The asynchronous half under the names of 0.7's `infra_core.http_async`.

Example:
    ::

        import asyncio
        from infra_core.http.aio import fetch_async

        html = asyncio.run(fetch_async("https://example.com"))
"""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from ._async import (
        fetch_async,
        request_async,
    )
    from ._async_client import (
        AsyncHttpClient,
        close_async_http_client,
        get_shared_http_client,
        reconfigure_shared_http_client,
        reset_shared_http_client,
        set_shared_http_client,
    )
    from ._compat import (
        RetryPolicy,
    )
    from ._headers import (
        DEFAULT_HEADERS,
    )
    from ._policy import (
        DEFAULT_RETRY_STATUSES,
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

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "infra_core.http._async": [
            "fetch_async",
            "request_async",
        ],
        "infra_core.http._async_client": [
            "AsyncHttpClient",
            "close_async_http_client",
            "get_shared_http_client",
            "reconfigure_shared_http_client",
            "reset_shared_http_client",
            "set_shared_http_client",
        ],
        "infra_core.http._compat": [
            "RetryPolicy",
        ],
        "infra_core.http._headers": [
            "DEFAULT_HEADERS",
        ],
        "infra_core.http._policy": [
            "DEFAULT_RETRY_STATUSES",
        ],
    },
)
