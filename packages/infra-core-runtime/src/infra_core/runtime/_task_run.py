"""One call of `TaskRuntime.run`: where its tasks come from, how many are alive, how it ends.

A worker is one `asyncio.Task` that takes item after item from the source, so that an item costs a
coroutine and not an `asyncio.Task` of its own. A worker that finds nothing to take ends, and
`pump` begins new ones when there is something again; so nothing in here waits for anything, and a
run is over when no worker is left.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, Iterable, Sized
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from . import clock
from ._notes import add_note
from ._outcomes import TaskOutcome, TaskStatus
from ._stats import StatsRecorder
from ._task_errors import RuntimeCancellationError, RuntimeDrainedError, TaskTimeoutError
from ._task_options import RunOptions
from ._task_worker import Factory, Worker, call_back, work

if TYPE_CHECKING:
    from ._cancel_event import EventWatch

__all__ = ["TaskRun", "TaskSource"]

logger = logging.getLogger("infra_core.task_runtime")

Item = tuple[str, Factory]
TaskSource = Iterable[Item] | AsyncIterable[Item]
_END: Any = object()
_FIRST_CROWD = 16


class TaskRun:
    """The state of one run. Every method but `join` is plain and returns at once.

    Attributes:
        stats: Counters of this run alone.
        halted: Its tasks were told to end.
        ended: No worker is left and none will come.
    """

    def __init__(self, source: TaskSource, options: RunOptions, active: set[asyncio.Task[None]]):
        config = options.config
        self.loop = asyncio.get_running_loop()
        self.options = options
        self.limit = config.concurrency
        self.timeout = config.task_timeout
        self.grace = config.cancel_grace
        self.stats = StatsRecorder()
        self.error: BaseException | None = None
        self.halted = False
        self.ended = False
        self.delivered = 0  # outcomes that the reader of a stream has taken
        self.next_report = clock.monotonic() + options.progress_interval
        # The source is read in this context and every item begins in a copy of it, as it would
        # in an asyncio.Task of its own.
        self.context = copy_context()
        self.watch: EventWatch | None = None
        self._active = active
        self._workers: set[Worker] = set()
        self._helpers: set[asyncio.Task[None]] = set()
        self._deadlines: dict[Worker, float] = {}  # same timeout for all, so oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._cancelled = False
        self._drained = False
        self._exhausted = False
        self._waiters: list[asyncio.Future[None]] = []
        self._space: asyncio.Future[None] | None = None
        self._pacing = False
        self._ramping = False
        self._total = len(source) if isinstance(source, Sized) else None
        self._source: AsyncIterable[Item] | None = None
        if isinstance(source, AsyncIterable):
            self._source = source
        else:
            self._pull = partial(self.context.run, next, iter(source), _END)

    # Intake

    def start(self) -> None:
        """Begin the first tasks."""
        if self._source is not None and not self._stopped:
            self._help(self._feed(self._source))
        self.pump()

    def pump(self) -> None:
        """Begin as many tasks as there is room for; called whenever there may be room."""
        if self._source is not None:
            if self._space is not None and not self._space.done():
                self._space.set_result(None)
        else:
            # A crowd that doubles with each turn of the loop: tasks that end at once are all
            # run by the first few workers, tasks that wait are all under way a few turns later.
            room = min(self.limit - len(self._workers), max(_FIRST_CROWD, len(self._workers)))
            while room > 0:
                item = self.take()
                if item is None:
                    break
                self.spawn(item)
                room -= 1
            else:
                if len(self._workers) < self.limit and not self._ramping:
                    self._ramping = True
                    self.loop.call_soon(self._ramp)
        if not self._workers and not self._helpers and (self._stopped or self._exhausted):
            self._end()

    def _ramp(self) -> None:
        self._ramping = False
        self.pump()

    def take(self) -> Item | None:
        """Return the next item, if one may begin now."""
        if self._stopped or self._exhausted or self._source is not None:
            return None
        options = self.options
        if options.window is not None and self.stats.started - self.delivered >= options.window:
            return None
        if options.pacer is not None and not self._paced():
            return None
        try:
            item: Item = self._pull()
        except BaseException as error:  # noqa: BLE001 - raised again by conclude()
            self.fail(error)
            return None
        if item is _END:
            self._exhausted = True
            return None
        if type(item) is not tuple or len(item) != 2:
            return self._checked(item)
        self.stats.started += 1
        return item

    def _checked(self, item: Any) -> Item | None:
        try:
            task_id, factory = item
        except (TypeError, ValueError):
            self.fail(
                TypeError(
                    f"the source of tasks gave {item!r}: each of its items must be a pair of "
                    "an id and a callable without arguments that returns an awaitable"
                )
            )
            return None
        self.stats.started += 1
        return task_id, factory

    def spawn(self, item: Item) -> None:
        """Begin a worker with this item as its first."""
        worker = Worker(item[0], self.stats.started - 1)
        self._workers.add(worker)
        self._launch(worker, work(self, worker, item[1]))

    def replace(self, worker: Worker, item: Item) -> None:
        """Let a fresh worker go on with this item in the place of one that is about to return."""
        self._workers.discard(worker)
        self.spawn(item)

    def _launch(self, worker: Worker, coroutine: Any) -> None:
        # A copy, because with an eager task factory the worker runs now, inside of the context.
        task = self.context.copy().run(self.loop.create_task, coroutine)
        worker.task = task
        self._active.add(task)
        task.add_done_callback(partial(self._worker_done, worker))

    def _worker_done(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self._active.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)
        if worker.detached:
            return
        self._workers.discard(worker)
        if worker.busy:  # cancelled from outside before its first step: it never got to report
            worker.busy = False
            self.close(worker, TaskStatus.CANCELLED, None, asyncio.CancelledError(), 0.0)
        self.pump()

    def _paced(self) -> bool:
        """Say whether the rate allows a start; if not, come back when it does."""
        pacer = self.options.pacer
        assert pacer is not None  # noqa: S101 - for the type checker
        now = clock.monotonic()
        wait = pacer.wait(now)
        if wait <= 0.0:
            pacer.reserve(now)
            return True
        if not self._pacing:
            self._pacing = True
            self._help(self._pace(wait))
        return False

    async def _pace(self, wait: float) -> None:
        try:
            await clock.sleep_async(wait)
        finally:
            self._pacing = False

    async def _feed(self, source: AsyncIterable[Item]) -> None:
        """Read an asynchronous source, from one task alone, when there is room for an item."""
        options = self.options
        try:
            iterator = source.__aiter__()
            while not self._stopped:
                while len(self._workers) >= self.limit or (
                    options.window is not None
                    and self.stats.started - self.delivered >= options.window
                ):
                    self._space = self.loop.create_future()
                    await self._space
                if options.pacer is not None:
                    await clock.sleep_async(options.pacer.reserve(clock.monotonic()))
                item = await iterator.__anext__()
                if not self._stopped:
                    checked = self._checked(item)
                    if checked is not None:
                        self.spawn(checked)
        except StopAsyncIteration:
            self._exhausted = True
        except asyncio.CancelledError as error:
            if not self._stopped:
                self._foreign("the source of tasks", error)
            raise
        except Exception as error:  # noqa: BLE001 - raised again by conclude()
            self.fail(error)

    def _help(self, coroutine: Any) -> None:
        task = self.context.copy().run(self.loop.create_task, coroutine)
        self._helpers.add(task)
        task.add_done_callback(self._helper_done)

    def _helper_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)
        self._helpers.discard(task)
        self.pump()

    # Deadlines: one timer for all tasks, set for the oldest

    def set_deadline(self, worker: Worker, timeout: float) -> None:
        """Have the worker's item cancelled when its time is up."""
        deadline = self.loop.time() + timeout
        self._deadlines[worker] = deadline
        if self._timer is None:
            self._timer = self.loop.call_at(deadline, self._on_timer)

    def clear_deadline(self, worker: Worker) -> None:
        """Forget the deadline of an item that has ended."""
        self._deadlines.pop(worker, None)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.loop.time()
        late = []
        for worker, deadline in self._deadlines.items():
            # A timer may be early by the clock's resolution; half a millisecond is nobody's.
            if deadline > now + 0.0005:
                self._timer = self.loop.call_at(deadline, self._on_timer)
                break
            late.append(worker)
        for worker in late:
            del self._deadlines[worker]
            if worker.verdict is None and worker.task is not None:
                worker.verdict = TaskStatus.TIMED_OUT
                worker.task.cancel()
                self.loop.call_later(self.grace, self._overdue, worker)

    def _overdue(self, worker: Worker) -> None:
        if worker.busy and worker in self._workers:
            self._leave_behind(worker)
            self.pump()

    # Ending

    def stop(self) -> None:
        """Take no further item; what has begun is finished (a drain)."""
        if not self._stopped and not self.ended:
            self._stopped = self._drained = True
            for helper in self._helpers:
                helper.cancel()
            self.pump()

    def cancel(self) -> None:
        """Take no further item and cancel those that have begun."""
        if self.ended or self._cancelled:
            return
        if self.error is None:
            self._cancelled = True
        self.halt()

    def fail(self, error: BaseException) -> None:
        """End the run with this error, unless it is ending already."""
        if self.error is None and not self._cancelled and not self.ended:
            self.error = error
        elif error is not self.error:
            logger.warning("an error came after the run had been told to end", exc_info=error)
        self.halt()

    def _foreign(self, what: str, cause: asyncio.CancelledError) -> None:
        error = RuntimeCancellationError(f"{what} was cancelled, though not by the runtime")
        error.__cause__ = cause
        self.fail(error)

    def halt(self) -> None:
        """Tell every task to end and give them `cancel_grace` seconds for it."""
        if self.ended or self.halted:
            return
        self.halted = self._stopped = True
        for helper in self._helpers:
            helper.cancel()
        for worker in list(self._workers):
            if worker.busy and worker.verdict is None:
                worker.verdict = TaskStatus.CANCELLED
                # One that has not begun sees its verdict when it does; a second cancel would
                # hit the cleanup of one that was cancelled before.
                if worker.attempts and worker.task is not None:
                    worker.task.cancel()
        self._grace_timer = self.loop.call_later(self.grace, self._give_up)
        self.pump()

    def _give_up(self) -> None:
        for worker in list(self._workers):
            if worker.busy:
                self._leave_behind(worker)
            elif worker.task is not None:
                logger.error(
                    "a callback for task %r still ran %g s after the run was told to end: "
                    "cancelled", worker.task_id, self.grace, extra={"task_id": worker.task_id},
                )  # fmt: skip
                worker.task.cancel()
                worker.detached = True
                self._workers.discard(worker)
        for helper in list(self._helpers):
            self._report_unresponsive("<source>")
            helper.cancel()
            self._helpers.discard(helper)
            self._active.add(helper)
            helper.add_done_callback(self._active.discard)
        if self._workers:  # callbacks about those left behind, which have their grace as well
            self._grace_timer = self.loop.call_later(self.grace, self._give_up)
        self.pump()

    def _leave_behind(self, worker: Worker) -> None:
        """Go on without a task that suppresses cancellation; it is cancelled once more."""
        self._report_unresponsive(worker.task_id)
        worker.detached = True
        self._workers.discard(worker)
        self._deadlines.pop(worker, None)
        assert worker.task is not None  # noqa: S101 - for the type checker
        worker.task.cancel()
        status = worker.verdict or TaskStatus.CANCELLED
        error: BaseException = asyncio.CancelledError()
        if status is TaskStatus.TIMED_OUT and self.timeout is not None:
            error = TaskTimeoutError(worker.task_id, self.timeout, unresponsive=True)
        seconds = clock.monotonic() - worker.began
        reporter = Worker(worker.task_id, worker.index)
        reporter.attempts = worker.attempts
        reporter.busy = False
        self._workers.add(reporter)
        self._launch(reporter, self._report_late(reporter, status, error, seconds))

    async def _report_late(
        self, worker: Worker, status: TaskStatus, error: BaseException, seconds: float
    ) -> None:
        outcome = self.close(worker, status, None, error, seconds)
        await call_back(self, worker, status, error, outcome)

    def _report_unresponsive(self, task_id: str) -> None:
        self.stats.left_behind(task_id)
        logger.error(
            "task %r ignores cancellation: it still runs %g s after it was cancelled and is left "
            "behind", task_id, self.grace, extra={"task_id": task_id},
        )  # fmt: skip

    def close(
        self,
        worker: Worker,
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
        outcome = TaskOutcome(worker.task_id, status, value, error, seconds, worker.attempts)
        if options.sink is not None:
            options.sink(worker.index, outcome)
        return outcome

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        for timer in (self._timer, self._grace_timer):
            if timer is not None:
                timer.cancel()
        self.wake()

    def wake(self) -> None:
        """Wake those who wait for the end of the run or for an outcome."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def event(self) -> None:
        """Wait until `wake` is called."""
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
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
            raise

    def conclude(self) -> None:
        """Raise what the run ended with, if it was not success."""
        lost = tuple(self.stats.unresponsive)
        error, self.error = self.error, None
        if error is not None:
            if lost:
                add_note(error, f"left behind, as they ignore cancellation: {', '.join(lost)}")
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        if self._cancelled:
            left = f"; left behind, as they ignore cancellation: {', '.join(lost)}" if lost else ""
            raise RuntimeCancellationError(f"runtime cancelled{left}", unresponsive=lost)
        if self._drained and not self._exhausted and self.stats.started != self._total:
            raise RuntimeDrainedError(
                "runtime drained: every task that had begun is done, the source of tasks has not "
                "been read to its end",
                unresponsive=lost,
            )
