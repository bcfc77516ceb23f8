"""A thread for work that no caller may wait for: run logs' mirrors, uploads of beats, telemetry."""

import atexit
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from infra_core.runtime import after_fork_in_child, clock

from .._checks import require_number
from .._process import alive_of

__all__ = ["Worker"]


def _never() -> bool:
    return False


@dataclass(eq=False, repr=False)
class Worker:
    """One daemon thread that works when it is asked to, and can be waited for.

    Requests are numbered. While one is open the thread calls `work` with the number of the latest;
    the work calls `finish` with the number up to which all is done, and sleeps in `pause` where it
    has to. A flush is a request as well, for which pauses are cut short.

    The thread starts with the first request and ends with `close`, or when it was idle for long; a
    later request starts another one. A thread whose work hangs when it is closed ends after it. A
    forked child begins with neither thread nor requests.

    Not a `ThreadPool`: its threads never end, and at the end of the interpreter it has the caller
    do the work.

    Args:
        name: Name of the thread.
        work: Called in the thread without any lock; raises nothing.
        at_exit: Called when the interpreter ends, or a child of multiprocessing, unless there was
            no request or the worker is closed. Its argument is the time on the monotonic clock at
            which that began, for all workers: their last seconds are the same.
        idle_seconds: Seconds without requests after which the thread ends; `None` for never.
        at_end: Called in a thread that ends, with the lock held.
    """

    name: str
    work: Callable[[int], object]
    _: KW_ONLY
    at_exit: Callable[[float], object] | None = None
    idle_seconds: float | None = None
    at_end: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self.changed = threading.Condition()  # the one lock, which a thread may take twice
        self.asked = self.finished = self._flush = 0  # numbers of requests
        self._thread: threading.Thread | None = None
        self._closed = True  # also while nothing was asked; a thread that is idle ends without
        _alive.discard(self)

    @property
    def pending(self) -> bool:
        """Whether a request is open."""
        return self.asked > self.finished

    @property
    def flushing(self) -> bool:
        """Whether a flush is."""
        return self._flush > self.finished

    @property
    def in_thread(self) -> bool:
        """Whether this is the worker's thread, and not closed."""
        return self._thread is threading.current_thread()

    def ask(self) -> bool:
        """Have the work done soon; never waits.

        False where there is no thread for it: at the very end of the interpreter none can be
        started, and the caller may do the work itself, or leave it.
        """
        with self.changed:
            self.asked += 1
            if self.asked == self.finished + 1:  # else the thread is at it
                self.changed.notify_all()
            return self._start()

    def flush(self, timeout: float, *, until: Callable[[], bool] = _never) -> bool:
        """Have the work done at once, wait for it, and return whether all asked before is done.

        A worker that is closed, and of which nothing was asked since, has nothing to do.
        `until` ends the waiting, too; it is asked whenever `changed` is notified.
        """
        require_number("timeout", timeout, "seconds, or math.inf to wait until it is done")
        with self.changed:
            if not self.pending and (self._closed or not self._start()):
                return True
            self.asked += 1
            number = self._flush = self.asked
            self.changed.notify_all()
            if self._start() and not self.in_thread:
                seconds = min(timeout, threading.TIMEOUT_MAX)
                self.changed.wait_for(lambda: self.finished >= number or until(), seconds)
            return self.finished >= number

    def finish(self, number: int) -> None:
        """Say that all requests up to a number are done."""
        with self.changed:
            self.finished = max(self.finished, number)
            self.changed.notify_all()

    def pause(self, seconds: float, number: float, *, until: Callable[[], bool] = _never) -> bool:
        """Sleep within the work, until a flush with a higher number, or `until`, ends it.

        False, at once, when the worker is closed, and in any other thread: the work is to end.
        """
        with self.changed:
            self.changed.wait_for(
                lambda: not self.in_thread or self._flush > number or until(), seconds
            )
            return self.in_thread

    def close(self) -> None:
        """End the thread, after the work that it is at; waits for it only when it is idle."""
        with self.changed:
            thread, self._thread, self._closed = self._thread, None, True
            idle = not self.pending
            self.changed.notify_all()
        _alive.discard(self)
        if thread is not None and idle and thread is not threading.current_thread():
            thread.join(1.0)

    def _start(self) -> bool:
        if self._thread is not None:
            return True
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or the system has no thread to give
            return False
        self._thread, self._closed = thread, False
        if self.at_exit is not None:
            _remember(self)
        return True

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.pending or not self.in_thread, self.idle_seconds)
                if not (self.pending and self.in_thread):
                    if self.in_thread:
                        self._thread = None
                    if self.at_end is not None:
                        self.at_end()
                    return
                number = self.asked
            self.work(number)


_alive: weakref.WeakSet[Worker] = weakref.WeakSet()  # to be asked when the process ends
_finalizer: Any = None


def _remember(worker: Worker) -> None:
    global _finalizer
    if not _alive:  # once, and before the handlers of those who came earlier
        atexit.unregister(_exit)
        atexit.register(_exit)
        if _finalizer is not None:
            _finalizer.cancel()
        # Children of multiprocessing leave without running atexit, but run these.
        util = sys.modules.get("multiprocessing.util")
        _finalizer = util and util.Finalize(None, _exit, exitpriority=100)
    _alive.add(worker)


def _exit() -> None:
    began, workers = clock.monotonic(), alive_of(_alive)
    _alive.clear()  # where both handlers are run, once is enough
    for worker in workers:
        if worker.pending:
            worker.flush(0)  # all at once, without a wait for any
    for worker in workers:
        if worker.at_exit is not None:
            worker.at_exit(began)
