"""The retry helpers of 0.7, on tenacity; new code takes `infra_core.runtime.retry_async`.

`run_with_retries` and `run_with_retries_sync` wait `backoff * 2**n` seconds, at most `max_backoff`,
without jitter, and hand tenacity's own `RetryCallState` to the hook. Waits go through
`infra_core.runtime.clock`, so `fast_time` makes them instantaneous in tests.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from infra_core.runtime import (
    clock,
    is_number,
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

T = TypeVar("T")

_ENDS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)


@dataclass(frozen=True)
class AsyncRetryConfig:
    """How often `run_with_retries` tries and how long it waits.

    Attributes:
        max_retries: Retries after the first try.
        backoff: Seconds before the first retry; they double with each.
        max_backoff: Seconds that no wait exceeds.
    """

    max_retries: int = 2
    backoff: float = 1.0
    max_backoff: float = 60.0

    @classmethod
    def create(
        cls, *, max_retries: int = 2, backoff: float = 1.0, max_backoff: float = 60.0
    ) -> "AsyncRetryConfig":
        """Build a validated configuration.

        Raises:
            ValueError: For negative retries, and for waits that are not positive.
        """
        if not (is_number(max_retries) and max_retries >= 0):
            raise ValueError(
                f"max_retries must be non-negative, got {max_retries!r}: pass 0 for a single try"
            )
        for name, value in (("backoff", backoff), ("max_backoff", max_backoff)):
            if not (is_number(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value!r}: pass seconds above 0")
        return cls(max_retries=max_retries, backoff=backoff, max_backoff=max_backoff)

    @property
    def max_attempts(self) -> int:
        """The first try and the retries together."""
        return self.max_retries + 1


def retry_state_summary(
    state: RetryCallState,
) -> tuple[BaseException | None, float | None, int | None]:
    """Return what a log line needs: the exception, the wait in seconds, the HTTP status.

    Each is `None` when there is none.
    """
    error = None
    if state.outcome is not None and state.outcome.done() and not state.outcome.cancelled():
        error = state.outcome.exception()
    wait = None if state.next_action is None else float(state.next_action.sleep)
    return error, wait, getattr(getattr(error, "response", None), "status_code", None)


def _options(
    config: AsyncRetryConfig, should_retry: Callable[[BaseException], bool]
) -> dict[str, Any]:
    def worth_another_try(error: BaseException) -> bool:
        if isinstance(error, _ENDS):
            return False  # whatever the predicate says
        return bool(should_retry(error))

    return {
        "reraise": True,
        "stop": stop_after_attempt(config.max_attempts),
        "wait": wait_exponential(multiplier=config.backoff, max=config.max_backoff),
        "retry": retry_if_exception(worth_another_try),
    }


async def run_with_retries(
    operation: Callable[[], Awaitable[T]],
    *,
    config: AsyncRetryConfig,
    should_retry: Callable[[BaseException], bool],
    before_sleep: Callable[[RetryCallState], Awaitable[None]] | None = None,
) -> T:
    """Await until it succeeds or the configuration gives up; the last exception comes through.

    Args:
        operation: What to do; called without arguments, its result is awaited.
        config: How often and how long.
        should_retry: Asked about each exception, but never about a cancellation, which ends the
            retries.
        before_sleep: Awaited before each wait, with tenacity's state of the call.
    """

    async def call() -> T:  # tenacity awaits coroutine functions alone
        return await operation()

    retrying = AsyncRetrying(
        sleep=clock.sleep_async, before_sleep=before_sleep, **_options(config, should_retry)
    )
    return await retrying(call)


def run_with_retries_sync(
    operation: Callable[[], T],
    *,
    config: AsyncRetryConfig,
    should_retry: Callable[[BaseException], bool],
    before_sleep: Callable[[RetryCallState], None] | None = None,
) -> T:
    """Call until it succeeds or the configuration gives up; the last exception comes through.

    Args:
        operation: What to do; called without arguments.
        config: How often and how long.
        should_retry: Asked about each exception, but never about `KeyboardInterrupt`, `SystemExit`
            or a cancellation, which end the retries.
        before_sleep: Called before each wait, with tenacity's state of the call.
    """
    retrying = Retrying(
        sleep=clock.sleep, before_sleep=before_sleep, **_options(config, should_retry)
    )
    return retrying(operation)
