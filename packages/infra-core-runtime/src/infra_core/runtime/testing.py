"""A reversible switch that makes every wait instantaneous, for our tests and for yours.

Example:
    Three retries with backoff of up to 7 seconds in total, tested in microseconds::

        from infra_core.runtime import RetryPolicy, retry_sync
        from infra_core.runtime.testing import fast_time

        attempts = []

        def flaky() -> str:
            attempts.append(1)
            if len(attempts) < 4:
                raise ConnectionError("not yet")
            return "done"

        with fast_time(jitter=1.0) as clock:
            policy = RetryPolicy(max_retries=3)
            assert retry_sync(flaky, policy=policy, should_retry=lambda error: True) == "done"
        assert clock.slept == [1.0, 2.0, 4.0]
"""

import asyncio
import heapq
import itertools
import math
import random
import threading
import time as _time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import clock
from ._values import is_number

__all__ = ["FastTime", "fast_time"]

_TURNS = 10  # of the loop, between two wake-ups


class FastTime:
    """A clock that jumps instead of waiting. Made by `fast_time`, which also installs it.

    Synchronous sleeps advance the time at once. Asynchronous sleeps of one event loop wake in
    the order of their wake-up times, as they would in real life; sleeps that overlap do not add
    up. Between two of them the loop has some turns, and what `in_thread` and other `ThreadPool`s
    have begun for it is waited for: work in between takes no time, so time must not go on.

    Attributes:
        slept: Every sleep that was asked for, in seconds and in order, of all threads and tasks.
    """

    def __init__(self, *, jitter: float | None = None) -> None:
        if jitter is not None and not (is_number(jitter) and 0.0 <= jitter <= 1.0):
            raise ValueError(
                f"jitter={jitter!r} is not a fraction: pass 0.0 (no wait) to 1.0 (the full wait), "
                "or None for real randomness"
            )
        self.slept: list[float] = []
        self._jitter = jitter
        # Whole, so that sums of whole seconds are exact, whatever the machine's clock shows.
        self._monotonic = float(math.ceil(_time.monotonic()))
        self._wall_offset = _time.time() - self._monotonic
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._sleepers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Sleepers] = (
            weakref.WeakKeyDictionary()
        )

    def monotonic(self) -> float:
        """Return the fake counterpart of `clock.monotonic`."""
        return self._monotonic

    def time(self) -> float:
        """Return the fake counterpart of `clock.time`, in seconds since the epoch."""
        return self._monotonic + self._wall_offset

    def advance(self, seconds: float) -> None:
        """Let time pass without anybody sleeping.

        Args:
            seconds: How far to go on; must not be negative.

        Raises:
            ValueError: For negative seconds and what is not a number.
        """
        if not (is_number(seconds) and seconds >= 0):
            raise ValueError(
                f"cannot advance by {seconds!r} s: this clock never goes back; pass 0 or more"
            )
        with self._lock:
            self._monotonic += seconds

    def sleep(self, seconds: float) -> None:
        """Advance at once, in place of `clock.sleep`."""
        self.slept.append(seconds)
        self.advance(max(0.0, seconds))

    async def sleep_async(self, seconds: float) -> None:
        """Wake after all of this loop that are due before, in place of `clock.sleep_async`."""
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        sleepers = self._sleepers_of(loop)
        wake: asyncio.Future[None] = loop.create_future()
        heapq.heappush(sleepers.heap, (self._monotonic + seconds, next(self._order), wake))
        if not sleepers.scheduled:
            sleepers.scheduled = True
            sleepers.turns = _TURNS
            loop.call_soon(self._wake_next, loop, sleepers)
        await wake

    def _hold(self, future: "asyncio.Future[object]") -> None:
        """Let no time pass for the sleepers of a loop until its future is done."""
        sleepers = self._sleepers_of(future.get_loop())
        sleepers.held += 1
        future.add_done_callback(sleepers.let_go)

    def _sleepers_of(self, loop: asyncio.AbstractEventLoop) -> "_Sleepers":
        with self._lock:
            return self._sleepers.setdefault(loop, _Sleepers())

    def jitter(self, upper: float) -> float:
        """Return the fixed fraction of `upper`, or a random one when none was fixed."""
        return random.uniform(0.0, upper) if self._jitter is None else upper * self._jitter

    def _wake_next(self, loop: asyncio.AbstractEventLoop, sleepers: "_Sleepers") -> None:
        """Wake the next sleeper when its turn has come, and come back if there are more."""
        sleepers.turns -= 1
        while sleepers.heap and sleepers.turns <= 0 and not sleepers.held:
            due, _, wake = heapq.heappop(sleepers.heap)
            if wake.done():  # cancelled while it slept: no time passes for that
                continue
            with self._lock:
                self._monotonic = max(self._monotonic, due)
            wake.set_result(None)
            sleepers.turns = _TURNS
            break
        if sleepers.heap:
            loop.call_soon(self._wake_next, loop, sleepers)
        else:
            sleepers.scheduled = False


@dataclass(slots=True, eq=False)
class _Sleepers:
    """Those who sleep on one event loop."""

    heap: "list[tuple[float, int, asyncio.Future[None]]]" = field(default_factory=list)
    scheduled: bool = False
    turns: int = 0  # before the next one may wake
    held: int = 0  # futures that are waited for before any may wake

    def let_go(self, _: object) -> None:
        self.held -= 1


_stack_lock = threading.Lock()
_stack: list[FastTime] = []


@contextmanager
def fast_time(*, jitter: float | None = None) -> Iterator[FastTime]:
    """Make every wait of every package of this project return at once, within a `with` block.

    Sleeps are recorded and advance a fake clock, on which deadlines are then measured as well.
    The switch is process-wide (all threads see it), may be nested (the inner one counts), and the
    real clock is back when the last block is left, whatever was raised. Timeouts of asyncio stay
    real, and so does all I/O.

    Args:
        jitter: Fixes randomness: every jittered wait is this fraction of its ceiling, so `1.0`
            gives the whole wait and `0.0` none. `None` keeps it random.

    Yields:
        The fake clock: `.slept` lists the waits, `.advance(seconds)` lets time pass.

    Raises:
        ValueError: When `jitter` is not within 0 and 1.

    Example:
        >>> from infra_core.runtime import clock
        >>> with fast_time() as fake:
        ...     clock.sleep(3600)
        >>> fake.slept
        [3600]
    """
    fake = FastTime(jitter=jitter)
    with _stack_lock:
        _stack.append(fake)
        clock._replace(fake)
    try:
        yield fake
    finally:
        with _stack_lock:
            _stack.remove(fake)  # blocks of two threads may end in either order
            clock._replace(_stack[-1] if _stack else None)
