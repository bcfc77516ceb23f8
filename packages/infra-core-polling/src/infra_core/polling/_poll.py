"""The two drivers, sync and async: call, tell the run, wait as it says."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

from infra_core.runtime import clock

from ._config import PollingConfig
from ._fetch import (
    CheckCut,
    HelperThread,
    await_within,
    call_in_helper,
    is_awaitable,
    resolve_sync,
)
from ._run import DONE, PollRules, PollRun, logger

__all__ = ["drive_async", "drive_sync", "poll_until", "poll_until_async"]

T = TypeVar("T")

_CANCEL_LATENCY: Final = 0.05  # seconds between looks at a threading.Event


def poll_until(
    fetch_fn: "Callable[[], T]",
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
        cancel: Ends the poll when it is set.
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
    rules = PollRules.of(config, is_terminal, is_transient=is_transient, next_delay=next_delay)
    return drive_sync(
        PollRun(rules, label=label), fetch_fn, on_poll, cancel=cancel, hard_timeout=hard_timeout
    )


async def poll_until_async(
    fetch_fn: "Callable[[], Awaitable[T]] | Callable[[], T]",
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
            sync one blocks the event loop while it runs, unless `hard_timeout` is set.
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
        cancel: Ends the poll when it is set: at once, the fetch included, for an
            `asyncio.Event`; between checks for a `threading.Event`.
        hard_timeout: Call a sync fetch in a helper thread, and leave it behind when it hangs.
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
    rules = PollRules.of(config, is_terminal, is_transient=is_transient, next_delay=next_delay)
    return await drive_async(
        PollRun(rules, label=label), fetch_fn, on_poll, cancel=cancel, hard_timeout=hard_timeout
    )


def drive_sync(
    run: PollRun[T],
    fetch_fn: Callable[[], Any],
    on_poll: Callable[[T], object] | None,
    *,
    cancel: threading.Event | None,
    hard_timeout: bool,
) -> T:
    """Poll in the calling thread."""
    if isinstance(cancel, asyncio.Event):
        raise TypeError("cancel is an asyncio.Event, which a thread cannot wait for; "
                        "pass a threading.Event, or use the async form")  # fmt: skip
    with _helper(hard_timeout) as helper:
        wait = run.rules.schedule.first_wait()
        while True:
            for step in _steps(wait, cancel, run):
                clock.sleep(step)
            budget = run.begin_check()
            try:
                response = fetch_fn() if helper is None else helper.call(fetch_fn, budget)
                if is_awaitable(response):
                    response = resolve_sync(response, budget)
            except CheckCut:
                raise run.cut() from None
            except Exception as error:  # noqa: BLE001 - the run raises what is not transient
                wait = run.error(error)
                continue
            run.arrived(response)
            if on_poll is not None:
                on_poll(response)
            wait = run.judge(response)
            _log_check(run, wait)
            if wait == DONE:
                return response  # type: ignore[no-any-return]


async def drive_async(
    run: PollRun[T],
    fetch_fn: Callable[[], Any],
    on_poll: Callable[[T], object] | None,
    *,
    cancel: "asyncio.Event | threading.Event | None",
    hard_timeout: bool,
) -> T:
    """Poll in the calling task, or in a child of it that an `asyncio.Event` can end."""
    if not isinstance(cancel, asyncio.Event):
        return await _loop_async(run, fetch_fn, on_poll, cancel=cancel, hard_timeout=hard_timeout)
    polling = asyncio.ensure_future(
        _loop_async(run, fetch_fn, on_poll, cancel=None, hard_timeout=hard_timeout)
    )
    cancelled = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({polling, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        if polling.done():  # an answer that is there counts, whatever was set meanwhile
            return polling.result()
        raise run.cancelled()
    finally:
        for task in (polling, cancelled):
            task.cancel()
        await asyncio.wait({polling, cancelled})
        if not polling.cancelled():
            polling.exception()  # seen: what the clean-up of a cancelled fetch raised


async def _loop_async(
    run: PollRun[T],
    fetch_fn: Callable[[], Any],
    on_poll: Callable[[T], object] | None,
    *,
    cancel: threading.Event | None,
    hard_timeout: bool,
) -> T:
    with _helper(hard_timeout and not asyncio.iscoroutinefunction(fetch_fn)) as helper:
        wait = run.rules.schedule.first_wait()
        while True:
            for step in _steps(wait, cancel, run):
                await clock.sleep_async(step)
            budget = run.begin_check()
            try:
                if helper is None:
                    response = fetch_fn()
                else:
                    response = await call_in_helper(helper, fetch_fn, budget)
                if is_awaitable(response):
                    response = await await_within(response, budget)
            except CheckCut:
                raise run.cut() from None
            except Exception as error:  # noqa: BLE001 - the run raises what is not transient
                wait = run.error(error)
                continue
            run.arrived(response)
            if on_poll is not None:
                told = on_poll(response)
                if is_awaitable(told):
                    await told  # type: ignore[misc]
            wait = run.judge(response)
            _log_check(run, wait)
            if wait == DONE:
                return response  # type: ignore[no-any-return]


@contextlib.contextmanager
def _helper(wanted: bool) -> Iterator[HelperThread | None]:
    if not wanted:
        yield None
        return
    helper = HelperThread()
    try:
        yield helper
    finally:
        helper.close()


def _steps(wait: float, cancel: threading.Event | None, run: PollRun[Any]) -> Iterator[float]:
    """Cut a wait into pieces, so that a cancel event is seen soon.

    `Event.wait` would see it sooner, but it knows nothing of the clock that tests replace.
    """
    if cancel is None:
        if wait > 0:
            yield wait
        return
    until = clock.monotonic() + wait
    while not cancel.is_set():
        left = until - clock.monotonic()
        if left <= 0:
            return
        yield min(left, _CANCEL_LATENCY)
    raise run.cancelled()


def _log_check(run: PollRun[Any], wait: float) -> None:
    if not logger.isEnabledFor(logging.DEBUG):
        return
    if wait == DONE:
        logger.debug("check %d: done", run.attempts, extra=run.fields(terminal=True))
    else:
        logger.debug(
            "check %d: not done, next check in %.3g s",
            run.attempts,
            wait,
            extra=run.fields(terminal=False, wait=wait),
        )
