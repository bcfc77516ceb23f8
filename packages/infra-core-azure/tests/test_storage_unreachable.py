"""An account that cannot be reached: how long it takes to say so, and what it says."""

import asyncio
import contextlib
import pickle
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from azure.core.exceptions import AzureError

from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    StorageAccessError,
    StorageConnectionError,
    StorageError,
    StorageTimeoutError,
    TransferOptions,
)
from infra_core.runtime.testing import fast_time

CREATED = b"HTTP/1.1 201 Created\r\nx-ms-request-id: 1\r\nContent-Length: 0\r\n\r\n"


class QuietServer:
    """Gives the first `answers` requests its answer, then reads on and is silent, or hangs up."""

    def __init__(self, answers: int = 0, answer: bytes = CREATED, *, hang_up: bool = False) -> None:
        self.requests = 0
        self.asked = threading.Event()
        self._answers = answers
        self._answer = answer
        self._hang_up = hang_up
        self._stopped = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while connection.recv(65536):
                self.requests += 1
                self.asked.set()
                if self.requests <= self._answers:
                    connection.sendall(self._answer)
                if self._hang_up:
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join()


Quiet = Callable[..., QuietServer]


@pytest.fixture
def quiet() -> Iterator[Quiet]:
    made: list[QuietServer] = []

    def start(*args: Any, **options: Any) -> QuietServer:
        made.append(QuietServer(*args, **options))
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture
def refusing() -> Iterator[int]:
    """A port on which no server listens, and none will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


Make = Callable[..., AzureStorageClient]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[AzureStorageClient] = []

    def build(endpoint: str, mode: Any = "strict", **options: Any) -> AzureStorageClient:
        settings = AzureStorageSettings(
            "box",
            f"AccountName=acc;AccountKey=a2V5;BlobEndpoint={endpoint}/acc",
            options=TransferOptions(**options),
            journal=tmp_path / "journal.sqlite",
        )
        made.append(AzureStorageClient.from_settings(settings, mode, base_path=tmp_path))
        return made[-1]

    yield build
    for client in made:
        client.close()


def test_container_waits_by_the_settings(make: Make, refusing: int) -> None:
    """The first use of the SDK's client retries as often and waits as long as everything else."""
    client = make(f"http://127.0.0.1:{refusing}", max_retries=3, backoff=0.5, max_backoff=1.0)
    with fast_time(jitter=1.0) as clock, pytest.raises(StorageConnectionError):
        client.container()
    assert clock.slept == [0.5, 1.0, 1.0]


async def test_container_async_waits_by_the_settings(make: Make, refusing: int) -> None:
    """Its twin as well."""
    client = make(f"http://127.0.0.1:{refusing}", max_retries=2)
    with fast_time(jitter=1.0) as clock, pytest.raises(StorageConnectionError):
        await client.container_async()
    assert clock.slept == [0.5, 1.0]
    await client.aclose()


def test_container_gives_a_silent_server_its_timeout(make: Make, quiet: Quiet) -> None:
    """`timeout` for each try, and no try more than `max_retries` says."""
    server = quiet()
    url = f"http://127.0.0.1:{server.port}"
    client = make(url, timeout=1, connect_timeout=1, max_retries=1, backoff=0)
    with pytest.raises(StorageTimeoutError):
        client.container()
    assert server.requests == 2


def test_container_keeps_the_deadline(make: Make, quiet: Quiet) -> None:
    """The total budget bounds it, however many retries there would be."""
    client = make(f"http://127.0.0.1:{quiet().port}", max_retries=1000, deadline=0.2)
    started = time.monotonic()
    with pytest.raises(StorageTimeoutError, match="deadline"):
        client.container()
    assert time.monotonic() - started < 20  # a timeout is 60


def test_close_does_not_wait_for_container(make: Make, quiet: Quiet) -> None:
    """Another thread may hang in its first use: closing is not held up by it."""
    server = quiet()
    client = make(f"http://127.0.0.1:{server.port}", max_retries=0)
    failed: list[BaseException] = []

    def use() -> None:
        try:
            client.container()
        except StorageConnectionError as error:
            failed.append(error)

    user = threading.Thread(target=use)
    user.start()
    assert server.asked.wait(10)
    closer = threading.Thread(target=client.close)
    closer.start()
    closer.join(30)
    assert not closer.is_alive()
    server.stop()
    user.join(10)
    assert failed


@pytest.mark.parametrize("what", ["sync", "async"])
def test_sdk_requests_wait_by_the_settings(make: Make, quiet: Quiet, what: str) -> None:
    """Not only making the container: every request of the SDK's client has our policy."""
    server = quiet(answers=1)
    client = make(f"http://127.0.0.1:{server.port}", max_retries=3, backoff=0.5, max_backoff=1.0)

    def ask() -> None:
        container = client.container()
        assert container is not None
        server.stop()
        container.get_container_properties()

    async def ask_async() -> None:
        try:
            container = await client.container_async()
            assert container is not None
            server.stop()
            await container.get_container_properties()
        finally:
            await client.aclose()

    with fast_time(jitter=1.0) as clock, pytest.raises(AzureError):
        asyncio.run(ask_async()) if what == "async" else ask()
    assert clock.slept == [0.5, 1.0, 1.0]


def test_sdk_requests_keep_the_deadline(make: Make, quiet: Quiet) -> None:
    """A silent server gets what is left of the budget, not its whole timeout each time."""
    server = quiet(answers=1)
    client = make(f"http://127.0.0.1:{server.port}", max_retries=1000, backoff=0, deadline=1)
    container = client.container()
    assert container is not None
    started = time.monotonic()
    with pytest.raises(AzureError):
        container.get_container_properties()
    assert time.monotonic() - started < 20


def test_unknown_host_is_not_asked_again(make: Make) -> None:
    """A name without address has none in half a second either."""
    client = make("http://nobody.invalid")
    with fast_time() as clock, pytest.raises(StorageConnectionError):
        client.container()
    assert clock.slept == []


# -- what it says -----------------------------------------------------------------------------

INSIDES = ("ssl:", "Errno", "Cannot connect", "HTTPConnection", "aiohttp", "Traceback", "a2V5")


def refusal(client: AzureStorageClient) -> str:
    """What a user reads when a listing fails."""
    with fast_time(jitter=0.0), pytest.raises(StorageConnectionError) as raised:
        client.list_tree(Path())
    text = str(raised.value)
    assert not any(word in text for word in INSIDES), text
    assert str(pickle.loads(pickle.dumps(raised.value))) == text
    # who sends errors to other processes may send these as well
    pickle.dumps((raised.value.__cause__, raised.value.__context__))
    assert "\n" not in str(raised.value.__cause__)  # a quotation of what was received
    assert raised.value.attempts == (1 if raised.value.permanent else 3)
    return text


def test_refused_connection_is_reported(make: Make, refusing: int) -> None:
    """Host and port, how often, and what to look at."""
    assert refusal(make(f"http://127.0.0.1:{refusing}", max_retries=2)) == (
        f"listing of 'box' failed: 127.0.0.1:{refusing} refused the connection (3 attempts); "
        "check host and port, and that the server runs; check that "
        "connection_string names the right account or endpoint"
    )


def test_unknown_host_is_reported(make: Make) -> None:
    """The name that has no address; no retry changes that."""
    text = refusal(make("https://nobody.invalid", max_retries=2))
    assert re.sub(r"DNS: [^)]*", "DNS: ...", text) == (
        "listing of 'box' failed: cannot resolve host 'nobody.invalid' (DNS: ...); check its "
        "name, or the name server; check that connection_string names the right account or endpoint"
    )


ANSWERS = [
    (b"", True, r"closed the connection without an answer \(3 attempts\); its log may say"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", True, "closed the connection before the"),
    # aiohttp says why, in words that depend on its release
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, r"is not valid HTTP \([^()]+\) \(3 attempts\)"),
    (b"", False, r"timed out, it sent nothing for 0\.1 s \(3 attempts\); check connection_string"),
]


@pytest.mark.parametrize(("answer", "hang_up", "expected"), ANSWERS)
def test_broken_answer_is_reported(
    make: Make, quiet: Quiet, answer: bytes, hang_up: bool, expected: str
) -> None:
    """Whatever stands in the place of a blob service."""
    server = quiet(99, answer, hang_up=hang_up)
    timeout = 0.1 if "sent nothing" in expected else 50.0  # a busy machine is no silent server
    client = make(f"http://127.0.0.1:{server.port}", max_retries=2, timeout=timeout)
    assert re.search(f"127.0.0.1:{server.port} {expected}", refusal(client))


def test_connection_that_never_stands_is_reported(make: Make) -> None:
    """A full backlog drops what comes, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        holding = [socket.socket() for _ in range(4)]
        for one in holding:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        client = make(f"http://127.0.0.1:{port}", max_retries=2, connect_timeout=0.1)
        text = refusal(client)
        for one in holding:
            one.close()
    assert f"connect to 127.0.0.1:{port} timed out after 0.1 s (3 attempts)" in text
    assert "or raise connect_timeout (0.1 s now)" in text


def test_untrusted_certificate_is_reported(make: Make) -> None:
    """Why it is not trusted and what makes it so; once, for it stays so."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def shake() -> None:
            connection, _ = listener.accept()
            with connection, pytest.raises(OSError):
                context.wrap_socket(connection, server_side=True).recv(1)

        server = threading.Thread(target=shake)
        server.start()
        text = refusal(make(f"https://127.0.0.1:{port}", max_retries=2))
        server.join()
    assert f"the certificate of 127.0.0.1:{port} is not trusted (" in text
    assert "SSL_CERT_FILE" in text


def test_certificate_authority_of_requests_counts(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQUESTS_CA_BUNDLE, as 0.7 honoured it."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(CREATED)
                with contextlib.suppress(OSError):  # until the client closes
                    secure.recv(1)

        server = threading.Thread(target=answer)
        server.start()
        client = make(f"https://127.0.0.1:{port}", max_retries=0)
        client.upload_text(tmp_path / "a", "x")
        client.close()
        server.join()


def test_plain_http_behind_https_is_reported(make: Make, quiet: Quiet) -> None:
    """An Azurite that was named with https://."""
    server = quiet(99, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    text = refusal(make(f"https://127.0.0.1:{server.port}", max_retries=2))
    assert f"TLS handshake with 127.0.0.1:{server.port} failed (" in text
    assert "check that this port speaks https" in text


def test_proxy_that_refuses_is_reported(
    make: Make, refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is named, without its password, not the account behind it."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass@127.0.0.1:{refusing}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    text = refusal(make("https://blobs.example", max_retries=2))
    assert f"the proxy of HTTPS_PROXY: 127.0.0.1:{refusing} refused the connection (3 at" in text
    assert text.endswith("check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")


def test_deadline_is_reported(make: Make, refusing: int) -> None:
    """With its variable, and what the try before it met."""
    client = make(f"http://127.0.0.1:{refusing}", max_retries=99, backoff=9, deadline=1)
    with pytest.raises(StorageConnectionError) as raised:
        client.list_tree(Path())
    assert "refused the connection" in str(raised.value)


def test_variables_are_named(tmp_path: Path, refusing: int) -> None:
    """Settings of the environment are called by the variables that they came from."""
    url = f"http://127.0.0.1:{refusing}/acc"
    env = {
        "APP_AZURE_STORAGE_CONTAINER": "box",
        "APP_AZURE_STORAGE_BLOB_ENDPOINT": url,
        "APP_AZURE_STORAGE_SAS_TOKEN": "sig=SECRET",
        "APP_AZURE_STORAGE_MAX_RETRIES": "0",
    }
    settings, mode = AzureStorageSettings.from_env_with_prefix("APP", env=env)
    with (
        AzureStorageClient.from_settings(settings, mode) as client,
        pytest.raises(StorageConnectionError, match="APP_AZURE_STORAGE_BLOB_ENDPOINT") as got,
    ):
        client.list_tree(Path())
    assert "SECRET" not in str(got.value)


def test_deadline_loses_nothing(make: Make, quiet: Quiet, tmp_path: Path) -> None:
    """In best-effort, what the deadline cut off is in the journal."""
    client = make(f"http://127.0.0.1:{quiet().port}", "best-effort", deadline=0.1)
    client.write_text(tmp_path / "a.txt", "kept")
    assert [entry.blob for entry in client.pending_uploads()] == ["a.txt"]


def test_download_keeps_the_deadline(make: Make, quiet: Quiet, tmp_path: Path) -> None:
    """With an error of ours, that names the blob and the variable."""
    client = make(f"http://127.0.0.1:{quiet().port}", deadline=0.1)
    with pytest.raises(StorageTimeoutError, match=r"download of 'a' was not done.*raise deadline"):
        client.download_to_path(tmp_path / "a")


class Penniless:
    """A credential that has no token to give."""

    def get_token(self, *scopes: str) -> None:
        raise RuntimeError("no identity found: client_secret=hunter2\nAttempted credentials: many")


def test_credential_without_token_is_reported_and_loses_nothing(tmp_path: Path) -> None:
    """In one line and without secrets; what was to be uploaded waits in the journal."""
    settings = AzureStorageSettings("box", account_name="acc", journal=tmp_path / "j.sqlite")
    for mode in ("strict", "best-effort"):
        client = AzureStorageClient.from_settings(
            settings, "strict" if mode == "strict" else "best-effort", credential=Penniless()
        )
        with client:
            if mode == "strict":
                with pytest.raises(StorageAccessError) as raised:
                    client.stat(tmp_path / "a")
                text = str(raised.value)
                assert "there is no token to send (RuntimeError: no identity found" in text
                assert "az login" in text
                assert "hunter2" not in text
                assert "Attempted" not in text
            else:
                client.upload_text(tmp_path / "a", "kept")
                assert len(client.pending_uploads()) == 1


def test_xml_that_is_no_listing_is_reported() -> None:
    """An empty answer would have meant an empty container."""
    from infra_core.azure.storage._blobs import parse_page

    with pytest.raises(StorageError, match="the listing is <html>; check that the endpoint is a"):
        parse_page(b"<html><body/></html>")
