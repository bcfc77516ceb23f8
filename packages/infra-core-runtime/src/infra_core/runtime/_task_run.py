"""One call of `TaskRuntime.run`: when items are taken from their source, and how it all ends.

One task reads the source and begins an item whenever there is room. The run is over when that
task has ended and no item is alive.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from . import clock
from ._exceptions import add_note
from ._outcomes import StatsRecorder
from ._task_errors import RuntimeCancellationError, RuntimeDrainedError, foreign_cancellation
from ._task_items import TaskItems
from ._task_options import RunOptions, check_source, length_of
from ._threads import CancelEvent, until_done, until_set

__all__ = ["TaskRun"]

logger = logging.getLogger("infra_core.task_runtime")

# Items that are taken at least, and seconds at most, before the event loop has a turn.
_AT_ONCE, _SLICE = 16, 0.002
_END: Any = object()


@dataclass(eq=False, repr=False)  # which would show every item
class TaskRun:
    """The state of one run.

    Attributes:
        stats: Counters of this run alone.
        over: Done when the run has ended.
    """

    _source: Iterable[Any] | AsyncIterable[Any]
    _options: RunOptions
    _left_behind: set[asyncio.Task[None]]
    _event: CancelEvent | None
    _on_event: Callable[[], None]
    _on_end: Callable[["TaskRun"], None]
    stats: StatsRecorder = field(default_factory=StatsRecorder)

    def __post_init__(self) -> None:
        check_source("tasks", self._source)
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self.loop.create_future()
        self._items = TaskItems(
            self._options, self.stats, self._left_behind, self.fail, self._changed
        )
        self._delivered = 0
        self._room = asyncio.Event()
        self._exhausted = self._stopped = self._cancelled = self._drained = False
        self._error: BaseException | None = None
        self._feeder: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether no task is left and none will come."""
        return self.over.done()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks that are alive and not left behind."""
        return set(self._items.alive)

    # Taking items

    def begin(self) -> None:
        """Begin to read the source; an eager task reaches `cancel` and its like by that."""
        if self._event is not None:
            self._items.help("<event>", self._watch(self._event))
        self._feeder = self._items.help("<source>", self._feed())
        if self._stopped:  # by the first step of an eager task
            self._feeder.cancel()

    async def _feed(self) -> None:
        """Read the source and begin its items, each in a copy of the context of this task.

        An asynchronous source is read by one task, since cancel scopes and timeouts inside of an
        asynchronous generator hold only there. The source is the caller's and is not closed.
        """
        source, options, event = self._source, self._options, self._event
        limit, rate, make = options.config.concurrency, options.rate, options.make
        alive, window = self._items.alive, options.window
        asynchronous = isinstance(source, AsyncIterable)
        iterator: Any = aiter(source) if isinstance(source, AsyncIterable) else iter(source)
        taken, turn_ends = 0, clock.monotonic() + _SLICE
        while not self._stopped:
            full = len(alive) >= limit or (window is not None and self._ahead >= window)
            if full or (taken >= _AT_ONCE and clock.monotonic() > turn_ends):
                if full:
                    self._room.clear()
                    await self._room.wait()
                else:
                    await asyncio.sleep(0)
                taken, turn_ends = 0, clock.monotonic() + _SLICE
                continue
            if rate is not None and not self._complete:
                wait = rate.wait(clock.monotonic())
                if wait > 0.0:
                    await clock.sleep_async(wait)
                    continue
            if event is not None and event.is_set():
                self._on_event()
                return
            item = await anext(iterator, _END) if asynchronous else next(iterator, _END)
            if item is _END:
                self._exhausted = True
                return
            if rate is not None:
                rate.reserve(clock.monotonic())
            self._items.begin(*make(item))
            taken += 1

    @property
    def _complete(self) -> bool:
        """Whether every item is known to have been taken."""
        return self._exhausted or self.stats.started == length_of(self._source)

    @property
    def _ahead(self) -> int:
        """How many tasks the run is ahead of the reader of a stream."""
        return self.stats.started - self._delivered

    def delivered(self) -> None:
        """Note that the reader of a stream has taken an outcome."""
        self._delivered += 1
        self._room.set()

    async def _watch(self, event: CancelEvent) -> None:
        await until_set(event)
        self._on_event()

    # Ending

    def _changed(self) -> None:
        """See whether there is room, or nothing left; called whenever a task has ended."""
        self._room.set()
        if not self._stopped and self._feeder is not None and self._feeder.cancelled():
            try:
                self._feeder.result()
            except asyncio.CancelledError as error:
                self.fail(foreign_cancellation("the source of tasks", error))
        if self._items.alive or self.ended:
            return
        if helpers := list(self._items.helpers):
            if self._feeder not in helpers:  # the other one, which has no end of its own
                helpers[0].cancel()  # when it has ended this is called again
            return
        self.over.set_result(None)
        self._on_end(self)
        if self._options.sink is not None:
            self._options.sink.end()

    def stop(self) -> None:
        """Take no further item; what has begun is finished (a drain)."""
        if not self._stopped and not self.ended:
            logger.info("intake stopped, %d tasks under way", len(self._items.alive))
            self._drained = self._stopped = True
            if self._feeder is not None:
                self._feeder.cancel()

    def cancel(self) -> None:
        """Take no further item and cancel those that have begun, if anything is left to cancel."""
        if self.ended or self._cancelled:
            return
        under_way = self.stats.snapshot().in_flight
        if self._complete and not under_way and all(task.done() for task in self._items.alive):
            return
        if self._error is None:
            self._cancelled = True
        logger.info("run cancelled, %d tasks under way", under_way)
        self.halt()

    def fail(self, error: BaseException) -> None:
        """End the run with this error, unless it is ending already."""
        if self._error is None and not self._cancelled and not self.ended:
            self._error = error
        elif error is not self._error:
            logger.warning("an error came after the run had been cancelled", exc_info=error)
        self.halt()

    def halt(self) -> None:
        """Cancel every task and give them `cancel_grace` seconds for it."""
        if self.ended or self._items.halted:
            return
        self._stopped = True
        self._items.halt()

    async def join(self) -> None:
        """Wait for the end; when cancelled meanwhile, cancel the tasks and await them first."""
        try:
            await asyncio.shield(self.over)
        except asyncio.CancelledError:
            self.halt()
            with suppress(asyncio.CancelledError):  # again, as the scopes of anyio do
                await until_done(self.over)
            if self._error is not None:
                logger.warning("the run was cancelled while it failed", exc_info=self._error)
            raise

    async def conclude(self) -> None:
        """Report progress for the last time, then raise what the run ended with, if not success."""
        await self._items.report_progress()
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
            stats = self.stats.snapshot()
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
