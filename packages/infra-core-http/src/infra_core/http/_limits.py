"""How many requests at once and per second, in all and per host."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar

from infra_core.runtime import RateLimit, clock, is_number

from ._errors import InvalidRequestError

__all__ = ["AsyncHostGate", "Gate", "rate_of"]


def rate_of(max_per_host: int | None, max_per_second_per_host: float | None) -> RateLimit | None:
    """Return the rate of a client, and refuse limits that would let nothing through."""
    if max_per_host is not None and not (isinstance(max_per_host, int) and max_per_host >= 1):
        raise InvalidRequestError(
            f"max_per_host={max_per_host!r} lets no request through: pass a whole number, 1 or "
            "more, or None"
        )
    rate = max_per_second_per_host
    if rate is None:
        return None
    if not (is_number(rate) and rate > 0):
        raise InvalidRequestError(
            f"max_per_second_per_host={rate!r} lets no request through: pass a number above 0, or "
            "None"
        )
    return RateLimit(rate, catch_up=0.0)


class Gate:
    """The limits of one client, and how many requests of each host are under way."""

    _semaphore: ClassVar[type[asyncio.Semaphore] | type[threading.Semaphore]]

    def __init__(self, max_per_host: int | None, rate: RateLimit | None) -> None:
        self._size = max_per_host or sys.maxsize
        self._rate = rate
        self._lock = threading.Lock()
        self._slots: dict[object, tuple[Any, list[int]]] = {}

    @contextmanager
    def semaphore_of(self, host: object) -> Iterator[Any]:
        """Give out the semaphore of a host, which is forgotten after its last user."""
        with self._lock:
            semaphore, users = self._slots.setdefault(host, (self._semaphore(self._size), [0]))
            users[0] += 1
        try:
            yield semaphore
        finally:
            with self._lock:
                users[0] -= 1
                if not users[0]:
                    self._slots.pop(host, None)

    def reserve(self, host: object) -> float:
        """Claim the next start at a host, and return the seconds until it is due."""
        return 0.0 if self._rate is None else self._rate.reserve(clock.monotonic(), host)


class AsyncHostGate(Gate):
    """The limits of one client on one event loop."""

    _semaphore = asyncio.Semaphore

    @asynccontextmanager
    async def slot(self, host: object) -> AsyncIterator[None]:
        """Wait for the host's turn and hold one of its slots during the block."""
        with self.semaphore_of(host) as semaphore:
            async with semaphore:
                if (wait := self.reserve(host)) > 0:
                    await clock.sleep_async(wait)
                yield
