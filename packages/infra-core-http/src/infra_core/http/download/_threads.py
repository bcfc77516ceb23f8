"""Blocking work beside the event loop, never abandoned half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

__all__ = ["finished", "in_thread"]

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread; on cancellation wait for it, then be cancelled.

    A thread cannot be stopped, and one that still writes to a file which its owner has closed
    and removed is how stray files come about.
    """
    return await finished(asyncio.get_running_loop().run_in_executor(None, work))


async def finished(future: asyncio.Future[T]) -> T:
    """Wait until a future of a thread is done, however often the waiting is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # looked at, so that asyncio does not complain
        raise cancelled
    return future.result()
