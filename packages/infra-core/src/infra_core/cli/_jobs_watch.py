"""`infra-core jobs watch`: follow a batch to its end, or until no run is at work on it any more."""

import argparse
import json
import sys
from collections import Counter
from math import inf

from infra_core.azure.job_store import JobRecord, JobStatus, JobStore
from infra_core.azure.monitoring import HeartbeatState, read_heartbeat
from infra_core.batch._errors import plural
from infra_core.runtime import clock

from . import exit_codes
from ._jobs_change import is_held, no_jobs, tell_unreadable

__all__ = ["watch_jobs"]

# Seconds without a change after which a batch counts as left alone. The run that left its
# heartbeat behind may be followed by the next one; workers of other programs have no heartbeat.
SETTLED_SECONDS = 10.0
LOOK_SECONDS = 60.0


def watch_jobs(store: JobStore[JobRecord], options: argparse.Namespace) -> int:
    """Print the counts whenever they change, until every job has ended or nothing is at work."""
    deadline = None if options.timeout is None else clock.monotonic() + options.timeout
    changed_at, looked_at = clock.monotonic(), -inf
    shown: Counter[str] | None = None
    while True:
        counts = Counter(store.count_by_status(options.batch_id))
        if not counts:
            raise no_jobs(options)
        now = clock.monotonic()
        if counts != shown:
            shown, changed_at = counts, now
            tell_unreadable(store)
            print_counts(counts, as_json=options.json)
        if not counts["pending"] and not counts["running"]:
            failed = counts["failed"] + counts["timed_out"]
            return exit_codes.FAILED if failed else exit_codes.OK
        if now - looked_at >= SETTLED_SECONDS:
            looked_at = now
            if why := why_over(store, options, counts, still=now - changed_at):
                tell_unreadable(store)
                print(why, file=sys.stderr)
                return exit_codes.FAILED
        if deadline is not None and now >= deadline:
            return exit_codes.FAILED
        clock.sleep(options.interval)


def why_over(
    store: JobStore[JobRecord], options: argparse.Namespace, counts: Counter[str], *, still: float
) -> str:
    """Why nothing will change any more; empty while a run or a worker may be at work.

    A run shows in the heartbeat of the batch's folder, a worker elsewhere in the lease of its job,
    and both in counts that change; `still` are the seconds since they did.
    """
    batch_id = options.batch_id
    running = list(store.iter_runs(batch_id, status=JobStatus.RUNNING))
    if next(iter(store.iter_runs(batch_id, status=JobStatus.PENDING)), None) is None:
        if running and all(record.is_abandoned() for record in running):
            number = plural(len(running), "running job")
            return f"{number} abandoned a day ago or more; free them: retry"
        unreadable = getattr(store, "unreadable", ())
        if not running and any(job.batch_id == batch_id for job in unreadable):
            return "what has not ended cannot be read: no worker takes it"
    heartbeat = read_heartbeat(options.out / batch_id)
    ran_here = heartbeat.timestamp is not None
    lives = heartbeat.state in (HeartbeatState.ALIVE, HeartbeatState.STALLED)
    if lives or still < (SETTLED_SECONDS if ran_here else LOOK_SECONDS):
        return ""
    # What the dead run had at work has no lease.
    if any(is_held(record) and (record.lease_until or not ran_here) for record in running):
        return ""
    now = clock.utc_now()
    pending = store.iter_runs(batch_id, status=JobStatus.PENDING)
    if any(record.not_before is not None and record.not_before > now for record in pending):
        return ""  # a worker waits for it
    why = heartbeat.reason if ran_here else f"nothing has changed for {still:.0f} s"
    left = ", ".join(f"{counts[name]} {name}" for name in ("pending", "running") if counts[name])
    return (
        f"no run is at work on batch {batch_id!r} ({why}), and {left} will stay so; go on with: "
        f"infra-core run ... --batch-id {batch_id} --resume"
    )


def print_counts(counts: Counter[str], *, as_json: bool) -> None:
    """Print one look at a batch: a line of text or of JSON."""
    named = {status.value: counts[status.value] for status in JobStatus}
    now = clock.utc_now().isoformat(timespec="seconds")
    if as_json:
        print(json.dumps({"time": now, **named}), flush=True)
    else:
        text = "  ".join(f"{name} {count}" for name, count in named.items() if count)
        print(f"{now}  {text}", flush=True)
