"""`TaskRuntime`: bounded, cancellable execution of many asynchronous tasks."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ._outcomes import ResultBuffer, RuntimeStats, StatsRecorder, TaskOutcome
from ._rate import RateLimit
from ._retry_policy import RetryPolicy
from ._task_errors import RuntimeCancellationError, RuntimeDrainedError
from ._task_options import (
    OnError,
    OnOutcome,
    OnProgress,
    OnTimeout,
    RunOptions,
    RuntimeConfig,
    ShouldRetry,
    TaskSource,
    check_source,
    length_of,
    pairs_of,
)
from ._task_run import TaskRun
from ._task_stream import TaskStream
from ._threads import CancelEvent
from ._values import is_number

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TaskRuntime"]

T = TypeVar("T")
Items = Iterable[Any] | AsyncIterable[Any]
Item = TypeVar("Item")
_Task = tuple[str, Callable[[], Awaitable[T]]]
Source = Iterable[_Task[T]] | AsyncIterable[_Task[T]]


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

    Raises:
        TypeError: `config` is not a `RuntimeConfig`, or `cancel_event` not an event.

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
        if not isinstance(config, RuntimeConfig):
            raise TypeError(
                f"config={config!r} is not a RuntimeConfig: pass RuntimeConfig(concurrency=...)"
            )
        if cancel_event is not None and not hasattr(cancel_event, "is_set"):
            raise TypeError(
                f"cancel_event={cancel_event!r} has no is_set(): pass an asyncio.Event or a "
                "threading.Event"
            )
        self.config = config
        self._cancel_event = cancel_event
        self._cancelled = False
        self._draining = False
        self._left_behind: set[asyncio.Task[None]] = set()  # until they end
        self._runs: set[TaskRun] = set()
        self._past = StatsRecorder()
        self._rate: RateLimit | None = None
        self._per_second: float | None = None

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
            on_timeout: Called with the id of a task that ran into `config.task_timeout`; without
                it such a task ends the run with `TaskTimeoutError`.
            on_error: Called with id and exception of a task that raised, a `TimeoutError` of its
                own included; without it the first exception ends the run.
            on_outcome: Called with the `TaskOutcome` of every task; with it no task ends the run.
            on_progress: Called with the statistics of this run every `progress_interval` seconds as
                tasks end, and once at the end.
            progress_interval: Seconds between two calls of `on_progress`; 0 for every task.
            retry: In the place of `config.retry`.
            should_retry: Called with each exception of a task; `False` takes it as final, a number
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
                retry=retry,
                should_retry=should_retry,
            ),
        )
        if run is not None:
            await run.join()
            await run.conclude()

    def as_completed(
        self,
        tasks: Source[T],
        *,
        outcomes: bool = False,
        ahead: int | None = None,
        on_progress: OnProgress | None = None,
        progress_interval: float = 0.5,
        retry: RetryPolicy | None = None,
        should_retry: ShouldRetry | None = None,
    ) -> TaskStream[TaskOutcome[T]]:
        """Run tasks and iterate over their outcomes as they end.

        Args:
            tasks: As for `run`.
            outcomes: Hand out the outcomes of failed tasks too; without it the first failure
                ends the run and is raised, after the outcomes that were there before.
            ahead: How many outcomes may wait to be read before no further task begins;
                `config.concurrency` by default, so that memory stays flat.
            on_progress: As for `run`.
            progress_interval: As for `run`.
            retry: As for `run`.
            should_retry: As for `run`.

        Returns:
            An asynchronous iterator; open it with `async with` if you may leave it early. It
            raises what `run` raises.
        """
        return self._stream(
            tasks,
            ResultBuffer(ordered=False, failures=outcomes),
            ahead,
            on_progress=on_progress,
            progress_interval=progress_interval,
            retry=retry,
            should_retry=should_retry,
        )

    @overload
    def map(
        self,
        function: Callable[[Item], Awaitable[T]],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        outcomes: Literal[False] = False,
        key: Callable[[Item], str] | None = None,
        ahead: int | None = None,
        on_progress: OnProgress | None = None,
        progress_interval: float = 0.5,
        retry: RetryPolicy | None = None,
        should_retry: ShouldRetry | None = None,
    ) -> TaskStream[T]: ...

    @overload
    def map(
        self,
        function: Callable[[Item], Awaitable[T]],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        outcomes: Literal[True],
        key: Callable[[Item], str] | None = None,
        ahead: int | None = None,
        on_progress: OnProgress | None = None,
        progress_interval: float = 0.5,
        retry: RetryPolicy | None = None,
        should_retry: ShouldRetry | None = None,
    ) -> TaskStream[TaskOutcome[T]]: ...

    def map(
        self,
        function: Callable[[Item], Awaitable[T]],
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        outcomes: bool = False,
        key: Callable[[Item], str] | None = None,
        ahead: int | None = None,
        on_progress: OnProgress | None = None,
        progress_interval: float = 0.5,
        retry: RetryPolicy | None = None,
        should_retry: ShouldRetry | None = None,
    ) -> TaskStream[T] | TaskStream[TaskOutcome[T]]:
        """Run a function over items and iterate over the results in the order of the items.

        Args:
            function: Called with one item; what it returns is awaited.
            items: Iterated lazily.
            outcomes: Hand out a `TaskOutcome` for each item, in the place of its result or of
                raising the first failure.
            key: Makes a task's id of its item; by default tasks are numbered from "0".
            ahead: How many results may wait to be read, those behind a slow one included, before
                no further task begins; `config.concurrency` by default.
            on_progress: As for `run`.
            progress_interval: As for `run`.
            retry: As for `run`.
            should_retry: As for `run`.

        Returns:
            An asynchronous iterator; open it with `async with` if you may leave it early. It
            raises what `run` raises.

        Example:
            >>> import asyncio
            >>> async def double(number: int) -> int:
            ...     return 2 * number
            >>> async def main() -> list[int]:
            ...     runtime = TaskRuntime(config=RuntimeConfig(concurrency=8))
            ...     return [number async for number in runtime.map(double, range(4))]
            >>> asyncio.run(main())
            [0, 2, 4, 6]
        """
        check_source("items", items)
        stream: TaskStream[Any] = self._stream(
            items,
            ResultBuffer(ordered=True, failures=outcomes),
            ahead,
            values=not outcomes,
            make=pairs_of(function, key),
            on_progress=on_progress,
            progress_interval=progress_interval,
            retry=retry,
            should_retry=should_retry,
        )
        return stream

    def _stream(
        self,
        tasks: Items,
        buffer: ResultBuffer,
        ahead: int | None,
        *,
        values: bool = False,
        **options: Any,
    ) -> TaskStream[Any]:
        if ahead is not None and not (is_number(ahead) and ahead >= 0):
            raise ValueError(
                f"ahead={ahead!r} is not 0 or more: pass how many results may wait to be read, "
                "or None"
            )

        def begin() -> TaskRun | None:
            limit = self.config.concurrency
            return self._open(
                tasks,
                RunOptions(
                    config=self.config,
                    sink=buffer,
                    window=limit + (limit if ahead is None else ahead),
                    **options,
                ),
            )

        return TaskStream(begin, buffer, values=values)

    @property
    def _active_tasks(self) -> set[asyncio.Task[None]]:
        """All tasks that are alive, those that were left behind included."""
        return self._left_behind.union(*(run.tasks for run in list(self._runs)))

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
        self._signal(TaskRun.cancel)

    def stop(self) -> None:
        """Take no further tasks, neither now nor in later runs; those under way are finished.

        Returns at once. Runs whose source was not read to its end raise `RuntimeDrainedError`.
        """
        self._draining = True
        self._signal(TaskRun.stop)

    def _resume(self) -> None:
        self._draining = False

    async def drain(self) -> None:
        """Take no further tasks and wait for those under way.

        Runs whose source was not read to its end raise `RuntimeDrainedError` to their callers.
        The runtime can be used again.
        """
        runs = list(self._runs)
        self._signal(TaskRun.stop)
        await _ends_of(runs)

    async def aclose(self) -> None:
        """Cancel the runtime and wait until its tasks have ended, `cancel_grace` at the most."""
        runs = list(self._runs)
        self.cancel()
        await _ends_of(runs)

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _signal(self, what: Callable[[TaskRun], None]) -> None:
        """Reach every run in its own loop."""
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:  # of a thread without one
            here = None
        for run in list(self._runs):
            if run.loop is here:
                what(run)
                continue
            try:
                run.loop.call_soon_threadsafe(what, run)
            except RuntimeError:  # its loop is closed, and its tasks with it
                self._runs.discard(run)

    def _open(self, tasks: Items, options: RunOptions) -> TaskRun | None:
        """Begin a run; `None` when there is nothing to do."""
        self.config.validate()
        if (self._cancelled or self._draining) and length_of(tasks) == 0:
            return None
        if self._cancelled:
            raise RuntimeCancellationError(
                "runtime cancelled: it stays so; make another TaskRuntime for further tasks"
            )
        if self._draining:
            raise RuntimeDrainedError(
                "runtime drained: stop() or a signal has ended the intake of tasks; make another "
                "TaskRuntime for further tasks"
            )
        rate = self.config.max_per_second
        if rate != self._per_second:
            self._per_second = rate
            self._rate = None if rate is None else RateLimit(rate)
        options.rate = self._rate
        run = TaskRun(
            tasks, options, self._left_behind, self._cancel_event, self.cancel, self._ended
        )
        self._runs.add(run)
        run.begin()
        return run

    def _ended(self, run: TaskRun) -> None:
        if run in self._runs:
            self._runs.discard(run)
            self._past.merge(run.stats)


async def _ends_of(runs: list[TaskRun]) -> None:
    """Wait for runs; those of other loops cannot be waited for from here."""
    loop = asyncio.get_running_loop()
    for run in runs:
        if run.loop is loop:
            await asyncio.wait([run.over])
