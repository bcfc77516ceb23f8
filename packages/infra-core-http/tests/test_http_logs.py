"""What the libraries below log of our requests holds no secret."""

import logging
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra_core.http import AsyncHttpClient, RequestsHttpClient, fetch, fetch_async
from infra_core.runtime import SecretFilter

QUERY = "sid=S3CR3T1&s%2569g=S3CR3T2&page=2"


class Quiet(SimpleHTTPRequestHandler):
    """Python's own server, without its lines on stderr."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def bare_loggers() -> None:
    """As in a process that has not sent a request yet."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        for hung in getattr(logger, "filters", [])[:]:
            if isinstance(logger, logging.Logger) and isinstance(hung, SecretFilter):
                logger.removeFilter(hung)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a page, with secrets in it."""
    (tmp_path / "a").write_text("text")
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/a?{QUERY}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_urllib3_logs_no_secret(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG it logs the path and query of every request."""
    caplog.set_level(logging.DEBUG)
    with RequestsHttpClient() as client:
        assert fetch(url, client=client, headers={"x-session-id": "S3CR3T3"}) == "text"
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("urllib3")]
    assert any("page=2" in line for line in lines)
    assert "S3CR3T" not in caplog.text


@pytest.mark.parametrize("plain", [False, True])
async def test_httpx_and_httpcore_log_no_secret(
    url: str, plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """At INFO the one logs every URL, at DEBUG the other every header; neither way leaks."""
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {"transport": httpx.AsyncHTTPTransport()} if plain else {}
    client = AsyncHttpClient(headers={"X-Api-Key": "S3CR3T3"}, **options)
    try:
        assert await fetch_async(url, client=client) == "text"
        answer = await (await client.get_client()).get(url)
        assert answer.text == "text"
    finally:
        await client.close()
    assert any("page=2" in record.getMessage() for record in caplog.records)
    assert "S3CR3T" not in caplog.text
