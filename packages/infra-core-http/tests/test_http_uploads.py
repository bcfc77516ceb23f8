"""Bodies of requests: one length, sent whole or not at all, the same in every half."""

import asyncio
import gc
import io
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest

from infra_core.http import (
    AsyncHttpClient,
    InvalidRequestError,
    OutcomeUnknown,
    request,
    request_async,
)
from infra_core.http._async_client import manager_of
from infra_core.http._stream import here_of
from infra_core.http.engine import Engine
from infra_core.http.engine._private_names import protocols_of
from infra_core.http.testing import FaultyOrigin, redirect
from infra_core.runtime import error_chain

Send = Callable[..., Any]


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        server.add("/in", b"done")
        yield server


def pieces(*parts: Any) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


async def later(*parts: Any) -> AsyncIterator[Any]:
    for part in pieces(*parts):
        yield part


@pytest.fixture(params=["sync", "async"])
def send(request: pytest.FixtureRequest) -> Send:
    """Send a body over one of the halves; `parts` are those of a streamed one."""
    half = request.param

    def work(url: str, *, parts: Any = None, **options: Any) -> Any:
        options = {"max_retries": 0, "timeout": 20, **options}
        if parts is not None:
            options["content"] = pieces(*parts) if half == "sync" else later(*parts)
        if half == "sync":
            return _request("POST", url, **options)
        return asyncio.run(request_async("POST", url, **options))

    return work


_request = request


def test_a_streamed_body_has_the_length_that_is_given(origin: FaultyOrigin, send: Send) -> None:
    """With Transfer-Encoding beside it, servers wait for chunks that never come."""
    send(origin.url("/in"), parts=[b"ab", b"", b"cd"], headers={"content-length": "4"})
    assert origin.requests[-1].body == b"abcd"
    assert "transfer-encoding" not in origin.requests[-1].headers
    send(origin.url("/in"), parts=[b"ab", b"", b"cd"])
    assert origin.requests[-1].body == b"abcd"
    assert origin.requests[-1].headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize(
    ("method", "length"),
    [("GET", []), ("HEAD", []), ("POST", ["0"]), ("PUT", ["0"]), ("PATCH", ["0"])],
)
@pytest.mark.parametrize("half", ["sync", "async", "plain"])
def test_no_body_has_a_length_where_one_is_expected(
    origin: FaultyOrigin, half: str, method: str, length: list[str]
) -> None:
    """Servers answer 411 to a POST that says nothing of its body; RFC 9110, section 8.6."""
    url = origin.url("/in")

    async def work() -> None:
        async with AsyncHttpClient(http2=half == "plain") as client:
            await request_async(method, url, client=client)

    request(method, url) if half == "sync" else asyncio.run(work())
    given = origin.requests[-1].raw_headers
    assert [value for name, value in given if name.lower() == "content-length"] == length


@pytest.mark.parametrize(
    ("parts", "word"), [([b"abcd", b"e"], "longer"), ([b"abcde"], "longer"), ([b"abc"], "shorter")]
)
def test_a_streamed_body_of_another_length_is_not_sent_as_if_whole(
    origin: FaultyOrigin, send: Send, parts: list[bytes], word: str
) -> None:
    with pytest.raises(InvalidRequestError, match=f"{word} than its Content-Length of 4 bytes"):
        send(origin.url("/in"), parts=parts, headers={"Content-Length": "4"})
    assert not [r for r in origin.requests if r.body]
    send(origin.url("/in"), content=b"next")
    assert origin.requests[-1].body == b"next"


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "2"}, {"Content-Length": "9"}, {"transfer-encoding": "chunked"}]
)
def test_bytes_are_sent_whole_whatever_the_caller_says_of_them(
    origin: FaultyOrigin, send: Send, headers: dict[str, str]
) -> None:
    for body in (b"abcd", b"x" * 200_000):
        send(origin.url("/in"), content=body, headers=headers)
        assert origin.requests[-1].body == body
        assert origin.requests[-1].headers["content-length"] == str(len(body))


@pytest.mark.parametrize("error", [RuntimeError("mine"), ValueError("mine"), KeyError("mine")])
def test_what_a_body_raises_comes_through(
    origin: FaultyOrigin, send: Send, error: Exception
) -> None:
    """It is no failure of the network, and no answer was lost."""
    with suppress(AssertionError), pytest.raises(type(error), match="mine"):
        send(origin.url("/in"), parts=[b"x", error])


def test_an_asynchronous_body_yields_bytes(origin: FaultyOrigin) -> None:
    with pytest.raises(InvalidRequestError, match="piece of type str: yield bytes"):
        asyncio.run(request_async("POST", origin.url("/in"), content=later("text")))


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_every_kind_are_sent_again(origin: FaultyOrigin, send: Send, kind: Any) -> None:
    origin.add("/away", faults=[redirect(origin.url("/in"), code=307)])
    send(origin.url("/away"), content=kind(b"abc"))
    assert origin.requests[-1].body == b"abc"


class Again(httpx.AsyncByteStream):
    """A body that can be read any number of times."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"


@pytest.mark.parametrize("code", [307, 308])
@pytest.mark.parametrize("http2", [False, True], ids=["fast", "plain"])
async def test_a_stream_is_sent_again_if_it_can_be(
    origin: FaultyOrigin, code: int, *, http2: bool
) -> None:
    """With its length, where that was given; what is spent by then is refused."""
    origin.add("/away", always=redirect(origin.url("/in"), code=code))
    async with AsyncHttpClient(http2=http2) as client:
        post = partial(request_async, "POST", origin.url("/away"), client=client)
        for headers, length in (({"Content-Length": "4"}, "4"), ({}, None)):
            await post(content=Again(), headers=headers)
            for sent in origin.requests[-2:]:
                assert (sent.body, sent.headers.get("Content-Length")) == (b"abcd", length)
        with pytest.raises(httpx.LocalProtocolError, match="streamed and cannot be read again"):
            await post(content=later(b"ab", b"cd"))
    assert origin.count("/in") == 2


async def test_a_request_made_by_hand_is_sent_whole(origin: FaultyOrigin) -> None:
    """Whether its body is bytes, or a stream of bytes that httpx has not read."""
    async with AsyncHttpClient() as client:
        http = await client.get_client()
        url, headers = origin.url("/in"), {"Content-Length": "4"}
        for body in ({"content": b"text"}, {"stream": httpx.ByteStream(b"text")}):
            await http.send(httpx.Request("POST", url, headers=headers, **body))
            assert origin.requests[-1].body == b"text"


def test_a_file_is_sent_again_from_where_it_stood(origin: FaultyOrigin) -> None:
    origin.add("/away", faults=[redirect(origin.url("/in"), code=307)])
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    request("POST", origin.url("/away"), data=file)
    assert origin.requests[-1].body == b"456789"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ({"a": None, "b": True, "c": 1.5}, b"a=&b=true&c=1.5"),
        ({"a": ["1", None], "b": ("x y",)}, b"a=1&a=&b=x+y"),
        ([("a", "1"), ("a", False)], b"a=1&a=false"),
        ((("a", "é"),), b"a=%C3%A9"),
        ({"a": range(2), "b": {"x"}, "c": {"y": 1}.keys()}, b"a=0&a=1&b=x&c=y"),
        ({}, b""),
    ],
)
def test_a_form_is_the_same_in_both_halves(
    origin: FaultyOrigin, send: Send, data: Any, body: bytes
) -> None:
    send(origin.url("/in"), data=data)
    assert origin.requests[-1].body == body


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_call_waits_for_the_answer_to_an_expectation(method: str) -> None:
    """Servers before HTTP/1.1, and many since, send no 100."""
    seen: list[bytes] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines:
            while (line := lines.readline()) not in (b"\r\n", b""):
                seen.append(line.lower())
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        options: dict[str, Any] = {"content": b"x"} if method == "POST" else {}
        answer = asyncio.run(
            request_async(method, url, headers={"expect": "100-Continue"}, timeout=20, **options)
        )
        thread.join(20)
    assert answer.text == "ok"
    assert not [line for line in seen if line.startswith(b"expect")]


@pytest.mark.parametrize("pieces_after", [0, 1])
async def test_a_connection_that_is_closing_takes_no_more_of_a_body(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture, pieces_after: int
) -> None:
    """The error names no secret of the URL, and no task is left behind with an error of its own."""
    async with AsyncHttpClient() as client:

        async def body() -> AsyncIterator[bytes]:
            yield b"piece"
            await asyncio.sleep(0)
            here: Any = await here_of(manager_of(client))
            for protocol in protocols_of(here.engine._sessions[None].connector):
                protocol.transport.abort()
            for _ in range(pieces_after):
                yield b"piece"

        with pytest.raises(OutcomeUnknown) as caught:
            await request_async("POST", origin.url("/in?sig=SECRET"), content=body(), client=client)
    gc.collect()
    await asyncio.sleep(0)
    assert "Errno" not in str(caught.value)
    assert "never retrieved" not in caplog.text
    for link in error_chain(caught.value):
        assert "SECRET" not in f"{link} {link!r}"


async def test_the_engine_sends_by_itself(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As other packages use it: with the settings of the environment where none are given."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    engine = Engine(limits=httpx.Limits(max_connections=2))
    answer = await engine.send(
        "PUT", origin.url("/in"), headers={"Content-Type": "text/plain"}, body=b"text"
    )
    assert (answer.status, await answer.read()) == (200, b"done")
    assert origin.requests[-1].body == b"text"
    for limit, drained in ((4, b"done"), (3, b"")):
        answer = await engine.send("GET", origin.url("/in"))
        assert await answer.drain(limit) == drained
    with pytest.raises(httpx.ConnectError, match="cannot connect to the proxy of http_proxy"):
        await engine.send("GET", "http://elsewhere.test/")
    await engine.aclose()
