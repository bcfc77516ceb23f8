"""Jobs as `infra-core jobs` finds them, and its verbs that put back, delete and prune."""

import argparse
import json
import os
import shutil
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from infra_core.azure.job_store import BatchSummary, JobRecord, JobStateError, JobStatus, JobStore
from infra_core.batch._environment import open_storage, table_of
from infra_core.batch._errors import plural
from infra_core.batch._folder import ASSETS, JOBS_FILE, exclusive, run_folder
from infra_core.runtime import clock

from . import exit_codes
from ._arguments import CommandError
from ._report import print_json

__all__ = [
    "as_dict", "delete_batch", "find", "is_empty", "is_held", "no_jobs", "prune_jobs",
    "retry_jobs", "tell_unreadable",
]  # fmt: skip


def tell_unreadable(store: JobStore[JobRecord]) -> None:
    """Print how many jobs cannot be read, and why the first of them cannot."""
    unreadable = getattr(store, "unreadable", [])
    if unreadable:
        print(f"{plural(len(unreadable), 'job')} cannot be read and are left out:", file=sys.stderr)
    for job in unreadable[:10]:
        print(f"  {job.job_id}: {job.reason}", file=sys.stderr)


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
    found = f"the ids of {len(matches)} jobs begin with" if matches else "there is no job"
    raise CommandError(
        f"{found} {job_id!r} in batch {batch_id!r}; list them: infra-core jobs list {batch_id}"
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


def retry_jobs(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Put jobs back to pending: all that can be, whatever is wrong with some of them."""
    problems: list[str] = []
    changed: list[JobRecord] = []
    for found in options.job_id or _unfinished(store, options):
        try:
            record = find(store, options.batch_id, found) if isinstance(found, str) else found
            changed.append(_put_back(record, options))
        except CommandError as error:
            problems.append(str(error))
    put_back = [record for record in store.update_many(changed) if record is not None]
    if conflicts := len(changed) - len(put_back):
        problems.append(f"{plural(conflicts, 'job')} changed meanwhile and left as they are")
    for problem in problems:
        print(problem, file=sys.stderr)
    if options.json:
        print_json([as_dict(record) for record in put_back])
    elif put_back:
        print(f"{plural(len(put_back), 'job')} put back; do them with: infra-core run ... --resume")
    elif not problems:
        print("no job failed or timed out; nothing was put back")
    if problems:
        raise CommandError(
            f"{plural(len(put_back), 'job')} put back, {len(problems)} of what was asked was not"
        )
    return exit_codes.OK


def _unfinished(store: JobStore[JobRecord], options: argparse.Namespace) -> list[JobRecord]:
    """What did not end well, without the jobs that workers hold."""
    wanted = [JobStatus.FAILED, JobStatus.TIMED_OUT, JobStatus.RUNNING]
    wanted += [JobStatus.COMPLETED] if options.completed else []
    found = list(store.iter_runs(options.batch_id, status=wanted))
    tell_unreadable(store)
    if not found and is_empty(store, options.batch_id):
        raise no_jobs(options)
    free = [record for record in found if options.force or not is_held(record)]
    if held := len(found) - len(free):
        number = plural(held, "running job")
        print(f"{number} left to the workers that hold them; --force takes them", file=sys.stderr)
    return free


def _put_back(record: JobRecord, options: argparse.Namespace) -> JobRecord:
    if not options.force and is_held(record):
        until = record.lease_until
        held = f"its lease runs until {until:%Y-%m-%d %H:%M:%SZ}" if until else "it has no lease"
        raise CommandError(
            f"job {record.job_id!r} is running, held by {record.lease_owner or 'an unnamed one'} "
            f"({held}); wait, or add --force where that worker is dead"
        )
    try:
        # None of the attempts counts any more: a worker with a limit would fail the job at once.
        return replace(record.requeue(force=options.completed), attempts=0)
    except JobStateError as error:
        raise CommandError(f"{error}; add --completed to run it again") from None


def delete_batch(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Delete all jobs of a batch; on request what its run has left on disk and in the container."""
    counts = store.count_by_status(options.batch_id)
    if not counts:
        raise no_jobs(options)
    if not options.force and (open_jobs := counts.get("pending", 0) + counts.get("running", 0)):
        raise CommandError(
            f"batch {options.batch_id!r} has {plural(open_jobs, 'job')} pending or running; wait "
            "for them, or add --force to delete them as well"
        )
    deleted: dict[str, int] = {}
    # The jobs last: while they are there, an attempt that failed can be made again.
    if options.files or options.blobs:
        folder = run_folder(options.out, options.batch_id)
        there = folder.is_dir()
        with exclusive(folder) if there else nullcontext():  # no run is at work here
            if options.blobs:
                deleted["blobs"] = _delete_blobs(options, folder)
            if options.files and there:
                deleted["files"] = sum(path.is_file() for path in folder.rglob("*"))
                if (assets := folder / ASSETS).is_symlink():  # there may be more behind it
                    left = f"{str(assets)!r} is a link: what is in {str(assets.resolve())!r} stays"
                    print(left, file=sys.stderr)
                shutil.rmtree(folder)
    return _print_removed(store.delete_batch(options.batch_id), options, **deleted)


def _delete_blobs(options: argparse.Namespace, folder: Path) -> int:
    with open_storage(os.environ, base_path=options.out) as storage:
        if not storage.is_configured():
            raise CommandError("--blobs needs a container: set AZURE_STORAGE_CONTAINER and so on")
        return storage.delete_tree(folder)


def prune_jobs(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Delete jobs that ended and have not changed for so long."""
    removed = store.prune(
        older_than=options.older_than, status=options.status, batch_id=options.batch
    )
    return _print_removed(removed, options)


def _print_removed(removed: int, options: argparse.Namespace, **more: int) -> int:
    if options.json:
        print_json({"deleted": removed, **more})
    else:
        counts = [plural(count, name.removesuffix("s")) for name, count in more.items()]
        print(f"{', '.join([plural(removed, 'job'), *counts])} deleted")
    return exit_codes.OK
