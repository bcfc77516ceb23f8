"""Answers that curl takes and aiohttp's parser does not, and connections that are out of step."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from unittest import mock

import httpx
import pytest
import requests
import urllib3
from hypothesis import given, strategies as st

from infra_core.http import AsyncHttpClient, fetch_async, request, request_async, stream
from infra_core.http.engine._protocol import Protocol, after_interim, mended
from infra_core.http.engine._session import _HEADER_LINES

BODY = b"x" * 60
CHUNKED = b"3c\r\n" + BODY + b"\r\n0\r\n\r\n"


def _answer(*lines: bytes, body: bytes = BODY, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", body])


@contextmanager
def serving(
    answer: bytes | list[bytes], sent: threading.Event | None = None, *, closes: bool = False
) -> Iterator[tuple[str, list[int]]]:
    """Serve these bytes for each request, in as many writes, and count connections."""
    pieces = [answer] if isinstance(answer, bytes) else answer
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[int] = []
    open_ones: list[socket.socket] = []

    def talk(peer: socket.socket) -> None:
        with peer:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    try:
                        data = peer.recv(65_536)
                    except OSError:
                        return
                    if not data:
                        return
                    head += data
                for piece in pieces:
                    try:
                        peer.sendall(piece)
                    except OSError:
                        return
                if sent is not None:
                    sent.set()
                if closes:
                    return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.append(1)
            open_ones.append(peer)
            threading.Thread(target=talk, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for peer in open_ones:
            peer.close()


TAKEN = {
    "equal lengths": (_answer(b"Content-Length: 60", b"Content-Length: 60"), True),
    "equal lengths in a line": (_answer(b"Content-Length: 60, 60"), True),
    "length, then chunked": (
        _answer(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=CHUNKED),
        False,
    ),
    "chunked, then length": (
        _answer(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=CHUNKED),
        False,
    ),
    "identity": (_answer(b"Transfer-Encoding: identity", b"Content-Length: 60"), True),
    "bytes after the body": (_answer(b"Content-Length: 60", body=BODY + b"garbage"), False),
    "an answer after the answer": (_answer(b"Content-Length: 60") * 2, False),
    "bytes after the chunks": (
        _answer(b"Transfer-Encoding: chunked", body=CHUNKED + b"garbage"),
        False,
    ),
    "150 header lines": (
        _answer(*(b"X-%d: v" % n for n in range(150)), b"Content-Length: 60"),
        True,
    ),
    "bytes beyond ASCII and ESC": (
        _answer(b'ETag: "caf\xe9"', b"X-A: \x1b[0m", b"Content-Length: 60"),
        True,
    ),
    "a 206 of everything": (
        _answer(b"Content-Range: bytes 0-59/60", b"Content-Length: 60", status=b"206 Partial"),
        True,
    ),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2
        + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + _answer(b"Content-Length: 60"),
        True,
    ),
    "an interim answer, then equal lengths": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + _answer(b"Content-Length: 60", b"Content-Length: 60"),
        True,
    ),
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("pieces", [1, 2, 200])
async def test_harmless_oddities_are_taken(name: str, pieces: int) -> None:
    """However the bytes arrive; the connection is kept only when it is in step."""
    if pieces > 1 and " after the " in name:
        pytest.skip("what comes later than the answer may come after the next request")
    answer, clean = TAKEN[name]
    step = -(-len(answer) // pieces)
    parts = [answer[at : at + step] for at in range(0, len(answer), step)]
    with serving(parts) as (url, connections):
        async with AsyncHttpClient() as client:
            for _ in range(3):
                assert (await request_async("GET", url, client=client)).content == BODY
    assert len(connections) == (1 if clean else 3)


@pytest.mark.parametrize("name", TAKEN)
async def test_harmless_oddities_are_taken_byte_by_byte(name: str) -> None:
    """As nobody can make a network deliver them: what is not whole yet is waited for."""
    protocol = Protocol(asyncio.get_running_loop())
    transport = mock.create_autospec(asyncio.Transport, spec_set=True, instance=True)
    transport.is_closing.return_value = False
    protocol.connection_made(transport)
    protocol.set_response_params(read_until_eof=True, **_HEADER_LINES)
    answer, _ = TAKEN[name]
    for at in range(len(answer)):
        protocol.data_received(answer[at : at + 1])
    while True:
        message, payload = await protocol.read()
        if message.code >= 200:
            break
    assert await payload.read() == BODY
    protocol.connection_lost(None)


REFUSED = {
    "different lengths": _answer(b"Content-Length: 60", b"Content-Length: 61"),
    "a length of 5,000 digits": _answer(b"Content-Length: " + b"9" * 5000),
    "a length that is a digit to Python": _answer("Content-Length: ²".encode()),
    "a negative length": _answer(b"Content-Length: -60"),
    "a negative chunk": _answer(b"Transfer-Encoding: chunked", body=b"-3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size of 5,000 digits": _answer(
        b"Transfer-Encoding: chunked", body=b"f" * 5000 + b"\r\nabc\r\n0\r\n\r\n"
    ),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a status of four digits": _answer(b"Content-Length: 60", status=b"2000 X"),
    "a header line without a colon": _answer(b"nonsense", b"Content-Length: 60"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("pieces", [1, 2])
async def test_what_cannot_be_read_is_an_error_of_httpx(name: str, pieces: int) -> None:
    """That names the server; never a ValueError of a parser."""
    answer = REFUSED[name]
    step = -(-len(answer) // pieces)
    parts = [answer[at : at + step] for at in range(0, len(answer), step)]
    with serving(parts) as (url, _), pytest.raises(httpx.TransportError, match=r"127\.0\.0\.1"):
        await fetch_async(url, max_retries=0, timeout=20)


def _blocking(url: str) -> None:
    request("GET", url, max_retries=0)


def _blocking_stream(url: str) -> None:
    with stream("GET", url) as response:
        assert response.raw.read()


async def _awaited(url: str, *, http2: bool) -> None:
    async with AsyncHttpClient(http2=http2) as client:
        await request_async("GET", url, client=client, max_retries=0)


CUT = {
    "before its length": _answer(b"Content-Length: 61"),
    "before the first chunk": _answer(b"Transfer-Encoding: chunked", body=b""),
    "in a size": _answer(b"Transfer-Encoding: chunked", body=b"3"),
    "in a chunk": _answer(b"Transfer-Encoding: chunked", body=CHUNKED[:30]),
    "after a chunk": _answer(b"Transfer-Encoding: chunked", body=CHUNKED[:64]),
    "between chunks": _answer(b"Transfer-Encoding: chunked", body=CHUNKED[:66]),
    "in the last chunk": _answer(b"Transfer-Encoding: chunked", body=CHUNKED[:-2]),
}


@pytest.mark.parametrize("name", CUT)
def test_no_body_that_is_cut_is_taken_for_a_whole_one(name: str) -> None:
    """Wherever the connection ends, in both halves and over httpx's own transport."""
    with serving(CUT[name], closes=True) as (url, _):
        for way in (_blocking, _blocking_stream):
            with pytest.raises((requests.RequestException, urllib3.exceptions.HTTPError)):
                way(url)
        for http2 in (False, True):
            with pytest.raises(httpx.TransportError):
                asyncio.run(_awaited(url, http2=http2))


async def test_an_unrequested_answer_is_not_given_to_the_next_caller() -> None:
    """It came while the connection was idle: the connection is not used again."""
    normal, evil = _answer(b"Content-Length: 60"), _answer(b"Content-Length: 4", body=b"EVIL")
    answers, sent = [normal], threading.Event()
    with serving(answers, sent) as (url, connections):
        async with AsyncHttpClient() as client:
            answers[:] = [normal, evil]
            await fetch_async(url, client=client)
            assert await asyncio.to_thread(sent.wait, 30)
            answers[:] = [normal]
            assert await fetch_async(url, client=client) == BODY.decode()
        assert len(connections) == 2


@pytest.mark.parametrize("status", [b"413 Content Too Large", b"401 Unauthorized", b"200 OK"])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("closes", [True, False])
async def test_an_early_answer_leaves_nothing_behind(
    status: bytes, *, streamed: bool, closes: bool
) -> None:
    """The answer came before a large body was read; closing the client raises nothing.

    It is there, too, when the server closes and the rest of the body breaks the connection.
    """

    async def body() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    content = body() if streamed else b"x" * 20_000_000
    with serving(_answer(b"Content-Length: 60", status=status), closes=closes) as (url, _):
        async with AsyncHttpClient() as client:
            try:
                response = await request_async(
                    "PUT", url, content=content, client=client, max_retries=0
                )
            except httpx.HTTPStatusError as error:
                response = error.response
        assert response.status_code == int(status[:3])


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(status: int) -> None:
    """Whatever the server sends after it."""
    answer = _answer(b"Content-Length: 60", status=b"%d X" % status)
    fixed = mended(answer, head_only=False)
    assert fixed is not None
    assert not fixed.data.endswith(BODY)
    assert not fixed.clean


@given(st.binary(max_size=200), st.booleans())
def test_mending_never_fails(data: bytes, head_only: bool) -> None:
    """It returns what it cannot mend as it is, and never more than it was given."""
    fixed = mended(data, head_only=head_only)
    assert fixed is None or len(fixed.data) <= len(data) + 20
    assert data.endswith(after_interim(data))


@given(st.integers(0, 3), st.binary(max_size=40))
def test_interim_answers_are_cut_off(count: int, rest: bytes) -> None:
    """All of them, and nothing of the answer."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\n\r\n" + rest
    assert after_interim(interim * count + final) == final


@pytest.mark.parametrize(
    "coding", [b"gzip, chunked", b"gzip", b"gzip, identity", b"chunked, identity"]
)
def test_an_unrequested_transfer_coding_is_no_text(coding: bytes) -> None:
    """Its bytes would pass as the body."""
    answer = _answer(b"Transfer-Encoding: " + coding, body=CHUNKED)
    with (
        serving(answer) as (url, _),
        pytest.raises(httpx.RemoteProtocolError, match="Transfer-Encoding"),
    ):
        asyncio.run(fetch_async(url, max_retries=0))
