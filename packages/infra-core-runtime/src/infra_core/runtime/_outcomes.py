"""What became of one task, and the outcomes that wait to be read."""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

__all__ = ["ResultBuffer", "TaskOutcome", "TaskStatus"]

T_co = TypeVar("T_co", covariant=True)


class TaskStatus(str, Enum):
    """How a task ended; each member equals its name in lower case."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class TaskOutcome(Generic[T_co]):
    """One task's end, success or not.

    Attributes:
        id: The id it was given with.
        status: How it ended.
        value: What it returned; `None` unless it succeeded.
        error: What it raised; a `TaskTimeoutError` or `CancelledError` for those ends.
        duration: Seconds from its start to its end, retries and their waits included.
        attempts: How often it was tried; 0 when it was cancelled before its first step.
    """

    id: str
    status: TaskStatus
    value: T_co | None
    error: BaseException | None
    duration: float
    attempts: int = 1

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status is TaskStatus.SUCCEEDED

    def result(self) -> T_co:
        """Return the value, or raise the error that took its place.

        Raises:
            BaseException: The task's own error, `TaskTimeoutError` or `asyncio.CancelledError`.
        """
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None is a value when there is no error


class ResultBuffer:
    """Puts outcomes in order, if they are to be, for their reader.

    Apart from the stream, so that a stream that is not read any longer can be collected while
    its run still holds this.
    """

    def __init__(self, *, ordered: bool, failures: bool) -> None:
        self.failures: bool = failures  # hand out those as well, in the place of raising the first
        self._ordered = ordered
        self._ready: asyncio.Queue[TaskOutcome[Any] | None] = asyncio.Queue()
        self._early: dict[int, TaskOutcome[Any]] = {}
        self._next = 0

    def put(self, index: int, outcome: TaskOutcome[Any]) -> None:
        """Take an outcome from the run."""
        if not self.failures and outcome.error is not None:
            return
        if not self._ordered:
            self._ready.put_nowait(outcome)
            return
        self._early[index] = outcome
        while (following := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._ready.put_nowait(following)

    def end(self) -> None:
        """Note that no outcome will come any more."""
        self._ready.put_nowait(None)

    async def get(self) -> TaskOutcome[Any] | None:
        """Wait for the next outcome; `None` at the end."""
        outcome = await self._ready.get()
        if outcome is None:
            self.end()  # for another reader
        return outcome
