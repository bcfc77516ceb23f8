"""How many requests at once and per second, in all and per host."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from infra_core.runtime import RateLimit, clock, is_number

from ._errors import InvalidRequestError

__all__ = ["AsyncHostGate", "HostGate", "check_limits"]


def check_limits(max_per_host: int | None, max_per_second_per_host: float | None) -> None:
    """Refuse limits that would let nothing through.

    Raises:
        InvalidRequestError: Below one request at once, or not above zero per second.
    """
    if max_per_host is not None and not (isinstance(max_per_host, int) and max_per_host >= 1):
        raise InvalidRequestError(
            f"max_per_host={max_per_host!r} lets no request through: pass a whole number, 1 or "
            "more, or None"
        )
    rate = max_per_second_per_host
    if rate is not None and not (is_number(rate) and rate > 0):
        raise InvalidRequestError(
            f"max_per_second_per_host={rate!r} lets no request through: pass a number above 0, or "
            "None"
        )


class AsyncHostGate:
    """The limits of one client on one event loop."""

    def __init__(self, max_per_host: int | None, rate: RateLimit | None) -> None:
        self._size = max_per_host
        self._rate = rate
        self._slots: dict[object, tuple[asyncio.Semaphore, list[int]]] = {}

    @asynccontextmanager
    async def slot(self, host: object) -> AsyncIterator[None]:
        """Wait for the host's turn and hold one of its slots during the block."""
        if self._size is None:
            await self._wait_turn(host)
            yield
            return
        semaphore, users = self._slots.setdefault(host, (asyncio.Semaphore(self._size), [0]))
        users[0] += 1
        try:
            async with semaphore:
                await self._wait_turn(host)
                yield
        finally:
            users[0] -= 1
            if not users[0]:
                self._slots.pop(host, None)

    async def _wait_turn(self, host: object) -> None:
        if self._rate is not None:
            wait = self._rate.reserve(clock.monotonic(), host)
            if wait > 0:
                await clock.sleep_async(wait)


class HostGate:
    """The limits of one client across threads."""

    def __init__(self, max_per_host: int | None, rate: RateLimit | None) -> None:
        self._size = max_per_host
        self._rate = rate
        self._lock = threading.Lock()
        self._slots: dict[object, tuple[threading.Semaphore, list[int]]] = {}

    @contextmanager
    def slot(self, host: object) -> Iterator[None]:
        """Wait for the host's turn and hold one of its slots during the block."""
        if self._size is None:
            self._wait_turn(host)
            yield
            return
        with self._lock:
            semaphore, users = self._slots.setdefault(host, (threading.Semaphore(self._size), [0]))
            users[0] += 1
        try:
            with semaphore:
                self._wait_turn(host)
                yield
        finally:
            with self._lock:
                users[0] -= 1
                if not users[0]:
                    self._slots.pop(host, None)

    def _wait_turn(self, host: object) -> None:
        if self._rate is not None:
            clock.sleep(self._rate.reserve(clock.monotonic(), host))
