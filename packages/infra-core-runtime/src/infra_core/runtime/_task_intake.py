"""Where the tasks of a run come from, and when the next one may begin."""

import asyncio
from collections.abc import AsyncIterable, Iterable, Sized
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from . import clock
from ._task_worker import Factory
from ._values import shown

if TYPE_CHECKING:
    from ._task_run import TaskRun

__all__ = ["Intake", "Item", "TaskSource", "check_source"]

Item = tuple[str, Factory]
TaskSource = Iterable[Item] | AsyncIterable[Item]
_END: Any = object()
_ITERATION = ("__iter__", "__aiter__", "__getitem__")


def check_source(name: str, source: object) -> None:
    """Refuse what cannot be iterated over.

    Raises:
        TypeError: Such as None, or a coroutine that somebody forgot to await.
    """
    if not any(hasattr(source, method) for method in _ITERATION):
        raise TypeError(
            f"{name} cannot be iterated over, being {shown(source)}: pass a list, a generator or "
            "an asynchronous generator"
        )


class Intake:
    """Takes items from the source of a run, one at a time and only when they can begin.

    A synchronous source is read by whoever has room for a task; an asynchronous one by a single
    task of its own, since cancel scopes and timeouts inside of an asynchronous generator hold
    only there. The source stays the caller's: it is read no further than need be, and not closed.

    Attributes:
        context: The source is read in it, and every item begins in a copy of it, as it would in
            an `asyncio.Task` of its own.
        exhausted: The source has been read to its end.
        delivered: Outcomes that the reader of a stream has taken.
    """

    def __init__(self, run: "TaskRun", source: TaskSource) -> None:
        check_source("tasks", source)
        self.context = copy_context()
        self.exhausted = False
        self.delivered = 0
        self._run = run
        self._stats = run.stats
        self._window = run.options.window
        self._pacer = run.options.pacer
        self._pacing = False
        self._space: asyncio.Future[None] | None = None
        self._total = len(source) if isinstance(source, Sized) else None
        self._source: AsyncIterable[Item] | None = None
        if isinstance(source, AsyncIterable):
            self._source = source
        else:
            self._pull = partial(self.context.run, next, iter(source), _END)

    @property
    def complete(self) -> bool:
        """Whether every item is known to have been taken."""
        return self.exhausted or self._stats.started == self._total

    def open(self) -> bool:
        """Begin to read; say whether the source is an asynchronous one, which feeds itself."""
        if self._source is None:
            return False
        self._run.help(self._feed(self._source))
        return True

    def take(self) -> Item | None:
        """Return the next item, if one may begin now."""
        run = self._run
        if run.stopped or self.exhausted or self._source is not None:
            return None
        if run.watch is not None and run.watch.look():
            return None
        if self._window is not None and self._stats.started - self.delivered >= self._window:
            return None
        if self._pacer is not None:
            if self.complete:  # or the end would be noticed only when a start is due
                self.exhausted = True
                return None
            if not self._paced():
                return None
        try:
            item: Item = self._pull()
        except BaseException as error:  # noqa: BLE001 - raised again at the end of the run
            run.fail(error)
            return None
        if item is _END:
            self.exhausted = True
            return None
        if type(item) is not tuple or len(item) != 2:
            return self._checked(item)
        self._stats.started += 1
        return item

    def _checked(self, item: Any) -> Item | None:
        try:
            task_id, factory = item
        except (TypeError, ValueError):
            self._run.fail(
                TypeError(
                    f"the source of tasks gave {shown(item)}: each of its items must be a pair of "
                    "an id and a callable without arguments that returns an awaitable"
                )
            )
            return None
        self._stats.started += 1
        return task_id, factory

    def _paced(self) -> bool:
        """Say whether the rate allows a start; if not, come back when it does."""
        assert self._pacer is not None  # noqa: S101 - for the type checker
        now = clock.monotonic()
        wait = self._pacer.wait(now)
        if wait <= 0.0:
            self._pacer.reserve(now)
            return True
        if not self._pacing:
            self._pacing = True
            self._run.help(self._pace(wait))
        return False

    async def _pace(self, wait: float) -> None:
        try:
            await clock.sleep_async(wait)  # when this ends, the run looks for items again
        finally:
            self._pacing = False

    def room(self) -> None:
        """Let the reader of an asynchronous source know that there may be room."""
        if self._space is not None and not self._space.done():
            self._space.set_result(None)

    async def _feed(self, source: AsyncIterable[Item]) -> None:
        run = self._run
        try:
            iterator = source.__aiter__()
            while not run.stopped:
                while run.full() or (
                    self._window is not None
                    and self._stats.started - self.delivered >= self._window
                ):
                    self._space = run.loop.create_future()
                    await self._space
                while (
                    self._pacer is not None and (wait := self._pacer.wait(clock.monotonic())) > 0.0
                ):
                    await clock.sleep_async(wait)
                if run.watch is not None and run.watch.look():
                    break
                item = await iterator.__anext__()
                if self._pacer is not None:
                    self._pacer.reserve(clock.monotonic())
                if not run.stopped:
                    checked = self._checked(item)
                    if checked is not None:
                        run.spawn(checked)
        except StopAsyncIteration:
            self.exhausted = True
        except asyncio.CancelledError as error:
            run.foreign("the source of tasks", error)
            raise
        except Exception as error:  # noqa: BLE001 - raised again at the end of the run
            run.fail(error)
