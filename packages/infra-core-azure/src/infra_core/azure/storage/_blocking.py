"""Synchronous methods over asynchronous ones, on the one background loop."""

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from infra_core.runtime import run_sync

__all__ = ["run_blocking"]

T = TypeVar("T")
_ours: "weakref.WeakSet[asyncio.AbstractEventLoop]" = weakref.WeakSet()


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
    """Run a coroutine to its end, also for a caller who blocks a running event loop with it.

    0.7's synchronous methods could be called anywhere, so callers inside a loop are served by a
    helper thread instead of being refused.

    Raises:
        RuntimeError: From a hook of another synchronous call, which would wait for itself.
    """

    async def marked() -> T:
        _ours.add(asyncio.get_running_loop())
        return await make()

    running = asyncio._get_running_loop()
    if running is None:
        return run_sync(marked(), what=what)
    if running in _ours:
        raise RuntimeError(
            f"{what} was called from a hook (on_progress, on_outcome) of another synchronous call, "
            "on whose background loop it would wait for ever; collect what the hook is told and "
            "call it afterwards, or use the async methods"
        )
    with ThreadPoolExecutor(1, thread_name_prefix="infra-core-blocking") as pool:
        return pool.submit(lambda: run_sync(marked(), what=what)).result()
