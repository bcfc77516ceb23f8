"""Calling the fetch, whatever it is: async, sync, or sync with an awaitable as its result."""

import asyncio
import concurrent.futures
import math
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from inspect import isawaitable
from typing import Any, Final, TypeVar

from infra_core.runtime import ThreadPool, clock, printable, run_sync

from ._errors import CheckStopped

__all__ = [
    "CANCEL_LATENCY",
    "as_async",
    "await_within",
    "call_in_thread",
    "is_async",
    "resolve_sync",
    "unless_set",
]

T = TypeVar("T")

_threads = ThreadPool("infra-core-poll", 100)
_NO_LOOP: Final = ("no running event loop", "no current event loop")
_LONGEST_WAIT: Final = min(threading.TIMEOUT_MAX, 10 * 365 * 86_400.0)  # waits know no infinity

CANCEL_LATENCY: Final = 0.05
"""Seconds between looks at an event that nothing on this loop can wait for."""


async def await_within(awaitable: Awaitable[T], seconds: float) -> T:
    """Await a fetch for so long at most; raises `CheckStopped` when the time is up."""
    scope = clock.timeout(None if math.isinf(seconds) else seconds)
    try:
        async with scope:
            return await awaitable
    except Exception as error:
        if scope.expired():  # or it says something else when it is cut
            raise CheckStopped from error
        raise


async def unless_set(
    event: "asyncio.Event | threading.Event", awaitable: Coroutine[Any, Any, T]
) -> T:
    """Await something in a child of this task; raises `CheckStopped` once the event is set."""
    work = asyncio.ensure_future(awaitable)
    watch = asyncio.ensure_future(_until_set(event))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():  # an answer that is there counts, whatever was set meanwhile
            return work.result()
        raise CheckStopped(cancelled=True)
    finally:
        for task in (work, watch):
            task.cancel()
        await asyncio.wait({work, watch})
        if not work.cancelled():
            work.exception()  # seen: what the clean-up of a cancelled fetch raised


async def _until_set(event: "asyncio.Event | threading.Event") -> None:
    if isinstance(event, asyncio.Event):
        with suppress(RuntimeError):  # it belongs to another loop
            await event.wait()
            return
    while not event.is_set():  # noqa: ASYNC110 - it has no other way
        await asyncio.sleep(CANCEL_LATENCY)


def resolve_sync(
    awaitable: Awaitable[T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Wait for what a fetch returned, on the one background loop of `infra_core.runtime`."""

    async def resolve() -> T:
        answer = await_within(awaitable, seconds)
        return await (answer if cancel is None else unless_set(cancel, answer))

    try:
        return run_sync(
            resolve(), what="poll_until() with an async fetch", instead="poll_until_async()"
        )
    finally:
        close = getattr(awaitable, "close", None)
        if close is not None:  # a coroutine that could not be run would warn
            close()


def call_in_thread(
    function: Callable[[], T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Call in a thread and wait for so long at most; a call that hangs is left behind."""
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
                if not any(text in printable(error) for text in _NO_LOOP):
                    raise
                needs_loop = True
                # The coroutine that got no task goes now, not when somebody collects garbage.
                traceback.clear_frames(error.__traceback__)
        response = function(*args)
        return await response if isawaitable(response) else response

    return beside
