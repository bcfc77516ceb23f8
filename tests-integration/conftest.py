"""Servers that all integration tests share."""

import http.server
import socket
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import trustme

from infra_core.azure.testing import AzuriteServer
from infra_core.http.testing import FaultyOrigin


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of few tests, which take the longest: none is to be last, and alone."""
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: sizes[item.path])


class ExampleCom(http.server.BaseHTTPRequestHandler):
    """What the README's URLs serve."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body, kind = (
            (b"picture", "image/png")
            if self.path == "/image.png"
            else (b"<h1>example</h1>", "text/html")
        )
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class ConnectProxy(socketserver.StreamRequestHandler):
    """A proxy that knows one tunnel: to example.com, port 443, which is the server above."""

    target: int

    def handle(self) -> None:
        line = self.rfile.readline()
        while self.rfile.readline() not in {b"\r\n", b""}:
            pass
        if not line.startswith(b"CONNECT example.com:443 "):
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.target)) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(upstream, self.connection), daemon=True)
            back.start()
            pump(self.connection, upstream)
            back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def origin(faulty_origin: FaultyOrigin) -> FaultyOrigin:
    """The fixture that `infra-core` brings, under a short name."""
    return faulty_origin


@pytest.fixture(scope="session")
def example_com(
    tmp_path_factory: pytest.TempPathFactory, azurite: AzuriteServer
) -> Iterator[dict[str, str]]:
    """The environment under which https://example.com is the server above.

    Azurite comes first: behind this proxy, which knows one host, it could not be installed.
    """
    authority = trustme.CA()
    bundle = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.com").configure_cert(context)
    origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ExampleCom)
    origin.daemon_threads = True
    origin.socket = context.wrap_socket(origin.socket, server_side=True)
    handler = type("Tunnel", (ConnectProxy,), {"target": origin.server_address[1]})
    proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    for server in (origin, proxy):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{proxy.server_address[1]}"
    yield {
        "HTTPS_PROXY": address,
        "https_proxy": address,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "SSL_CERT_FILE": str(bundle),
        "REQUESTS_CA_BUNDLE": str(bundle),
    }
    for server in (origin, proxy):
        server.shutdown()
        server.server_close()
