"""Requests through proxies: every half by the same rules, and a proxy that fails is named."""

import asyncio
import base64
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import trustme

from infra_core.http import (
    AsyncHttpClient,
    InvalidRequestError,
    OutcomeUnknown,
    fetch,
    fetch_async,
    request,
    request_async,
)
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime.testing import fast_time

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PASSWORD = "hünter2@:/#"
LOGIN = "user:h%C3%BCnter2%40%3A%2F%23"


class Proxy:
    """A proxy for HTTP, CONNECT and SOCKS 5, in a thread of its own.

    All that it is asked for leads to one port of this machine.

    Args:
        port: Where everything leads to.
        password: The password that it wants; no authentication when None.
        refuse: The status that it answers CONNECT and forwarded requests with.
        ssl_context: For TLS to the proxy itself.

    Attributes:
        asked: First lines, or for SOCKS the host that was asked for.
    """

    def __init__(
        self,
        port: int = 9,
        *,
        password: str | None = None,
        refuse: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.asked: list[str] = []
        self._target = port
        self._login = None if password is None else f"user:{password}".encode()
        self._refuse = refuse
        self._ssl_context = ssl_context
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._ssl_context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for writer in self._writers:  # some wait for the last word of TLS, which never comes
            with suppress(AttributeError):  # Python 3.11.2 cannot abort what was closed twice
                writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        try:
            first = await reader.readexactly(1)
            await (self._socks if first == b"\x05" else self._http)(first, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _http(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        self.asked.append(line.decode())
        method, _, rest = line.partition(b" ")
        login = b""
        kept = []
        for each in fields.split(b"\r\n"):
            name, _, value = each.partition(b":")
            if name.lower() == b"proxy-authorization":
                login = base64.b64decode(value.strip().removeprefix(b"Basic "))
            elif name.lower() not in (b"proxy-connection", b"connection"):
                kept.append(each)
        status = self._refuse
        if self._login is not None and login != self._login:
            status = 407
        if status is not None:
            fields = b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(b"HTTP/1.1 %d No\r\n%s" % (status, fields))
            await writer.drain()
            return
        there = await self._connected()
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = b"/" + rest.partition(b"://")[2].partition(b"/")[2]
            kept.insert(1, b"Connection: close")
            there[1].write(b"%s %s\r\n%s" % (method, path, b"\r\n".join(kept)))
        await self._pipe(reader, writer, *there)

    async def _socks(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        wants_login = self._login is not None or 0 not in methods
        writer.write(b"\x05\x02" if wants_login else b"\x05\x00")
        if wants_login:
            await reader.readexactly(1)
            user = await reader.readexactly((await reader.readexactly(1))[0])
            secret = await reader.readexactly((await reader.readexactly(1))[0])
            right = self._login in (None, user + b":" + secret)
            writer.write(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(map(str, await reader.readexactly(4)))
        self.asked.append(host)
        await reader.readexactly(2)
        if self._refuse is not None:
            writer.write(b"\x05\x02\x00\x01" + bytes(6))  # not allowed by ruleset
            return
        there = await self._connected()
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self._pipe(reader, writer, *there)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        there = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.append(there[1])
        return there

    async def _pipe(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        to: asyncio.StreamWriter,
    ) -> None:
        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(copy(reader, to), copy(there, writer), return_exceptions=True)


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy but those that a test names."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        server.add("/page", b"page")
        yield server


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def port_of(server: FaultyOrigin) -> int:
    return httpx.URL(server.url("/")).port or 0


def tls_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[FaultyOrigin]:
    with FaultyOrigin(ssl_context=tls_of(authority, "somewhere.test")) as server:
        server.add("/page", b"page")
        yield server


Get = Callable[..., str]
FAILURES = (httpx.HTTPError, requests.RequestException)


def test_a_plain_request_goes_through_the_proxy(
    get: Get, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In absolute form, the name left for the proxy to look up."""
    with Proxy(port_of(origin)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.where)
        assert get("http://somewhere.test/page") == "page"
        assert get("http://somewhere.test:8080/page") == "page"
    assert [line.split()[1] for line in proxy.asked] == [
        "http://somewhere.test/page",
        "http://somewhere.test:8080/page",
    ]


def test_a_tls_request_goes_through_a_tunnel(
    get: Get, secure: FaultyOrigin, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is still that of the host."""
    with Proxy(port_of(secure)) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://{proxy.where}")
        assert get("https://somewhere.test/page") == "page"
        with pytest.raises(FAILURES, match="certificate"):
            get("https://elsewhere.test/page")
    assert proxy.asked[0].startswith("CONNECT somewhere.test:443")


def test_credentials_reach_the_proxy_alone(
    get: Get,
    origin: FaultyOrigin,
    secure: FaultyOrigin,
    trusted: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Percent-decoded, in UTF-8; on each request, kept connections included."""
    with Proxy(port_of(origin), password=PASSWORD) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{LOGIN}@{proxy.where}")
        assert [get("http://somewhere.test/page") for _ in range(2)] == ["page"] * 2
    with Proxy(port_of(secure), password=PASSWORD) as proxy:
        monkeypatch.setenv("https_proxy", f"{LOGIN}@{proxy.where}")
        assert [get("https://somewhere.test/page") for _ in range(2)] == ["page"] * 2
    for server in (origin, secure):
        for sent in server.requests:
            assert "proxy-authorization" not in {name.lower() for name in sent.headers}


def test_a_proxy_that_does_not_answer_is_named(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its variable, without its password."""
    with socket.socket() as held:  # so that no other server gets the port
        held.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{held.getsockname()[1]}"
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{LOGIN}@{where}")
            with pytest.raises(FAILURES) as caught:
                get(f"{scheme}://somewhere.test/page")
            unreachable = f"cannot connect to the proxy of {scheme.upper()}_PROXY: {where} "
            assert unreachable in str(caught.value)
            assert "nter2" not in str(caught.value)


def test_a_proxy_that_wants_credentials_is_named(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """407, forwarded or for a tunnel: the remedy is the variable. It is not retried."""
    with Proxy(password="other") as proxy, fast_time() as clock:
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", f"http://{LOGIN}@{proxy.where}")
            with pytest.raises(FAILURES, match="407") as caught:
                get(f"{scheme}://somewhere.test/page", max_retries=2)
            assert proxy.where in str(caught.value)
            assert f"{scheme}_proxy" in str(caught.value)
            assert "nter2" not in str(caught.value)
    assert clock.slept == []
    assert len(proxy.asked) == 2


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (502, 3), (503, 3)])
def test_a_tunnel_that_is_refused_is_retried_where_that_may_help(
    get: Get, monkeypatch: pytest.MonkeyPatch, status: int, tries: int
) -> None:
    """Forbidden is forbidden; a proxy that met a failure may not meet it again."""
    with Proxy(refuse=status) as proxy, fast_time():
        monkeypatch.setenv("https_proxy", proxy.where)
        with pytest.raises(FAILURES, match=str(status)) as caught:
            get("https://somewhere.test/page", max_retries=2)
    assert proxy.where in str(caught.value)
    assert len(proxy.asked) == tries


@pytest.mark.parametrize("half", ["async", "sync"])
def test_a_post_whose_tunnel_is_refused_was_not_sent(
    monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """Its outcome is known, so it is retried."""
    with Proxy(refuse=503) as proxy, fast_time():
        monkeypatch.setenv("https_proxy", proxy.where)
        url = "https://somewhere.test/page"
        with pytest.raises(FAILURES) as caught:
            if half == "async":
                asyncio.run(request_async("POST", url, json={}, max_retries=1))
            else:
                request("POST", url, json={}, max_retries=1)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert len(proxy.asked) == 2


def test_a_malformed_proxy_is_an_error_where_it_would_be_used(
    get: Get, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the variable and never what it holds."""
    monkeypatch.setenv("ALL_PROXY", "http://user:hunter2@[::1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert get(origin.url("/page")) == "page"
    with pytest.raises(InvalidRequestError, match="ALL_PROXY is not a proxy URL") as caught:
        get("http://somewhere.test/page")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("exceptions", ["127.0.0.0/8,fe80::/10", "[::1], 127.0.0.1:{port}", "*"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "127.0.0.1:9"])
def test_exceptions_are_asked_directly(
    get: Get, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, exceptions: str, proxy: str
) -> None:
    """Whatever form they have, and whatever form the proxy has."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", exceptions.format(port=port_of(origin)))
    assert get(origin.url("/page")) == "page"


@pytest.mark.parametrize("scheme", ["socks5h", "socks5"])
def test_socks_proxies_are_used(
    get: Get, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """With credentials; the name is looked up by the proxy, or here."""
    pytest.importorskip("aiohttp_socks")
    host = "somewhere.test" if scheme == "socks5h" else "127.0.0.1"
    with Proxy(port_of(origin), password="secret") as proxy:
        monkeypatch.setenv("all_proxy", f"{scheme}://user:secret@{proxy.where}")
        assert get(f"http://{host}:{port_of(origin)}/page") == "page"
    assert proxy.asked == [host]


async def test_connections_through_socks_are_used_again(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept open as all others are."""
    pytest.importorskip("aiohttp_socks")
    with Proxy(port_of(origin)) as proxy:
        monkeypatch.setenv("all_proxy", f"socks5h://{proxy.where}")
        async with AsyncHttpClient() as client:
            for _ in range(3):
                assert await fetch_async("http://somewhere.test/page", client=client) == "page"
        assert proxy.asked == ["somewhere.test"]


@pytest.mark.parametrize("half", ["async", "sync"])
def test_a_forwarding_proxy_is_asked_over_a_new_connection(
    monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """It may close the one before, though its answer does not say so: tinyproxy does."""
    served: list[int] = []

    class Closing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            served.append(len(self.request.recv(65_536)))
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            self.request.settimeout(30)
            while data := self.request.recv(65_536):  # until the client ends it
                served.append(-len(data))

    async def pages() -> list[str]:
        async with AsyncHttpClient() as client:
            return [await fetch_async(url, client=client, max_retries=0) for _ in range(3)]

    url = "http://somewhere.test/page"
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Closing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{server.server_address[1]}")
        got = asyncio.run(pages()) if half == "async" else [fetch(url) for _ in range(3)]
        server.shutdown()
    assert got == ["page"] * 3
    assert len(served) == 3
    assert min(served) > 0


def test_a_socks_proxy_that_fails_is_named(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer, one that refuses."""
    pytest.importorskip("aiohttp_socks")
    with Proxy(refuse=403) as proxy:
        monkeypatch.setenv("all_proxy", f"socks5h://user:hunter2@{proxy.where}")
        if get.half != "plain":  # type: ignore[attr-defined] # httpcore leaves it open then
            words = r"all_proxy refused a connection to somewhere\.test:80 \(.*not allowed by"
            with pytest.raises(FAILURES, match=words) as caught:
                get("http://somewhere.test/page")
            assert proxy.where in str(caught.value)
    with pytest.raises(FAILURES, match=f"to the proxy of all_proxy: {proxy.where} ") as caught:
        get("http://somewhere.test/page")
    assert "hunter2" not in str(caught.value)


def test_socks_without_its_packages_is_a_clear_error(
    get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "aiohttp_socks", None)
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setitem(sys.modules, "urllib3.contrib.socks", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://user:hunter2@127.0.0.1:9")
    with pytest.raises(InvalidRequestError, match=r"infra-core-http\[socks\]") as caught:
        get("http://somewhere.test/page")
    assert "ALL_PROXY" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_tls_to_the_proxy_itself(
    get: Get,
    origin: FaultyOrigin,
    authority: trustme.CA,
    trusted: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`https://` proxies, with the same certificates."""
    with Proxy(port_of(origin), ssl_context=tls_of(authority, "127.0.0.1")) as proxy:
        monkeypatch.setenv("http_proxy", f"https://{proxy.where}")
        assert get("http://somewhere.test/page") == "page"
    with Proxy(port_of(origin), ssl_context=tls_of(trustme.CA(), "127.0.0.1")) as proxy:
        monkeypatch.setenv("http_proxy", f"https://{proxy.where}")
        with pytest.raises(FAILURES, match="certificate") as caught:
            get("http://somewhere.test/page")
        assert proxy.where in str(caught.value)
