"""The two loops, sync and async: call, hand the answer to the run, wait as it says."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from inspect import isawaitable
from typing import Any, TypeVar

from infra_core.runtime import clock

from ._config import LAST_CHECK_GRACE
from ._errors import CheckStopped, PollingTimeoutError
from ._fetch import (
    CANCEL_LATENCY,
    as_async,
    await_within,
    call_in_thread,
    is_async,
    resolve_sync,
    unless_set,
)
from ._run import DONE, PollRun, check_callable, plain

__all__ = ["Gate", "drive_async", "drive_sync", "poll_loop"]

T = TypeVar("T")


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
    _check(fetch_fn, on_poll, cancel)
    in_thread = hard_timeout and not is_async(fetch_fn)
    wait = run.rules.config.first_wait()
    while True:
        for step in _steps(wait, cancel, run):
            clock.sleep(step)
        budget = run.begin_check(clock.monotonic())
        try:
            response = call_in_thread(fetch_fn, budget, cancel) if in_thread else fetch_fn()
            if isawaitable(response):
                response = resolve_sync(response, budget, cancel)
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
        return await unless_set(cancel, polling)
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
            response = await await_within(fetch_fn(), budget)
        except CheckStopped as stopped:
            raise run.stopped(stopped) from None
        except PollingTimeoutError:
            raise
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
        yield min(left, CANCEL_LATENCY)
    raise run.cancelled()
