"""Certificates: which are trusted in every half, and what is said of those that are not."""

import datetime as dt
import socketserver
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import trustme
from urllib3.exceptions import InsecureRequestWarning

from infra_core.http import RequestsHttpClient
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime.testing import fast_time

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
FAILURES = (httpx.HTTPError, requests.RequestException)
Get = Callable[..., str]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def serving(authority: trustme.CA, name: str = "127.0.0.1", **options: Any) -> FaultyOrigin:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    server = FaultyOrigin(ssl_context=context)
    server.add("/page", b"safe")
    return server


def bundle_of(authority: trustme.CA, path: Path) -> str:
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def folder_of(authority: trustme.CA, folder: Path) -> str:
    """A folder as `openssl rehash` leaves it: files named by the hash of the subject."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    folder.mkdir()
    certificate = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    context = ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
    assert context.get_ca_certs()
    name = _subject_hash(certificate)
    (folder / f"{name:08x}.0").write_bytes(authority.cert_pem.bytes())
    return str(folder)


def _subject_hash(certificate: Any) -> int:
    """As OpenSSL's X509_NAME_hash: SHA-1 of the canonical form of the name."""
    import hashlib

    def der(tag: int, body: bytes) -> bytes:
        assert len(body) < 128
        return bytes([tag, len(body)]) + body

    parts = b""
    for relative in certificate.subject.rdns:
        for attribute in relative:
            oid = bytes.fromhex("0603") + _oid(attribute.oid.dotted_string)
            text = " ".join(str(attribute.value).lower().split())
            parts += der(0x31, der(0x30, oid + der(0x0C, text.encode())))
    return int.from_bytes(hashlib.sha1(parts).digest()[:4], "little")


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    assert all(number < 128 for number in rest)
    return bytes([first * 40 + second, *rest])


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_names_certificates_for_every_half(
    get: Get,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    """Whichever library it was made for, also beside one that names others."""
    own = (
        folder_of(authority, tmp_path / "folder")
        if variable == "SSL_CERT_DIR"
        else bundle_of(authority, tmp_path / "ca.pem")
    )
    other = bundle_of(trustme.CA(), tmp_path / "other.pem")
    with serving(authority) as server:
        monkeypatch.setenv(variable, own)
        assert get(server.url("/page")) == "safe"
        for name in VARIABLES:
            if name not in (variable, "SSL_CERT_DIR"):
                monkeypatch.setenv(name, other)
        assert get(server.url("/page")) == "safe"


def test_a_variable_that_names_nothing_is_an_error_by_its_name(
    get: Get, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless another one names certificates that are there."""
    missing = str(tmp_path / "missing.pem")
    with serving(authority) as server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", missing)
        with pytest.raises(OSError, match="REQUESTS_CA_BUNDLE") as caught:
            get(server.url("/page"))
        assert missing in str(caught.value)
        monkeypatch.setenv("SSL_CERT_FILE", bundle_of(authority, tmp_path / "ca.pem"))
        assert get(server.url("/page")) == "safe"


def test_an_untrusted_certificate_is_refused(get: Get, authority: trustme.CA) -> None:
    """At once; the text names the variable that would help."""
    with serving(authority) as server, fast_time() as clock, pytest.raises(FAILURES) as caught:
        get(server.url("/page"), max_retries=2)
    assert clock.slept == []
    host = httpx.URL(server.url("/")).netloc.decode()
    assert f"the certificate of {host} is not trusted (" in str(caught.value)
    assert "set SSL_CERT_FILE" in str(caught.value)


def test_an_expired_certificate_is_refused(
    get: Get, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the remedy is not another CA."""
    monkeypatch.setenv("SSL_CERT_FILE", bundle_of(authority, tmp_path / "ca.pem"))
    then = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    with serving(authority, not_after=then) as server, pytest.raises(FAILURES) as caught:
        get(server.url("/page"))
    assert "(certificate has expired): its owner must renew it" in str(caught.value)


def test_a_certificate_for_another_host_is_refused(
    get: Get, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name or address."""
    monkeypatch.setenv("SSL_CERT_FILE", bundle_of(authority, tmp_path / "ca.pem"))
    with serving(authority, "elsewhere.test") as server:
        with pytest.raises(FAILURES, match="check the address in the URL"):
            get(server.url("/page"))
        with pytest.raises(FAILURES, match="check the host name in the URL"):
            get(server.url("/page").replace("127.0.0.1", "localhost"))


class _Plain(socketserver.BaseRequestHandler):
    """What web servers answer to TLS on their plain port."""

    def handle(self) -> None:
        self.request.recv(65_536)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def test_tls_to_a_port_without_tls_is_said_so(get: Get) -> None:
    """It is a frequent mistake in URLs."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Plain) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(FAILURES, match="check that this port speaks https"):
            get(f"https://127.0.0.1:{server.server_address[1]}/page")
        server.shutdown()


@pytest.mark.parametrize("of", ["call", "session"])
def test_no_certificate_is_looked_at_where_a_blocking_call_says_so(
    authority: trustme.CA, of: str
) -> None:
    """`verify=False`, of a call or on a session; urllib3 warns of it."""

    def unverified() -> requests.Session:
        session = requests.Session()
        session.verify = False
        return session

    with (
        serving(authority) as server,
        RequestsHttpClient(session_factory=unverified if of == "session" else None) as client,
        pytest.warns(InsecureRequestWarning),
    ):
        options: dict[str, Any] = {"verify": False} if of == "call" else {}
        assert client.request("GET", server.url("/page"), **options).text == "safe"
