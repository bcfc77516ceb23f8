"""Proxies and certificates count for tables and tokens as they do for everything else."""

import asyncio
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from infra_core.azure._tokens import default_credential
from infra_core.azure.exceptions import AzureTableError
from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableJobStore,
    TableConfig,
    _table_rows,
)

KEY = "a2V5"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Table(http.server.ThreadingHTTPServer):
    """Answers every request with 404 ResourceNotFound, and keeps what was asked for."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    def __enter__(self) -> "Table":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A handshake that the client gave up."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Table

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        if self.command == "POST":  # of the table itself
            self.send_response(204)
            self.end_headers()
            return
        body = b'{"odata.error":{"code":"ResourceNotFound","message":{"value":"none"}}}'
        self.send_response(404)
        self.send_header("x-ms-error-code", "ResourceNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - the names of http.server

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        _table_rows, "CLIENT_OPTIONS", {**_table_rows.CLIENT_OPTIONS, "retry_total": 0}
    )
    from infra_core.azure.job_store import _table

    monkeypatch.setattr(_table, "CLIENT_OPTIONS", _table_rows.CLIENT_OPTIONS)


@pytest.fixture
def proxy() -> Iterator[Table]:
    """Whatever is asked through it is answered by itself."""
    with Table() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def fetch(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Look for a job in the table at an endpoint."""

    def work(endpoint: str) -> Any:
        config = TableConfig(
            f"AccountName=acc123;AccountKey={KEY};TableEndpoint={endpoint}", "jobs"
        )

        async def look() -> Any:
            async with AsyncAzureTableJobStore(config=config) as store:
                return await store.fetch("batch", "job")

        if request.param == "async":
            return asyncio.run(look())
        with AzureTableJobStore(config=config) as store:
            return store.fetch("batch", "job")

    return work


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("http_proxy", "127.0.0.1:{port}"),
        ("HTTP_PROXY", "http://127.0.0.1:{port}"),
        ("ALL_PROXY", "http://user:p%40ss@127.0.0.1:{port}/"),
    ],
)
def test_tables_are_asked_through_the_proxy(
    fetch: Callable[[str], Any],
    proxy: Table,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    """With and without scheme, with credentials."""
    monkeypatch.setenv(variable, value.format(port=proxy.server_port))
    assert fetch("http://acc123.table.invalid") is None
    login = "Basic dXNlcjpwQHNz" if "@" in value else None
    assert proxy.asked
    assert all(path.startswith("http://acc123.table.invalid/") for path, _ in proxy.asked)
    assert {sent for _, sent in proxy.asked} == {login}


@pytest.mark.parametrize("exceptions", ["127.0.0.0/8", "[::1],127.0.0.1:{port}", "*"])
def test_tables_that_need_no_proxy_are_asked_directly(
    fetch: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, exceptions: str
) -> None:
    """By network, by port, all of them."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Table() as table:
        monkeypatch.setenv("NO_PROXY", exceptions.format(port=table.server_port))
        assert fetch(f"http://127.0.0.1:{table.server_port}/acc123") is None


def test_a_proxy_that_does_not_answer_is_named(
    fetch: Callable[[str], Any], proxy: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its password."""
    with Table() as closed:
        where = f"127.0.0.1:{closed.server_port}"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@{where}")
    with pytest.raises(AzureTableError, match=f"the proxy {where} of HTTPS_PROXY") as caught:
        fetch("https://acc123.table.invalid")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_of_each_variable_are_trusted_for_tables(
    fetch: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """And one that is not is our error."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with Table(context) as table:
        endpoint = f"https://127.0.0.1:{table.server_port}/acc123"
        with pytest.raises(AzureTableError, match="its certificate is not trusted"):
            fetch(endpoint)
        monkeypatch.setenv(variable, str(bundle))
        assert fetch(endpoint) is None


def test_tokens_are_asked_for_through_the_proxy(
    proxy: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A managed identity's endpoint stands for all: it is asked in the clear."""
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.server_port}")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://identity.invalid/token")
    monkeypatch.setenv("IDENTITY_HEADER", "secret")
    credential = default_credential()
    with pytest.raises(Exception, match="token"), credential:
        credential.get_token("https://storage.azure.com/.default")
    assert any(path.startswith("http://identity.invalid/token") for path, _ in proxy.asked)
