"""The list is read beside the downloads: no further ahead than a bound, and never in its way."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress

from ._items import BatchItem, Rejected, item_of

__all__ = ["Intake"]

_AHEAD = 2_048  # items that may wait; the list is read on when half of them are gone
_CHUNK = 256
_FIRST = 32  # the first chunk is small, so that downloads begin at once


class Intake:
    """Reads a source in a thread of its own, or in the loop where it is asynchronous.

    The thread is a daemon: one that waits for a pipe must not keep a process alive that is to
    end.

    Attributes:
        error: What the source raised, which ends the run once what came before is done.
    """

    def __init__(self, source: Iterable[object] | AsyncIterable[object]) -> None:
        self.error: BaseException | None = None
        self._items: deque[BatchItem | Rejected] = deque()
        self._room = threading.Condition()
        self._stopped = False
        self._at_end = False
        self._at_hand = False  # whether a chunk is out that is not recorded yet
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._space = asyncio.Event()  # of an asynchronous source
        self._waiting = False
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        if isinstance(source, AsyncIterable):
            self._task = self._loop.create_task(self._read_async(source))
        else:
            threading.Thread(
                target=self._read, args=(source,), name="infra-core-list", daemon=True
            ).start()

    @property
    def ended(self) -> bool:
        """Whether the source was read to its end, and all of it was handed out and recorded."""
        return self._at_end and not self._items and not self._at_hand

    def stop(self) -> None:
        """Hand out nothing more; call it from the loop."""
        with self._room:
            self._stopped = True
            self._room.notify()
        self._news.set()
        if self._task is not None:
            self._task.cancel()

    async def chunks(self) -> AsyncIterator[list[BatchItem | Rejected]]:
        """Yield what has been read, a few hundred entries at a time, until the end or `stop`."""
        size = _FIRST
        while not self._stopped:
            chunk: list[BatchItem | Rejected] = []
            with self._room:
                while self._items and len(chunk) < size:
                    chunk.append(self._items.popleft())
                if len(self._items) <= _AHEAD // 2:
                    self._room.notify()
                    self._space.set()
                done = self._at_end or self.error is not None
                self._waiting = not chunk and not done
                self._news.clear()
            if chunk:
                size = _CHUNK
                self._at_hand = True
                yield chunk
            elif done:
                return
            elif not self._stopped:
                await self._news.wait()

    def take_note(self) -> None:
        """Note that the chunk which was handed out is recorded."""
        self._at_hand = False

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Say how the source ended: at its end, by an error, or because it is not read on."""
        try:
            yield
        except BaseException as error:
            if self._stopped and isinstance(error, asyncio.CancelledError):
                raise
            self.error = error  # handed to the run
        self._at_end = self.error is None and not self._stopped
        self._wake()

    def _read(self, source: Iterable[object]) -> None:
        with self._reading():
            for given in source:
                if not self._put(given):
                    return

    def _put(self, given: object) -> bool:
        self._number += 1
        if isinstance(given, str) and given.isspace():  # a blank line of a file
            return True
        entry = given if isinstance(given, Rejected) else item_of(given, self._number)
        with self._room:
            while len(self._items) >= _AHEAD and not self._stopped:
                self._room.wait()
            if self._stopped:
                return False
            self._items.append(entry)
            wake, self._waiting = self._waiting, False
        if wake:
            self._wake()
        return True

    async def _read_async(self, source: AsyncIterable[object]) -> None:
        with self._reading():
            async for given in source:
                if len(self._items) >= _AHEAD:
                    self._space.clear()
                    await self._space.wait()
                if not self._put(given):
                    return

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it the reader
            self._loop.call_soon_threadsafe(self._news.set)
