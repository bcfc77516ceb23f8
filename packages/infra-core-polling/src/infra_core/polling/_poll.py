"""`poll_until` and `poll_until_async`: the public functions."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._config import PollingConfig
from ._drivers import drive_async, drive_sync
from ._run import PollRules, PollRun

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class Options(TypedDict, total=False):
        """What both functions take, whatever the kind of the fetch; explained there."""

        timeout: float
        poll_interval: float
        handle_404: bool
        initial_delay: float
        backoff_multiplier: float
        max_backoff: float
        jitter: float
        max_consecutive_errors: int
        is_transient: Callable[[Exception], bool] | None
        next_delay: Callable[[Any], float | None] | None
        hard_timeout: bool
        label: str | None


__all__ = ["poll_until", "poll_until_async"]

T = TypeVar("T")


@overload
def poll_until(
    fetch_fn: Callable[[], Awaitable[T]],
    is_terminal: Callable[[T], bool],
    *,
    on_poll: Callable[[T], None] | None = ...,
    cancel: threading.Event | None = ...,
    **options: "Unpack[Options]",
) -> T: ...
@overload
def poll_until(
    fetch_fn: Callable[[], T],
    is_terminal: Callable[[T], bool],
    *,
    on_poll: Callable[[T], None] | None = ...,
    cancel: threading.Event | None = ...,
    **options: "Unpack[Options]",
) -> T: ...
def poll_until(
    fetch_fn: Callable[[], Awaitable[T]] | Callable[[], T],
    is_terminal: Callable[[T], bool],
    *,
    timeout: float = 600.0,
    poll_interval: float = 5.0,
    on_poll: Callable[[T], None] | None = None,
    handle_404: bool = True,
    initial_delay: float = 0.0,
    backoff_multiplier: float = 1.0,
    max_backoff: float = 60.0,
    jitter: float = 0.0,
    max_consecutive_errors: int = 5,
    is_transient: Callable[[Exception], bool] | None = None,
    next_delay: Callable[[Any], float | None] | None = None,
    cancel: threading.Event | None = None,
    hard_timeout: bool = False,
    label: str | None = None,
) -> T:
    """Call `fetch_fn` until its response is terminal, and return that response.

    Args:
        fetch_fn: Asks for the state of things. May return an awaitable, which then runs on the
            one background loop of `infra_core.runtime`, so that pooled clients live on.
        is_terminal: Whether a response ends the poll.
        timeout: Seconds until `PollingTimeoutError`, the initial delay included.
        poll_interval: Seconds between checks.
        on_poll: Called with each response, before it is judged.
        handle_404: An exception with the HTTP status 404 means "not there yet".
        initial_delay: Seconds before the first check.
        backoff_multiplier: What the interval is multiplied with after each check.
        max_backoff: Where a growing interval stops, in seconds.
        jitter: How much of each wait chance may take away, 0 to 1.
        max_consecutive_errors: How many transient errors in a row are waited out.
        is_transient: Which errors of the fetch those are; by default
            `infra_core.polling.is_transient`.
        next_delay: Called with each response and each transient error; returns the seconds that
            the server wants to be left alone, or None. By default
            `infra_core.polling.retry_after`.
        cancel: Ends the poll within 0.05 s when it is set; a synchronous fetch that is running
            is waited for, unless `hard_timeout` is set.
        hard_timeout: Call the fetch in a helper thread, and leave it behind when it hangs.
            Without it a synchronous fetch cannot be interrupted: it is waited for, and its late
            answer reported as a timeout.
        label: A name for logs and errors, such as a job id or a status URL; secrets in it are
            redacted there.

    Returns:
        The terminal response.

    Raises:
        PollingTimeoutError: No terminal response by the deadline.
        PollingCancelledError: The cancel event was set.
        ValueError: A number is out of range.
        Exception: What the fetch raised, when it is not transient or one too many.

    Example:
        >>> states = iter(["queued", "running", "done"])
        >>> poll_until(lambda: next(states), lambda s: s == "done", poll_interval=0.01)
        'done'
    """
    config = PollingConfig(
        timeout=timeout, poll_interval=poll_interval, initial_delay=initial_delay,
        backoff_multiplier=backoff_multiplier, max_backoff=max_backoff, jitter=jitter,
        max_consecutive_errors=max_consecutive_errors, handle_404=handle_404,
        hard_timeout=hard_timeout,
    )  # fmt: skip
    rules = PollRules(config, is_terminal, is_transient=is_transient, next_delay=next_delay)
    return drive_sync(PollRun(rules, label=label), fetch_fn, on_poll, cancel=cancel)


@overload
async def poll_until_async(
    fetch_fn: Callable[[], Awaitable[T]],
    is_terminal: Callable[[T], bool],
    *,
    on_poll: Callable[[Any], Awaitable[None] | None] | None = ...,
    cancel: "asyncio.Event | threading.Event | None" = ...,
    **options: "Unpack[Options]",
) -> T: ...
@overload
async def poll_until_async(
    fetch_fn: Callable[[], T],
    is_terminal: Callable[[T], bool],
    *,
    on_poll: Callable[[Any], Awaitable[None] | None] | None = ...,
    cancel: "asyncio.Event | threading.Event | None" = ...,
    **options: "Unpack[Options]",
) -> T: ...
async def poll_until_async(
    fetch_fn: Callable[[], Awaitable[T]] | Callable[[], T],
    is_terminal: Callable[[T], bool],
    *,
    timeout: float = 600.0,
    poll_interval: float = 5.0,
    on_poll: Callable[[Any], Awaitable[None] | None] | None = None,
    handle_404: bool = True,
    initial_delay: float = 0.0,
    backoff_multiplier: float = 1.0,
    max_backoff: float = 60.0,
    jitter: float = 0.0,
    max_consecutive_errors: int = 5,
    is_transient: Callable[[Exception], bool] | None = None,
    next_delay: Callable[[Any], float | None] | None = None,
    cancel: "asyncio.Event | threading.Event | None" = None,
    hard_timeout: bool = False,
    label: str | None = None,
) -> T:
    """Await `fetch_fn` until its response is terminal, and return that response.

    A fetch that is still running at the deadline is cancelled. Cancelling the task that polls
    cancels the fetch and comes through as `CancelledError`.

    Args:
        fetch_fn: Asks for the state of things: async, sync, or sync with an awaitable result. A
            sync one runs in a thread, and what it returns is awaited here.
        is_terminal: Whether a response ends the poll.
        timeout: Seconds until `PollingTimeoutError`, the initial delay included.
        poll_interval: Seconds between checks.
        on_poll: Called with each response, before it is judged; may be async.
        handle_404: An exception with the HTTP status 404 means "not there yet".
        initial_delay: Seconds before the first check.
        backoff_multiplier: What the interval is multiplied with after each check.
        max_backoff: Where a growing interval stops, in seconds.
        jitter: How much of each wait chance may take away, 0 to 1.
        max_consecutive_errors: How many transient errors in a row are waited out.
        is_transient: Which errors of the fetch those are.
        next_delay: The seconds that the server wants to be left alone; see `poll_until`.
        cancel: Ends the poll when it is set, a hanging fetch included: at once for an
            `asyncio.Event`, within 0.05 s for a `threading.Event`.
        hard_timeout: Has no effect: a sync fetch that hangs is left behind in its thread.
        label: A name for logs and errors; secrets in it are redacted there.

    Returns:
        The terminal response.

    Raises:
        PollingTimeoutError: No terminal response by the deadline.
        PollingCancelledError: The cancel event was set.
        ValueError: A number is out of range.
        Exception: What the fetch raised, when it is not transient or one too many.

    Example:
        >>> states = iter(["queued", "running", "done"])
        >>> async def fetch() -> str:
        ...     return next(states)
        >>> asyncio.run(poll_until_async(fetch, lambda s: s == "done", poll_interval=0.01))
        'done'
    """
    config = PollingConfig(
        timeout=timeout, poll_interval=poll_interval, initial_delay=initial_delay,
        backoff_multiplier=backoff_multiplier, max_backoff=max_backoff, jitter=jitter,
        max_consecutive_errors=max_consecutive_errors, handle_404=handle_404,
        hard_timeout=hard_timeout,
    )  # fmt: skip
    rules = PollRules(config, is_terminal, is_transient=is_transient, next_delay=next_delay)
    return await drive_async(PollRun(rules, label=label), fetch_fn, on_poll, cancel=cancel)
