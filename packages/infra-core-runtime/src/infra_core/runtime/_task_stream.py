"""The results of a run as an asynchronous iterator: in order, or as they come."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from ._outcomes import TaskOutcome
from ._task_run import TaskRun

__all__ = ["ResultBuffer", "TaskStream"]

T = TypeVar("T")


class ResultBuffer:
    """Outcomes between the run that makes them and the stream that hands them out.

    Apart from the stream, so that a stream nobody reads any longer can be collected while its
    run still holds this.
    """

    __slots__ = ("_early", "_next", "_ready", "failures", "ordered", "run")

    def __init__(self, *, ordered: bool, failures: bool) -> None:
        self.ordered: bool = ordered
        self.failures: bool = failures  # hand out failures, in the place of raising the first
        self.run: TaskRun | None = None
        self._ready: deque[TaskOutcome[Any]] = deque()
        self._early: dict[int, TaskOutcome[Any]] = {}
        self._next = 0

    def put(self, index: int, outcome: TaskOutcome[Any]) -> None:
        """Take an outcome from the run."""
        if not self.failures and outcome.error is not None:
            return
        if self.ordered:
            self._early[index] = outcome
            while (following := self._early.pop(self._next, None)) is not None:
                self._next += 1
                self._ready.append(following)
        else:
            self._ready.append(outcome)
        if self._ready and self.run is not None:
            self.run.wake()

    def get(self) -> TaskOutcome[Any] | None:
        """Return the next outcome, if it is there."""
        return self._ready.popleft() if self._ready else None


class TaskStream(AsyncIterator[T], Generic[T]):
    """What `TaskRuntime.map` and `TaskRuntime.as_completed` return.

    The run begins with the first result that is asked for, and goes only a bounded number of
    tasks ahead of its reader. A reader that is cancelled while it waits takes the run with it.
    One that leaves the loop early, by `break` or with an error, should have opened the stream
    with `async with`, which cancels and awaits what is under way; without it the tasks are
    cancelled when the stream is collected as garbage.
    """

    def __init__(
        self,
        begin: Callable[[ResultBuffer], TaskRun | None],
        buffer: ResultBuffer,
        present: Callable[[TaskOutcome[Any]], T],
    ) -> None:
        self._begin = begin
        self._buffer = buffer
        self._present = present
        self._run: TaskRun | None = None
        self._begun = False
        self._over = False

    def __aiter__(self) -> "TaskStream[T]":
        return self

    async def __anext__(self) -> T:
        if self._over:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            self._run = self._buffer.run = self._begin(self._buffer)
        run = self._run
        while run is not None:
            outcome = self._buffer.get()
            if outcome is not None:
                run.delivered += 1
                run.pump()
                return self._present(outcome)
            if run.ended:
                break
            try:
                await run.event()
            except asyncio.CancelledError:
                await self.aclose()
                raise
        self._over = True
        if run is not None:
            await run.report_progress()
            run.conclude()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel what is under way and wait for its end, `cancel_grace` seconds at the most."""
        self._over = self._begun = True
        run, self._run = self._run, None
        if run is not None:
            run.halt()
            while not run.ended:
                await run.event()

    async def __aenter__(self) -> "TaskStream[T]":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        run = getattr(self, "_run", None)
        if run is not None and not run.ended:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and all tasks with it
                run.loop.call_soon_threadsafe(run.halt)
