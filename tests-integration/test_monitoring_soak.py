"""Threads, event loops, faults everywhere and kill -9: at the end nothing is unaccounted for.

Every line whose `write` returned is on the disk and, once, in the mirror. Every event is delivered,
counted as dropped with a reason, or, of killed processes, at least on record in the journal.
"""

import json
import os
import random
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from infra_core.azure.monitoring import HeartbeatState, RunLogWriter, read_heartbeat
from infra_core.azure.monitoring.testing import IngestionServer, Reply, reply
from infra_core.azure.testing import AzuriteServer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs kill -9")

LINES = 150
THREADS = 3

WORKER = """
import asyncio, json, os, random, sys, threading
from pathlib import Path
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.storage.blob import ContainerClient
from infra_core.azure.monitoring import (
    HeartbeatMonitor, RunLogWriter, TelemetryClient, TelemetryConfig,
)
from infra_core.azure.monitoring._sender import SenderLimits
from infra_core.runtime import RetryPolicy

root, ingestion, azurite, container_name, name, lines, threads = sys.argv[1:]
root, lines, threads = Path(root), int(lines), int(threads)
chance = random.Random(name)
acks = os.open(root / "acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Flaky:
    # Fails before the service has seen a request, or after, when its answer is lost.
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, method):
        target = getattr(self._inner, method)

        def call(*args, **options):
            luck = chance.random()
            if luck < 0.15:
                raise ServiceRequestError("the network is down")
            result = target(*args, **options)
            if luck > 0.85:
                raise ServiceResponseError("the answer was lost")
            return result

        return call


class Container:
    def __init__(self):
        self._inner = ContainerClient.from_connection_string(azurite, container_name)

    def get_blob_client(self, blob):
        return Flaky(self._inner.get_blob_client(blob))


class Client:
    def is_configured(self):
        return True

    def container(self):
        return Container()

    def blob_name_for_path(self, path):
        return "_logs/" + path.name


log = RunLogWriter(root, azure_client=Client(), max_bytes=200_000, mirror_interval=0.02)
telemetry = TelemetryClient(
    config=TelemetryConfig(ingestion),
    service_name=name,
    journal=log,
    limits=SenderLimits(
        batch_seconds=0.01, batch_items=20,
        retry=RetryPolicy(max_retries=3, backoff=0.01, max_backoff=0.2),
    ),
)


def step(source, number):
    identity = f"{name}/{source}/{number}"
    log.write("line", id=identity, text="x" * chance.randrange(300))
    os.write(acks, f"line {identity}\\n".encode())
    if number % 3 == 0:
        telemetry.track_event("progress", slug=identity)
        os.write(acks, f"event {identity}\\n".encode())


def work(source):
    for number in range(lines):
        step(source, number)


async def main():
    with HeartbeatMonitor(root / name, azure_client=None, interval_seconds=0.05) as heartbeat:
        workers = [threading.Thread(target=work, args=(str(n),)) for n in range(threads)]
        for worker in workers:
            worker.start()
        for number in range(lines):
            heartbeat.set_slug(f"item-{number}")
            step("loop", number)
            if number == 75:
                print("in the middle", flush=True)
            await asyncio.sleep(0)
        for worker in workers:
            await asyncio.to_thread(worker.join)


asyncio.run(main())
telemetry.close(30)
stats = telemetry.stats()
mirrored = any(log.flush(2) for attempt in range(40))
print(json.dumps({
    "tracked": stats.tracked, "delivered": stats.delivered, "pending": stats.pending,
    "dropped": dict(stats.dropped_by_reason), "mirrored": mirrored,
}))
"""


@pytest.fixture
def container(azurite: AzuriteServer) -> Iterator[ContainerClient]:
    """A container of this test's own."""
    name = f"soak-{uuid.uuid4().hex[:12]}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        client.create_container()
        yield client


def faults(seed: int) -> Iterator[Reply]:
    """Yield answers of a bad night."""
    chance = random.Random(seed)
    kinds = [
        reply(200),
        reply(503),
        reply(500),
        reply(0),
        reply(429, retry_after="0.02"),
        reply(206, {0: 500, 3: 400}),
        reply(400),
        reply(402),
        reply(439, retry_after="0.01"),
    ]
    for _ in range(200):
        yield chance.choice(kinds)


def acknowledged(root: Path, kind: str) -> list[str]:
    path = root / "acks"
    text = path.read_text() if path.exists() else ""
    # The last line may be torn: its writer was killed while it acknowledged.
    whole = text[: text.rfind("\n") + 1]
    return [line.split(" ", 1)[1] for line in whole.splitlines() if line.startswith(f"{kind} ")]


def parse(line: bytes) -> dict[str, Any] | None:
    """Read a line; `None` for one whose writer was killed in the middle."""
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_nothing_is_unaccounted_for_after_a_bad_night(
    azurite: AzuriteServer, container: ContainerClient, tmp_path: Path
) -> None:
    """Two runs are killed in the middle, one lives; every line and event is accounted for."""
    # The survivor has a night of its own: how many answers the killed ones take is not known.
    with IngestionServer() as first, IngestionServer() as server:
        first.plan(*faults(7))
        server.plan(*faults(7))

        def start(name: str, lines: int, ingestion: IngestionServer) -> subprocess.Popen[str]:
            arguments = (
                str(tmp_path),
                ingestion.connection_string,
                azurite.connection_string,
                str(container.container_name),
                name,
                str(lines),
                str(THREADS),
            )
            return subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(WORKER), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

        killed = [start(f"killed-{number}", 10**9, first) for number in (1, 2)]
        for index, run in enumerate(killed, start=1):
            assert run.stdout is not None
            assert run.stdout.readline() == "in the middle\n"
            run.kill()
            run.communicate()
            status = read_heartbeat(tmp_path / f"killed-{index}")
            assert status.state is HeartbeatState.DEAD, status

        survivor = start("survivor", LINES, server)
        out, errors = survivor.communicate(timeout=150)
        assert survivor.returncode == 0, errors
        assert read_heartbeat(tmp_path / "survivor").state is HeartbeatState.STOPPED

        delivered = {
            item["data"]["baseData"]["properties"]["slug"]: item["tags"]["ai.cloud.role"]
            for item in [*first.items, *server.items]
        }

    # Lines: on the disk each that was acknowledged, in the mirror what is on the disk.
    logs = tmp_path / "_logs"
    segments = [*sorted(logs.glob("run.0*.log")), logs / "run.log"]
    disk = b"".join(path.read_bytes() for path in segments)
    lines = [line for line in map(parse, disk.splitlines()) if line is not None]
    assert len(disk.splitlines()) - len(lines) <= len(killed), "a torn line per kill at most"
    written = [line["id"] for line in lines if line["event"] == "line"]
    assert set(acknowledged(tmp_path, "line")) <= set(written)
    assert len(written) == len(set(written))
    account = json.loads(out.splitlines()[-1])
    assert account["mirrored"]
    assert container.download_blob("_logs/run.log").readall() == disk

    # Events of the survivor: the books balance, and agree with what the server has.
    assert account["pending"] == 0
    assert account["tracked"] == account["delivered"] + sum(account["dropped"].values())
    assert account["tracked"] == (THREADS + 1) * (LINES // 3)
    arrived = [slug for slug, role in delivered.items() if role == "survivor"]
    assert account["delivered"] == len(arrived)
    assert account["dropped"], "it was a bad night"
    # Events of the killed: delivered or in the journal, and none from nowhere.
    journal = {line["slug"] for line in lines if line["event"] == "telemetry"}
    assert set(acknowledged(tmp_path, "event")) <= journal
    assert set(delivered) <= journal


def test_a_log_of_a_killed_run_is_whole_after_the_next(
    container: ContainerClient, tmp_path: Path
) -> None:
    """A torn last line is kept as it is; what follows it is whole, in the mirror as well."""

    class Client:
        def is_configured(self) -> bool:
            return True

        def container(self) -> ContainerClient:
            return container

        def blob_name_for_path(self, path: Path) -> str:
            return f"_logs/{path.name}"

    path = tmp_path / "_logs" / "run.log"
    path.parent.mkdir()
    path.write_bytes(b'{"event": "whole"}\n{"event": "to')
    with RunLogWriter(tmp_path, azure_client=Client()) as log:
        log.write("next")
        assert log.flush(20)
    assert container.download_blob("_logs/run.log").readall() == path.read_bytes()
    assert json.loads(path.read_bytes().splitlines()[2])["event"] == "next"
