"""Answers that get lost between Azurite and the Table stores: what was written is not denied."""

import asyncio
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ServiceResponseError

from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableJobStore,
    JobExistsError,
    JobRecord,
    JobStatus,
    TableConfig,
    WorkSummary,
    _table,
    reset_table_client_cache,
    work_batch,
    work_batch_async,
)
from infra_core.azure.job_store._table_rows import CLIENT_OPTIONS
from infra_core.azure.testing import AzuriteServer

_METHODS = (b"GET ", b"POST ", b"PUT ", b"DELETE ")


class _Proxy:
    """Hands bytes on to Azurite; when `lose` is set, it drops the next answer to a write.

    With `every`, it breaks each so many-eth request: in turns before it arrives, and after.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{parts.path}"
        self.lose: str | None = None  # the request line's beginning
        self.before = False
        self.every = 0
        self.broken = 0
        self._requests = count(1)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            lost = threading.Event()

            def answers() -> None:
                try:
                    while data := server.recv(65536):
                        if lost.is_set():
                            client.shutdown(socket.SHUT_RDWR)
                            return
                        client.sendall(data)
                except OSError:
                    return

            reader = threading.Thread(target=answers, daemon=True)
            reader.start()
            try:
                while data := client.recv(65536):
                    new = self.every and data.startswith(_METHODS)
                    if new and next(self._requests) % self.every == 0:
                        self.broken += 1
                        self.lose, self.before = "", bool(self.broken % 2)
                    if self.lose is not None and data.startswith(self.lose.encode()):
                        self.lose = None
                        if self.before:
                            client.shutdown(socket.SHUT_RDWR)
                            break
                        lost.set()
                    server.sendall(data)
            except OSError:
                pass
            with suppress(OSError):  # the server may have closed it
                server.shutdown(socket.SHUT_RDWR)
            reader.join()

    def done(self) -> bool:
        """Whether an answer was dropped as asked."""
        return self.lose is None

    def close(self) -> None:
        self._listener.close()


@contextmanager
def _lossy(azurite: AzuriteServer) -> Iterator[tuple[_Proxy, TableConfig]]:
    proxy = _Proxy(azurite.table_url)
    try:
        connection = azurite.connection_string_for(table_url=proxy.url)
        yield proxy, TableConfig(connection, f"lossy{uuid.uuid4().hex[:12]}")
    finally:
        proxy.close()
        reset_table_client_cache()


def test_writes_whose_answers_were_lost_are_ours(azurite: AzuriteServer) -> None:
    """Create and update succeed; a second create of the job is refused all the same."""
    with _lossy(azurite) as (proxy, config), AzureTableJobStore(config=config) as store:
        assert store.fetch("batch", "job") is None
        proxy.lose = "POST"
        job = store.create(JobRecord("batch", "job"))
        assert proxy.done()
        proxy.lose = "PUT"
        job = store.update(job.start())
        assert proxy.done()
        job = store.update(job.complete())
        stored = store.fetch("batch", "job")
        assert stored is not None
        assert stored.status is JobStatus.COMPLETED
        with pytest.raises(JobExistsError):
            store.create(JobRecord("batch", "job"))


def test_a_create_that_did_not_arrive_is_not_claimed(azurite: AzuriteServer) -> None:
    """The error of the connection comes through, and nothing is there."""
    with _lossy(azurite) as (proxy, config), AzureTableJobStore(config=config) as store:
        assert store.fetch("batch", "job") is None
        proxy.lose, proxy.before = "POST", True
        with pytest.raises(ServiceResponseError):
            store.create(JobRecord("batch", "job"))
        assert store.fetch("batch", "job") is None


def test_the_async_store_knows_its_writes_as_well(azurite: AzuriteServer) -> None:
    """The same steps, awaited."""

    async def write() -> JobRecord | None:
        async with AsyncAzureTableJobStore(config=config) as store:
            await store.fetch("batch", "job")
            proxy.lose = "POST"
            job = await store.create(JobRecord("batch", "job"))
            proxy.lose = "PUT"
            await store.update(job.start())
            return await store.fetch("batch", "job")

    with _lossy(azurite) as (proxy, config):
        job = asyncio.run(write())
        assert proxy.done()
        assert job is not None
        assert job.attempts == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_batch_is_done_once_though_every_fifth_request_is_broken(
    azurite: AzuriteServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Claims, renewals and results: none is lost, and none is taken for somebody else's."""
    options = {**CLIENT_OPTIONS, "retry_backoff_factor": 0.01}
    # Four at a time may have one of theirs broken each time, more often than the usual three.
    options |= dict.fromkeys(("retry_total", "retry_connect", "retry_read"), 12)
    monkeypatch.setattr(_table, "CLIENT_OPTIONS", options)
    done: list[str] = []

    async def work(config: TableConfig) -> WorkSummary:
        async with AsyncAzureTableJobStore(config=config) as store:
            return await work_batch_async(store, "b", handler, concurrency=4)

    def handler(job: JobRecord) -> dict[str, str]:
        done.append(job.job_id)
        return {"by": kind}

    with _lossy(azurite) as (proxy, config), AzureTableJobStore(config=config) as store:
        store.save_many(JobRecord("b", f"{n:02}") for n in range(30))
        proxy.every = 5
        if kind == "sync":
            summary = work_batch(store, "b", handler, concurrency=4)
        else:
            summary = asyncio.run(work(config))
        proxy.every = 0
        assert summary == WorkSummary(completed=30)
        assert sorted(done) == [f"{n:02}" for n in range(30)]
        assert [job.attempts for job in store.iter_runs("b", status="completed")] == [1] * 30
        assert proxy.broken > 10
