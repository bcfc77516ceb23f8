"""The results of a run as an asynchronous iterator: in order, or as they come."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Generic, NoReturn, TypeVar

from ._outcomes import ResultBuffer
from ._task_errors import RuntimeCancellationError
from ._task_run import TaskRun
from ._threads import until_done

__all__ = ["TaskStream"]

T = TypeVar("T")


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
        begin: Callable[[], TaskRun | None],
        buffer: ResultBuffer,
        *,
        values: bool,
    ) -> None:
        self._begin: Callable[[], TaskRun | None] | None = begin
        self._buffer = buffer
        self._values = values
        self._run: TaskRun | None = None  # while there is anything to read

    def __aiter__(self) -> "TaskStream[T]":
        return self

    async def __anext__(self) -> T:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self._run = begin()
        if self._run is None:
            raise StopAsyncIteration
        try:
            outcome = await self._buffer.get()
        except asyncio.CancelledError:
            try:
                await self.aclose()
            finally:
                self._begin = _refuse
            raise
        run = self._run
        if run is not None and outcome is not None:
            run.delivered()
            return outcome.value if self._values else outcome  # type: ignore[return-value]
        self._run = None
        if run is not None:
            try:
                await run.conclude()
            except StopAsyncIteration as error:
                raise RuntimeError(
                    "a task raised StopAsyncIteration, which would have ended the stream of "
                    "results without an error: handle it in the task, as by anext(..., None)"
                ) from error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Cancel what is under way and wait for its end, `cancel_grace` seconds at the most."""
        self._begin = None
        run, self._run = self._run, None
        if run is not None:
            run.halt()
            await until_done(run.over)

    async def __aenter__(self) -> "TaskStream[T]":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        run = getattr(self, "_run", None)
        if run is not None and not run.ended:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and all tasks with it
                run.loop.call_soon_threadsafe(run.halt)


def _refuse() -> NoReturn:
    raise RuntimeCancellationError(
        "the reader of this stream was cancelled while it waited, which cancelled the tasks: read "
        "on from another stream, and bound a whole loop in time instead of one result"
    )
