"""Objects with threads and locks that must be made new in a forked child."""

import os
import threading
import weakref
from typing import Protocol

__all__ = ["ForkReset", "reset_in_child"]


class ForkReset(Protocol):
    """What can be made usable again after a fork."""

    def _after_fork(self) -> None: ...


_tracked: "weakref.WeakSet[ForkReset]" = weakref.WeakSet()
_lock = threading.Lock()
_registered = False


def reset_in_child(item: ForkReset) -> None:
    """Call `item._after_fork()` in every child that is forked from now on, as its first act.

    A child inherits locks in whatever state they were and threads not at all, so that an object
    with either would hang or stay silent there. The object is held weakly.
    """
    global _registered
    with _lock:
        if not _registered and hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=_after_fork_in_child)
            _registered = True
        _tracked.add(item)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    for item in list(_tracked):
        item._after_fork()
