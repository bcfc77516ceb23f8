"""The retry helpers of 0.7; they live in `infra_core.runtime`."""

from infra_core.runtime import (
    AsyncRetryConfig,
    RetryCallState,
    retry_state_summary,
    run_with_retries,
    run_with_retries_sync,
    should_retry_http_exception,
    should_retry_requests_exception,
)

__all__ = [
    "AsyncRetryConfig",
    "RetryCallState",
    "retry_state_summary",
    "run_with_retries",
    "run_with_retries_sync",
    "should_retry_http_exception",
    "should_retry_requests_exception",
]
