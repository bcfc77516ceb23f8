"""How long an event loop keeps its callbacks waiting: the difference between busy and dead."""

import threading
from typing import TYPE_CHECKING

from infra_core.runtime import clock

if TYPE_CHECKING:
    import asyncio

__all__ = ["LoopLagProbe"]


class LoopLagProbe:
    """Asks a loop to call back from another thread and times the answer."""

    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        self._loop = loop
        self._lock = threading.RLock()  # a signal handler may ask in the middle of an answer
        self._asked_at: float | None = None
        self._worst: float | None = None

    def ask(self) -> None:
        """Send a question unless one is still unanswered. Any thread may call it."""
        with self._lock:
            if self._asked_at is not None:
                return
            self._asked_at = clock.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop is closed: there is nothing to lag
            with self._lock:
                self._asked_at = None

    def take(self) -> float | None:
        """Return the worst lag in seconds since the last call, and begin anew.

        A question that is still unanswered counts with its age, so that a blocked loop shows
        while it is blocked. `None` when nothing was measured.
        """
        with self._lock:
            worst, self._worst = self._worst, None
            if self._asked_at is not None and not self._loop.is_closed():
                worst = max(worst or 0.0, clock.monotonic() - self._asked_at)
            return worst

    def _answer(self) -> None:
        with self._lock:
            if self._asked_at is not None:
                lag = clock.monotonic() - self._asked_at
                self._worst = max(self._worst or 0.0, lag)
                self._asked_at = None
