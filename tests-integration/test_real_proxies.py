"""Requests through proxies that others wrote: tinyproxy (Debian) and microsocks (Debian).

Each is skipped where its program is not installed: `apt-get install tinyproxy-bin microsocks`.
"""

import asyncio
import http.server
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import requests
import trustme

from infra_core.http import AssetDownloadClient, AsyncHttpClient, fetch, fetch_async

FAILURES = (httpx.HTTPError, requests.RequestException)
PASSWORD = "hunter2"  # tinyproxy takes letters and digits alone
LOGIN = f"user:{PASSWORD}"
Get = Callable[[str], str]


class _Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"page" if "Proxy-Authorization" not in self.headers else b"leaked"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A web server of Python's own; yields its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}/page"
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(*command: str, port: int) -> Iterator[str]:
    """A proxy as a process of its own; yields host and port."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed here")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert process.poll() is None, "the proxy ended at once"
                assert time.monotonic() < ends, "the proxy does not listen"
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[str]:
    """With a password."""
    port = free_port()
    settings = tmp_path / "tinyproxy.conf"
    settings.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\n"
        f"BasicAuth user {PASSWORD}\nLogLevel Critical\n"
    )
    with running("tinyproxy", "-d", "-c", str(settings), port=port) as where:
        yield where


@pytest.fixture
def microsocks() -> Iterator[str]:
    """With a password."""
    port = free_port()
    command = ("microsocks", "-i", "127.0.0.1", "-p", str(port), "-u", "user", "-P", PASSWORD)
    with running(*command, port=port) as where:
        yield where


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A page over TLS whose certificate is trusted by the environment."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with serving(context) as url:
        yield url


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=["async", "plain", "sync", "download"])
def get(request: pytest.FixtureRequest, tmp_path: Path) -> Get:
    """Get a text five times over one of the ways that requests travel; return the last.

    tinyproxy closes a connection after its answer and does not say so before. The engine repeats a
    request that meets such an end; httpx and requests, which cannot see it coming, need a retry.
    """
    numbers = itertools.count()
    retries = 3 if request.param in {"plain", "sync"} else 0

    def work(url: str) -> str:
        async def over(*, http2: bool = False) -> str:
            async with AsyncHttpClient(http2=http2) as client:
                for _ in range(5):
                    if request.param == "download":
                        path = tmp_path / f"file{next(numbers)}"
                        await AssetDownloadClient(client=client, max_retries=0).download(url, path)
                        text = path.read_text()
                    else:
                        text = await fetch_async(url, client=client, max_retries=retries)
                return text

        if request.param == "sync":
            return [fetch(url, max_retries=retries) for _ in range(5)][-1]
        return asyncio.run(over(http2=request.param == "plain"))

    return work


def test_pages_come_through_tinyproxy(
    get: Get, tinyproxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TLS, with a login that reaches the proxy alone."""
    monkeypatch.setenv("http_proxy", f"http://{LOGIN}@{tinyproxy}")
    with serving() as url:
        assert get(url) == "page"


def test_pages_come_through_a_tunnel_of_tinyproxy(
    get: Get, tinyproxy: str, secure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS from end to end."""
    monkeypatch.setenv("HTTPS_PROXY", f"{LOGIN}@{tinyproxy}")
    assert get(secure) == "page"


@pytest.mark.parametrize(
    ("scheme", "login"), [("http", ""), ("https", ""), ("https", "user:wrong@")]
)
def test_tinyproxy_that_wants_a_login_is_named(
    get: Get, tinyproxy: str, monkeypatch: pytest.MonkeyPatch, scheme: str, login: str
) -> None:
    """407, for pages and for tunnels; a wrong password is answered by 401."""
    monkeypatch.setenv("ALL_PROXY", f"http://{login}{tinyproxy}")
    with pytest.raises(FAILURES, match="ALL_PROXY as http://user:password@") as caught:
        get(f"{scheme}://127.0.0.1:9/page")
    assert tinyproxy in str(caught.value)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_pages_come_through_microsocks(
    get: Get, microsocks: str, secure: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """With and without TLS."""
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://{LOGIN}@{microsocks}")
    assert get(secure) == "page"
    with serving() as url:
        assert get(url) == "page"
