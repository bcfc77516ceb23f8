"""Work that a deadline may leave to itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from infra_core.runtime import until_done

__all__ = ["within"]

T = TypeVar("T")
_GRACE: Final = 0.5  # seconds for cleaning up before the work is left alone


async def within(
    seconds: float, work: Coroutine[Any, Any, T], *, abandon: Callable[[], object]
) -> T:
    """Await for that many seconds at most; then leave the work to end by itself.

    A thread that hangs in a network file system cannot be stopped. The work is cancelled, goes on
    to clean up when its thread comes back, and the caller does not wait for it. Cancelled by its
    caller, it is waited for. `abandon` is called when the time is up, before the work is cancelled.

    Raises:
        TimeoutError: The time is up.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        with contextlib.suppress(Exception):
            await until_done(task)
        raise
    if not done:
        abandon()
        task.cancel()
        _left.add(task)
        task.add_done_callback(_end_left)
        done, _ = await asyncio.wait([task], timeout=_GRACE)
        if not done or task.cancelled():
            raise TimeoutError
    return task.result()


_left: set[asyncio.Future[Any]] = set()  # the loop itself holds tasks weakly


def _end_left(task: asyncio.Future[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain
