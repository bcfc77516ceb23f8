"""Heartbeat and run log against a real Azurite."""

import json
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from infra_core.azure.monitoring import HeartbeatMonitor, RunLogWriter
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
from infra_core.azure.testing import AzuriteServer
from infra_core.cli import main

SOON = 20.0


@pytest.fixture
def container(azurite: AzuriteServer) -> Iterator[ContainerClient]:
    """A container of this test's own."""
    name = f"monitoring-{uuid.uuid4().hex[:12]}"
    with ContainerClient.from_connection_string(azurite.connection_string, name) as client:
        client.create_container()
        yield client


@pytest.fixture
def storage(
    azurite: AzuriteServer, container: ContainerClient, tmp_path: Path
) -> Iterator[AzureStorageClient]:
    """A storage client of that container."""
    settings = AzureStorageSettings(
        container=container.container_name, connection_string=azurite.connection_string
    )
    client = AzureStorageClient.from_settings(settings, "strict", base_path=tmp_path)
    yield client
    client.close()


def blobs(container: ContainerClient) -> dict[str, bytes]:
    return {
        blob.name: container.download_blob(blob.name).readall()
        for blob in container.list_blobs()
        if blob.name.startswith("_logs/")
    }


def test_the_heartbeat_in_the_blob_is_the_local_one(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path
) -> None:
    """One format, byte for byte, and the last beat says that the run was stopped."""
    with HeartbeatMonitor(tmp_path, azure_client=storage) as heartbeat:
        heartbeat.set_slug("item-1")
    blob = container.download_blob("_state/heartbeat.json").readall()
    assert blob == (tmp_path / "_state" / "heartbeat.json").read_bytes()
    assert json.loads(blob)["state"] == "stopped"


def test_a_mirrored_heartbeat_is_classified_by_the_clock_of_its_storage(
    storage: AzureStorageClient,
    azurite: AzuriteServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command as a probe on another machine calls it, whatever the run's clock says."""
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", storage.settings.container or "")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    command = ["heartbeat", "--blob", "nightly", "--max-age", "10m"]
    assert main(command) == 6
    for year in (1999, 2099):
        beat = {"timestamp": f"{year}-01-01T00:00:00Z", "slug": "a", "pid": 1, "host": "elsewhere"}
        storage.write_json(tmp_path / "nightly" / "_state" / "heartbeat.json", beat)
        assert main(command) == 0
        assert main(["heartbeat", str(tmp_path / "nightly")]) == 4
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", "no-such-container")
    assert main(command) in (1, 6)
    assert "alive: last beat" in capsys.readouterr().out


def test_the_run_log_is_mirrored_to_an_append_blob(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path
) -> None:
    """The blob holds every byte of the local file, and is of the right kind."""
    with RunLogWriter(tmp_path, azure_client=storage) as log:
        for number in range(5_000):
            log.write("progress", number=number, text="grüße")
        assert log.flush(SOON)
        assert blobs(container) == {"_logs/run.log": log.path.read_bytes()}
    properties = container.get_blob_client("_logs/run.log").get_blob_properties()
    assert str(getattr(properties.blob_type, "value", properties.blob_type)) == "AppendBlob"
    assert 0 < (properties.append_blob_committed_block_count or 0) < 100
    assert properties.content_settings.content_type == "application/x-ndjson"


def test_blobs_roll_at_their_limit_of_blocks(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path
) -> None:
    """The blobs in order hold the lines in order."""
    log = RunLogWriter(tmp_path, azure_client=storage, max_blocks=2, mirror_interval=0.01)
    for number in range(5):
        log.write("progress", number=number)
        assert log.flush(SOON)
    assert log.close(SOON)
    found = blobs(container)
    names = ["_logs/run.log", "_logs/run.000001.log", "_logs/run.000002.log"]
    assert sorted(found) == sorted(names)
    assert b"".join(found[name] for name in names) == log.path.read_bytes()


def test_parts_that_only_the_container_has_are_not_brought_to_a_living_log(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path
) -> None:
    """Their lines are in the file already, and would be sent once more."""
    with RunLogWriter(tmp_path, azure_client=storage, max_blocks=2, mirror_interval=0.01) as log:
        for number in range(5):
            log.write("progress", number=number)
            assert log.flush(SOON)
        report = storage.sync_tree(tmp_path, "down")
        assert (report.transferred, report.kept) == (0, 3)
        log.write("last")
        assert log.flush(SOON)
        assert sum(map(len, blobs(container).values())) == log.path.stat().st_size


def test_a_removed_blob_is_made_again(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path
) -> None:
    """The lines are on the disk still."""
    with RunLogWriter(tmp_path, azure_client=storage, mirror_interval=0.01) as log:
        log.write("first")
        assert log.flush(SOON)
        container.delete_blob("_logs/run.log")
        log.write("second")
        assert log.flush(SOON)
        assert blobs(container) == {"_logs/run.log": log.path.read_bytes()}


@pytest.mark.parametrize("more", [False, True])
def test_a_blob_that_was_replaced_by_one_as_long_is_filled_again(
    more: bool, storage: AzureStorageClient, container: ContainerClient, tmp_path: Path
) -> None:
    """Its ETag is another; where only its metadata is, nothing is sent again."""
    with RunLogWriter(tmp_path, azure_client=storage, mirror_interval=0.01) as log:
        for number in range(3):
            log.write("e", number=number)
            assert log.flush(SOON)
        blob = container.get_blob_client("_logs/run.log")
        blob.set_blob_metadata({"owner": "somebody"})
        log.write("e", number=3)
        assert log.flush(SOON)
        assert blobs(container) == {"_logs/run.log": log.path.read_bytes()}
        theirs = b"x" * (log.path.stat().st_size - 1) + b"\n"
        blob.delete_blob()
        blob.create_append_blob()
        blob.append_block(theirs)
        if more:
            log.write("e", number=4)
        assert log.flush(SOON)
        assert blobs(container) == {"_logs/run.log": theirs + log.path.read_bytes()}


def test_a_blob_before_that_was_restored_is_filled_again(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path
) -> None:
    """In its place: the blobs in order hold the lines in order."""
    with RunLogWriter(tmp_path, azure_client=storage, max_blocks=2, mirror_interval=0.01) as log:
        for number in range(5):
            log.write("e", number=number)
            assert log.flush(SOON)
        blob = container.get_blob_client("_logs/run.log")
        first = blob.download_blob().readall().splitlines(keepends=True)[0]
        blob.delete_blob()
        blob.create_append_blob()
        blob.append_block(first)
        assert log.flush(SOON)
        found = blobs(container)
        names = ["_logs/run.log", "_logs/run.000001.log", "_logs/run.000002.log"]
        assert b"".join(found[name] for name in names) == log.path.read_bytes()


WORKER = """
import os, signal, sys
from pathlib import Path
from infra_core.azure.monitoring import RunLogWriter
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
root, connection_string, container, name, kill = sys.argv[1:]
settings = AzureStorageSettings(container=container, connection_string=connection_string)
client = AzureStorageClient.from_settings(settings, "strict", base_path=Path(root))
log = RunLogWriter(Path(root), azure_client=client, max_bytes=30_000, mirror_interval=0.02)
for number in range(400):
    log.write("e", worker=name, number=number)
    if number == 50:
        log.flush(20)
    if kill == "kill" and number == 300:
        os.kill(os.getpid(), signal.SIGKILL)
client.close() if log.close(20) else sys.exit(3)
"""


def start(root: Path, azurite: AzuriteServer, container: str, name: str, kill: str) -> Any:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(WORKER),
            str(root),
            azurite.connection_string,
            container,
            name,
            kill,
        ]
    )


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_processes_share_the_log_and_the_mirror_through_kills(
    azurite: AzuriteServer,
    container: ContainerClient,
    storage: AzureStorageClient,
    tmp_path: Path,
) -> None:
    """Three writers, two of them killed: the blob has every line once, as the disk has."""
    workers = [
        start(tmp_path, azurite, container.container_name, "a", "live"),
        start(tmp_path, azurite, container.container_name, "b", "kill"),
        start(tmp_path, azurite, container.container_name, "c", "kill"),
    ]
    codes = [worker.wait(55) for worker in workers]
    assert codes == [0, -9, -9]
    with RunLogWriter(tmp_path, azure_client=storage, max_bytes=30_000) as log:
        log.write("the end")
        assert log.flush(SOON)
    segments = [*sorted((tmp_path / "_logs").glob("run.0*.log")), tmp_path / "_logs" / "run.log"]
    disk = b"".join(path.read_bytes() for path in segments)
    assert blobs(container)["_logs/run.log"] == disk
    lines = [json.loads(line) for line in disk.splitlines()]
    written = [(line["worker"], line["number"]) for line in lines[:-1]]
    expected = [("a", n) for n in range(400)]
    expected += [(name, n) for name in "bc" for n in range(301)]
    assert sorted(written) == sorted(expected)
    assert lines[-1]["event"] == "the end"


class Reaching:
    """A storage client that reaches for a given container, there or not."""

    def __init__(self, container: ContainerClient, root: Path) -> None:
        self._container, self._root = container, root

    def is_configured(self) -> bool:
        return True

    def container(self) -> ContainerClient:
        return self._container

    def blob_name_for_path(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def test_an_outage_of_the_mirror_costs_no_line(container: ContainerClient, tmp_path: Path) -> None:
    """The log begins while nothing answers; a later run, with Azurite there, mirrors all of it."""
    denied = (
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=AAAA;"
        "BlobEndpoint=http://127.0.0.1:9/devstoreaccount1"
    )
    with ContainerClient.from_connection_string(denied, container.container_name) as away:
        log = RunLogWriter(tmp_path, azure_client=Reaching(away, tmp_path))
        log.write("during the outage")
        assert not log.close(0.2)
    with RunLogWriter(tmp_path, azure_client=Reaching(container, tmp_path)) as again:
        again.write("after the outage")
        assert again.flush(SOON)
        assert blobs(container) == {"_logs/run.log": again.path.read_bytes()}
    assert len(again.path.read_text().splitlines()) == 2


def numbers(text: bytes) -> list[int]:
    return [json.loads(line)["number"] for line in text.splitlines()]


def kind_of(container: ContainerClient, name: str) -> str:
    kind = container.get_blob_client(name).get_blob_properties().blob_type
    return str(getattr(kind, "value", kind))


@pytest.mark.parametrize("rules", [{}, {"compare": "nothing", "delete": True}])
def test_trees_leave_a_run_log_that_mirrors_itself_alone(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path, rules: dict[str, Any]
) -> None:
    """Up and down of the folder it lives in, while it is written: every line once, in order."""
    (tmp_path / "artifact.txt").write_text("1")
    with RunLogWriter(tmp_path, azure_client=storage) as log:
        for number in range(20):
            log.write("e", number=number)
            if number % 5 == 0:
                report = storage.upload_tree(tmp_path, **rules)
                assert report.ok
            if number % 7 == 0:
                assert log.flush(SOON)
                storage.download_tree(tmp_path, **rules)
        assert log.flush(SOON)
    assert numbers(log.path.read_bytes()) == list(range(20))
    assert blobs(container) == {"_logs/run.log": log.path.read_bytes()}
    assert kind_of(container, "_logs/run.log") == "AppendBlob"
    assert {blob.name for blob in container.list_blobs()} == {"_logs/run.log", "artifact.txt"}
    plan = {step.name: step.action for step in storage.plan_tree(tmp_path, "up")}
    assert plan == {"_logs/run.log": "keep", "artifact.txt": "skip"}


def test_a_folder_that_was_downloaded_goes_on_with_its_log(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path, azurite: AzuriteServer
) -> None:
    """On another machine: the log comes along, its lines are not sent again."""
    with RunLogWriter(tmp_path / "run", azure_client=storage) as log:
        for number in range(5):
            log.write("e", number=number)
    settings = AzureStorageSettings(container.container_name, azurite.connection_string)
    other = tmp_path / "other machine"
    with AzureStorageClient.from_settings(settings, "strict", base_path=other) as client:
        client.download_tree(other / "run")
        with RunLogWriter(other / "run", azure_client=client) as log:
            for number in range(5, 8):
                log.write("e", number=number)
            assert log.flush(SOON)
        assert not client.upload_tree(other / "run").transferred
    text = container.download_blob("run/_logs/run.log").readall()
    assert numbers(text) == list(range(8))
    assert text == log.path.read_bytes()


@pytest.mark.parametrize("same_folder", [True, False])
def test_the_block_blob_of_0_7_goes_on_under_its_name(
    storage: AzureStorageClient, container: ContainerClient, tmp_path: Path, same_folder: bool
) -> None:
    """Its readers find old and new lines in run.log."""
    old = b"".join(b'{"number": %d}\n' % number for number in range(3))
    container.upload_blob("_logs/run.log", old)
    if same_folder:
        (tmp_path / "_logs").mkdir()
        (tmp_path / "_logs" / "run.log").write_bytes(old)
    with RunLogWriter(tmp_path, azure_client=storage) as log:
        log.write("e", number=3)
        assert log.flush(SOON)
    assert numbers(blobs(container)["_logs/run.log"]) == [0, 1, 2, 3]
    assert kind_of(container, "_logs/run.log") == "AppendBlob"
    assert list(blobs(container)) == ["_logs/run.log"]


def test_a_missing_container_is_made_for_the_log(azurite: AzuriteServer, tmp_path: Path) -> None:
    """The mirror asks the service for nothing before it has lines to append."""
    settings = AzureStorageSettings(f"made-{uuid.uuid4().hex[:8]}", azurite.connection_string)
    with (
        AzureStorageClient.from_settings(settings, "strict", base_path=tmp_path) as client,
        RunLogWriter(tmp_path, azure_client=client) as log,
    ):
        log.write("e", number=1)
        assert log.flush(SOON)
        assert client.list_tree(tmp_path) == [("_logs/run.log", log.path.stat().st_size)]
