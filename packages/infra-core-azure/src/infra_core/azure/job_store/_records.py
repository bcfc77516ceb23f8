"""The job record and the states a job goes through.

::

    pending ──> running ──> completed
       ^           │ ├────> failed ─────┐
       │           │ └────> timed_out ──┤
       └── requeue ┴────────────────────┘

A job that ended without success may also go straight back to running. A completed job changes
only when it is explicitly reopened: `requeue(force=True)`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar

from infra_core.runtime import clock, printable, redact_secrets

from ..exceptions import JobRecordError, JobStateError
from ._entity import to_utc
from ._types import changed

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BatchSummary",
    "JobAttempt",
    "JobRecord",
    "JobStatus",
    "RecordT",
    "StatusFilter",
    "UnreadableJob",
    "attempt_begun",
    "attempt_ended",
]


class JobStatus(str, Enum):
    """State of a job. Its value is what is stored."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"

    def __str__(self) -> str:
        return self.value

    @property
    def is_terminal(self) -> bool:
        """Whether the job is over: completed, failed or timed out."""
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)

    @property
    def is_failure(self) -> bool:
        """Whether the job ended without success: failed or timed out."""
        return self in (JobStatus.FAILED, JobStatus.TIMED_OUT)

    def can_become(self, wanted: "JobStatus") -> bool:
        """Whether a job in this state may go to `wanted`."""
        return wanted in _NEXT[self]


StatusFilter = JobStatus | str | Iterable[JobStatus | str] | None

ABANDONED_AFTER = timedelta(days=1)
_MAX_CAUSE = 8_000  # characters of an error that a record keeps
_MAX_HISTORY = 10  # attempts that a record keeps; the oldest make room
_MAX_ERROR = 500  # characters of an error kept for each; the last one stands whole in the record


_NEXT: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.TIMED_OUT}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.TIMED_OUT, JobStatus.PENDING}
    ),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.PENDING, JobStatus.RUNNING}),
    JobStatus.TIMED_OUT: frozenset({JobStatus.PENDING, JobStatus.RUNNING}),
}


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


@dataclass(frozen=True)
class UnreadableJob:
    """A stored job that cannot be read, and is left out of listings and claims.

    Attributes:
        batch_id: Its batch.
        job_id: Its id.
        reason: Why: a value that its field's type does not know, a damaged row.
    """

    batch_id: str
    job_id: str
    reason: str


@dataclass(frozen=True)
class BatchSummary:
    """A batch of a store at a glance.

    Attributes:
        batch_id: The batch.
        counts: How many of its jobs are in which state; states without a job are left out.
        first_change: The oldest `updated_at` of its jobs, UTC; `None` when none says.
        last_change: The newest.
    """

    batch_id: str
    counts: dict[str, int]
    first_change: datetime | None = None
    last_change: datetime | None = None


@dataclass
class JobRecord:
    """One job of a batch: what state it is in, how often it was tried, what it is about.

    The verbs (`start`, `complete`, `fail`, `time_out`, `requeue`) return a changed copy and leave
    the record as it was; hand the copy to `JobStore.update` or `save`. A record of your own may
    inherit from this one and add fields.

    Attributes:
        batch_id: The batch the job belongs to; any text.
        job_id: The job, unique in its batch; any text.
        status: State of the job.
        attempts: How often the job was started, the first time included; `infra-core jobs` calls it
            `starts`.
        created_at: When the record was made, UTC.
        updated_at: When its state last changed, UTC.
        error: Why the last attempt failed, `None` when it did not.
        payload: What the caller wants to keep: JSON types.
        lease_owner: Worker that holds the job, set by `claim`.
        lease_until: When that worker's hold expires, UTC.
        etag: Version that was read or written last; set by the store, compared by `update`.
        not_before: When a pending job may be claimed at the earliest, UTC; `None` at once.
        attempt_history: The last ten attempts, oldest first; kept by the verbs and by `claim`.

    Example:
        >>> job = JobRecord("batch-1", "job-1").start()
        >>> job.status, job.attempts
        (<JobStatus.RUNNING: 'running'>, 1)
        >>> job.complete().status.is_terminal
        True
    """

    batch_id: str
    job_id: str
    status: JobStatus = JobStatus.PENDING
    attempts: int = 0
    created_at: datetime = field(default_factory=clock.utc_now)
    updated_at: datetime = field(default_factory=clock.utc_now)
    error: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    lease_owner: str | None = None
    lease_until: datetime | None = None
    etag: str | None = field(default=None, compare=False, repr=False)
    not_before: datetime | None = None
    attempt_history: list[JobAttempt] = field(default_factory=list, kw_only=True)

    def start(self, *, worker: str | None = None) -> "Self":
        """Return the job as running, with one more attempt and no error.

        It has no lease: no other worker claims it, and after a day without a change it counts as
        abandoned (`is_abandoned`). `claim` starts a job under a lease.

        Args:
            worker: Who works at it, for the history of attempts.

        Raises:
            JobStateError: The job is running or completed.
        """
        number = self.attempts + 1
        begun = attempt_begun(self, number, now=clock.utc_now(), worker=worker)
        return self._become(JobStatus.RUNNING, attempts=number, error=None, **begun)

    def complete(self, /, **payload: Any) -> "Self":
        """Return the job as completed; keyword arguments are merged into its payload.

        Raises:
            JobStateError: The job is not running.
        """
        return self._become(JobStatus.COMPLETED, error=None, payload={**self.payload, **payload})

    def fail(self, error: str | BaseException) -> "Self":
        """Return the job as failed, with the cause.

        Args:
            error: The cause; an exception is kept as `Type: message`.

        Raises:
            JobStateError: The job has ended already.
        """
        return self._become(JobStatus.FAILED, error=_cause(error))

    def time_out(self, error: str | BaseException | None = None) -> "Self":
        """Return the job as timed out, with the cause if one is known.

        Raises:
            JobStateError: The job has ended already.
        """
        return self._become(JobStatus.TIMED_OUT, error=None if error is None else _cause(error))

    def requeue(self, *, force: bool = False, not_before: datetime | None = None) -> "Self":
        """Return the job as pending again, its attempts kept, its error and lease cleared.

        Args:
            force: Also reopen a completed job.
            not_before: No claim takes it before this time.

        Raises:
            JobStateError: The job is completed and `force` is not given.
        """
        return self._become(JobStatus.PENDING, error=None, force=force, not_before=not_before)

    @property
    def is_terminal(self) -> bool:
        """Whether the job is over."""
        return self.status.is_terminal

    def is_abandoned(self, *, after: timedelta = ABANDONED_AFTER) -> bool:
        """Whether no worker seems to be at work on a running job any more.

        Its lease ended so long ago, or it has none and has not changed for so long. `jobs watch`
        does not wait for such a job, and `jobs retry` puts it back.

        Args:
            after: How long; a day by default.
        """
        since = self.updated_at if self.lease_until is None else self.lease_until
        running = JobStatus(self.status) is JobStatus.RUNNING
        return running and clock.utc_now() - to_utc(since) >= after

    def _become(self, wanted: JobStatus, *, force: bool = False, **changes: Any) -> "Self":
        try:
            current = JobStatus(self.status)
        except ValueError:
            raise JobRecordError(
                f"job {self.job_id!r} of batch {self.batch_id!r} has the status {self.status!r}, "
                f"which is none of: {', '.join(JobStatus)}; pass a JobStatus",
                field="status",
            ) from None
        if not (force or current.can_become(wanted) or current is wanted is JobStatus.PENDING):
            allowed = ", ".join(sorted(status.value for status in _NEXT[current]))
            raise JobStateError(
                f"job {self.job_id!r} of batch {self.batch_id!r} is {current.value} and cannot "
                f"become {wanted.value}; from here it may become: {allowed or 'nothing'}"
                + ("" if allowed else ", unless reopened with requeue(force=True)"),
                job_id=self.job_id,
                current=current,
                wanted=wanted,
            )
        if wanted is not JobStatus.RUNNING:
            changes.update(lease_owner=None, lease_until=None)
        if wanted is not JobStatus.PENDING:
            changes["not_before"] = None
        now = clock.utc_now()
        if wanted is not JobStatus.RUNNING:
            outcome = "requeued" if wanted is JobStatus.PENDING else wanted.value
            changes |= attempt_ended(self, outcome, now=now, error=changes.get("error"))
        return changed(self, status=wanted, updated_at=now, **changes)


RecordT = TypeVar("RecordT", default=JobRecord)
"""The records of a store: `JobRecord` where none are named (PEP 696)."""


def _cause(error: object) -> str:
    """A cause as it is stored: without secrets and control characters, and not too long."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a cause must never be a failure of its own
        text = "its text cannot be printed"
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    beginning = text[: 2 * _MAX_CAUSE]
    clean = printable(redact_secrets(beginning), keep_lines=True)
    if len(clean) <= _MAX_CAUSE and len(text) <= len(beginning):
        return clean
    return f"{clean[:_MAX_CAUSE]}... ({len(text)} characters)"


def attempt_begun(
    record: Any,
    number: int,
    *,
    now: datetime,
    worker: str | None = None,
    lease_until: datetime | None = None,
) -> dict[str, Any]:
    """Return the change of a record's history by one more attempt; an open one before it was lost.

    It is empty where the record keeps none of this kind: a field by that name may be its own.
    """
    ended = attempt_ended(record, "lost", now=lease_until)
    begun = JobAttempt(number, now, worker)
    return {name: [*history, begun][-_MAX_HISTORY:] for name, history in ended.items()}


def attempt_ended(
    record: Any, outcome: str, *, now: datetime | None = None, error: str | None = None
) -> dict[str, Any]:
    """Return the change of a record's history where its last attempt, if it is open, ended so."""
    history = getattr(record, "attempt_history", None)
    if not isinstance(history, list) or not all(isinstance(each, JobAttempt) for each in history):
        return {}
    if not history or history[-1].outcome != "running":
        return {"attempt_history": history[:]}
    if error is not None and len(error) > _MAX_ERROR:
        error = f"{error[: _MAX_ERROR - 3]}..."
    ended = replace(history[-1], ended_at=now, outcome=outcome, error=error)
    return {"attempt_history": [*history[:-1], ended]}
