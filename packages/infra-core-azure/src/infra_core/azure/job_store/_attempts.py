"""The short history of attempts that a job record keeps: pure functions on lists."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

__all__ = ["MAX_HISTORY", "JobAttempt", "attempt_begun", "attempt_ended", "history_of"]

MAX_HISTORY = 10  # attempts that a record keeps; the oldest make room
_MAX_ERROR = 500  # characters of an error kept for each; the last one stands whole in the record


@dataclass(frozen=True)
class JobAttempt:
    """One attempt at a job.

    Attributes:
        number: Its number, counted from 1: what `attempts` was while it ran.
        started_at: When it was started, UTC.
        worker: Who claimed the job; `None` after `start()`, which names no worker.
        ended_at: When it ended, UTC; of a lost one, when its lease ended.
        outcome: `running`, `completed`, `failed`, `timed_out`, `requeued` (put back before it
            ended), or `lost` (another worker took the job over, or no end was recorded).
        error: Why it failed, cut to 500 characters.
    """

    number: int = 0
    started_at: datetime | None = None
    worker: str | None = None
    ended_at: datetime | None = None
    outcome: str = "running"
    error: str | None = None

    def __str__(self) -> str:
        times = [f"{t:%Y-%m-%d %H:%M:%SZ}" for t in (self.started_at, self.ended_at) if t]
        by = f" by {self.worker}" if self.worker else ""
        return f"{' - '.join(times)} {self.outcome}{by}" + (f": {self.error}" if self.error else "")


def history_of(record: object) -> list[JobAttempt] | None:
    """Return the history of a record, `None` where its type keeps none of this kind."""
    history = getattr(record, "attempt_history", None)
    known = isinstance(history, list) and all(isinstance(each, JobAttempt) for each in history)
    return history if known else None


def attempt_begun(
    history: Iterable[JobAttempt],
    number: int,
    *,
    now: datetime,
    worker: str | None = None,
    lease_until: datetime | None = None,
) -> list[JobAttempt]:
    """Return a history with one attempt more; one before it that is still open was lost."""
    before = attempt_ended(history, "lost", now=lease_until)
    return [*before, JobAttempt(number, now, worker)][-MAX_HISTORY:]


def attempt_ended(
    history: Iterable[JobAttempt], outcome: str, *, now: Any = None, error: str | None = None
) -> list[JobAttempt]:
    """Return a history whose last attempt, if it is open, has ended so."""
    found: Sequence[JobAttempt] = list(history)
    if not found or found[-1].outcome != "running":
        return list(found)
    if error is not None and len(error) > _MAX_ERROR:
        error = f"{error[: _MAX_ERROR - 3]}..."
    return [*found[:-1], replace(found[-1], ended_at=now, outcome=outcome, error=error)]
