"""A blob service of `http.server` whose answers a test decides, one function for all of them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, TransferOptions
from infra_core.azure.storage._settings import StorageMode

Answer = tuple[int, dict[str, str], bytes]
KEY = "a2V5"


class BlobServer:
    """Answers what `answer(method, path, headers, body)` says, and keeps what it was asked."""

    def __init__(self, answer: Callable[[str, str, Mapping[str, str], bytes], Answer]) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.signs = True  # that a blob service answers
        self.has_length = True  # of what it answers
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append((self.command, self.path, dict(self.headers)))
                given = dict(self.headers)
                status, headers, content = answer(self.command, self.path, given, body)
                self.send_response(status)
                usual = {"Content-Length": str(len(content))} if server.has_length else {}
                if server.signs:
                    usual["x-ms-request-id"] = "r"
                for name, value in {**usual, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    @property
    def connection_string(self) -> str:
        """How clients reach it."""
        port = self.http.server_address[1]
        return f"AccountName=a;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:{port}/a"

    def count(self, method: str, part: str = "") -> int:
        """How many requests of a method had this in their path."""
        return sum(how == method and part in path for how, path, _ in self.requests)


@contextmanager
def running(
    answer: Callable[[str, str, Mapping[str, str], bytes], Answer],
) -> Iterator[BlobServer]:
    """Run one."""
    server = BlobServer(answer)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


@pytest.fixture
def blob_server() -> Iterator[Callable[..., BlobServer]]:
    """Starts servers, which end with the test: `blob_server(answer)`."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(running(answer))


@pytest.fixture
def client_of(tmp_path: Path) -> Iterator[Callable[..., AzureStorageClient]]:
    """Makes clients, which are closed with the test: `client_of(server, mode, **options)`."""
    with ExitStack() as stack:

        def make(
            server: BlobServer, mode: StorageMode = "strict", **options: Any
        ) -> AzureStorageClient:
            settings = AzureStorageSettings(
                "box",
                server.connection_string,
                journal=tmp_path / "state" / "journal.sqlite",
                options=TransferOptions(**options),
            )
            base = tmp_path / "base"
            base.mkdir(exist_ok=True)
            client = AzureStorageClient.from_settings(settings, mode, base_path=base)
            return stack.enter_context(client)

        yield make
