"""Jobs as the verbs of `infra-core jobs` find and name them."""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from infra_core.azure.job_store import BatchSummary, JobRecord, JobStatus, JobStore
from infra_core.batch._environment import table_of
from infra_core.batch._folder import JOBS_FILE
from infra_core.runtime import clock

from ._arguments import CommandError
from ._errors import plural

__all__ = ["as_dict", "find", "is_empty", "is_held", "no_jobs", "row", "tell_unreadable"]


def tell_unreadable(store: JobStore[JobRecord]) -> None:
    """Print how many jobs cannot be read, and why the first of them cannot."""
    unreadable = getattr(store, "unreadable", [])
    if unreadable:
        print(f"{plural(len(unreadable), 'job')} cannot be read and are left out:", file=sys.stderr)
    for job in unreadable[:10]:
        print(f"  {job.job_id}: {job.reason}", file=sys.stderr)


def row(record: JobRecord) -> Iterable[str]:
    """The cells of one job."""
    yield record.job_id
    yield str(record.status)
    yield str(record.attempts)
    yield record.updated_at.strftime("%Y-%m-%d %H:%M:%SZ")
    yield str(record.payload.get("url", ""))
    yield record.error or ""


def as_dict(record: JobRecord | BatchSummary) -> dict[str, Any]:
    """A job, or the counts of a batch, for JSON."""
    text = json.dumps(asdict(record), default=datetime.isoformat)
    found: dict[str, Any] = json.loads(text)
    found.pop("etag", None)
    return found


def find(store: JobStore[JobRecord], batch_id: str, job_id: str) -> JobRecord:
    """The job with this id, or the only one whose id begins so."""
    if exact := store.fetch(batch_id, job_id):
        return exact
    matches = [r for r in store.iter_runs(batch_id) if r.job_id.startswith(job_id)]
    if len(matches) == 1:
        return matches[0]
    problem = f"{len(matches)} jobs begin with" if matches else "there is no job"
    raise CommandError(
        f"{problem} {job_id!r} in batch {batch_id!r}; list them: infra-core jobs list {batch_id}"
    )


def is_empty(store: JobStore[JobRecord], batch_id: str) -> bool:
    """Whether a batch has no job at all: its name is probably mistyped."""
    return next(iter(store.iter_runs(batch_id)), None) is None


def no_jobs(options: argparse.Namespace) -> CommandError:
    """The error that a batch has no jobs."""
    table = table_of(os.environ)
    place = f"the table {table!r}" if table else repr(str(options.out / JOBS_FILE))
    return CommandError(
        f"batch {options.batch_id!r} has no jobs in {place}; check the batch's name and --out"
    )


def is_held(record: JobRecord) -> bool:
    """Whether a worker holds a job: its lease runs, or it was started without one lately."""
    if record.status is not JobStatus.RUNNING:
        return False
    if record.lease_until is not None:
        return record.lease_until.timestamp() > clock.time()
    return not record.is_abandoned()
