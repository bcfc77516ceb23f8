"""Mocks are obeyed: respx, pytest-httpx, patches by hand, transports and connections of others."""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
import respx
from pytest_httpx import HTTPXMock
from urllib3 import HTTPConnectionPool, HTTPHeaderDict
from urllib3.connection import HTTPConnection

from infra_core.http import (
    AsyncHttpClient,
    OutcomeUnknown,
    RequestsHttpClient,
    ResponseTooLarge,
    fetch,
    fetch_async,
    request,
    request_async,
    stream,
    stream_async,
)
from infra_core.http._intercept import interceptor
from infra_core.http.assets import AssetDownloadClient, download_asset_async
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime.testing import fast_time

URL = "https://mocked.example/page"


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        running.add("/page", b"real")
        yield running


def test_nothing_is_patched_by_itself() -> None:
    """Otherwise every request would take the slow way."""
    assert interceptor() is None


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_respx_intercepts(using: str) -> None:
    """In its default mode and with using="httpx", with no action of the user."""
    with respx.mock(using=using) as router:
        route = router.get(URL).respond(text="mocked")
        post = router.post(URL).mock(side_effect=[httpx.Response(503), httpx.Response(201)])
        assert await fetch_async(URL) == "mocked"
        with fast_time():
            response = await request_async("POST", URL, json={"a": 1})
        assert response.status_code == 201
        assert route.call_count == 1
        assert post.call_count == 2
    assert interceptor() is None


@respx.mock
async def test_respx_as_a_decorator_intercepts() -> None:
    """Errors raised by the mock are judged as real ones."""
    respx.get(URL).mock(side_effect=httpx.ConnectError)
    lost = respx.post(URL).mock(side_effect=httpx.ReadTimeout)
    with fast_time() as time, pytest.raises(httpx.ConnectError):
        await fetch_async(URL, max_retries=2)
    assert len(time.slept) == 2
    with pytest.raises(OutcomeUnknown):
        await request_async("POST", URL)
    assert lost.call_count == 1


async def test_respx_intercepts_a_client_in_use(origin: FaultyOrigin) -> None:
    """Before, during and after: one client, its fast connections open all the while."""
    async with AsyncHttpClient() as client:
        url = origin.url("/page")
        assert await fetch_async(url, client=client) == "real"
        for using in ("httpcore", "httpx"):
            with respx.mock(using=using) as router:
                router.get(url).respond(text="mocked")
                assert await fetch_async(url, client=client) == "mocked"
                assert (await (await client.get_client()).get(url)).text == "mocked"
        assert await fetch_async(url, client=client) == "real"
    assert origin.count("/page") == 2


async def test_respx_passes_through_what_it_is_asked_to(origin: FaultyOrigin) -> None:
    """To the real network, over plain httpx."""
    with respx.mock as router:
        router.get(origin.url("/page")).pass_through()
        assert await fetch_async(origin.url("/page")) == "real"


async def test_pytest_httpx_intercepts(httpx_mock: HTTPXMock) -> None:
    """Its fixture alone is enough."""
    httpx_mock.add_response(url=URL, text="mocked")
    httpx_mock.add_response(url=URL, method="POST", status_code=429)
    httpx_mock.add_response(url=URL, method="POST", json={"ok": True})
    assert await fetch_async(URL) == "mocked"
    with fast_time():
        assert (await request_async("POST", URL, json={})).json() == {"ok": True}
    assert [request.method for request in httpx_mock.get_requests()] == ["GET", "POST", "POST"]


async def test_pytest_httpx_sees_our_headers(httpx_mock: HTTPXMock) -> None:
    """Defaults and the caller's."""
    httpx_mock.add_response(match_headers={"X-Mine": "1", "Accept-Language": "en-US,en;q=0.5"})
    await fetch_async(URL, headers={"X-Mine": "1"})


async def test_mocks_intercept_streams(httpx_mock: HTTPXMock, tmp_path: Path) -> None:
    """Those of users and those of downloads."""
    httpx_mock.add_response(content=b"mocked", headers={"ETag": '"1"'}, is_reusable=True)
    async with stream_async("GET", URL) as response:
        assert await response.aread() == b"mocked"
    result = await download_asset_async(URL, tmp_path / "f")
    assert (result.http_status, result.etag) == (200, '"1"')
    assert result.path.read_bytes() == b"mocked"


async def test_max_bytes_holds_for_mocks(httpx_mock: HTTPXMock) -> None:
    """The same error from every transport."""
    httpx_mock.add_response(content=b"x" * 100, is_reusable=True)
    with pytest.raises(ResponseTooLarge):
        await fetch_async(URL, max_bytes=99)
    assert len(await fetch_async(URL, max_bytes=100)) == 100


async def test_redirects_of_mocks_keep_credentials_at_home(httpx_mock: HTTPXMock) -> None:
    """The rule does not depend on the transport."""
    httpx_mock.add_response(url=URL, status_code=302, headers={"Location": "https://b.example/"})
    httpx_mock.add_response(url="https://b.example/", text="there")
    assert await fetch_async(URL, headers={"x-functions-key": "secret"}) == "there"
    first, second = httpx_mock.get_requests()
    assert first.headers["x-functions-key"] == "secret"
    assert "x-functions-key" not in second.headers


async def test_a_transport_of_the_users_is_used(tmp_path: Path) -> None:
    """`transport=` and `mounts=`, for every kind of call."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=f"{request.method} {request.url.host}")

    mounts = {"all://mocked.example": httpx.MockTransport(answer)}
    for options in ({"transport": httpx.MockTransport(answer)}, {"mounts": mounts}):
        async with AsyncHttpClient(**options) as client:
            assert await fetch_async(URL, client=client) == "GET mocked.example"
            response = await request_async("POST", URL, client=client)
            assert response.text == "POST mocked.example"
            downloads = AssetDownloadClient(client=client)
            result = await downloads.download(URL, tmp_path / "f", skip_if_exists=False)
            assert result.path.read_text() == "GET mocked.example"


@pytest.mark.parametrize("name", ["send", "request", "_send_single_request"])
async def test_methods_patched_by_hand_are_called(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Those of httpx.AsyncClient that tests like to replace. What they refuse is an error."""
    statuses = iter([200, 404])

    async def answer(self: object, *args: object, **kwargs: object) -> httpx.Response:
        return httpx.Response(next(statuses), text=name, request=httpx.Request("GET", URL))

    monkeypatch.setattr(httpx.AsyncClient, name, answer)
    assert await fetch_async(URL) == name
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await fetch_async(URL)
    assert caught.value.response.text == name


async def test_streams_do_not_pass_through_what_reads_whole_answers(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patched `AsyncClient.request` would hold a large file in memory."""

    async def answer(self: object, *args: object, **kwargs: object) -> httpx.Response:
        return httpx.Response(200, text="whole", request=httpx.Request("GET", URL))

    monkeypatch.setattr(httpx.AsyncClient, "request", answer)
    async with stream_async("GET", origin.url("/page")) as response:
        assert await response.aread() == b"real"
    result = await download_asset_async(origin.url("/page"), tmp_path / "f")
    assert result.path.read_bytes() == b"real"


async def test_a_replaced_client_class_is_used_and_given_up_again(origin: FaultyOrigin) -> None:
    """As `mock.patch("httpx.AsyncClient")` leaves it, the shared client included."""
    response = httpx.Response(200, text="mocked", request=httpx.Request("GET", URL))
    assert await fetch_async(origin.url("/page")) == "real"
    with mock.patch("httpx.AsyncClient") as fake:
        fake.return_value.request = mock.AsyncMock(return_value=response)
        assert await fetch_async(URL) == "mocked"
    assert await fetch_async(origin.url("/page")) == "real"


async def test_a_stand_in_for_the_client_gets_the_call_of_0_7() -> None:
    """Anything with get_client, giving out anything with request."""
    response = httpx.Response(200, text="mocked", request=httpx.Request("GET", URL))
    inner = mock.AsyncMock()
    inner.request.return_value = response

    class StandIn:
        async def get_client(self) -> object:
            return inner

    assert await fetch_async(URL, client=StandIn(), headers={"a": "b"}) == "mocked"  # type: ignore[arg-type]
    (method, url), options = inner.request.call_args
    assert (method, url) == ("GET", URL)
    assert set(options) == {"headers", "params", "json", "data", "content", "timeout"}
    assert options["headers"]["a"] == "b"
    assert "User-Agent" in options["headers"]


def test_mocks_that_were_there_before_us_are_recognised() -> None:
    """Imported under an active mock, the originals are recognised by where their code is from."""
    program = """
import asyncio, respx, httpx
with respx.mock as router:
    router.get("https://mocked.example/").respond(text="mocked")
    from infra_core.http import fetch_async
    from infra_core.http._intercept import interceptor
    assert asyncio.run(fetch_async("https://mocked.example/")) == "mocked"
    assert interceptor() is not None
assert interceptor() is None, interceptor()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=50)


async def test_the_slow_way_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per reason, at INFO."""
    from infra_core.http import _transport_httpx

    monkeypatch.setattr(_transport_httpx, "_noted", set())
    with caplog.at_level(logging.INFO, "infra_core.http_async"), respx.mock as router:
        router.get(URL).respond(text="mocked")
        for _ in range(3):
            await fetch_async(URL)
    messages = [r for r in caplog.records if "plain httpx" in r.getMessage()]
    assert len(messages) == 1
    assert "AsyncConnectionPool" in messages[0].reason  # type: ignore[attr-defined]


async def test_the_log_says_which_argument_needs_plain_httpx(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as the client is made."""
    from infra_core.http import _transport_httpx

    monkeypatch.setattr(_transport_httpx, "_noted", set())
    with caplog.at_level(logging.INFO, "infra_core.http_async"):
        async with AsyncHttpClient(http2=True), AsyncHttpClient():
            pass
    reasons = [vars(record)["reason"] for record in caplog.records]
    assert reasons == ["http2="]


class _Replayed(io.BytesIO):
    """An answer as vcrpy replays it: decoded, whatever its headers say."""

    status, reason, version, version_string, length_remaining = 200, "OK", 11, "HTTP/1.1", 0
    headers = HTTPHeaderDict({"Content-Encoding": "gzip"})

    def stream(self, amt: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """Yield the body."""
        while piece := self.read(amt):
            yield piece

    def release_conn(self) -> None:
        """There is none."""


class _Recorder(HTTPConnection):
    """In the place of urllib3's connections."""

    def connect(self) -> None:
        pass

    def request(self, *args: Any, **options: Any) -> None:
        pass

    def getresponse(self) -> Any:
        return _Replayed(b"recorded")


def test_connections_that_others_put_below_requests_are_used(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vcrpy does to record and replay, which blocking calls of 0.7 allowed."""
    url = origin.url("/page")
    with closing(RequestsHttpClient()) as client:
        assert fetch(url, client=client) == "real"
        with monkeypatch.context() as patched:
            patched.setattr(HTTPConnectionPool, "ConnectionCls", _Recorder)
            with closing(RequestsHttpClient()) as fresh:
                assert fetch(url, client=fresh) == "recorded"
                with pytest.raises(ResponseTooLarge):
                    request("GET", url, client=fresh, max_bytes=3)
                with stream("GET", url, client=fresh) as response:
                    assert response.text == "recorded"
        assert fetch(url, client=client) == "real"
    assert origin.count("/page") == 2
