"""What a claim makes of a record, in the form that the record keeps its fields; no I/O."""

from datetime import timedelta
from typing import Any, TypeVar

from infra_core.runtime import clock

from .._checks import require_number
from ._binding import RecordBinding, moment_of
from ._records import JobStatus, attempt_begun, attempt_ended

__all__ = ["check_claim", "check_lease", "claimed"]

RecordT = TypeVar("RecordT")

_CENTURY = 100 * 365.25 * 24 * 3600


def claimed(
    binding: RecordBinding[RecordT],
    record: RecordT,
    worker: str,
    lease_seconds: float,
    max_attempts: int | None,
) -> RecordT:
    """The record as running under a lease, or as failed where it was tried often enough."""
    now = clock.utc_now()
    attempts = getattr(record, "attempts", 0)
    lease = moment_of(getattr(record, "lease_until", None))
    if max_attempts is not None and attempts >= max_attempts:
        owner, last = getattr(record, "lease_owner", None), getattr(record, "error", None)
        why = f"; last error: {last}" if last else ""
        return binding.evolve(
            record,
            status=_like(record, JobStatus.FAILED),
            lease_owner=None,
            lease_until=None,
            **_known(
                record,
                updated_at=now,
                error=f"gave up after {attempts} starts (max_attempts); last worker: {owner}{why}",
            ),
            **attempt_ended(record, "lost", now=lease),
        )
    return binding.evolve(
        record,
        status=_like(record, JobStatus.RUNNING),
        attempts=attempts + 1,
        lease_owner=worker,
        lease_until=now + timedelta(seconds=lease_seconds),
        **_known(record, updated_at=now, error=None, not_before=None),
        **attempt_begun(record, attempts + 1, now=now, worker=worker, lease_until=lease),
    )


def _like(record: Any, status: JobStatus) -> Any:
    """Return a status in the form this record keeps: its own enum or text."""
    current = record.status
    kind = type(current)
    return status if kind is JobStatus else kind(status.value)


def _known(record: Any, **changes: Any) -> dict[str, Any]:
    """Return the changes to fields that this record has, times in the form it keeps them."""
    if isinstance(getattr(record, "updated_at", None), str):
        changes["updated_at"] = changes["updated_at"].isoformat()
    return {name: value for name, value in changes.items() if hasattr(record, name)}


def check_claim(worker: str, lease_seconds: float, max_attempts: int | None) -> None:
    if not isinstance(worker, str) or not worker:
        raise ValueError(f"worker={worker!r} is not a name: pass text that says who holds the job")
    check_lease(lease_seconds)
    if max_attempts is not None:
        allowed = "how often a job may be started, 1 or more, or None for no limit"
        require_number("max_attempts", max_attempts, allowed, least=1, whole=True)


def check_lease(lease_seconds: float) -> None:
    allowed = "the seconds that the worker may go on without renewing it, at most a century"
    require_number("lease_seconds", lease_seconds, allowed, above=0, most=_CENTURY)
