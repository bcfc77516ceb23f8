"""What a storage client does when the way to a real Azurite misbehaves; the table of outcomes.

A proxy between client and Azurite breaks chosen requests: it resets, stalls, answers 503, or lets
the request through and loses the answer, which is the nastiest.
"""

import asyncio
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    BlobConflictError,
    IntegrityError,
    StorageConnectionError,
    StorageRequestError,
    StorageTimeoutError,
    TransferOptions,
    TreeTransferError,
)
from infra_core.azure.testing import AzuriteServer
from infra_core.runtime.testing import fast_time

OPTIONS = TransferOptions(
    backoff=0.01, max_backoff=0.05, timeout=30.0, connect_timeout=30.0, max_retries=3
)


@dataclass
class FaultProxy:
    """Forwards to Azurite; uses up one fault per request that `match` picks."""

    upstream: str
    faults: list[str] = field(default_factory=list)
    match: Callable[[str], bool] = lambda line: True
    seen: list[str] = field(default_factory=list)
    broken: int = 0
    tasks: set[Any] = field(default_factory=set)

    def start(self) -> "FaultProxy":
        ready = threading.Event()
        self.loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(
                asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 26)
            )
            self.port = self.server.sockets[0].getsockname()[1]
            ready.set()
            self.loop.run_forever()
            # a closed server loses what asyncio has accepted and not set up yet
            self.loop.remove_reader(self.server.sockets[0].fileno())
            for _ in range(5):
                self.loop.run_until_complete(asyncio.sleep(0))
            self.server.close()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for _ in range(3):  # transports close in the turns that follow
                self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{urlsplit(self.upstream).path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.tasks.add(task)  # Python 3.10 holds it by a weak reference only
        try:
            while head := await self.head(reader):
                body = await reader.readexactly(self.length(head))
                line = head.partition(b"\r\n")[0].decode()
                self.seen.append(line)
                fault = ""
                if self.faults and self.match(line):
                    fault = self.faults.pop(0)
                    self.broken += bool(fault)
                if not await self.answer(fault, head, body, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            writer.close()
            self.tasks.discard(task)

    async def answer(
        self, fault: str, head: bytes, body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "stall":
            await asyncio.Event().wait()
        if fault in ("503", "429"):
            writer.write(
                f"HTTP/1.1 {fault} Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".encode()
            )
            return True
        if fault == "patient":
            writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")
            return True
        answer = await self.forward(head, body)
        if fault == "lost":
            writer.transport.abort()
            return False
        if fault == "short":
            writer.write(answer[:-1])
            await writer.drain()
            return False
        if fault == "corrupt":
            answer = answer[:-1] + bytes([answer[-1] ^ 1])
        writer.write(answer)
        await writer.drain()
        return True

    async def forward(self, head: bytes, body: bytes) -> bytes:
        """A whole answer of Azurite's, with a length instead of chunks."""
        parts = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 26)
        try:
            writer.write(head + body)
            await writer.drain()
            answer = await self.head(reader)
            if head.startswith(b"HEAD"):
                return answer
            if b"chunked" in answer.lower():
                content = b""
                while size := int(await reader.readline(), 16):
                    content += await reader.readexactly(size)
                    await reader.readline()
                lines = [li for li in answer.split(b"\r\n") if b"chunked" not in li.lower()]
                lines.insert(1, b"Content-Length: %d" % len(content))
                return b"\r\n".join(lines) + content
            return answer + await reader.readexactly(self.length(answer))
        finally:
            writer.close()

    async def head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    @staticmethod
    def length(head: bytes) -> int:
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return int(line.partition(b":")[2])
        return 0


@pytest.fixture
def proxy(azurite: AzuriteServer) -> Iterator[FaultProxy]:
    made = FaultProxy(azurite.blob_url).start()
    yield made
    made.stop()


Make = Callable[..., AzureStorageClient]


@pytest.fixture
def make(azurite: AzuriteServer, proxy: FaultProxy, tmp_path: Path) -> Iterator[Make]:
    container = f"faults-{uuid.uuid4().hex[:12]}"
    made: list[AzureStorageClient] = []

    def build(
        mode: Any = "strict", *, direct: bool = False, fault: str = "", **options: Any
    ) -> AzureStorageClient:
        if fault == "stall":  # the only one whose end a client waits for
            options["timeout"] = 1.0
        url = azurite.blob_url if direct else proxy.url
        settings = AzureStorageSettings(
            container,
            azurite.connection_string_for(blob_url=url),
            options=replace(OPTIONS, **options),
            journal=tmp_path / "journal.sqlite",
        )
        client = AzureStorageClient.from_settings(settings, mode, base_path=tmp_path / "base")
        made.append(client)
        return client

    direct = build(direct=True)
    direct.container()
    yield build
    for client in made:
        client.close()


def is_put(line: str) -> bool:
    return line.startswith("PUT")


def is_get(line: str) -> bool:
    return line.startswith("GET") and "comp=list" not in line


PASSING = ["reset", "503", "429", "lost", "stall"]


@pytest.mark.parametrize("overwrite", ["always", "never", "if-unchanged"])
@pytest.mark.parametrize("fault", PASSING)
def test_upload_survives(
    make: Make, proxy: FaultProxy, tmp_path: Path, fault: str, overwrite: Any
) -> None:
    """One fault of each kind costs one retry; a lost answer is recognised by the content."""
    client, path = make(fault=fault), tmp_path / "base" / "a.txt"
    path.parent.mkdir()
    path.write_bytes(b"hello")
    proxy.faults, proxy.match = [fault], is_put
    client.upload_file(path, overwrite=overwrite)
    assert proxy.broken == 1
    found = make(direct=True).stat(path)
    assert found is not None
    assert found.size == 5


@pytest.mark.parametrize("fault", [*PASSING, "short", "corrupt"])
def test_download_survives(make: Make, proxy: FaultProxy, tmp_path: Path, fault: str) -> None:
    """Short and corrupted bytes are noticed and fetched again; the file is right."""
    client, path = make(fault=fault), tmp_path / "base" / "a.bin"
    path.parent.mkdir()
    data = os.urandom(5000)
    path.write_bytes(data)
    client.upload_file(path)
    path.unlink()
    proxy.faults, proxy.match = [fault], is_get
    assert client.download_to_path(path)
    assert proxy.broken == 1
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("hit", ["comp=blocklist", "comp=block&"])
@pytest.mark.parametrize("hashed", [True, False])
def test_upload_in_blocks_survives(
    make: Make, proxy: FaultProxy, tmp_path: Path, fault: str, hit: str, hashed: bool
) -> None:
    """In any block, and in the request that joins them."""
    client, path = make(fault=fault, block_size=4096, block_md5=hashed), tmp_path / "base" / "big"
    path.parent.mkdir()
    data = os.urandom(30_000)
    path.write_bytes(data)
    proxy.faults, proxy.match = (
        ["", fault],
        lambda line: hit in line.replace("comp=block ", "comp=block&"),
    )
    if hit == "comp=blocklist":
        proxy.faults = [fault]
    client.upload_file(path, overwrite="never")
    assert proxy.broken == 1
    path.unlink()
    make(direct=True).download_to_path(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("same", [True, False])
def test_without_hashes_another_upload_is_not_taken_for_ours(
    make: Make, tmp_path: Path, same: bool
) -> None:
    """Of the same size, and even of the same content: only the blocks show whose it is."""
    client, path = make(block_size=4096, block_md5=False), tmp_path / "base" / "big"
    path.parent.mkdir()
    data = os.urandom(30_000)
    path.write_bytes(data)
    client.upload_file(path, overwrite="never")
    path.write_bytes(data if same else os.urandom(30_000))
    with pytest.raises(BlobConflictError):
        client.upload_file(path, overwrite="never")
    assert client.download_to_path(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("fault", [*PASSING, "short"])
def test_download_in_ranges_survives_without_hashes(
    make: Make, proxy: FaultProxy, tmp_path: Path, fault: str
) -> None:
    """Length, range and ETag are checked still, and no range is fetched for its hash."""
    client = make(fault=fault, block_size=4096, block_md5=False)
    path = tmp_path / "base" / "big"
    path.parent.mkdir()
    data = os.urandom(30_000)
    path.write_bytes(data)
    client.upload_file(path)
    found = client.stat(path)
    assert found is not None
    assert found.md5 is None
    path.unlink()
    proxy.faults, proxy.match = ["", "", fault], is_get
    assert client.download_to_path(path)
    assert proxy.broken == 1
    assert path.read_bytes() == data
    assert len([line for line in proxy.seen if is_get(line)]) == 9  # 8 ranges, one of them twice


@pytest.mark.parametrize("fault", [*PASSING, "short", "corrupt"])
def test_download_in_ranges_survives(
    make: Make, proxy: FaultProxy, tmp_path: Path, fault: str
) -> None:
    """In the middle of a large file, too."""
    client, path = make(fault=fault, block_size=4096), tmp_path / "base" / "big"
    path.parent.mkdir()
    data = os.urandom(30_000)
    path.write_bytes(data)
    client.upload_file(path)
    path.unlink()
    proxy.faults, proxy.match = ["", "", fault], is_get
    assert client.download_to_path(path)
    assert proxy.broken == 1
    assert path.read_bytes() == data


def put_without_md5(client: AzureStorageClient, name: str, data: bytes) -> None:
    """As uploads in blocks of other tools leave it: the service knows no hash of the whole."""
    from azure.storage.blob import BlobBlock

    container = client.container()
    assert container is not None
    blob = container.get_blob_client(name)
    blob.stage_block("AAAA", data)
    blob.commit_block_list([BlobBlock("AAAA")])
    assert [item.md5 for item in client.iter_tree(Path())] == [None]


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("size", [5000, 30_000])
@pytest.mark.parametrize("fault", [*PASSING, "short", "corrupt"])
def test_download_without_stored_md5_survives(
    make: Make, proxy: FaultProxy, tmp_path: Path, fault: str, size: int, tree: bool
) -> None:
    """Each range is verified by the hash that the service makes of it: no altered byte gets by."""
    client, data = make(fault=fault, block_size=8192), os.urandom(size)
    put_without_md5(make(direct=True), "a.bin", data)
    # Without a listing the first answer only shows that there is no hash.
    proxy.faults, proxy.match = [fault] if tree else ["", fault], is_get
    if tree:
        assert client.sync_tree(tmp_path / "base", "down").transferred == 1
    else:
        assert client.download_to_path(tmp_path / "base" / "a.bin")
    assert proxy.broken == 1
    assert (tmp_path / "base" / "a.bin").read_bytes() == data


def test_empty_blob_without_md5_comes_down(make: Make, tmp_path: Path) -> None:
    """It has no range to hash."""
    client = make(direct=True)
    put_without_md5(client, "empty", b"")
    assert client.download_to_path(tmp_path / "base" / "empty")
    (tmp_path / "base" / "empty").unlink()
    assert client.sync_tree(tmp_path / "base", "down").transferred == 1
    assert (tmp_path / "base" / "empty").read_bytes() == b""


def test_blob_replaced_between_ranges_is_never_mixed(
    make: Make, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The ETag is pinned: a new version in mid-download starts it over."""
    client, path = make(block_size=4096), tmp_path / "base" / "big"
    path.parent.mkdir()
    old, new = os.urandom(30_000), os.urandom(30_000)
    path.write_bytes(old)
    client.upload_file(path)
    other = make(direct=True)
    (tmp_path / "new").write_bytes(new)
    gets = 0

    def replacing(line: str) -> bool:
        nonlocal gets
        if is_get(line):
            gets += 1
            if gets == 4:
                asyncio.run(other.upload_file_async(tmp_path / "new", blob_path="big"))
        return False

    def in_thread(line: str) -> bool:  # the proxy's loop is busy meanwhile, as it should be
        thread = threading.Thread(target=replacing, args=(line,))
        thread.start()
        thread.join()
        return False

    proxy.faults, proxy.match = ["never used"], in_thread
    assert client.download_to_path(path)
    assert path.read_bytes() == new


REFUSALS = [
    (["reset"] * 9, StorageConnectionError),
    (["stall"] * 9, StorageTimeoutError),
    (["503"] * 9, StorageRequestError),
    (["patient"], StorageRequestError),
]


@pytest.mark.parametrize(("faults", "kind"), REFUSALS)
def test_strict_raises_when_it_does_not_pass(
    make: Make, proxy: FaultProxy, tmp_path: Path, faults: list[str], kind: type[Exception]
) -> None:
    """After max_retries, and at once when the service asks for more than the longest wait."""
    client, path = make(fault=faults[0], max_retries=1), tmp_path / "base" / "a"
    proxy.faults, proxy.match = list(faults), is_put
    with fast_time(jitter=0.0), pytest.raises(kind) as raised:
        client.write_text(path, "text")
    assert proxy.broken == (1 if faults == ["patient"] else 2)
    assert path.read_text() == "text"
    assert "'a'" in str(raised.value)


def test_always_corrupt_is_an_error(make: Make, proxy: FaultProxy, tmp_path: Path) -> None:
    """The hash never fits: no file appears, and the error says what came and what is stored."""
    client, path = make(max_retries=1), tmp_path / "base" / "a"
    client.write_text(path, "text")
    path.unlink()
    proxy.faults, proxy.match = ["corrupt"] * 5, is_get
    with pytest.raises(IntegrityError, match="MD5"):
        client.download_to_path(path)
    assert not list(path.parent.iterdir())


def fill(folder: Path, count: int) -> dict[str, bytes]:
    made = {f"sub{i % 3}/f{i:02}": os.urandom(100) for i in range(count)}
    for name, data in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return made


def test_tree_with_a_fault_in_every_third_request(
    make: Make, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Up and down, every byte arrives."""
    client, base = make(), tmp_path / "base"
    files = fill(base, 30)
    kinds = ["reset", "", "", "503", "", "", "lost", "", ""]
    proxy.faults = kinds * 4
    assert client.upload_tree(base).ok
    for name in files:
        (base / name).unlink()
    proxy.faults = [*kinds, "corrupt", "", "", "short", "", ""] * 2
    assert client.download_tree(base)
    assert {name: (base / name).read_bytes() for name in files} == files


def test_best_effort_journals_and_flushes(
    make: Make, proxy: FaultProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be uploaded is kept, and goes up with the next upload that succeeds."""
    client, base = make("best-effort", max_retries=0), tmp_path / "base"
    proxy.faults, proxy.match = ["reset"] * 3, is_put
    client.write_text(base / "a", "first")
    client.upload_text(base / "b", "no file")
    client.write_json(base / "c.json", {})
    assert [entry.blob for entry in client.pending_uploads()] == ["a", "b", "c.json"]
    assert "kept for flush_pending()" in caplog.text
    client.write_text(base / "d", "passes")
    assert client.pending_uploads() == []
    assert client.list_tree(base) == [("a", 5), ("b", 7), ("c.json", 3), ("d", 6)]


def test_raise_on_error_raises_in_best_effort_too(
    make: Make, proxy: FaultProxy, tmp_path: Path
) -> None:
    """And the artifact is in the journal all the same."""
    client = make("best-effort", max_retries=0)
    proxy.faults, proxy.match = ["reset"], is_put
    with pytest.raises(StorageConnectionError):
        client.write_text(tmp_path / "base" / "a", "x", raise_on_error=True)
    assert len(client.pending_uploads()) == 1
    report = client.flush_pending()
    assert (report.uploaded, report.failed) == (1, 0)


def test_failed_tree_is_journalled_file_by_file(
    make: Make, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Only what failed is pending; strict raises with the report, and the rest is up."""
    base = tmp_path / "base"
    fill(base, 9)
    strict = make(max_retries=0)
    proxy.faults, proxy.match = ["reset"] * 2, is_put
    with pytest.raises(TreeTransferError) as raised:
        strict.upload_tree(base)
    assert (raised.value.report.failed, raised.value.report.transferred) == (2, 7)
    assert strict.pending_uploads() == []
    gentle = make("best-effort", max_retries=0)
    proxy.faults = ["reset"]
    report = gentle.upload_tree(base, compare="nothing")
    assert (report.failed, report.transferred) == (1, 8)
    assert [entry.kind for entry in gentle.pending_uploads()] == ["file"]
    assert gentle.flush_pending().uploaded == 1
    assert len(gentle.list_tree(base)) == 9


def test_flush_drops_what_is_gone(make: Make, proxy: FaultProxy, tmp_path: Path) -> None:
    """A local file that was deleted since cannot be uploaded; that is reported, and ends it."""
    client, path = make("best-effort", max_retries=0), tmp_path / "base" / "a"
    proxy.faults, proxy.match = ["reset"], is_put
    client.write_text(path, "x")
    path.unlink()
    assert client.flush_pending().missing == 1
    assert client.pending_uploads() == []


KILLED = """
import os, pathlib, sys, threading
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, TransferOptions
from infra_core.azure.storage import _client_files, _journal, _service
base, step = pathlib.Path(sys.argv[1]), int(sys.argv[2])
settings, _ = AzureStorageSettings.from_env()
client = AzureStorageClient.from_settings(settings, "best-effort", base_path=base)
count = 0

def mortal(owner, name):
    whole = getattr(owner, name)
    def wrapped(*args, **kwargs):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), 9)
        result = whole(*args, **kwargs)
        count += 1
        if count == step:
            os.kill(os.getpid(), 9)
        return result
    setattr(owner, name, wrapped)

mortal(_journal.Journal, "enter")
mortal(_journal.Journal, "settle")
mortal(_client_files, "write_text_atomic")
mortal(_service.BlobService, "send_once")
client.write_text(base / "one.txt", "1")
client.write_text(base / "two.txt", "2")
client.upload_tree(base / "tree")
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 26, 2))
def test_killed_anywhere_loses_nothing(
    make: Make, azurite: AzuriteServer, tmp_path: Path, step: int
) -> None:
    """kill -9 before and after each step: what is on disk is in the container or the journal."""
    base = tmp_path / "base"
    (base / "tree").mkdir(parents=True)
    for i in range(4):
        (base / "tree" / f"{i}").write_text(str(i))
    client = make("best-effort", direct=True)
    assert client.config is not None
    env = {
        **os.environ,
        "AZURE_STORAGE_CONTAINER": client.config.container,
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "AZURE_STORAGE_JOURNAL": str(tmp_path / "journal.sqlite"),
    }
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(base), str(step)],
        env=env, check=False, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode in (0, -9), done.stderr
    # The tree was handed over once its upload began; single files once they stand.
    written = {p.name for p in base.glob("*.txt")}
    begun = any(entry.kind == "tree" for entry in client.pending_uploads())
    there = {name for name, _ in client.list_tree(base)}
    pending = {entry.blob for entry in client.pending_uploads()}
    assert written <= there | pending
    client.flush_pending()
    assert client.pending_uploads() == []
    after = {name for name, _ in client.list_tree(base)}
    assert written <= after
    if begun or any(name.startswith("tree/") for name in there):
        assert {f"tree/{i}" for i in range(4)} <= after
