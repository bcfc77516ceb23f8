"""Objects that belong to one event loop: locks, and clients that must be closed with it."""

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["LoopBoundAsyncLock", "LoopLocal"]

T = TypeVar("T")
_logger = logging.getLogger("infra_core.runtime")

# What a forked child inherits and must neither use nor close, since its sockets are the parent's.
_inherited: list[object] = []


class _Entry(Generic[T]):
    """One value with the loop it belongs to; its lifetime ends with the loop, or by `aclose`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, local: "LoopLocal[T]") -> None:
        self.loop = weakref.ref(loop)
        self.pid = os.getpid()
        self.value = local._factory()
        self.lifetime = self._live(weakref.ref(local), local._close)
        # An async generator that was begun on a loop is closed by loop.shutdown_asyncgens(), which
        # asyncio.run and its like call while the loop still runs: the one hook there is.
        try:
            self.lifetime.asend(None).send(None)
        except StopIteration:
            pass

    async def _live(
        self,
        local: "weakref.ref[LoopLocal[T]]",
        close: Callable[[T], Awaitable[None]],
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self.pid == os.getpid():
                owner = local()
                if owner is not None:
                    owner._forget(self)
                await close(self.value)

    def is_stale(self) -> bool:
        """Whether its loop cannot run any more."""
        loop = self.loop()
        return loop is None or loop.is_closed()


class LoopLocal(Generic[T]):
    """One value per event loop, made on first use and closed with its loop.

    For clients with connections, which must not be used on a loop other than the one that made
    them. A value is closed when its loop shuts down in the way of `asyncio.run` (any loop whose
    `shutdown_asyncgens` is called). If a loop was closed without that, its value is closed on the
    next loop that asks. Safe to use from several threads; after a fork the child gets values of
    its own and leaves the parent's alone.

    Args:
        factory: Makes a value; called within the running loop.
        close: Closes a value. For a loop that was closed without shutdown it runs on another
            loop, so errors are logged at debug level and not raised there.

    Example:
        One connection pool per event loop::

            pools = LoopLocal(make_pool, close=lambda pool: pool.aclose())

            async def handler() -> None:
                await pools.get().send(...)
    """

    def __init__(self, factory: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._factory = factory
        self._close = close
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._entries: dict[int, _Entry[T]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def get(self) -> T:
        """Return the value of the running loop, made now if need be.

        Raises:
            RuntimeError: Outside of a running event loop.
        """
        loop = asyncio.get_running_loop()
        entry = self._entries.get(id(loop))
        if entry is not None and entry.loop() is loop and entry.pid == os.getpid():
            return entry.value
        self._after_fork()
        entry = _Entry(loop, self)
        with self._lock:
            # An entry under the same id is of a dead loop whose address was used again.
            stale = [key for key, old in self._entries.items() if old.is_stale()]
            ended = [self._entries.pop(key) for key in stale]
            self._entries[id(loop)] = entry
        for old in ended:
            task = loop.create_task(_close_quietly(old))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return entry.value

    async def aclose(self) -> None:
        """Close the running loop's value, and those of loops that are closed.

        The next `get` makes a new one. Values of other loops that are alive are left to them.

        Raises:
            Exception: What `close` raised for the value of the running loop.
        """
        self._after_fork()
        loop = asyncio.get_running_loop()
        with self._lock:
            own = self._entries.pop(id(loop), None)
            stale = [key for key, old in self._entries.items() if old.is_stale()]
            ended = [self._entries.pop(key) for key in stale]
        for old in ended:
            await _close_quietly(old)
        if self._closing:
            await asyncio.gather(*(task for task in self._closing if task.get_loop() is loop))
        if own is not None:
            await own.lifetime.aclose()

    def _forget(self, entry: _Entry[T]) -> None:
        with self._lock:
            for key, known in list(self._entries.items()):
                if known is entry:
                    del self._entries[key]

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            _inherited.append(self._entries)
            _inherited.append(self._closing)
            self._lock = threading.Lock()  # may be held by a thread that does not exist here
            self._entries, self._closing = {}, set()
            self._pid = os.getpid()


async def _close_quietly(entry: _Entry[T]) -> None:
    try:
        await entry.lifetime.aclose()
    except Exception as error:  # noqa: BLE001 - transports of a closed loop may not close cleanly
        _logger.debug("closing a value of a closed event loop failed", exc_info=error)


class LoopBoundAsyncLock:
    """An `asyncio.Lock` for objects that outlive one event loop: one lock per loop.

    Example:
        ::

            lock = LoopBoundAsyncLock()

            async def update() -> None:
                async with lock.get():
                    ...
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # A lock that was waited for refers to its loop, so weak keys alone would never die:
        # closed loops are swept out whenever a new loop comes.
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    def get(self) -> asyncio.Lock:
        """Return the lock of the running loop.

        Raises:
            RuntimeError: Outside of a running event loop.
        """
        loop = asyncio.get_running_loop()
        lock = self._locks.get(loop)
        if lock is None:
            with self._guard:
                for old in [known for known in self._locks if known.is_closed()]:
                    del self._locks[old]
                lock = self._locks.setdefault(loop, asyncio.Lock())
        return lock
