"""TLS, certificates, proxies, HTTP/2: the fast transport where it can, plain httpx elsewhere."""

import asyncio
import contextlib
import gc
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
import requests
import trustme

from infra_core.http import (
    AsyncHttpClient,
    RequestsHttpClient,
    fetch,
    fetch_async,
    request_async,
    stream_async,
)
from infra_core.http._async_client import manager_of
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime.testing import fast_time

PAGE = "/page"


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def secure(
    server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyOrigin]:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with FaultyOrigin(ssl_context=server_context) as running:
        running.add(PAGE, b"safe")
        yield running


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.mark.parametrize("form", ["path", "text", "context", "off"])
async def test_custom_certificates_are_trusted(
    secure: FaultyOrigin, bundle: Path, form: str
) -> None:
    """As a path, as text, as a context; or not checked at all. Over the fast transport."""
    verify = {
        "path": bundle,
        "text": str(bundle),
        "context": ssl.create_default_context(cafile=str(bundle)),
        "off": False,
    }[form]
    async with AsyncHttpClient(verify=verify) as client:
        assert await fetch_async(secure.url(PAGE), client=client) == "safe"
        response = await request_async("POST", secure.url(PAGE), json={}, client=client)
        assert response.text == "safe"
        async with stream_async("GET", secure.url(PAGE), client=client) as streamed:
            assert streamed.status_code == 200
        assert (await manager_of(client)._here()).direct_engine() is not None


@pytest.mark.parametrize("how", ["unread", "closing", "idle"])
def test_no_connection_outlives_the_loop(secure: FaultyOrigin, bundle: Path, how: str) -> None:
    """Closed is closed, even where TLS would still wait for the server's close_notify."""
    secure.add("/closing", b"bye", headers={"Connection": "close"})

    async def visit() -> None:
        async with AsyncHttpClient(verify=bundle) as client:
            if how == "unread":
                async with stream_async("GET", secure.url(PAGE), client=client) as streamed:
                    assert streamed.status_code == 200
            else:
                path = "/closing" if how == "closing" else PAGE
                assert await fetch_async(secure.url(path), client=client)

    gc.collect()
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        for _ in range(3):
            asyncio.run(visit())
        gc.collect()
    assert [str(warning.message) for warning in left] == []


async def test_ssl_cert_file_is_honoured(
    secure: FaultyOrigin, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that httpx and OpenSSL read."""
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    async with AsyncHttpClient() as client:
        assert await fetch_async(secure.url(PAGE), client=client) == "safe"


async def test_a_missing_bundle_is_said_to_be_missing(secure: FaultyOrigin) -> None:
    """By name."""
    async with AsyncHttpClient(verify="/no/such/ca.pem") as client:
        with pytest.raises(FileNotFoundError, match=r"/no/such/ca\.pem"):
            await fetch_async(secure.url(PAGE), client=client)


async def test_certificates_that_are_not_trusted_are_not_retried(secure: FaultyOrigin) -> None:
    """An httpx.ConnectError at once; the client says no, whatever the server repeats."""
    with fast_time() as time:
        for method in ("GET", "POST"):
            with pytest.raises(httpx.ConnectError):
                await request_async(method, secure.url(PAGE))
    assert time.slept == []
    assert secure.requests == []


def test_the_blocking_half_does_not_retry_them_either(secure: FaultyOrigin, bundle: Path) -> None:
    """An SSLError of requests; with the right bundle it works."""
    with fast_time() as time, pytest.raises(requests.exceptions.SSLError):
        fetch(secure.url(PAGE))
    assert time.slept == []

    def factory() -> requests.Session:
        session = requests.Session()
        session.verify = str(bundle)
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        assert fetch(secure.url(PAGE), client=client) == "safe"


async def test_client_certificates_are_presented(authority: trustme.CA, tmp_path: Path) -> None:
    """`cert=` as one file, or as a pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    own = authority.issue_cert("client@example.com")
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pair = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with FaultyOrigin(ssl_context=context) as server:
        server.add(PAGE, b"safe")
        for cert in (str(tmp_path / "both.pem"), pair):
            async with AsyncHttpClient(verify=str(tmp_path / "ca.pem"), cert=cert) as client:
                assert await fetch_async(server.url(PAGE), client=client) == "safe"


@contextlib.asynccontextmanager
async def _proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A forward proxy for plain HTTP that answers itself and notes what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b"\r\n", 1)[0].decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nproxy")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


async def test_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and NO_PROXY; all hosts take the fast way."""
    with FaultyOrigin() as origin:
        origin.add("/page", b"direct")
        async with _proxy() as (url, asked):
            monkeypatch.setenv("HTTP_PROXY", url)
            monkeypatch.setenv("http_proxy", url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            async with AsyncHttpClient() as client:
                for _ in range(2):
                    there = "http://somewhere.example/page"
                    assert await fetch_async(there, client=client) == "proxy"
                    assert await fetch_async(origin.url("/page"), client=client) == "direct"
                assert (await manager_of(client)._here()).direct_engine() is not None
            assert asked == ["GET http://somewhere.example/page HTTP/1.1"] * 2
            async with AsyncHttpClient(trust_env=False) as client:
                with pytest.raises(httpx.ConnectError, match="cannot resolve host"):
                    await fetch_async("http://somewhere.invalid/", client=client)


async def test_a_proxy_that_is_named_is_used() -> None:
    """`proxy=` of httpx."""
    async with _proxy() as (url, asked), AsyncHttpClient(proxy=url) as client:
        assert await fetch_async("http://somewhere.example/page", client=client) == "proxy"
        assert len(asked) == 1
    async with AsyncHttpClient(proxy="http://127.0.0.1:9") as client:
        with pytest.raises(httpx.ConnectError, match="proxy of the argument proxy: 127"):
            await fetch_async("http://somewhere.example/page", client=client, max_retries=0)


class _H2Server(asyncio.Protocol):
    """Just enough of an HTTP/2 server to answer every request."""

    open: ClassVar[list[asyncio.Transport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection

        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connection = H2Connection(H2Configuration(client_side=False))
        self.connection.initiate_connection()
        transport.write(self.connection.data_to_send())
        self.open.append(transport)

    def data_received(self, data: bytes) -> None:
        from h2.events import RequestReceived

        for event in self.connection.receive_data(data):
            if isinstance(event, RequestReceived):
                stream = event.stream_id
                self.connection.send_headers(stream, [(":status", "200"), ("server", "h2")])
                self.connection.send_data(stream, b"two", end_stream=True)
        self.transport.write(self.connection.data_to_send())


async def test_http2_works_when_asked_for(authority: trustme.CA, bundle: Path) -> None:
    """`http2=True` goes over plain httpx, which speaks it."""
    pytest.importorskip("h2")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_H2Server, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        async with AsyncHttpClient(http2=True, verify=str(bundle)) as client:
            response = await request_async("GET", url, client=client)
            assert (response.http_version, response.text) == ("HTTP/2", "two")
            assert await fetch_async(url, client=client) == "two"
            async with stream_async("GET", url, client=client) as streamed:
                assert streamed.http_version == "HTTP/2"
    finally:
        server.close()
        for transport in _H2Server.open:
            transport.abort()
        await asyncio.sleep(0)  # connections end one turn later


async def test_an_argument_that_httpx_does_not_know_is_its_type_error() -> None:
    """At first use, as in 0.7."""
    with pytest.raises(TypeError, match="no_such_option"):
        await AsyncHttpClient(no_such_option=1).get_client()
