"""Errors of the asynchronous half between processes, and what the log says of a final failure."""

import asyncio
import logging
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from infra_core.http import (
    AssetDownloadClient,
    AsyncHttpClient,
    ChecksumMismatchError,
    DownloadDeadlineError,
    IncompleteDownloadError,
    OutcomeUnknown,
    RequestsHttpClient,
    fetch_async,
    request_async,
    stream,
    stream_async,
)
from infra_core.http.testing import (
    Fault,
    FaultyOrigin,
    chunked_early_end,
    hang_up,
    stall,
    status,
    truncate,
)
from infra_core.runtime import RetryDetails, error_chain
from infra_core.runtime.testing import fast_time

SECRET = "s3cr3t-value"


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        yield running


async def _failure(method: str, url: str, **options: object) -> Exception:
    with pytest.raises(httpx.HTTPError) as caught:
        await request_async(
            method,
            url,
            max_retries=0,
            headers={"Authorization": f"Bearer {SECRET}", "X-Trace": "t"},
            **options,  # type: ignore[arg-type]
        )
    return caught.value


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("GET", status(404)),
        ("GET", status(429, retry_after="7")),
        ("POST", status(500)),
        ("GET", hang_up()),
        ("POST", hang_up()),
        ("GET", truncate(2)),
        ("POST", truncate(2)),
    ],
)
async def test_errors_survive_pickle_without_credentials(
    origin: FaultyOrigin, method: str, fault: Fault
) -> None:
    """Type, text, status, `retry_after`, request and answer; no key, no password."""
    origin.add("/x", b"page", always=fault)
    body = SECRET.encode() if method == "POST" else None
    error = await _failure(method, origin.url(f"/x?sig={SECRET}"), content=body)
    pickled = pickle.dumps(error)
    assert SECRET.encode() not in pickled
    twin = pickle.loads(pickled)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert getattr(twin, "__notes__", None) == getattr(error, "__notes__", None)
    assert isinstance(twin, httpx.HTTPError)
    assert twin.request.method == method
    if isinstance(error, httpx.HTTPStatusError):
        assert isinstance(twin, httpx.HTTPStatusError)
        assert twin.response.status_code == error.response.status_code
        assert twin.response.content == error.response.content
        assert twin.request.headers["x-trace"] == "t"
        assert "authorization" not in twin.request.headers
        assert getattr(twin, "retry_after", 0) == getattr(error, "retry_after", 0)
    assert str(pickle.loads(pickle.dumps(twin))) == str(error)


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        status(404, body=b"gone", headers={"Link": f"<http://h/?sig={SECRET}>"}),
        status(302, headers={"Location": f"ftp://u:{SECRET}@h/"}),
        hang_up(),
        truncate(2),
    ],
    ids=repr,
)
async def test_errors_of_streams_and_clients_survive_pickle_too(
    origin: FaultyOrigin, fault: Fault, *, read: bool
) -> None:
    """Of every client, and whether the body was read or not; both halves."""
    origin.add("/x", b"page", always=fault)
    url = origin.url(f"/x?sig={SECRET}").replace("//", f"//u:{SECRET}@")

    async def streamed() -> None:
        async with stream_async("GET", url) as response:
            _ = await response.aread() if read else None
            response.raise_for_status()
            await response.aread()

    async def sent_by_client() -> None:
        async with AsyncHttpClient() as client:
            (await client.get(url)).raise_for_status()

    def streamed_blocking() -> None:
        with stream("GET", url) as response:
            _ = response.content if read else None
            response.raise_for_status()
            _ = response.content

    def sent_by_blocking_client() -> None:
        with closing(RequestsHttpClient()) as client:
            client.get(url, headers={}, timeout=30).raise_for_status()

    for way in (streamed, sent_by_client, streamed_blocking, sent_by_blocking_client):
        with pytest.raises((httpx.HTTPError, requests.RequestException)) as caught:
            await (way() if asyncio.iscoroutinefunction(way) else asyncio.to_thread(way))
        assert SECRET not in f"{caught.value!r}"
        pickled = pickle.dumps(caught.value)
        assert SECRET.encode() not in pickled
        twin = pickle.loads(pickled)
        assert (type(twin), str(twin)) == (type(caught.value), str(caught.value))


@pytest.mark.parametrize("client", [None, AsyncHttpClient, httpx.AsyncClient])
@pytest.mark.parametrize("fault", [truncate(2), chunked_early_end(2), hang_up(), stall()], ids=repr)
@pytest.mark.parametrize("deadline", [None, 0.5])
async def test_what_errors_wrap_survives_pickle_too(
    origin: FaultyOrigin, tmp_path: Path, fault: Fault, client: Any, deadline: float | None
) -> None:
    """As Dask and tblib pickle it, which take the causes along."""
    origin.add("/x", b"page", always=fault)
    url = origin.url(f"/x?sig={SECRET}")
    options: Any = {
        "headers": {"Authorization": f"Bearer {SECRET}"},
        "max_retries": 0,
        "timeout": 5 if deadline else 0.2,
        "deadline": deadline,
    }
    async with AsyncExitStack() as held:
        if client is not None:
            client = await held.enter_async_context(client())
        downloads = AssetDownloadClient(client=client)
        for call in (
            partial(request_async, "GET", url, client=client),
            partial(request_async, "POST", url, client=client),
            partial(downloads.download, url, tmp_path / "x"),
        ):
            with pytest.raises(httpx.HTTPError) as caught:
                await call(**options)
            for link in error_chain(caught.value, suppressed=True):
                assert SECRET.encode() not in pickle.dumps(link)


_PROGRAM = """
import asyncio
from infra_core.http import fetch_async
asyncio.run(fetch_async(url, max_retries=0))
"""


def test_errors_come_out_of_a_process_pool(origin: FaultyOrigin) -> None:
    """As they are, instead of breaking the pool."""
    origin.add("/x", b"", always=status(404))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        error = pool.submit(exec, _PROGRAM, {"url": origin.url("/x")}).exception(timeout=60)
    assert isinstance(error, httpx.HTTPStatusError)
    assert error.response.status_code == 404


async def test_a_lost_answer_is_a_transport_error(origin: FaultyOrigin) -> None:
    """Programs of 0.7 catch httpx.TransportError."""
    origin.add("/x", b"", always=hang_up())
    with pytest.raises(httpx.TransportError) as caught:
        await request_async("POST", origin.url("/x"))
    assert isinstance(caught.value, OutcomeUnknown)
    assert caught.value.request.method == "POST"


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (IncompleteDownloadError, httpx.TransportError),
        (ChecksumMismatchError, httpx.TransportError),
        (DownloadDeadlineError, httpx.TimeoutException),
    ],
)
def test_failed_downloads_are_errors_of_httpx(
    kind: type[IncompleteDownloadError], base: type[Exception]
) -> None:
    """As they were in 0.7, with a request without secrets; they survive pickle."""
    error = kind("text", url="http://h/x?sig=S3CRET", expected=1, actual=2)
    assert isinstance(error, base)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert (type(one), str(one), one.expected, one.actual) == (kind, "text", 1, 2)
        assert one.request.method == "GET"
        assert one.request.url.host == "h"
        assert "S3CRET" not in f"{one.request.url} {one.url}"


async def test_a_final_failure_is_logged_once(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """At ERROR, with the message of 0.7, its fields and the traceback."""
    origin.add("/x", b"", always=status(503))
    with fast_time(), caplog.at_level(logging.INFO), pytest.raises(httpx.HTTPStatusError):
        await fetch_async(origin.url(f"/x?sig={SECRET}"), max_retries=2)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "infra_core.http_async"
    assert record.getMessage() == "Fetch failed"
    assert record.attempts == 3  # type: ignore[attr-defined]
    assert record.status == 503  # type: ignore[attr-defined]
    assert SECRET not in record.url  # type: ignore[attr-defined]
    assert record.exc_info is not None


async def test_a_call_that_succeeds_logs_no_error(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """Retries are warnings; nothing was lost."""
    origin.add("/x", b"ok", faults=[status(503)])
    with fast_time(), caplog.at_level(logging.INFO):
        assert await fetch_async(origin.url("/x")) == "ok"
    assert all(record.levelno < logging.ERROR for record in caplog.records)


async def test_on_retry_is_called_before_each_wait(origin: FaultyOrigin) -> None:
    """A function or a coroutine function of one RetryDetails."""
    origin.add("/x", b"ok", faults=[status(503), truncate(1)])
    seen: list[RetryDetails] = []

    async def later(details: RetryDetails) -> None:
        await asyncio.sleep(0)
        seen.append(details)

    with fast_time():
        assert await fetch_async(origin.url("/x"), on_retry=seen.append) == "ok"
        origin.add("/x", b"ok", faults=[status(503)])
        await request_async("GET", origin.url("/x"), on_retry=later)
    assert [details.attempt for details in seen] == [1, 2, 1]
    assert isinstance(seen[0].error, httpx.HTTPStatusError)


async def test_what_on_retry_raises_ends_the_call(origin: FaultyOrigin) -> None:
    """So that a program can stop a run from there."""
    origin.add("/x", b"ok", always=status(503))

    def stop(details: RetryDetails) -> None:
        raise KeyError(details.attempt)

    with pytest.raises(KeyError):
        await fetch_async(origin.url("/x"), on_retry=stop)
    assert origin.count("/x") == 1


async def test_on_retry_must_be_callable() -> None:
    """Refused before anything is sent."""
    with pytest.raises(ValueError, match="on_retry of type int cannot be called"):
        await fetch_async("http://h.example/", on_retry=3)  # type: ignore[arg-type]
