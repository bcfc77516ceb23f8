"""The two drivers of a `RetryPolicy`: one blocks, one awaits, the decisions are shared."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from . import clock
from ._exceptions import add_note
from ._retry_policy import RetryDetails, RetryPolicy, check_policy
from ._values import is_number, shown

if TYPE_CHECKING:
    from typing import TypeAlias

__all__ = ["RetryDeadlineError", "retry_async", "retry_sync"]

T = TypeVar("T")
_UNBOUND = nullcontext()  # costs a third of a time limit that is none
ShouldRetry: "TypeAlias" = "Callable[[Exception], bool | float]"


class RetryDeadlineError(TimeoutError):
    """An attempt of `retry_async` was cut at the deadline; no error of an attempt is one.

    A look at the clock would confuse them: timers may be early, by 1 ms on uvloop and by 16 ms on
    Windows before Python 3.13.
    """


def _plan(
    policy: RetryPolicy,
    should_retry: ShouldRetry,
    error: Exception,
    retry: int,
    started: float,
) -> RetryDetails | None:
    """Decide what follows a failed attempt; `None`, and a note on the error, when nothing does."""
    verdict = should_retry(error)
    elapsed = clock.monotonic() - started
    if verdict is False or verdict is None:
        reason = "this error is not one to retry"
    elif not is_number(verdict):
        raise TypeError(
            f"should_retry returned {shown(verdict)}: return True, False or the seconds to wait"
        ) from error
    else:
        asked = None if verdict is True else float(verdict)
        wait = policy.next_wait(retry=retry, elapsed=elapsed, retry_after=asked)
        if wait is not None:
            return RetryDetails(retry + 1, wait, elapsed, error)
        if retry >= policy.max_retries:
            reason = f"max_retries is {policy.max_retries}"
        elif asked is not None and asked > policy.max_backoff:
            most = float(policy.max_backoff)
            reason = f"the server asks for {asked:g} s, above max_backoff of {most:g} s"
        else:
            reason = f"the next wait would reach the deadline of {float(policy.deadline or 0):g} s"
    attempts = "1 attempt" if retry == 0 else f"{retry + 1} attempts"
    add_note(error, f"gave up after {attempts} in {elapsed:.2f} s: {reason}")
    return None


def _plain(function: object, returned: T) -> T:
    """Refuse the coroutine of an asynchronous function, which nothing would run here."""
    if isinstance(returned, CoroutineType):
        returned.close()
        raise TypeError(
            f"{shown(function)} is asynchronous, and its coroutine was not run: "
            "await retry_async(...) in the place of retry_sync(...)"
        )
    return returned


def retry_sync(
    operation: Callable[[], T],
    *,
    policy: RetryPolicy,
    should_retry: ShouldRetry,
    on_retry: Callable[[RetryDetails], None] | None = None,
) -> T:
    """Call until it succeeds or the policy gives up; then the last exception comes through.

    `KeyboardInterrupt`, `SystemExit` and cancellation are never retried. An attempt that hangs
    cannot be cut from outside a thread: give the operation a timeout of its own.

    Args:
        operation: What to do; called without arguments.
        policy: How often and how long.
        should_retry: Called with each exception; `False` raises it, `True` retries, a number
            retries after that many seconds, which the server asked for.
        on_retry: Called before each wait; what it raises ends the retries.

    Returns:
        What the first successful attempt returned.

    Raises:
        Exception: The one of the last attempt, with a note of attempts, seconds and reason
            (Python 3.11 and newer).
        TypeError: `policy` is not a `RetryPolicy`, `operation` or `on_retry` is asynchronous, or
            `should_retry` returned nonsense.

    Example:
        >>> answers = iter([ConnectionError("reset"), "welcome"])
        >>> def call() -> str:
        ...     answer = next(answers)
        ...     if isinstance(answer, Exception):
        ...         raise answer
        ...     return answer
        >>> retry_sync(
        ...     call,
        ...     policy=RetryPolicy(backoff=0.01),
        ...     should_retry=lambda error: isinstance(error, ConnectionError),
        ... )
        'welcome'
    """
    check_policy("policy", policy)
    started = clock.monotonic()
    retry = 0
    while True:
        try:
            result = operation()
        except Exception as error:
            details = _plan(policy, should_retry, error, retry, started)
            if details is None:
                raise
            if on_retry is not None:
                _plain(on_retry, on_retry(details))
            wait = details.wait
            del details  # it holds the error, whose traceback holds this frame
        else:
            return _plain(operation, result)
        clock.sleep(wait)
        retry += 1


async def retry_async(
    operation: Callable[[], Awaitable[T]],
    *,
    policy: RetryPolicy,
    should_retry: ShouldRetry,
    on_retry: Callable[[RetryDetails], Awaitable[None] | None] | None = None,
) -> T:
    """Await until it succeeds or the policy gives up; then the last exception comes through.

    Cancellation is never retried. With a deadline an attempt that is still under way when it
    comes is cancelled: the call never outlives its deadline.

    Args:
        operation: What to do; called without arguments, its result is awaited.
        policy: How often and how long.
        should_retry: As for `retry_sync`.
        on_retry: As for `retry_sync`; may be a coroutine function.

    Returns:
        What the first successful attempt returned.

    Raises:
        RetryDeadlineError: An attempt was cut at the deadline; its cause is what the attempt
            before it raised, if there was one.
        Exception: What `retry_sync` raises.
    """
    check_policy("policy", policy)
    started = clock.monotonic()
    retry = 0
    failed: BaseException | None = None
    bound: AbstractAsyncContextManager[Any] = _UNBOUND
    if policy.deadline is not None:
        bound = clock.timeout(policy.deadline)
    try:
        async with bound as scope:
            while True:
                try:
                    return await operation()
                except Exception as error:
                    details = _plan(policy, should_retry, error, retry, started)
                    if details is None:
                        raise
                    failed = error
                    returned = None if on_retry is None else on_retry(details)
                    if returned is not None:
                        await returned
                    wait = details.wait
                    del details  # it holds the error, whose traceback holds this frame
                await clock.sleep_async(wait)
                retry += 1
    except TimeoutError as error:
        if scope is None or not scope.expired():
            raise
        raise RetryDeadlineError(
            f"not done within the deadline of {float(policy.deadline or 0):g} s, retries included: "
            "allow more time, or fewer or shorter attempts"
        ) from (failed or error)
    finally:
        failed = None  # its traceback holds this frame
