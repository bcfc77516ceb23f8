"""The main job on a Dask cluster: a scheduler, two workers as processes, one killed, Azurite."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest

from infra_core.azure.job_store import JobRecord, JobStatus, SqliteJobStore
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
from infra_core.azure.testing import AzuriteServer
from infra_core.http.testing import FaultyOrigin, slow

pytest.importorskip("distributed")
pytestmark = pytest.mark.timeout(180)


def clean_env(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "APPLICATIONINS"))}
    settings = {
        "PYTHONUNBUFFERED": "1",
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",
        "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
    }
    return kept | settings | extra


def line_with(stream: IO[str], pattern: str) -> str:
    """Wait for a line; the process's other lines are passed over."""
    for line in stream:
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError(f"the process ended before it printed {pattern}")


class Cluster:
    """A scheduler and workers, each a process of its own, as an operator starts them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder
        scheduler = self._spawn("dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                                "--no-dashboard", "--no-show")  # fmt: skip
        assert scheduler.stderr is not None
        self.scheduler = scheduler
        self.address = line_with(scheduler.stderr, r"Scheduler at:\s+(tcp://\S+)")
        self.workers = [self._worker() for _ in range(2)]

    def _spawn(self, module: str, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            stderr=subprocess.PIPE, env=clean_env(), text=True, cwd=self._folder,
        )  # fmt: skip

        def end() -> None:
            process.kill()
            process.communicate(timeout=30)

        self._stack.callback(end)
        return process

    def _worker(self) -> "subprocess.Popen[str]":
        worker = self._spawn(
            "dask_worker", self.address, "--no-nanny", "--nthreads", "1", "--no-dashboard",
            "--local-directory", str(self._folder), "--host", "127.0.0.1",
        )  # fmt: skip
        assert worker.stderr is not None
        line_with(worker.stderr, r"(Registered to):")
        return worker


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    with ExitStack() as stack:
        yield Cluster(stack, folder)


def start(out: Path, urls: list[str], env: dict[str, str], *more: str) -> "subprocess.Popen[str]":
    listed = out.parent / "urls.txt"
    listed.write_text("\n".join(urls))
    return subprocess.Popen(
        [sys.executable, "-m", "infra_core.cli", "run", str(listed), "--batch-id", "b", "--out",
         str(out), "--json", "--concurrency", "4", *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True,
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    summary: dict[str, Any] = json.loads(out)
    return summary


def body_of(number: int) -> bytes:
    return f"file {number} ".encode() * 400


def test_a_killed_worker_costs_its_shard_and_no_byte(
    cluster: Cluster, origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """Workers download into scratch folders, mirror and remove; each job is recorded once."""
    for number in range(96):
        origin.add(f"/{number}", body_of(number), always=slow(8_000))
    urls = [origin.url(f"/{number}") for number in range(96)]
    env = clean_env(
        AZURE_STORAGE_CONTAINER="dask-batch",
        AZURE_STORAGE_CONNECTION_STRING=azurite.connection_string,
    )
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    process = start(out, urls, env, "--dask", cluster.address, "--scratch", str(scratch))
    deadline = time.monotonic() + 60
    while sum(origin.count(f"/{number}") for number in range(96)) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
    cluster.workers[0].send_signal(signal.SIGKILL)
    summary = finish(process)
    assert (summary["succeeded"], summary["mirrored"], summary["failed"]) == (96, 96, 0)
    with SqliteJobStore(out / "jobs.sqlite3") as store:
        records: list[JobRecord] = list(store.iter_runs("b"))
    assert len(records) == 96
    assert {record.status for record in records} == {JobStatus.COMPLETED}
    settings, mode = AzureStorageSettings.from_env(env=env)
    back = tmp_path / "back"
    client = AzureStorageClient.from_settings(settings, mode, base_path=back)
    try:
        client.download_tree(back / "b" / "assets")
    finally:
        client.close()
    for record in records:
        number = int(str(record.payload["url"]).rpartition("/")[2])
        assert (back / "b" / str(record.payload["path"])).read_bytes() == body_of(number)
    finished = [path for path in scratch.rglob("*") if path.is_file() and ".part" not in path.name]
    assert finished == []


def test_a_shared_folder_needs_no_storage(
    cluster: Cluster, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Without --scratch the workers write where the coordinator looks."""
    for number in range(10):
        origin.add(f"/{number}", body_of(number))
    urls = [origin.url(f"/{number}") for number in range(10)]
    out = tmp_path / "out"
    assert finish(start(out, urls, clean_env(), "--dask", cluster.address))["succeeded"] == 10
    summary = finish(start(out, urls, clean_env(), "--dask", cluster.address, "--resume"))
    assert (summary["skipped"], summary["succeeded"]) == (10, 0)


def test_workers_begin_no_download_once_the_run_is_asked_to_end(
    cluster: Cluster, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """They have four shards by then, which would take them 20 s."""
    for number in range(128):
        origin.add(f"/{number}", body_of(number), always=slow(4_000))
    urls = [origin.url(f"/{number}") for number in range(128)]
    process = start(tmp_path / "out", urls, clean_env(), "--dask", cluster.address, "--grace", "60")
    deadline = time.monotonic() + 60
    while not any(origin.count(f"/{number}") for number in range(128)):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, out + err
    summary = json.loads(out)
    begun = sum(origin.count(f"/{number}") for number in range(128))
    assert begun == summary["succeeded"] < 128
    assert (summary["pending"], summary["failed"]) == (summary["total"] - begun, 0)


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With how to start one."""
    env = clean_env(DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s")
    process = start(tmp_path / "out", ["http://x.invalid/"], env, "--dask", "tcp://127.0.0.1:9")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, out + err
    assert "dask scheduler" in err
    assert "Traceback" not in err
