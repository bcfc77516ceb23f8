"""What a job store does, without I/O: steps for the synchronous and the asynchronous driver.

Each operation is a generator that yields calls of backend primitives (see `_rows`) and is sent
their results (`_drive`); the same steps serve Azure Table, its async twin and SQLite, so that they
cannot differ.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from infra_core.runtime import clock, printable, redact_secrets

from .._checks import require_number
from ..exceptions import AzureTableError, JobConflictError, JobExistsError, JobStateError
from ._binding import RecordBinding, moment_of, newest_first, same_write, status_of
from ._drive import Call, Steps
from ._keys import escape_key, unescape_key
from ._leases import check_claim, check_lease, claimed
from ._records import BatchSummary, JobStatus, StatusFilter, UnreadableJob
from ._rows import Query, Row, Tally, add_up, query_of

_log = logging.getLogger("infra_core.azure.job_store")

__all__ = ["JobSteps"]

RecordT = TypeVar("RecordT")
Planner = Callable[[Iterable[Row]], Sequence[Sequence[tuple[int, Row]]]]

PAGE = 200
_CLAIM_PAGE = 50
_CLAIM_SCANS = 3
_REMOVED_PAGE = 1_000
_ENDED = tuple(status for status in JobStatus if status.is_terminal)


class JobSteps(Generic[RecordT]):
    """The operations of a job store; `plan` splits rows into what its backend takes at once."""

    def __init__(self, record_type: type[RecordT], plan: Planner) -> None:
        self.binding = RecordBinding(record_type)
        self._plan = plan
        self.query = partial(query_of, self.binding.statuses)
        self._unreadable: dict[tuple[str, str], UnreadableJob] = {}

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
                records.append(self.binding.from_row(row))
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

    def create(self, record: RecordT) -> Steps[RecordT]:
        """Store a new record."""
        row = self.binding.to_row(record, new=True)
        etag = yield Call("insert", (row,))
        if etag is None:
            stored = yield Call("get", (row.partition, row.key))
            if stored is None or not same_write(row, stored):
                raise JobExistsError(*row.ids)
            etag = stored.etag
        return self.binding.stored(record, row, etag)

    def save(self, record: RecordT) -> Steps[RecordT]:
        """Store a record in place of whatever is there."""
        (saved,) = yield from self.save_many([record])
        return saved

    def save_many(self, records: Iterable[RecordT]) -> Steps[list[RecordT]]:
        """Store records in as few batches as the backend allows."""
        saved = _as_list(records)
        rows = [self.binding.to_row(record) for record in saved]  # all checked before any is sent
        for batch in self._plan(rows):
            etags = yield Call("upsert", ([row for _, row in batch],))
            for (position, row), etag in zip(batch, etags, strict=True):
                saved[position] = self.binding.stored(saved[position], row, etag)
        return saved

    def update(self, record: RecordT, expected: RecordT | None) -> Steps[RecordT]:
        """Store a record in place of the version it was read as."""
        (updated,) = yield from self._replace([record], expected)
        if updated is not None:
            return updated
        row = self.binding.to_row(record)
        stored = yield Call("get", (row.partition, row.key))
        happened = "was deleted" if stored is None else "was changed by another worker"
        batch_id, job_id = row.ids
        raise JobConflictError(
            f"job {job_id!r} of batch {batch_id!r} {happened} since it was read; fetch it "
            "again, apply your change to what is there now, and update again",
            ours=record,
            theirs=None if stored is None else self._theirs(stored),
        )

    def update_many(self, records: Iterable[RecordT]) -> Steps[list[RecordT | None]]:
        """Store changed records, each in place of the version it was read as."""
        return (yield from self._replace(_as_list(records), None))

    def _replace(
        self, records: Sequence[RecordT], expected: RecordT | None
    ) -> Steps[list[RecordT | None]]:
        """Store changed records; `None` stands for each that others have changed or deleted."""
        rows = []
        for record in records:
            row = yield from self._prepared(record, expected)
            rows.append(row)
        results: list[RecordT | None] = [None] * len(records)
        for batch in self._plan(rows):
            etags = yield Call("replace", ([row for _, row in batch],))
            for (position, row), etag in zip(batch, etags, strict=True):
                if etag is not None:
                    results[position] = self.binding.stored(records[position], row, etag)
        return results

    def _prepared(self, record: RecordT, expected: RecordT | None) -> Steps[Row]:
        """Return the row of a record, with the version to replace and the fields of others."""
        etag = self.binding.version(record if expected is None else expected)
        row = self.binding.to_row(record)
        if etag is None:
            batch_id, job_id = row.ids
            raise AzureTableError(
                f"update of job {job_id!r} of batch {batch_id!r} needs the version it is based on, "
                "and this record has none: fetch it first, pass the fetched record as expected=, "
                "or give the record type a field `etag: str | None = None`"
            )
        row.etag = etag
        if not self.binding.carry(row):
            stored = yield Call("get", (row.partition, row.key))
            if stored is not None and stored.etag == etag:
                self.binding.remember(stored, etag)
                self.binding.carry(row)
        return row

    def _theirs(self, stored: Row) -> RecordT | None:
        readable = self._readable([stored])
        return readable[0] if readable else None

    def version(self, record: RecordT) -> str:
        """Return the version a record was read as, or raise that it is not known."""
        etag = self.binding.version(record)
        if etag is None:
            raise AzureTableError(
                "the record given as expected= does not know its version; pass the very object "
                "that fetch, create or save returned"
            )
        return etag

    def fetch(self, batch_id: str, job_id: str) -> Steps[RecordT | None]:
        """Return one record, `None` when there is none."""
        row = yield Call("get", _keys(batch_id, job_id))
        return None if row is None else self.binding.from_row(row)

    def delete(self, batch_id: str, job_id: str, etag: str | None) -> Steps[bool]:
        """Delete one record."""
        keys = _keys(batch_id, job_id)
        if (yield Call("delete", ([Row(*keys, {}, etag)],))):
            return True
        stored = None if etag is None else (yield Call("get", keys))
        if stored is None:
            return False
        raise JobConflictError(
            f"job {job_id!r} of batch {batch_id!r} was changed by another worker since it was "
            "read and has not been deleted; fetch it again and decide again",
            theirs=self._theirs(stored),
        )

    def delete_batch(self, batch_id: str) -> Steps[int]:
        """Delete all jobs of a batch."""
        return (yield from self._remove(Query(escape_key(batch_id, field="batch_id"))))

    def prune(
        self,
        older_than: timedelta | datetime,
        status: StatusFilter,
        batch_id: str | None,
    ) -> Steps[int]:
        """Delete jobs that ended and have not changed for so long."""
        if isinstance(older_than, timedelta):
            older_than = clock.utc_now() - older_than
        elif not isinstance(older_than, datetime):
            raise TypeError(
                f"older_than={older_than!r:.80} is no time: pass timedelta(days=30), or a datetime"
            )
        query = self.query(batch_id, _ENDED if status is None else status, None, older_than)
        return (yield from self._remove(query))

    def _remove(self, query: Query) -> Steps[int]:
        everything = query == Query(query.partition)
        remote = self.binding.remote(query)
        judged, removed = remote == query, 0
        token: str | None = None
        while True:
            asked = replace(remote, keys_only=judged)
            rows, token = yield Call("page", (asked, _REMOVED_PAGE, token))
            if not judged:
                rows = [row for row in rows if self._matching([row], query)]
            if everything:  # whatever becomes of them meanwhile
                rows = [replace(row, etag=None) for row in rows]
            for batch in self._plan(rows):
                removed += yield Call("delete", ([row for _, row in batch],))
            if token is None:
                break
        if removed:
            yield Call("reclaim", ())
        return removed

    def list_runs(
        self, batch_id: str, limit: int, token: str | None
    ) -> Steps[tuple[list[RecordT], str | None]]:
        """Return a page of records, newest first within the page."""
        require_number("limit", limit, "how many records to return, 1 or more", least=1, whole=True)
        query = Query(partition=escape_key(batch_id, field="batch_id"))
        records: list[RecordT] = []
        beginning = token is None
        while True:
            wanted = min(limit - len(records), 1_000)
            rows, token = yield Call("page", (query, wanted, token))
            records += self._readable(rows, whole=beginning and token is None and not records)
            # A page may be short or empty and still be followed by others.
            if token is None or len(records) >= limit:
                break
        return newest_first(records), token

    def page(self, query: Query, token: str | None) -> Steps[tuple[list[RecordT], str | None]]:
        """Return the records of the next page that match."""
        beginning = token is None
        rows, token = yield Call("page", (self.binding.remote(query), PAGE, token))
        everything = beginning and token is None and query == Query(partition=query.partition)
        return self._matching(rows, query, whole=everything), token

    def _matching(self, rows: Sequence[Row], query: Query, *, whole: bool = False) -> list[RecordT]:
        records = self._readable(rows, whole=whole)
        return [record for record in records if self.binding.matches(record, query)]

    def count_by_status(self, batch_id: str) -> Steps[dict[str, int]]:
        """Count the jobs of a batch by state."""
        tallies = yield from self._tally(escape_key(batch_id, field="batch_id"))
        return {str(status or ""): tally.number for (_, status), tally in tallies.items()}

    def batches(self) -> Steps[list[BatchSummary]]:
        """Sum up each batch."""
        tallies = yield from self._tally(None)
        found: dict[str, list[Tally]] = {}
        for (partition, _), tally in sorted(tallies.items(), key=lambda item: str(item[0])):
            found.setdefault(partition, []).append(tally)
        return [
            BatchSummary(
                unescape_key(partition),
                {str(tally.status or ""): tally.number for tally in each},
                min((tally.first for tally in each if tally.first), default=None),
                max((tally.last for tally in each if tally.last), default=None),
            )
            for partition, each in found.items()
        ]

    def _tally(self, partition: str | None) -> Steps[dict[tuple[str, str | None], Tally]]:
        total: dict[tuple[str, str | None], Tally] = {}
        token: str | None = None
        while True:
            if self.binding.counts_remotely:
                found, token = yield Call("tally", (partition, token))
            else:
                rows, token = yield Call("page", (Query(partition), PAGE, token))
                found = [_tally_of(row, self._readable([row])) for row in rows]
            for tally in found:
                known = total.get(tally[:2])
                total[tally[:2]] = tally if known is None else add_up(known, tally)
            if token is None:
                return total

    def claim(
        self, batch_id: str, worker: str, lease_seconds: float, max_attempts: int | None
    ) -> Steps[RecordT | None]:
        """Take one job that is pending or whose worker let its lease end."""
        check_claim(worker, lease_seconds, max_attempts)
        partition = escape_key(batch_id, field="batch_id")
        for _ in range(_CLAIM_SCANS):
            contended = False
            token: str | None = None
            while True:
                query = Query(partition=partition, claimable_at=clock.utc_now())
                remote = self.binding.remote(query)
                rows, token = yield Call("page", (remote, _CLAIM_PAGE, token))
                # Workers start at different places, so that they rarely meet at one job.
                start = min(int(clock.jitter(len(rows))), max(len(rows) - 1, 0))
                for row in rows[start:] + rows[:start]:
                    record = yield from self._claimable(row, query)
                    if record is None:
                        contended = contended or row.partial
                        continue
                    changed = claimed(self.binding, record, worker, lease_seconds, max_attempts)
                    (taken,) = yield from self._replace([changed], None)
                    if taken is not None and status_of(taken) == JobStatus.RUNNING.value:
                        return taken
                    contended = contended or taken is None
                if token is None:
                    break
            if not contended:
                return None
        return None

    def _claimable(self, row: Row, query: Query) -> Steps[RecordT | None]:
        """Return the record of a row that a claim found, `None` where it cannot be taken."""
        found = (yield Call("get", (row.partition, row.key))) if row.partial else row
        matching = [] if found is None else self._matching([found], query)
        return matching[0] if matching else None

    def renew(self, record: RecordT, lease_seconds: float) -> Steps[RecordT]:
        """Extend the lease of a claimed job."""
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
        changed = self.binding.evolve(record, lease_until=until)
        return (yield from self.update(changed, record))


def _as_list(records: Iterable[RecordT]) -> list[RecordT]:
    if isinstance(records, (str, Mapping)) or not isinstance(records, Iterable):
        raise TypeError(f"records={records!r:.80} is no list of records: pass a list or iterator")
    return list(records)


def _tally_of(row: Row, records: Sequence[Any]) -> Tally:
    if not records:
        status = row.properties.get("status")
        return Tally(row.partition, status if isinstance(status, str) else None, 1)
    (record,) = records
    moment = moment_of(getattr(record, "updated_at", None))
    return Tally(row.partition, status_of(record), 1, moment, moment)


def _keys(batch_id: str, job_id: str) -> tuple[str, str]:
    return escape_key(batch_id, field="batch_id"), escape_key(job_id, field="job_id")
