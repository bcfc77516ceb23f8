"""Synchronous methods over asynchronous ones, on the one background loop."""

import sys
from collections.abc import Callable, Coroutine
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["be_ready", "blocking", "run_blocking", "running_loop"]

P = ParamSpec("P")
T = TypeVar("T")


def running_loop() -> "asyncio.AbstractEventLoop | None":
    """Return the event loop that runs in the calling thread, if any, without importing asyncio."""
    if "asyncio" not in sys.modules:
        return None
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def be_ready() -> None:
    """Import what the first blocking call needs, which may come at exit, where it cannot be."""
    from infra_core.runtime import run_sync  # noqa: F401


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]], what: str, *names: str) -> T:
    """Run a coroutine to its end, also for a caller who blocks a running event loop with it.

    0.7's synchronous methods could be called anywhere, so callers inside a loop are served by a
    helper thread instead of being refused. When the loop that they block is the background loop
    (a hook of another synchronous call does that), nothing could run on it meanwhile: then the
    coroutine gets a loop of its own, which costs it new connections, but it ends.

    A TypeError for the arguments of what has one of the `names` says that `what` was called.
    """
    from infra_core.runtime import in_background_loop, name_call, run_sync

    try:
        if running_loop() is None:
            return run_sync(make(), what=what)
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        run = asyncio.run if in_background_loop() else partial(run_sync, what=what)
        with ThreadPoolExecutor(1, thread_name_prefix="infra-core-blocking") as pool:
            return pool.submit(lambda: run(make())).result()
    except TypeError as error:
        name_call(error, what, *names)
        raise


def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], owner: str = ""
) -> Callable[[Callable[..., T]], Callable[Concatenate[Any, P], T]]:
    """Make a method the synchronous twin of an asynchronous one: its parameters, its docstring.

    A decorator, since type checkers agree on the type of what is defined, not of what is assigned.
    A subclass that overrides the asynchronous method has changed both.

    Args:
        method: The asynchronous method.
        owner: The attribute that holds the object with that method; it is the same object when
            empty.
    """

    def decorate(twin: Callable[..., T]) -> Callable[Concatenate[Any, P], T]:
        def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            async_self = getattr(self, owner) if owner else self
            bound: Callable[P, Coroutine[Any, Any, T]] = getattr(async_self, method.__name__)
            what = f"{type(self).__name__}.{twin.__name__}()"
            # `request`: what many methods hand their keyword arguments on to.
            return run_blocking(partial(bound, *args, **kwargs), what, method.__name__, "request")

        update_wrapper(call, method)
        call.__name__, call.__qualname__ = twin.__name__, twin.__qualname__
        return call

    return decorate
