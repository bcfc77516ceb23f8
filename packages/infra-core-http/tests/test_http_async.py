"""`fetch_async`, `request_async`, `stream_async` against a real server on loopback."""

import asyncio
import gzip
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest

from infra_core.http import (
    DEFAULT_HEADERS,
    AsyncHttpClient,
    DeadlineExceeded,
    DownloadDeadlineError,
    HttpError,
    InvalidRequestError,
    OutcomeUnknown,
    ResponseTooLarge,
    fetch_async,
    request_async,
    stream_async,
)
from infra_core.http.assets import download_asset_async
from infra_core.http.testing import (
    Exchange,
    Fault,
    FaultyOrigin,
    chunked_early_end,
    gzip_encoded,
    hang_up,
    redirect,
    redirect_loop,
    reset_after,
    slow,
    stall,
    status,
    truncate,
)
from infra_core.runtime.testing import fast_time

# The fast way, that of plain httpx, and a client that is not ours.
CLIENTS = [AsyncHttpClient, partial(AsyncHttpClient, http2=True), httpx.AsyncClient]


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        running.add("/page", b"hello", content_type="text/html; charset=utf-8")
        yield running


def sent(origin: FaultyOrigin, name: str) -> list[str]:
    """Every value of a header of the last request."""
    return [v for key, v in origin.requests[-1].raw_headers if key.lower() == name.lower()]


async def test_fetch_returns_the_text(origin: FaultyOrigin) -> None:
    """Of a 2xx answer."""
    assert await fetch_async(origin.url("/page")) == "hello"


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("é".encode(), "text/html", "é"),
        ("é".encode("latin-1"), "text/html; charset=ISO-8859-1", "é"),
        ("é".encode("utf-16"), 'text/html; charset="utf-16"', "é"),
        (b"\xff", "text/html; charset=utf-8", "\ufffd"),
        ("é".encode(), "text/html; charset=no-such-thing", "é"),
        (b"", "text/plain", ""),
    ],
)
async def test_text_is_decoded_as_httpx_decodes_it(
    origin: FaultyOrigin, body: bytes, content_type: str, text: str
) -> None:
    """By the charset that the server names, UTF-8 else, never failing."""
    origin.add("/text", body, content_type=content_type)
    assert await fetch_async(origin.url("/text")) == text
    response = httpx.Response(200, headers={"content-type": content_type}, content=body)
    assert response.text == text


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_bodies_are_decoded(origin: FaultyOrigin, encoding: str) -> None:
    """Whatever of gzip and deflate the server chose."""
    body = b"hello" * 100
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    origin.add("/z", packed, content_type="text/plain", headers={"Content-Encoding": encoding})
    assert await fetch_async(origin.url("/z")) == "hello" * 100
    response = await request_async("GET", origin.url("/z"), max_bytes=500)
    assert response.content == b"hello" * 100


async def test_a_body_that_is_not_what_it_says_is_a_decoding_error(origin: FaultyOrigin) -> None:
    """After retries, since the next copy may be whole."""
    origin.add("/z", b"no gzip", headers={"Content-Encoding": "gzip"})
    with pytest.raises(httpx.DecodingError):
        await fetch_async(origin.url("/z"), max_retries=1, backoff=0.001)
    assert origin.count("/z") == 2


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_encoded_body_that_is_cut_is_an_error_in_every_way(
    origin: FaultyOrigin, kind: Callable[[], Any]
) -> None:
    """Though all bytes that were announced have come. Streams too."""
    origin.add("/z", gzip.compress(b"whole text")[:-9], headers={"Content-Encoding": "gzip"})
    url = origin.url("/z")
    async with kind() as client:
        for max_bytes in (None, 1000):
            with pytest.raises(httpx.DecodingError, match="end too early"):
                await fetch_async(url, client=client, max_retries=0, max_bytes=max_bytes)
        reads: list[Callable[[httpx.Response], Awaitable[object]]] = [
            lambda answer: answer.aread(),
            lambda answer: anext(answer.aiter_bytes(1000)),
            lambda answer: anext(answer.aiter_text(1000)),
        ]
        for read in reads:
            async with stream_async("GET", url, client=client) as response:
                with pytest.raises(httpx.DecodingError, match="end too early"):
                    await read(response)


@pytest.mark.parametrize("default", ["cp1251", lambda body: "cp1251"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_the_encoding_that_a_client_was_given_counts_in_every_way(
    origin: FaultyOrigin, kind: Callable[..., Any], default: object
) -> None:
    """Where the answer names none; for what was streamed and for the answers before as well."""
    text = "\u0434\u0430"
    body = text.encode("cp1251")
    origin.add("/p", body, content_type="text/plain")
    moved = {"Location": "/p"}
    origin.add("/moved", body, content_type="text/plain", status=302, headers=moved)
    url = origin.url("/moved")
    async with kind(default_encoding=default, follow_redirects=True) as client:
        assert await fetch_async(url, client=client) == text
        response = await request_async("GET", url, client=client)
        assert [each.text for each in (*response.history, response)] == [text, text]
        async with stream_async("GET", url, client=client) as response:
            assert [piece async for piece in response.aiter_text()] == [text]


async def test_request_returns_a_response_of_httpx(origin: FaultyOrigin) -> None:
    """With everything that users of httpx read from it."""
    started = perf_counter()
    response = await request_async("get", origin.url("/page"), params={"q": "a b"})
    assert 0 <= response.elapsed.total_seconds() <= perf_counter() - started
    assert (response.status_code, response.text, response.reason_phrase) == (200, "hello", "OK")
    assert response.http_version == "HTTP/1.1"
    assert response.request.method == "GET"
    assert response.url == origin.url("/page?q=a+b") or response.url.params["q"] == "a b"
    assert response.headers["CONTENT-TYPE"].startswith("text/html")
    started = perf_counter()
    plain = await request_async("GET", origin.url("/page"))
    assert 0 <= plain.elapsed.total_seconds() <= perf_counter() - started
    assert plain.request.headers["user-agent"] == DEFAULT_HEADERS["User-Agent"]
    assert plain.is_closed


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        ({"json": {"a": 1}}, b'{"a":1}'),
        ({"data": {"a": "1"}}, b"a=1"),
        ({"content": b"raw"}, b"raw"),
        ({"content": "text"}, b"text"),
    ],
)
async def test_bodies_arrive(origin: FaultyOrigin, body: dict[str, object], wire: bytes) -> None:
    """JSON, forms, bytes and text, as httpx encodes them."""
    await request_async("POST", origin.url("/page"), **body)  # type: ignore[arg-type]
    assert origin.requests[-1].body.replace(b" ", b"") == wire


async def test_large_and_streamed_bodies_arrive(origin: FaultyOrigin) -> None:
    """In pieces, with a length when it is known."""
    large = bytes(range(256)) * 4096 * 2
    await request_async("PUT", origin.url("/page"), content=large)
    assert origin.requests[-1].body == large
    assert origin.requests[-1].headers["content-length"] == str(len(large))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 100_000

    await request_async("PUT", origin.url("/page"), content=pieces())
    assert origin.requests[-1].body == b"x" * 300_000
    assert origin.requests[-1].headers["transfer-encoding"] == "chunked"


async def test_default_headers_are_sent_once_each(origin: FaultyOrigin) -> None:
    """Those of 0.7."""
    await fetch_async(origin.url("/page"))
    for name, value in DEFAULT_HEADERS.items():
        assert sent(origin, name) == [value]


async def test_headers_of_the_call_win_in_any_letter_case(origin: FaultyOrigin) -> None:
    """And there is one User-Agent."""
    await fetch_async(origin.url("/page"), headers={"user-AGENT": "call"})
    assert sent(origin, "User-Agent") == ["call"]
    await request_async("POST", origin.url("/page"), json=1, headers={"ACCEPT": "a/b"})
    assert sent(origin, "accept") == ["a/b"]


async def test_headers_of_the_client_are_not_overridden_by_the_defaults(
    origin: FaultyOrigin,
) -> None:
    """Neither those it was made with nor those set on the httpx client later."""
    async with AsyncHttpClient(headers={"user-agent": "mine"}) as client:
        await fetch_async(origin.url("/page"), client=client)
        assert sent(origin, "User-Agent") == ["mine"]
        (await client.get_client()).headers["Accept"] = "x/y"
        await fetch_async(origin.url("/page"), client=client)
        assert sent(origin, "Accept") == ["x/y"]
        await fetch_async(origin.url("/page"), client=client, headers={"User-Agent": "call"})
        assert sent(origin, "User-Agent") == ["call"]


async def test_a_foreign_httpx_client_keeps_its_own_headers(origin: FaultyOrigin) -> None:
    """A subclass whose get_client gives out a client of its own, as users of 0.7 wrote."""

    class Mine(AsyncHttpClient):
        async def get_client(self) -> httpx.AsyncClient:
            return inner

    async with httpx.AsyncClient(headers={"User-Agent": "inner"}) as inner:
        assert await fetch_async(origin.url("/page"), client=Mine()) == "hello"
    assert sent(origin, "User-Agent") == ["inner"]
    assert sent(origin, "Accept-Language") == [DEFAULT_HEADERS["Accept-Language"]]


@pytest.mark.parametrize("code", [301, 400, 404, 410, 500, 304])
async def test_any_status_but_success_is_an_http_status_error(
    origin: FaultyOrigin, code: int
) -> None:
    """Redirects without a Location included; the secrets of the URL are not in the message."""
    origin.add("/bad", b"why", faults=[status(code, body=b"why" if code != 304 else b"")])
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await fetch_async(origin.url("/bad?sig=hunter2"), max_retries=0)
    assert caught.value.response.status_code == code
    assert "hunter2" not in str(caught.value)
    assert str(caught.value.request.url).endswith("hunter2")


async def test_failures_are_retried_until_one_answer_is_good(origin: FaultyOrigin) -> None:
    """Statuses, resets, short bodies, ends in mid-chunk."""
    faults = [status(500), hang_up(), truncate(2), chunked_early_end(2), reset_after(3)]
    origin.add("/flaky", b"hello", faults=faults)
    with fast_time(jitter=1.0) as time:
        text = await fetch_async(origin.url("/flaky"), max_retries=5, backoff=1, max_backoff=4)
    assert text == "hello"
    assert time.slept == [1, 2, 4, 4, 4]  # nothing below us sends anything again by itself


async def test_the_last_error_comes_through(origin: FaultyOrigin) -> None:
    """After 1 + max_retries attempts, as httpx raised it."""
    origin.add("/down", b"", faults=[status(500), status(502), status(504)])
    with fast_time(), pytest.raises(httpx.HTTPStatusError) as caught:
        await fetch_async(origin.url("/down"), max_retries=2)
    assert caught.value.response.status_code == 504
    assert origin.count("/down") == 3


async def test_waits_are_jittered_and_capped(origin: FaultyOrigin) -> None:
    """Each between zero and min(backoff * 2**n, max_backoff)."""
    origin.add("/down", b"", always=status(500))
    with fast_time() as time, pytest.raises(httpx.HTTPStatusError):
        await fetch_async(origin.url("/down"), max_retries=5, backoff=1, max_backoff=3)
    for wait, ceiling in zip(time.slept, [1, 2, 3, 3, 3], strict=True):
        assert 0 <= wait <= ceiling


async def test_statuses_not_listed_are_not_retried(origin: FaultyOrigin) -> None:
    """An empty list retries none."""
    origin.add("/down", b"", always=status(503))
    with pytest.raises(httpx.HTTPStatusError):
        await fetch_async(origin.url("/down"), retry_statuses=[])
    assert origin.count("/down") == 1
    with fast_time(), pytest.raises(httpx.HTTPStatusError):
        await fetch_async(origin.url("/down"), retry_statuses=[503], max_retries=1)
    assert origin.count("/down") == 3


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (status(429, retry_after="7"), 7.0),
        (status(503, retry_after_ms=1500), 1.5),
        (status(503, headers={"x-ms-retry-after-ms": "2500"}), 2.5),
    ],
)
async def test_retry_after_is_honoured(origin: FaultyOrigin, fault: object, seconds: float) -> None:
    """To the letter, for POST as well."""
    origin.add("/busy", b"ok", faults=[fault])  # type: ignore[list-item]
    with fast_time() as time:
        await fetch_async(origin.url("/busy"), max_retries=1)
        origin.script("/busy", fault)  # type: ignore[arg-type]
        await request_async("POST", origin.url("/busy"), content=b"x", max_retries=1)
    assert time.slept == [seconds, seconds]


async def test_a_retry_after_above_the_cap_is_raised_at_once(origin: FaultyOrigin) -> None:
    """With the seconds for the caller to decide; no client sleeps an hour."""
    origin.add("/busy", b"", always=status(429, retry_after="3600"))
    with fast_time() as time, pytest.raises(httpx.HTTPStatusError) as caught:
        await fetch_async(origin.url("/busy"), max_backoff=60)
    assert caught.value.retry_after == 3600.0  # type: ignore[attr-defined]
    assert time.slept == []


async def test_delay_waits_before_the_request(origin: FaultyOrigin) -> None:
    """Once."""
    with fast_time() as time:
        await fetch_async(origin.url("/page"), delay=3)
    assert time.slept == [3]


@pytest.mark.parametrize("fault", [hang_up(), reset_after(2), truncate(2), stall(), stall(None)])
async def test_a_post_whose_answer_is_lost_is_not_sent_again(
    origin: FaultyOrigin, fault: object
) -> None:
    """`OutcomeUnknown` carries what happened; the server saw one request."""
    origin.add("/do", b"done", always=fault)  # type: ignore[arg-type]
    url = origin.url("/do?sig=hunter2")
    with fast_time(), pytest.raises(OutcomeUnknown) as caught:
        await request_async("POST", url, json={}, timeout=0.5, max_retries=5)
    assert isinstance(caught.value.cause, httpx.TransportError)
    assert caught.value.__cause__ is caught.value.cause
    assert caught.value.method == "POST"
    assert "hunter2" not in str(caught.value) + caught.value.url
    assert origin.count("/do") == 1


@pytest.mark.parametrize("code", [500, 502, 504])
async def test_a_post_answered_by_an_error_is_that_error(origin: FaultyOrigin, code: int) -> None:
    """As an HTTPStatusError that users of 0.7 catch, and without a second request."""
    origin.add("/do", b"done", always=status(code))
    with pytest.raises(httpx.HTTPStatusError):
        await request_async("POST", origin.url("/do"), json={}, max_retries=5)
    assert origin.count("/do") == 1


@pytest.mark.parametrize("code", [429, 503])
async def test_a_post_that_was_turned_away_is_sent_again(origin: FaultyOrigin, code: int) -> None:
    """These statuses say that nothing was done."""
    origin.add("/do", b"done", faults=[status(code)])
    with fast_time():
        response = await request_async("POST", origin.url("/do"), json={})
    assert response.text == "done"
    assert origin.count("/do") == 2


@pytest.mark.parametrize(
    "repeatable", [{"idempotent": True}, {"headers": {"idempotency-key": "1"}}]
)
async def test_a_repeatable_post_is_sent_again(
    origin: FaultyOrigin, repeatable: dict[str, object]
) -> None:
    """When the caller says so, or an Idempotency-Key."""
    origin.add("/do", b"done", faults=[hang_up(), status(500)])
    with fast_time():
        response = await request_async("POST", origin.url("/do"), json={}, **repeatable)  # type: ignore[arg-type]
    assert response.text == "done"
    assert origin.count("/do") == 3


async def test_a_streamed_body_is_not_sent_again_empty(origin: FaultyOrigin) -> None:
    """The first attempt used it up, so its failure is the last word."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"once"

    origin.add("/do", b"done", faults=[status(503)])
    with fast_time(), pytest.raises(httpx.HTTPStatusError):
        await request_async("PUT", origin.url("/do"), content=pieces())
    assert [request.body for request in origin.requests] == [b"once"]


async def test_a_get_that_must_not_run_twice_is_not_sent_again(origin: FaultyOrigin) -> None:
    """`idempotent=False` is believed."""
    origin.add("/do", b"done", faults=[truncate(1), hang_up()])
    for requests in (1, 2):
        with pytest.raises(OutcomeUnknown):
            await request_async("GET", origin.url("/do"), idempotent=False)
        assert origin.count("/do") == requests


async def test_a_post_without_a_connection_is_sent_again() -> None:
    """Nothing reached anybody; the error of the last attempt is an httpx.ConnectError."""
    with FaultyOrigin() as gone:
        url = gone.url("/")
    with fast_time() as time, pytest.raises(httpx.ConnectError):
        await request_async("POST", url, json={}, max_retries=3)
    assert len(time.slept) == 3


@pytest.mark.parametrize("fault", [truncate(1), status(503)])
async def test_a_post_that_was_answered_by_a_redirect_has_run(
    origin: FaultyOrigin, fault: object
) -> None:
    """What fails after "303 See Other" must not bring the POST again."""
    origin.add("/do", b"", always=redirect("/result", 303))
    origin.add("/result", b"done", always=fault)  # type: ignore[arg-type]
    with pytest.raises((OutcomeUnknown, httpx.HTTPStatusError)):
        await request_async("POST", origin.url("/do"), json={}, max_retries=3)
    assert origin.count("/do") == 1
    assert origin.count("/result") == 1


@pytest.mark.parametrize("fault", [stall(), stall(None), slow(1), redirect_loop()])
async def test_no_call_outlives_its_deadline(origin: FaultyOrigin, fault: object) -> None:
    """A server that drips within every timeout included; the error is an httpx timeout too."""
    origin.add("/hang", b"x" * 1000, always=fault)  # type: ignore[arg-type]
    started = asyncio.get_running_loop().time()
    with pytest.raises((DeadlineExceeded, httpx.TooManyRedirects)) as caught:
        await fetch_async(origin.url("/hang"), deadline=0.2, timeout=30)
    assert asyncio.get_running_loop().time() - started < 5
    if isinstance(caught.value, DeadlineExceeded):
        assert isinstance(caught.value, httpx.TimeoutException)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, HttpError)


async def test_a_post_cut_by_its_deadline_has_an_unknown_outcome(origin: FaultyOrigin) -> None:
    """It may have reached the server."""
    origin.add("/hang", b"", always=stall(None))
    with pytest.raises(OutcomeUnknown):
        await request_async("POST", origin.url("/hang"), json={}, deadline=0.5)


@pytest.mark.parametrize("what", ["fetch", "download"])
async def test_a_timer_that_is_early_is_the_deadline_all_the_same(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    """Timers of Windows are up to 16 ms early by the clock, those of uvloop 1 ms."""
    origin.add("/hang", b"", always=stall(None))
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def early(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        return call_at(when - 0.05, *args, **options)

    monkeypatch.setattr(loop, "call_at", early)
    with pytest.raises((DeadlineExceeded, DownloadDeadlineError)):
        if what == "fetch":
            await fetch_async(origin.url("/hang"), deadline=0.3)
        else:
            await download_asset_async(origin.url("/hang"), tmp_path / "f", deadline=0.3)


async def test_no_wait_overshoots_the_deadline(origin: FaultyOrigin) -> None:
    """A wait that would end after it is not begun; the last error comes through."""
    origin.add("/busy", b"", always=status(503, retry_after="5"))
    with fast_time() as time, pytest.raises(httpx.HTTPStatusError):
        await fetch_async(origin.url("/busy"), deadline=12, max_retries=9)
    assert time.slept == [5.0, 5.0]


async def test_a_silent_server_is_a_read_timeout(origin: FaultyOrigin) -> None:
    """After the read timeout, not the others."""
    origin.add("/hang", b"x", always=stall(None))
    with pytest.raises(httpx.ReadTimeout):
        await fetch_async(origin.url("/hang"), timeout=httpx.Timeout(30, read=0.05), max_retries=0)


async def test_a_handshake_that_does_not_end_is_a_connect_timeout() -> None:
    """The port is open, and the server does not speak TLS; a POST may be sent again."""
    server = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{server.getsockname()[1]}/"
    with server, fast_time() as time, pytest.raises(httpx.ConnectTimeout):
        await request_async("POST", url, timeout=httpx.Timeout(30, connect=0.05), max_retries=1)
    assert len(time.slept) == 1


async def test_waiting_for_a_connection_has_its_own_timeout(origin: FaultyOrigin) -> None:
    """And a request that is cancelled gives its place to the next."""
    origin.add("/hang", b"x", always=stall(None))
    timeout = httpx.Timeout(30, pool=0.05)
    async with AsyncHttpClient(limits=httpx.Limits(max_connections=1)) as client:
        holder = asyncio.create_task(fetch_async(origin.url("/hang"), client=client))
        while not origin.count("/hang"):  # noqa: ASYNC110 - it is in another thread
            await asyncio.sleep(0.001)
        with pytest.raises(httpx.PoolTimeout, match="max_connections"):
            await fetch_async(origin.url("/page"), client=client, timeout=timeout, max_retries=0)
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        assert await fetch_async(origin.url("/page"), client=client, timeout=timeout) == "hello"


async def test_a_server_that_reads_no_body_is_a_write_timeout() -> None:
    """The body fills the socket's buffers and goes no further."""

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.transport.abort()

    done = asyncio.Event()
    server = await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(OutcomeUnknown) as caught:
            await request_async(
                "POST",
                f"http://127.0.0.1:{port}/",
                content=b"x" * 50_000_000,
                timeout=httpx.Timeout(30, write=0.1),
            )
        assert isinstance(caught.value.cause, httpx.WriteTimeout)
    finally:
        done.set()
        server.close()


@pytest.mark.parametrize("call", ["fetch", "request", "post"])
async def test_bodies_above_max_bytes_are_refused(origin: FaultyOrigin, call: str) -> None:
    """By the announced length, or in mid-stream; no retry."""
    origin.add("/big", b"x" * 1000)
    origin.add("/endless", b"x" * 100_000, chunked=True)
    for path in ("/big", "/endless"):
        with pytest.raises(ResponseTooLarge) as caught:
            if call == "fetch":
                await fetch_async(origin.url(path), max_bytes=999)
            else:
                method = "GET" if call == "request" else "POST"
                await request_async(method, origin.url(path), max_bytes=999)
        assert caught.value.limit == 999
        assert origin.count(path) == 1
    response = await request_async("GET", origin.url("/big"), max_bytes=1000)
    assert len(response.content) == 1000


async def test_max_bytes_counts_what_a_compressed_body_grows_to(origin: FaultyOrigin) -> None:
    """A small bomb is refused before it is all in memory."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    origin.add("/bomb", bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(ResponseTooLarge) as caught:
        await fetch_async(origin.url("/bomb"), max_bytes=1_000_000)
    assert caught.value.received < 20_000_000


async def test_an_unrequested_gzip_body_is_decoded(origin: FaultyOrigin) -> None:
    """Its Content-Length is that of the wire, and whole."""
    origin.add("/g", b"hello", faults=[gzip_encoded()])
    assert await fetch_async(origin.url("/g")) == "hello"


async def test_redirects_are_followed_with_history(origin: FaultyOrigin) -> None:
    """By default, as in 0.7; relative locations too."""
    origin.add("/old", b"", always=redirect("/older", 301))
    origin.add("/older", b"", always=redirect(origin.url("/page"), 307))
    response = await request_async("GET", origin.url("/old"))
    assert response.text == "hello"
    assert [step.status_code for step in response.history] == [301, 307]
    assert str(response.url) == origin.url("/page")
    assert await fetch_async(origin.url("/old"), max_bytes=10) == "hello"


async def test_redirects_may_be_switched_off(origin: FaultyOrigin) -> None:
    """Then they are errors, as every status but success."""
    origin.add("/old", b"", always=redirect("/page"))
    async with AsyncHttpClient(follow_redirects=False) as client:
        with pytest.raises(httpx.HTTPStatusError):
            await fetch_async(origin.url("/old"), client=client)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirect_loops_end(origin: FaultyOrigin, method: str) -> None:
    """With TooManyRedirects, at the client's limit, not retried."""
    origin.add("/loop", b"", always=redirect_loop(307))
    async with AsyncHttpClient(max_redirects=3) as client:
        with pytest.raises(httpx.TooManyRedirects):
            await request_async(method, origin.url("/loop"), client=client)
    assert origin.count("/loop") == 4


@pytest.mark.parametrize("way", ["lean", "post", "client", "stream"])
async def test_credentials_never_cross_an_origin(origin: FaultyOrigin, way: str) -> None:
    """Whichever way the request travels; those of the client neither."""
    secrets = {"x-functions-key": "k", "Authorization": "Bearer t", "api-key": "a", "Cookie": "c=1"}
    with FaultyOrigin() as other:
        other.add("/page", b"other")
        origin.add("/go", b"", always=redirect(other.url("/page"), 307))
        async with AsyncHttpClient(headers={"X-Api-Key": "own"}) as client:
            if way == "lean":
                await fetch_async(origin.url("/go"), headers=secrets, client=client)
            elif way == "post":
                await request_async(
                    "POST", origin.url("/go"), json={}, headers=secrets, client=client
                )
            elif way == "client":
                await (await client.get_client()).get(origin.url("/go"), headers=secrets)
            else:
                url = origin.url("/go")
                async with stream_async("GET", url, headers=secrets, client=client) as response:
                    await response.aread()
        first, second = origin.requests[-1].headers, other.requests[-1].headers
        for name in (*secrets, "X-Api-Key"):
            assert name in first
            assert name not in second


async def test_cookies_are_kept_and_sent_where_they_belong(origin: FaultyOrigin) -> None:
    """In the jar of the client, those set on a redirect included."""
    origin.add("/login", b"in", headers={"Set-Cookie": "session=1; Path=/"})
    origin.add("/hop", b"", faults=[redirect("/page") & _set_cookie()])
    async with AsyncHttpClient() as client:
        await fetch_async(origin.url("/login"), client=client)
        await fetch_async(origin.url("/page"), client=client)
        assert sent(origin, "Cookie") == ["session=1"]
        await fetch_async(origin.url("/hop"), client=client)
        assert sorted(sent(origin, "Cookie")[0].split("; ")) == ["hop=2", "session=1"]
        assert (await client.get_client()).cookies["session"] == "1"
    async with AsyncHttpClient(cookies={"given": "yes"}) as client:
        await fetch_async(origin.url("/page"), client=client)
        assert sent(origin, "Cookie") == ["given=yes"]


def _set_cookie() -> Fault:
    def change(exchange: Exchange) -> None:
        exchange.reply.headers["Set-Cookie"] = "hop=2; Path=/"

    return Fault("cookie", change)


async def test_user_info_in_the_url_authenticates(origin: FaultyOrigin) -> None:
    """On every way, and no URL shows the password."""
    url = origin.url("/page").replace("http://", "http://user:hunter2@")
    await fetch_async(url)
    assert sent(origin, "Authorization") == ["Basic dXNlcjpodW50ZXIy"]
    await request_async("POST", url, json={})
    assert sent(origin, "Authorization") == ["Basic dXNlcjpodW50ZXIy"]
    origin.add("/no", b"", always=status(404))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await fetch_async(url.replace("/page", "/no"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"auth": ("user", "pw")},
        {"params": {"q": "1"}},
        {"base_url": ""},
        {"event_hooks": {"request": [], "response": []}},
    ],
)
async def test_client_options_of_httpx_work(origin: FaultyOrigin, options: dict[str, Any]) -> None:
    """Over the fast transport where that is possible."""
    async with AsyncHttpClient(**options) as client:
        assert await fetch_async(origin.url("/page"), client=client) == "hello"
    if "auth" in options:
        assert sent(origin, "Authorization") == ["Basic dXNlcjpwdw=="]
    if "params" in options:
        assert origin.requests[-1].path == "/page?q=1"


async def test_relative_urls_are_joined_to_the_base_url(origin: FaultyOrigin) -> None:
    """Of the client, limits per host included."""
    async with AsyncHttpClient(base_url=origin.base_url, max_per_host=1) as client:
        assert await fetch_async("/page", client=client) == "hello"


async def test_event_hooks_see_requests_and_answers(origin: FaultyOrigin) -> None:
    """Those of httpx, called by httpx."""
    seen: list[str] = []

    async def before(request: httpx.Request) -> None:
        seen.append(request.method)

    async def after(response: httpx.Response) -> None:
        seen.append(str(response.status_code))

    hooks = {"request": [before], "response": [after]}
    async with AsyncHttpClient(event_hooks=hooks) as client:
        await fetch_async(origin.url("/page"), client=client)
    assert seen == ["GET", "200"]


async def test_malformed_requests_are_refused_before_anything_is_sent(
    origin: FaultyOrigin,
) -> None:
    """Methods, headers and URLs, each with its own error and no retry."""
    with pytest.raises(InvalidRequestError):
        await request_async("GE T", origin.url("/page"))
    with pytest.raises(InvalidRequestError):
        await fetch_async(origin.url("/page"), headers={"a": "b\r\nc: d"})
    with fast_time() as time:
        for url in ("nonsense", "http://a:99999/", "http://"):
            for method in ("GET", "POST"):
                with pytest.raises((httpx.InvalidURL, httpx.UnsupportedProtocol)) as caught:
                    await request_async(method, url, json=None if method == "GET" else {})
                if isinstance(caught.value, httpx.RequestError):  # whose `request` users read
                    assert caught.value.request.method == method
    assert time.slept == []
    assert origin.requests == []


async def test_unknown_hosts_are_not_retried() -> None:
    """DNS will not know them a second later either."""
    with fast_time() as time, pytest.raises(httpx.ConnectError):
        await fetch_async("http://no-such-host.invalid/?sig=x")
    assert time.slept == []


@pytest.mark.parametrize("value", [{"max_retries": -1}, {"backoff": -1}, {"deadline": 0}])
async def test_impossible_policies_are_refused(
    origin: FaultyOrigin, value: dict[str, float]
) -> None:
    """A ValueError that names the parameter."""
    with pytest.raises(ValueError, match=next(iter(value))):
        await fetch_async(origin.url("/page"), **value)  # type: ignore[arg-type]


async def test_retries_are_logged_with_fields_and_without_secrets(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """One record per retry: url, attempt, status, wait."""
    origin.add("/flaky", b"ok", faults=[status(503), hang_up()])
    with fast_time(jitter=0.5), caplog.at_level(logging.WARNING, "infra_core.http_async"):
        await fetch_async(origin.url("/flaky?sig=hunter2"), headers={"x-k": "1"})
    records = [r for r in caplog.records if r.name == "infra_core.http_async"]
    assert [(r.attempt, r.status, r.wait) for r in records[:1]] == [(1, 503, 0.5)]  # type: ignore[attr-defined]
    assert "sig=" in records[0].url  # type: ignore[attr-defined]
    assert all("hunter2" not in r.getMessage() + str(r.__dict__) for r in records)


async def test_a_caller_that_logs_a_failure_itself_can_have_it_logged_once(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """As a poll does, which goes on."""
    origin.add("/missing", b"", faults=[status(404)] * 2)
    for logged in (False, True):
        with pytest.raises(httpx.HTTPStatusError):
            await request_async("GET", origin.url("/missing"), _log_failure=logged)
        assert len(caplog.records) == logged


async def test_log_records_carry_the_active_span(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """Trace and span id of OpenTelemetry."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    origin.add("/flaky", b"ok", faults=[status(503)])
    tracer = trace.TracerProvider().get_tracer("test")
    with fast_time(), tracer.start_as_current_span("work") as span:
        await fetch_async(origin.url("/flaky"))
    record = next(r for r in caplog.records if r.name == "infra_core.http_async")
    assert record.trace_id == f"{span.get_span_context().trace_id:032x}"  # type: ignore[attr-defined]
    assert record.span_id == f"{span.get_span_context().span_id:016x}"  # type: ignore[attr-defined]


async def test_the_log_of_httpx_has_no_secrets(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """httpx logs every URL at INFO; those of our clients are redacted."""
    with caplog.at_level(logging.INFO):
        await request_async("POST", origin.url("/page?sig=hunter2"), json={})
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_redirect_whose_body_inflates_is_followed(
    origin: FaultyOrigin, kind: Callable[..., Any]
) -> None:
    """What it says beside its Location was not asked for, and is not kept."""
    headers = {"Location": "/page", "Content-Encoding": "gzip"}
    origin.add("/moved", gzip.compress(b"\0" * 1_000_000), status=302, headers=headers)
    async with kind(follow_redirects=True) as client:
        response = await request_async("GET", origin.url("/moved"), client=client)
    assert (response.text, response.history[0].content) == ("hello", b"")


async def test_stream_gives_the_body_as_it_comes(origin: FaultyOrigin) -> None:
    """Any status, no retry; the connection is free again afterwards."""
    origin.add("/big", b"x" * 300_000)
    async with AsyncHttpClient(limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(2):
            url = origin.url("/big")
            async with stream_async("GET", url, client=client, params={"a": 1}) as response:
                assert sum([len(c) async for c in response.aiter_bytes()]) == 300_000
            async with stream_async("GET", url, client=client) as response:
                sizes = [len(c) async for c in response.aiter_bytes(70_000)]
                assert sizes == [70_000] * 4 + [20_000]
            async with stream_async("GET", url, client=client) as response:
                assert response.status_code == 200  # and not read
        async with stream_async("GET", origin.url("/none"), client=client) as response:
            assert response.status_code == 404


async def test_a_cancelled_request_gives_its_slot_back(origin: FaultyOrigin) -> None:
    """Nothing leaks: a client of one connection serves the next request at once."""
    origin.add("/hang", b"x" * 10, always=stall(3))
    async with AsyncHttpClient(limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            task = asyncio.create_task(fetch_async(origin.url("/hang"), client=client))
            before = origin.count("/hang")
            while origin.count("/hang") == before:  # noqa: ASYNC110 - in another thread
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        timeout = httpx.Timeout(5, pool=0.5)
        assert await fetch_async(origin.url("/page"), client=client, timeout=timeout) == "hello"


async def test_connections_are_kept_and_reused(origin: FaultyOrigin) -> None:
    """One after the other over one connection; at most max_connections at once."""
    async with AsyncHttpClient(limits=httpx.Limits(max_connections=4)) as client:
        for _ in range(5):
            await fetch_async(origin.url("/page"), client=client)
        assert origin.connections == 1
        await asyncio.gather(*(fetch_async(origin.url("/page"), client=client) for _ in range(40)))
        assert origin.connections <= 4


@pytest.mark.parametrize("deadline", [None, 60])
async def test_a_timeout_of_somebody_elses_comes_through(deadline: float | None) -> None:
    """An application behind a transport may raise one; it is no deadline of ours that passed."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise TimeoutError("the application gave up")

    async with AsyncHttpClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(TimeoutError, match="the application gave up"):
            await fetch_async("http://a.example/", client=client, deadline=deadline)
