"""Workers that are killed in mid-job: at the end every job is accounted for, done exactly once.

Short here; `INFRA_CORE_SOAK_JOBS` makes it longer.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

from infra_core.azure.job_store import (
    AzureTableJobStore,
    JobRecord,
    JobStatus,
    JobStore,
    SqliteJobStore,
    TableConfig,
    open_job_store,
)
from infra_core.azure.testing import AzuriteServer

_JOBS = int(os.environ.get("INFRA_CORE_SOAK_JOBS", "60"))
_LEASE = 3.0

# Claims, works, records what it did and completes. Every seventh job of the first attempt fails.
_WORKER = """
import json, os, sys, threading
from infra_core.azure.exceptions import JobConflictError
from infra_core.azure.job_store import JobStatus, open_job_store
from infra_core.runtime import clock

name, env, path, lease = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], float(sys.argv[4])
store = open_job_store(env, sqlite_path=path)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # whole lines, from any thread

def work(thread):
    while True:
        job = store.claim("batch", worker=f"{name}-{thread}", lease_seconds=lease)
        if job is None:
            left = {JobStatus.PENDING, JobStatus.RUNNING}
            if next(iter(store.iter_runs("batch", status=left)), None) is None:
                return
            clock.sleep(0.05)
            continue
        say("claimed", job.job_id, job.attempts)
        try:
            if int(job.job_id) % 7 == 0 and job.attempts == 1:
                store.update(job.requeue())
            else:
                store.update(job.complete(by=name))
                say("completed", job.job_id)
        except JobConflictError:
            say("lost", job.job_id)

threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
store.close()
"""

_VICTIM = """
import json, sys
from infra_core.azure.job_store import open_job_store
store = open_job_store(json.loads(sys.argv[2]), sqlite_path=sys.argv[3])
for _ in range(3):
    print("claimed", store.claim("batch", worker="victim", lease_seconds=float(sys.argv[4])).job_id)
print("holding", flush=True)
sys.stdin.read()
"""


def _start(script: str, name: str, env: dict[str, str], path: Path) -> "subprocess.Popen[str]":
    import json

    command = [sys.executable, "-c", script, name, json.dumps(env), str(path), str(_LEASE)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _run(env: dict[str, str], path: Path) -> None:
    with open_job_store(env, sqlite_path=path) as store:
        store.save_many(JobRecord("batch", f"{n:04}") for n in range(_JOBS))
    victim = _start(_VICTIM, "victim", env, path)
    assert victim.stdout is not None
    held = []
    while (line := victim.stdout.readline().split())[0] == "claimed":
        held.append(line[1])
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    workers = [_start(_WORKER, f"worker-{n}", env, path) for n in range(2)]
    lines = [line.split() for w in workers for line in w.communicate(timeout=50)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0]
    completed = Counter(line[1] for line in lines if line[0] == "completed")
    with open_job_store(env, sqlite_path=path) as store:
        _check(store, completed, held)


def _check(store: JobStore[JobRecord], completed: Counter[str], held: list[str]) -> None:
    jobs = {job.job_id: job for job in store.iter_runs("batch")}
    assert len(jobs) == _JOBS
    assert {job.status for job in jobs.values()} == {JobStatus.COMPLETED}
    assert completed == Counter(dict.fromkeys(jobs, 1))
    assert len(held) == 3
    for job_id in held:  # the killed worker's attempt is counted
        assert jobs[job_id].attempts >= 2
    for job_id, job in jobs.items():
        if job_id not in held:
            assert job.attempts >= (2 if int(job_id) % 7 == 0 else 1)
        assert job.lease_owner is None


def test_jobs_of_a_killed_worker_are_finished_by_others_embedded(tmp_path: Path) -> None:
    """Two processes of two threads each, after one that was killed with three jobs in hand."""
    _run({}, tmp_path / "jobs.sqlite3")
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        assert store.claim("batch", worker="late", lease_seconds=1) is None


def test_jobs_of_a_killed_worker_are_finished_by_others_in_azure(
    azurite: AzuriteServer, tmp_path: Path
) -> None:
    """The same through a real table."""
    table = f"soak{uuid.uuid4().hex[:12]}"
    env = {"AZURE_JOB_TABLE": table, "AZURE_JOB_CONNECTION": azurite.connection_string}
    _run(env, tmp_path / "unused.sqlite3")
    assert not (tmp_path / "unused.sqlite3").exists()
    with AzureTableJobStore(config=TableConfig(azurite.connection_string, table)) as store:
        left = store.iter_runs("batch", status=[JobStatus.PENDING, JobStatus.RUNNING])
        assert list(left) == []
