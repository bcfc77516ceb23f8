"""Counts and durations of tasks: a few additions per task, constant memory."""

from collections import defaultdict
from dataclasses import dataclass
from math import floor, log2

from ._outcomes import TaskStatus

__all__ = ["DurationHistogram", "RuntimeStats", "StatsRecorder"]

_STEPS = 16  # per doubling: a value is off by at most 2.2 percent, the 32nd root of 2


class DurationHistogram:
    """Quantiles of a stream of durations, without keeping the durations.

    Buckets are 1/16 of a doubling wide, so any quantile is right within 2.2 percent whatever the
    scale, and two histograms add up exactly. Memory depends on the range, not on the count.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)

    def add(self, seconds: float) -> None:
        """Count one duration; zero and less count as a nanosecond."""
        self._counts[floor(log2(max(1e-09, seconds)) * _STEPS)] += 1

    def merge(self, other: "DurationHistogram") -> None:
        """Add another histogram's counts to this one's."""
        for bucket, count in other._counts.items():
            self._counts[bucket] += count

    def quantile(self, fraction: float) -> float | None:
        """Return the duration that this fraction of all stays at or below; `None` if empty."""
        rank = fraction * sum(self._counts.values())
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= rank:
                return float(2.0 ** ((bucket + 0.5) / _STEPS))
        return None


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


class StatsRecorder:
    """The mutable counters behind `RuntimeStats`."""

    __slots__ = (
        "cancelled",
        "durations",
        "failed",
        "retries",
        "started",
        "succeeded",
        "timed_out",
        "unresponsive",
    )

    def __init__(self) -> None:
        self.started: int = 0
        self.succeeded: int = 0
        self.failed: int = 0
        self.timed_out: int = 0
        self.cancelled: int = 0
        self.retries: int = 0
        self.durations: DurationHistogram = DurationHistogram()
        self.unresponsive: list[str] = []

    def ended(self, status: TaskStatus, seconds: float) -> None:
        """Count the end of a task."""
        if status is TaskStatus.SUCCEEDED:
            self.succeeded += 1
        elif status is TaskStatus.FAILED:
            self.failed += 1
        elif status is TaskStatus.TIMED_OUT:
            self.timed_out += 1
        else:
            self.cancelled += 1
        self.durations.add(seconds)

    def left_behind(self, task_id: str) -> None:
        """Keep the id of a task that suppresses cancellation; the list is bounded."""
        if len(self.unresponsive) < 100:
            self.unresponsive.append(task_id)

    def merge(self, other: "StatsRecorder") -> None:
        """Add another recorder's counts to this one's."""
        self.started += other.started
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.timed_out += other.timed_out
        self.cancelled += other.cancelled
        self.retries += other.retries
        self.durations.merge(other.durations)
        for task_id in other.unresponsive:
            self.left_behind(task_id)

    def snapshot(self) -> RuntimeStats:
        """Return the counts of this moment."""
        done = self.succeeded + self.failed + self.timed_out + self.cancelled
        return RuntimeStats(
            started=self.started,
            succeeded=self.succeeded,
            failed=self.failed,
            timed_out=self.timed_out,
            cancelled=self.cancelled,
            retries=self.retries,
            in_flight=self.started - done,
            duration_p50=self.durations.quantile(0.5),
            duration_p99=self.durations.quantile(0.99),
            unresponsive=tuple(self.unresponsive),
        )
