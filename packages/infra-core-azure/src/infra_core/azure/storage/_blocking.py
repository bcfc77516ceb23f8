"""Synchronous methods over asynchronous ones, on the one background loop."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from infra_core.runtime import in_background_loop, run_sync

__all__ = ["blocking", "run_blocking"]

P = ParamSpec("P")
T = TypeVar("T")


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
    """Run a coroutine to its end, also for a caller who blocks a running event loop with it.

    0.7's synchronous methods could be called anywhere, so callers inside a loop are served by a
    helper thread instead of being refused. When the loop that they block is the background loop
    (a hook of another synchronous call does that), nothing could run on it meanwhile: then the
    coroutine gets a loop of its own, which costs it new connections, but it ends.
    """
    if asyncio._get_running_loop() is None:
        return run_sync(make(), what=what)
    run = asyncio.run if in_background_loop() else partial(run_sync, what=what)
    with ThreadPoolExecutor(1, thread_name_prefix="infra-core-blocking") as pool:
        return pool.submit(lambda: run(make())).result()


def blocking(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Make a method the synchronous twin of an asynchronous one, with the same parameters.

    A subclass that overrides the asynchronous method has changed both.
    """

    def decorate(twin: Callable[..., T]) -> Callable[P, T]:
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            bound: Callable[..., Coroutine[Any, Any, T]] = getattr(args[0], method.__name__)
            return run_blocking(lambda: bound(*args[1:], **kwargs), f"{twin.__name__}()")

        functools.update_wrapper(call, twin)
        call.__wrapped__ = method  # type: ignore[attr-defined]  # inspect shows its parameters
        return call

    return decorate
