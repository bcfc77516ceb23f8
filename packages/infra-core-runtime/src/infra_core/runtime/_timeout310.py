"""`asyncio.timeout` for Python 3.10, where a task does not count its cancellations.

3.11's own knows its cancellation from those of others by `Task.cancelling()`. Here the `cancel` of
the task is replaced, for the time of the block, by one that counts its calls.
"""

import asyncio
from typing import Any

__all__ = ["Timeout"]


# anyio cancels what it closes by force, as below httpx, and takes that back by itself.
_OF_ANYIO = ("Cancelled by cancel scope ", "Cancelled via cancel scope ")


class _CountedCancel:
    """The `cancel` of a task, which counts how often it is asked for."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.count = 0
        self._cancel = task.cancel

    def __call__(self, msg: object = None) -> bool:
        if not str(msg).startswith(_OF_ANYIO):
            self.count += 1
        return self._cancel(msg)


class Timeout:
    """`asyncio.Timeout` for 3.10; raises the builtin `TimeoutError`.

    Args:
        when: Time of the loop at which it expires; `None` for never.
    """

    def __init__(self, when: float | None) -> None:
        self._when = when
        self._task: Any = None  # while the block lasts
        self._handle: asyncio.Handle | None = None
        self._expired = False

    def when(self) -> float | None:
        """Return the time of the loop at which it expires; `None` for never."""
        return self._when

    def expired(self) -> bool:
        """Whether the time was up before the block ended."""
        return self._expired

    def reschedule(self, when: float | None) -> None:
        """Let it expire at another time of the loop; `None` for never.

        Raises:
            RuntimeError: The block is not entered, has struck or is over.
        """
        if self._task is None or self._expired:
            raise RuntimeError("a timeout can be rescheduled within its block, until it expires")
        self._when = when
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if when is not None:
            self._handle = asyncio.get_running_loop().call_at(when, self._on_timeout)

    async def __aenter__(self) -> "Timeout":
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("clock.timeout() works inside a task only: use asyncio.run()")
        self._outermost = not isinstance(self._task.cancel, _CountedCancel)
        if self._outermost:
            self._task.cancel = _CountedCancel(self._task)
        self._cancel: _CountedCancel = self._task.cancel
        self._before = self._cancel.count
        self.reschedule(self._when)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        *exc_info: object,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._outermost:
            del self._task.cancel  # which refers to the task itself
        self._task = None
        if self._expired:
            self._cancel.count -= 1
            if self._cancel.count <= self._before and exc_type is asyncio.CancelledError:
                raise TimeoutError from exc

    def _on_timeout(self) -> None:
        self._expired = True
        self._cancel()
