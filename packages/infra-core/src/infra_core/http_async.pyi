from infra_core.http.aio import (
    DEFAULT_HEADERS as DEFAULT_HEADERS,
    DEFAULT_RETRY_STATUSES as DEFAULT_RETRY_STATUSES,
    AsyncHttpClient as AsyncHttpClient,
    RetryPolicy as RetryPolicy,
    close_async_http_client as close_async_http_client,
    fetch_async as fetch_async,
    get_shared_http_client as get_shared_http_client,
    reconfigure_shared_http_client as reconfigure_shared_http_client,
    request_async as request_async,
    reset_shared_http_client as reset_shared_http_client,
    set_shared_http_client as set_shared_http_client,
)
