"""Bad input and failures of the network: the value, the rule, the remedy, and no library's insides.

Both halves of the package say the same, whatever aiohttp, urllib3 and OpenSSL call it.
"""

import errno
import logging
import math
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from infra_core.http import (
    AsyncHttpClient,
    DownloadDiskError,
    InvalidRequestError,
    OutcomeUnknown,
    RequestsHttpClient,
    absolute_url,
    fetch,
    fetch_async,
    request,
    request_async,
    stream,
    stream_async,
)
from infra_core.http._messages import connect_text, reason_of
from infra_core.http.assets import (
    AssetDownloadClient,
    download_asset_async,
    download_many_async,
)
from infra_core.http.testing import (
    Fault,
    FaultyOrigin,
    hang_up,
    oversized_headers,
    redirect,
    redirect_loop,
    slow,
    stall,
    status,
    truncate,
)
from infra_core.runtime import error_chain
from infra_core.runtime.testing import fast_time

INSIDES = ("ssl:", "Errno", "Pool", "HTTPConnection", "Cannot connect", "aiohttp", "urllib3", "b'")
Call = Callable[..., Any]


def wrong(value: object) -> Any:
    """What the type checker would refuse, and people pass all the same."""
    return value


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        server.add("/f", b"x" * 5000)
        yield server


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that no server listens on, held so that none gets it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


# -- failures of the network ---------------------------------------------------------------------

FAULTS: list[tuple[str, Fault, str]] = [
    ("silent", stall(None), "{} timed out, it sent nothing for 0.25 s: allow a longer timeout"),
    ("stalled", stall(10), "{} timed out, it sent nothing for 0.25 s: allow a longer timeout"),
    ("cut", truncate(10), "{} closed the connection before the whole body had come: its log may"),
    ("hung up", hang_up(), "{}"),  # broken or closed: that depends on the version of aiohttp
    ("headers", oversized_headers(), "the answer of {} is not valid HTTP ("),
    ("404", status(404), ": check the URL and the method"),
    ("403", status(403), ": check the credentials"),
    ("500", status(500), ": see the server's log, or try again later"),
    ("429", status(429, retry_after="90"), ": the server asks to wait 90 s"),
    ("loop", redirect_loop(), "they lead in a circle, or "),
    ("port", redirect("http://h:99999/?sig=abc123"), "127.0.0.1 redirects to 'http://h:99999/?s"),
    ("address", redirect("http://[::1/"), "127.0.0.1 redirects to 'http://[::1/', which is not a"),
    ("dots", redirect("http://a..b/"), "http://a..b/"),
    ("file", redirect("file:///etc/passwd"), "'file:///etc/passwd', a URL of scheme 'file': only"),
    ("no HTTP", Fault("name", lambda it: it.reply.headers.update({"A b": "c"})), "not valid HTTP"),
]


@pytest.mark.parametrize(("name", "fault", "words"), FAULTS, ids=[fault[0] for fault in FAULTS])
async def test_both_halves_say_the_same_of_a_server(
    origin: FaultyOrigin, name: str, fault: Fault, words: str
) -> None:
    """Who, for how many seconds, and what to do; without secrets."""
    origin.add("/x", b"x" * 5000, always=fault)
    url = origin.url("/x?sig=abc123")
    where = origin.base_url.removeprefix("http://")
    seconds = 0.25 if "0.25 s" in words else 30
    read = httpx.Timeout(10, read=seconds)
    with pytest.raises(httpx.HTTPError) as awaited:
        await fetch_async(url, timeout=read, max_retries=0)
    with pytest.raises(requests.RequestException) as blocking:
        fetch(url, timeout=(10, seconds), max_retries=0)
    errors = [awaited.value, blocking.value]
    if name != "headers":  # which httpx takes
        async with AsyncHttpClient(http2=True) as client:  # which is httpx's own transport
            with pytest.raises(httpx.HTTPError) as plain:
                await fetch_async(url, timeout=read, max_retries=0, client=client)
            errors.append(plain.value)
    for text in map(str, errors):
        assert words.format(where) in text
        assert [inside for inside in (*INSIDES, "abc123") if inside in text] == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("127.0.0.1:{}", "127.0.0.1:{} refused the connection: check host and port, and that"),
        ("localhost:{}", "localhost:{} "),
        ("no-such-host.invalid", "cannot resolve host 'no-such-host.invalid' (DNS: "),
    ],
)
async def test_servers_that_are_not_there_are_named(host: str, words: str, dead_port: int) -> None:
    """As in the URL, and in the words of the system."""
    url = f"http://{host.format(dead_port)}/?sig=abc123"
    with pytest.raises(httpx.ConnectError) as awaited:
        await fetch_async(url, max_retries=0)
    with pytest.raises(requests.ConnectionError) as blocking:
        fetch(url, max_retries=0)
    for text in (str(awaited.value), str(blocking.value)):
        assert text.startswith(words.format(dead_port))
        assert ": check " in text
        assert [inside for inside in (*INSIDES, "abc123") if inside in text] == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_session_of_ones_own_fails_in_the_same_words(method: str, dead_port: int) -> None:
    """Passed as the client, it raises what requests says, secrets and all."""
    url = f"http://127.0.0.1:{dead_port}/?sig=abc123"
    with requests.Session() as session, pytest.raises(requests.ConnectionError) as caught:
        request(method, url, client=wrong(session), max_retries=0)
    words = f"127.0.0.1:{dead_port} refused the connection: check host and port"
    assert str(caught.value).startswith(words)
    for link in error_chain(caught.value, suppressed=True):
        assert "abc123" not in f"{link} {link!r}"


def test_texts_of_failed_connections() -> None:
    """Certificates, TLS, routes, and hosts of several addresses that all failed."""
    untrusted = ssl.SSLCertVerificationError(1, "x")
    untrusted.verify_message = "self-signed certificate"
    assert "not trusted (self-signed certificate): set SSL_CERT_FILE to the CA" in connect_text(
        "a:443", untrusted
    )
    plain = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    plain.reason = "WRONG_VERSION_NUMBER"
    assert connect_text("a:443", plain) == (
        "TLS handshake with a:443 failed (wrong version number): check that this port speaks https"
    )
    assert reason_of(ssl.SSLError(1, "[SSL] PEM lib (_ssl.c:3905)")) == "pem lib"
    assert connect_text("a:80", OSError(errno.ENETUNREACH, "x")) == (
        f"a:80 cannot be reached ({os.strerror(errno.ENETUNREACH)}): check host and port, and the "
        "network between"
    )
    refused = f"[Errno {errno.ECONNREFUSED}] Connect call failed"
    both = OSError(f"Multiple exceptions: {refused}, {refused}")
    assert reason_of(both) == os.strerror(errno.ECONNREFUSED)


async def test_a_lost_answer_gives_no_advice_to_send_again(origin: FaultyOrigin) -> None:
    """The remedy of the cause is for requests that may be repeated; the cause keeps it."""
    origin.add("/x", b"x", always=stall(None))
    lost = r"sent nothing for 0\.25 s\): the server may have acted on it\. Ask"
    with pytest.raises(OutcomeUnknown, match=lost) as awaited:
        await request_async("POST", origin.url("/x"), json={}, timeout=httpx.Timeout(10, read=0.25))
    with pytest.raises(OutcomeUnknown, match=lost):
        request("POST", origin.url("/x"), json={}, timeout=(10, 0.25))
    assert str(awaited.value.cause).endswith(": allow a longer timeout")
    origin.add("/y", b"x", always=stall(None))
    with pytest.raises(OutcomeUnknown, match=r"\(\w+: the deadline passed\): the server may"):
        await request_async("POST", origin.url("/y"), deadline=0.5)
    with pytest.raises(OutcomeUnknown, match=r"\(\w+: the deadline passed\): the server may"):
        request("POST", origin.url("/y"), deadline=0.5)


async def test_retries_say_why(origin: FaultyOrigin, caplog: pytest.LogCaptureFixture) -> None:
    """With the text of the error."""
    origin.add("/x", b"x" * 10, faults=[truncate(5)])
    origin.add("/y", b"x" * 10, faults=[truncate(5)])
    with fast_time(), caplog.at_level(logging.WARNING):
        await fetch_async(origin.url("/x"))
        fetch(origin.url("/y"))
    where = origin.base_url.removeprefix("http://")
    words = f"Error: {where} closed the connection before the whole body had come: its log may say"
    assert [words in record.getMessage() for record in caplog.records] == [True, True]


async def test_downloads_name_the_url_once(
    origin: FaultyOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Most of their errors begin with it."""
    origin.add("/d", b"x" * 10, faults=[truncate(5), hang_up()])
    with fast_time(), caplog.at_level(logging.WARNING):
        await download_asset_async(origin.url("/d"), tmp_path / "d")
    url = origin.url("/d")
    assert [record.getMessage().count(url) for record in caplog.records] == [1, 1]


async def test_a_redirect_to_another_scheme_names_its_target(origin: FaultyOrigin) -> None:
    """And not the URL that was asked for, which is as it should be."""
    origin.add("/x", always=redirect("ftp://files.example/y?sig=abc123"))
    with pytest.raises(requests.exceptions.InvalidSchema, match=r"'ftp://files\.example/y\?sig=<"):
        fetch(origin.url("/x"))
    with pytest.raises(
        httpx.UnsupportedProtocol, match=r"127\.0\.0\.1 redirects to .* 'ftp': only"
    ):
        await fetch_async(origin.url("/x"))


async def test_a_request_that_cannot_be_sent_is_named_and_not_tried_again() -> None:
    """Over plain httpx, which finds that out when it writes."""
    headers = {"Transfer-Encoding": "odd"}
    words = r"^the request to 127\.0\.0\.1:\d+ cannot be sent: .*Transfer-Encoding"
    with FaultyOrigin() as origin, fast_time() as time:
        async with AsyncHttpClient(http2=True, headers=headers) as client:
            with pytest.raises(httpx.LocalProtocolError, match=words):
                await fetch_async(origin.url("/f"), client=client)
    assert time.slept == []


# -- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "'None' of type NoneType is not a URL: pass it as text"),
        (5, "'5' of type int is not a URL: pass it as text"),
        (b"http://a/?sig=abc123", "of type bytes is not a URL: pass it as text"),
        ("http://ho st/", "the host has characters that no host name has): pass it in the form"),
        ("http://a..b/", "the host has an empty part between dots): pass it"),
        (f"http://{'a' * 64}.example/", "the host is too long, which may have 253 characters"),
        ("http://a:0/", "port 0 is not within 1 to 65535): pass it"),
        ("ftp://a/b", "'ftp://a/b' cannot be requested: a URL begins with http:// or https://"),
        ("a.example/b", "'a.example/b' cannot be requested: a URL begins with http:// or https"),
        ("http://exa\nmple/", "'http://exa%0Ample/' is not a URL ("),
    ],
)
async def test_what_is_no_url_is_named(url: object, words: str, tmp_path: Path) -> None:
    """By all who take one, before a connection is made."""
    awaited: list[Call] = [
        lambda: fetch_async(wrong(url)),
        lambda: download_asset_async(wrong(url), tmp_path / "f"),
    ]
    for call in awaited:
        with pytest.raises((httpx.InvalidURL, httpx.UnsupportedProtocol)) as caught:
            await call()
        assert words in str(caught.value)
    with pytest.raises((httpx.InvalidURL, httpx.UnsupportedProtocol)) as posted:
        await request_async("POST", wrong(url), json={})
    assert words in str(posted.value) or "protocol" in str(posted.value)  # in the words of httpx
    with pytest.raises(requests.exceptions.RequestException) as blocking:
        fetch(wrong(url))
    assert words in str(blocking.value)
    assert "abc123" not in f"{blocking.value} {caught.value} {posted.value}"
    assert list(tmp_path.iterdir()) == []


BAD_OPTIONS: list[tuple[str, object, str]] = [
    *(("timeout", value, "a positive number") for value in (0, -1, math.nan, math.inf, "5")),
    *(("delay", value, "must be a number of seconds") for value in (-1, math.nan, math.inf, "5")),
    *(("max_bytes", value, "is not a size: pass bytes") for value in (-1, math.nan, "5")),
    *(("max_retries", value, "must be 0 or more") for value in (-1, "5", None)),
    *(("deadline", value, "must be a positive number") for value in (0, "5")),
    *(("retry_statuses", value, "are not HTTP") for value in (500, "500", ["500"], [[500]])),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD_OPTIONS)
async def test_options_that_make_no_sense_are_refused(
    origin: FaultyOrigin, name: str, value: object, words: str
) -> None:
    """Alike in both halves, before a request is sent."""
    options = wrong({name: value})
    with pytest.raises(ValueError, match=words) as awaited:
        await fetch_async(origin.url("/f"), **options)
    with pytest.raises(ValueError, match=words) as blocking:
        fetch(origin.url("/f"), **options)
    assert str(awaited.value) == str(blocking.value)
    assert f"{name}={value!r}" in str(awaited.value)
    assert ": pass " in str(awaited.value)
    assert origin.requests == []


@pytest.mark.parametrize("headers", ["A: b", ["A: b"], [("A", "b")], 5])
async def test_headers_are_a_mapping(origin: FaultyOrigin, headers: object) -> None:
    """Their value is not repeated: it may be a secret."""
    for call in (fetch_async, fetch):
        with pytest.raises(InvalidRequestError, match="are not a mapping: pass one of names to v"):
            result: Any = call(origin.url("/f"), headers=wrong(headers))
            await result


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": "5"}, {"content-length": b"12"}, {"Transfer-Encoding": "chunked"}],
)
async def test_headers_announce_no_body_that_is_not_there(
    origin: FaultyOrigin, tmp_path: Path, headers: Any
) -> None:
    """A server would wait for it until the timeout; with a body, and as 0, they are fine."""
    url, words = origin.url("/f"), "announces a body, and the request has none: leave the header ou"
    for method in ("GET", "POST", "DELETE"):
        with pytest.raises(InvalidRequestError, match=words):
            await request_async(method, url, headers=headers, params={"a": "b"})
        with pytest.raises(InvalidRequestError, match=words):
            request(method, url, headers=headers)
        with pytest.raises(InvalidRequestError, match=words):
            async with stream_async(method, url, headers=headers):
                pass
        with pytest.raises(InvalidRequestError, match=words), stream(method, url, headers=headers):
            pass
    with pytest.raises(InvalidRequestError, match=words):
        await AssetDownloadClient().download(url, tmp_path / "f", headers=headers)
    assert origin.requests == []
    for body in (b"12345", None):
        length = {"Content-Length": str(len(body or b""))}
        answer = await request_async("POST", url, headers=length, content=body)
        assert answer.status_code == 200
        assert request("POST", url, headers=length, content=body).status_code == 200


async def test_clients_of_other_libraries_are_refused(origin: FaultyOrigin) -> None:
    """With the class to pass."""
    words = "is not an asynchronous HTTP client: pass an AsyncHttpClient or an httpx.AsyncClient"
    async with httpx.AsyncClient() as client:
        for other in (5, requests.Session(), httpx.Client):
            with pytest.raises(InvalidRequestError, match=words):
                await fetch_async(origin.url("/f"), client=wrong(other))
            with pytest.raises(InvalidRequestError, match=words):
                async with stream_async("GET", origin.url("/f"), client=wrong(other)):
                    pass
        for foreign in (client, AsyncHttpClient(), 5):
            with pytest.raises(InvalidRequestError, match="pass a RequestsHttpClient"):
                fetch(origin.url("/f"), client=wrong(foreign))
        with (
            pytest.raises(InvalidRequestError, match="pass a RequestsHttpClient"),
            stream("GET", origin.url("/f"), client=wrong(client)),
        ):
            pass


async def test_parts_of_a_request_are_checked(origin: FaultyOrigin) -> None:
    """Queries, bodies and timeouts of the wrong half."""
    with pytest.raises(InvalidRequestError, match="params of type int are not a query: pass a ma"):
        await request_async("GET", origin.url("/f"), params=wrong(5))
    with pytest.raises(InvalidRequestError, match="params of type int are not a query: pass a ma"):
        request("GET", origin.url("/f"), params=wrong(5))
    for odd in (("page", "2"), ["page=2"], [("page",)]):
        with pytest.raises(InvalidRequestError, match="not a pair of name and value"):
            await request_async("GET", origin.url("/f"), params=wrong(odd))
        with pytest.raises(InvalidRequestError, match="not a pair of name and value"):
            request("GET", origin.url("/f"), params=wrong(odd))
    with pytest.raises(InvalidRequestError, match="cannot be a file or a plain iterator: pass by"):
        await request_async("POST", origin.url("/f"), content=iter([b"x"]))
    with pytest.raises(InvalidRequestError, match="is for asynchronous requests: pass seconds"):
        fetch(origin.url("/f"), timeout=wrong(httpx.Timeout(3)))
    with pytest.raises(InvalidRequestError, match=r"timeout=\(1, 2, 3\) must be a positive number"):
        fetch(origin.url("/f"), timeout=wrong((1, 2, 3)))
    assert origin.requests == []


def test_an_endless_deadline_is_none(origin: FaultyOrigin) -> None:
    """It once ended a timer thread with an OverflowError."""
    assert len(fetch(origin.url("/f"), deadline=math.inf)) == 5000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_per_host": "5"}, "max_per_host='5' lets no request through: pass a whole number"),
        ({"max_per_host": 1.5}, "max_per_host=1.5 lets no request through"),
        ({"max_per_second_per_host": "5"}, "max_per_second_per_host='5' lets no request through"),
        ({"limits": 5}, "limits=5 are not httpx.Limits: pass httpx.Limits"),
        ({"limits": httpx.Limits(max_connections=0)}, "max_connections=0 lets no request through"),
    ],
)
def test_clients_that_would_let_nothing_through_are_refused(
    options: dict[str, Any], words: str
) -> None:
    """At construction: without a connection in the pool a request once waited for ever."""
    with pytest.raises(InvalidRequestError) as caught:
        AsyncHttpClient(**options)
    assert words in str(caught.value)


async def test_other_settings_of_a_client_are_named(dead_port: int, tmp_path: Path) -> None:
    """OpenSSL names neither the file nor what is wrong with it."""
    text = tmp_path / "no.pem"
    text.write_text("nothing")
    url = f"https://127.0.0.1:{dead_port}/"
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"verify": str(text)}, OSError, f"verify='{text}' cannot be read as PEM ("),
        ({"cert": str(text)}, OSError, f"cert='{text}' cannot be read as PEM ("),
        ({"cert": "/no/such.pem"}, OSError, "cert='/no/such.pem' does not exist: pass the path"),
        ({"verify": 5}, ValueError, "verify=5 says nothing about certificates: pass True"),
        ({"headers": {"A": "ü"}}, ValueError, "headers= of the client cannot be sent ("),
    ]
    for options, kind, words in cases:
        client = AsyncHttpClient(**options)
        with pytest.raises(kind) as caught:
            await fetch_async(url, client=client, max_retries=0)
        assert words in str(caught.value)
        await client.close()
    with pytest.raises(InvalidRequestError, match="session_factory of type int cannot be called"):
        RequestsHttpClient(session_factory=wrong(5))


def test_joining_takes_text_alone() -> None:
    """A number is the usual mistake."""
    with pytest.raises(InvalidRequestError, match="'7' of type int is not part of a URL: pass"):
        absolute_url("https://a.example", "runs", wrong(7))


# -- downloads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": "5"}, "timeout='5' makes no sense: pass seconds above 0"),
        ({"timeout": math.inf}, "timeout=inf makes no sense: pass seconds above 0"),
        ({"max_bytes": -1}, "max_bytes=-1 makes no sense: pass bytes, 0 or more"),
        ({"min_speed": math.nan}, "min_speed=nan makes no sense: pass bytes per second, 0"),
        ({"connections": 1.5}, "connections=1.5: pass 1 to 64"),
        ({"progress": 5}, "progress of type int cannot be called: pass a function"),
        ({"expected_checksum": b"x"}, "the checksum b'x' is not text; write it as"),
        ({"dest_path": None}, "dest_path=None names no file: pass the path of one to write"),
        ({"dest_path": ""}, "dest_path='' names no file"),
        ({"dest_path": "a\0b"}, "dest_path='a\\x00b' names no file"),
    ],
)
async def test_downloads_check_their_arguments(
    origin: FaultyOrigin, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    """Refused before a file or a request is made."""
    with pytest.raises(ValueError) as caught:
        await download_asset_async(origin.url("/f"), **{"dest_path": tmp_path / "f", **options})
    assert words in str(caught.value)
    assert origin.requests == []
    assert list(tmp_path.iterdir()) == []


async def test_batches_check_theirs(origin: FaultyOrigin, tmp_path: Path) -> None:
    """What is wrong for all items is said once, and not once per item."""
    item = (origin.url("/f"), tmp_path / "f")
    with pytest.raises(InvalidRequestError, match="concurrency='5': pass 1 or more downloads"):
        await download_many_async([item], concurrency=wrong("5"))
    with pytest.raises(InvalidRequestError, match="items of type NoneType are not downloads: pass"):
        await download_many_async(wrong(None))
    with pytest.raises(TypeError, match=r"download_many\(\): got an unexpected .* 'no_such'; see"):
        await download_many_async([item], no_such=1)
    with pytest.raises(
        InvalidRequestError, match=r"the item 'http://.*sig=<redacted>' is not a downl"
    ):
        await download_many_async([wrong(origin.url("/f?sig=abc123"))])
    with pytest.raises(InvalidRequestError, match="timeout=None makes no sense: pass seconds"):
        AssetDownloadClient(timeout=wrong(None))


async def test_a_folder_that_is_a_file_is_named_by_the_path_asked_for(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """And not by the name of a file that only we know of."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        DownloadDiskError, match="a part of the path is a file; choose an"
    ) as caught:
        await download_asset_async(origin.url("/f"), tmp_path / "file" / "f")
    assert ".part" not in str(caught.value)


async def test_a_slow_server_is_shown_in_numbers(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Neither "0 s" nor an exponent."""
    origin.add("/s", b"x" * 5000, always=slow(5000))
    with pytest.raises(httpx.ReadTimeout, match=r"in 0\.\d+ s, below min_speed=10000000 bytes"):
        await download_asset_async(
            origin.url("/s"), tmp_path / "s", timeout=0.6, min_speed=1e7, max_retries=0
        )


def test_the_faulty_origin_names_paths() -> None:
    """That were not added, or that are none."""
    with FaultyOrigin() as server:
        with pytest.raises(KeyError, match=r"nothing at '/f': call add\(\) with that path first"):
            server.script("/f", hang_up())
        with pytest.raises(ValueError, match="must begin with a slash: write '/f'"):
            server.url("f")
