"""One call of `TaskRuntime.run`: where its tasks come from, how many are alive, how it ends.

A worker is one `asyncio.Task` that takes item after item from the source, so that an item costs a
coroutine and not an `asyncio.Task` of its own. A worker that finds nothing to take ends, and
`pump` begins new ones when there is something again; so nothing in here waits for anything, and a
run is over when no worker is left.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from . import clock
from ._notes import add_note
from ._outcomes import TaskOutcome, TaskStatus
from ._stats import StatsRecorder
from ._task_errors import (
    RuntimeCancellationError,
    RuntimeDrainedError,
    TaskTimeoutError,
    foreign_cancellation,
)
from ._task_intake import Intake, Item, TaskSource
from ._task_options import RunOptions
from ._task_worker import Worker, call, call_back, work
from ._trace import trace_fields

if TYPE_CHECKING:
    from ._cancel_event import EventWatch

__all__ = ["TaskRun"]

logger = logging.getLogger("infra_core.task_runtime")

_FIRST_CROWD = 16
_SLICE = 0.001


class TaskRun:
    """The state of one run. Every method but `join` is plain and returns at once.

    Attributes:
        stats: Counters of this run alone.
        halted: Its tasks were told to end.
        ended: No worker is left and none will come.
    """

    def __init__(
        self,
        source: TaskSource,
        options: RunOptions,
        active: set[asyncio.Task[None]],
        on_end: Callable[["TaskRun"], None],
    ) -> None:
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
        self.slice_end = 0.0  # until then no worker needs to ask whether the loop is starved
        self._next_report = clock.monotonic() + options.progress_interval
        self.watch: EventWatch | None = None
        self._active = active
        self._on_end = on_end
        self._workers: set[Worker] = set()
        self._helpers: set[asyncio.Task[None]] = set()
        self._deadlines: dict[Worker, float] = {}  # same timeout for all, so oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._slice: asyncio.TimerHandle | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self.stopped = False
        self._cancelled = False
        self._drained = False
        self._waiters: list[asyncio.Future[None]] = []
        self._ramping = False
        self._taken = 0  # tasks taken when the crowd was last looked at
        self._fed = False
        self.intake = Intake(self, source)

    # Workers

    def start(self) -> None:
        """Begin the first tasks."""
        if not self.stopped:
            self._fed = self.intake.open()
        self.pump()

    def pump(self) -> None:
        """Begin as many tasks as there is room for; called whenever there may be room."""
        if self._fed:
            self.intake.room()
        else:
            # A crowd that doubles with each turn of the loop: tasks that end at once are all
            # run by the first few workers, tasks that wait are all under way a few turns later.
            room = min(self.limit - len(self._workers), max(_FIRST_CROWD, len(self._workers)))
            while room > 0:
                item = self.intake.take()
                if item is None:
                    break
                self.spawn(item)
                room -= 1
            else:
                self._go_on_ramping()
        if not self._workers and not self._helpers and (self.stopped or self.intake.exhausted):
            self._end()

    def _go_on_ramping(self) -> None:
        if len(self._workers) < self.limit and not self._ramping:
            self._ramping = True
            self._taken = self.stats.started
            self.loop.call_soon(self._ramp)

    def _ramp(self) -> None:
        self._ramping = False
        if 2 * (self.stats.started - self._taken) > len(self._workers):
            self._go_on_ramping()  # these tasks end at once: more workers would do no more
        else:
            self.pump()

    def spawn(self, item: Item) -> None:
        """Begin a worker with this item as its first."""
        worker = Worker(item[0], self.stats.started - 1)
        self._workers.add(worker)
        self._launch(worker, work(self, worker, item[1]))

    def full(self) -> bool:
        """Say whether as many tasks are alive as may be."""
        return len(self._workers) >= self.limit

    def replace(self, worker: Worker, item: Item) -> None:
        """Let a fresh worker go on with this item in the place of one that is about to return."""
        self._workers.discard(worker)
        successor = Worker(item[0], self.stats.started - 1)
        self._workers.add(successor)
        # Not from within the old one: with an eager task factory it would run on top of it.
        self.loop.call_soon(self._launch, successor, work(self, successor, item[1]))

    def _launch(self, worker: Worker, coroutine: Any) -> None:
        # A copy, because with an eager task factory the worker runs now, inside of the context.
        task = self.intake.context.copy().run(self.loop.create_task, coroutine)
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
            cause = asyncio.CancelledError()
            self.close(worker, TaskStatus.CANCELLED, None, cause, 0.0)
            if not self.options.lenient:
                self.foreign(f"task {worker.task_id!r}", cause)
        self.pump()

    def help(self, coroutine: Any) -> None:
        """Run something that the run must outlast, such as the reading of its source."""
        task = self.intake.context.copy().run(self.loop.create_task, coroutine)
        self._helpers.add(task)
        task.add_done_callback(self._helper_done)

    def _helper_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error)
        self._helpers.discard(task)
        self.pump()

    # Fairness

    def starved(self, now: float) -> bool:
        """Say whether items that never suspend have kept the loop from its other work.

        A timer that is long due and has not fired says so. It is set when an item ends and none
        is set, so that it costs nothing per item and nothing at all while all items wait.
        """
        if self._slice is not None:
            return True
        self.slice_end = now + 3 * _SLICE
        self._slice = self.loop.call_later(_SLICE, self._turn)
        return False

    def _turn(self) -> None:
        self._slice = None
        self.slice_end = 0.0

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
        if not self.stopped and not self.ended:
            logger.info("intake stopped, %d tasks under way", len(self._workers))
            self.stopped = self._drained = True
            for helper in self._helpers:
                helper.cancel()
            self.pump()

    def cancel(self) -> None:
        """Take no further item and cancel those that have begun."""
        if self.ended or self._cancelled:
            return
        if self.error is None:
            self._cancelled = True
        logger.info("run cancelled, %d tasks under way", len(self._workers))
        self.halt()

    def fail(self, error: BaseException) -> None:
        """End the run with this error, unless it is ending already."""
        if self.error is None and not self._cancelled and not self.ended:
            self.error = error
        elif error is not self.error:
            logger.warning("an error came after the run had been told to end", exc_info=error)
        self.halt()

    def foreign(self, what: str, cause: asyncio.CancelledError) -> None:
        """End the run because something of it was cancelled, unless we did that."""
        if self.stopped:
            return
        self.fail(foreign_cancellation(what, cause))

    def halt(self) -> None:
        """Tell every task to end and give them `cancel_grace` seconds for it."""
        if self.ended or self.halted:
            return
        self.halted = self.stopped = True
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
            self.report_unresponsive("<source>")
            helper.cancel()
            self._helpers.discard(helper)
            self._active.add(helper)
            helper.add_done_callback(self._active.discard)
        if self._workers:  # callbacks about those left behind, which have their grace as well
            self._grace_timer = self.loop.call_later(self.grace, self._give_up)
        self.pump()

    def _leave_behind(self, worker: Worker) -> None:
        """Go on without a task that suppresses cancellation; it is cancelled once more."""
        self.report_unresponsive(worker.task_id)
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

    def report_unresponsive(self, task_id: str) -> None:
        """Put a task that was left behind into the log and the statistics."""
        self.stats.left_behind(task_id)
        logger.error(
            "task %r ignores cancellation: it still runs %g s after it was cancelled and is left "
            "behind", task_id, self.grace, extra={"task_id": task_id, **trace_fields()},
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
        for timer in (self._timer, self._grace_timer, self._slice):
            if timer is not None:
                timer.cancel()
        if self.watch is not None:
            self.watch.close()
        self._on_end(self)
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
            if self.error is not None:
                logger.warning("the run was cancelled while it failed", exc_info=self.error)
            raise

    async def report_progress(self, now: float | None = None) -> None:
        """Tell `on_progress`; with a time, only if the last time is long enough ago."""
        hook = self.options.on_progress
        if hook is None or (now is not None and now < self._next_report):
            return
        if now is not None:
            self._next_report = now + self.options.progress_interval
        await call("", hook, self.stats.snapshot())

    def conclude(self) -> None:
        """Raise what the run ended with, if it was not success."""
        lost = tuple(self.stats.unresponsive)
        behind = f"left behind, as they ignore cancellation: {', '.join(map(str, lost[:10]))}"
        if len(lost) > 10:
            behind += " and others"
        error, self.error = self.error, None
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
        if self._drained and not self.intake.complete:
            raise RuntimeDrainedError(
                "runtime drained: every task that had begun has ended, but the source of tasks has "
                "not been read to its end; run what is left when you can",
                unresponsive=lost,
            )
