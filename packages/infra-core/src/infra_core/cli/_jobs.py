"""`infra-core jobs`: what became of each job of a batch, and how to put it back."""

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.azure.job_store import JobRecord, JobStateError, JobStatus, JobStore
from infra_core.batch._folder import JOBS_FILE
from infra_core.batch._services import open_jobs
from infra_core.runtime import clock

from . import exit_codes
from ._arguments import CommandError, add_verb, seconds
from ._errors import without_url
from ._report import is_capable, make_console, plural, print_json, print_rows

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

DESCRIPTION = """\
Look at the jobs of a batch, and put failed ones back.

Jobs are read from Table Storage when AZURE_JOB_TABLE is set, else from OUT/jobs.sqlite3.

  infra-core jobs list nightly-42 --out runs --status failed
  infra-core jobs show nightly-42 JOB --out runs
  infra-core jobs retry nightly-42 --out runs        put failed and timed out jobs back
  infra-core jobs watch nightly-42 --out runs        follow a batch until all its jobs have ended

`retry` makes jobs pending; `infra-core run ... --resume` then does them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core jobs`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    listing = add_batch_verb(verbs, "list", "a line for each job")
    listing.add_argument(
        "--status", action="append", choices=[s.value for s in JobStatus], help="only these"
    )
    listing.add_argument(
        "--since", type=parse_since, metavar="WHEN", help="changed since: 90s, 30m, 12h, 7d or ISO"
    )
    show = add_batch_verb(verbs, "show", "everything known of one job")
    show.add_argument("job_id", metavar="JOB", help="its id, or enough of its beginning")
    retry = add_batch_verb(verbs, "retry", "put jobs back to pending")
    retry.add_argument("job_id", metavar="JOB", nargs="*", help="only these (all that failed)")
    retry.add_argument(
        "--completed", action="store_true", help="completed jobs as well, so they run again"
    )
    watch = add_batch_verb(verbs, "watch", "follow a batch until all its jobs have ended")
    watch.add_argument(
        "--interval", type=seconds, default=2.0, metavar="S", help="seconds between looks (2)"
    )
    watch.add_argument("--timeout", type=moment, metavar="S", help="stop watching after so long")


def add_batch_verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Add one verb with what all verbs take."""
    parser = add_verb(verbs, name, summary)
    parser.add_argument("batch_id", metavar="BATCH", help="name of the batch")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="output folder of the runs (.)"
    )
    return parser


def parse_since(text: str) -> datetime:
    """An argparse type: an age such as `12h`, or an ISO 8601 time (UTC unless it says)."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if re.fullmatch("[0-9]+[smhd]", text):
            age = timedelta(**{units[text[-1]]: int(text[:-1])})
            return datetime.now(timezone.utc) - age
        when = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))  # Python 3.10 knows no Z
    except (ValueError, OverflowError):
        message = f"{text!r} is neither an age (90s, 30m, 12h, 7d) nor an ISO 8601 time"
        raise argparse.ArgumentTypeError(message) from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def moment(text: str) -> float:
    """An argparse type: a time of zero or more; zero is one look."""
    return 0.0 if text.strip() == "0" else seconds(text)


def execute(options: argparse.Namespace) -> int:
    """Run the verb."""
    sqlite_path = options.out / JOBS_FILE
    if not os.environ.get("AZURE_JOB_TABLE", "").strip() and not sqlite_path.is_file():
        raise CommandError(
            f"no jobs at {str(sqlite_path)!r} and AZURE_JOB_TABLE is not set; give the --out of "
            "the run, or set AZURE_JOB_TABLE"
        )
    with open_jobs(os.environ, sqlite_path=sqlite_path) as store:
        verbs = {"list": list_jobs, "show": show_job, "retry": retry_jobs, "watch": watch_jobs}
        return verbs[options.verb](store, options)


def list_jobs(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Print a line for each job."""
    records = list(store.iter_runs(options.batch_id, status=options.status, since=options.since))
    tell_unreadable(store)
    if not records and is_empty(store, options.batch_id):
        raise no_jobs(options)
    if options.json:
        print_json([as_dict(record) for record in records])
        return exit_codes.OK
    if not records:
        print("no job fits --status and --since", file=sys.stderr)
        return exit_codes.OK
    console = make_console()
    if is_capable(console):
        print_for_people(console, records)
    else:
        print_rows(console, [], (row(record) for record in records))
    return exit_codes.OK


def tell_unreadable(store: JobStore[JobRecord]) -> None:
    """Print how many jobs cannot be read, and why the first of them cannot."""
    unreadable = getattr(store, "unreadable", [])
    if unreadable:
        print(f"{plural(len(unreadable), 'job')} cannot be read and are left out:", file=sys.stderr)
    for job in unreadable[:10]:
        print(f"  {job.job_id}: {job.reason}", file=sys.stderr)


def print_for_people(console: "Console", records: list[JobRecord]) -> None:
    """Print what fits a terminal: hashes as short as `jobs show` takes them, errors below URLs."""
    ids = [record.job_id for record in records]
    length = 1024
    if all(re.fullmatch("[0-9a-f]{32,}", i) for i in ids):  # else a part may be another's id
        length = next(n for n in range(12, 1025) if len({i[:n] for i in ids}) == len(ids))
    roomy = console.width >= 80  # else the time is left to `jobs show`
    columns = ["job", "status", "tries", *(["updated (UTC)"] if roomy else []), "url and error"]

    def short(record: JobRecord) -> Iterable[str]:
        yield record.job_id[:length]
        yield str(record.status)
        yield str(record.attempts)
        if roomy:
            yield record.updated_at.strftime("%m-%d %H:%M:%S")
        url = str(record.payload.get("url", ""))
        yield "\n".join(filter(None, [url, without_url(record.error or "", url)]))

    print_rows(console, columns, (short(record) for record in records))


def row(record: JobRecord) -> Iterable[str]:
    """The cells of one job."""
    yield record.job_id
    yield str(record.status)
    yield str(record.attempts)
    yield record.updated_at.strftime("%Y-%m-%d %H:%M:%SZ")
    yield str(record.payload.get("url", ""))
    yield record.error or ""


def as_dict(record: JobRecord) -> dict[str, Any]:
    """One job for JSON."""
    return {
        "batch_id": record.batch_id,
        "job_id": record.job_id,
        "status": str(record.status),
        "attempts": record.attempts,
        "created_at": record.created_at.isoformat(),
        "updated_at": record.updated_at.isoformat(),
        "error": record.error,
        "payload": record.payload,
        "lease_owner": record.lease_owner,
        "lease_until": record.lease_until.isoformat() if record.lease_until else None,
    }


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


def show_job(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Print everything known of one job."""
    record = as_dict(find(store, options.batch_id, options.job_id))
    if options.json:
        print_json(record)
        return exit_codes.OK
    payload = record.pop("payload")
    rows = [*record.items(), *((f"payload.{name}", value) for name, value in payload.items())]
    print_rows(make_console(), ["field", "value"], ((k, str(v)) for k, v in rows if v is not None))
    return exit_codes.OK


def retry_jobs(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Put jobs back to pending."""
    if options.job_id:
        records = [find(store, options.batch_id, job_id) for job_id in options.job_id]
    else:
        wanted = [JobStatus.FAILED, JobStatus.TIMED_OUT]
        wanted += [JobStatus.COMPLETED] if options.completed else []
        records = list(store.iter_runs(options.batch_id, status=wanted))
        tell_unreadable(store)
        if not records and is_empty(store, options.batch_id):
            raise no_jobs(options)
    put_back = []
    for record in records:
        try:
            changed = record.requeue(force=options.completed)
        except JobStateError as error:
            raise CommandError(f"{error}; add --completed to run it again") from None
        put_back.append(store.update(changed, expected=record))
    if options.json:
        print_json([as_dict(record) for record in put_back])
    elif put_back:
        print(f"{plural(len(put_back), 'job')} put back; do them with: infra-core run ... --resume")
    else:
        print("no job failed or timed out; nothing was put back")
    return exit_codes.OK


def watch_jobs(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Print the counts whenever they change, until every job has ended."""
    deadline = None if options.timeout is None else clock.monotonic() + options.timeout
    shown: Counter[str] | None = None
    while True:
        counts = Counter(store.count_by_status(options.batch_id))
        if not counts:
            raise no_jobs(options)
        if counts != shown:
            shown = counts
            tell_unreadable(store)
            print_counts(counts, as_json=options.json)
        if not counts["pending"] and not counts["running"]:
            failed = counts["failed"] + counts["timed_out"]
            return exit_codes.FAILED if failed else exit_codes.OK
        if deadline is not None and clock.monotonic() >= deadline:
            return exit_codes.FAILED
        clock.sleep(options.interval)


def print_counts(counts: Counter[str], *, as_json: bool) -> None:
    """Print one look at a batch: a line of text or of JSON."""
    named = {status.value: counts[status.value] for status in JobStatus}
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    if as_json:
        print(json.dumps({"time": now, **named}), flush=True)
    else:
        text = "  ".join(f"{name} {count}" for name, count in named.items() if count)
        print(f"{now}  {text}", flush=True)


def is_empty(store: JobStore[JobRecord], batch_id: str) -> bool:
    """Whether a batch has no job at all: its name is probably mistyped."""
    return next(iter(store.iter_runs(batch_id)), None) is None


def no_jobs(options: argparse.Namespace) -> CommandError:
    """The error that a batch has no jobs."""
    table = os.environ.get("AZURE_JOB_TABLE", "").strip()
    place = f"the table {table!r}" if table else repr(str(options.out / JOBS_FILE))
    return CommandError(
        f"batch {options.batch_id!r} has no jobs in {place}; check the batch's name and --out"
    )
