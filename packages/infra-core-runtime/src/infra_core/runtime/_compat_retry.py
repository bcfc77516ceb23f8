"""The retry surface of infra-core 0.7, on the drivers of this package.

`RetryCallState` has the constructor and the attributes of tenacity's class of that name, on which
0.7 stood, so that hooks written for it go on working; tenacity itself is not needed.
"""

import concurrent.futures
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from . import clock
from ._retry import retry_async, retry_sync
from ._retry_policy import RetryDetails, RetryPolicy
from ._transport_errors import _status
from ._values import is_number

__all__ = [
    "AsyncRetryConfig",
    "RetryCallState",
    "retry_state_summary",
    "run_with_retries",
    "run_with_retries_sync",
]

T = TypeVar("T")


@dataclass(frozen=True)
class AsyncRetryConfig:
    """How often `run_with_retries` tries and how long it waits.

    Attributes:
        max_retries: Retries after the first try.
        backoff: Ceiling of the first wait in seconds; it doubles with each retry.
        max_backoff: Ceiling of every wait in seconds.
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

    def policy(self) -> RetryPolicy:
        """Return the same as a `RetryPolicy`; values that only `create` refuses count as 0."""
        return RetryPolicy(
            max_retries=max(0, self.max_retries),
            backoff=max(0.0, self.backoff),
            max_backoff=max(0.0, self.max_backoff),
        )


class _RetryAction(NamedTuple):
    """What happens next: a wait of `sleep` seconds."""

    sleep: float


class _Outcome(concurrent.futures.Future[Any]):
    """What an attempt came to, as a future that is done."""

    def __init__(self, attempt_number: int) -> None:
        super().__init__()
        self.attempt_number = attempt_number

    @property
    def failed(self) -> bool:
        """Whether the attempt raised."""
        return self.exception() is not None


class RetryCallState:
    """What a `before_sleep` hook is told about the call that is being retried.

    Attributes:
        start_time: When the first attempt began, on the monotonic clock, in seconds.
        retry_object: Whatever was passed to the constructor.
        fn: The operation.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        attempt_number: The current attempt, counted from 1.
        outcome: A done future of what the attempt came to, or `None` before that.
        outcome_timestamp: When that was, on the monotonic clock, in seconds.
        idle_for: Seconds spent waiting between attempts, the coming wait included.
        next_action: Has the coming wait as `.sleep`, or is `None`.
        upcoming_sleep: The coming wait in seconds.
    """

    def __init__(
        self, retry_object: object, fn: Callable[..., object] | None, args: Any, kwargs: Any
    ) -> None:
        self.start_time = clock.monotonic()
        self.retry_object = retry_object
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.attempt_number = 1
        self.outcome: _Outcome | None = None
        self.outcome_timestamp: float | None = None
        self.idle_for = 0.0
        self.next_action: _RetryAction | None = None
        self.upcoming_sleep = 0.0

    @property
    def seconds_since_start(self) -> float | None:
        """Seconds from the first attempt's begin to the last outcome; `None` before that."""
        if self.outcome_timestamp is None:
            return None
        return self.outcome_timestamp - self.start_time

    def prepare_for_next_attempt(self) -> None:
        """Forget the outcome and count one attempt more."""
        self.outcome = None
        self.outcome_timestamp = None
        self.attempt_number += 1
        self.next_action = None

    def set_result(self, val: Any) -> None:
        """Record that the attempt returned."""
        outcome = _Outcome(self.attempt_number)
        outcome.set_result(val)
        self.outcome, self.outcome_timestamp = outcome, clock.monotonic()

    def set_exception(
        self, exc_info: tuple[type[BaseException], BaseException, TracebackType | None]
    ) -> None:
        """Record that the attempt raised; takes what `sys.exc_info()` gives."""
        outcome = _Outcome(self.attempt_number)
        outcome.set_exception(exc_info[1])
        self.outcome, self.outcome_timestamp = outcome, clock.monotonic()

    def get_fn_name(self) -> str:
        """Return the qualified name of the operation, or `<unknown>`."""
        if self.fn is None:
            return "<unknown>"
        return getattr(self.fn, "__qualname__", None) or repr(self.fn)

    def __repr__(self) -> str:
        if self.outcome is None:
            last = "none yet"
        elif (error := self.outcome.exception()) is not None:
            last = f"failed ({type(error).__name__} {error})"
        else:
            last = f"returned {self.outcome.result()}"
        return (
            f"<{type(self).__name__} {id(self)}: attempt #{self.attempt_number}; "
            f"slept for {round(self.idle_for, 2)}; last result: {last}>"
        )


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
    return error, wait, None if error is None else _status(error)


class _Reporter:
    """Turns each `RetryDetails` into the one `RetryCallState` that a call's hook knows."""

    def __init__(self, operation: Callable[[], object]) -> None:
        self._state = RetryCallState(None, operation, (), {})

    def report(self, details: RetryDetails) -> RetryCallState:
        state = self._state
        if state.outcome is not None:
            state.prepare_for_next_attempt()
        error = details.error
        state.set_exception((type(error), error, error.__traceback__))
        state.next_action = _RetryAction(details.wait)
        state.upcoming_sleep = details.wait
        state.idle_for += details.wait
        return state


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
        should_retry: Told each exception, but never `KeyboardInterrupt`, `SystemExit` or a
            cancellation, which end the retries.
        before_sleep: Told before each wait.
    """
    on_retry = None
    if before_sleep is not None:
        reporter, tell = _Reporter(operation), before_sleep

        def on_retry(details: RetryDetails) -> None:
            tell(reporter.report(details))

    return retry_sync(
        operation,
        policy=config.policy(),
        should_retry=lambda error: bool(should_retry(error)),
        on_retry=on_retry,
    )


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
        should_retry: Told each exception, but never a cancellation, which ends the retries.
        before_sleep: Told, and awaited, before each wait.
    """
    on_retry = None
    if before_sleep is not None:
        reporter, tell = _Reporter(operation), before_sleep

        def on_retry(details: RetryDetails) -> Awaitable[None]:
            return tell(reporter.report(details))

    return await retry_async(
        operation,
        policy=config.policy(),
        should_retry=lambda error: bool(should_retry(error)),
        on_retry=on_retry,
    )
