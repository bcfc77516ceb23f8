"""The one source of time, waiting and randomness of every package of this project.

Nothing else reads a clock, sleeps or draws a random number, so that one reversible switch,
[`infra_core.runtime.testing.fast_time`][], makes every wait of every package instantaneous and
every jitter reproducible: in our tests and in yours.

Example:
    Measure and wait; under `fast_time` the same code takes no time at all::

        from infra_core.runtime import clock

        started = clock.monotonic()
        clock.sleep(0.01)
        assert clock.monotonic() - started >= 0.01
"""

import sys
import time as _time

TYPE_CHECKING = False
if TYPE_CHECKING:  # asyncio costs 40 ms to import: only those who await pay for it
    import asyncio
    from datetime import datetime
    from typing import Any

    from .testing import FastTime

    if sys.version_info >= (3, 11):
        from asyncio import Timeout
    else:
        from ._timeout310 import Timeout

__all__ = ["jitter", "monotonic", "sleep", "sleep_async", "time", "timeout", "utc_now"]

_fake: "FastTime | None" = None


def _replace(source: "FastTime | None") -> "FastTime | None":
    """Put another source in place of the current one and return the one that was there."""
    global _fake
    previous, _fake = _fake, source
    return previous


def monotonic() -> float:
    """Return seconds on a clock that never goes back; only differences mean anything."""
    return _time.monotonic() if _fake is None else _fake.monotonic()


def time() -> float:
    """Return seconds since the epoch (UTC wall clock)."""
    return _time.time() if _fake is None else _fake.time()


def utc_now() -> "datetime":
    """Return the current time, timezone-aware, in UTC."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(time(), tz=timezone.utc)


def sleep(seconds: float) -> None:
    """Block the calling thread for that many seconds; zero and less return at once."""
    if _fake is not None:
        _fake.sleep(seconds)
    elif seconds > 0:
        _time.sleep(float(seconds))


async def sleep_async(seconds: float) -> None:
    """Suspend the calling task for that many seconds; the loop gets a turn even for zero."""
    if _fake is not None:
        await _fake.sleep_async(seconds)
        return
    import asyncio

    await asyncio.sleep(max(0, seconds))


def jitter(upper: float) -> float:
    """Return a random number between 0 and `upper`, evenly spread ("full jitter")."""
    if _fake is not None:
        return _fake.jitter(upper)
    import random

    return random.uniform(0.0, upper)


def _hold(future: "asyncio.Future[Any]") -> None:
    """Let `fast_time` wait for work beside the event loop; does nothing while time is real."""
    if _fake is not None:
        _fake._hold(future)


def timeout(seconds: float | None) -> "Timeout":
    """Bound the body of an `async with` block; `None` means no bound.

    When the time is up the body is cancelled and the block raises the builtin `TimeoutError`;
    a cancellation that comes from outside stays a `CancelledError`. The object that
    `async with clock.timeout(5) as scope` binds has `scope.expired()`, which is false for a
    `TimeoutError` that the body itself raised.

    Real seconds always, also under `fast_time`: a timeout is what ends a hanging test.

    Args:
        seconds: From now; zero or less lets the body run to its first suspension.

    Returns:
        `asyncio.timeout` on 3.11 and newer, an equivalent on 3.10, with `expired()`, `when()`
        and `reschedule()` as well.
    """
    import asyncio

    if sys.version_info >= (3, 11):
        return asyncio.timeout(seconds)
    else:  # noqa: RET505 - a type checker for one version passes the branch of the other over
        from ._timeout310 import Timeout

        return Timeout(None if seconds is None else asyncio.get_running_loop().time() + seconds)
