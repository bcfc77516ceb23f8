"""The items of a run that are alive: each runs in a task of its own, is judged and reported."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import clock
from ._exceptions import add_note
from ._outcomes import StatsRecorder, TaskOutcome, TaskStatus
from ._retry import retry_async
from ._retry_policy import RetryDetails, RetryPolicy
from ._task_errors import (
    BudgetSpentError,
    RuntimeCancellationError,
    TaskTimeoutError,
    foreign_cancellation,
)
from ._task_options import Factory, RunOptions
from ._trace import trace_fields
from ._values import shown

__all__ = ["TaskItems"]

logger = logging.getLogger("infra_core.task_runtime")


@dataclass(slots=True, eq=False)
class _Item:
    """One item with its task, and what was decided about it."""

    id: str
    index: int
    began: float = 0.0  # before its first step
    attempts: int = 0
    ended: bool = False  # it is counted; what its task still does is reporting, or ignored
    verdict: TaskStatus | None = None  # why the runtime cancelled it
    timer: asyncio.TimerHandle | None = None  # for what is next to be done about it


@dataclass(eq=False, repr=False)  # which would show every item
class TaskItems:
    """Begins items, ends them, and counts and reports how they ended.

    Attributes:
        alive: Their tasks, but for those that are left behind.
        helpers: The tasks that read the source and watch the event, the same way.
        halted: All of them were cancelled.
    """

    _options: RunOptions
    _stats: StatsRecorder
    _left_behind: set[asyncio.Task[None]]  # tasks that suppress cancellation, until they end
    _fail: Callable[[BaseException], None]  # called with what is to end the run
    _changed: Callable[[], None]  # called when a task has ended
    alive: dict[asyncio.Task[None], _Item] = field(default_factory=dict)
    helpers: dict[asyncio.Task[None], _Item] = field(default_factory=dict)
    halted: bool = False

    def __post_init__(self) -> None:
        options = self._options
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._grace = options.config.cancel_grace
        self._timeout = options.config.task_timeout if options.timed else None
        self._quiet = not (options.sink or options.on_outcome or options.on_progress)
        self._next_report = clock.monotonic() + options.progress_interval

    def begin(self, task_id: str, factory: Factory) -> None:
        """Begin an item, in a copy of the current context."""
        item = _Item(task_id, self._stats.started)
        self._stats.started += 1
        if self.halted:  # while the source was giving it
            item.verdict = TaskStatus.CANCELLED
        self._launch(self.alive, item, self._work(item, factory))

    def help(self, name: str, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task beside the items, which is awaited and left behind as they are."""
        return self._launch(self.helpers, _Item(name, -1, ended=True), coroutine)

    def _launch(
        self,
        table: dict[asyncio.Task[None], _Item],
        item: _Item,
        coroutine: Coroutine[Any, Any, None],
    ) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine, name=str(item.id))
        table[task] = item
        task.add_done_callback(self._done, context=self._context)  # no copy for each
        if self.halted:  # maybe by its first step, which an eager task has taken by now
            self._cut(task, item, TaskStatus.CANCELLED)
        return task

    async def _work(self, item: _Item, factory: Factory) -> None:
        """Be the task of one item: run it, judge how it ended, report that."""
        task: Any = asyncio.current_task()
        item.began = clock.monotonic()
        status = TaskStatus.SUCCEEDED
        value: Any = None
        error: BaseException | None = None
        try:
            if item.verdict is not None:
                raise asyncio.CancelledError
            if self._timeout is not None:
                item.timer = self._loop.call_later(
                    self._timeout, self._cut, task, item, TaskStatus.TIMED_OUT
                )
            if self._options.retry is None:
                item.attempts = 1
                value = await factory()
            else:
                value = await self._attempts(item, factory, self._options.retry)
        except asyncio.CancelledError as caught:
            status, error = TaskStatus.CANCELLED, caught
        except Exception as caught:  # noqa: BLE001 - reported below
            status, error = TaskStatus.FAILED, caught
        except BaseException as caught:
            item.ended = True
            self._close(item, TaskStatus.FAILED, None, caught)
            raise  # KeyboardInterrupt and SystemExit stop the loop; _done() is called with it
        if item.ended:  # it was left behind
            return
        item.ended = True
        if self.halted:  # for its callbacks
            self._give_grace(task, item)
        if error is None and self._quiet and item.verdict is None:
            self._stats.ended(status, clock.monotonic() - item.began)
            return
        try:
            status, error = await self._judged(task, item, status, error)
            await self._call_back(self._close(item, status, value, error))
        finally:
            value = error = None  # its traceback holds this frame

    async def _attempts(self, item: _Item, factory: Factory, policy: RetryPolicy) -> Any:
        """Run an item under the retry policy."""
        options = self._options

        async def attempt() -> Any:
            item.attempts += 1
            if item.attempts > 1:
                self._stats.retries += 1
                if options.rate is not None:
                    await clock.sleep_async(options.rate.reserve(clock.monotonic()))
            return await factory()

        return await retry_async(
            attempt,
            policy=policy,
            should_retry=options.should_retry or (lambda error: True),
            on_retry=partial(_log_retry, item.id),
        )

    async def _judged(
        self, task: Any, item: _Item, status: TaskStatus, error: BaseException | None
    ) -> tuple[TaskStatus, BaseException | None]:
        """Say how an item ended, as the runtime sees it."""
        cancelling = getattr(task, "cancelling", None)  # 3.11
        if isinstance(error, BudgetSpentError):
            item.verdict = status = TaskStatus.TIMED_OUT
            if error.left_behind:
                self._report_unresponsive(item.id)
            error = self._timeout_error(item, unresponsive=error.left_behind)
        elif status is TaskStatus.CANCELLED or item.verdict or (cancelling and cancelling()):
            # A cancellation that was meant for the item must not reach its callbacks. And if the
            # whole loop is being shut down, the run hears of it before the item is judged.
            while getattr(task, "uncancel", int)():
                pass
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            if status is TaskStatus.CANCELLED and item.verdict is TaskStatus.TIMED_OUT:
                status, error = item.verdict, self._timeout_error(item)
            elif status is TaskStatus.CANCELLED and item.verdict is None and not self.halted:
                error = foreign_cancellation(f"task {item.id!r}", error)
        if type(error) is TypeError and error.__traceback__ and not error.__traceback__.tb_next:
            add_note(
                error,
                f"task {item.id!r}: a task is a callable without arguments that returns an "
                "awaitable, such as an async function or functools.partial of one",
            )
        return status, error

    def _close(
        self, item: _Item, status: TaskStatus, value: object, error: BaseException | None
    ) -> TaskOutcome[Any]:
        """Count the end of an item and hand its outcome to the reader, if there is one."""
        options = self._options
        seconds = clock.monotonic() - item.began if item.began else 0.0
        self._stats.ended(status, seconds)
        outcome = TaskOutcome(item.id, status, value, error, seconds, item.attempts)
        if options.sink is not None:
            options.sink.put(item.index, outcome)
        return outcome

    async def _call_back(self, outcome: TaskOutcome[Any]) -> None:
        """Call the callbacks for an item's end; without one for it, a failure ends the run."""
        options, status, error = self._options, outcome.status, outcome.error
        if options.on_outcome is not None:
            await _call(outcome.id, options.on_outcome, outcome)
        if status is TaskStatus.TIMED_OUT:
            if options.on_timeout is not None:
                await _call(outcome.id, options.on_timeout, outcome.id)
            elif not options.lenient and error is not None:
                self._fail(error)
        elif isinstance(error, RuntimeCancellationError) and status is TaskStatus.FAILED:
            if not options.lenient:  # the item's own word that all is to end
                self._fail(error)
        elif isinstance(error, Exception):
            if not options.lenient and not self.halted:
                logger.error(
                    "Unexpected error processing %s", outcome.id, exc_info=error,
                    extra={"task_id": outcome.id, **trace_fields()},
                )  # fmt: skip
            if options.on_error is not None:
                await _call(outcome.id, options.on_error, outcome.id, error)
            elif not options.lenient:
                self._fail(error)
        if options.on_progress is not None and clock.monotonic() >= self._next_report:
            self._next_report = clock.monotonic() + options.progress_interval
            await self.report_progress()

    async def report_progress(self) -> None:
        """Call `on_progress`, if there is one."""
        if self._options.on_progress is not None:
            await _call("", self._options.on_progress, self._stats.snapshot())

    def _timeout_error(self, item: _Item, *, unresponsive: bool = False) -> TaskTimeoutError:
        timeout = self._options.config.task_timeout
        return TaskTimeoutError(item.id, timeout or 0.0, unresponsive=unresponsive)

    def _done(self, task: asyncio.Task[None]) -> None:
        item = self.alive.pop(task, None) or self.helpers.pop(task, None)
        self._left_behind.discard(task)
        if not task.cancelled() and (raised := task.exception()) is not None:
            self._fail(raised)
        if item is not None and item.timer is not None:
            item.timer.cancel()
        if item is not None and not item.ended:  # cancelled by other code before its first step
            self._report(item)
        self._changed()

    # Ending them

    def halt(self) -> None:
        """Cancel all that have not ended; what still runs after the grace is left behind."""
        self.halted = True
        for task, item in [*self.alive.items(), *self.helpers.items()]:
            self._cut(task, item, TaskStatus.CANCELLED)

    def _cut(self, task: asyncio.Task[None], item: _Item, verdict: TaskStatus) -> None:
        if item.index < 0:
            task.cancel()
        elif not item.ended and item.verdict is None:
            item.verdict = verdict
            # One that has not begun sees its verdict when it does; a second cancel would
            # hit the cleanup of one that was cancelled before.
            if item.began:
                task.cancel()
        self._give_grace(task, item)

    def _give_grace(self, task: asyncio.Task[None], item: _Item) -> None:
        if item.timer is not None:
            item.timer.cancel()
        item.timer = self._loop.call_later(self._grace, self._leave_behind, task, item)

    def _leave_behind(self, task: asyncio.Task[None], item: _Item) -> None:
        """Go on without a task that suppresses cancellation; it is cancelled once more."""
        if task.done() or (item.ended and not self.halted):
            return  # _done() is about to be called with it; or its callback has all the time
        (self.helpers if task in self.helpers else self.alive).pop(task)
        self._left_behind.add(task)
        task.cancel()
        if item.ended and item.index >= 0:
            logger.error(
                "a callback for task %r still ran %g s after the run was cancelled: "
                "cancelled", item.id, self._grace, extra={"task_id": item.id},
            )  # fmt: skip
        else:
            self._report_unresponsive(item.id)
        if item.ended:
            self._changed()
            return
        self._report(item)

    def _report_unresponsive(self, task_id: str) -> None:
        """Put a task that was left behind into the log and the statistics."""
        self._stats.left_behind(task_id)
        logger.error(
            "task %r ignores cancellation: it still runs %g s after it was cancelled and is left "
            "behind", task_id, self._grace, extra={"task_id": task_id, **trace_fields()},
        )  # fmt: skip

    def _report(self, item: _Item) -> None:
        """Report the end of an item whose own task does not, in a task for that alone."""
        item.ended = True
        status = item.verdict or TaskStatus.CANCELLED
        error: BaseException = asyncio.CancelledError()
        if status is TaskStatus.TIMED_OUT:
            error = self._timeout_error(item, unresponsive=True)
        elif item.verdict is None and not self.halted:
            error = foreign_cancellation(f"task {item.id!r}", error)
        outcome = self._close(item, status, None, error)
        reporting = _Item(item.id, item.index, ended=True)
        self._launch(self.alive, reporting, self._call_back(outcome))


async def _call(task_id: str, callback: Callable[..., Any], *args: object) -> None:
    """Call a callback, await what it returns if need be, log what it raises.

    The log has the arguments as well: without them the task's own error would be lost.
    """
    try:
        result = callback(*args)
        if result is not None and inspect.isawaitable(result):
            await result
    except Exception:
        logger.exception(
            "callback %s raised when called with %s; the run goes on",
            shown(callback),
            ", ".join(shown(arg) for arg in args),
            extra={"task_id": task_id, **trace_fields()},
        )


def _log_retry(task_id: str, details: RetryDetails) -> None:
    if logger.isEnabledFor(logging.INFO):  # to redact an error takes time
        logger.info(
            "task %r failed in attempt %d, next in %.2f s: %s",
            task_id,
            details.attempt,
            details.wait,
            shown(details.error),
            extra={"task_id": task_id, "attempt": details.attempt, **trace_fields()},
        )
