"""The blocking half on the wire, against a server that sends bytes and reads as strictly as h11."""

import asyncio
import contextlib
import gzip
import io
import pickle
import shutil
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from typing import Any

import h11
import httpx
import pytest
import requests

from infra_core.http import (
    AsyncHttpClient,
    OutcomeUnknown,
    RequestsHttpClient,
    ResponseTooLarge,
    _sync_wire,
    fetch,
    fetch_async,
    request,
    request_async,
    stream,
    stream_async,
)
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime.testing import fast_time

Answer = Callable[[str, str, bytes], bytes]


class RawOrigin:
    """Answers each request with the bytes that a function returns.

    Attributes:
        seen: Method, path, headers and body of each request.
        connections: How many were made.
    """

    def __init__(self, answer: Answer) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.problems: list[str] = []
        origin = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                origin.connections += 1
                with contextlib.suppress(OSError):
                    origin._serve(self.request, answer)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _serve(self, connection: Any, answer: Answer) -> None:
        rest = b""
        while True:
            reader = h11.Connection(h11.SERVER)
            if rest:
                reader.receive_data(rest)
            head: Any = None
            body = b""
            while True:
                try:
                    event = reader.next_event()
                except h11.RemoteProtocolError as error:
                    self.problems.append(str(error))
                    return
                if event is h11.NEED_DATA:
                    reader.receive_data(data := connection.recv(65_536))
                    if not data:
                        return
                elif isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    break
            if head is None:
                return
            rest = reader.trailing_data[0]
            method, path = head.method.decode(), head.target.decode()
            headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            self.seen.append((method, path, headers, bytes(body)))
            raw = answer(method, path, bytes(body))
            connection.sendall(raw.removesuffix(CLOSE))
            if raw.endswith(CLOSE):
                return

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


CLOSE = b"<close>"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], RawOrigin]]:
    running: list[RawOrigin] = []

    def begin(answer: Answer) -> RawOrigin:
        running.append(RawOrigin(answer))
        return running[-1]

    yield begin
    for origin in running:
        origin.close()
        assert not origin.problems


Serve = Callable[[Answer], RawOrigin]


def moved(code: int, location: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (code, location)


@pytest.mark.parametrize("read", [True, False])
def test_a_reason_phrase_with_a_secret_does_not_travel(serve: Serve, *, read: bool) -> None:
    """Whether the body was read or not."""
    head = b"HTTP/1.1 404 token=hunter2\x1b[0m\r\nContent-Length: 4\r\n\r\ngone"
    with stream("GET", serve(lambda m, p, b: head).url) as response:
        _ = response.content if read else None
        with pytest.raises(requests.HTTPError) as caught:
            response.raise_for_status()
    pickled = pickle.dumps(caught.value)
    assert b"hunter2" not in pickled
    reason = pickle.loads(pickled).response.reason
    assert reason.startswith("token=<redacted>")
    assert "\x1b" not in reason


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_redirect_keeps_or_drops_method_and_body(serve: Serve, method: str, code: int) -> None:
    """As RFC 9110, section 15.4, and browsers have it: only POST becomes a GET by 301 and 302."""
    origin = serve(lambda m, p, b: moved(code, b"/new") if p == "/old" else OK)
    content = b"precious" if method in ("POST", "PUT", "PATCH") else None
    request(method, origin.url + "/old", content=content, idempotent=True, max_retries=0)
    (first, _, _, _), (second, path, headers, body) = origin.seen
    kept = code in (307, 308) or (code in (301, 302) and method != "POST") or method == "HEAD"
    assert (first, path) == (method, "/new")
    assert second == (method if kept else "GET")
    assert body == (content if kept and content else b"")
    if not kept or content is None:
        assert "transfer-encoding" not in headers
        assert headers.get("content-length", "0") == "0"
        assert second not in ("GET", "HEAD") or "content-length" not in headers
    assert origin.connections == 1


def test_a_file_is_sent_again_from_its_beginning(serve: Serve, tmp_path: Any) -> None:
    """And what can be read only once cannot be sent to where a redirect leads."""
    origin = serve(lambda m, p, b: moved(307, b"/new") if p == "/old" else OK)
    path = tmp_path / "f"
    path.write_bytes(b"all of it")
    with path.open("rb") as file:
        request("PUT", origin.url + "/old", data=file)
    assert [body for *_, body in origin.seen] == [b"all of it"] * 2
    with pytest.raises(requests.exceptions.UnrewindableBodyError):
        request("PUT", origin.url + "/old", data=iter([b"once"]))


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (b"/caf\xe9", "/caf%E9"),
        ("/龍".encode(), "/%E9%BE%8D"),
        (b"/x?q=\xfcber", "/x?q=%FCber"),
        (b"/a b", "/a%20b"),
        (b"new#part", "/new"),
        (b"/100%", "/100%"),
        (b"/a[b]?x[]=%", "/a[b]?x[]=%"),
        (b"/s?sig=%2f%e4", "/s?sig=%2f%e4"),
    ],
)
def test_a_location_beyond_ascii_is_requested_as_it_came(
    serve: Serve, location: bytes, path: str
) -> None:
    """Byte for byte, percent-encoded, by both halves."""
    origin = serve(lambda m, p, b: moved(302, location) if p == "/old" else OK)
    assert fetch(origin.url + "/old", max_retries=0) == "ok"
    assert origin.seen[-1][1] == path
    asyncio.run(fetch_async(origin.url + "/old", max_retries=0))
    assert origin.seen[-1][1] == path


@pytest.mark.parametrize("location", [b"/a\tb", b"http://127.0.0.1:99999/"])
def test_a_location_that_httpx_refuses_is_left_to_our_rule(serve: Serve, location: bytes) -> None:
    """Also by the client of httpx that we hand out, and by one that follows nothing."""
    origin = serve(lambda m, p, b: moved(302, location) if p == "/old" else OK)

    async def main() -> None:
        async with AsyncHttpClient(follow_redirects=False) as client:
            unfollowed = await client.get(origin.url + "/old")
            assert (unfollowed.status_code, unfollowed.has_redirect_location) == (302, True)
            if b"\t" in location:
                assert unfollowed.next_request is not None
                answer = await client.get(origin.url + "/old", follow_redirects=True)
                assert answer.text == "ok"
                assert origin.seen[-1][1] == "/a%09b"
            else:
                with pytest.raises(httpx.RemoteProtocolError, match="redirects to"):
                    await client.get(origin.url + "/old", follow_redirects=True)

    asyncio.run(main())


def test_a_body_that_cannot_be_sent_again_is_an_error(serve: Serve) -> None:
    """With what to do about it, as the asynchronous half does."""
    body: Any = iter([b"ab"])
    origin = serve(lambda m, p, b: moved(307, b"/new") if p == "/old" else OK)
    with pytest.raises(requests.exceptions.UnrewindableBodyError, match="pass the body as bytes"):
        request("PUT", origin.url + "/old", content=body, max_retries=0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"0" * 30
        + b"2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_odd_answers_are_taken_as_by_the_other_half(serve: Serve, answer: bytes) -> None:
    """One and the same answer is none for the one and text for the other."""
    origin = serve(lambda m, p, b: answer)
    assert fetch(origin.url + "/a", max_retries=0) == "ok"
    assert asyncio.run(fetch_async(origin.url + "/a", max_retries=0)) == "ok"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "not valid HTTP .the size of a chunk"),
        (b"Content-Length: 9\r\n\r\nok", "closed the connection before"),
        (b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", "127.0.0.1.* decoded"),
    ],
)
def test_a_body_that_fails_says_the_same_in_a_stream(
    serve: Serve, answer: bytes, text: str
) -> None:
    """Not in the words of urllib3, and with the server's name."""
    origin = serve(lambda m, p, b: b"HTTP/1.1 200 OK\r\n" + answer + CLOSE)
    with (
        stream("GET", origin.url + "/a") as response,
        pytest.raises(requests.RequestException, match=text),
    ):
        list(response.iter_content(10))
    # On a connection of its own: the server closes the other one without a word.
    with RequestsHttpClient() as client, pytest.raises(requests.RequestException, match=text):
        fetch(origin.url + "/b", max_retries=0, client=client)


def test_a_circle_of_redirects_ends(serve: Serve) -> None:
    """By the bound of the session, with the error of requests."""
    origin = serve(lambda m, p, b: moved(302, b"/old"))

    def factory() -> requests.Session:
        session = requests.Session()
        session.max_redirects = 3
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        with pytest.raises(requests.TooManyRedirects, match="more than 3 redirects"):
            fetch(origin.url + "/old", max_retries=0, client=client)
        assert len(origin.seen) == 4
    with pytest.raises(requests.TooManyRedirects) as caught:
        fetch(origin.url + "/old", max_retries=0)
    assert caught.value.response is not None
    assert caught.value.response.status_code == 302


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        (b"ftp://127.0.0.1/x", requests.exceptions.InvalidSchema),
        (b"http:///x", requests.exceptions.InvalidURL),
        (b"http://127.0.0.1:99999/", requests.exceptions.InvalidURL),
        (b"http://a..b/", requests.exceptions.InvalidURL),
    ],
)
def test_a_location_that_cannot_be_followed_is_an_error(
    serve: Serve, location: bytes, kind: type[Exception]
) -> None:
    """Not by the ValueError of a parser, and never twice."""
    origin = serve(lambda m, p, b: moved(302, location))
    with pytest.raises(kind, match=r"redirects to"):
        fetch(origin.url + "/old")
    assert len(origin.seen) == 1


def test_redirects_are_the_callers_where_he_says_so(serve: Serve) -> None:
    """By the client's own calls and its streams."""
    origin = serve(lambda m, p, b: moved(302, b"/new") if p == "/old" else OK)
    with RequestsHttpClient() as client:
        answer = client.request("GET", origin.url + "/old", allow_redirects=False)
        assert (answer.status_code, answer.headers["Location"]) == (302, "/new")
        followed = client.get(origin.url + "/old", headers={}, timeout=5)
        assert [each.status_code for each in followed.history] == [302]
        assert followed.url == origin.url + "/new"


@pytest.mark.parametrize("code", [100, 101, 102, 103, 199, 300, 301, 302, 304, 305, 306, 399, 404])
def test_only_2xx_is_a_success(serve: Serve, code: int) -> None:
    """1xx but 101 is passed over, all others are errors with that status."""
    head = b"HTTP/1.1 %d X\r\n" % code
    if code in (100, 102, 103, 199):
        origin = serve(lambda m, p, b: (head + b"\r\n") * 3 + OK)
        assert fetch(origin.url + "/a", max_retries=0) == "ok"
        return
    length = b"" if code in (101, 304) else b"Content-Length: 0\r\n"
    origin = serve(lambda m, p, b: head + length + b"\r\n")
    with pytest.raises(requests.HTTPError) as caught:
        fetch(origin.url + "/a", max_retries=0)
    assert caught.value.response.status_code == code
    assert str(code) in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: odd, Close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: odd\r\n\r\n",  # which nobody asked for
    ],
)
def test_a_connection_that_the_server_means_to_end_is_not_used_again(
    serve: Serve, head: bytes
) -> None:
    """By neither half, even if it is still open."""
    origin = serve(lambda m, p, b: head if p == "/last" else OK)
    refused = contextlib.suppress(requests.HTTPError, httpx.HTTPStatusError)
    last, other = origin.url + "/last", origin.url + "/a"
    with RequestsHttpClient() as client:
        for url in (last, other):
            with refused:
                assert fetch(url, client=client, max_retries=0) == "ok"
    assert origin.connections == 2

    async def main() -> None:
        async with AsyncHttpClient() as client:
            for url in (last, other):
                with refused:
                    assert await fetch_async(url, client=client, max_retries=0) == "ok"

    asyncio.run(main())
    assert origin.connections == 4


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 103 X\r\nLink: </a>\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother",
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\n"
        ),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_no_answer_reaches_the_next_request(serve: Serve, raw: bytes) -> None:
    """A connection that may be out of step is closed."""
    origin = serve(lambda m, p, b: raw if p == "/odd" else OK.replace(b"ok", b"me"))
    for _ in range(3):
        assert fetch(origin.url + "/odd", max_retries=0) == "ok"
        assert fetch(origin.url + "/next", max_retries=0) == "me"


def test_an_unread_body_reaches_no_other_request(serve: Serve) -> None:
    """A stream that is left early takes its connection with it."""
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000
    origin = serve(lambda m, p, b: large if p == "/large" else OK)
    for _ in range(3):
        with stream("GET", origin.url + "/large") as response:
            assert next(response.iter_content(10)) == b"x" * 10
        with pytest.raises(ResponseTooLarge):
            fetch(origin.url + "/large", max_bytes=10)
        assert fetch(origin.url + "/next", max_retries=0) == "ok"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1",
        b"Content-Length: +2",
        b"Content-Length: \xb2",
        b"Content-Length: " + b"9" * 5000,
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: 9",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked",
        b"nonsense",
        b"X A: 1",
        b"X-A : 1",
        b": 1",
        b"X-A: a\0b",
        b"X-A: a\rb",
        b"X-A: " + b"a" * 70_000,
    ],
)
def test_a_malformed_answer_is_an_error_of_requests(serve: Serve, head: bytes) -> None:
    """Never a success, and never an exception of http.client or a bare ValueError."""
    origin = serve(lambda m, p, b: b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nok" + CLOSE)
    with pytest.raises(requests.RequestException) as caught:
        fetch(origin.url + "/a", max_retries=0)
    assert "127.0.0.1" in str(caught.value)
    with pytest.raises(OutcomeUnknown) as lost:
        request("POST", origin.url + "/a", max_retries=0)
    assert isinstance(lost.value, requests.RequestException)


@pytest.mark.parametrize("size", [b"-1", b"+2", b"0x2", b"2_0", b"", b"zz", b"f" * 5000, b"3"])
def test_a_malformed_chunk_is_an_error_of_requests(serve: Serve, size: bytes) -> None:
    """Whatever `int` would make of its size."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    origin = serve(lambda m, p, b: head + size + b"\r\nok\r\n0\r\n\r\n" + CLOSE)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        fetch(origin.url + "/a", max_retries=0)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n" + 25 * (b"X: %b\r\n" % (b"a" * 60_000)), "larger than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000, "a line of its header is longer than 64 KiB"),
        (CHUNKED + b"0;" + b"a" * 140_000, "a line between its chunks is longer than 64 KiB"),
        (CHUNKED + b"0\r\n" + 3 * (b"X: %b\r\n" % (b"a" * 30_000)), "trailer fields are longer"),
    ],
)
def test_what_is_read_before_and_behind_a_body_is_bounded(
    serve: Serve, answer: bytes, words: str
) -> None:
    """It would fill the memory."""
    origin = serve(lambda m, p, b: answer + b"\r\n\r\n" + CLOSE)
    with pytest.raises(requests.RequestException, match=words):
        fetch(origin.url + "/a", max_retries=0)


def test_more_lines_than_http_client_takes_are_read(serve: Serve) -> None:
    """As curl reads them."""
    lines = b"".join(b"X-%d: v\r\n" % number for number in range(500))
    origin = serve(lambda m, p, b: b"HTTP/1.1 200 OK\r\n" + lines + OK.partition(b"\r\n")[2])
    answer = request("GET", origin.url + "/a", max_retries=0)
    assert (answer.text, answer.headers["X-499"]) == ("ok", "v")


def test_a_damaged_body_is_an_error_in_every_way(serve: Serve) -> None:
    """Streams and the client's own calls too."""
    cut = gzip.compress(b"whole text")[:-9]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(cut)
    origin = serve(lambda m, p, b: head + cut)
    url = origin.url + "/a"
    damaged = requests.exceptions.ContentDecodingError
    with RequestsHttpClient() as client:
        for call in (
            lambda: fetch(url, max_retries=0),
            lambda: request("GET", url, max_retries=0, max_bytes=1000),
            lambda: client.get(url, headers={}, timeout=5),
        ):
            with pytest.raises(damaged):
                call()
        with stream("GET", url) as response, pytest.raises(damaged):
            list(response.iter_content(3))
        with stream("GET", url) as response, pytest.raises(Exception, match="end too early"):
            response.raw.read(decode_content=True)


def test_a_stream_is_decoded_in_pieces_of_the_size_asked_for(serve: Serve) -> None:
    """Members in a row included; raw bytes stay as they are."""
    body = gzip.compress(b"whole ") + gzip.compress(b"text" * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    origin = serve(lambda m, p, b: head + body)
    with stream("GET", origin.url) as response:
        pieces = [next(response.iter_content(7)), *response.iter_content(100)]
        assert b"".join(pieces) == b"whole " + b"text" * 1000
        assert max(map(len, pieces)) <= 100
    with stream("GET", origin.url) as response:
        assert response.raw.read() == body
    with stream("GET", origin.url) as response:
        assert response.raw.read(3, decode_content=True) == b"who"
        assert response.raw.read(decode_content=True) == b"le " + b"text" * 1000


def test_cookies_stay_within_what_servers_take(serve: Serve) -> None:
    """The oldest go first; a login that is set again stays."""

    def page(method: str, path: str, body: bytes) -> bytes:
        cookie = b"Set-Cookie: seen_%b=%b; Path=/\r\n" % (path[1:].encode(), b"x" * 100)
        if int(path[1:]) % 20 == 0:
            cookie += b"Set-Cookie: login=me; Path=/\r\n"
        return b"HTTP/1.1 200 OK\r\n" + cookie + OK.partition(b"\r\n")[2]

    origin = serve(page)
    with RequestsHttpClient() as client:
        for number in range(200):
            fetch(f"{origin.url}/{number}", client=client)
    sizes = [len(headers.get("cookie", "")) for _, _, headers, _ in origin.seen]
    assert max(sizes) <= 4096
    assert sizes[-1] > 3000
    assert "login=me" in origin.seen[-1][2]["cookie"]
    assert "seen_198=" in origin.seen[-1][2]["cookie"]
    assert "seen_1=" not in origin.seen[-1][2]["cookie"]


def test_a_large_body_costs_no_more_than_its_bytes(serve: Serve) -> None:
    """In chunks of any size, over several reads."""
    parts = [bytes([65 + number % 26]) * (number * 37 % 9000 + 1) for number in range(300)]
    body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    origin = serve(lambda m, p, b: head + body + b"0\r\nX-Sum: 1\r\n\r\n")
    for _ in range(2):
        assert request("GET", origin.url, max_retries=0).content == b"".join(parts)
    assert origin.connections == 1


@pytest.mark.parametrize("fold", [b"\r\n ", b"\r\n \t", b"\n\t"])
def test_a_folded_header_is_one_line(serve: Serve, fold: bytes) -> None:
    """Old servers break long ones (RFC 9112, section 5.2)."""
    head = b"HTTP/1.1 200 OK\r\nX-Long: one;" + fold + b"two\r\nContent-Length: 2\r\n\r\nok"
    answer = request("GET", serve(lambda m, p, b: head).url)
    assert answer.headers["X-Long"] == "one; two"
    assert answer.text == "ok"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_was_read_to_its_end_lends_its_connection(*, chunked: bool) -> None:
    """To the next request, though its answer is still open."""
    with FaultyOrigin() as origin:
        origin.add("/x", b"hello", chunked=chunked)
        with RequestsHttpClient() as client, stream("GET", origin.url("/x"), client=client) as one:
            assert one.raw.read(5) == b"hello"
            assert one.raw.read(1 if chunked else 0) == b""
            assert fetch(origin.url("/x"), client=client) == "hello"
        assert origin.connections == 1


def test_a_raw_body_is_a_file(serve: Serve) -> None:
    """As that of urllib3, decoded where `decode_content` says so."""
    text = b"line one\nline two\n"
    body = gzip.compress(text)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    origin = serve(lambda m, p, b: head + body)
    with stream("GET", origin.url) as response:
        response.raw.decode_content = True
        copied = io.BytesIO()
        shutil.copyfileobj(response.raw, copied)
        assert copied.getvalue() == text
        assert response.raw.tell() == len(body)
    with stream("GET", origin.url) as response:
        assert gzip.GzipFile(fileobj=response.raw).read() == text
    with stream("GET", origin.url) as response:
        response.raw.decode_content = True
        lines = list(io.TextIOWrapper(io.BufferedReader(response.raw)))
        assert lines == ["line one\n", "line two\n"]
    with stream("GET", origin.url) as response:
        assert list(response.iter_lines()) == [b"line one", b"line two"]
    with RequestsHttpClient() as client:
        with client.streamed("GET", origin.url) as response:
            assert response.content == text
        assert client.request("GET", origin.url, stream=True).raw.read() == body
    assert origin.connections <= 7


def test_a_coding_that_nothing_undoes_is_not_asked_for_again(serve: Serve) -> None:
    """And the error says what to do, for a POST too, which ran."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: compress\r\nContent-Length: 3\r\n\r\nabc"
    origin = serve(lambda m, p, b: head)
    damaged = requests.exceptions.ContentDecodingError
    for method in ("GET", "POST"):
        with pytest.raises(damaged, match=r"'compress' .*: identity"):
            request(method, origin.url)
    assert len(origin.seen) == 2


def _with_cookie(value: bytes) -> bytes:
    return moved(302, b"/b\r\nSet-Cookie: " + value)


def test_a_cookie_beyond_ascii_goes_back_as_it_came(serve: Serve) -> None:
    """On every way: httpx alone raises a UnicodeEncodeError for each later request."""
    origin = serve(lambda m, p, b: _with_cookie("a=é龍".encode()) if p == "/a" else OK)
    url = origin.url + "/a"

    async def main() -> None:
        async with AsyncHttpClient() as client:
            for _ in range(2):
                await fetch_async(url, client=client, max_retries=0)
                await request_async("POST", url, client=client, content=b"x", max_retries=0)
                async with stream_async("GET", url, client=client):
                    pass
                await client.get(url)

    asyncio.run(main())
    with RequestsHttpClient() as blocking:
        fetch(url, client=blocking, max_retries=0)
    found = {headers.get("cookie") for _, path, headers, _ in origin.seen if path == "/b"}
    assert found == {"a=é龍".encode().decode("latin-1")}


def test_a_cookie_with_control_characters_is_left_out(serve: Serve) -> None:
    """As by curl, and by the asynchronous half."""
    origin = serve(lambda m, p, b: _with_cookie(b"a=1\x01b") if p == "/a" else OK)
    with RequestsHttpClient() as client:  # the shared one may hold cookies of this host
        fetch(origin.url + "/a", max_retries=0, client=client)
        fetch(origin.url + "/b", max_retries=0, client=client)
    assert all("cookie" not in headers for _, _, headers, _ in origin.seen)


def test_a_cookie_header_of_the_caller_is_the_callers(serve: Serve) -> None:
    """However long it is."""
    origin = serve(lambda m, p, b: OK)
    long = "a=" + "x" * 5000
    fetch(origin.url, headers={"Cookie": long}, max_retries=0)
    asyncio.run(fetch_async(origin.url, headers={"Cookie": long}, max_retries=0))
    assert [headers["cookie"] for _, _, headers, _ in origin.seen] == [long, long]


def test_an_answer_that_is_left_unread_is_cut_below_tls_within_tls() -> None:
    """What urllib3 has for that, behind a proxy of https, cannot be shut itself."""

    class Layer:
        def __init__(self, sock: socket.socket) -> None:
            self.socket, self.gettimeout, self.makefile = sock, sock.gettimeout, sock.makefile

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        answer = _sync_wire.Answer(Layer(ours), method="GET")
        answer.begin()
        answer.close()
        theirs.settimeout(10)
        assert theirs.recv(1) == b""


def _handshake_with(answer: bytes | None) -> tuple[socket.socket, str]:
    """A port that takes connections and speaks no TLS."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve_one() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if answer is not None:
                peer.recv(10)  # with bytes unread, closing is a reset
                peer.close()
            else:
                open_ones.append(peer)

    open_ones: list[socket.socket] = []
    threading.Thread(target=serve_one, daemon=True).start()
    return listener, f"https://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_connection_that_does_not_come_is_a_connect_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a firewall that drops packets. A POST was not sent, and may be sent again."""

    def connect(self: socket.socket, address: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", connect)
    words = r"^connect to 127\.0\.0\.1:9 timed out after 3 s"
    with fast_time() as time, pytest.raises(requests.ConnectTimeout, match=words):
        request("POST", "http://127.0.0.1:9/", content=b"x", timeout=(3, 30), max_retries=1)
    assert len(time.slept) == 1


def test_a_handshake_that_does_not_end_is_a_connect_timeout() -> None:
    """A POST was not sent, and may be sent again."""
    listener, url = _handshake_with(None)
    with listener, fast_time() as time, pytest.raises(requests.ConnectTimeout, match="timed out"):
        request("POST", url, content=b"x", timeout=(0.05, 30), max_retries=1)
    assert len(time.slept) == 1


def test_a_handshake_that_breaks_is_no_connection() -> None:
    """Likewise: nothing of the request has left."""
    listener, url = _handshake_with(b"")
    with listener, fast_time() as time, pytest.raises(requests.ConnectionError) as caught:
        request("POST", url, content=b"x", timeout=5, max_retries=1)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert len(time.slept) == 1
    listener.close()
