"""What a forked child must know: a child inherits locks as they were, and no threads at all."""

import logging
import os
import sys
import weakref
from collections.abc import Callable
from functools import cache

__all__ = ["ForkGuard", "after_fork_in_child"]

_logger = logging.getLogger("infra_core.runtime")
_callbacks: dict[object, Callable[[], Callable[[], object] | None]] = {}


class ForkGuard:
    """Distinguishes the process that made it from a child that was forked later.

    For sockets, database connections and file descriptors, which a child shares with its parent
    and must neither use nor close.

    Example:
        >>> ForkGuard().forked
        False
    """

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is another one than that which made the guard."""
        return self._pid != os.getpid()


def after_fork_in_child(callback: Callable[[], object]) -> None:
    """Call something in every child that is forked from now on, as one of its first acts.

    Callbacks run in the order of their registration; one that raises is logged. The object of a
    bound method is held weakly, and its callback goes with it. Nothing happens on Windows, which
    has no fork.

    Args:
        callback: Makes locks, threads and queues new. Must not wait for anything.
    """
    if not hasattr(os, "register_at_fork"):
        return
    _hook()
    owner, function = getattr(callback, "__self__", None), getattr(callback, "__func__", None)
    if owner is None or function is None:
        _callbacks[id(callback)] = lambda: callback
        return
    # No WeakMethod: its own callback prints errors where it runs as the interpreter ends.
    key, held = (id(owner), id(function)), weakref.ref(owner)
    _callbacks[key] = lambda: None if (alive := held()) is None else function.__get__(alive)
    weakref.finalize(owner, _callbacks.pop, key, None).atexit = False


@cache
def _hook() -> None:
    """Register what is to happen at a fork, with the first use."""
    if sys.platform != "win32":  # for type checkers; the caller has looked
        os.register_at_fork(after_in_child=_run_callbacks)


def _run_callbacks() -> None:
    for get in list(_callbacks.values()):
        callback = get()
        if callback is not None:
            try:
                callback()
            except Exception:
                _logger.exception("making an object usable in a forked child failed")
