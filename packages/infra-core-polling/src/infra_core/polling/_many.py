"""Polling thousands of jobs at once: the public function."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, TypeVar, overload

from ._config import PollingConfig, checked_config
from ._outcome import PollOutcome
from ._run import PollRules, check_callable
from ._scheduler import Scheduler
from ._status import StatusExtractor, StatusRules

__all__ = ["poll_many_async"]

J = TypeVar("J")
T = TypeVar("T")


@overload
def poll_many_async(
    jobs: "Iterable[J] | AsyncIterable[J]",
    fetch_fn: Callable[[J], Awaitable[T]],
    is_terminal: Callable[[T], bool] | None = ...,
    *,
    config: PollingConfig | None = ...,
    concurrency: int = ...,
    max_active: int = ...,
    on_poll: Callable[[J, T], object] | None = ...,
    status_extractor: "StatusExtractor[str | None] | str | None" = ...,
    is_transient: Callable[[Exception], bool] | None = ...,
    next_delay: Callable[[Any], float | None] | None = ...,
    cancel: asyncio.Event | None = ...,
) -> AsyncGenerator[PollOutcome[J, T], None]: ...
@overload
def poll_many_async(
    jobs: "Iterable[J] | AsyncIterable[J]",
    fetch_fn: Callable[[J], T],
    is_terminal: Callable[[T], bool] | None = ...,
    *,
    config: PollingConfig | None = ...,
    concurrency: int = ...,
    max_active: int = ...,
    on_poll: Callable[[J, T], object] | None = ...,
    status_extractor: "StatusExtractor[str | None] | str | None" = ...,
    is_transient: Callable[[Exception], bool] | None = ...,
    next_delay: Callable[[Any], float | None] | None = ...,
    cancel: asyncio.Event | None = ...,
) -> AsyncGenerator[PollOutcome[J, T], None]: ...
def poll_many_async(
    jobs: "Iterable[J] | AsyncIterable[J]",
    fetch_fn: Callable[[J], Awaitable[T]] | Callable[[J], T],
    is_terminal: Callable[[T], bool] | None = None,
    *,
    config: PollingConfig | None = None,
    concurrency: int = 100,
    max_active: int = 10_000,
    on_poll: Callable[[J, T], object] | None = None,
    status_extractor: "StatusExtractor[str | None] | str | None" = None,
    is_transient: Callable[[Exception], bool] | None = None,
    next_delay: Callable[[Any], float | None] | None = None,
    cancel: asyncio.Event | None = None,
) -> AsyncGenerator[PollOutcome[J, T], None]:
    """Poll many jobs at once and yield each one's outcome as it finishes.

    Jobs are pulled from `jobs` as there is room, so a million of them take no more memory than
    `max_active`. Each has its own deadline, interval, error budget and server-given delays, as in
    `poll_until_async`; one that fails does not end the others.

    Args:
        jobs: What to poll: ids, URLs, records. An iterable or an async iterable.
        fetch_fn: Asks for the state of one job; async, or sync with an awaitable result.
        is_terminal: Whether a response ends that job. By default its status decides, by the
            statuses of `config`.
        config: Times, statuses and tolerance, for each job.
        concurrency: Fetches under way at once, at most.
        max_active: Jobs taken in and not yet handed out, at most. A consumer that is slow slows
            the intake down.
        on_poll: Called with job and response after each fetch; not awaited.
        status_extractor: Finds the status in a response; see `StatusPoller`.
        is_transient: Which errors of the fetch are waited out.
        next_delay: The seconds that the server wants to be left alone.
        cancel: Ends all polls when it is set; what is under way is handed out with
            `PollingCancelledError`.

    Yields:
        One `PollOutcome` for each job, in the order in which they end.

    Raises:
        ValueError: `concurrency` or `max_active` is less than 1 or no whole number.
        TypeError: `jobs` cannot be iterated over, or `cancel` is of another kind.
        Exception: What iterating over `jobs` raised.

    Example:
        Leaving the loop early ends what is under way; `aclosing` makes that prompt::

            async with contextlib.aclosing(poll_many_async(ids, fetch)) as outcomes:
                async for outcome in outcomes:
                    print(outcome.job, outcome.response if outcome.ok else outcome.error)
    """
    for name, value in (("concurrency", concurrency), ("max_active", max_active)):
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} must be 1 or more, not {value!r}; give a whole number")
    if not any(hasattr(jobs, method) for method in ("__iter__", "__aiter__", "__getitem__")):
        raise TypeError(
            f"jobs cannot be iterated over, being of type {type(jobs).__name__}; pass a list, a "
            "generator or an asynchronous generator"
        )
    check_callable("fetch_fn", fetch_fn)
    if on_poll is not None:
        check_callable("on_poll", on_poll)
    if cancel is not None and not isinstance(cancel, asyncio.Event):
        raise TypeError(
            f"cancel must be an asyncio.Event here, not of type {type(cancel).__name__}; set one "
            "from another thread with loop.call_soon_threadsafe(event.set)"
        )
    config = checked_config(config)
    status = None
    if is_terminal is None:
        statuses = StatusRules(config, status_extractor)
        is_terminal, status = statuses.is_terminal, statuses.status
    rules = PollRules.of(
        config, is_terminal, is_transient=is_transient, next_delay=next_delay, status=status
    )
    scheduler: Scheduler[J, T] = Scheduler(jobs, fetch_fn, rules, on_poll, max_active)
    return scheduler.outcomes(concurrency, cancel)
