"""Downloads where time on the disk, file descriptors or the process itself come to their end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest

from infra_core.fs import AtomicFile, FileWriteError
from infra_core.http import DownloadDeadlineError, DownloadDiskError, _stream
from infra_core.http._stream import host_turn
from infra_core.http.aio import AsyncHttpClient
from infra_core.http.assets import (
    AssetDownloadClient,
    CommitGroup,
    DownloadItem,
    DownloadResult,
    download_asset,
    download_asset_async,
    download_many,
    download_many_async,
)
from infra_core.http.download import _many, _transfer
from infra_core.http.testing import FaultyOrigin, delay, status

if TYPE_CHECKING:
    from infra_core.runtime import RetryDetails

BODY = os.urandom(50_000)
LARGE = os.urandom(2_500_000)


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        server.add("/f", BODY)
        server.add("/large", LARGE)
        yield server


@pytest.fixture
def disk_goes_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The disk hangs in each flush until this is set."""
    go = threading.Event()
    real = os.fsync

    def hang(descriptor: int) -> None:
        go.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    return go


async def requests(origin: FaultyOrigin, count: int) -> None:
    """Wait until so many requests have come."""
    while len(origin.requests) < count:  # noqa: ASYNC110 - the server runs in another thread
        await asyncio.sleep(0.01)


# -- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "write", "stat"])
@pytest.mark.parametrize("path", ["/f", "/large"])
async def test_a_deadline_holds_where_the_disk_hangs(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, path: str
) -> None:
    """The call ends with its deadline; when the disk comes back, no file and no part appears."""
    go, ended = threading.Event(), threading.Event()
    dest = tmp_path / "f"

    def hang(real: Any) -> Any:
        def hanging(*args: Any, **options: Any) -> Any:
            go.wait(60)
            return real(*args, **options)

        return hanging

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", hang(os.fsync))
    elif step == "write":
        monkeypatch.setattr(AtomicFile, "write", hang(AtomicFile.write))
    else:  # the look at what is there already
        dest.write_bytes(bytes(1 << 20))
        monkeypatch.setattr(
            "infra_core.http.download._identity.compute_checksum", hang(lambda *_: ended.set())
        )
    tasks = asyncio.all_tasks()
    started = time.monotonic()
    with pytest.raises(DownloadDeadlineError, match="longer deadline"):
        await download_asset_async(origin.url(path), dest, deadline=0.3)
    assert time.monotonic() - started < 30
    go.set()
    left = asyncio.all_tasks() - tasks
    if left:
        await asyncio.wait(left)
    names = [entry.name for entry in tmp_path.iterdir()]
    assert names == (["f"] if step == "stat" else [])


async def test_a_cancelled_download_with_a_deadline_waits_for_its_thread(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left when the cancellation is through."""
    begun, go = threading.Event(), threading.Event()
    real = os.fsync

    def hang(descriptor: int) -> None:
        begun.set()
        go.wait(60)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    task = asyncio.ensure_future(
        download_asset_async(origin.url("/f"), tmp_path / "f", deadline=60)
    )
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("when", ["at exit", "after the main thread"])
def test_downloads_work_while_the_interpreter_ends(
    origin: FaultyOrigin, tmp_path: Path, when: str
) -> None:
    """From an exit handler, and from a thread that outlives the main one."""
    code = """
        import atexit, sys, threading
        from pathlib import Path
        from infra_core.http.assets import download_asset, download_many
        url, folder, when = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
        def go():
            result = download_asset(url, folder / "f", max_retries=0)
            outcomes = download_many([(url, folder / str(n)) for n in range(5)], max_retries=0)
            print(result.size, sum(outcome.ok for outcome in outcomes), flush=True)
        if when == "at exit":
            atexit.register(go)
        else:
            main = threading.current_thread()
            threading.Thread(target=lambda: (main.join(), go())).start()
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", lines, origin.url("/f"), str(tmp_path), when],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{len(BODY)} 5\n", done.stderr


# -- file descriptors ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("many", [True, False])
def test_too_many_open_files_are_waited_for(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, many: bool
) -> None:
    """Load, and no fault of the disk: tried again; named when it does not end."""
    failures = iter([True, True])
    real = AtomicFile.__init__

    def full(self: AtomicFile, path: Path, **options: Any) -> None:
        if next(failures, False):
            self._descriptor, self._owner = None, 0
            raise FileWriteError(number, os.strerror(number), str(path))
        real(self, path, **options)

    monkeypatch.setattr(AtomicFile, "__init__", full)
    if many:
        (outcome,) = download_many([(origin.url("/f"), tmp_path / "f")], backoff=0.001)
        result = outcome.unwrap()
    else:
        result = download_asset(origin.url("/f"), tmp_path / "f", backoff=0.001)
    assert result.attempts == 3
    assert (tmp_path / "f").read_bytes() == BODY

    failures = iter([True] * 100)
    with pytest.raises(DownloadDiskError, match="ulimit -n") as caught:
        download_asset(origin.url("/f"), tmp_path / "g", max_retries=2, backoff=0.001)
    assert caught.value.errno == number


SCARCE = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), int(sys.argv[3])))
from infra_core.http.assets import download_many
base, folder = sys.argv[1], Path(sys.argv[2])
outcomes = download_many(
    [(f"{base}/f?{n}", folder / str(n)) for n in range(150)], concurrency=100, max_retries=8,
    backoff=0.05,
)
for outcome in outcomes:
    if not outcome.ok:
        print(outcome.error)
print(sum(outcome.ok for outcome in outcomes))
"""


@pytest.mark.posix(reason="no such limit")
@pytest.mark.parametrize("limit", [40, 64, 256])
def test_many_downloads_with_few_descriptors(
    origin: FaultyOrigin, tmp_path: Path, limit: int
) -> None:
    """As many at once as the limit allows, and all arrive."""
    done = subprocess.run(
        [sys.executable, "-c", SCARCE, origin.url("/").rstrip("/"), str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "150\n", (done.stdout[-2000:], done.stderr[-2000:])
    assert len(list(tmp_path.iterdir())) == 150


BUSY = """
import asyncio, os, resource, sys
from infra_core.http import fetch, fetch_async, request, request_async
from infra_core.runtime import RetryDetails
url = sys.argv[1]
fetch(url)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
def take():
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
def give(details: RetryDetails) -> None:
    if details.attempt == 2:
        print(details.error)
        while taken:
            os.close(taken.pop())
named = url.replace("127.0.0.1", "localhost")
options = {"backoff": 0.01, "max_retries": 2, "on_retry": give}
async def busy(coroutine):
    take()
    await coroutine
    give(RetryDetails(2, 0.0, 0.0, OSError()))
asyncio.run(busy(fetch_async(named, **options)))
asyncio.run(busy(request_async("POST", url, **options)))
for method in ("GET", "POST"):
    take()
    request(method, named, **options)
    give(RetryDetails(2, 0.0, 0.0, OSError()))
print("done")
"""


@pytest.mark.posix(reason="no such limit")
def test_requests_wait_for_descriptors(origin: FaultyOrigin) -> None:
    """Look-ups of names included, which the C library then says it does not know."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY, origin.url("/f")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["done"], (done.stdout, done.stderr[-2000:])
    assert done.stdout.count("ulimit -n") >= 3


@pytest.mark.posix(reason="no such limit")
def test_concurrency_within_the_limit_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is lowered, and the log says so, where there is not enough."""
    import resource

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100_000, 100_000))
    assert _many._within_limit(64) == (64, 128)
    assert caplog.records == []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert _many._within_limit(10**6) == (10**6, 128)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    assert _many._within_limit(64) == (1, 1)
    assert "ulimit -n" in caplog.text


# -- hooks, logs and clients -----------------------------------------------------------------------


async def test_on_retry(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Sync or async, of one download or of many; what it raises ends the download."""
    seen: list[RetryDetails] = []

    async def later(details: RetryDetails) -> None:
        await asyncio.sleep(0)
        seen.append(details)

    for hook in (seen.append, later):
        origin.add("/x", BODY, faults=[status(503), status(500)])
        await download_asset_async(
            origin.url("/x"), tmp_path / "x", on_retry=hook, backoff=0.001, skip_if_exists=False
        )
    assert [details.attempt for details in seen] == [1, 2, 1, 2]
    assert isinstance(seen[0].error, httpx.HTTPStatusError)

    reported: list[tuple[str, int]] = []

    def record(item: DownloadItem, details: RetryDetails) -> None:
        reported.append((item.dest_path.name, details.attempt))

    origin.add("/y", BODY, faults=[status(503)])
    await download_many_async(
        [(origin.url("/f"), tmp_path / "f"), (origin.url("/y"), tmp_path / "y")],
        on_retry=record,
        backoff=0.001,
    )
    assert reported == [("y", 1)]

    def stop(details: RetryDetails) -> None:
        raise KeyError("stop")

    origin.add("/z", BODY, always=status(503))
    with pytest.raises(KeyError):
        await download_asset_async(origin.url("/z"), tmp_path / "z", on_retry=stop)
    assert origin.count("/z") == 1


def test_a_failure_is_logged_once_at_error(
    origin: FaultyOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the text and the fields of 0.7, the URL without secrets."""
    origin.add("/x", BODY, always=status(503))
    with pytest.raises(httpx.HTTPStatusError):
        download_asset(origin.url("/x?sig=S3CRET"), tmp_path / "x", max_retries=1, backoff=0.001)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    fields = vars(record)
    assert record.name == "infra_core.asset_client"
    assert record.getMessage() == "Async download failed"
    assert (fields["attempts"], fields["status"]) == (2, 503)
    assert fields["destination"] == str(tmp_path / "x")
    assert "S3CRET" not in caplog.text + str(fields["url"])


async def test_a_client_of_ones_own(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Its headers, auth and cookies are sent; it stays open; the default agent is its own."""
    async with AsyncHttpClient(
        auth=("me", "pw"), headers={"X-Mine": "1", "User-Agent": "crawler"}, cookies={"a": "b"}
    ) as http:
        async with AssetDownloadClient(client=http) as client:
            await client.download(origin.url("/f"), tmp_path / "f")
            await download_many_async([(origin.url("/f"), tmp_path / "g")], client=client)
        await client.download(origin.url("/f"), tmp_path / "h")
        async with AssetDownloadClient(client=http, user_agent="other") as client:
            await client.download(origin.url("/f"), tmp_path / "i")
    for request in origin.requests:
        assert request.headers["Authorization"].startswith("Basic ")
        assert (request.headers["X-Mine"], request.headers["Cookie"]) == ("1", "a=b")
        assert request.headers["Accept-Encoding"] == "identity"
    assert [r.headers["User-Agent"] for r in origin.requests] == ["crawler"] * 3 + ["other"]
    with pytest.raises(ValueError, match="AsyncHttpClient"):
        AssetDownloadClient(client=httpx.Client())  # type: ignore[arg-type]
    async with httpx.AsyncClient(headers={"X-Mine": "2"}) as plain:
        await AssetDownloadClient(client=plain).download(origin.url("/f"), tmp_path / "j")
    assert origin.requests[-1].headers["X-Mine"] == "2"


async def test_a_subclass_written_for_0_7_still_works(origin: FaultyOrigin, tmp_path: Path) -> None:
    """It knows none of the options that are new."""

    class Mine(AssetDownloadClient):
        async def download(  # type: ignore[override]
            self, url: str, dest_path: Path, *, headers: dict[str, str] | None = None
        ) -> DownloadResult:
            return await super().download(url, dest_path, headers=headers)

    (outcome,) = await download_many_async([(origin.url("/f"), tmp_path / "f")], client=Mine())
    assert outcome.unwrap().size == len(BODY)


# -- many at once ----------------------------------------------------------------------------------


async def test_a_slot_is_free_before_its_file_is_durable(
    origin: FaultyOrigin, tmp_path: Path, disk_goes_on: threading.Event
) -> None:
    """While the first file is flushed the next ones come; no outcome comes before the flush."""
    reported: list[Path] = []
    batch = asyncio.ensure_future(
        download_many_async(
            [(origin.url(f"/f?{n}"), tmp_path / str(n)) for n in range(5)],
            concurrency=1,
            on_outcome=lambda outcome: reported.append(outcome.item.dest_path),
        )
    )
    await requests(origin, 5)
    assert reported == []
    assert not any(path.name.isdigit() for path in tmp_path.iterdir())
    disk_goes_on.set()
    assert [outcome.ok for outcome in await batch] == [True] * 5
    assert len(reported) == 5


async def test_what_waits_for_the_disk_is_bounded(
    origin: FaultyOrigin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk_goes_on: threading.Event,
) -> None:
    """A disk that hangs stops the network after some files."""
    monkeypatch.setattr(_many, "_BYTES", 2 * len(BODY))
    batch = asyncio.ensure_future(
        download_many_async(
            [(origin.url(f"/f?{n}"), tmp_path / str(n)) for n in range(9)], concurrency=1
        )
    )
    await requests(origin, 3)
    for _ in range(100):  # turns of the loop in which a fourth one could begin
        await asyncio.sleep(0)
    assert len(origin.requests) == 3  # two wait for the disk, one holds the slot
    disk_goes_on.set()
    assert all(outcome.ok for outcome in await batch)


@pytest.mark.parametrize("way", ["callback", "cancelled"])
async def test_a_download_that_ends_while_its_file_is_opened_leaves_none(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The thread that opens it is waited for, and the file is removed."""
    origin.add("/big", bytes(3_000_000), chunked=True)
    opening, release, more = threading.Event(), threading.Event(), asyncio.Event()

    def opened(*arguments: Any, **options: Any) -> AtomicFile:
        opening.set()
        assert release.wait(60)
        return AtomicFile(*arguments, **options)

    async def progress(size: int, _: int | None) -> None:
        if size >= 1 << 20:
            await asyncio.to_thread(opening.wait, 60)
            if way == "callback":
                raise KeyError("enough")
            if way == "cancelled":
                await more.wait()

    monkeypatch.setattr("infra_core.http.download._sink.AtomicFile", opened)
    download = asyncio.ensure_future(
        AssetDownloadClient().download(origin.url("/big"), tmp_path / "f", progress=progress)
    )
    await asyncio.to_thread(opening.wait, 60)
    if way == "cancelled":
        download.cancel()
    await asyncio.wait([download], timeout=0.1)
    release.set()
    with pytest.raises((KeyError, asyncio.CancelledError)):
        await download
    assert list(tmp_path.iterdir()) == []


async def test_what_follows_a_commit_sees_durable_files_alone(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """In the committing thread; each download returns afterwards, or raises what it said."""
    origin.add("/slow", BODY, always=delay(0.01))
    recorded: list[str] = []

    def record(results: list[DownloadResult]) -> list[Exception | None]:
        assert threading.current_thread() is not threading.main_thread()
        assert all(result.path.read_bytes() == BODY for result in results)
        recorded.extend(result.path.name for result in results)
        return [KeyError("3") if result.path.name == "3" else None for result in results]

    client, group = AssetDownloadClient(), CommitGroup(after=record)
    sizes: list[int] = []

    async def one(number: int) -> DownloadResult:
        result = await client.download(
            origin.url("/slow"), tmp_path / str(number), group=group, on_received=sizes.append
        )
        assert str(number) in recorded
        return result

    results = await asyncio.gather(*(one(number) for number in range(8)), return_exceptions=True)
    assert isinstance(results.pop(3), KeyError)
    assert all(isinstance(result, DownloadResult) for result in results)
    assert sorted(recorded) == [str(number) for number in range(8)]
    assert sizes == [len(BODY)] * 8


async def test_the_wait_for_a_turn_at_the_host_is_no_part_of_the_deadline(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the caller wants to know when it came; what it raises ends the download."""
    events: list[str] = []

    async def within(seconds: float, work: Any, **more: Any) -> Any:
        events.append("deadline")
        return await work

    def too_late() -> None:
        raise LookupError

    monkeypatch.setattr(_transfer, "within", within)
    async with AsyncHttpClient(max_per_host=1) as http:
        client = AssetDownloadClient(client=http)
        turn = await host_turn(origin.url("/f"), http)
        assert turn is not None
        download = asyncio.create_task(
            client.download(
                origin.url("/f"), tmp_path / "f", deadline=60, on_turn=lambda: events.append("turn")
            )
        )
        for _ in range(100):
            await asyncio.sleep(0)
        assert events == []
        await turn.aclose()
        await download
        assert events == ["turn", "deadline"]
        for _ in range(2):  # the turn is given back
            with pytest.raises(LookupError):
                await client.download(origin.url("/f"), tmp_path / "g", on_turn=too_late)
    assert origin.count("/f") == 1


async def test_a_turn_is_given_back_where_the_client_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings are read when the first request of a loop comes."""
    async with AsyncHttpClient(max_per_host=1) as http:
        broken = mock.AsyncMock(side_effect=LookupError)

        def break_client() -> None:
            monkeypatch.setattr(_stream, "here_of", broken)

        client = AssetDownloadClient(client=http)
        with pytest.raises(LookupError):
            await client.download("http://a.test/", tmp_path / "f", on_turn=break_client)
        monkeypatch.undo()
        second = await asyncio.wait_for(host_turn("http://a.test/", http), 20)
        assert second is not None
        await second.aclose()


@pytest.mark.parametrize("path", ["/f", "/large"])
async def test_what_a_commit_hook_raises_is_raised_by_its_downloads(
    origin: FaultyOrigin, tmp_path: Path, path: str
) -> None:
    """Not retried, whatever it is; the file stays."""

    def fail(results: list[DownloadResult]) -> None:
        raise ConnectionResetError("the database is gone")

    with pytest.raises(ConnectionResetError, match="database"):
        await AssetDownloadClient().download(
            origin.url(path), tmp_path / "f", group=CommitGroup(after=fail)
        )
    assert origin.count(path) == 1
    assert (tmp_path / "f").exists()


@pytest.mark.parametrize("path", ["/f", "/large"])
async def test_what_looks_at_a_path_before_a_commit_may_prevent_it(
    origin: FaultyOrigin, tmp_path: Path, path: str
) -> None:
    """In the committing thread, with the bytes here; not retried, and the old file stands."""
    seen: list[Path] = []

    def check(path: Path) -> None:
        assert threading.current_thread() is not threading.main_thread()
        seen.append(path)
        if path.name == "b":
            raise ConnectionResetError("somebody has changed the folder")

    (tmp_path / "b").write_text("old")
    client, group = AssetDownloadClient(), CommitGroup(check=check)
    await client.download(origin.url(path), tmp_path / "a", group=group)
    with pytest.raises(ConnectionResetError, match="somebody"):
        await client.download(origin.url(path), tmp_path / "b", skip_if_exists=False, group=group)
    assert seen == [tmp_path / "a", tmp_path / "b"]
    assert origin.count(path) == 2
    assert (tmp_path / "b").read_text() == "old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b"]
