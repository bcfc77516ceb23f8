"""The synchronous operations, shared by the stores that differ in their backend only."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from ._drive import drive
from ._protocol import StatusFilter
from ._records import BatchSummary, UnreadableJob
from ._rows import Backend
from ._steps import JobSteps

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SyncJobStore"]

RecordT = TypeVar("RecordT")


class SyncJobStore(Generic[RecordT]):
    """`JobStore` over a backend; see the protocol for what each method does."""

    _steps: JobSteps[RecordT]

    def _backend(self) -> Backend:
        raise TypeError(f"{type(self).__name__} provides no backend")

    @property
    def unreadable(self) -> list[UnreadableJob]:
        """The jobs that listings and claims have left out, since they cannot be read."""
        return self._steps.unreadable

    def create(self, record: RecordT) -> RecordT:
        """Store a new record; `JobExistsError` when there is one of the same ids."""
        return drive(self._backend(), self._steps.create(record))

    def save(self, record: RecordT) -> RecordT:
        """Store a record in place of whatever is there; nothing of the old one stays."""
        return drive(self._backend(), self._steps.save(record))

    def save_many(self, records: Iterable[RecordT]) -> list[RecordT]:
        """Store many records, in as few transactions as the backend allows."""
        return drive(self._backend(), self._steps.save_many(records))

    def update(self, record: RecordT, *, expected: RecordT | None = None) -> RecordT:
        """Store a changed record; `JobConflictError` when it changed since it was read."""
        return drive(self._backend(), self._steps.update(record, expected))

    def update_many(self, records: Iterable[RecordT]) -> list[RecordT | None]:
        """Store changed records in few transactions; `None` for each that others changed."""
        return drive(self._backend(), self._steps.update_many(records))

    def delete_batch(self, batch_id: str) -> int:
        """Delete all jobs of a batch, and return how many there were."""
        return drive(self._backend(), self._steps.delete_batch(batch_id))

    def prune(
        self,
        *,
        older_than: timedelta | datetime,
        status: StatusFilter = None,
        batch_id: str | None = None,
    ) -> int:
        """Delete jobs that ended and have not changed for so long; return how many."""
        return drive(self._backend(), self._steps.prune(older_than, status, batch_id))

    def fetch(self, batch_id: str, job_id: str) -> RecordT | None:
        """Return one record, `None` when there is none."""
        return drive(self._backend(), self._steps.fetch(batch_id, job_id))

    def list_runs(
        self, batch_id: str, *, limit: int = 50, continuation_token: str | None = None
    ) -> tuple[list[RecordT], str | None]:
        """Return a page of a batch, newest first within the page, and the next page's token."""
        steps = self._steps.list_runs(batch_id, limit, continuation_token)
        return drive(self._backend(), steps)

    def iter_runs(
        self,
        batch_id: str | None,
        *,
        status: StatusFilter = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[RecordT]:
        """Iterate over a batch (`None`: all batches), by status and time, over all pages."""
        query = self._steps.query(batch_id, status, since, until)

        def pages() -> Iterator[RecordT]:
            token = None
            while True:
                records, token = drive(self._backend(), self._steps.page(query, token))
                yield from records
                if token is None:
                    return

        return pages()

    def count_by_status(self, batch_id: str) -> dict[str, int]:
        """Count the jobs of a batch by state; states without a job are left out."""
        return drive(self._backend(), self._steps.count_by_status(batch_id))

    def batches(self) -> list[BatchSummary]:
        """Return each batch with its counts and its first and last change, in order of ids."""
        return drive(self._backend(), self._steps.batches())

    def claim(
        self,
        batch_id: str,
        *,
        worker: str,
        lease_seconds: float,
        max_attempts: int | None = None,
    ) -> RecordT | None:
        """Take one job that is pending or whose lease has ended; `None` when there is none."""
        steps = self._steps.claim(batch_id, worker, lease_seconds, max_attempts)
        return drive(self._backend(), steps)

    def renew(self, record: RecordT, *, lease_seconds: float) -> RecordT:
        """Extend the lease of a claimed job; `JobConflictError` when another worker has it."""
        return drive(self._backend(), self._steps.renew(record, lease_seconds))

    def delete(self, batch_id: str, job_id: str, *, expected: RecordT | None = None) -> bool:
        """Delete a record (only as `expected`, if given); return whether there was one."""
        etag = None if expected is None else self._steps.version(expected)
        return drive(self._backend(), self._steps.delete(batch_id, job_id, etag))

    def close(self) -> None:
        """Release what the store holds. Closing twice is fine."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
