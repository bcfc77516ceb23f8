"""Our clients against servers that others wrote: redirects of every method, status and way.

Each server answers the same: `/r/<status>` redirects to `/end`; any other path answers the line
`<method>|<Transfer-Encoding>|<Content-Length>|<port of the client>`.
"""

import asyncio
import contextlib
import http.server
import importlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from infra_core.http import (
    AssetDownloadClient,
    AsyncHttpClient,
    fetch_async,
    request,
    request_async,
    stream_async,
)


class Unavailable(Exception):  # noqa: N818 - what it is
    """The program is not installed here."""


def _line(method: str, coding: str | None, length: str | None, port: object) -> bytes:
    return f"{method}|{coding or ''}|{length or ''}|{port}".encode()


class _Handler(http.server.BaseHTTPRequestHandler):
    """The way the manual of the standard library shows it: no reading of chunked bodies."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        if self.path.startswith("/r/"):
            self.send_response(int(self.path[3:6]))
            self.send_header("Location", "/end")
        else:
            headers = self.headers
            body = _line(
                self.command,
                headers.get("Transfer-Encoding"),
                headers.get("Content-Length"),
                self.client_address[1],
            )
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # its 5 would make clients wait for seconds until they are let in

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


@contextlib.contextmanager
def python_http_server(context: ssl.SSLContext | None = None) -> Iterator[str]:
    server = _Quiet(("127.0.0.1", 0), _Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def aiohttp_server(context: ssl.SSLContext | None = None) -> Iterator[str]:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        if request.path.startswith("/r/"):
            return web.Response(status=int(request.path[3:6]), headers={"Location": "/end"})
        headers = request.headers
        transport = request.transport
        port = transport.get_extra_info("peername")[1] if transport is not None else 0
        return web.Response(
            body=_line(
                request.method,
                headers.get("Transfer-Encoding"),
                headers.get("Content-Length"),
                port,
            )
        )

    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = []
    ready = threading.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        stop = asyncio.Event()
        started.append((asyncio.get_running_loop(), stop, runner.addresses[0][1]))
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(60)
    loop, stop, port = started[0]
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@contextlib.contextmanager
def uvicorn_server() -> Iterator[str]:
    try:
        uvicorn: Any = importlib.import_module("uvicorn")
    except ImportError:
        raise Unavailable("uvicorn is not installed") from None

    async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        while (await receive()).get("more_body"):
            pass
        path, body, headers = scope["path"], b"", []
        status = 200
        if path.startswith("/r/"):
            status, headers = int(path[3:6]), [(b"location", b"/end")]
        else:
            sent = dict(scope["headers"])
            body = _line(
                scope["method"],
                sent.get(b"transfer-encoding", b"").decode(),
                sent.get(b"content-length", b"").decode(),
                scope["client"][1],
            )
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", http="h11"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


_NODE = """
const server = require("http").createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    if (request.url.startsWith("/r/")) {
      response.writeHead(Number(request.url.slice(3, 6)), {Location: "/end", "Content-Length": 0});
      response.end();
      return;
    }
    const headers = request.headers;
    response.end([request.method, headers["transfer-encoding"] || "",
      headers["content-length"] || "", request.socket.remotePort].join("|"));
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


@contextlib.contextmanager
def node_server() -> Iterator[str]:
    node = shutil.which("node")
    if node is None:
        raise Unavailable("Node is not installed")
    process = subprocess.Popen([node, "-e", _NODE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        with process.stdout:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


_NGINX = """
daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  default_type text/plain; client_max_body_size 10m; keepalive_requests 10000;
  server {{
    listen 127.0.0.1:{port};
    {redirects}
    location / {{
      return 200 "$request_method|$http_transfer_encoding|$content_length|$remote_port";
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx_server() -> Iterator[str]:
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None and os.environ.get("CI") and shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "install", "-y", "nginx-light"], check=False)
        nginx = shutil.which("/usr/sbin/nginx")
    if nginx is None:
        raise Unavailable("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    redirects = "\n".join(
        f"location = /r/{status} {{ return {status} /end; }}" for status in STATUSES
    )
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(_NGINX.format(home=folder, port=port, redirects=redirects))
        with subprocess.Popen(
            [nginx, "-c", str(config), "-p", folder, "-e", f"{folder}/error.log"],
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _wait_for(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise Unavailable("nginx did not start")


SERVERS: dict[str, Any] = {
    "http.server": python_http_server,
    "node": node_server,
    "uvicorn": uvicorn_server,
    "aiohttp": aiohttp_server,
    "nginx": nginx_server,
}


STATUSES = (301, 302, 303, 307, 308)
METHODS = ("GET", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "HEAD")
WITH_BODY = ("POST", "PUT", "PATCH")
BODY = b"precious"


@pytest.fixture(scope="module", params=SERVERS)
def base(request: pytest.FixtureRequest) -> Iterator[str]:
    server = SERVERS[request.param]()
    try:
        url = server.__enter__()
    except Unavailable as missing:
        pytest.skip(str(missing))
    try:
        yield url
    finally:
        server.__exit__(None, None, None)


def _then(method: str, status: int) -> str:
    if status == 303 and method != "HEAD":
        return "GET"
    return "GET" if method == "POST" and status in (301, 302) else method


def _check(line: str, method: str, status: int) -> str:
    """Check what the last request carried, and return the port that it came from."""
    found, coding, length, port = line.split("|")
    assert found == _then(method, status)
    assert coding == ""
    kept = found == method and method in WITH_BODY and status != 303
    assert length == str(len(BODY)) if kept else length in ("", "0")
    if found == "GET":
        assert length == ""
    return port


Way = Callable[[AsyncHttpClient, str, str, bytes | None], Awaitable[httpx.Response]]


async def _by_request(
    client: AsyncHttpClient, method: str, url: str, body: bytes | None
) -> httpx.Response:
    return await request_async(method, url, client=client, content=body, max_retries=0)


async def _by_stream(
    client: AsyncHttpClient, method: str, url: str, body: bytes | None
) -> httpx.Response:
    async with stream_async(method, url, client=client, content=body) as response:
        await response.aread()
        return response


async def _by_client(
    client: AsyncHttpClient, method: str, url: str, body: bytes | None
) -> httpx.Response:
    return await (await client.get_client()).request(method, url, content=body)


@pytest.mark.parametrize("way", [_by_request, _by_stream, _by_client])
async def test_redirects_of_every_method_and_status(base: str, way: Way) -> None:
    """RFC 9110, section 15.4; no body where there was none, and one connection for all."""
    client = AsyncHttpClient()
    ports = set()
    for status in STATUSES:
        for method in METHODS[:-1]:
            body = BODY if method in WITH_BODY else None
            response = await way(client, method, f"{base}/r/{status}", body)
            assert response.status_code == 200
            ports.add(_check(response.text, method, status))
    assert len(ports) == 1
    for status in STATUSES:  # some servers say no length in the answer to a HEAD
        response = await way(client, "HEAD", f"{base}/r/{status}", None)
        assert (response.status_code, response.request.method) == (200, "HEAD")
        assert response.content == b""
    await client.close()


async def test_redirects_through_a_client_of_httpx(base: str) -> None:
    """The same rules, whosever client it is."""
    async with httpx.AsyncClient(follow_redirects=True) as client:
        for status in STATUSES:
            for method in ("GET", "DELETE", "POST", "PUT"):
                body = BODY if method in WITH_BODY else None
                response = await request_async(
                    method, f"{base}/r/{status}", client=client, content=body, max_retries=0
                )
                _check(response.text, method, status)


async def test_fetches_reuse_their_connection_after_redirects(base: str) -> None:
    """Fifty redirected calls, one connection."""
    client = AsyncHttpClient()
    ports = set()
    for turn in range(50):
        status = STATUSES[turn % 5]
        line = await fetch_async(f"{base}/r/{status}", client=client, max_retries=0)
        ports.add(_check(line, "GET", status))
    assert len(ports) == 1
    await client.close()


async def test_many_redirected_calls_at_once(base: str) -> None:
    """None of them fails without retries: no connection is out of step."""
    client = AsyncHttpClient()
    lines = await asyncio.gather(
        *(
            fetch_async(f"{base}/r/{STATUSES[n % 5]}", client=client, max_retries=0, timeout=60)
            for n in range(100)
        )
    )
    for number, line in enumerate(lines):
        _check(line, "GET", STATUSES[number % 5])
    await client.close()


async def test_downloads_follow_redirects(base: str, tmp_path: Path) -> None:
    """With no body on the way, and the file whole."""
    client = AssetDownloadClient(max_retries=0)
    for status in STATUSES:
        await client.download(f"{base}/r/{status}", tmp_path / str(status))
        _check((tmp_path / str(status)).read_text(), "GET", status)


def test_blocking_calls_follow_redirects(base: str) -> None:
    """Both halves follow one rule."""
    for status in STATUSES:
        for method in METHODS:
            body = BODY if method in WITH_BODY else None
            response = request(method, f"{base}/r/{status}", content=body, max_retries=0)
            if method != "HEAD":
                _check(response.text, method, status)


async def test_streamed_bodies_are_not_sent_again(base: str) -> None:
    """Read once, they cannot be; the error says what to pass instead."""

    async def body() -> AsyncIterator[bytes]:
        yield BODY

    if base.endswith("http.server"):
        pytest.skip("reads no chunked body")
    with pytest.raises(httpx.LocalProtocolError, match="pass the body as bytes"):
        async with stream_async(
            "PUT", f"{base}/r/307", content=body(), headers={"Content-Length": str(len(BODY))}
        ):
            pass


@pytest.mark.parametrize("server", [python_http_server, aiohttp_server])
async def test_redirects_over_tls(server: object, tmp_path: Path) -> None:
    """One connection, as without."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with server(context) as url:  # type: ignore[operator]
        client = AsyncHttpClient(verify=str(bundle))
        ports = set()
        for status in STATUSES:
            for method in ("GET", "PUT", "DELETE"):
                body = BODY if method == "PUT" else None
                response = await request_async(
                    method, f"{url}/r/{status}", client=client, content=body, max_retries=0
                )
                ports.add(_check(response.text, method, status))
        assert len(ports) == 1
        await client.close()
