"""Polling thousands of jobs at once: the public function, and what became of each job."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast, overload

from infra_core.runtime import (
    RuntimeCancellationError,
    RuntimeConfig,
    TaskRuntime,
    TaskStatus,
    clock,
)

from ._config import PollingConfig, checked_config
from ._drivers import Gate, as_async, poll_loop
from ._run import PollRules, PollRun, check_callable
from ._status import StatusExtractor, StatusRules

__all__ = ["PollOutcome", "poll_many_async"]

J = TypeVar("J")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PollOutcome(Generic[J, T]):
    """What became of one job of `poll_many_async`.

    Attributes:
        job: The job, as it was given.
        response: The terminal response; for a job that ended in an error the newest one, or None.
        error: The error that ended the job: `PollingTimeoutError`, `PollingFailureError`,
            `PollingCancelledError`, or what the fetch raised. None with a terminal response.
        attempts: How often the fetch was called.
        elapsed: Seconds from the moment the job was taken in to its end.
    """

    job: J
    response: T | None
    error: Exception | None
    attempts: int
    elapsed: float

    @property
    def ok(self) -> bool:
        """Whether there is a terminal response."""
        return self.error is None

    def result(self) -> T:
        """Return the terminal response.

        Raises:
            Exception: `error`, when there is none.
        """
        if self.error is not None:
            raise self.error
        return cast("T", self.response)  # may well be None: a response like any other


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
        fetch_fn: Asks for the state of one job; async, or sync in a thread.
        is_terminal: Whether a response ends that job. By default its status decides, by the
            statuses of `config`.
        config: Times, statuses and tolerance, for each job.
        concurrency: Fetches under way at once, at most.
        max_active: Jobs taken in and not yet handed out, at most. A consumer that is slow slows
            the intake down.
        on_poll: Called with job and response after each fetch; may be async.
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
    check_callable("on_poll", on_poll, optional=True)
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
    rules = PollRules(
        config, is_terminal, is_transient=is_transient, next_delay=next_delay, status=status
    )
    runtime = TaskRuntime(config=RuntimeConfig(concurrency=max_active), cancel_event=cancel)
    gate = Gate(concurrency)
    fetch = as_async(fetch_fn)

    async def poll(job: _Job[J, T]) -> None:
        report = None if on_poll is None else partial(on_poll, job.job)
        try:
            await poll_loop(
                job.run, partial(fetch, job.job), report,
                cancelled=lambda: runtime.cancelled, gate=gate,
            )  # fmt: skip
        finally:
            job.ended = clock.monotonic()

    def task(job: J) -> tuple[Any, Callable[[], Awaitable[Any]]]:
        entry: _Job[J, T] = _Job(job, rules)
        return entry, partial(poll, entry)

    return _outcomes(jobs, task, runtime, cancel)


async def _outcomes(
    jobs: "Iterable[J] | AsyncIterable[J]",
    task: Callable[[J], tuple[Any, Callable[[], Awaitable[Any]]]],
    runtime: TaskRuntime,
    cancel: asyncio.Event | None,
) -> AsyncGenerator[PollOutcome[J, Any], None]:
    if cancel is not None and cancel.is_set():
        return
    tasks: Any
    if isinstance(jobs, AsyncIterable):
        tasks = (task(job) async for job in jobs)
    else:
        tasks = map(task, jobs)
    stream = runtime.as_completed(tasks, outcomes=True, ahead=0)
    try:
        async for end in stream:
            job: Any = end.id
            if end.status is not TaskStatus.CANCELLED:
                yield job.outcome(end.error)
            elif runtime.cancelled:
                yield job.outcome(job.run.cancelled())
            elif isinstance(end.error, RuntimeCancellationError):
                # The fetch raised a CancelledError of its own.
                raise end.error.__cause__ or end.error
    except RuntimeCancellationError:
        if not runtime.cancelled:
            raise
    finally:
        await stream.aclose()


class _Job(Generic[J, T]):
    """One job and its poll; what names it in the logs of the runtime."""

    def __init__(self, job: J, rules: PollRules[T]) -> None:
        self.job = job
        self.run = PollRun(rules, label=str(job) if isinstance(job, (str, int)) else None)
        self.ended: float | None = None

    def __repr__(self) -> str:
        return self.run.what()

    def outcome(self, error: Exception | None) -> PollOutcome[J, T]:
        run = self.run
        ended = clock.monotonic() if self.ended is None else self.ended
        return PollOutcome(self.job, run.last_response, error, run.attempts, ended - run.began)
