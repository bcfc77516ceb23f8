"""What a job store does, over a backend that keeps rows: the same for Azure Table and SQLite."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from infra_core.runtime import add_note, clock, printable, redact_secrets

from .._checks import require_number
from ..exceptions import AzureTableError, JobConflictError, JobExistsError, JobStateError
from ._binding import RecordBinding, moment_of, newest_first, same_write, status_of
from ._entity import EARLIEST, LATEST
from ._keys import escape_key, unescape_key
from ._leases import check_claim, check_lease, claimed
from ._protocol import JobStore
from ._records import BatchSummary, JobStatus, RecordT, StatusFilter, UnreadableJob
from ._rows import Backend, Query, Row, Tally, add_up, doing_of, query_of

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger("infra_core.azure.job_store")

__all__ = ["RowJobStore", "as_list"]

Planner = Callable[[Iterable[Row]], Sequence[Sequence[tuple[int, Row]]]]

_PAGE = 200
_CLAIM_PAGE = 50
_CLAIM_SCANS = 3
_LARGE_PAGE = 1_000
_ENDED = tuple(status for status in JobStatus if status.is_terminal)


class RowJobStore(JobStore[RecordT]):
    """The operations of a job store over a backend that keeps rows; see `JobStore` for each.

    `_backend` returns that backend, and `plan` splits rows into what it takes at once.
    """

    def _keep(self, record_type: type[RecordT], plan: Planner) -> None:
        self._binding = RecordBinding(record_type)
        self._plan = plan
        self._unreadable: dict[tuple[str, str], UnreadableJob] = {}

    def _backend(self) -> Backend:
        raise NotImplementedError

    def _do(self, name: str, *args: Any) -> Any:
        """Call a primitive of the backend, which explains its errors."""
        backend = self._backend()
        try:
            return backend.perform(name, *args)
        except Exception as error:
            doing = doing_of(name, *args)
            explained = backend.explain(error, doing)
            if explained is error:
                add_note(error, f"while {doing}")
                raise
            raise explained from error

    @property
    def unreadable(self) -> list[UnreadableJob]:
        """The jobs that listings and claims have met and could not read, until they could."""
        return list(self._unreadable.values())

    def _readable(self, rows: Sequence[Row], *, whole: bool = False) -> list[RecordT]:
        """Return the records of rows; set aside those that cannot be read, and log them once.

        Where the rows are the `whole` there is, it is an error that none can be read: the type of
        the store's records is probably another one.
        """
        records: list[RecordT] = []
        first: Exception | None = None
        for row in rows:
            try:
                records.append(self._binding.from_row(row))
            except Exception as error:  # noqa: BLE001 - a `from_entity` may raise anything
                first = first or error
                self._set_aside(row, error)
            else:
                if self._unreadable:
                    self._unreadable.pop(row.ids, None)
        if first is not None and whole and not records:
            raise first
        return records

    def _set_aside(self, row: Row, error: Exception) -> None:
        batch_id, job_id = row.ids
        reason = f"{type(error).__name__}: {error}"
        left_out = UnreadableJob(batch_id, job_id, printable(redact_secrets(reason))[:500])
        if self._unreadable.get((batch_id, job_id)) != left_out:
            self._unreadable[batch_id, job_id] = left_out
            _log.warning(
                "job %r of batch %r is left out: %s", job_id, batch_id, left_out.reason,
                extra={"batch_id": batch_id, "job_id": job_id},
            )  # fmt: skip

    def create(self, record: RecordT) -> RecordT:
        row = self._binding.to_row(record, new=True)
        etag = self._do("insert", row)
        if etag is None:
            stored = self._do("get", row.partition, row.key)
            if stored is None or not same_write(row, stored):
                raise JobExistsError(*row.ids)
            etag = stored.etag
        return self._binding.stored(record, row, etag)

    def save(self, record: RecordT) -> RecordT:
        (saved,) = self.save_many([record])
        return saved

    def save_many(self, records: Iterable[RecordT]) -> list[RecordT]:
        saved = as_list(records)
        rows = [self._binding.to_row(record) for record in saved]  # all checked before any is sent
        for batch in self._plan(rows):
            etags = self._do("upsert", [row for _, row in batch])
            for (position, row), etag in zip(batch, etags, strict=True):
                saved[position] = self._binding.stored(saved[position], row, etag)
        return saved

    def update(self, record: RecordT, *, expected: RecordT | None = None) -> RecordT:
        (updated,) = self._replace([record], expected)
        if updated is not None:
            return updated
        row = self._binding.to_row(record)
        stored = self._do("get", row.partition, row.key)
        happened = "was deleted" if stored is None else "was changed by another worker"
        batch_id, job_id = row.ids
        raise JobConflictError(
            f"job {job_id!r} of batch {batch_id!r} {happened} since it was read; fetch it "
            "again, apply your change to what is there now, and update again",
            ours=record,
            theirs=None if stored is None else self._theirs(stored),
        )

    def update_many(self, records: Iterable[RecordT]) -> list[RecordT | None]:
        return self._replace(as_list(records), None)

    def _replace(
        self, records: Sequence[RecordT], expected: RecordT | None
    ) -> list[RecordT | None]:
        """Store changed records; `None` stands for each that others have changed or deleted."""
        rows = [self._prepared(record, expected) for record in records]
        results: list[RecordT | None] = [None] * len(records)
        for batch in self._plan(rows):
            etags = self._do("replace", [row for _, row in batch])
            for (position, row), etag in zip(batch, etags, strict=True):
                if etag is not None:
                    results[position] = self._binding.stored(records[position], row, etag)
        return results

    def _prepared(self, record: RecordT, expected: RecordT | None) -> Row:
        """Return the row of a record, with the version to replace and the fields of others."""
        etag = self._binding.version(record if expected is None else expected)
        row = self._binding.to_row(record)
        if etag is None:
            batch_id, job_id = row.ids
            raise AzureTableError(
                f"update of job {job_id!r} of batch {batch_id!r} needs the version it is based on, "
                "and this record has none: fetch it first, pass the fetched record as expected=, "
                "or give the record type a field `etag: str | None = None`"
            )
        row.etag = etag
        if not self._binding.carry(row):
            stored = self._do("get", row.partition, row.key)
            if stored is not None and stored.etag == etag:
                self._binding.remember(stored, etag)
                self._binding.carry(row)
        return row

    def _theirs(self, stored: Row) -> RecordT | None:
        return next(iter(self._readable([stored])), None)

    def fetch(self, batch_id: str, job_id: str) -> RecordT | None:
        row = self._do("get", *_keys(batch_id, job_id))
        return None if row is None else self._binding.from_row(row)

    def delete(self, batch_id: str, job_id: str, *, expected: RecordT | None = None) -> bool:
        etag = None if expected is None else self._binding.version(expected)
        if expected is not None and etag is None:
            raise AzureTableError(
                "the record given as expected= does not know its version; pass the very object "
                "that fetch, create or save returned"
            )
        keys = _keys(batch_id, job_id)
        if self._do("delete", [Row(*keys, {}, etag)]):
            return True
        stored = None if etag is None else self._do("get", *keys)
        if stored is None:
            return False
        raise JobConflictError(
            f"job {job_id!r} of batch {batch_id!r} was changed by another worker since it was "
            "read and has not been deleted; fetch it again and decide again",
            theirs=self._theirs(stored),
        )

    def delete_batch(self, batch_id: str) -> int:
        return self._remove(Query(escape_key(batch_id, field="batch_id")))

    def prune(
        self,
        *,
        older_than: timedelta | datetime,
        status: StatusFilter = None,
        batch_id: str | None = None,
    ) -> int:
        if isinstance(older_than, timedelta):
            age = older_than
            try:
                older_than = clock.utc_now() - age
            except OverflowError:
                older_than = EARLIEST if age > timedelta() else LATEST
        elif not isinstance(older_than, datetime):
            raise TypeError(
                f"older_than={older_than!r:.80} is not a time: pass a timedelta or a datetime"
            )
        status = _ENDED if status is None else status
        return self._remove(query_of(self._binding.statuses, batch_id, status, None, older_than))

    def _remove(self, query: Query) -> int:
        everything = query == Query(query.partition)
        remote = self._binding.remote(query)
        judged, removed = remote == query, 0
        for page, _ in self._pages(replace(remote, keys_only=judged), _LARGE_PAGE):
            rows = page if judged else [row for row in page if self._matching([row], query)]
            if everything:  # whatever becomes of them meanwhile
                rows = [replace(row, etag=None) for row in rows]
            for batch in self._plan(rows):
                removed += self._do("delete", [row for _, row in batch])
        if removed:
            self._do("reclaim")
        return removed

    def _pages(self, query: Query, size: int = _PAGE) -> Iterator[tuple[list[Row], bool]]:
        """Go through the rows of a query, page by page, and say of each whether it is the only one.

        A page may be short or empty and still be followed by others.
        """
        rows, token = self._do("page", query, size, None)
        yield rows, token is None
        while token is not None:
            rows, token = self._do("page", query, size, token)
            yield rows, False

    def list_runs(
        self, batch_id: str, *, limit: int = 50, continuation_token: str | None = None
    ) -> tuple[list[RecordT], str | None]:
        require_number("limit", limit, "how many records to return, 1 or more", least=1, whole=True)
        query = Query(partition=escape_key(batch_id, field="batch_id"))
        records: list[RecordT] = []
        token = continuation_token
        while True:
            wanted = min(limit - len(records), 1_000)
            rows, token = self._do("page", query, wanted, token)
            whole = continuation_token is None and token is None and not records
            records += self._readable(rows, whole=whole)
            if token is None or len(records) >= limit:
                return newest_first(records), token

    def iter_runs(
        self,
        batch_id: str | None,
        *,
        status: StatusFilter = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[RecordT]:
        return chain.from_iterable(self.pages(batch_id, status, since, until))

    def pages(
        self,
        batch_id: str | None,
        status: StatusFilter,
        since: datetime | None,
        until: datetime | None,
    ) -> Iterator[list[RecordT]]:
        """Return the pages of `iter_runs`; its arguments are checked at once."""
        query = query_of(self._binding.statuses, batch_id, status, since, until)
        unlimited = query == Query(query.partition)
        found = self._pages(self._binding.remote(query))
        return (self._matching(rows, query, whole=only and unlimited) for rows, only in found)

    def _matching(self, rows: Sequence[Row], query: Query, *, whole: bool = False) -> list[RecordT]:
        records = self._readable(rows, whole=whole)
        return [record for record in records if self._binding.matches(record, query)]

    def count_by_status(self, batch_id: str) -> dict[str, int]:
        tallies = self._tally(escape_key(batch_id, field="batch_id"))
        return {str(tally.status or ""): tally.number for tally in tallies}

    def batches(self) -> list[BatchSummary]:
        found: dict[str, list[Tally]] = {}
        for tally in sorted(self._tally(None), key=lambda tally: str(tally[:2])):
            found.setdefault(tally.partition, []).append(tally)
        return [
            BatchSummary(
                unescape_key(partition),
                {str(tally.status or ""): tally.number for tally in each},
                min((tally.first for tally in each if tally.first), default=None),
                max((tally.last for tally in each if tally.last), default=None),
            )
            for partition, each in found.items()
        ]

    def _tally(self, partition: str | None) -> list[Tally]:
        stored = self._binding.counts_remotely  # in the form that is counted
        found: list[Tally] | None = self._do("tally", partition) if stored else None
        if found is not None:
            return found
        return add_up(
            _tally_of(row, () if stored else self._readable([row]))
            for rows, _ in self._pages(Query(partition, keys_only=stored), _LARGE_PAGE)
            for row in rows
        )

    def claim(
        self,
        batch_id: str,
        *,
        worker: str,
        lease_seconds: float,
        max_attempts: int | None = None,
    ) -> RecordT | None:
        check_claim(worker, lease_seconds, max_attempts)
        partition = escape_key(batch_id, field="batch_id")
        for _ in range(_CLAIM_SCANS):
            contended = False
            query = Query(partition=partition, claimable_at=clock.utc_now())
            for rows, _ in self._pages(self._binding.remote(query), _CLAIM_PAGE):
                # Workers start at different places, so that they rarely meet at one job.
                start = min(int(clock.jitter(len(rows))), max(len(rows) - 1, 0))
                for row in rows[start:] + rows[:start]:
                    record = self._claimable(row, query)
                    if record is None:
                        contended = contended or row.partial
                        continue
                    changed = claimed(self._binding, record, worker, lease_seconds, max_attempts)
                    (taken,) = self._replace([changed], None)
                    if taken is not None and status_of(taken) == JobStatus.RUNNING.value:
                        return taken
                    contended = contended or taken is None
            if not contended:
                break
        return None

    def _claimable(self, row: Row, query: Query) -> RecordT | None:
        """Return the record of a row that a claim found, `None` where it cannot be taken."""
        found = self._do("get", row.partition, row.key) if row.partial else row
        return None if found is None else next(iter(self._matching([found], query)), None)

    def renew(self, record: RecordT, *, lease_seconds: float) -> RecordT:
        check_lease(lease_seconds)
        state = status_of(record)
        if state is not None and state != JobStatus.RUNNING.value:
            job_id = getattr(record, "job_id", "")
            raise JobStateError(
                f"job {job_id!r} is {state}: only the lease of a running job can be renewed; claim "
                "it, or end the renewal when the job ends",
                job_id=job_id,
                current=state,
                wanted=JobStatus.RUNNING,
            )
        until = clock.utc_now() + timedelta(seconds=lease_seconds)
        changed = self._binding.evolve(record, lease_until=until)
        return self.update(changed, expected=record)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def as_list(records: Iterable[RecordT]) -> list[RecordT]:
    if isinstance(records, (str, Mapping)) or not isinstance(records, Iterable):
        raise TypeError(f"records={records!r:.80} is not a list of records: pass an iterable")
    return list(records)


def _tally_of(row: Row, records: Sequence[Any]) -> Tally:
    """Count the record of a row, or what is stored where there is none."""
    status, updated = row.properties.get("status"), row.properties.get("updated_at")
    for record in records:
        status, updated = status_of(record), getattr(record, "updated_at", None)
    moment = moment_of(updated)
    return Tally(row.partition, status if isinstance(status, str) else None, 1, moment, moment)


def _keys(batch_id: str, job_id: str) -> tuple[str, str]:
    return escape_key(batch_id, field="batch_id"), escape_key(job_id, field="job_id")
