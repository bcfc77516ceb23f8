"""`infra-core jobs`: what became of each job of a batch, and how to put it back."""

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.azure.job_store import (
    AzureTableJobStore,
    BatchSummary,
    JobRecord,
    JobStatus,
    JobStore,
)
from infra_core.batch._environment import open_jobs, table_of
from infra_core.batch._errors import plural, without_url
from infra_core.batch._folder import JOBS_FILE
from infra_core.runtime import clock, printable

from . import exit_codes
from ._arguments import CommandError, add_options, add_verb, named, natural, seconds
from ._jobs_change import (
    as_dict,
    delete_batch,
    find,
    is_empty,
    no_jobs,
    prune_jobs,
    retry_jobs,
    tell_unreadable,
)
from ._jobs_watch import watch_jobs
from ._report import is_capable, make_console, print_found, print_json, print_rows

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

TERMINAL_LIMIT = 1_000  # jobs that a terminal is shown unless it asks for more
COLUMNS = ("job", "status", "starts", "updated", "url", "error")
SORTS = {"job": "job_id", "status": "status", "starts": "attempts", "updated": "updated_at"}
DESCRIPTION = """\
Look at the jobs of a batch, and put failed ones back.

Jobs are read from Table Storage when AZURE_JOB_TABLE is set, else from OUT/jobs.sqlite3.

  infra-core jobs list nightly-42 --out runs --status failed
  infra-core jobs show nightly-42 JOB --out runs
  infra-core jobs retry nightly-42 --out runs        put failed and timed out jobs back
  infra-core jobs watch nightly-42 --out runs        follow a batch until all its jobs have ended
  infra-core jobs batches --out runs                 each batch with its counts
  infra-core jobs prune --older-than 30d --out runs  delete jobs that ended a month ago

`retry` makes jobs pending; `infra-core run ... --resume` then does them. It also frees running jobs
whose lease has ended, or which were started without a lease and have not changed for a day.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core jobs`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    of_batch: dict[str, argparse.ArgumentParser] = {}
    for name, summary, options in _VERBS:
        verb = of_batch[name] = add_verb(verbs, name, summary)
        if name not in ("batches", "prune"):
            verb.add_argument("batch_id", metavar="BATCH", help="name of the batch")
        add_options(verb, [("--out DIR", "output folder of the runs (.)", named), *options])
        verb.set_defaults(out=Path(), interval=2.0)
    show, retry, prune = (of_batch[name] for name in ("show", "retry", "prune"))
    show.add_argument("job_id", metavar="JOB", help="its id, or enough of its beginning")
    retry.add_argument("job_id", metavar="JOB", nargs="*", help="only these (all that failed)")
    prune.add_argument(
        "--older-than", type=parse_since, metavar="WHEN", required=True,
        help="not changed since: 90s, 30m, 12h, 7d or ISO",
    )  # fmt: skip
    of_batch["list"].add_argument(
        "--sort", choices=[sign + name for name in SORTS for sign in ("", "-")], metavar="BY",
        help=f"{', '.join(SORTS)}; with - in front the other way, as --sort=-updated",
    )  # fmt: skip
    statuses = [status.value for status in JobStatus]
    for name, text in (("list", "only these"), ("prune", _PRUNED)):
        of_batch[name].add_argument("--status", action="append", choices=statuses, help=text)


def parse_since(text: str) -> datetime:
    """An argparse type: an age such as `12h`, or an ISO 8601 time (UTC unless it says)."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if re.fullmatch("[0-9]+[smhd]", text):
            age = timedelta(**{units[text[-1]]: int(text[:-1])})
            return clock.utc_now() - age
        when = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))  # Python 3.10 knows no Z
    except (ValueError, OverflowError):
        message = f"{text!r} is neither an age (90s, 30m, 12h, 7d) nor an ISO 8601 time"
        raise argparse.ArgumentTypeError(message) from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def moment(text: str) -> float:
    """An argparse type: a time of zero or more; zero is one look."""
    return 0.0 if text.strip() == "0" else seconds(text)


_PRUNED = "only these (completed, failed and timed out)"
_VERBS: list[tuple[str, str, list[tuple[Any, ...]]]] = [
    ("list", "a line for each job", [
        ("--since WHEN", "changed since: 90s, 30m, 12h, 7d or ISO", parse_since),
        ("--until WHEN", "changed before: as --since", parse_since),
        ("--worker NAME", "held by this worker"),
        ("--limit N", f"so many at most, 0 for all (all; {TERMINAL_LIMIT} on a terminal)",
         natural),
        ("--format", "CSV, or a JSON line a job", ("csv", "jsonl")),
        ("--header", "name the columns where the output is not a terminal"),
    ]),
    ("batches", "a line for each batch, with its counts", []),
    ("show", "everything known of one job", []),
    ("retry", "put jobs back to pending", [
        ("--completed", "completed jobs as well, so they run again"),
        ("--force", "also jobs that a worker holds; it is dead for sure"),
    ]),
    ("delete", "delete all jobs of a batch", [
        ("--force", "pending and running jobs as well"),
        ("--files", "the folder DIR/BATCH as well"),
        ("--blobs", "the blobs below BATCH in the container as well"),
    ]),
    ("prune", "delete old jobs", [("--batch BATCH", "only of this batch")]),
    ("watch", "follow a batch until all its jobs have ended", [
        ("--interval S", "seconds between looks (2)", seconds),
        ("--timeout S", "stop watching after so long", moment),
    ]),
]  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Run the verb."""
    sqlite_path = options.out / JOBS_FILE
    if not table_of(os.environ) and not sqlite_path.is_file():
        raise CommandError(
            f"no jobs at {str(sqlite_path)!r} and AZURE_JOB_TABLE is not set; give the --out of "
            "the run, or set AZURE_JOB_TABLE"
        )
    with open_jobs(os.environ, sqlite_path=sqlite_path) as store:
        if isinstance(store, AzureTableJobStore) and not store.table_exists():
            raise CommandError(
                f"there is no table {store.config.table_name!r}; check AZURE_JOB_TABLE"
            )
        verbs = {
            "list": list_jobs, "batches": list_batches, "show": show_job, "retry": retry_jobs,
            "delete": delete_batch, "prune": prune_jobs, "watch": watch_jobs,
        }  # fmt: skip
        return verbs[options.verb](store, options)


def list_jobs(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Print a line for each job."""
    console = make_console()
    limit = options.limit
    if limit is None and is_capable(console) and not options.json and not options.format:
        limit = TERMINAL_LIMIT
    found: Iterable[JobRecord] = store.iter_runs(
        options.batch_id, status=options.status, since=options.since, until=options.until
    )
    if options.worker:
        found = (record for record in found if record.lease_owner == options.worker)
    if options.sort:
        by = attrgetter(SORTS[options.sort.removeprefix("-")])
        found = sorted(found, key=by, reverse=options.sort.startswith("-"))
    records = list(islice(found, limit + 1) if limit else found)
    tell_unreadable(store)
    if not records and is_empty(store, options.batch_id):
        raise no_jobs(options)
    if limit and len(records) > limit:
        del records[limit:]
        print(f"the first {plural(limit, 'job')}; --limit 0 shows all", file=sys.stderr)
    if options.json:
        print_json([as_dict(record) for record in records])
    elif options.format == "jsonl":
        for record in records:
            print(json.dumps(as_dict(record), default=str))
    elif options.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([printable(cell) for cell in row(record)] for record in records)
    elif not records:
        print("no job fits the conditions given", file=sys.stderr)
    elif is_capable(console):
        print_for_people(console, records)
    else:
        header = [COLUMNS] if options.header else []
        print_rows(console, [], chain(header, (row(record) for record in records)))
    return exit_codes.OK


def row(record: JobRecord) -> Iterable[str]:
    """The cells of one job."""
    yield record.job_id
    yield str(record.status)
    yield str(record.attempts)
    yield record.updated_at.strftime("%Y-%m-%d %H:%M:%SZ")
    yield str(record.payload.get("url", ""))
    yield record.error or ""


def list_batches(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Print a line for each batch."""
    batches = store.batches()
    columns = ["batch", *(status.value for status in JobStatus), "first change", "last change"]

    def cells(batch: BatchSummary) -> Iterable[str]:
        yield batch.batch_id
        yield from (str(batch.counts.get(status.value, 0)) for status in JobStatus)
        for moment in (batch.first_change, batch.last_change):
            yield moment.strftime("%Y-%m-%d %H:%M:%SZ") if moment else ""

    found = map(as_dict, batches)
    print_found(found, columns, map(cells, batches), as_json=options.json)
    return exit_codes.OK


def print_for_people(console: "Console", records: list[JobRecord]) -> None:
    """Print what fits a terminal: hashes as short as `jobs show` takes them, errors below URLs."""
    ids = [record.job_id for record in records]
    length = 1024
    if all(re.fullmatch("[0-9a-f]{32,}", i) for i in ids):  # else a part may be another's id
        length = next(n for n in range(12, 1025) if len({i[:n] for i in ids}) == len(ids))
    roomy = console.width >= 80  # else the time is left to `jobs show`
    columns = ["job", "status", "starts", *(["updated (UTC)"] if roomy else []), "url and error"]

    def short(record: JobRecord) -> Iterable[str]:
        yield record.job_id[:length]
        yield str(record.status)
        yield str(record.attempts)
        if roomy:
            yield record.updated_at.strftime("%m-%d %H:%M:%S")
        url = str(record.payload.get("url", ""))
        yield "\n".join(filter(None, [url, without_url(record.error or "", url)]))

    print_rows(console, columns, (short(record) for record in records))


def show_job(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Print everything known of one job."""
    found = find(store, options.batch_id, options.job_id)
    record = as_dict(found)
    if options.json:
        print_json(record)
        return exit_codes.OK
    payload = record.pop("payload")
    del record["attempt_history"]
    # An attempt is what a download repeats, of which the error may speak.
    rows = [("starts" if name == "attempts" else name, value) for name, value in record.items()]
    rows += [(f"payload.{name}", value) for name, value in payload.items()]
    rows += [(f"start {start.number}", str(start)) for start in found.attempt_history]
    print_rows(make_console(), ["field", "value"], ((k, str(v)) for k, v in rows if v is not None))
    return exit_codes.OK
