"""Calling the fetch, whatever it is: async, sync, or sync with an awaitable as its result."""

import asyncio
import concurrent.futures
import math
import threading
import traceback
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final, TypeVar

from infra_core.runtime import ThreadPool, clock, run_sync

from ._errors import CheckStopped

__all__ = [
    "CANCEL_LATENCY",
    "as_async",
    "await_within",
    "call_in_thread",
    "is_async",
    "resolve_sync",
]

T = TypeVar("T")

_threads = ThreadPool("infra-core-poll", 100)
_NO_LOOP: Final = ("no running event loop", "no current event loop")
_LONGEST_WAIT: Final = min(threading.TIMEOUT_MAX, 10 * 365 * 86_400.0)  # waits know no infinity

CANCEL_LATENCY: Final = 0.05
"""Seconds between looks at a `threading.Event`, which nothing can wait for beside a fetch."""


async def await_within(
    awaitable: Awaitable[T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Await a fetch for so long at most.

    Raises:
        CheckStopped: The time was up, or the event was set; the fetch has been cancelled.
    """
    if cancel is not None:
        awaitable = _watched(awaitable, cancel)
    scope = None
    try:
        async with clock.timeout(None if math.isinf(seconds) else seconds) as scope:
            return await awaitable
    except Exception as error:
        if scope is not None and scope.expired():  # or it says something else when it is cut
            raise CheckStopped from error
        raise


async def _watched(awaitable: Awaitable[T], cancel: threading.Event) -> T:
    """Await a fetch, with an eye on an event that belongs to threads."""
    task = asyncio.ensure_future(awaitable)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=CANCEL_LATENCY)
            if cancel.is_set() and not task.done():
                raise CheckStopped(cancelled=True)
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
        CheckStopped: The time was up, or the event was set.
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


def call_in_thread(
    function: Callable[[], T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Call in a thread and wait for so long at most; a call that hangs is left behind.

    Raises:
        CheckStopped: The time was up, or the event was set.
    """
    done = _threads.submit(function)
    left = min(seconds, _LONGEST_WAIT)
    try:
        while True:
            step = left if cancel is None else min(left, CANCEL_LATENCY)
            concurrent.futures.wait([done], timeout=step)
            if done.done():
                return done.result()
            if cancel is not None and cancel.is_set():
                raise CheckStopped(cancelled=True)
            left -= step
            if left <= 0:
                raise CheckStopped
    finally:
        done.cancel()


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling the function only makes a coroutine, which does not block."""
    return asyncio.iscoroutinefunction(function) or asyncio.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - it is this method that is asked about
    )


def as_async(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return the fetch as something to await: a synchronous one in a thread."""
    if is_async(function):
        return function
    needs_loop = False

    async def beside(*args: object) -> Any:
        nonlocal needs_loop
        if not needs_loop:
            try:
                response = await _threads.run_abandoning(function, *args)
                return await response if isawaitable(response) else response
            except RuntimeError as error:
                # Such as `lambda: asyncio.create_task(...)`, which is quick.
                if not any(text in str(error) for text in _NO_LOOP):
                    raise
                needs_loop = True
                # The coroutine that got no task goes now, not when somebody collects garbage.
                traceback.clear_frames(error.__traceback__)
        response = function(*args)
        return await response if isawaitable(response) else response

    return beside
