"""Waiting for an event of any kind, without blocking the loop."""

import asyncio
from contextlib import suppress
from typing import Protocol

__all__ = ["CancelEvent", "until_set"]

_POLL = 0.05


class CancelEvent(Protocol):
    """What can cancel a runtime: `asyncio.Event`, `threading.Event`, anything with `is_set()`."""

    def is_set(self) -> bool:
        """Say whether to cancel."""


async def until_set(event: CancelEvent) -> None:
    """Return when the event is set.

    An `asyncio.Event` is noticed at once. One that belongs to another loop, as the first loop
    that waits for it is its own, and events of other kinds are looked at every 50 ms.
    """
    if isinstance(event, asyncio.Event):
        with suppress(RuntimeError):  # it belongs to another loop
            await event.wait()
            return  # it may have been cleared since
    while not event.is_set():  # noqa: ASYNC110 - it has no other way
        await asyncio.sleep(_POLL)
