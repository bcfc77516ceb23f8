"""Outcomes between the run that makes them and the stream that hands them out."""

import asyncio
from collections import deque
from typing import Any

from ._outcomes import TaskOutcome

__all__ = ["ResultBuffer"]


class ResultBuffer:
    """Puts outcomes in order, if they are to be, and wakes their reader.

    Apart from the stream, so that a stream that is not read any longer can be collected while
    its run still holds this.

    Attributes:
        failures: Hand out failures as well, in the place of raising the first.
        news: Set when there is an outcome to read, and at the end of the run.
    """

    def __init__(self, *, ordered: bool, failures: bool) -> None:
        self.failures: bool = failures
        self.news: asyncio.Event = asyncio.Event()
        self._ordered = ordered
        self._ready: deque[TaskOutcome[Any]] = deque()
        self._early: dict[int, TaskOutcome[Any]] = {}
        self._next = 0

    def put(self, index: int, outcome: TaskOutcome[Any]) -> None:
        """Take an outcome from the run."""
        if not self.failures and outcome.error is not None:
            return
        if self._ordered:
            self._early[index] = outcome
            while (following := self._early.pop(self._next, None)) is not None:
                self._next += 1
                self._ready.append(following)
        else:
            self._ready.append(outcome)
        if self._ready:
            self.news.set()

    def get(self) -> TaskOutcome[Any] | None:
        """Return the next outcome, if it is there."""
        return self._ready.popleft() if self._ready else None
