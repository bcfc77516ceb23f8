"""What became of one task."""

from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

__all__ = ["TaskOutcome", "TaskStatus"]

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
