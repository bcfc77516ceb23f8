"""`asyncio.timeout` for Python 3.10, where a task cannot count its cancellations.

3.11's own stands on `Task.cancelling()`. Here the task's pending cancellation is looked at instead,
before the timeout adds its own and once more right before the task wakes, so that a cancellation
from outside that comes at the same moment is not mistaken for the timeout, in either order. One
that came before, and is still being cleaned up after when the time is up, is found among the
contexts of the exception.
"""

import asyncio
from types import TracebackType
from typing import Any

__all__ = ["Timeout"]


class _Message(str):
    """The message of a timeout's own cancellations, by which they are known."""

    __slots__ = ("owner",)
    owner: "Timeout"


class Timeout:
    """`asyncio.Timeout` for 3.10: raises the builtin `TimeoutError`, tells `expired()`."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._task: asyncio.Task[Any] | None = None
        self._handle: asyncio.Handle | None = None
        self._expiring = False
        self._marked = False  # our message waits in the task, where a later cancel replaces it
        self._cancelled_from_outside = False
        self._message = _Message(f"timeout of {seconds} s")
        self._message.owner = self

    def expired(self) -> bool:
        """Whether this timeout, and nothing else, ended the block."""
        return self._expiring and not self._cancelled_from_outside

    async def __aenter__(self) -> "Timeout":
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("clock.timeout() works inside a task only: use asyncio.run()")
        if self._seconds is not None:
            loop = asyncio.get_running_loop()
            if self._seconds <= 0:
                self._handle = loop.call_soon(self._on_timeout)
            else:
                self._handle = loop.call_later(self._seconds, self._on_timeout)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        task, self._task = self._task, None
        if not self._expiring or exc_type is not asyncio.CancelledError:
            return
        if self._marked and getattr(task, "_cancel_message", None) is not self._message:
            self._cancelled_from_outside = True
        if exc is not None and self._came_later(exc):
            self._cancelled_from_outside = True
        if not self._cancelled_from_outside:
            raise TimeoutError from exc

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
        waiter = getattr(task, "_fut_waiter", None)
        if getattr(task, "_must_cancel", False) or (waiter is not None and waiter.cancelled()):
            # Somebody cancelled it in this very turn. If that was a timeout inside of this one,
            # the block goes on and is to be cut next; otherwise it ends and this is called off.
            self._handle = loop.call_soon(self._on_timeout)
            return
        self._expiring = True
        check = loop.call_soon(self._look_again)  # runs right before the task wakes
        task.cancel(self._message)
        if getattr(task, "_must_cancel", False):
            self._marked = True
            check.cancel()
        else:
            self._handle = check

    def _look_again(self) -> None:
        if getattr(self._task, "_must_cancel", False):
            self._cancelled_from_outside = True
