"""The one background event loop on which every synchronous facade runs its coroutines."""

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, partial
from typing import Any, Generic, TypeVar

from . import clock
from ._forks import after_fork_in_child
from ._threads import file_threads
from ._values import is_number, shown

with contextlib.suppress(RuntimeError):  # from Python, once the main thread has ended
    import concurrent.futures.thread

__all__ = ["in_background_loop", "on_background_close", "refuse_running_loop", "run_sync"]

T = TypeVar("T")
CLOSE_TIMEOUT = 5.0  # seconds that everything which closes at exit may take together
CANCEL_GRACE = 10.0  # seconds that a cancelled coroutine may take to clean up
# Seconds between two looks for signals. One that comes just before the main thread begins to wait
# does not wake it, and on Windows none does.
SIGNAL_INTERVAL = 0.25
_logger = logging.getLogger("infra_core.runtime")


class _BackgroundLoop(threading.Thread):
    """One daemon thread with one event loop, until the process ends."""

    def __init__(self) -> None:
        super().__init__(name="infra-core-background-loop", daemon=True)
        self.loop = _new_loop()
        try:
            self.start()
        except RuntimeError:
            self.loop.close()
            raise

    def run(self) -> None:
        """Run the event loop."""
        while True:
            try:
                self.loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                continue  # a task lets these through the loop; its caller gets them all the same
            return

    def close(self) -> None:
        """Run the close callbacks, end what still runs, stop the thread, close the loop."""
        winding_down = asyncio.run_coroutine_threadsafe(self._wind_down(), self.loop)
        concurrent.futures.wait([winding_down], CLOSE_TIMEOUT + 1)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join(timeout=1)
        if not self.is_alive():
            self.loop.close()

    async def _wind_down(self) -> None:
        try:
            async with clock.timeout(CLOSE_TIMEOUT):
                while _callbacks:
                    callback = _callbacks.pop()  # the last one may stand on those before it
                    try:
                        await callback()
                    except Exception as error:  # noqa: BLE001 - the others must be closed
                        _logger.warning("a background close callback failed: %s", shown(error))
                await _end_the_others()
        except TimeoutError:
            _logger.warning("closing at exit took more than %g s and was cut", CLOSE_TIMEOUT)


async def _end_the_others() -> None:
    """Cancel the other tasks of this loop and end its generators, as `asyncio.run` does."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with the threads of `in_thread` for what asks it for one."""
    loop = asyncio.new_event_loop()
    # Without the class, what asks for a thread (`asyncio.to_thread`) fails, and nothing else.
    with contextlib.suppress(RuntimeError):
        loop.set_default_executor(_executor())
    return loop


@cache
def _executor() -> "concurrent.futures.ThreadPoolExecutor":
    class Threads(concurrent.futures.ThreadPoolExecutor):
        """What event loops insist on; the usual one refuses work once the main thread has ended."""

        def submit(
            self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
        ) -> "concurrent.futures.Future[Any]":
            return file_threads.submit(partial(fn, *args, **kwargs))

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            pass  # the threads are not this object's

    return Threads()


class _Call(Generic[T]):
    """A coroutine on the background loop, seen from the thread that waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self.done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop = loop
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        """Start the coroutine in a copy of the caller's context variables."""
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: "asyncio.Task[T]") -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())

    def wait(self, timeout: float | None) -> bool:
        """Wait that many seconds for the end; returns whether it came."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        main = threading.current_thread() is threading.main_thread()
        longest = SIGNAL_INTERVAL if main else threading.TIMEOUT_MAX
        while not concurrent.futures.wait([self.done], min(longest, end - time.monotonic())).done:
            if time.monotonic() >= end:
                return False
        return True

    def cancel(self) -> bool:
        """Cancel the coroutine and wait for its clean-up; returns whether it ended."""
        self._loop.call_soon_threadsafe(self._cancel)
        return self.wait(CANCEL_GRACE)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self.done.done():  # the interrupt came before it could begin
            self._coroutine.close()
            self.done.set_exception(asyncio.CancelledError())


_lock = threading.Lock()
_current: _BackgroundLoop | None = None
_callbacks: list[Callable[[], Awaitable[None]]] = []
_exiting = False
# The parent's loop in a forked child: its file descriptors are shared, so it must not be closed.
_inherited: list[object] = []


@cache
def _hook() -> None:
    """Register what is to happen at a fork and at the exit, with the first use."""
    atexit.register(_at_exit)
    after_fork_in_child(_after_fork)


def _background() -> _BackgroundLoop | None:
    """Return the running background loop of this process, started now if need be.

    `None` when it has ended, or its thread cannot be begun (Python 3.12 and later), since the
    interpreter ends: exit handlers still get their answer.
    """
    global _current
    if _exiting:
        return None
    with contextlib.suppress(RuntimeError):
        _hook()
        with _lock:
            if _current is None or not _current.is_alive():
                _current = _BackgroundLoop()
            return _current
    return None


def _after_fork() -> None:
    global _current, _lock
    _lock = threading.Lock()  # may be held by a thread that does not exist here
    _inherited.append((_current, _callbacks[:]))
    _callbacks.clear()
    _current = None


def _at_exit() -> None:
    global _current, _exiting
    with _lock:
        _exiting = True
        background, _current = _current, None
    if background is not None:
        background.close()


def in_background_loop() -> bool:
    """Whether this code runs on the background loop itself, where waiting for it never ends.

    For facades that may be called from anywhere: blocking the background loop until a coroutine
    on that loop is done would be a deadlock.

    Example:
        >>> async def ask() -> bool:
        ...     return in_background_loop()
        >>> run_sync(ask()), in_background_loop()
        (True, False)
    """
    return threading.current_thread() is _current


def refuse_running_loop(what: str, instead: str | None = None) -> None:
    """Raise where a synchronous call would block a running event loop, in the words of `run_sync`.

    For calls that run a loop of their own, such as `asyncio.run`, whose error names no remedy.

    Args:
        what: What the user called.
        instead: What the user can await.

    Raises:
        RuntimeError: This thread runs an event loop.

    Example:
        >>> refuse_running_loop("run_batch()", "run_batch_async()")
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    remedy = f"await {instead}" if instead else "await its async counterpart"
    raise RuntimeError(
        f"{what} blocks, and this thread runs an event loop, which would stand still: "
        f"{remedy}, or call it from another thread with asyncio.to_thread()"
    )


def run_sync(
    coroutine: Coroutine[Any, Any, T],
    *,
    timeout: float | None = None,
    what: str = "this synchronous call",
    instead: str | None = None,
) -> T:
    """Run a coroutine to its end from synchronous code, on the one background event loop.

    All callers of a process, in whatever thread, share that loop, so pooled connections live on
    between calls. It starts with the first call, in a daemon thread; a forked child gets its own;
    at exit, close callbacks run and it ends. The caller's context variables are seen.

    Args:
        coroutine: Is always run or closed, so no "never awaited" warning follows an error.
        timeout: Seconds until it is cancelled; its clean-up is waited for. None and `math.inf`
            for no bound.
        what: What the user called, for error messages, such as `download_asset()`.
        instead: What the user can await, named in the error within a running loop.

    Returns:
        What the coroutine returned.

    Raises:
        RuntimeError: Inside a running event loop, which would be blocked.
        TypeError: For anything but a coroutine.
        ValueError: The timeout is not a number.
        TimeoutError: Not done in time.
        KeyboardInterrupt: After the coroutine was cancelled and has ended.
        BaseException: What the coroutine raised.

    Example:
        >>> async def answer() -> int:
        ...     return 42
        >>> run_sync(answer())
        42
    """
    if not asyncio.iscoroutine(coroutine):
        raise TypeError(
            f"{what} needs a coroutine, not {shown(coroutine)}: pass what an async function "
            "returns when it is called"
        )
    try:
        refuse_running_loop(what, instead)
        if timeout is not None and not is_number(timeout):
            raise ValueError(f"timeout={timeout!r} of {what} is not a number: pass seconds or None")
        background = _background()
        call = None if background is None else _Call(background.loop, coroutine)
    except BaseException:
        coroutine.close()
        raise
    if call is None:
        return _run_at_exit(_bounded(coroutine, timeout))
    try:
        call.begin()
        in_time = call.wait(timeout)
    except BaseException:  # KeyboardInterrupt, or what another signal handler raised
        if not call.cancel():
            _logger.warning("%s goes on %g s after it was cancelled", what, CANCEL_GRACE)
        raise
    if not in_time:
        ended = call.cancel()
        if not ended or isinstance(call.done.exception(), asyncio.CancelledError):
            raise TimeoutError(
                f"{what} was not done within {float(timeout or 0):g} s and was cancelled"
                f"{'' if ended else ', which it ignores'}: allow more time"
            )
    try:
        return call.done.result()
    except asyncio.CancelledError:
        raise asyncio.CancelledError(f"{what} was cancelled on the background loop") from None
    finally:
        del call  # it holds the exception, whose traceback holds this frame


def _run_at_exit(coroutine: Coroutine[Any, Any, T]) -> T:
    """Do what `asyncio.run` does, which starts a thread to end an executor: too late for that."""
    loop = _new_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(_end_the_others())
        loop.close()


async def _bounded(coroutine: Coroutine[Any, Any, T], timeout: float | None) -> T:
    async with clock.timeout(timeout):
        return await coroutine


def on_background_close(callback: Callable[[], Awaitable[None]]) -> None:
    """Have something closed on the background loop before it ends at exit.

    Callbacks run in the reverse order of their registration, those that fail are logged. They
    belong to this process: a forked child starts without them.

    Args:
        callback: Called without arguments on the background loop; its result is awaited.
    """
    _hook()
    _callbacks.append(callback)
