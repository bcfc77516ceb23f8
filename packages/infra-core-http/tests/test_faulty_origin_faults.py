"""The misbehaving origin: right answers first, then every fault as it looks on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import http.client
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest

from infra_core.http.testing import (
    Exchange,
    Fault,
    FaultyOrigin,
    change_etag,
    chunked,
    chunked_early_end,
    corrupt,
    delay,
    gzip_encoded,
    hang_up,
    ignore_range,
    lie_length,
    oversized_headers,
    redirect,
    redirect_loop,
    refuse_range,
    reset_after,
    slow,
    stall,
    status,
    truncate,
    wrong_range,
)

BODY = bytes(range(256)) * 8


@pytest.mark.parametrize("tls", [False, True])
def test_connections_that_come_as_the_origin_goes_are_closed(tls: bool) -> None:
    """Whatever asyncio was about to set up for them: no socket is left to the collector."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
    gc.collect()
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        for count in (1, 2, 3, 4) * (3 if tls else 25):
            with contextlib.ExitStack() as clients, FaultyOrigin(ssl_context=context) as leaving:
                address = ("127.0.0.1", int(leaving.base_url.rsplit(":", 1)[1]))
                for _ in range(count):
                    clients.enter_context(socket.create_connection(address))
        gc.collect()
    assert [str(warning.message) for warning in left] == []


def test_nothing_of_it_runs_after_the_block() -> None:
    """Its thread has ended by then."""
    with FaultyOrigin():
        (thread,) = (each for each in threading.enumerate() if each.name == "faulty-origin")
    assert not thread.is_alive()


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        yield server


class Client:
    """A bare http.client connection: it shows the wire, with no cleverness of its own."""

    def __init__(self, origin: FaultyOrigin) -> None:
        host, port = origin.base_url.removeprefix("http://").split(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=5)

    def __call__(
        self, path: str = "/f", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body=body, headers=named)
        response = self.connection.getresponse()
        return response, response.read()


@pytest.fixture
def get(origin: FaultyOrigin) -> Iterator[Client]:
    """A client of the origin."""
    client = Client(origin)
    yield client
    client.connection.close()


def test_plain_get_on_one_connection(origin: FaultyOrigin, get: Client) -> None:
    """Two right answers share a connection and carry length, type and tag."""
    origin.add("/f", BODY, content_type="image/png", etag='"v1"', last_modified="now")
    for _ in range(2):
        response, body = get()
        assert (response.status, body) == (200, BODY)
        assert response.headers["Content-Length"] == str(len(BODY))
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["ETag"] == '"v1"'
    assert origin.connections == 1
    assert origin.peak_in_flight == 1


def test_unknown_path_is_404(get: Client) -> None:
    """A path that was not added does not exist."""
    assert get("/other")[0].status == 404


def test_query_is_matched_exactly_first(origin: FaultyOrigin, get: Client) -> None:
    """A path with its query wins over the path alone."""
    origin.add("/f", b"plain")
    origin.add("/f?a=1", b"query")
    assert get("/f?a=1")[1] == b"query"
    assert get("/f?a=2")[1] == b"plain"
    assert origin.count("/f") == 2


def test_head_sends_no_body(origin: FaultyOrigin, get: Client) -> None:
    """HEAD has the headers of GET alone."""
    origin.add("/f", BODY)
    response, body = get(method="HEAD")
    assert (response.headers["Content-Length"], body) == (str(len(BODY)), b"")
    assert get()[1] == BODY


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=2000-", 2000, 2048),
     ("bytes=-48", 2000, 2048), ("bytes=0-99999", 0, 2048), ("bytes=-99999", 0, 2048)],
)  # fmt: skip
def test_range(origin: FaultyOrigin, get: Client, asked: str, start: int, stop: int) -> None:
    """Single ranges are served as RFC 9110 says."""
    origin.add("/f", BODY)
    response, body = get(Range=asked)
    assert (response.status, body) == (206, BODY[start:stop])
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"


def test_range_beyond_the_end_is_416(origin: FaultyOrigin, get: Client) -> None:
    """A range with nothing in it is refused, and the answer names the size."""
    origin.add("/f", BODY)
    response, _ = get(Range="bytes=2048-")
    assert response.status == 416
    assert response.headers["Content-Range"] == "bytes */2048"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=x"])
def test_other_ranges_are_ignored(origin: FaultyOrigin, get: Client, asked: str) -> None:
    """Forms that the server does not know get the whole file."""
    origin.add("/f", BODY)
    assert get(Range=asked)[0].status == 200


@pytest.mark.parametrize(
    ("condition", "code"),
    [('"v1"', 206), ('"v2"', 200), ('W/"v1"', 200), ("Mon, 01 Jan 2024 00:00:00 GMT", 206)],
)
def test_if_range(origin: FaultyOrigin, get: Client, condition: str, code: int) -> None:
    """If-Range compares strongly."""
    origin.add("/f", BODY, etag='"v1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    assert get(Range="bytes=1-2", If_Range=condition)[0].status == code


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("If_None_Match", '"v1"', 304),
        ("If_None_Match", '"v0", W/"v1"', 304),
        ("If_None_Match", "*", 304),
        ("If_None_Match", '"v2"', 200),
        ("If_Modified_Since", "Mon, 01 Jan 2024 00:00:00 GMT", 304),
        ("If_Modified_Since", "Mon, 01 Jan 2018 00:00:00 GMT", 200),
        ("If_Modified_Since", "yesterday", 200),
    ],
)
def test_conditions(origin: FaultyOrigin, get: Client, name: str, value: str, code: int) -> None:
    """An unchanged file is a 304 without a body."""
    origin.add("/f", BODY, etag='"v1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    response, body = get("/f", "GET", None, **{name: value})
    assert (response.status, body) == (code, BODY if code == 200 else b"")


def test_posts_are_recorded(origin: FaultyOrigin, get: Client) -> None:
    """Methods, headers and bodies of all requests can be looked up."""
    origin.add("/jobs", b"{}", status=202)
    assert get("/jobs?a=b", "POST", b"payload", X_Test="1")[0].status == 202
    (request,) = origin.requests
    assert (request.method, request.path, request.body) == ("POST", "/jobs?a=b", b"payload")
    assert request.headers["x-test"] == request.headers["X-Test"] == "1"
    assert ("X-Test", "1") in request.raw_headers
    assert (origin.count("/jobs", "POST"), origin.count("/jobs", "GET")) == (1, 0)


def test_chunked_request_body(origin: FaultyOrigin, get: Client) -> None:
    """A body sent in chunks is put together."""
    origin.add("/jobs")
    get.connection.request("POST", "/jobs", body=iter([b"ab", b"cd"]), encode_chunked=True)
    get.connection.getresponse().read()
    assert origin.requests[0].body == b"abcd"


def test_expect_continue(origin: FaultyOrigin) -> None:
    """A client that waits for 100 Continue gets it."""
    origin.add("/jobs", b"ok")
    host, port = origin.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(b"hi")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")


def test_faults_are_used_up_in_order(origin: FaultyOrigin, get: Client) -> None:
    """One fault per request, then the right answer, then what `script` added."""
    origin.add("/f", BODY, faults=[status(503), status(429, body=b"slow down")])
    assert [get()[0].status for _ in range(3)] == [503, 429, 200]
    origin.script("/f", status(500))
    assert [get()[0].status for _ in range(2)] == [500, 200]


def test_always_comes_after_the_script(origin: FaultyOrigin, get: Client) -> None:
    """`always` takes every request that no scripted fault is left for."""
    origin.add("/f", BODY, faults=[status(503)], always=status(404))
    assert [get()[0].status for _ in range(3)] == [503, 404, 404]


def test_retry_after_forms(origin: FaultyOrigin, get: Client) -> None:
    """Seconds, text, dates and milliseconds."""
    when = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    faults = [
        status(503, retry_after=2),
        status(503, retry_after="soon"),
        status(503, retry_after=when),
        status(503, retry_after=timedelta(hours=1)),
        status(503, retry_after_ms=150),
        status(503, headers={"x-ms-retry-after-ms": "20"}),
    ]
    origin.add("/f", BODY, faults=faults)
    got = [get()[0].headers for _ in faults]
    assert got[0]["Retry-After"] == "2"
    assert got[1]["Retry-After"] == "soon"
    assert parsedate_to_datetime(got[2]["Retry-After"]) == when
    assert parsedate_to_datetime(got[3]["Retry-After"]) > datetime.now(timezone.utc)
    assert got[4]["retry-after-ms"] == "150"
    assert got[5]["x-ms-retry-after-ms"] == "20"


def test_hang_up(origin: FaultyOrigin, get: Client) -> None:
    """The connection is reset before a status line; the request is recorded all the same."""
    origin.add("/f", BODY, always=hang_up())
    with pytest.raises(ConnectionError):
        get()
    assert origin.count("/f") == 1


def test_reset_after(origin: FaultyOrigin, get: Client) -> None:
    """Exactly n bytes, then RST."""
    origin.add("/f", BODY, always=reset_after(100))
    get.connection.request("GET", "/f")
    response = get.connection.getresponse()
    assert response.read(100) == BODY[:100]
    with pytest.raises(ConnectionResetError):
        response.read()


@pytest.mark.parametrize("fault", [truncate(100), chunked_early_end(100)])
def test_early_close(origin: FaultyOrigin, get: Client, fault: Fault) -> None:
    """The body ends after n bytes though more was promised."""
    origin.add("/f", BODY, always=fault)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get()
    assert BODY[:100].startswith(caught.value.partial)


@pytest.mark.parametrize("fault", [stall(after=10), stall(after=None)])
def test_stall(origin: FaultyOrigin, get: Client, fault: Fault) -> None:
    """Nothing comes any more, and the connection stays open."""
    origin.add("/f", BODY, always=fault)
    get.connection.timeout = 0.1
    with pytest.raises(TimeoutError):
        get()


def test_slow(origin: FaultyOrigin, get: Client) -> None:
    """The body arrives whole, in pieces."""
    origin.add("/f", BODY, always=slow(20_480))
    get.connection.request("GET", "/f")
    response = get.connection.getresponse()
    assert len(response.read1()) < len(BODY)
    response.read()


def test_delay(origin: FaultyOrigin, get: Client) -> None:
    """A late answer is a right one."""
    origin.add("/f", BODY, always=delay(0.01))
    assert get()[1] == BODY


def test_lie_length(origin: FaultyOrigin, get: Client) -> None:
    """Content-Length is wrong by delta, in both directions."""
    origin.add("/f", BODY, faults=[lie_length(-8), lie_length(8)])
    assert get()[1] == BODY[:-8]
    get.connection.close()
    with pytest.raises(http.client.IncompleteRead):
        get()


def test_chunked(origin: FaultyOrigin, get: Client) -> None:
    """A legal answer that has no length."""
    origin.add("/f", BODY, faults=[chunked()], chunked=True)
    for _ in range(2):
        response, body = get()
        assert body == BODY
        assert "Content-Length" not in response.headers


def test_gzip_encoded(origin: FaultyOrigin, get: Client) -> None:
    """The length is that of the compressed bytes."""
    origin.add("/f", BODY, always=gzip_encoded())
    response, body = get(Accept_Encoding="identity")
    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Content-Length"] == str(len(body))
    assert gzip.decompress(body) == BODY


def test_corrupt(origin: FaultyOrigin, get: Client) -> None:
    """One byte differs, the length does not; the file itself stays whole."""
    origin.add("/f", BODY, faults=[corrupt(), corrupt(at=-1)])
    first, second, third = (get()[1] for _ in range(3))
    assert len(first) == len(BODY)
    assert [i for i in range(len(BODY)) if first[i] != BODY[i]] == [len(BODY) // 2]
    assert second[:-1] == BODY[:-1]
    assert second[-1] != BODY[-1]
    assert third == BODY


def test_change_etag(origin: FaultyOrigin, get: Client) -> None:
    """The file is another one from that request on, so that If-Range fails."""
    origin.add("/f", BODY, etag='"v1"', faults=[change_etag('"v2"', body=b"new")])
    response, body = get(Range="bytes=1-", If_Range='"v1"')
    assert (response.status, response.headers["ETag"], body) == (200, '"v2"', b"new")
    assert get()[1] == b"new"


def test_range_faults(origin: FaultyOrigin, get: Client) -> None:
    """206 from another offset; 200 to a range; 416 to a range that exists."""
    origin.add("/f", BODY, faults=[wrong_range(), wrong_range(5), ignore_range(), refuse_range()])
    response, body = get(Range="bytes=100-199")
    assert (response.status, body) == (206, BODY[99:200])
    assert response.headers["Content-Range"] == "bytes 99-199/2048"
    assert get(Range="bytes=100-199")[1] == BODY[105:200]
    assert get(Range="bytes=100-199")[0].status == 200
    assert get(Range="bytes=100-199")[0].status == 416


@pytest.mark.parametrize("fault", [wrong_range(), ignore_range(), refuse_range()])
def test_range_faults_leave_whole_requests_alone(
    origin: FaultyOrigin, get: Client, fault: Fault
) -> None:
    """They touch range requests only."""
    origin.add("/f", BODY, always=fault)
    assert get()[1] == BODY


def test_corrupting_nothing_is_nothing(origin: FaultyOrigin, get: Client) -> None:
    """An empty file has no byte to change."""
    origin.add("/f", b"", always=corrupt())
    assert get()[1] == b""


def test_redirects(origin: FaultyOrigin, get: Client) -> None:
    """To another place, to another origin, to itself."""
    with FaultyOrigin() as other:
        origin.add("/f", faults=[redirect("/g", 307), redirect(other.url("/h"))])
        response, _ = get()
        assert (response.status, response.headers["Location"]) == (307, "/g")
        assert get()[0].headers["Location"] == other.url("/h")
    origin.add("/loop", always=redirect_loop())
    assert get("/loop?x=1")[0].headers["Location"] == "/loop?x=1"


def test_oversized_headers(origin: FaultyOrigin, get: Client) -> None:
    """A header that clients refuse."""
    origin.add("/f", BODY, always=oversized_headers())
    with pytest.raises(http.client.HTTPException):
        get()


def test_joined_faults(origin: FaultyOrigin, get: Client) -> None:
    """`&` commits both in one request."""
    fault = corrupt() & chunked()
    assert repr(fault) == "<fault corrupt & chunked>"
    origin.add("/f", BODY, always=fault)
    response, body = get()
    assert "Content-Length" not in response.headers
    assert body != BODY


def test_own_fault(origin: FaultyOrigin, get: Client) -> None:
    """Users write faults of their own."""

    def shout(exchange: Exchange) -> None:
        exchange.reply.headers["X-Loud"] = exchange.request.method

    origin.add("/f", BODY, always=Fault("loud", shout))
    assert get()[0].headers["X-Loud"] == "GET"


def test_connection_close_is_honoured(origin: FaultyOrigin, get: Client) -> None:
    """A client that asks for it gets a connection of its own."""
    origin.add("/f", BODY)
    get(Connection="close")
    get()
    assert origin.connections == 2


def _say(origin: FaultyOrigin, message: bytes) -> bytes:
    host, port = origin.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(message)
        return sock.recv(10)


def test_nonsense_ends_the_connection() -> None:
    """What is no HTTP gets no answer, and the origin lives on."""
    with FaultyOrigin(strict=False) as origin:
        for nonsense in (b"hello\r\n\r\n", b"GET / HTTP/3\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
            assert _say(origin, nonsense) == b""
        assert _say(origin, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "Missing mandatory Host"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", "GET / came with a body"),
        (
            b"DELETE /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            r"DELETE /x came with a body \(Transfer-Encoding: chunked\)",
        ),
    ],
)
def test_a_strict_origin_fails_its_test(message: bytes, words: str) -> None:
    """A server that others wrote would refuse it, or read the next request wrongly."""
    with pytest.raises(AssertionError, match=words), FaultyOrigin() as origin:
        _say(origin, message)


def test_path_without_slash_is_refused(origin: FaultyOrigin) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match="write '/f'"):
        origin.add("f")


async def test_works_beside_a_running_loop() -> None:
    """The origin has a loop of its own; leaving it cuts a request that is under way."""
    with FaultyOrigin() as origin:
        origin.add("/f", BODY, always=stall())
        host, port = origin.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /f HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


def test_unknown_status_code(origin: FaultyOrigin, get: Client) -> None:
    """Codes that have no name are sent as well."""
    origin.add("/f", always=status(599))
    assert get()[0].status == 599
