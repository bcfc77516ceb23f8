"""Threads for blocking work: bounded, daemons, usable until the very end of the interpreter."""

import asyncio
import concurrent.futures
import contextvars
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from . import clock
from ._forks import after_fork_in_child

__all__ = ["CancelEvent", "ThreadPool", "file_threads", "in_thread", "until_done", "until_set"]

T = TypeVar("T")
_numbers = itertools.count(1)
_POLL = 0.05  # seconds between looks at an event that cannot be awaited


@dataclass(slots=True)
class _Job:
    """A piece of work, and how far it is."""

    call: Callable[[], None]
    running: bool = False
    hanging: bool = False  # its thread does not count, and ends with it


class ThreadPool:
    """At most `size` daemon threads, made when they are needed and kept.

    Unlike `concurrent.futures.ThreadPoolExecutor`, which the event loop's default executor is,

    - it takes work after the main thread has ended and in `atexit` handlers. Python 3.12 and
      newer refuse to start threads then: work goes to threads that are there, and runs in the
      caller's own where none is free;
    - a thread that hangs does not keep the process from ending;
    - work that is abandoned while it runs gives its place to other work: its thread goes on
      without counting. So name servers that hang do not use the pool up;
    - a forked child begins with an empty pool of its own.

    Work is begun in the order in which it comes. Work that waits for other work of the same pool
    may wait for ever: give such work another pool.

    Args:
        name: The beginning of the names of its threads.
        size: The most threads. As many times four may hang abandoned; further ones count again.

    Raises:
        ValueError: `size` is below 1.
    """

    def __init__(self, name: str, size: int) -> None:
        if not (isinstance(size, int) and size >= 1):
            raise ValueError(f"size={size!r}: pass 1 or more threads, a whole number")
        self._name = name
        self._size = size
        self._closed = False
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # a finalizer may close the pool wherever its thread is
        self._queue: deque[_Job] = deque()
        self._idle: list[threading.Lock] = []  # what free threads wait for, the last one first
        self._threads = 0
        self._hanging = 0  # threads beside those, whose work was abandoned

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Run blocking work in a thread; on cancellation wait for it, then be cancelled.

        A thread cannot be stopped, and one that still writes to a file which its owner has closed
        and removed is how stray files come about. The work sees the caller's context variables.

        Raises:
            BaseException: What the work raised.
        """
        return await until_done(self.start(work, *args))

    async def run_abandoning(self, work: Callable[..., T], *args: object) -> T:
        """Run blocking work in a thread; on cancellation be cancelled at once.

        For work that changes nothing, such as looking up a name: what has begun goes on in its
        thread and its result is dropped, what has not begun never will.

        Raises:
            BaseException: What the work raised.
        """
        return await self.start(work, *args)

    def start(self, work: Callable[..., T], *args: object) -> "asyncio.Future[T]":
        """Have work run in a thread; returns a future of the running loop.

        Cancelling the future abandons the work.
        """
        future = asyncio.wrap_future(self.submit(work, *args))
        clock._hold(future)
        return future

    def submit(self, work: Callable[..., T], *args: object) -> "concurrent.futures.Future[T]":
        """Have work run in a thread; returns a future for callers without an event loop.

        Cancelling the future abandons the work, also when it has begun.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        job = _Job(partial(_run, future, partial(contextvars.copy_context().run, work, *args)))
        future.add_done_callback(partial(self._abandon_cancelled, job))
        self._submit(job)
        return future

    def close(self) -> None:
        """Keep no threads any more: those without work end, the others with their work.

        Work that comes later is done all the same.
        """
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()

    def _submit(self, job: _Job) -> None:
        with self._lock:
            if self._idle:
                self._queue.append(job)
                self._idle.pop().release()
                return
            if self._threads >= self._size:
                self._queue.append(job)
                return
            self._threads += 1
        self._start_thread(job)

    def _start_thread(self, job: _Job) -> None:
        """Do work in a further thread, which is counted already; here where none is to be had."""
        thread = threading.Thread(
            target=self._work, args=(job,), name=f"{self._name}-{next(_numbers)}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or the system has no more threads to give
            with self._lock:
                self._threads -= 1
        else:
            return
        job.call()

    def _work(self, job: _Job) -> None:
        wake = threading.Lock()
        wake.acquire()
        while True:
            job.running = True
            job.call()
            with self._lock:
                job.running = False
                if job.hanging:
                    self._hanging -= 1
                    return
            del job  # and with it what the work holds, while this thread waits
            while True:
                with self._lock:
                    if self._queue:
                        job = self._queue.popleft()
                        break
                    if self._closed:
                        self._threads -= 1
                        return
                    self._idle.append(wake)
                wake.acquire()

    def _abandon_cancelled(self, job: _Job, future: Any) -> None:
        # A future keeps its callbacks, this one its job, and that would keep future and work alive.
        job.call = _nothing
        if not future.cancelled():
            return
        with self._lock:
            if not job.running or self._hanging >= 4 * self._size:
                return
            job.hanging = True
            self._hanging += 1
            if not self._queue:
                self._threads -= 1
                return
            waiting = self._queue.popleft()
        self._start_thread(waiting)


def _nothing() -> None:
    """In place of work that is done."""


def _run(future: "concurrent.futures.Future[Any]", work: Callable[[], Any]) -> None:
    """Do work and give its future the result, unless that was cancelled meanwhile."""
    value: Any = None
    error: BaseException | None = None
    try:
        value = work()
    except StopIteration as stop:  # which no future of a loop can hold
        error = RuntimeError("work in a thread raised StopIteration")
        error.__cause__ = stop
    except BaseException as caught:  # noqa: BLE001 - raised where the result is waited for
        error = caught
    try:
        if not future.set_running_or_notify_cancel():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
    finally:
        error = None  # its traceback holds this frame


async def until_done(future: "asyncio.Future[T]") -> T:
    """Wait until a future of a thread is done, however often the waiting is cancelled.

    Raises:
        asyncio.CancelledError: The waiting was cancelled; the future is done nevertheless.
        BaseException: What the future holds.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not complain
        raise cancelled
    return future.result()


class CancelEvent(Protocol):
    """`asyncio.Event`, `threading.Event`, anything with `is_set()`."""

    def is_set(self) -> bool:
        """Whether it is set."""


async def until_set(event: CancelEvent) -> None:
    """Wait until an event is set, whatever its kind.

    An `asyncio.Event` is noticed at once. One that belongs to another loop, as the first loop that
    waits for it is its own, and events of other kinds are looked at every 50 ms.
    """
    if isinstance(event, asyncio.Event):
        with suppress(RuntimeError):  # it belongs to another loop
            await event.wait()
            return
    while not event.is_set():  # noqa: ASYNC110 - it has no other way
        await asyncio.sleep(_POLL)


file_threads = ThreadPool("infra-core-files", min(32, (os.cpu_count() or 1) + 4))


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Run blocking work on files in a thread; on cancellation wait for it, then be cancelled.

    All packages share its `ThreadPool`. For work that lasts, such as a wait for another process,
    make a pool of your own.

    Raises:
        BaseException: What the work raised.
    """
    return await file_threads.run(work, *args)
