"""Workers that share a job store for a long time, while they are killed, frozen and fed.

    python tools/soak.py [--seconds 600] [--workers 8] [--azurite] [--seed N]

Each worker is a process with `work_batch` on four jobs at a time; one handler in fifty fails. Every
three seconds a worker is killed and started anew, or frozen for longer than a lease. What completed
is pruned now and then while the others go on. In the end every job must have completed, once by its
history, and none may be missing. Prints figures, and exits with 1 when something is not so. The
store is a SQLite file unless `--azurite` is given.
"""

import argparse
import asyncio
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from infra_core.azure.job_store import JobRecord, JobStatus, open_job_store, work_batch
from infra_core.azure.testing import AzuriteServer

BATCH = "soak"
LEASE = 4.0
FEED, FEED_AZURITE = 1_000, 150  # jobs that wait at most; it looks at all of them at each claim
CHAOS_SECONDS = 3.0
PRUNE_SECONDS = 30.0


def work(env: dict[str, str], path: str, name: str) -> int:
    """Be a worker until a signal comes."""

    async def handler(job: JobRecord) -> dict[str, str]:
        await asyncio.sleep(random.expovariate(100))
        if random.random() < 0.02:
            raise ConnectionError("one in fifty")
        return {"by": name}

    with open_job_store(env, sqlite_path=path) as store:
        options = {"worker": name, "concurrency": 4, "lease_seconds": LEASE, "max_attempts": 50}
        while work_batch(store, BATCH, handler, retry_seconds=0.1, **options).signal is None:
            time.sleep(0.2)
    return 0


class Soak:
    """The workers, and what is done to them."""

    def __init__(self, env: dict[str, str], path: Path, seconds: float, workers: int) -> None:
        self.feed = FEED_AZURITE if env else FEED
        self.command = [sys.executable, __file__, "--work", json.dumps(env), str(path)]
        self.store = open_job_store(env, sqlite_path=path)
        self.path, self.seconds = path, seconds
        self.started = 0
        self.workers = [self.start() for _ in range(workers)]
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    def start(self) -> "subprocess.Popen[bytes]":
        """Start a worker."""
        self.started += 1
        return subprocess.Popen([*self.command, f"worker-{self.started}"])

    def disturb(self) -> None:
        """Kill a worker, or freeze it for longer than its leases."""
        place = random.randrange(len(self.workers))
        worker = self.workers[place]
        if worker.poll() is not None:
            self.problems.append(f"a worker ended by itself with {worker.returncode}")
        if random.random() < 0.7:
            worker.kill()
            worker.wait()
            self.workers[place] = self.start()
            self.done["kills"] += 1
        else:
            worker.send_signal(signal.SIGSTOP)
            time.sleep(LEASE * 1.5)
            worker.send_signal(signal.SIGCONT)
            self.done["freezes"] += 1

    def check(self, records: Iterable[JobRecord]) -> None:
        """Count jobs that have completed, and look at their histories."""
        for record in records:
            outcomes = Counter(each.outcome for each in record.attempt_history)
            self.done["jobs"] += 1
            self.done["attempts"] += record.attempts
            self.done["lost attempts"] += outcomes["lost"]
            self.done["failed attempts"] += outcomes["failed"]
            once = outcomes["completed"] == 1 and record.attempt_history[-1].outcome == "completed"
            if not once or len(record.attempt_history) != min(record.attempts, 10):
                self.problems.append(f"{record.job_id}: {outcomes} of {record.attempts} attempts")

    def prune(self, age: float) -> None:
        """Check and delete what completed so long ago."""
        until = timedelta(seconds=age)
        limit = JobRecord("", "").created_at - until
        found = list(self.store.iter_runs(BATCH, status=JobStatus.COMPLETED, until=limit))
        self.check(found)
        removed = self.store.prune(older_than=limit, status=JobStatus.COMPLETED, batch_id=BATCH)
        if removed != len(found):
            self.problems.append(f"pruned {removed} jobs of {len(found)}")

    def run(self) -> int:
        """Feed and disturb the workers for the time given, let them end, and judge."""
        began = chaos = prune = said = time.monotonic()
        fed = 0
        while (now := time.monotonic()) - began < self.seconds:
            waiting = self.store.count_by_status(BATCH).get("pending", 0)
            new = max(self.feed - waiting, 0)
            self.store.save_many(JobRecord(BATCH, f"{fed + n:08}") for n in range(new))
            fed += new
            if now - chaos >= CHAOS_SECONDS:
                chaos = now
                self.disturb()
            if now - prune >= PRUNE_SECONDS:
                prune = now
                self.prune(age=10.0)
            if now - said >= 60:
                said = now
                print(f"{now - began:4.0f} s: {fed} jobs fed, {dict(self.done)}", flush=True)
            time.sleep(0.2)
        deadline = time.monotonic() + 120
        while self.store.count_by_status(BATCH).keys() - {"completed"}:
            if time.monotonic() > deadline:
                self.problems.append(f"left over: {self.store.count_by_status(BATCH)}")
                break
            time.sleep(0.5)
        took = time.monotonic() - began
        for worker in self.workers:
            worker.terminate()
        codes = Counter(worker.wait() for worker in self.workers)
        if codes.keys() - {0, -signal.SIGTERM}:  # the signal itself, between two batches
            self.problems.append(f"exit codes of the workers: {dict(codes)}")
        self.prune(age=-60.0)
        if self.done["jobs"] != fed:
            self.problems.append(f"{fed} jobs were fed, {self.done['jobs']} completed")
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.name}*"))
        print(f"{took:.0f} s, {len(self.workers)} workers: {dict(self.done)}")
        print(f"{self.done['jobs'] / took:.0f} jobs a second; {size / 1024:.0f} KiB left on disk;")
        print(f"CPU of the workers that ended: {cpu.ru_utime + cpu.ru_stime:.0f} s")
        print("\n".join(self.problems[:20]) or "every job completed once")
        self.store.close()
        return int(bool(self.problems))


def main() -> int:
    """Run, or be one of the workers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--azurite", action="store_true", help="a table in place of a SQLite file")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(json.loads(options.work[0]), *options.work[1:])
    random.seed(options.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        env = {}
        if options.azurite:
            server = stack.enter_context(AzuriteServer())
            env = {"AZURE_JOB_TABLE": "soak", "AZURE_JOB_CONNECTION": server.connection_string}
        return Soak(env, folder / "jobs.sqlite3", options.seconds, options.workers).run()


if __name__ == "__main__":
    raise SystemExit(main())
