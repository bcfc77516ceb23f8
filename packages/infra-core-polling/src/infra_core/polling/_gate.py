"""How many checks of many polls are made at once."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from infra_core.runtime import clock

from ._run import PollRun
from ._schedule import LAST_CHECK_GRACE

__all__ = ["Gate"]


class Gate:
    """Lets so many checks in at once; those of polls under way before the first ones of new polls.

    A new poll's time begins when it is let in, unless it waits for an initial delay first: what
    has not begun cannot be late.
    """

    def __init__(self, size: int, *, closed: Callable[[], bool]) -> None:
        self.closed = closed
        self._free = size
        self._again: deque[asyncio.Future[None]] = deque()
        self._first: deque[asyncio.Future[None]] = deque()

    async def enter(self, run: PollRun[Any]) -> None:
        """Wait for a place.

        Raises:
            PollingCancelledError: The gate is closed.
            PollingTimeoutError: The deadline has passed meanwhile.
        """
        if self.closed():
            raise run.cancelled()
        if self._free:
            self._free -= 1
        else:
            queue = self._again if run.attempts else self._first
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave()
                raise
        now = clock.monotonic()
        if run.attempts == 0 and not run.rules.schedule.initial_delay:
            run.began = now
        elif now - run.began > run.rules.config.timeout + LAST_CHECK_GRACE:
            self.leave()
            raise run.timed_out(
                "there are more checks than can be made; raise concurrency or poll_interval"
            )

    def leave(self) -> None:
        """Give the place to the next one."""
        for queue in (self._again, self._first):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
