"""`asyncio.timeout` for Python 3.10, where a task cannot count its cancellations.

3.11's own stands on `Task.cancelling()`. Here the task's pending cancellation is looked at instead,
before the timeout adds its own and once more right before the task wakes, so that a cancellation
from outside that comes at the same moment is not mistaken for the timeout, in either order. One
that came before, and is still being cleaned up after when the time is up, is found among the
contexts of the exception.

What is pending can be read from a task's `repr` alone; 3.10 is in maintenance and keeps it.
"""

import asyncio
import re
from types import TracebackType
from typing import Any

__all__ = ["Timeout"]

_PENDING = re.compile(r"<\w+ cancelling ")
_DELIVERED = re.compile(r" wait_for=<\w+ cancelled")


class _Message(str):
    """The message of a timeout's own cancellations, by which they are known."""

    __slots__ = ("owner",)
    owner: "Timeout"


class Timeout:
    """`asyncio.Timeout` for 3.10; raises the builtin `TimeoutError`.

    Args:
        when: Time of the loop at which it strikes; `None` for never.
    """

    def __init__(self, when: float | None) -> None:
        self._when = when
        self._task: asyncio.Task[Any] | None = None
        self._handle: asyncio.Handle | None = None
        self._expiring = False
        self._marked = False  # our message waits in the task, where a later cancel replaces it
        self._cancelled_from_outside = False
        self._message = _Message("timeout")
        self._message.owner = self

    def when(self) -> float | None:
        """Return the time of the loop at which it strikes; `None` for never."""
        return self._when

    def expired(self) -> bool:
        """Whether this timeout, and nothing else, ended the block."""
        return self._expiring and not self._cancelled_from_outside

    def reschedule(self, when: float | None) -> None:
        """Let it strike at another time of the loop; `None` for never.

        Raises:
            RuntimeError: The block is not entered, has struck or is over.
        """
        if self._task is None or self._expiring:
            raise RuntimeError("a timeout can be rescheduled within its block, until it strikes")
        self._when = when
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if when is not None:
            loop = asyncio.get_running_loop()
            if when <= loop.time():
                self._handle = loop.call_soon(self._on_timeout)
            else:
                self._handle = loop.call_at(when, self._on_timeout)

    async def __aenter__(self) -> "Timeout":
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("clock.timeout() works inside a task only: use asyncio.run()")
        self.reschedule(self._when)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._task = None
        if not self._expiring or exc is None or exc_type is not asyncio.CancelledError:
            return
        if (self._marked and not self._is_ours(exc)) or self._came_later(exc):
            self._cancelled_from_outside = True
        if not self._cancelled_from_outside:
            raise TimeoutError from exc

    def _is_ours(self, error: BaseException | None) -> bool:
        """Whether our message was delivered, rather than that of a later cancel."""
        while error is not None:
            if error.args and error.args[0] is self._message:
                return True
            error = error.__context__
        return False

    def _came_later(self, error: BaseException) -> bool:
        """Whether this timeout struck while another cancellation was being cleaned up after."""
        struck = False
        link: BaseException | None = error
        while link is not None:
            if isinstance(link, asyncio.CancelledError):
                message = link.args[0] if link.args else None
                owner = message.owner if isinstance(message, _Message) else None
                if owner is self:
                    struck = True
                elif struck and (owner is None or owner._task is not None):
                    return True  # not one of a timeout within this one, which is over
            link = link.__context__
        return False

    def _on_timeout(self) -> None:
        task = self._task
        if task is None or task.done():
            return
        loop = asyncio.get_running_loop()
        state = repr(task)
        if _PENDING.match(state) or _DELIVERED.search(state):
            # Somebody cancelled it in this very turn. If that was a timeout inside of this one,
            # the block goes on and is to be cut next; otherwise it ends and this is called off.
            self._handle = loop.call_soon(self._on_timeout)
            return
        self._expiring = True
        check = loop.call_soon(self._look_again)  # runs right before the task wakes
        task.cancel(self._message)
        if _PENDING.match(repr(task)):
            self._marked = True
            check.cancel()
        else:
            self._handle = check

    def _look_again(self) -> None:
        if _PENDING.match(repr(self._task)):
            self._cancelled_from_outside = True
