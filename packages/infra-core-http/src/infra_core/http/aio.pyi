from ._async import fetch_async as fetch_async, request_async as request_async
from ._async_client import (
    AsyncHttpClient as AsyncHttpClient,
    close_async_http_client as close_async_http_client,
    get_shared_http_client as get_shared_http_client,
    reconfigure_shared_http_client as reconfigure_shared_http_client,
    reset_shared_http_client as reset_shared_http_client,
    set_shared_http_client as set_shared_http_client,
)
from ._headers import DEFAULT_HEADERS as DEFAULT_HEADERS
from ._policy import (
    DEFAULT_RETRY_STATUSES as DEFAULT_RETRY_STATUSES,
    RetryPolicy as RetryPolicy,
)
