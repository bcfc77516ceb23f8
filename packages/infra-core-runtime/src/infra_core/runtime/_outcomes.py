"""What became of tasks: outcomes, those that wait to be read, and statistics."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from math import floor, log2
from typing import Any, Generic, TypeVar

__all__ = ["ResultBuffer", "RuntimeStats", "StatsRecorder", "TaskOutcome", "TaskStatus"]

T_co = TypeVar("T_co", covariant=True)

# Durations are counted by sixteenths of a doubling: a quantile is off by at most 2.2 percent
# (the 32nd root of 2), whatever the scale, and memory depends on the range alone.
_STEPS = 16
_MOST_IDS = 100


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


@dataclass(frozen=True, slots=True)
class RuntimeStats:
    """A snapshot of what a runtime has done and is doing.

    Attributes:
        started: Tasks taken from their source.
        succeeded: Tasks that returned.
        failed: Tasks that raised.
        timed_out: Tasks that `task_timeout` ended.
        cancelled: Tasks that were cancelled.
        retries: Attempts after a task's first, over all tasks.
        in_flight: Tasks under way now.
        duration_p50: Seconds that half of the finished tasks took at most, within 2.2 percent;
            `None` before the first has finished.
        duration_p99: The same for 99 of 100.
        unresponsive: Ids of tasks left behind because they suppress cancellation (the first 100).
    """

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    cancelled: int = 0
    retries: int = 0
    in_flight: int = 0
    duration_p50: float | None = None
    duration_p99: float | None = None
    unresponsive: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """Tasks that have ended, in whatever way."""
        return self.succeeded + self.failed + self.timed_out + self.cancelled


@dataclass(slots=True)
class StatsRecorder:
    """The counters behind `RuntimeStats`; those of several runs add up exactly."""

    started: int = 0
    retries: int = 0
    unresponsive: list[str] = field(default_factory=list)
    _ends: Counter[TaskStatus] = field(default_factory=Counter)
    _durations: Counter[int] = field(default_factory=Counter)

    def ended(self, status: TaskStatus, seconds: float) -> None:
        """Count the end of a task; durations of zero and less count as a nanosecond."""
        self._ends[status] += 1
        self._durations[floor(log2(max(1e-09, seconds)) * _STEPS)] += 1

    def left_behind(self, *task_ids: str) -> None:
        """Keep the ids of tasks that suppress cancellation."""
        self.unresponsive += task_ids[: _MOST_IDS - len(self.unresponsive)]

    def merge(self, other: "StatsRecorder") -> None:
        """Add another recorder's counts to this one's."""
        self.started += other.started
        self.retries += other.retries
        self.left_behind(*other.unresponsive)
        self._ends.update(other._ends)
        self._durations.update(other._durations)

    def quantile(self, fraction: float) -> float | None:
        """Return the duration that this fraction of all stays at or below; `None` if empty."""
        rank = fraction * sum(self._durations.values())
        seen = 0
        for bucket, count in sorted(self._durations.items()):
            seen += count
            if seen >= rank:
                return float(2.0 ** ((bucket + 0.5) / _STEPS))
        return None

    def snapshot(self) -> RuntimeStats:
        """Return the counts of this moment."""
        return RuntimeStats(
            started=self.started,
            retries=self.retries,
            in_flight=self.started - sum(self._ends.values()),
            duration_p50=self.quantile(0.5),
            duration_p99=self.quantile(0.99),
            unresponsive=tuple(self.unresponsive),
            **{status.value: count for status, count in self._ends.items()},
        )
