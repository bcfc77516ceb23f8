"""The interface of every job store."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from ._records import BatchSummary, StatusFilter

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AzureTableRecordProtocol", "JobStore", "RecordT"]

RecordT = TypeVar("RecordT")


class AzureTableRecordProtocol(Protocol):
    """A record that turns itself into properties and back; a dataclass needs neither method."""

    batch_id: str
    job_id: str
    updated_at: str | None

    def to_entity(self) -> Mapping[str, Any]:
        """Return the properties, keys included (`PartitionKey`, `RowKey`)."""

    @classmethod
    def from_entity(cls, entity: Mapping[str, Any]) -> Any:
        """Make a record of what `to_entity` has returned."""


@runtime_checkable
class JobStore(Protocol[RecordT]):
    """Where the states of jobs are kept. Every method may be called from any thread.

    Implemented by `AzureTableJobStore` and `SqliteJobStore`, which behave alike; one suite of
    checks runs against both.
    """

    def create(self, record: RecordT) -> RecordT:
        """Store a new record.

        One of a class with `to_entity` that is stored already with the very same content counts as
        stored: its row holds no token of who created it, which readers of 0.7 would trip over.

        Raises:
            JobExistsError: There is one of the same batch and job id.
            JobRecordError: It cannot be stored as it is; the message names the field.
        """

    def save(self, record: RecordT) -> RecordT:
        """Store a record in place of whatever is there; nothing of the old one stays.

        Raises:
            JobRecordError: It cannot be stored as it is; the message names the field.
        """

    def save_many(self, records: Iterable[RecordT]) -> list[RecordT]:
        """Store many records at once, in as few transactions as the backend allows.

        All are checked before the first is sent. Each transaction is stored whole or not at all;
        an error leaves the transactions before it stored.
        """

    def update(self, record: RecordT, *, expected: RecordT | None = None) -> RecordT:
        """Store a changed record, unless another worker has changed it since it was read.

        Args:
            record: The record to store.
            expected: The record as it was read, when `record` does not know its version itself.

        Raises:
            JobConflictError: It was changed or deleted since; `.ours` and `.theirs` are both
                versions.
        """

    def update_many(self, records: Iterable[RecordT]) -> list[RecordT | None]:
        """Store changed records in few transactions, unless others have changed them meanwhile.

        Returns:
            The stored records in the order given, `None` for each that another worker changed
            or deleted since it was read; that one is left as it is, and the others are stored.
        """

    def delete_batch(self, batch_id: str) -> int:
        """Delete all jobs of a batch, unreadable ones as well, and return how many there were.

        The space is given back to the disk where the store is a file.
        """

    def prune(
        self,
        *,
        older_than: timedelta | datetime,
        status: StatusFilter = None,
        batch_id: str | None = None,
    ) -> int:
        """Delete jobs that have not changed for a time, and return how many there were.

        A job that is changed meanwhile stays, and so does one that cannot be read.

        Args:
            older_than: Last changed before this time, or longer ago than this.
            status: Only jobs in this state, or in any of these; those that ended by default.
            batch_id: Only jobs of this batch.
        """

    def fetch(self, batch_id: str, job_id: str) -> RecordT | None:
        """Return one record, `None` when there is none."""

    def list_runs(
        self, batch_id: str, *, limit: int = 50, continuation_token: str | None = None
    ) -> tuple[list[RecordT], str | None]:
        """Return a page of a batch, its records sorted by `updated_at`, newest first.

        Pages follow each other in the order of job ids; only within a page are they sorted.

        Returns:
            The records and the token of the next page, `None` after the last.
        """

    def iter_runs(
        self,
        batch_id: str | None,
        *,
        status: StatusFilter = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[RecordT]:
        """Iterate over all records of a batch, page by page, in the order of job ids.

        Args:
            batch_id: The batch; `None` for all batches.
            status: Only records in this state, or in any of these.
            since: Only records updated at or after this time.
            until: Only records updated before this time.
        """

    def count_by_status(self, batch_id: str) -> dict[str, int]:
        """Count the jobs of a batch by state, where the jobs are; states without one are left out.

        Jobs that cannot be read are counted under the state that is stored.
        """

    def batches(self) -> list[BatchSummary]:
        """Return each batch with its counts and its first and last change, in order of ids."""

    def claim(
        self,
        batch_id: str,
        *,
        worker: str,
        lease_seconds: float,
        max_attempts: int | None = None,
    ) -> RecordT | None:
        """Take one job that is pending, or running under a lease that has ended.

        The job comes back as running, one start more, held by `worker` until the lease ends.
        No two workers get the same job. A worker whose lease was taken over learns it from the
        `JobConflictError` of its next `update` or `renew`.

        Args:
            batch_id: The batch.
            worker: Name of the worker.
            lease_seconds: How long it may take until another worker may take the job.
            max_attempts: Jobs that were started this often become failed instead, with the
                last worker and error in `error`.

        Returns:
            The job, `None` when there is none to take.
        """

    def renew(self, record: RecordT, *, lease_seconds: float) -> RecordT:
        """Extend the lease of a claimed job, counted from now.

        Raises:
            JobConflictError: The lease ended and another worker took the job.
        """

    def delete(self, batch_id: str, job_id: str, *, expected: RecordT | None = None) -> bool:
        """Delete a record and return whether there was one.

        Args:
            batch_id: Its batch.
            job_id: Its job id.
            expected: Delete it only as long as it is what was read.

        Raises:
            JobConflictError: It was changed since `expected` was read.
        """

    def close(self) -> None:
        """Release what the store holds. Closing twice is fine."""

    def __enter__(self) -> "Self":
        """Return the store; it is closed when the block ends."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None: ...
