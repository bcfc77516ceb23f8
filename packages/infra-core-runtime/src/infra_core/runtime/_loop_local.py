"""Objects that belong to one event loop: locks, and clients that must be closed with it."""

import asyncio
import logging
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from ._forks import ForkGuard, after_fork_in_child
from ._values import shown

if sys.version_info < (3, 11):
    from . import _timeout310  # noqa: F401 - what clock.timeout needs, before descriptors run out

__all__ = ["LoopBoundAsyncLock", "LoopLocal", "running_loop"]

T = TypeVar("T")
_logger = logging.getLogger("infra_core.runtime")

# What a loop keeps alive: a value whose LoopLocal is forgotten must be closed, not collected, for a
# collected client warns of sockets that it cannot close any more.
_alive: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, set[_Entry[Any]]]"
_alive = weakref.WeakKeyDictionary()

# What a forked child inherits and must neither use nor close, since its sockets are the parent's.
_inherited: list[object] = []


class _Entry(Generic[T]):
    """One value with the loop it belongs to; its lifetime ends with the loop, or by `aclose`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, local: "LoopLocal[T]") -> None:
        self.loop = weakref.ref(loop)
        self.fork = ForkGuard()
        self.value = local._factory()
        self.closing: asyncio.Task[None] | None = None
        self.lifetime = self._live(weakref.ref(local, self._forgotten), local._close)
        # An async generator that was begun on a loop is closed by loop.shutdown_asyncgens(), which
        # asyncio.run and its like call while the loop still runs: the one hook there is.
        with suppress(StopIteration):
            try:
                self.lifetime.asend(None).send(None)
            except ResourceWarning:  # an error here: the loop has shut its generators down,
                self.lifetime.asend(None).send(None)  # and the next one will close this value
        _alive.setdefault(loop, set()).add(self)

    async def _live(
        self,
        local: "weakref.ref[LoopLocal[T]]",
        close: Callable[[T], Awaitable[None]],
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if (loop := self.loop()) is not None:
                _alive.get(loop, set()).discard(self)
            if not self.fork.forked:
                owner = local()
                if owner is not None:
                    owner._forget(self)
                await close(self.value)

    def _forgotten(self, _: object) -> None:
        """Close the value on its loop, now that it can no longer be asked for."""
        loop = self.loop()
        if loop is not None and not self.fork.forked:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._close_soon, loop)

    def _close_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self.closing = loop.create_task(_close_quietly(self))

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
        self._entries: dict[int, _Entry[T]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        after_fork_in_child(self._after_fork)

    def get(self) -> T:
        """Return the value of the running loop, made now if need be.

        Raises:
            RuntimeError: Outside of a running event loop.
        """
        loop = running_loop(", and this value belongs to one: ask for it in a coroutine")
        entry = self._entries.get(id(loop))
        if entry is not None and entry.loop() is loop:
            return entry.value
        entry = _Entry(loop, self)
        ended = self._replace(loop, entry)
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
        loop = asyncio.get_running_loop()
        own = self._entries.get(id(loop))
        for old in self._replace(loop, None):
            if old is not own:
                await _close_quietly(old)
        under_way = [task for task in self._closing if task.get_loop() is loop]
        if under_way:
            await asyncio.wait(under_way)
        if own is not None and own.loop() is loop:
            await own.lifetime.aclose()

    def _replace(self, loop: asyncio.AbstractEventLoop, entry: _Entry[T] | None) -> list[_Entry[T]]:
        """Set or drop the entry of a loop; returns those that are to be closed now."""
        with self._lock:
            ended = [old for old in self._entries.values() if old.is_stale()]
            # An entry that is found under this loop's id may be of a dead loop at that address.
            self._entries = {
                key: old
                for key, old in self._entries.items()
                if key != id(loop) and old not in ended
            }
            if entry is not None:
                self._entries[id(loop)] = entry
        return ended

    def _forget(self, entry: _Entry[T]) -> None:
        with self._lock:
            self._entries = {key: old for key, old in self._entries.items() if old is not entry}

    def _after_fork(self) -> None:
        _inherited.append((self._entries, self._closing, list(_alive.values())))
        _alive.clear()
        self._lock = threading.Lock()  # may be held by a thread that does not exist here
        self._entries, self._closing = {}, set()


def running_loop(remedy: str) -> asyncio.AbstractEventLoop:
    """Return the loop that runs this code; the error where none does ends with a remedy."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(f"no running event loop{remedy}") from None


async def _close_quietly(entry: _Entry[T]) -> None:
    try:
        await entry.lifetime.aclose()
    except Exception as error:  # noqa: BLE001 - transports of a closed loop may well raise
        _logger.debug("closing a value of a closed event loop failed: %s", shown(error))


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
        self._locks: LoopLocal[asyncio.Lock] = LoopLocal(asyncio.Lock, _leave)

    def get(self) -> asyncio.Lock:
        """Return the lock of the running loop.

        Raises:
            RuntimeError: Outside of a running event loop.
        """
        return self._locks.get()


async def _leave(lock: asyncio.Lock) -> None:
    """A lock needs no closing."""
