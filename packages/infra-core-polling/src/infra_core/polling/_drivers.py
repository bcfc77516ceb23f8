"""The two loops, sync and async: call the fetch, whatever it is, and wait as the run says."""

import asyncio
import concurrent.futures
import math
import threading
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any, Final, TypeVar

from infra_core.runtime import (
    ThreadPool,
    clock,
    is_async_function,
    printable,
    run_sync,
    until_set,
)

from ._config import LAST_CHECK_GRACE
from ._errors import CheckStopped
from ._run import DONE, PollRun, check_callable, plain

__all__ = ["Gate", "as_async", "drive_async", "drive_sync", "poll_loop"]

T = TypeVar("T")

_threads = ThreadPool("infra-core-poll", 100)
_NO_LOOP: Final = ("no running event loop", "no current event loop")
_LONGEST_WAIT: Final = min(threading.TIMEOUT_MAX, 10 * 365 * 86_400.0)  # waits know no infinity

_CANCEL_LATENCY: Final = 0.05
"""Seconds between looks at an event of threads, while a thread waits for something else."""


def drive_sync(
    run: PollRun[T],
    fetch_fn: Callable[[], Any],
    on_poll: Callable[[T], object] | None,
    *,
    cancel: threading.Event | None,
) -> T:
    """Poll in the calling thread."""
    if isinstance(cancel, asyncio.Event):
        raise TypeError("cancel is an asyncio.Event, which a thread cannot wait for; "
                        "pass a threading.Event, or use the async form")  # fmt: skip
    _check(fetch_fn, on_poll, cancel)
    config = run.rules.config
    in_thread = config.hard_timeout and not is_async_function(fetch_fn)
    wait = config.first_wait()
    while True:
        _sleep(wait, cancel, run)
        budget = run.begin_check(clock.monotonic())
        try:
            response = _call_in_thread(fetch_fn, budget, cancel) if in_thread else fetch_fn()
            if isawaitable(response):
                response = _resolve_sync(response, budget, cancel)
        except CheckStopped as stopped:
            raise run.stopped(stopped) from None
        except Exception as error:  # noqa: BLE001 - the run raises what is not transient
            wait = run.error(error)
            continue
        run.arrived(response, clock.monotonic())
        if on_poll is not None:
            plain("on_poll", on_poll(response))
        wait = run.judge(response, clock.monotonic())
        if wait == DONE:
            return response  # type: ignore[no-any-return]


async def drive_async(
    run: PollRun[T],
    fetch_fn: Callable[[], Any],
    on_poll: Callable[[T], object] | None,
    *,
    cancel: "asyncio.Event | threading.Event | None",
) -> T:
    """Poll in the calling task, or in a child of it that an event can end."""
    _check(fetch_fn, on_poll, cancel)
    fetch_fn = as_async(fetch_fn)
    if cancel is None:
        return await poll_loop(run, fetch_fn, on_poll)
    try:
        polling = poll_loop(run, fetch_fn, on_poll, cancelled=cancel.is_set)
        return await _unless_set(cancel, polling)
    except CheckStopped as stopped:
        raise run.stopped(stopped) from None


class Gate:
    """Lets so many checks in at once; those of polls under way before the first ones of new polls.

    A new poll's time begins when it is let in, unless it waits for an initial delay first: what
    has not begun cannot be late.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._again: deque[asyncio.Future[None]] = deque()
        self._first: deque[asyncio.Future[None]] = deque()

    async def enter(self, run: PollRun[Any]) -> None:
        """Wait for a place; raises `PollingTimeoutError` when it is too late by then."""
        if self._free:
            self._free -= 1
        else:
            queue = self._again if run.attempts else self._first
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append(turn)
            await turn  # only all polls together are cancelled: no place is to be handed on
        now = clock.monotonic()
        if run.attempts == 0 and not run.rules.config.initial_delay:
            run.began = now
        elif now - run.began > run.rules.config.timeout + LAST_CHECK_GRACE:
            self.leave()
            raise run.timed_out(
                "there are more checks than can be made; raise concurrency or poll_interval"
            )

    def leave(self) -> None:
        """Give the place to the next one."""
        for queue in (self._again, self._first):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


async def poll_loop(
    run: PollRun[T],
    fetch_fn: Callable[[], Awaitable[Any]],
    on_poll: Callable[[T], object] | None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    gate: Gate | None = None,
) -> T:
    """Poll in the calling task; with a gate, each check is made when it lets in."""
    wait = run.rules.config.first_wait()
    while True:
        if cancelled():  # and maybe it ignores that it was cut
            raise run.cancelled()
        if wait > 0:
            await clock.sleep_async(wait)
        if gate is not None:
            await gate.enter(run)
        try:
            budget = run.begin_check(clock.monotonic())
            try:
                response = await _await_within(fetch_fn(), budget)
            except CheckStopped as stopped:
                raise run.stopped(stopped) from None
            except Exception as error:  # noqa: BLE001 - the run raises what is not transient
                wait = run.error(error)
                continue
        finally:
            if gate is not None:
                gate.leave()
        run.arrived(response, clock.monotonic())
        if on_poll is not None:
            returned = on_poll(response)
            if isawaitable(returned):
                await returned
        wait = run.judge(response, clock.monotonic())
        if wait == DONE:
            return response  # type: ignore[no-any-return]


def _check(fetch_fn: object, on_poll: object, cancel: object) -> None:
    check_callable("fetch_fn", fetch_fn)
    check_callable("on_poll", on_poll, optional=True)
    if cancel is not None and not hasattr(cancel, "is_set"):
        raise TypeError(f"cancel must be an event with is_set(), not of type "
                        f"{type(cancel).__name__}; pass a threading.Event")  # fmt: skip


def _sleep(wait: float, cancel: threading.Event | None, run: PollRun[Any]) -> None:
    """Wait in pieces, so that a cancel event is seen soon.

    `Event.wait` would see it sooner, but it knows nothing of the clock that tests replace.
    """
    if cancel is None:
        if wait > 0:
            clock.sleep(wait)
        return
    until = clock.monotonic() + wait
    while not cancel.is_set():
        left = until - clock.monotonic()
        if left <= 0:
            return
        clock.sleep(min(left, _CANCEL_LATENCY))
    raise run.cancelled()


# The fetch: async, sync, or sync with an awaitable as its result


async def _await_within(awaitable: Awaitable[T], seconds: float) -> T:
    """Await a fetch for so long at most; raises `CheckStopped` when the time is up."""
    scope = clock.timeout(None if math.isinf(seconds) else seconds)
    try:
        async with scope:
            answer = await awaitable
    except Exception as error:
        if scope.expired():  # or it says something else when it is cut
            raise CheckStopped from error
        raise
    if scope.expired():  # or it swallows that it was cut; some loops cut a moment early
        raise CheckStopped
    return answer


async def _unless_set(
    event: "asyncio.Event | threading.Event", awaitable: Coroutine[Any, Any, T]
) -> T:
    """Await something in a child of this task; raises `CheckStopped` once the event is set."""
    work = asyncio.ensure_future(awaitable)
    watch = asyncio.ensure_future(until_set(event))
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


def _resolve_sync(
    awaitable: Awaitable[T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Wait for what a fetch returned, on the one background loop of `infra_core.runtime`."""

    async def resolve() -> T:
        answer = _await_within(awaitable, seconds)
        return await (answer if cancel is None else _unless_set(cancel, answer))

    try:
        return run_sync(
            resolve(), what="poll_until() with an async fetch", instead="poll_until_async()"
        )
    finally:
        close = getattr(awaitable, "close", None)
        if close is not None:  # a coroutine that could not be run would warn
            close()


def _call_in_thread(
    function: Callable[[], T], seconds: float, cancel: threading.Event | None = None
) -> T:
    """Call in a thread and wait for so long at most; a call that hangs is left behind."""
    done = _threads.submit(function)
    left = min(seconds, _LONGEST_WAIT)
    try:
        while True:
            step = left if cancel is None else min(left, _CANCEL_LATENCY)
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


def as_async(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return the fetch as something to await: a synchronous one in a thread."""
    if is_async_function(function):
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
