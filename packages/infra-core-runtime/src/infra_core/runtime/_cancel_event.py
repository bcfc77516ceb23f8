"""Noticing that an event is set, without a task of our own."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["CancelEvent", "EventWatch"]

_POLL = 0.05


class CancelEvent(Protocol):
    """What can cancel a runtime: `asyncio.Event`, `threading.Event`, anything with `is_set()`."""

    def is_set(self) -> bool:
        """Say whether to cancel."""


class EventWatch:
    """Calls back once when an event is set, until it is closed.

    An `asyncio.Event` is noticed at once. It belongs to the loop that first waited for it; used
    with another loop later, or with an event of another kind, it is looked at every 50 ms.
    """

    __slots__ = ("_callback", "_event", "_loop", "_timer", "_wait", "_waiter")

    def __init__(self, event: CancelEvent, callback: Callable[[], None]) -> None:
        self._event = event
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wait: Any = None
        self._waiter: asyncio.Future[Any] | None = None
        if isinstance(event, asyncio.Event):
            # One step of wait() gives the future that set() resolves: that is all we need of it.
            self._wait = event.wait()
            try:
                self._waiter = self._wait.send(None)
            except RuntimeError:  # the event is bound to another loop
                self._wait = None
            except StopIteration:
                self._wait = None
        if self._waiter is not None:
            self._waiter.add_done_callback(self._told)
        else:
            self._poll()

    def look(self) -> bool:
        """Say whether the event is set, and call back if that is news."""
        if not self._event.is_set():
            return False
        self._told()
        return True

    def _told(self, _: object = None) -> None:
        self.close()
        self._callback()

    def _poll(self) -> None:
        if self._event.is_set():
            self._callback()
        else:
            self._timer = self._loop.call_later(_POLL, self._poll)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiter is not None:
            self._waiter.remove_done_callback(self._told)
            self._waiter = None
        if self._wait is not None:
            self._wait.close()
            self._wait = None
