"""One call of `TaskRuntime.run`: where its tasks come from, how many are alive, how it ends.

Each item has an `asyncio.Task` of its own, made when there is room for it. A task that ends makes
room: its done callback calls `pump`, which takes the next items. So nothing in here waits for
anything, and a run is over when no task is left and the source has no more to give.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterable, Callable, Sized
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from . import clock
from ._notes import add_note
from ._outcomes import TaskOutcome, TaskStatus
from ._redaction import redact_secrets
from ._retry import retry_async
from ._retry_policy import RetryDetails
from ._stats import StatsRecorder
from ._task_errors import (
    BudgetSpentError,
    RuntimeCancellationError,
    RuntimeDrainedError,
    TaskTimeoutError,
    foreign_cancellation,
)
from ._task_options import RunOptions
from ._task_source import Factory, Pair, TaskSource, as_pair, check_source
from ._trace import trace_fields
from ._values import shown

if TYPE_CHECKING:
    from ._cancel_event import EventWatch

__all__ = ["TaskRun"]

logger = logging.getLogger("infra_core.task_runtime")

# A source that takes its time gives this many tasks in one go, and goes on for so many seconds,
# before the event loop has a turn.
_AT_ONCE = 16
_SLICE = 0.002
_END: Any = object()


class _Item:
    """One item with its task, and what was decided about it."""

    task: asyncio.Task[None] | None = None
    began: float | None = None  # None: its first step has not come yet
    attempts = 0
    ended = False  # what its task still does is reporting
    verdict: TaskStatus | None = None  # why the runtime cancelled it
    left_behind = False  # what its task still does is ignored

    def __init__(self, task_id: str, index: int) -> None:
        self.id = task_id
        self.index = index


class TaskRun:
    """The state of one run. Every public method but `join` is plain and returns at once.

    Attributes:
        stats: Counters of this run alone.
        delivered: Outcomes that the reader of a stream has taken.
        halted: Its tasks were told to end.
        ended: No task is left and none will come.
        watch: Looks at the runtime's cancel event.
    """

    def __init__(
        self,
        source: TaskSource,
        options: RunOptions,
        left_behind: set[asyncio.Task[None]],
        on_end: Callable[["TaskRun"], None],
    ) -> None:
        check_source("tasks", source)
        config = options.config
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._plain = self.loop.get_task_factory() is None
        self.options = options
        self.stats: StatsRecorder = StatsRecorder()
        self.delivered = 0
        self.halted: bool = False
        self.stopped: bool = False
        self.ended: bool = False
        self.watch: EventWatch | None = None
        self._limit = config.concurrency
        self._timeout = config.task_timeout if options.timed else None
        self._grace = config.cancel_grace
        self._quiet = not (options.sink or options.on_outcome or options.on_progress)
        self._left_behind = left_behind
        self._on_end = on_end
        self._error: BaseException | None = None
        self._cancelled = self._drained = False
        self._items: dict[asyncio.Task[None], _Item] = {}
        self._helpers: set[asyncio.Task[None]] = set()
        self._deadlines: dict[_Item, float] = {}  # the same timeout for all, so oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._next_report = clock.monotonic() + options.progress_interval
        self._waiting: list[asyncio.Future[None]] = []
        # The source is read in one context, and every task begins in a copy of it: what a
        # generator sets before it yields a task reaches that task.
        self._context = copy_context()
        self._on_done = self._task_done  # one object for all tasks, until the end
        self._total = len(source) if isinstance(source, Sized) else None
        self._exhausted = False
        self._guarded = self._inside = self._fill_due = self._pacing = False
        self._space: asyncio.Future[None] | None = None
        self._source = source if isinstance(source, AsyncIterable) else None
        if self._source is None:
            self._pull = partial(next, iter(source), _END)  # type: ignore[arg-type]

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks that are alive and not left behind."""
        return set(self._items)

    # Taking items

    def start(self) -> None:
        """Begin the first tasks."""
        options = self.options
        self._guarded = not (options.window is None and self.watch is None and options.rate is None)
        if self._source is not None and not self.stopped:
            self._help(self._feed(self._source))
        self.pump()

    def pump(self) -> None:
        """Begin as many tasks as there is room for; called whenever there may be room."""
        if not self._inside:  # or it is done in any case when they are through in there
            self._context.run(self._fill)

    def _fill(self) -> None:
        """What `pump` does, within the context of the source."""
        items, limit = self._items, self._limit
        self._inside = True
        try:
            if self._source is not None:
                if self._space is not None and not self._space.done():
                    self._space.set_result(None)
            elif not self._fill_due:
                begun, slice_end = 0, 0.0
                while len(items) < limit and (pair := self._take()) is not None:
                    self._begin(pair)
                    begun += 1
                    if begun >= _AT_ONCE:
                        now = clock.monotonic()
                        slice_end = slice_end or now + _SLICE
                        if now > slice_end:
                            self._fill_due = True
                            self.loop.call_soon(self._fill_on, context=self._context)
                            return
        finally:
            self._inside = False
        if not items and not self._helpers and (self.stopped or self._exhausted):
            self._end()

    def _fill_on(self) -> None:
        self._fill_due = False
        self._fill()

    @property
    def _complete(self) -> bool:
        """Whether every item is known to have been taken."""
        return self._exhausted or self.stats.started == self._total

    def _crowded(self) -> bool:
        """Whether the reader of a stream is too far behind for a further task."""
        window = self.options.window
        return window is not None and self.stats.started - self.delivered >= window

    def _take(self) -> Pair | None:
        """Return the next item of a synchronous source, if one may begin now."""
        if self.stopped or self._exhausted or (self._guarded and not self._may_take()):
            return None
        try:
            pair = self._pull()
            if type(pair) is not tuple or len(pair) != 2:
                if pair is _END:
                    self._exhausted = True
                    return None
                pair = as_pair(pair)
        except BaseException as error:  # noqa: BLE001 - raised again at the end of the run
            self.fail(error)
            return None
        return pair  # type: ignore[no-any-return]

    def _may_take(self) -> bool:
        """Whether reader, cancel event and rate allow a further task now."""
        if self._complete:  # or the end would be noticed only when a further task may begin
            self._exhausted = True
            return False
        if self._crowded() or (self.watch is not None and self.watch.look()):
            return False
        return self.options.rate is None or self._paced()

    def _paced(self) -> bool:
        """Say whether the rate allows a start; if not, come back when it does."""
        rate = self.options.rate
        assert rate is not None  # noqa: S101 - for the type checker
        now = clock.monotonic()
        wait = rate.wait(now)
        if wait <= 0.0:
            rate.reserve(now)
            return True
        if not self._pacing:
            self._pacing = True
            self._help(self._pace(wait))
        return False

    async def _pace(self, wait: float) -> None:
        try:
            await clock.sleep_async(wait)  # when this ends, the run looks for items again
        finally:
            self._pacing = False

    async def _feed(self, source: AsyncIterable[Pair]) -> None:
        """Read an asynchronous source.

        In one task, since cancel scopes and timeouts inside of an asynchronous generator hold
        only there. The generator is the caller's and is not closed.
        """
        rate = self.options.rate
        try:
            iterator = source.__aiter__()
            while not self.stopped:
                while len(self._items) >= self._limit or self._crowded():
                    self._space = self.loop.create_future()
                    await self._space
                while rate is not None and (wait := rate.wait(clock.monotonic())) > 0.0:
                    await clock.sleep_async(wait)
                if self.watch is not None and self.watch.look():
                    break
                pair = as_pair(await iterator.__anext__())
                if rate is not None:
                    rate.reserve(clock.monotonic())
                if not self.stopped:
                    self._begin(pair)
        except StopAsyncIteration:
            self._exhausted = True
        except asyncio.CancelledError as error:
            if not self.stopped:
                self.fail(foreign_cancellation("the source of tasks", error))
            raise
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            self.fail(error)

    # Running one

    def _begin(self, pair: Pair) -> None:
        task_id, factory = pair
        item = _Item(task_id, self.stats.started)
        self.stats.started += 1
        if self.halted:  # while the source was giving it
            item.verdict = TaskStatus.CANCELLED
        self._launch(item, self._work(item, factory))

    def _launch(self, item: _Item, coroutine: Any) -> None:
        loop, name = self.loop, str(item.id)
        task: asyncio.Task[None] = (
            asyncio.Task(coroutine, loop=loop, name=name)  # as create_task does, with less detour
            if self._plain
            else loop.create_task(coroutine, name=name)
        )
        item.task = task
        self._items[task] = item
        task.add_done_callback(self._on_done, context=self._context)

    async def _work(self, item: _Item, factory: Factory) -> None:
        """Be the task of one item: run it, judge how it ended, report that."""
        item.began = began = clock.monotonic()
        status = TaskStatus.SUCCEEDED
        value: Any = None
        error: BaseException | None = None
        try:
            if item.verdict is not None:
                raise asyncio.CancelledError
            if self._timeout is not None:
                self._set_deadline(item, self._timeout)
            if self.options.retry is None:
                item.attempts = 1
                value = await factory()
            else:
                value = await self._attempts(item, factory)
        except asyncio.CancelledError as caught:
            status, error = TaskStatus.CANCELLED, caught
        except Exception as caught:  # noqa: BLE001 - reported below
            status, error = TaskStatus.FAILED, caught
        except BaseException as caught:
            item.ended = True
            self._close(item, TaskStatus.FAILED, None, caught, clock.monotonic() - began)
            raise  # KeyboardInterrupt and SystemExit stop the loop; fail() is called with it
        item.ended = True
        seconds = clock.monotonic() - began
        if self._deadlines:
            self._deadlines.pop(item, None)
        if item.left_behind:
            return
        if error is None and self._quiet:
            self.stats.succeeded += 1
            self.stats.durations.add(seconds)
            return
        try:
            await self._report(item, status, value, error, seconds)
        finally:
            value = error = None  # its traceback holds this frame

    async def _attempts(self, item: _Item, factory: Factory) -> Any:
        """Run an item under the retry policy."""
        options = self.options

        async def attempt() -> Any:
            item.attempts += 1
            if item.attempts > 1:
                self.stats.retries += 1
                if options.rate is not None:
                    await clock.sleep_async(options.rate.reserve(clock.monotonic()))
            return await factory()

        assert options.retry is not None  # noqa: S101 - for the type checker
        return await retry_async(
            attempt,
            policy=options.retry,
            should_retry=options.should_retry or _always,
            on_retry=partial(_log_retry, item.id),
        )

    async def _report(
        self,
        item: _Item,
        status: TaskStatus,
        value: Any,
        error: BaseException | None,
        seconds: float,
    ) -> None:
        """Judge how an item ended, count it and call the callbacks for it."""
        task = item.task
        cancelling = getattr(task, "cancelling", None)  # 3.11
        if isinstance(error, BudgetSpentError):
            item.verdict = status = TaskStatus.TIMED_OUT
            if error.left_behind:
                self._report_unresponsive(item.id)
            error = self._timeout_error(item, unresponsive=error.left_behind)
        elif status is TaskStatus.CANCELLED or item.verdict or (cancelling and cancelling()):
            # Nothing that was meant for the item may reach its callbacks. And if the whole loop
            # is being shut down, this lets the run hear of it before the item is judged.
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
        await self._tell(item, status, error, self._close(item, status, value, error, seconds))

    async def _tell(
        self,
        item: _Item,
        status: TaskStatus,
        error: BaseException | None,
        outcome: TaskOutcome[Any] | None,
    ) -> None:
        """Call the callbacks for an item's end; without one for it, a failure ends the run."""
        options = self.options
        if options.on_outcome is not None:
            await _call(item.id, options.on_outcome, outcome)
        if status is TaskStatus.TIMED_OUT:
            if options.on_timeout is not None:
                await _call(item.id, options.on_timeout, item.id)
            elif not options.lenient and error is not None:
                self.fail(error)
        elif isinstance(error, RuntimeCancellationError) and status is TaskStatus.FAILED:
            if not options.lenient:  # the item's own word that all is to end
                self.fail(error)
        elif isinstance(error, Exception):
            if not options.lenient and not self.halted:
                logger.error(
                    "Unexpected error processing %s", item.id, exc_info=error,
                    extra={"task_id": item.id, **trace_fields()},
                )  # fmt: skip
            if options.on_error is not None:
                await _call(item.id, options.on_error, item.id, error)
            elif not options.lenient:
                self.fail(error)
        if options.on_progress is not None:
            await self.report_progress(clock.monotonic())

    def _close(
        self,
        item: _Item,
        status: TaskStatus,
        value: object,
        error: BaseException | None,
        seconds: float,
    ) -> TaskOutcome[Any] | None:
        """Count the end of an item and hand its outcome to the reader, if there is one."""
        self.stats.ended(status, seconds)
        options = self.options
        if options.sink is None and options.on_outcome is None:
            return None
        outcome = TaskOutcome(item.id, status, value, error, seconds, item.attempts)
        if options.sink is not None:
            options.sink(item.index, outcome)
        return outcome

    def _timeout_error(self, item: _Item, *, unresponsive: bool = False) -> TaskTimeoutError:
        timeout = self.options.config.task_timeout
        return TaskTimeoutError(item.id, timeout or 0.0, unresponsive=unresponsive)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._inside = True  # a failure in here need not pump
        item = self._items.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)
        if item is None:
            self._left_behind.discard(task)
        elif not item.ended:  # cancelled from outside before its first step
            item.ended = True
            cause = asyncio.CancelledError()
            self._close(item, TaskStatus.CANCELLED, None, cause, 0.0)
            if not self.options.lenient and not self.stopped:
                self.fail(foreign_cancellation(f"task {item.id!r}", cause))
        self._fill()

    def _help(self, coroutine: Any) -> None:
        """Run something that the run must outlast, such as the reading of its source."""
        task = self._context.copy().run(self.loop.create_task, coroutine)
        self._helpers.add(task)
        task.add_done_callback(self._helper_done)

    def _helper_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)
        self._left_behind.discard(task)
        self._helpers.discard(task)
        self.pump()

    # Deadlines: one timer for all tasks, set for the oldest

    def _set_deadline(self, item: _Item, timeout: float) -> None:
        deadline = self._deadlines[item] = self.loop.time() + timeout
        if self._timer is None:
            self._timer = self.loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.loop.time()
        late = []
        for item, deadline in self._deadlines.items():
            # A timer may be early by the clock's resolution; half a millisecond is ignored.
            if deadline > now + 0.0005:
                self._timer = self.loop.call_at(deadline, self._on_timer)
                break
            late.append(item)
        for item in late:
            del self._deadlines[item]
            if item.verdict is None and item.task is not None:
                item.verdict = TaskStatus.TIMED_OUT
                item.task.cancel()
                self.loop.call_later(self._grace, self._overdue, item)

    def _overdue(self, item: _Item) -> None:
        if not item.ended and not item.left_behind:
            self._leave_behind(item)
            self.pump()

    # Ending

    def stop(self) -> None:
        """Take no further item; what has begun is finished (a drain)."""
        if not self.stopped and not self.ended:
            logger.info("intake stopped, %d tasks under way", len(self._items))
            self._drained = True
            self._stop()
            self.pump()

    def cancel(self) -> None:
        """Take no further item and cancel those that have begun, if anything is left to cancel."""
        if self.ended or self._cancelled:
            return
        if self._complete and all(task.done() for task in self._items):
            return
        if self._error is None:
            self._cancelled = True
        logger.info("run cancelled, %d tasks under way", len(self._items))
        self.halt()

    def fail(self, error: BaseException) -> None:
        """End the run with this error, unless it is ending already."""
        if self._error is None and not self._cancelled and not self.ended:
            self._error = error
        elif error is not self._error:
            logger.warning("an error came after the run had been told to end", exc_info=error)
        self.halt()

    def halt(self) -> None:
        """Tell every task to end and give them `cancel_grace` seconds for it."""
        if self.ended or self.halted:
            return
        self.halted = True
        self._stop()
        for task, item in list(self._items.items()):
            if not item.ended and item.verdict is None:
                item.verdict = TaskStatus.CANCELLED
                # One that has not begun sees its verdict when it does; a second cancel would
                # hit the cleanup of one that was cancelled before.
                if item.began is not None:
                    task.cancel()
        self._grace_timer = self.loop.call_later(self._grace, self._give_up)
        self.pump()

    def _stop(self) -> None:
        self.stopped = True
        for helper in self._helpers:
            helper.cancel()

    def _give_up(self) -> None:
        for task, item in list(self._items.items()):
            if not item.ended:
                self._leave_behind(item)
            else:
                logger.error(
                    "a callback for task %r still ran %g s after the run was told to end: "
                    "cancelled", item.id, self._grace, extra={"task_id": item.id},
                )  # fmt: skip
                task.cancel()
                del self._items[task]
                self._left_behind.add(task)
        for helper in list(self._helpers):
            self._report_unresponsive("<source>")
            helper.cancel()
            self._helpers.discard(helper)
            self._left_behind.add(helper)
        if self._items:  # callbacks about those left behind, which have their grace as well
            self._grace_timer = self.loop.call_later(self._grace, self._give_up)
        self.pump()

    def _leave_behind(self, item: _Item) -> None:
        """Go on without a task that suppresses cancellation; it is cancelled once more."""
        assert item.task is not None  # noqa: S101 - for the type checker
        assert item.began is not None  # noqa: S101
        self._report_unresponsive(item.id)
        item.left_behind = True
        del self._items[item.task]
        self._left_behind.add(item.task)
        self._deadlines.pop(item, None)
        item.task.cancel()
        status = item.verdict or TaskStatus.CANCELLED
        error: BaseException = asyncio.CancelledError()
        if status is TaskStatus.TIMED_OUT:
            error = self._timeout_error(item, unresponsive=True)
        outcome = self._close(item, status, None, error, clock.monotonic() - item.began)
        reporter = _Item(item.id, item.index)
        reporter.ended = True
        self._context.copy().run(
            self._launch, reporter, self._tell(reporter, status, error, outcome)
        )

    def _report_unresponsive(self, task_id: str) -> None:
        """Put a task that was left behind into the log and the statistics."""
        self.stats.left_behind(task_id)
        logger.error(
            "task %r ignores cancellation: it still runs %g s after it was cancelled and is left "
            "behind", task_id, self._grace, extra={"task_id": task_id, **trace_fields()},
        )  # fmt: skip

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        del self._on_done  # it refers to us
        for timer in (self._timer, self._grace_timer):
            if timer is not None:
                timer.cancel()
        if self.watch is not None:
            self.watch.close()
        self._on_end(self)
        self.wake()

    def wake(self) -> None:
        """Wake those who wait for the end of the run or for an outcome."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def event(self) -> None:
        """Wait until `wake` is called."""
        waiter = self.loop.create_future()
        self._waiting.append(waiter)
        await waiter

    async def join(self) -> None:
        """Wait for the end; when cancelled meanwhile, cancel the tasks and await them first."""
        try:
            while not self.ended:
                await self.event()
        except asyncio.CancelledError:
            self.halt()
            while not self.ended:
                await self.event()
            if self._error is not None:
                logger.warning("the run was cancelled while it failed", exc_info=self._error)
            raise

    async def report_progress(self, now: float | None = None) -> None:
        """Tell `on_progress`; with a time, only if the last time is long enough ago."""
        hook = self.options.on_progress
        if hook is None or (now is not None and now < self._next_report):
            return
        if now is not None:
            self._next_report = now + self.options.progress_interval
        await _call("", hook, self.stats.snapshot())

    def conclude(self) -> None:
        """Raise what the run ended with, if it was not success."""
        lost = tuple(self.stats.unresponsive)
        behind = f"left behind, as they ignore cancellation: {', '.join(map(str, lost[:10]))}"
        if len(lost) > 10:
            behind += " and others"
        error, self._error = self._error, None
        if error is not None:
            if lost and lost != (getattr(error, "task_id", None),):  # which says so itself
                add_note(error, behind)
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        if self._cancelled:
            stats = self.stats
            message = (
                f"runtime cancelled: of {stats.started} tasks begun {stats.succeeded} succeeded; "
                "make another TaskRuntime for the rest"
            )
            raise RuntimeCancellationError(
                f"{message}; {behind}" if lost else message, unresponsive=lost
            )
        if self._drained and not self._complete:
            raise RuntimeDrainedError(
                "runtime drained: every task that had begun has ended, but the source of tasks has "
                "not been read to its end; run what is left when you can",
                unresponsive=lost,
            )


def _always(error: Exception) -> bool:
    return True


def _log_retry(task_id: str, details: RetryDetails) -> None:
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "task %r failed in attempt %d, next in %.2f s: %s",
            task_id,
            details.attempt,
            details.wait,
            redact_secrets(repr(details.error)),
            extra={"task_id": task_id, "attempt": details.attempt, **trace_fields()},
        )


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
            "callback %s raised when told of %s; the run goes on",
            shown(callback),
            ", ".join(shown(arg) for arg in args),
            extra={"task_id": task_id, **trace_fields()},
        )
