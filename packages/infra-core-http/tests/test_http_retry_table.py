"""What the tables of retries promise and no other test shows; see docs/pages/faults.md."""

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path

import h2.connection
import h2.exceptions
import httpcore
import httpx
import pytest
import requests

from infra_core.http import AsyncHttpClient, OutcomeUnknown, fetch_async, request, request_async
from infra_core.http.assets import download_asset
from infra_core.http.testing import FaultyOrigin, redirect, slow, stall, status, truncate
from infra_core.runtime.testing import fast_time


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        yield server


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("code", [400, 404, 409, 501, 505])
async def test_other_statuses_are_raised_at_once(
    origin: FaultyOrigin, code: int, method: str
) -> None:
    """Asking again would give the same answer; both halves."""
    origin.add("/x", b"", always=status(code))
    with pytest.raises(httpx.HTTPStatusError):
        await request_async(method, origin.url("/x"), max_retries=3)
    with pytest.raises(requests.HTTPError):
        await asyncio.to_thread(request, method, origin.url("/x"), max_retries=3)
    assert origin.count("/x") == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_status_says_enough_without_its_body(origin: FaultyOrigin, method: str) -> None:
    """503 is tried again, 404 is not, whether their bodies come whole or not; both halves."""
    for blocking in (True, False):
        origin.add("/busy", b"done", faults=[status(503, body=b"busy") & truncate(1)])
        url = origin.url("/busy")
        with fast_time():
            if blocking:
                assert (await asyncio.to_thread(request, method, url)).text == "done"
            else:
                assert (await request_async(method, url)).text == "done"
    no_gzip = {"Content-Encoding": "gzip"}
    origin.add("/gone", b"", always=status(404, body=b"gone", headers=no_gzip))
    with pytest.raises(httpx.HTTPStatusError) as missing:
        await request_async(method, origin.url("/gone"), max_retries=3)
    with pytest.raises(requests.HTTPError) as also_missing:
        await asyncio.to_thread(request, method, origin.url("/gone"), max_retries=3)
    assert origin.count("/gone") == 2
    assert missing.value.response.is_closed
    for error in (missing.value, also_missing.value):
        assert error.response.status_code == 404
        assert pickle.loads(pickle.dumps(error)).response.content == b""


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_connection_is_tried_again(method: str) -> None:
    """Nothing was sent, so that nothing can run twice; both halves."""
    with FaultyOrigin() as gone:
        url = gone.url("/")
    with fast_time() as time:
        with pytest.raises(httpx.ConnectError):
            await request_async(method, url, max_retries=2)
        with pytest.raises(requests.ConnectionError):
            await asyncio.to_thread(request, method, url, max_retries=2)
    assert len(time.slept) == 4


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_free_connection_is_tried_again(origin: FaultyOrigin, method: str) -> None:
    """The request never left its queue."""
    origin.add("/hang", b"x", always=stall(None))
    timeout = httpx.Timeout(30, pool=0.02)
    async with AsyncHttpClient(limits=httpx.Limits(max_connections=1)) as client:
        holder = asyncio.create_task(fetch_async(origin.url("/hang"), client=client))
        while not origin.count("/hang"):  # noqa: ASYNC110 - it is in another thread
            await asyncio.sleep(0.001)
        with fast_time() as time, pytest.raises(httpx.PoolTimeout):
            await request_async(
                method, origin.url("/x"), client=client, timeout=timeout, max_retries=2
            )
        assert len(time.slept) == 2
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("step", ["send_headers", "send_data"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_of_http2_that_closes_is_no_mistake_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, method: str, step: str, *, ours: bool
) -> None:
    """nginx does after 1,000 requests; without its headers, a request is tried again by any method.

    Over a client of ours and one of others. What else cannot be sent is not tried again.
    """
    closed = h2.connection.H2Connection()
    closed.initiate_connection()
    names = (":method", ":path", ":authority", ":scheme")
    headers = list(zip(names, (method, "/", "host.test", "https"), strict=True))
    closed.send_headers(1, headers)
    closed.close_connection()
    late = (3, headers) if step == "send_headers" else (1, b"x")
    with pytest.raises(h2.exceptions.ProtocolError) as met:
        getattr(closed, step)(*late)
    texts = [str(met.value)]
    asked: list[str] = []

    async def send(pool: object, request: httpcore.Request) -> httpcore.Response:
        asked.append(request.method.decode())
        if texts:
            raise httpcore.LocalProtocolError(texts.pop())
        return httpcore.Response(200, content=b"done")

    monkeypatch.setattr(httpcore.AsyncConnectionPool, "handle_async_request", send)
    client = AsyncHttpClient(http2=True) if ours else httpx.AsyncClient()
    with fast_time():
        if method == "POST" and step == "send_data":
            with pytest.raises(OutcomeUnknown):
                await request_async(method, "https://host.test/", client=client)
        else:
            answer = await request_async(method, "https://host.test/", client=client)
            assert answer.text == "done"
            assert len(asked) == 2
        texts[:], asked[:] = ["Illegal header value"], []
        with pytest.raises(httpx.LocalProtocolError, match="Illegal header value"):
            await request_async(method, "https://host.test/", client=client)
        assert len(asked) == 1
    await (client.close() if isinstance(client, AsyncHttpClient) else client.aclose())


@pytest.mark.parametrize("fault", [truncate(1), status(503)], ids=repr)
async def test_a_get_that_fails_after_a_redirect_is_tried_again(
    origin: FaultyOrigin, fault: object
) -> None:
    """From its own URL, both halves."""
    origin.add("/from", b"", always=redirect("/to", 303))
    for call in ("async", "sync"):
        origin.add("/to", b"done", faults=[fault])  # type: ignore[list-item]
        with fast_time():
            if call == "async":
                response = await request_async("GET", origin.url("/from"))
                assert response.text == "done"
            else:
                answer = await asyncio.to_thread(request, "GET", origin.url("/from"))
                assert answer.text == "done"
    assert origin.count("/from") == 4


def test_a_download_waits_as_long_as_asked(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Not less, by jitter or otherwise."""
    origin.add("/f", b"x", faults=[status(429, retry_after="7"), status(503, retry_after="9")])
    with fast_time() as time:
        download_asset(origin.url("/f"), tmp_path / "f", backoff=0.001)
    assert time.slept == [7.0, 9.0]


def test_a_download_backs_off_with_jitter(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Each wait is drawn from zero to a ceiling that doubles up to `max_backoff`."""
    origin.add("/f", b"x", always=status(500))
    for jitter, waits in ((1.0, [1.0, 2.0, 3.0]), (0.5, [0.5, 1.0, 1.5])):
        with fast_time(jitter=jitter) as time, pytest.raises(httpx.HTTPStatusError):
            download_asset(
                origin.url("/f"), tmp_path / "f", max_retries=3, backoff=1.0, max_backoff=3.0
            )
        assert time.slept == waits


def test_a_dripping_download_is_cut_off_and_tried_again(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The second attempt may meet a better server."""
    origin.add("/drip", b"x" * 5000, faults=[slow(400)])
    result = download_asset(
        origin.url("/drip"), tmp_path / "f", timeout=0.5, backoff=0.001, min_speed=1e6
    )
    assert (result.attempts, result.size) == (2, 5000)


@pytest.mark.parametrize("kind", ["part", "encoding"])
def test_an_unrequested_answer_leaves_no_file(
    origin: FaultyOrigin, tmp_path: Path, kind: str
) -> None:
    """A part without a Range, a body that cannot be decoded: neither is the file."""
    if kind == "part":
        origin.add("/x", b"abc", always=status(206, body=b"abc"))
    else:
        origin.add("/x", b"abc", headers={"Content-Encoding": "compress"})
    with pytest.raises(Exception, match=r"206|identity"):
        download_asset(origin.url("/x"), tmp_path / "f", max_retries=1, backoff=0.001)
    assert list(tmp_path.iterdir()) == []
