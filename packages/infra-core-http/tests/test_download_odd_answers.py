"""Answers that no grammar allows or that few servers send: the whole file, or an error of ours."""

from __future__ import annotations

import base64
import gzip
import hashlib
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import respx
from hypothesis import given, strategies as st

from infra_core.http import (
    ChecksumMismatchError,
    DownloadError,
    HttpError,
    IncompleteDownloadError,
    InvalidRequestError,
    fetch_async,
    request_async,
)
from infra_core.http.assets import DownloadResult, download_asset, download_asset_async
from infra_core.http.download._fields import (
    announced_digests,
    content_length,
    content_range,
    disposition_name,
    fields_of,
)
from infra_core.http.testing import FaultyOrigin, reset_after

BODY = b"".join(b"%06d" % number for number in range(5_000))
ZIPPED = gzip.compress(BODY)
OTHER = b"x" * len(BODY)


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def checksum_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


class RawServer:
    """Sends the same bytes to every client, and keeps the heads of the requests."""

    def __init__(self, answer: bytes) -> None:
        self.heads: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/f"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(65_536)):
                    head += more
                self.heads.append(head)
                connection.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


Serve = Callable[..., RawServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make a server of lines and a body; `length=False` leaves Content-Length out."""
    servers: list[RawServer] = []

    def make(
        *lines: str | bytes, body: bytes = BODY, status: str = "200 OK", length: bool = True
    ) -> RawServer:
        known = [f"HTTP/1.1 {status}".encode(), b"Connection: close"]
        known += [line if isinstance(line, bytes) else line.encode() for line in lines]
        if length:
            known.append(b"Content-Length: %d" % len(body))
        servers.append(RawServer(b"\r\n".join(known) + b"\r\n\r\n" + body))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def get(url: str, dest: Path, **options: object) -> DownloadResult:
    return download_asset(url, dest, max_retries=0, timeout=10, **options)  # type: ignore[arg-type]


# -- digests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        [f"x-goog-hash: md5={md5(BODY)}", "x-goog-hash: crc64=AAAAAA=="],
        ["x-goog-hash: crc64=AAAAAA==", f"x-goog-hash: md5={md5(BODY)}"],
        [f"Digest: md5={md5(BODY)}", "Digest: unixsum=3"],
        [f"Digest: unixsum=3, SHA-256={sha256(BODY)}"],
        [f"Repr-Digest: sha-256=:{sha256(BODY)}:;a=1", "Repr-Digest: sha-512=:AAAA:"],
        [f'Repr-Digest: x="a, b", sha-256=:{sha256(BODY)}:'],
        [f"Content-Digest: sha-256=:{sha256(BODY)}:"],
        [f"Content-MD5: {md5(BODY)}"],
        [f"Content-MD5: {md5(BODY)}", "Content-MD5: ???"],
        [f"x-ms-blob-content-md5: {md5(BODY)}"],
    ],
    ids=lambda lines: lines[0][:24],
)
def test_digests_of_all_header_lines_are_read(
    serve: Serve, tmp_path: Path, lines: list[str]
) -> None:
    """A second line, or another algorithm before it, hides none."""
    get(serve(*lines).url, tmp_path / "right")
    with pytest.raises(ChecksumMismatchError, match="the server's own digest"):
        get(serve(*lines, body=OTHER).url, tmp_path / "wrong")
    assert [path.name for path in tmp_path.iterdir()] == ["right"]


@pytest.mark.parametrize(
    "line",
    [
        "Digest: md5=????",
        "Digest: md5",
        "Digest: md5=" + "A" * 5_000,
        b"Digest: md5=\xff\xfe",
        "Repr-Digest: sha-256=:AAAA:",
        "Repr-Digest: sha-256=AAAA",
        "Repr-Digest: sha-256=::",
        "Content-MD5: " + hashlib.md5(OTHER, usedforsecurity=False).hexdigest(),
        "x-goog-hash: md5=",
    ],
    ids=repr,
)
def test_malformed_digests_are_ignored(serve: Serve, tmp_path: Path, line: str | bytes) -> None:
    """No reason to refuse a file."""
    get(serve(line).url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize(
    "lines",
    [
        ["x-goog-stored-content-encoding: gzip"],
        ["x-guploader-response-body-transformations: gunzipped"],
        ['Warning: 214 UploadServer "gunzipped"'],
        ['Warning: 110 - "stale", 214 - "changed"'],
    ],
    ids=lambda lines: lines[0],
)
def test_the_digest_of_an_object_that_was_decoded_on_its_way_is_not_the_bodys(
    serve: Serve, tmp_path: Path, lines: list[str]
) -> None:
    """GCS decompresses, and announces the digest of what it stores."""
    stored = f"x-goog-hash: crc64=AAAAAA==,md5={md5(ZIPPED)}"
    get(serve(stored, *lines).url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("header", ["Digest: md5=", "x-goog-hash: md5=", "Content-MD5: "])
@pytest.mark.parametrize("of", [BODY, ZIPPED], ids=["decoded", "as sent"])
def test_the_digest_of_an_encoded_body_is_that_of_either_form(
    serve: Serve, tmp_path: Path, header: str, of: bytes
) -> None:
    """RFC 9530 means the encoded bytes, what compresses on the way leaves the header alone."""
    encoded = ["Content-Encoding: gzip", "x-goog-stored-content-encoding: gzip"]
    get(serve(*encoded, header + md5(of), body=ZIPPED).url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    with pytest.raises(ChecksumMismatchError):
        get(serve(*encoded, header + md5(OTHER), body=ZIPPED).url, tmp_path / "g")


class Crc32c:
    """What google-crc32c does, as slow as Python is."""

    @staticmethod
    def extend(crc: int, data: bytes) -> int:
        assert type(data) is bytes
        crc ^= 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("body", [BODY, ZIPPED], ids=["plain", "encoded"])
def test_crc32c_alone_is_verified_where_it_can_be_computed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """GCS has no other digest of a composite object; without google-crc32c it is passed over."""

    def header(of: bytes) -> str:
        digest = Crc32c.extend(0, of).to_bytes(4, "big")
        return f"x-goog-hash: crc32c={base64.b64encode(digest).decode()}"

    lines = ["Content-Encoding: gzip"] if body is ZIPPED else []
    monkeypatch.setattr("infra_core.fs._checksum._google_crc32c", lambda: None)
    get(serve(header(OTHER), *lines, body=body).url, tmp_path / "f")
    monkeypatch.setattr("infra_core.fs._checksum._google_crc32c", lambda: Crc32c)
    get(serve(header(body), *lines, body=body).url, tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == BODY
    with pytest.raises(ChecksumMismatchError, match="the server's own digest is crc32c"):
        get(serve(header(OTHER), *lines, body=body).url, tmp_path / "h")


def test_digests_of_a_part_are_not_those_of_the_file() -> None:
    """Content-MD5 and Content-Digest are those of the message."""
    fields = {
        "content-md5": md5(BODY),
        "content-digest": f"md5=:{md5(BODY)}:",
        "x-ms-blob-content-md5": md5(OTHER),
    }
    expected = hashlib.md5(OTHER, usedforsecurity=False).hexdigest()
    assert announced_digests(fields, whole=False) == {("md5", expected)}


# -- content coding ----------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "gzip, utf-8"])
def test_a_checksum_of_the_bytes_as_sent_is_honoured(
    serve: Serve, tmp_path: Path, coding: str
) -> None:
    """What is stored is what the checksum is of; neither form: an error."""
    server = serve(f"Content-Encoding: {coding}", body=ZIPPED)
    for form in (ZIPPED, BODY):
        expected = "sha256:" + hashlib.sha256(form).hexdigest()
        result = get(server.url, tmp_path / "f", expected_checksum=expected, skip_if_exists=False)
        assert (tmp_path / "f").read_bytes() == form
        assert (result.checksum, result.size) == (expected, len(form))
    with pytest.raises(ChecksumMismatchError):
        get(server.url, tmp_path / "g", expected_checksum="md5:" + "0" * 32)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_coding_that_cannot_be_undone_does_no_harm_to_the_bytes_as_sent(
    serve: Serve, tmp_path: Path
) -> None:
    """Their checksum proves them."""
    server = serve("Content-Encoding: compress")
    expected = "sha256:" + hashlib.sha256(BODY).hexdigest()
    get(server.url, tmp_path / "f", expected_checksum=expected)
    assert (tmp_path / "f").read_bytes() == BODY
    with pytest.raises(DownloadError, match="cannot be undone"):
        get(server.url, tmp_path / "g")


@pytest.mark.parametrize("max_bytes", [len(BODY) - 1, len(BODY)])
@pytest.mark.parametrize("checked", [True, False])
def test_max_bytes_is_that_of_the_decoded_file(
    serve: Serve, tmp_path: Path, max_bytes: int, checked: bool
) -> None:
    """With a checksum and without."""
    expected = "sha256:" + hashlib.sha256(BODY).hexdigest() if checked else None
    server = serve("Content-Encoding: gzip", body=ZIPPED)
    if max_bytes < len(BODY):
        with pytest.raises(DownloadError, match="above max_bytes"):
            get(server.url, tmp_path / "f", max_bytes=max_bytes, expected_checksum=expected)
        assert list(tmp_path.iterdir()) == []
    else:
        get(server.url, tmp_path / "f", max_bytes=max_bytes, expected_checksum=expected)


@pytest.mark.parametrize("name", ["UTF-8", "none", "binary", "aws-chunked", "identity", ""])
def test_names_that_are_no_coding_are_passed_over(serve: Serve, tmp_path: Path, name: str) -> None:
    """The body is taken as it is."""
    get(serve(f"Content-Encoding: {name}").url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "compress"])
@pytest.mark.parametrize("checked", [True, False])
def test_an_empty_body_has_no_coding(
    serve: Serve, tmp_path: Path, coding: str, checked: bool
) -> None:
    """Any coding of nothing is nothing."""
    expected = "sha256:" + hashlib.sha256(b"").hexdigest() if checked else None
    server = serve(f"Content-Encoding: {coding}", body=b"")
    get(server.url, tmp_path / "f", expected_checksum=expected)
    assert (tmp_path / "f").read_bytes() == b""


WHOLE = {
    "members": gzip.compress(BODY[:1000]) + gzip.compress(BODY[1000:]),
    "empty members": gzip.compress(b"") * 3 + ZIPPED,
    "padded": ZIPPED + bytes(1000),
}
BROKEN = {
    "cut": ZIPPED[:-9],
    "no trailer": ZIPPED[:-8],
    "half a trailer": ZIPPED[:-3],
    "wrong trailer": ZIPPED[:-8] + bytes(8),
    "cut second member": ZIPPED + ZIPPED[:30],
    "rubbish after it": ZIPPED + b"rubbish",
    "no gzip": BODY,
}


@pytest.mark.parametrize("framing", ["length", "close"])
@pytest.mark.parametrize("name", [*WHOLE, *BROKEN])
@pytest.mark.parametrize("checked", [True, False])
def test_an_encoded_body_is_decoded_whole_or_refused(
    serve: Serve, tmp_path: Path, name: str, framing: str, checked: bool
) -> None:
    """Members, padding, damage; in one piece, with a checksum and without."""
    body = (WHOLE | BROKEN)[name]
    expected = "sha256:" + hashlib.sha256(BODY).hexdigest() if checked else None
    server = serve("Content-Encoding: gzip", body=body, length=framing == "length")
    if name in WHOLE:
        get(server.url, tmp_path / "f", expected_checksum=expected)
        assert (tmp_path / "f").read_bytes() == BODY
    elif checked and name == "no gzip":  # what was sent is what is expected
        get(server.url, tmp_path / "f", expected_checksum=expected)
    else:
        with pytest.raises(IncompleteDownloadError, match="gzip"):
            get(server.url, tmp_path / "f", expected_checksum=expected)
        assert list(tmp_path.iterdir()) == []


TEXT = BODY[:10_000]
ARCHIVE = gzip.compress(TEXT, mtime=0)
EMPTY = gzip.compress(b"", mtime=0)


@pytest.mark.parametrize(
    ("name", "coding", "content_type", "body", "stored"),
    [
        ("x.tar.gz", "x-gzip", "application/x-tar", ARCHIVE, ARCHIVE),
        ("x.TGZ", "gzip", "text/plain", ARCHIVE, ARCHIVE),
        ("x.svgz", "gzip", "image/svg+xml", ARCHIVE, ARCHIVE),
        ("x", "gzip", "application/gzip; a=b", ARCHIVE, ARCHIVE),
        ("x", "gzip", "application/x-gzip", ARCHIVE, ARCHIVE),
        ("x.br", "br", "text/plain", b"any", b"any"),
        ("x.gz", "gzip", "text/plain", gzip.compress(ARCHIVE), ARCHIVE),
        ("x.gz", "gzip", "text/plain", EMPTY, EMPTY),
        ("x.gz", "deflate", "text/plain", zlib.compress(TEXT), TEXT),
        ("x.gz", "gzip, gzip", "text/plain", gzip.compress(ARCHIVE), TEXT),
        ("x.csv", "gzip", "text/csv", ARCHIVE, TEXT),
        ("gz", "gzip", "text/csv", ARCHIVE, TEXT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # bytes hold the time of packing
)
def test_a_coding_that_is_the_format_of_the_file_is_not_undone(
    serve: Serve, tmp_path: Path, name: str, coding: str, content_type: str, body: bytes,
    stored: bytes,
) -> None:  # fmt: skip
    """`x.tar.gz` stays one; of what the caller expects, the checksum decides."""
    server = serve(f"Content-Encoding: {coding}", f"Content-Type: {content_type}", body=body)
    result = get(server.url, tmp_path / name)
    assert (tmp_path / name).read_bytes() == stored
    assert (result.size, result.checksum) == (len(stored), checksum_of(stored))
    if stored == ARCHIVE == body:
        get(server.url, tmp_path / f"2{name}", expected_checksum=checksum_of(TEXT))
        assert (tmp_path / f"2{name}").read_bytes() == TEXT


def test_an_archive_that_is_none_is_an_error(serve: Serve, tmp_path: Path) -> None:
    """Neither its name nor its coding is true."""
    server = serve("Content-Encoding: gzip", body=BODY)
    with pytest.raises(IncompleteDownloadError, match="not gzip"):
        get(server.url, tmp_path / "x.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "lines", [["Content-Encoding: gzip, x-gzip"], ["Content-Encoding: gzip"] * 2], ids=repr
)
async def test_a_body_that_was_encoded_twice(
    serve: Serve, tmp_path: Path, lines: list[str]
) -> None:
    """On one line or on two, as `fetch_async` decodes it."""
    server = serve(*lines, body=gzip.compress(ZIPPED))
    await download_asset_async(server.url, tmp_path / "f", max_retries=0)
    assert (tmp_path / "f").read_bytes() == BODY
    assert await fetch_async(server.url, max_retries=0) == BODY.decode()


@pytest.mark.parametrize("wbits", [15, -15])
def test_deflate_in_both_forms(serve: Serve, tmp_path: Path, wbits: int) -> None:
    """With the zlib header and without."""
    deflater = zlib.compressobj(wbits=wbits)
    body = deflater.compress(BODY) + deflater.flush()
    get(serve("Content-Encoding: deflate", body=body).url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


# -- headers that cannot be read, or not be sent back --------------------------------------------

UNSENDABLE = [
    b'"caf\xe9"',
    '"grün"'.encode(),
    b'"a\x1bb"',
    b'"a b"',
    b"unquoted",
    b'"half',
    b'W/"\xff"',
    b"w/",
    b'""x',
    b'"a", "b"',
]


@pytest.mark.parametrize("tag", UNSENDABLE, ids=repr)
@pytest.mark.parametrize("keep_partial", [True, False])
def test_a_tag_that_cannot_be_sent_back_ends_nothing(
    serve: Serve, tmp_path: Path, tag: bytes, keep_partial: bool
) -> None:
    """Not used for If-Range and If-None-Match; the file is downloaded, and downloaded again."""
    server = serve(b"ETag: " + tag)
    dest = tmp_path / "f"
    get(server.url, dest, keep_partial=keep_partial)
    get(server.url, dest, revalidate=True)
    assert dest.read_bytes() == BODY
    assert len(server.heads) == 2
    assert not any(b"if-" in head.lower() for head in server.heads)
    assert "\udce9" not in str(get(server.url, dest, revalidate=True).etag)


@pytest.mark.parametrize("tag", ['"caf\xe9"', '"a\x1bb"', '"a b"', "unquoted", '"'])
def test_a_part_with_a_tag_that_cannot_be_sent_back_is_not_continued(
    tmp_path: Path, tag: str
) -> None:
    """After a reset the file is asked for from its beginning."""
    with FaultyOrigin() as origin:
        origin.add("/f", BODY, etag=tag, faults=[reset_after(1_000)])
        download_asset(origin.url("/f"), tmp_path / "f", backoff=0.001)
        assert len(origin.requests) == 2
        seen = [request.headers.get(name) for request in origin.requests for name in CONDITIONS]
        assert seen == [None] * 4


@pytest.mark.parametrize("date", [b"\xff\xfe", b"yesterday", b"0", b"Mon, 01 Jan \x80"])
def test_a_date_that_cannot_be_sent_back_is_not(serve: Serve, tmp_path: Path, date: bytes) -> None:
    """No If-Modified-Since, and no error."""
    server = serve(b"Last-Modified: " + date)
    get(server.url, tmp_path / "f")
    get(server.url, tmp_path / "f", revalidate=True)
    assert not any(b"if-" in head.lower() for head in server.heads)


def test_an_error_status_with_headers_outside_of_ascii(serve: Serve, tmp_path: Path) -> None:
    """The error is that of the status."""
    server = serve(b"X-Why: caf\xe9", b"ETag: \xff", status="404 Not Found")
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        get(server.url, tmp_path / "f")


CONDITIONS = ("Range", "If-Range")
LONG = "9" * 5_000
PART = f"bytes 0-{len(BODY) - 1}/{len(BODY)}"


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        ("200 OK", [f"Content-Length: {LONG}"]),
        ("200 OK", ["Content-Length: ²".encode()]),
        ("200 OK", ["Content-Length: -1"]),
        ("200 OK", ["Content-Length: 1e3"]),
        ("206 Partial Content", [f"Content-Range: bytes 0-{LONG}/{LONG}"]),
        ("206 Partial Content", ["Content-Range: bytes 0-9/²".encode()]),
        ("206 Partial Content", ["Content-Range: bytes 0-29999/*"]),
        ("206 Partial Content", ["Content-Range: bytes 9-3/30000"]),
        ("206 Partial Content", ["Content-Range: bytes 10-29999/30000"]),
        ("206 Partial Content", ["Content-Range: items 0-29999/30000"]),
        ("206 Partial Content", ["Content-Range: bytes */30000"]),
        ("206 Partial Content", []),
        ("416 Range Not Satisfiable", ["Content-Range: bytes */²".encode()]),
        ("416 Range Not Satisfiable", [f"Content-Range: bytes */{LONG}"]),
        ("304 Not Modified", []),
        ("204 No Content", []),
        ("205 Reset Content", []),
        ("299 Odd", []),
        ("600 Odd", []),
        ("999 Odd", []),
    ],
    ids=lambda value: str(value)[:60],
)
@pytest.mark.parametrize("connections", [1, 4])
def test_numbers_and_statuses_that_make_no_sense_are_errors_of_ours(
    serve: Serve, tmp_path: Path, status: str, lines: list[str | bytes], connections: int
) -> None:
    """Never a bare ValueError, UnicodeError or AssertionError, and never a part as the file."""
    named = any("content-length" in str(line).lower() for line in lines)
    server = serve(*lines, status=status, length=not named)
    try:
        get(server.url, tmp_path / "f", connections=connections)
    except (HttpError, httpx.HTTPError) as error:
        assert not isinstance(error, InvalidRequestError)
        assert list(tmp_path.iterdir()) == []
    else:
        assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize(
    "lines",
    [
        [f"Content-Range: {PART}"],
        [f"content-range: Bytes {PART[6:]}"],
        [f"Content-Range: bytes={PART[6:]}"],
        [f"Content-Range: {PART}", f"Content-Range: {PART}"],
    ],
    ids=repr,
)
@pytest.mark.parametrize("length", [True, False])
def test_a_206_of_the_whole_file_is_the_file(
    serve: Serve, tmp_path: Path, lines: list[str], length: bool
) -> None:
    """Though no range was asked for; its Content-Range shows whether it is cut."""
    get(serve(*lines, status="206 Partial Content", length=length).url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    cut = serve(*lines, body=BODY[:-1], status="206 Partial Content", length=length)
    with pytest.raises(IncompleteDownloadError):
        get(cut.url, tmp_path / "g")


@respx.mock
def test_headers_of_a_mock_are_read_alike(tmp_path: Path) -> None:
    """httpx joins lines of a name by itself."""
    respx.get("https://example.com/f").respond(
        content=BODY,
        headers=[("Digest", "unixsum=1"), ("Digest", f"md5={md5(OTHER)}")],
    )
    with pytest.raises(ChecksumMismatchError):
        get("https://example.com/f", tmp_path / "f")


def test_fields() -> None:
    """Lines of a name are joined, equal ones once; numbers are read or left out."""
    headers = httpx.Headers([("A", "1"), ("a", "2"), ("A", "1"), ("B", "x")])
    assert fields_of(headers) == {"a": "1, 2", "b": "x"}
    for text, number in [("5", 5), ("5, 5", 5), ("5,6", None), ("²", None), ("", None)]:
        assert content_length({"content-length": text}) == number
    assert content_length({"content-length": LONG}) is None
    assert content_length({"content-length": "5", "transfer-encoding": "chunked"}) is None
    assert content_range({"content-range": "bytes 0-0/1"}) == (0, 1, 1)
    assert content_range({"content-range": "bytes 0-1/*"}) == (0, 2, None)
    for text in ("bytes 1-0/2", "bytes 0-5/5", "bytes 0-/5", f"bytes 0-{LONG}/*", "bytes 0-9/²"):
        assert content_range({"content-range": text}) is None


@pytest.mark.parametrize("cookie", [b"a=\x80", "a=ü".encode(), b"a=\x1b", b"\xff", b"a=\xe9; a=b"])
async def test_a_cookie_outside_of_ascii_ends_no_redirect(
    serve: Serve, tmp_path: Path, cookie: bytes
) -> None:
    """It goes along in the chain; the loop is what every way reports."""
    server = serve(b"Set-Cookie: " + cookie, "Location: /f", status="302 Found", body=b"")
    with pytest.raises(httpx.TooManyRedirects):
        await download_asset_async(server.url, tmp_path / "f", max_retries=0)
    with pytest.raises(httpx.TooManyRedirects):
        await fetch_async(server.url, max_retries=0)
    with pytest.raises(httpx.TooManyRedirects):
        await request_async("GET", server.url, max_retries=0)


@pytest.mark.parametrize("status", ["201 X", "202 X", "203 X", "207 X", "226 X", "299 X"])
def test_any_success_with_a_body_is_a_file(serve: Serve, tmp_path: Path, status: str) -> None:
    """As in 0.7 and for fetch: what the server sends with a success is what was asked for."""
    get(serve(status=status).url, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("status", ["201 X", "202 X", "204 X", "205 X", "299 X"])
@pytest.mark.parametrize("line", ["Content-Length: 0", "Transfer-Encoding: chunked"])
def test_a_success_without_a_body_is_no_file(
    serve: Serve, tmp_path: Path, status: str, line: str
) -> None:
    """Such as "accepted, come back later": an empty file would look like the one asked for."""
    body = b"0\r\n\r\n" if "chunked" in line else b""
    with pytest.raises(DownloadError, match="carries no file"):
        get(serve(line, status=status, body=body, length=False).url, tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("attachment", None),
        ('attachment; filename="a b;c.txt"; size=3', "a b;c.txt"),
        ("inline; FILENAME = my file.pdf ", "my file.pdf"),
        ("filename=plain.txt", "plain.txt"),
        ("attachment; filename=\"fb.txt\"; filename*=UTF-8''%e2%82%ac%20rates.txt", "€ rates.txt"),
        ("attachment; filename*=iso-8859-1'en'%A3.txt", "£.txt"),
        ("attachment; filename*=UTF-8''%ff; filename=ok.txt", "ok.txt"),
        ("attachment; filename*=koi8-r''%ff; filename=ok.txt", "ok.txt"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        (r'attachment; filename="C:\dir\f.txt"', "f.txt"),
        (r'attachment; filename="a\"b.txt"', 'a"b.txt'),
        ('attachment; name="x; filename=evil.txt"; filename=good.txt', "good.txt"),
        ('attachment; filename="unclosed.txt', "unclosed.txt"),
        ('attachment; filename="a.txt", attachment; filename="b.txt"', "a.txt"),
        ('attachment; filename="a, b.txt"', "a, b.txt"),
        ("attachment; filename=a, b.txt", "a, b.txt"),
        ('attachment; filename="a.tar.gz";', "a.tar.gz"),
        ('inline; filename="%EC%82%AC%20b.jpg"', "사 b.jpg"),
        ("inline; filename=..%2F..%5Cetc%2fpasswd", "passwd"),
        ('inline; filename="100%.txt"', "100%.txt"),
        ('inline; filename="%ff.txt"', "%ff.txt"),
        ('inline; filename="=?UTF-8?B?4oKsLnR4dA==?="', "€.txt"),
        ('inline; filename="=?iso-8859-1?Q?=A3=2Fa_b.txt?="', "a b.txt"),
        ('inline; filename="=?UTF-8?B?a?="', "=?UTF-8?B?a?="),
        ('inline; filename="=?no-such?Q?a?="', "=?no-such?Q?a?="),
        ('attachment; filename=".."', None),
        ('attachment; filename=""', None),
    ],
)
def test_the_name_that_a_server_suggests(value: str, name: str | None) -> None:
    """RFC 6266 and RFC 8187, and what servers send in their place; never a folder."""
    assert disposition_name({"content-disposition": value}) == name


@given(st.text())
def test_any_suggested_name_is_one_name(value: str) -> None:
    """Or none."""
    name = disposition_name({"content-disposition": value})
    assert name is None or not {"/", "\\"} & set(name)
