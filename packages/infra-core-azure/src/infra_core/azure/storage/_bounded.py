"""Bounds for work on millions of files: how many are under way, how many bytes they hold."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, TypeVar

from infra_core.fs import AtomicFile, commit_together
from infra_core.runtime import ThreadBatcher

__all__ = [
    "ByteBudget",
    "FileToWrite",
    "batch_writer",
    "ending",
    "for_each",
    "growing_batches",
]

T = TypeVar("T")
_AHEAD = 64  # items that wait for a worker
_BATCHES = (8, 16, 32, 64)  # items; the last size repeats
# One writer and large batches: a flush of 256 files costs hardly more than one of 32, and what
# comes meanwhile makes the next batch. The caller that fetches the files bounds their bytes.
_MOST_FILES = 256
_WRITERS = 1
# Where flushes take a millisecond, each would serve a file or two, at twice the processor time a
# file of one that serves thirty.
_LINGER = 0.03  # seconds


class ByteBudget:
    """Bounds the bytes in memory over all files under way."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._turn = asyncio.Condition()
        self._waiting = 0

    async def take(self, wanted: int) -> None:
        """Wait until there is room for so many bytes, at most the limit; see `give`."""
        if wanted > self._left:
            self._waiting += 1
            try:
                async with self._turn:
                    await self._turn.wait_for(lambda: wanted <= self._left)
            finally:
                self._waiting -= 1
        self._left -= wanted

    async def give(self, taken: int) -> None:
        """Make room for others again."""
        self._left += taken
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


def _batch_size(most: int) -> int:
    """Files that are open at a time: at most a quarter of what the system lets a process open."""
    if sys.platform == "win32":  # has no such limit
        return most
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if limit < 0 else min(most, max(8, limit // 4))


@dataclass(slots=True, eq=False)  # made for each file: a frozen one takes twice as long
class FileToWrite:
    """A file that appears whole and durable, or not at all; both hooks may raise to prevent it."""

    path: Path
    data: bytes
    verify: Callable[[], None]
    before_commit: Callable[[], object] = lambda: None

    def __call__(self) -> AtomicFile:
        """Check and write it; it has no name of its own yet."""
        self.verify()
        file = AtomicFile(self.path)
        try:
            file.write(self.data)
        except BaseException:
            file.abort()
            raise
        return file


def batch_writer(
    width: int = _MOST_FILES, *, coming: Callable[[], bool] = lambda: False
) -> ThreadBatcher[FileToWrite]:
    """What writes files in a thread, those that come at the same time together.

    Awaiting a file raises what the disk or its hooks raised. While others are `coming`, a file
    waits a moment for them.
    """
    size = _batch_size(min(width, _MOST_FILES))
    return ThreadBatcher(_write_all, size=size, workers=_WRITERS, linger=_LINGER, coming=coming)


def _write_all(files: list[FileToWrite]) -> list[Exception | None]:
    return commit_together(files, before=lambda file: file.before_commit())
