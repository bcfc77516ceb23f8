"""Calling the fetch, whatever it is: async, sync, or sync with an awaitable as its result."""

import asyncio
import concurrent.futures
import contextvars
import inspect
import math
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from infra_core.runtime import clock, run_sync

__all__ = [
    "CANCEL_LATENCY",
    "CheckCancelled",
    "CheckCut",
    "HelperThread",
    "await_within",
    "call_in_helper",
    "is_awaitable",
    "resolve_sync",
]

T = TypeVar("T")

_LONGEST_WAIT: Final = min(threading.TIMEOUT_MAX, 10 * 365 * 86_400.0)  # waits know no infinity


CANCEL_LATENCY: Final = 0.05
"""Seconds between looks at a `threading.Event`, which nothing can wait for beside a fetch."""


class CheckCancelled(Exception):  # noqa: N818 - a signal between our own modules
    """The cancel event was set while the fetch was running."""


class CheckCut(Exception):  # noqa: N818 - a signal between our own modules
    """The fetch was still running when its time was up."""


def is_awaitable(value: object) -> bool:
    """Whether the fetch returned something to await; much cheaper than `inspect.isawaitable`."""
    return hasattr(type(value), "__await__") or inspect.isawaitable(value)


async def await_within(
    awaitable: Awaitable[T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Await a fetch for so long at most.

    Raises:
        CheckCut: The time was up; the fetch has been cancelled.
        CheckCancelled: The event was set; the fetch has been cancelled.
    """
    if cancel is not None:
        awaitable = _watched(awaitable, cancel)
    scope = None
    try:
        async with clock.timeout(None if math.isinf(seconds) else seconds) as scope:
            return await awaitable
    except TimeoutError:
        if scope is not None and scope.expired():
            raise CheckCut from None
        raise  # the fetch's own


async def _watched(awaitable: Awaitable[T], cancel: threading.Event) -> T:
    """Await a fetch, with an eye on an event that belongs to threads."""
    task = asyncio.ensure_future(awaitable)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=CANCEL_LATENCY)
            if cancel.is_set() and not task.done():
                raise CheckCancelled
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen: what its clean-up raised


def resolve_sync(
    awaitable: Awaitable[T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Wait for what a fetch returned, on the one background loop of `infra_core.runtime`.

    Raises:
        CheckCut: The time was up.
        CheckCancelled: The event was set.
        RuntimeError: Called inside a running event loop.
    """
    try:
        return run_sync(
            await_within(awaitable, seconds, cancel),
            what="poll_until() with an async fetch",
            instead="poll_until_async()",
        )
    finally:
        close = getattr(awaitable, "close", None)
        if close is not None:  # a coroutine that could not be run would warn
            close()


class HelperThread:
    """A thread that calls the fetch, and that is left behind when the fetch hangs.

    One thread serves all checks of a poll. It is a daemon, so that a fetch which never returns
    does not keep the process alive either.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], T]) -> "concurrent.futures.Future[T]":
        """Start the call, with the caller's context variables."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="infra-core-poll", daemon=True)
            self._thread.start()
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        context = contextvars.copy_context()

        def job() -> None:
            done.set_running_or_notify_cancel()  # from here on nobody can cancel the future
            try:
                result = context.run(function)
            except BaseException as error:  # noqa: BLE001 - handed to the poll
                done.set_exception(error)
            else:
                done.set_result(result)

        self._jobs.put(job)
        return done

    def call(
        self, function: Callable[[], T], seconds: float, cancel: threading.Event | None = None
    ) -> T:
        """Call and wait for so long at most.

        Raises:
            CheckCut: The time was up; the call goes on without anybody who waits for it.
            CheckCancelled: The event was set; the call goes on alike.
        """
        done = self.submit(function)
        left = min(seconds, _LONGEST_WAIT)
        while True:
            step = left if cancel is None else min(left, CANCEL_LATENCY)
            concurrent.futures.wait([done], timeout=step)
            if done.done():
                return done.result()
            if cancel is not None and cancel.is_set():
                raise CheckCancelled
            left -= step
            if left <= 0:
                raise CheckCut

    def close(self) -> None:
        """Let the thread end once it has nothing to do."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


async def call_in_helper(
    helper: HelperThread,
    function: Callable[[], Any],
    seconds: float,
    cancel: threading.Event | None = None,
) -> Any:
    """Call in the helper thread without blocking the event loop.

    Raises:
        CheckCut: The time was up.
        CheckCancelled: The event was set.
    """
    return await await_within(asyncio.wrap_future(helper.submit(function)), seconds, cancel)
