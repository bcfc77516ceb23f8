"""Blocking work that is cheaper for many than for one: what waits together goes together."""

import asyncio
import math
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

from ._threads import file_threads, until_done
from ._values import is_number, shown

__all__ = ["ThreadBatcher"]

T = TypeVar("T")
_Call = asyncio.Future[Sequence[BaseException | None]]


class ThreadBatcher(Generic[T]):
    """Hands items to a blocking function in a thread, those that wait at the same time together.

    For work whose cost is mostly per call: flushes to a disk, transactions, hops to a thread. What
    comes while all workers are busy makes the next batch. Without `linger` it never waits for a
    batch to fill: an item that comes alone is begun at once.

    An await that is cancelled before its item was begun takes the item back. Afterwards it waits
    for the thread, which cannot be stopped, and is cancelled then; so the caller may free
    what the thread used. One batcher may serve several event loops, each with its own batches.

    Args:
        function: Called in a thread (see `in_thread`) with 1 to `size` items; returns one entry
            per item: None, or the error that its await raises. What it raises itself, all of the
            batch raise.
        size: Items in a batch at most.
        workers: Batches of one event loop at the same time at most.
        linger: Seconds that a worker which is free waits for a quarter of `size`: where calls are
            so quick that each would get an item or two, and no caller is in a hurry.
        coming: Whether more items may come soon; nothing lingers when not. By default they may.

    Raises:
        ValueError: `size` or `workers` is below 1, `linger` negative or no number.

    Example:
        ::

            def store(rows: list[Row]) -> list[Exception | None]:
                with database:  # one transaction
                    return [insert(row) for row in rows]

            batcher = ThreadBatcher(store, size=100, workers=1)

            async def handle(row: Row) -> None:
                await batcher(row)  # returns when the row is stored
    """

    def __init__(
        self,
        function: Callable[[list[T]], Sequence[BaseException | None]],
        *,
        size: int = 32,
        workers: int = 2,
        linger: float = 0.0,
        coming: Callable[[], bool] = lambda: True,
    ) -> None:
        for name, value in (("size", size), ("workers", workers)):
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name}={value!r}: pass 1 or more, a whole number")
        if not (is_number(linger) and 0 <= linger < math.inf):
            raise ValueError(f"linger={linger!r}: pass 0 or more seconds")
        self._lane = partial(_Lane, function, size, workers, linger, coming)
        # Not LoopLocal: there is nothing to close, and batchers may be short-lived.
        self._lanes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane[T]] = (
            weakref.WeakKeyDictionary()
        )

    async def __call__(self, item: T) -> None:
        """Hand over one item and wait until the function is done with it.

        Raises:
            BaseException: What the function returned for the item, or raised.
        """
        loop = asyncio.get_running_loop()
        lane = self._lanes.get(loop)
        if lane is None:  # of the first item: a lane for each would be made and dropped
            lane = self._lanes[loop] = self._lane()
        done: asyncio.Future[None] = loop.create_future()
        lane.add(done, item)
        try:
            await done
        except asyncio.CancelledError:
            if (call := lane.take_back(done)) is not None:
                with suppress(asyncio.CancelledError):
                    await until_done(call)
            raise
        finally:
            del done  # its error's traceback refers to this frame: without this, a cycle


@dataclass
class _Lane(Generic[T]):
    """The batches of one event loop. Futures and callbacks only: `asyncio.run` cancels tasks."""

    _function: Callable[[list[T]], Sequence[BaseException | None]]
    _size: int
    _workers: int
    _linger: float
    _coming: Callable[[], bool]
    _waiting: "dict[asyncio.Future[None], T]" = field(default_factory=dict)
    _calls: "dict[asyncio.Future[None], _Call]" = field(default_factory=dict)  # of what has begun
    _running: int = 0
    _due: asyncio.Handle | None = None
    _lingers: bool = False  # what is due; a timer of uvloop is not an asyncio.TimerHandle

    def add(self, done: "asyncio.Future[None]", item: T) -> None:
        self._waiting[done] = item
        if self._running < self._workers:
            self._plan()

    def _plan(self) -> None:
        """Begin a batch soon: when others had time to come, or as soon as these are enough."""
        few = len(self._waiting) * 4 < self._size
        lingers = self._linger > 0 and few and self._coming()
        if self._due is not None:
            if lingers or not self._lingers:
                return
            self._due.cancel()
        self._lingers = lingers
        loop = asyncio.get_running_loop()
        if lingers:
            self._due = loop.call_later(self._linger, self._begin)
        else:  # not at once: others may be ready in this round of the loop as well
            self._due = loop.call_soon(self._begin)

    def take_back(self, done: "asyncio.Future[None]") -> _Call | None:
        """Forget an item; returns the call of its batch where that has begun."""
        self._waiting.pop(done, None)
        return self._calls.get(done)

    def _begin(self) -> None:
        self._due = None
        while self._waiting and self._running < self._workers:
            batch = dict(islice(self._waiting.items(), self._size))
            self._running += 1
            call = file_threads.start(self._call, list(batch.values()))
            for done in batch:
                del self._waiting[done]
                self._calls[done] = call
            call.add_done_callback(partial(self._end, list(batch)))

    def _call(self, items: list[T]) -> Sequence[BaseException | None]:
        try:
            errors = self._function(items)
            entries = errors if isinstance(errors, Sequence) else ()
            kinds = (BaseException, type(None))
            if [isinstance(entry, kinds) for entry in entries] != [True] * len(items):
                raise ValueError(
                    f"{shown(self._function)} returned {shown(errors)} for {len(items)} item(s): "
                    "return a list with an entry for each, None or the exception to raise"
                )
        except BaseException as error:  # noqa: BLE001 - raised by each await
            return [error] * len(items)
        return errors

    def _end(self, batch: "list[asyncio.Future[None]]", call: _Call) -> None:
        self._running -= 1
        for done, error in zip(batch, call.result(), strict=True):
            del self._calls[done]
            if done.cancelled():
                continue
            if error is None:
                done.set_result(None)
            elif isinstance(error, StopIteration):  # which no future can hold
                done.set_exception(RuntimeError(f"{shown(self._function)} raised StopIteration"))
            else:
                done.set_exception(error)
        if self._linger and self._waiting:
            self._plan()
        elif self._due is None:
            self._begin()
