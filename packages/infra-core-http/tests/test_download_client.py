"""The calls: arguments, results, progress, shared clients, loops, forks, batches."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import inspect
import logging
import os
import pickle
import re
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import httpx
import pytest
import respx

from infra_core.fs import FileWriteError
from infra_core.http import (
    DEFAULT_HEADERS,
    AsyncHttpClient,
    DownloadError,
    IncompleteDownloadError,
    InvalidRequestError,
    assets,
)
from infra_core.http.assets import (
    AssetDownloadClient,
    DownloadItem,
    DownloadOutcome,
    DownloadProgress,
    DownloadResult,
    download_asset,
    download_asset_async,
    download_many,
    download_many_async,
)
from infra_core.http.testing import (
    Fault,
    FaultyOrigin,
    chunked,
    delay,
    reset_after,
    stall,
    status,
    truncate,
)
from infra_core.runtime import RuntimeCancellationError
from infra_core.runtime.testing import fast_time

if TYPE_CHECKING:
    from pytest_httpx import HTTPXMock

T = TypeVar("T")
BODY = os.urandom(100_000)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in another thread: pytest-asyncio keeps a loop for this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin with one file."""
    with FaultyOrigin() as server:
        server.add("/f.png", BODY, etag='"v1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
        yield server


@pytest.fixture(autouse=True)
def fresh_shared_client() -> Iterator[None]:
    """Each test begins and ends without a shared client."""
    assets.set_shared_client(None)
    yield
    assets.set_shared_client(None)


def test_result(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Path, checksum, type, size, attempts and what the server said."""
    result = download_asset(origin.url("/f.png"), tmp_path / "f.png")
    known: dict[str, Any] = {
        "path": tmp_path / "f.png",
        "checksum": f"sha256:{hashlib.sha256(BODY).hexdigest()}",
        "mime": "image/png",
        "reused": False,
    }
    assert vars(result) == {
        **known,
        "size": len(BODY),
        "attempts": 1,
        "resumed": False,
        "etag": '"v1"',
        "last_modified": "Mon, 01 Jan 2024 00:00:00 GMT",
        "name": None,
        "http_status": 200,
    }
    assert result == DownloadResult(**known)  # as tests written for 0.7 compare it
    others: Any = dict.fromkeys(vars(result).keys() - known.keys())
    assert result == replace(result, **others)
    for name in known:
        change: Any = {name: None}
        assert result != replace(result, **change)


def test_a_result_has_the_name_that_the_server_suggests(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Of a file that came at once, in ranges side by side, and in two attempts."""
    headers = {"Content-Disposition": 'attachment; filename="folder/report.pdf"'}
    origin.add("/f", BODY, etag='"v1"', headers=headers, faults=[truncate(10)])
    for options in ({"backoff": 0.001}, {}, {"connections": 2}):
        result = download_asset(origin.url("/f"), tmp_path / "f", skip_if_exists=False, **options)
        assert result.name == "report.pdf"


def test_result_is_made_as_in_0_7() -> None:
    """Four positional fields, three of them optional."""
    result = DownloadResult(Path("a"), "sha256:00", "image/png", True)
    assert (result.path, result.checksum, result.mime, result.reused) == (
        Path("a"), "sha256:00", "image/png", True,
    )  # fmt: skip
    plain = vars(DownloadResult(Path("a")))
    assert {name for name in plain if plain[name]} == {"path"}


@pytest.mark.parametrize("kind", [DownloadItem, DownloadOutcome])
def test_what_is_handed_out_cannot_be_changed(kind: type) -> None:
    """Callbacks and the caller get the same object. A result may be, as in 0.7."""
    with pytest.raises(FrozenInstanceError):
        setattr(object.__new__(kind), fields(kind)[0].name, None)


def test_mime_falls_back_to_the_header(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A name that says nothing leaves it to the server."""
    origin.add("/x", BODY, content_type="Image/PNG; charset=binary")
    assert download_asset(origin.url("/x"), tmp_path / "x").mime == "image/png"


def test_no_checksum_when_not_asked(origin: FaultyOrigin, tmp_path: Path) -> None:
    """compute_checksum=False."""
    result = download_asset(origin.url("/f.png"), tmp_path / "f", compute_checksum=False)
    assert result.checksum is None


def test_any_kind_of_file_is_asked_for(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A server that offers several must not send a page; a client that is passed has its say."""

    async def main() -> None:
        await download_asset_async(origin.url("/f.png"), tmp_path / "f")
        async with AsyncHttpClient(headers={"Accept": "image/*", "User-Agent": "me"}) as client:
            await AssetDownloadClient(client=client).download(origin.url("/f.png"), tmp_path / "g")

    run(main())
    first, second = (request.headers for request in origin.requests)
    assert (first["Accept"], first["User-Agent"]) == ("*/*", DEFAULT_HEADERS["User-Agent"])
    assert (second["Accept"], second["User-Agent"]) == ("image/*", "me")


def test_identity_is_asked_for(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Whatever the caller says about encodings; other headers are the caller's."""
    headers = {"accept-encoding": "br", "X-Mine": "1", "user-agent": "me"}
    download_asset(origin.url("/f.png"), tmp_path / "f", headers=headers)
    (request,) = origin.requests
    assert request.headers["Accept-Encoding"] == "identity"
    assert "Range" not in request.headers
    assert (request.headers["X-Mine"], request.headers["User-Agent"]) == ("1", "me")
    assert [name.lower() for name, _ in request.raw_headers].count("user-agent") == 1
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize(
    ("header", "algorithm"),
    [
        ("Content-MD5", "md5"),
        ("x-ms-blob-content-md5", "md5"),
        ("x-goog-hash", "md5"),
        ("Digest", "sha256"),
        ("Repr-Digest", "sha512"),
    ],
)
def test_digests_of_the_server_are_verified(
    origin: FaultyOrigin, tmp_path: Path, header: str, algorithm: str
) -> None:
    """What the server says about its own file is held against it."""
    import base64

    raw = hashlib.new(algorithm, BODY).digest()
    name = {"md5": "md5", "sha256": "sha-256", "sha512": "sha-512"}[algorithm]

    def value(digest: bytes) -> str:
        text = base64.b64encode(digest).decode()
        if header == "Repr-Digest":
            return f"{name}=:{text}:"
        return text if header.lower().endswith("content-md5") else f"crc64=AAAAAA==,{name}={text}"

    origin.add("/right", BODY, headers={header: value(raw)})
    origin.add("/wrong", BODY, headers={header: value(raw[::-1])})
    origin.add("/odd", BODY, headers={header: "???"})
    download_asset(origin.url("/right"), tmp_path / "right")
    download_asset(origin.url("/odd"), tmp_path / "odd")
    with pytest.raises(DownloadError, match=f"the server's own digest is {algorithm}"):
        download_asset(origin.url("/wrong"), tmp_path / "wrong", max_retries=0)
    expected = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    download_asset(origin.url("/wrong"), tmp_path / "wrong", expected_checksum=expected)


@pytest.mark.parametrize("call", [download_asset, download_many])
def test_a_wrong_argument_names_the_function_that_was_called(call: Any) -> None:
    """And not its asynchronous twin."""
    with pytest.raises(TypeError, match=rf"^{call.__name__}\(\) .*argument"):
        call(no_such=1)


def test_progress_counts_up_and_begins_again(origin: FaultyOrigin, tmp_path: Path) -> None:
    """(bytes, size) from zero to the size, from zero once more after a retry."""
    origin.add("/p", BODY, faults=[truncate(1000)])
    seen: list[tuple[int, int | None]] = []
    download_asset(
        origin.url("/p"), tmp_path / "p", backoff=0.001, progress=lambda *step: seen.append(step)
    )
    assert seen[0] == (0, len(BODY))
    assert seen[-1] == (len(BODY), len(BODY))
    assert (1000, len(BODY)) in seen
    assert [step[0] for step in seen].count(0) == 2


def test_progress_without_a_size(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Chunked bodies have none."""
    origin.add("/p", BODY, always=chunked())
    seen: list[tuple[int, int | None]] = []
    download_asset(origin.url("/p"), tmp_path / "p", progress=lambda *step: seen.append(step))
    assert seen[-1] == (len(BODY), None)


@pytest.mark.parametrize("hook", ["progress", "on_turn", "on_received"])
async def test_hooks_may_be_coroutine_functions(
    origin: FaultyOrigin, tmp_path: Path, hook: str
) -> None:
    """They are awaited before the download goes on."""
    seen: list[Any] = []

    async def record(*given: Any) -> None:
        await asyncio.sleep(0)
        seen.append(given)

    hooks: dict[str, Any] = {hook: record}
    await AssetDownloadClient().download(origin.url("/f.png"), tmp_path / "f", **hooks)
    size = len(BODY)
    assert seen[-1] == {"progress": (size, size), "on_turn": (), "on_received": (size,)}[hook]


@pytest.mark.parametrize("hook", ["progress", "on_turn", "on_received"])
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("deadline", [None, 60])
@pytest.mark.parametrize(
    "error",
    [ValueError("a"), OSError(errno.ENOSPC, "a"), OSError(errno.EMFILE, "a"), TimeoutError("a"),
     httpx.ReadError("a"), FileWriteError(errno.EIO, "a")],
    ids=repr,
)  # fmt: skip
async def test_what_a_hook_raises_ends_the_download(
    origin: FaultyOrigin, tmp_path: Path, hook: str, is_async: bool, deadline: float | None,
    error: Exception,
) -> None:  # fmt: skip
    """It comes through as it is, is not tried again, and nothing is left."""

    def stop(*_: object) -> None:
        raise error

    async def stop_later(*_: object) -> None:
        raise error

    hooks: dict[str, Any] = {hook: stop_later if is_async else stop}
    with pytest.raises(type(error)) as caught:
        await AssetDownloadClient(backoff=0.001).download(
            origin.url("/f.png"), tmp_path / "f", deadline=deadline, **hooks
        )
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []
    assert len(origin.requests) <= 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), TimeoutError("x")], ids=repr)
@pytest.mark.parametrize("deadline", [None, 60])
async def test_what_a_transport_raises_is_not_the_disk_s(
    tmp_path: Path, error: Exception, deadline: float | None
) -> None:
    """One of the caller's, which does not know the errors of httpx."""

    async def fail(request: httpx.Request) -> httpx.Response:
        raise error

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as http:
        client = AssetDownloadClient(client=http, backoff=0.001)
        with pytest.raises(OSError, match="x") as caught:
            await client.download("http://h/f", tmp_path / "f", deadline=deadline)
    assert caught.value is error


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"backoff": -1},
        {"timeout": 0},
        {"deadline": 0},
        {"max_bytes": -1},
        {"min_speed": -1},
        {"connections": 0},
        {"connections": 65},
        {"expected_checksum": "abc"},
        {"expected_checksum": "sha256:12"},
        {"headers": {"Bad Name": "x"}},
        {"headers": {"X": "a\r\nb"}},
        {"headers": {"range": "bytes=0-5"}},
        {"headers": {"If-Range": '"v1"'}},
        {"on_retry": "print"},
    ],
    ids=repr,
)
def test_invalid_arguments_touch_nothing(
    origin: FaultyOrigin, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Refused before a file or a request is made; 0.7 left a temp file."""
    with pytest.raises(ValueError, match=r"\w+"):
        download_asset(origin.url("/f.png"), tmp_path / "f", **options)
    assert list(tmp_path.iterdir()) == []
    assert origin.requests == []


@pytest.mark.parametrize(
    "dest", ["", ".", "new/", "new/.", "a/..", "a\0b", "a\ud800", "\ud800/a", b"a", None, 5]
)
def test_a_path_that_names_no_file_is_refused(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dest: Any
) -> None:
    """`new/` asks for a folder, not for a file of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequestError, match="names no file"):
        download_asset(origin.url("/f.png"), dest)
    assert list(tmp_path.iterdir()) == []
    assert origin.requests == []


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan"), "10M"])
def test_a_rate_that_lets_nothing_through_is_refused(rate: Any) -> None:
    """With the unit."""
    with pytest.raises(ValueError, match=r"limit_rate=.*bytes per second"):
        AssetDownloadClient(limit_rate=rate)


def test_downloads_of_a_client_share_its_rate(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Of all its loops; what the client waits is not held against the server."""
    client = AssetDownloadClient(limit_rate=1_000, timeout=5, max_retries=0)
    with fast_time() as time:
        began = time.monotonic()
        for name in ("a", "b"):
            run(client.download(origin.url("/f.png"), tmp_path / name, min_speed=50_000))
        run(client.download(origin.url("/f.png"), tmp_path / "c", min_speed=0, connections=2))
        seconds = time.monotonic() - began
    # Only the last piece need not be waited for to the end of its share.
    assert 200 <= seconds <= 301
    assert (tmp_path / "c").read_bytes() == BODY


def test_client_settings_are_defaults(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A client's own retries and agent hold unless a call says otherwise."""
    client = AssetDownloadClient(max_retries=0, user_agent="crawler/1", retry_statuses=[418])
    origin.add("/tea", BODY, faults=[status(418), status(418)])

    async def main() -> None:
        with pytest.raises(Exception, match="418"):
            await client.download(origin.url("/tea"), tmp_path / "f")
        result = await client.download(
            origin.url("/tea"), tmp_path / "f", max_retries=1, backoff=0.001
        )
        assert result.attempts == 2
        await client.close()
        assert (await client.download(origin.url("/f.png"), tmp_path / "g")).size == len(BODY)

    run(main())
    assert {request.headers["User-Agent"] for request in origin.requests} == {"crawler/1"}
    with pytest.raises(ValueError, match="timeout"):
        AssetDownloadClient(timeout=-1)


async def test_shared_client(origin: FaultyOrigin, tmp_path: Path) -> None:
    """One per process, replaceable; the deprecated names warn and work."""
    first = await assets.get_shared_client()
    assert await assets.get_shared_client() is first
    own = AssetDownloadClient(user_agent="own")
    assets.set_shared_client(own)
    await download_asset_async(origin.url("/f.png"), tmp_path / "f")
    assert origin.requests[-1].headers["User-Agent"] == "own"
    with pytest.warns(DeprecationWarning, match="get_shared_client"):
        assert await assets.get_async_client() is own
    with pytest.warns(DeprecationWarning, match="reset_shared_client"):
        await assets.reset_async_client()
    assert await assets.get_shared_client() not in {first, own}
    await assets.reset_shared_client()


async def test_sync_helpers_refuse_a_running_loop(tmp_path: Path) -> None:
    """The remedy is in the message, and no coroutine is left unawaited."""
    with pytest.raises(RuntimeError, match="download_asset_async"):
        download_asset("http://127.0.0.1:1/f", tmp_path / "f")
    with pytest.raises(RuntimeError, match="download_many_async"):
        download_many([], concurrency=1)


def test_many_loops_and_many_calls(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Sync calls and fresh loops in any order; two live loops do not disturb each other."""
    for index in range(3):
        run(download_asset_async(origin.url("/f.png"), tmp_path / f"a{index}"))
        download_asset(origin.url("/f.png"), tmp_path / f"s{index}")

    async def outer() -> None:
        origin.add("/slow", BODY, faults=[delay(0.1)])
        first = asyncio.ensure_future(download_asset_async(origin.url("/slow"), tmp_path / "slow"))
        await asyncio.sleep(0)
        await asyncio.to_thread(download_asset, origin.url("/f.png"), tmp_path / "other")
        assert (await first).size == len(BODY)

    run(outer())
    assert all(path.read_bytes() == BODY for path in tmp_path.iterdir())


@pytest.mark.posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_sync_download_works_in_a_forked_child(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The background loop does not survive a fork; 0.7's child hung."""
    download_asset(origin.url("/f.png"), tmp_path / "parent")
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        try:
            download_asset(origin.url("/f.png"), tmp_path / "child", deadline=10)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "child").read_bytes() == BODY
    download_asset(origin.url("/f.png"), tmp_path / "again")


def test_many_bounded_ordered_and_with_outcomes(origin: FaultyOrigin, tmp_path: Path) -> None:
    """At most `concurrency` at once, outcomes in order, one failure leaves the others alone."""
    for index in range(12):
        origin.add(f"/{index}", bytes([index]) * 1000, faults=[delay(0.01)])
    origin.add("/5", always=status(404))
    seen: list[DownloadOutcome] = []
    pulled: list[int] = []

    def lazily() -> Iterator[DownloadItem]:
        for index in range(12):
            pulled.append(index)
            assert len(pulled) <= len(origin.requests) + 3  # not before a slot is free
            yield DownloadItem(origin.url(f"/{index}"), tmp_path / str(index))

    outcomes = download_many(lazily(), concurrency=3, on_outcome=seen.append)
    assert origin.peak_in_flight <= 3
    assert [outcome.item.url for outcome in outcomes] == [origin.url(f"/{i}") for i in range(12)]
    assert [outcome.ok for outcome in outcomes] == [i != 5 for i in range(12)]
    assert len(seen) == 12
    assert "404" in str(outcomes[5].error)
    with pytest.raises(Exception, match="404"):
        outcomes[5].unwrap()
    for index in set(range(12)) - {5}:
        assert (tmp_path / str(index)).read_bytes() == bytes([index]) * 1000


def test_many_refuses_two_urls_with_one_path(origin: FaultyOrigin, tmp_path: Path) -> None:
    """No two URLs share a path silently; the same URL twice is downloaded once."""
    origin.add("/g", b"other")
    dest = tmp_path / "f"
    outcomes = download_many(
        [(origin.url("/f.png"), dest), (origin.url("/g"), dest), (origin.url("/f.png"), dest)]
    )
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert "unique_asset_path" in str(outcomes[1].error)
    assert len(origin.requests) == 1
    origin.add("/bad", always=status(404))
    twice = download_many([(origin.url("/bad"), tmp_path / "b")] * 2)
    assert [outcome.ok for outcome in twice] == [False, False]


@pytest.mark.posix(reason="symbolic links")
def test_many_sees_one_path_through_a_link(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A folder by two names holds one file."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    origin.add("/g", b"other")
    outcomes = download_many(
        [(origin.url("/f.png"), tmp_path / "real/f"), (origin.url("/g"), tmp_path / "link/f")]
    )
    assert [outcome.ok for outcome in outcomes] == [True, False]


def test_many_per_item_checksums_and_headers(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Items carry their own; call-wide options hold for all."""
    good = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
    items = [
        DownloadItem(origin.url("/f.png"), tmp_path / "a", good, {"X-Item": "a"}),
        DownloadItem(origin.url("/f.png"), tmp_path / "b", "md5:" + "0" * 32),
    ]
    outcomes = download_many(items, max_retries=0, headers={"X-All": "1"}, concurrency=1)
    assert [outcome.ok for outcome in outcomes] == [True, False]
    assert origin.requests[0].headers["X-Item"] == "a"
    assert {request.headers["X-All"] for request in origin.requests} == {"1"}


async def test_many_is_cancelled_cleanly(origin: FaultyOrigin, tmp_path: Path) -> None:
    """No download goes on, nothing is left."""
    origin.add("/s", BODY, always=stall(after=10))
    task = asyncio.ensure_future(
        download_many_async([(origin.url("/s"), tmp_path / str(i)) for i in range(8)])
    )
    while origin.count("/s") < 8:  # noqa: ASYNC110 - the server runs in another thread
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == []
    assert len(asyncio.all_tasks()) == 1


async def test_many_takes_every_item_and_awaits_its_callback(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """An item that is none is an error, not the end of the list."""
    seen: list[DownloadOutcome] = []

    async def keep(outcome: DownloadOutcome) -> None:
        seen.append(outcome)

    items: list[Any] = [(origin.url("/f.png"), tmp_path / "f"), None]
    with pytest.raises(ValueError, match="None is not a download"):
        await download_many_async(items)
    await download_many_async(items[:1], on_outcome=keep)
    assert [outcome.ok for outcome in seen] == [True]


async def test_many_is_cancelled_with_one_of_its_tasks(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """As other code may do that cancels all tasks of the loop."""
    origin.add("/s", BODY, always=stall(after=10))
    items = [(origin.url("/s"), tmp_path / str(i)) for i in range(2)]
    batch = asyncio.ensure_future(download_many_async(items))
    while origin.count("/s") < 2:  # noqa: ASYNC110 - the server runs in another thread
        await asyncio.sleep(0.001)
    (asyncio.all_tasks() - {asyncio.current_task(), batch}).pop().cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch

    def cancelled() -> Iterator[tuple[str, Path]]:
        yield items[0]
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await download_many_async(cancelled())
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [LookupError("no such row"), RuntimeCancellationError("mine"), StopAsyncIteration()],
    ids=repr,
)
async def test_many_ends_when_the_callback_raises(
    origin: FaultyOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A caller that cannot take outcomes gets no more of them, and the error as it was raised.

    It is the caller's to log.
    """

    def broken(outcome: DownloadOutcome) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await download_many_async([(origin.url("/f.png"), tmp_path / "f")], on_outcome=broken)
    assert caught.value is error
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    with pytest.raises(ValueError, match="concurrency"):
        await download_many_async([], concurrency=0)
    unfit: Any = 5
    with pytest.raises(InvalidRequestError, match="items of type int are not downloads: pass a li"):
        await download_many_async(unfit)
    with pytest.raises(TypeError, match=r"download_many\(\): .*'retries'; see those of down"):
        await download_many_async([], retries=3)
    assert await download_many_async([]) == []


@pytest.mark.posix
def test_many_learns_permissions_from_new_files_only(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A file with bits of its own that is replaced does not pass them on."""
    (tmp_path / "plain").touch()
    (tmp_path / "0").write_bytes(b"")
    (tmp_path / "0").chmod(0o600)
    download_many([(origin.url("/f.png"), tmp_path / str(i)) for i in range(4)], concurrency=1)
    modes = [(tmp_path / str(i)).stat().st_mode & 0o777 for i in range(4)]
    assert modes == [0o600] + [(tmp_path / "plain").stat().st_mode & 0o777] * 3


def test_progress_bar(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The bar shows the file's name and ends full; it serves one download or many."""
    console = pytest.importorskip("rich.console")
    import io

    out = io.StringIO()
    screen = console.Console(file=out, width=120, force_terminal=True)
    with DownloadProgress(console=screen) as bars:
        download_asset(origin.url("/f.png"), tmp_path / "f", progress=bars.track("one file"))
        download_many(
            [(origin.url("/f.png") + "?code=S3CRET", tmp_path / "g")], progress=bars.track
        )
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "one file" in text
    assert "f.png" in text
    assert "100.0/100.0 kB" in text
    assert "S3CRET" not in text


@pytest.mark.parametrize(("options", "stays"), [({}, True), ({"transient": True}, False)])
def test_the_bars_stay_unless_they_are_transient(options: dict[str, bool], *, stays: bool) -> None:
    """What is seen once all is done, names with brackets too."""
    console = pytest.importorskip("rich.console")
    import io

    out = io.StringIO()
    with DownloadProgress(console=console.Console(file=out), **options) as bars:
        bars.track("one [b].zip")(1, 2)
    assert ("one [b].zip" in out.getvalue()) is stays


def test_progress_bar_without_rich_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ImportError, match=r"infra-core-http\[progress\]"):
        DownloadProgress()


def test_exports() -> None:
    """Every name of `__all__` resolves; rich and httpx come only with use."""
    exported = vars(assets)["__all__"]
    assert set(exported) <= set(dir(assets))
    for name in exported:
        assert getattr(assets, name) is not None
    with pytest.raises(AttributeError):
        _ = assets.nonsense  # type: ignore[attr-defined]


def test_errors_of_the_transport_have_a_request_as_those_of_httpx() -> None:
    """Handlers that log `error.request` would raise themselves without it."""
    error: Any = IncompleteDownloadError("cut", url="https://user:pw@h.example/f")
    assert str(error.request.url) == "https://h.example/f"


def test_errors_survive_pickling() -> None:
    """A process pool passes them on with all they know."""
    import pickle

    from infra_core import http

    def facts(error: http.DownloadError) -> dict[str, object]:
        known = {name: str(value) for name, value in vars(error).items()}
        return {**known, "request": str(getattr(error, "request", None))}

    for error in (
        http.IncompleteDownloadError("short", url="http://h/f?sig=x", expected=2, actual=1),
        http.ChecksumMismatchError("other", url="http://h/f", expected="md5:1", actual="md5:2"),
        http.DownloadTooLargeError("large", url="http://h/f", expected=2, actual=3),
        http.DownloadDeadlineError("late", url="http://h/f"),
        http.DownloadDiskError("full", url="http://h/f", errno=28, filename="f"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (str(copy), facts(copy)) == (str(error), facts(error))


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_downloads_mocked_with_respx(using: str, tmp_path: Path) -> None:
    """In both of its modes, with no action of the user: asynchronous, blocking and many."""
    urls = [f"https://example.com/{name}.bin" for name in "abcd"]
    with respx.mock(using=using) as router:
        for url in urls:
            router.get(url).respond(content=BODY)
        results = [await download_asset_async(urls[0], tmp_path / "0")]
        results.append(await asyncio.to_thread(download_asset, urls[1], tmp_path / "1"))
        for outcome in await download_many_async([(url, tmp_path / url[-5:]) for url in urls[2:]]):
            assert outcome.result is not None
            results.append(outcome.result)
    assert [result.path.read_bytes() for result in results] == [BODY] * 4


async def test_downloads_mocked_with_pytest_httpx(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    """Its fixture alone is enough; a scripted failure is retried like a real one."""
    httpx_mock.add_response(status_code=503)
    httpx_mock.add_response(content=BODY)
    with fast_time():
        result = await download_asset_async("https://example.com/a.bin", tmp_path / "a.bin")
    assert (result.attempts, (tmp_path / "a.bin").read_bytes()) == (2, BODY)


@pytest.mark.parametrize("fault", [stall, truncate, reset_after], ids=lambda fault: fault.__name__)
def test_a_transfer_that_broke_off_is_continued_by_the_next_attempt(
    origin: FaultyOrigin, tmp_path: Path, fault: Callable[[int], Fault]
) -> None:
    """With a strong ETag a retry asks for the rest only, also where other requests failed."""
    origin.script("/f.png", fault(60_000), status(503))
    result = download_asset(origin.url("/f.png"), tmp_path / "f", timeout=1, backoff=0.001)
    assert (result.attempts, result.resumed) == (3, True)
    for request in origin.requests[1:]:
        assert request.headers["Range"] == "bytes=60000-"
        assert request.headers["If-Range"] == '"v1"'
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize(
    "function",
    [download_asset, download_asset_async, download_many, download_many_async,
     AssetDownloadClient.download],
)  # fmt: skip
def test_annotations_can_be_read(function: Any) -> None:
    """By pydantic, typer and the like."""
    assert get_type_hints(function)["return"] is not None


@pytest.mark.parametrize("blocking", [download_asset, download_many])
def test_blocking_calls_look_like_their_asynchronous_twins(blocking: Callable[..., Any]) -> None:
    """By their parameters; and like plain functions also to what looks below decorators."""
    twin = getattr(assets, f"{blocking.__name__}_async")
    assert inspect.signature(blocking) == inspect.signature(twin)
    assert not inspect.iscoroutinefunction(inspect.unwrap(blocking))
    assert pickle.loads(pickle.dumps(blocking)) is blocking
