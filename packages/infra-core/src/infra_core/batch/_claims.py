"""Runs of one batch on several machines share its jobs: each takes what no other has.

A job is taken by a compare-and-set of its row (the table's ETag), for as long as its download may
last; so no renewal is needed, and what a dead machine held is free when that time has passed.
"""

import hashlib
import os
import secrets
import socket
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from infra_core.runtime import clock

from ._jobs import Begun, Job

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord, JobStore

    from ._options import BatchOptions

__all__ = ["Claims"]

_THREADS = 16  # a table answers in milliseconds, one request after the other would crawl
_RACES = 3  # tries at a row that others change at the same time
_MARGIN = 60.0  # seconds that a lease outlasts the longest download


class Claims:
    """Takes jobs of a store that several runs share, for as long as a download may last.

    Every method blocks.

    Attributes:
        deferred: Jobs that others hold, to be looked at again: no more than they have at work.
        place: This machine and folder, by which a later run knows whose disk holds a file.
        unreadable: Why jobs that cannot be read were left as they are.
    """

    def __init__(self, store: "JobStore[JobRecord]", options: "BatchOptions", folder: Path) -> None:
        self._store = store
        self._batch_id = options.batch_id
        self._only_failed = options.only_failed
        place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
        self.place = f"{socket.gethostname()}/{place}"
        self._owner = f"{self.place}/{secrets.token_hex(4)}"
        self._lease = timedelta(seconds=_longest(options) + _MARGIN)
        self.deferred: deque[Job] = deque()
        self.unreadable: list[str] = []
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="infra-core-claim")

    def take(self, jobs: Sequence[Job]) -> Begun:
        """Take each job that is pending, failed, or under a lease that has ended."""
        found = Begun([], [], [], [])
        for job, (record, place) in zip(jobs, self._threads.map(self._one, jobs), strict=True):
            getattr(found, place).append(job._replace(record=record))
        return found

    def _one(self, job: Job) -> "tuple[JobRecord, str]":
        from infra_core.azure.exceptions import JobConflictError, JobExistsError, JobRecordError
        from infra_core.azure.job_store import JobStatus

        for _ in range(_RACES):
            try:
                current = self._store.fetch(self._batch_id, job.job_id)
            except JobRecordError as error:
                self.unreadable.append(str(error))
                return job.record, "passed_over"
            if self._only_failed and not (current is not None and current.status.is_failure):
                return current or job.record, "passed_over"
            try:
                if current is None:
                    return self._store.create(self._leased(job.record)), "started"
                if current.status is JobStatus.COMPLETED:
                    return current, "kept"
                if current.status is JobStatus.RUNNING:
                    if self.is_held(current):
                        return current, "elsewhere"
                    current = current.requeue()
                return self._store.update(self._leased(current)), "started"
            except (JobExistsError, JobConflictError):
                continue
        return job.record, "elsewhere"  # others change it at each try: one of them has it

    def is_held(self, record: "JobRecord") -> bool:
        """Whether another run has a running job: its lease has not ended."""
        until, owner = record.lease_until, record.lease_owner or ""
        if owner.startswith(f"{self.place}/"):  # of an earlier run in this folder
            return False
        return until is not None and until > clock.utc_now()

    def reopen(self, job: Job) -> Job | None:
        """Take a completed job whose file is not here; None where another run did."""
        from infra_core.azure.exceptions import JobConflictError

        try:
            record = self._store.update(self._leased(job.record.requeue(force=True)))
        except JobConflictError:
            return None
        return job._replace(record=record)

    def _leased(self, record: "JobRecord") -> "JobRecord":
        return replace(
            record.start(worker=self._owner),
            lease_owner=self._owner,
            lease_until=clock.utc_now() + self._lease,
            payload={**record.payload, "place": self.place},
        )

    def save_many(self, records: Sequence["JobRecord"]) -> None:
        """Store records of jobs that we hold; one that another run has taken over stays its own."""
        for record, stored in zip(records, self._store.update_many(records), strict=True):
            if stored is not None:
                record.etag = stored.etag

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _longest(options: "BatchOptions") -> float:
    """Seconds that a download may last, the wait for its turn at its host included."""
    before = options.concurrency / (options.max_per_host or options.concurrency)
    turns = options.concurrency / options.rate_per_host if options.rate_per_host else 0.0
    return options.task_timeout * max(1.0, before) + turns
