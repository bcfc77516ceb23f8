"""A worker that is killed in mid-job: others finish its jobs, and every job is done exactly once.

Short here; `tools/soak.py` is the long one.
"""

import json
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra_core.azure.job_store import JobRecord, open_job_store, work_batch
from infra_core.azure.testing import AzuriteServer
from infra_core.runtime import clock

_JOBS = 30
_LEASE = 1.5

_VICTIM = """
import json, sys
from infra_core.azure.job_store import open_job_store
store = open_job_store(json.loads(sys.argv[1]), sqlite_path=sys.argv[2])
for _ in range(3):
    print(store.claim("batch", worker="victim", lease_seconds=float(sys.argv[3])).job_id)
print("holding", flush=True)
sys.stdin.read()
"""


def _killed_with_jobs_in_hand(env: dict[str, str], path: Path) -> set[str]:
    command = [sys.executable, "-c", _VICTIM, json.dumps(env), str(path), str(_LEASE)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        held = set()
        while (line := victim.stdout.readline().strip()) != "holding":
            held.add(line)
        victim.send_signal(signal.SIGKILL)
    return held


def _run(env: dict[str, str], path: Path) -> None:
    def handler(job: JobRecord) -> dict[str, str | None]:
        if int(job.job_id) % 7 == 0 and job.attempts == 1:
            raise ConnectionError("once")
        return {"by": job.lease_owner}

    def worker(name: str) -> int:
        completed = 0
        with open_job_store(env, sqlite_path=path) as store:
            while store.count_by_status("batch").keys() - {"completed"}:
                completed += work_batch(
                    store, "batch", handler, worker=name, lease_seconds=_LEASE, concurrency=2,
                    max_attempts=99, retry_seconds=0, poll_seconds=0.05,
                ).completed  # fmt: skip
                clock.sleep(0.05)
        return completed

    with open_job_store(env, sqlite_path=path) as store:
        store.save_many(JobRecord("batch", f"{n:04}") for n in range(_JOBS))
        held = _killed_with_jobs_in_hand(env, path)
        assert len(held) == 3
        with ThreadPoolExecutor(2) as threads:
            assert sum(threads.map(worker, ["one", "two"])) == _JOBS
        jobs = {job.job_id: job for job in store.iter_runs("batch")}
    assert len(jobs) == _JOBS
    for job_id, job in jobs.items():
        outcomes = [each.outcome for each in job.attempt_history]
        assert outcomes.count("completed") == 1
        assert job.lease_owner is None
        if job_id in held:  # the killed worker's attempt is counted
            assert (outcomes[0], job.attempt_history[0].worker) == ("lost", "victim")
        elif int(job_id) % 7 == 0:
            assert "failed" in outcomes or "lost" in outcomes


def test_jobs_of_a_killed_worker_are_finished_by_others_embedded(tmp_path: Path) -> None:
    """In a SQLite file."""
    _run({}, tmp_path / "jobs.sqlite3")


def test_jobs_of_a_killed_worker_are_finished_by_others_in_azure(
    azurite: AzuriteServer, tmp_path: Path
) -> None:
    """The same through a real table."""
    table = f"soak{uuid.uuid4().hex[:12]}"
    env = {"AZURE_JOB_TABLE": table, "AZURE_JOB_CONNECTION": azurite.connection_string}
    _run(env, tmp_path / "unused.sqlite3")
    assert not (tmp_path / "unused.sqlite3").exists()
