"""The server that the probes ask: Python's own, answering what they name."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_IMAGE = b"\x89PNG\r\n\x1a\n" + b"x" * 100


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length:
            self.rfile.read(length)
        path = self.path.partition("?")[0]
        if path == "/redirect":
            self._answer(302, b"", Location="/ok")
        elif path == "/flaky":
            self._answer(503, b"busy")
        elif path == "/image.png":
            self._answer(200, _IMAGE, Content_Type="image/png")
        elif path == "/json":
            self._answer(200, b'{"a": 1}', Content_Type="application/json")
        elif path == "/latin":
            self._answer(200, "gr\u00fc\u00dfe".encode("latin-1"), Content_Type="text/plain")
        elif path == "/headers":
            self._answer(200, str("User-Agent" in self.headers).encode())
        elif path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.close_connection = True
        elif path == "/ok":
            self._answer(200, b"fine", Content_Type="text/plain; charset=utf-8")
        else:
            self._answer(404, b"no such page")

    do_POST = do_DELETE = do_PUT = do_HEAD = do_GET  # noqa: N815 - names of http.server

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def origin() -> Iterator[str]:
    """Serve on loopback; yields the base URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
