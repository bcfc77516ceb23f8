"""Bounds for work on millions of files: how many are under way, how many bytes they hold."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Any, TypeVar

__all__ = ["ByteBudget", "ending", "for_each", "growing_batches"]

T = TypeVar("T")
_AHEAD = 64  # items that wait for a worker
_BATCHES = (8, 16, 32, 64)  # items; the last size repeats


class ByteBudget:
    """Bounds the bytes in memory over all files under way."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._turn = asyncio.Condition()
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def held(self, wanted: int) -> AsyncIterator[None]:
        wanted = min(wanted, self._limit)
        if wanted > self._left:
            self._waiting += 1
            try:
                async with self._turn:
                    await self._turn.wait_for(lambda: wanted <= self._left)
            finally:
                self._waiting -= 1
        self._left -= wanted
        try:
            yield
        finally:
            self._left += wanted
            if self._waiting:
                async with self._turn:
                    self._turn.notify_all()


@contextlib.asynccontextmanager
async def ending(tasks: Collection[asyncio.Task[Any]]) -> AsyncIterator[None]:
    """Cancel those of the tasks that still run when the block is left, and wait for them."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def growing_batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Items in lists, the first ones short, so that work begins before much is prepared.

    Example:
        >>> [len(batch) for batch in growing_batches(range(200))]
        [8, 16, 32, 64, 64, 16]
    """
    left = iter(items)
    for size in chain(_BATCHES, repeat(_BATCHES[-1])):
        batch = list(islice(left, size))
        if not batch:
            return
        yield batch


async def for_each(
    batches: Iterator[list[T]], handle: Callable[[T], Awaitable[None]], width: int
) -> None:
    """Handle all items, `width` at a time, while the next batch is made in a thread.

    An exception of `handle` ends it all, after the others were cancelled.
    """
    queue: asyncio.Queue[T | None] = asyncio.Queue(_AHEAD)

    async def produce() -> None:
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            for item in batch:
                await queue.put(item)
        for _ in range(width):
            await queue.put(None)

    async def work() -> None:
        while (item := await queue.get()) is not None:
            await handle(item)

    tasks = [asyncio.create_task(produce())]
    tasks.extend(asyncio.create_task(work()) for _ in range(width))
    async with ending(tasks):
        await asyncio.gather(*tasks)
