"""The task runtime of 0.7; it lives in `infra_core.runtime`."""

from collections.abc import Awaitable, Callable

from infra_core.runtime import RuntimeCancellationError, RuntimeConfig, TaskRuntime

__all__ = [
    "OnErrorCallback",
    "OnTimeoutCallback",
    "RuntimeCancellationError",
    "RuntimeConfig",
    "TaskRuntime",
]

OnTimeoutCallback = Callable[[str], Awaitable[None] | None] | None
OnErrorCallback = Callable[[str, Exception], Awaitable[None] | None] | None
