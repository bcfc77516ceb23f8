"""`TaskRuntime`: bounded, cancellable execution of many asynchronous tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from ._cancel_event import CancelEvent, EventWatch
from ._outcomes import TaskOutcome
from ._rate import Pacer
from ._retry_policy import RetryPolicy
from ._stats import RuntimeStats, StatsRecorder
from ._task_errors import RuntimeCancellationError, RuntimeDrainedError
from ._task_options import RunOptions, RuntimeConfig
from ._task_run import TaskRun, TaskSource

__all__ = ["TaskRuntime"]

T = TypeVar("T")
OnTimeout = Callable[[str], Awaitable[None] | None]
OnError = Callable[[str, Exception], Awaitable[None] | None]
OnOutcome = Callable[[TaskOutcome[Any]], Awaitable[None] | None]
OnProgress = Callable[[RuntimeStats], Awaitable[None] | None]
ShouldRetry = Callable[[Exception], bool | float]


class TaskRuntime:
    """Runs many tasks with a bound on how many are alive, and ends them together.

    The bound holds per `run()` call; runs that overlap are swept by one `cancel()`. A task is a
    pair of an id and a callable without arguments that returns an awaitable; tasks are taken from
    their source (a list, a generator, an asynchronous one) only when they can begin, so that a
    million of them need the memory of `concurrency`.

    By default the first error of a task ends the run: its siblings are cancelled and awaited,
    then the error is raised. Callbacks opt into going on.

    A cancelled runtime stays cancelled. One that is not may be used again, in another event loop
    as well. `cancel()` may be called from any thread.

    Args:
        config: Bounds, timeouts, retries; read again at the beginning of each run.
        cancel_event: Cancels the runtime as soon as it is set.

    Example:
        >>> import asyncio
        >>> from functools import partial
        >>> async def main() -> list[str]:
        ...     done: list[str] = []
        ...     async def process(name: str) -> None:
        ...         done.append(name)
        ...     async with TaskRuntime(config=RuntimeConfig(concurrency=2)) as runtime:
        ...         await runtime.run([(name, partial(process, name)) for name in ("a", "b")])
        ...     return done
        >>> asyncio.run(main())
        ['a', 'b']
    """

    def __init__(self, *, config: RuntimeConfig, cancel_event: CancelEvent | None = None) -> None:
        self.config = config
        self._cancel_event = cancel_event
        self._cancelled = False
        self._draining = False
        self._active_tasks: set[asyncio.Task[None]] = set()
        self._runs: set[TaskRun] = set()
        self._past = StatsRecorder()
        self._pacer: Pacer | None = None
        self._pace: float | None = None

    async def run(
        self,
        tasks: TaskSource,
        *,
        on_timeout: OnTimeout | None = None,
        on_error: OnError | None = None,
        on_outcome: OnOutcome | None = None,
        on_progress: OnProgress | None = None,
        progress_interval: float = 0.5,
        retry: RetryPolicy | None = None,
        should_retry: ShouldRetry | None = None,
    ) -> None:
        """Run tasks to their end, at most `config.concurrency` of them at a time.

        All callbacks may be plain or asynchronous. They run in the place of the task they report,
        so a slow one holds back one task. One that raises is logged and changes nothing.

        Args:
            tasks: Pairs of an id and a callable without arguments that returns an awaitable.
                Iterated lazily, in the context of the caller; never closed.
            on_timeout: Told the id of a task that ran into `config.task_timeout`; without it such
                a task ends the run with `TaskTimeoutError`.
            on_error: Told id and exception of a task that raised, a `TimeoutError` of its own
                included; without it the first exception ends the run.
            on_outcome: Told the `TaskOutcome` of every task; with it no task ends the run.
            on_progress: Told the statistics of this run every `progress_interval` seconds as
                tasks end, and once at the end.
            progress_interval: Seconds between two calls of `on_progress`; 0 for every task.
            retry: In the place of `config.retry`.
            should_retry: Told each exception of a task; `False` takes it as final, a number
                retries after that many seconds. Without it every `Exception` is retried.

        Raises:
            Exception: The first one of a task, or the one of the source, after every other task
                has ended.
            TaskTimeoutError: A task ran into `config.task_timeout`.
            RuntimeCancellationError: The runtime was cancelled, before or meanwhile.
            RuntimeDrainedError: Intake was stopped before the source had been read to its end.
            asyncio.CancelledError: The caller was cancelled; every task has ended before.
        """
        run = self._open(
            tasks,
            RunOptions(
                config=self.config,
                on_timeout=on_timeout,
                on_error=on_error,
                on_outcome=on_outcome,
                on_progress=on_progress,
                progress_interval=progress_interval,
                lenient=on_outcome is not None,
                retry=retry or self.config.retry,
                should_retry=should_retry,
            ),
        )
        if run is None:
            return
        try:
            await run.join()
        finally:
            self._close(run)
        if on_progress is not None:
            told = on_progress(run.stats.snapshot())
            if told is not None:
                await told
        run.conclude()

    @property
    def stats(self) -> RuntimeStats:
        """What this runtime has done and is doing, over all of its runs."""
        total = StatsRecorder()
        total.merge(self._past)
        for run in self._runs:
            total.merge(run.stats)
        return total.snapshot()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel()` was called or the cancel event was seen to be set."""
        return self._cancelled

    def cancel(self) -> None:
        """Cancel every task of every run; runs raise `RuntimeCancellationError`.

        Returns at once; runs end when their tasks have, after `config.cancel_grace` seconds at
        the latest. A runtime that is cancelled before a run begins refuses it.
        """
        self._cancelled = True
        self._tell(TaskRun.cancel)

    async def drain(self) -> None:
        """Take no further tasks and wait for those under way.

        Runs whose source was not read to its end raise `RuntimeDrainedError` to their callers.
        The runtime can be used again.
        """
        runs = list(self._runs)
        self._tell(TaskRun.stop)
        for run in runs:
            while not run.ended:
                await run.event()

    async def aclose(self) -> None:
        """Cancel the runtime and wait until its tasks have ended, `cancel_grace` at the most."""
        self.cancel()
        for run in list(self._runs):
            while not run.ended and run.loop is asyncio.get_running_loop():
                await run.event()

    async def __aenter__(self) -> "TaskRuntime":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _tell(self, what: Callable[[TaskRun], None]) -> None:
        """Reach every run in its own loop."""
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        for run in list(self._runs):
            if run.loop is here:
                what(run)
            else:
                try:
                    run.loop.call_soon_threadsafe(what, run)
                except RuntimeError:  # its loop is closed, and its tasks with it
                    self._runs.discard(run)

    def _open(self, tasks: TaskSource, options: RunOptions) -> TaskRun | None:
        """Begin a run; `None` when there is nothing to do."""
        self.config.validate()
        if self._cancel_event is not None and self._cancel_event.is_set():
            self._cancelled = True
        if (self._cancelled or self._draining) and _is_empty(tasks):
            return None
        if self._cancelled:
            raise RuntimeCancellationError(
                "runtime cancelled: it stays so, make another TaskRuntime for further tasks"
            )
        if self._draining:
            raise RuntimeDrainedError("runtime drained: a signal has stopped the intake of tasks")
        rate = self.config.max_per_second
        if rate != self._pace:
            self._pace = rate
            self._pacer = None if rate is None else Pacer(rate)
        options.pacer = self._pacer
        run = TaskRun(tasks, options, self._active_tasks)
        self._runs.add(run)
        if self._cancel_event is not None:
            run.watch = EventWatch(self._cancel_event, self.cancel)
        run.start()
        return run

    def _close(self, run: TaskRun) -> None:
        if run.watch is not None:
            run.watch.close()
            run.watch = None
        if run in self._runs:
            self._runs.discard(run)
            self._past.merge(run.stats)


def _is_empty(tasks: Any) -> bool:
    try:
        return len(tasks) == 0
    except TypeError:
        return False
