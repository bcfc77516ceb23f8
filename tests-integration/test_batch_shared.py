"""Runs of one batch that share a job table share its work; each has a folder of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from azure.data.tables import UpdateMode

from infra_core.azure.job_store import AzureTableJobStore, JobRecord, JobStatus
from infra_core.azure.testing import AzuriteServer
from infra_core.batch import job_id_of, run_batch
from infra_core.http.testing import FaultyOrigin, slow

COMMAND = [sys.executable, "-m", "infra_core.cli", "run"]


def environment(azurite: AzuriteServer, table: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "APPLICATIONINS"))}
    return kept | {
        "AZURE_JOB_TABLE": table,
        "AZURE_JOB_CONNECTION": azurite.connection_string,
        "PYTHONUNBUFFERED": "1",
    }


def start(urls: Path, out: Path, env: dict[str, str], *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, str(urls), "--batch-id", "b", "--out", str(out), "--resume", "--json", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True,
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=55)
    assert process.returncode == 0, out + err
    summary: dict[str, Any] = json.loads(out)
    return summary


def records(env: dict[str, str]) -> list[JobRecord]:
    with AzureTableJobStore(env=env, record_type=JobRecord) as store:
        return list(store.iter_runs("b"))


def test_two_runs_fetch_each_url_once(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """Both end well, and together they have every file."""
    for number in range(40):
        origin.add(f"/{number}", f"{number}".encode() * 100, always=slow(5_000))
    urls = tmp_path / "urls"
    urls.write_text("\n".join(origin.url(f"/{number}") for number in range(40)))
    env = environment(azurite, "sharedbatch")
    runs = [start(urls, tmp_path / name, env, "--concurrency", "2") for name in ("one", "two")]
    summaries = [finish(run) for run in runs]
    assert [origin.count(f"/{number}") for number in range(40)] == [1] * 40
    assert sum(summary["succeeded"] for summary in summaries) == 40
    assert all(s["succeeded"] + s["elsewhere"] == 40 for s in summaries)
    assert {record.status for record in records(env)} == {JobStatus.COMPLETED}
    files = [path for path in tmp_path.glob("*/b/assets/*/*") if path.is_file()]
    assert len(files) == 40


def test_what_a_killed_run_held_is_taken_over_in_its_folder(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """Its leases have long to go; the folder's lock says that it is dead."""
    for number in range(6):
        origin.add(f"/{number}", b"x" * 5_000, always=slow(500))
    urls = tmp_path / "urls"
    urls.write_text("\n".join(origin.url(f"/{number}") for number in range(6)))
    env = environment(azurite, "killedbatch")
    process = start(urls, tmp_path / "one", env, "--concurrency", "3")
    while origin.count("/0") == 0:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert JobStatus.RUNNING in {record.status for record in records(env)}
    for number in range(6):
        origin.add(f"/{number}", b"x" * 5_000)
    summary = finish(start(urls, tmp_path / "one", env))
    assert (summary["succeeded"], summary["elsewhere"]) == (6, 0)


def test_a_row_that_cannot_be_read_is_left_as_it_is(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """The run does the rest, and says which one it left."""
    urls = [origin.url(f"/{number}") for number in range(3)]
    for number in range(3):
        origin.add(f"/{number}", b"x")
    env = environment(azurite, "unreadablerow")
    with AzureTableJobStore(env=env, record_type=JobRecord) as store:
        store.create(JobRecord("b", job_id_of(urls[0])))
        row = store.client.get_entity("b", job_id_of(urls[0])) | {"attempts": "many"}
        store.client.update_entity(row, mode=UpdateMode.REPLACE)
        store.create(JobRecord("b", job_id_of(urls[1])))
        summary = run_batch(urls, batch_id="b", out=tmp_path, resume=True, env=env)
        assert (summary.succeeded, origin.count("/0")) == (2, 0)
        assert "1 job left as they are: unreadable, " in summary.problems[0]
        assert store.client.get_entity("b", job_id_of(urls[0]))["attempts"] == "many"
