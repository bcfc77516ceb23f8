"""One URL is asked for in one form, whichever way it travels."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import responses

from infra_core.http import (
    AsyncHttpClient,
    RequestsHttpClient,
    fetch,
    fetch_async,
    request,
    request_async,
)
from infra_core.http.engine._target import target_of
from infra_core.http.testing import FaultyOrigin, redirect

Get = Callable[..., str]
EMOJI = "xn--mn8ha4uc.test"


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyOrigin]:
    found = socket.getaddrinfo

    def here(host: Any, *args: Any, **options: Any) -> Any:
        return found("127.0.0.1" if ".test" in str(host) else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with FaultyOrigin(strict=False) as server:
        yield server


def target(origin: FaultyOrigin) -> str:
    return origin.requests[-1].path


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("/a%2f%2F", "/a%2f%2F"),
        ("/%7e%41", "/%7e%41"),
        ("/a/%2e%2e/b", "/a/%2e%2e/b"),
        ("/a/../b", "/b"),
        ("/100%", "/100%"),
        ("/a b", "/a%20b"),
        ("/\u00e9", "/%C3%A9"),
        ("/x?a[]=1&b={2}|^", "/x?a[]=1&b={2}|^"),
        ("/x?sig=a%2bb%3d&u=http://h/p?q", "/x?sig=a%2bb%3d&u=http://h/p?q"),
        ("/x#part", "/x"),
        ("/a\\b?c=\\", "/a\\b?c=\\"),
    ],
)
def test_what_is_encoded_stays_as_it_is(
    origin: FaultyOrigin, get: Get, given: str, sent: str
) -> None:
    """A signature holds for one spelling, and `%2e%2e` is no way out of a folder."""
    origin.add(sent.partition("?")[0], b"x")
    get(origin.url("/")[:-1] + given)
    assert target(origin) == sent


def test_a_url_of_httpx_is_taken_too(origin: FaultyOrigin) -> None:
    """By both halves, with a body and without, as in 0.7."""
    url: Any = httpx.URL(origin.url("/x?a=1"))

    async def work() -> None:
        await fetch_async(url)
        await request_async("POST", url, json={})
        async with AsyncHttpClient(http2=True) as client:
            await fetch_async(url, client=client)

    origin.add("/x", b"x")
    asyncio.run(work())
    fetch(url)
    request("POST", url, json={})
    assert [each.path for each in origin.requests] == ["/x?a=1"] * 5


def test_parameters_leave_the_url_as_it_is(origin: FaultyOrigin) -> None:
    """Also where requests prepares the request, and signs it."""
    origin.add("/a%2f", b"x")
    url = origin.url("/a%2f") + "?s=%2b#part"
    signed = []

    def sign(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        signed.append(prepared.path_url)
        return prepared

    def stock() -> requests.Session:
        session = requests.Session()
        session.params = {"k": "v"}
        return session

    assert request("GET", url, params={"p": "a b"}).url == origin.url("/a%2f") + "?s=%2b&p=a+b#part"
    assert target(origin) == "/a%2f?s=%2b&p=a+b"
    with RequestsHttpClient(session_factory=stock) as client:
        client.request("GET", url, headers={}, params={"p": "1"}, auth=sign)
        assert signed == [target(origin)] == ["/a%2f?s=%2b&k=v&p=1"]
        client.request("GET", url, headers={}, auth=("me", "too"))
        assert target(origin) == "/a%2f?s=%2b&k=v"
        assert origin.requests[-1].headers["authorization"] == "Basic bWU6dG9v"
    request("POST", url, json={})
    assert target(origin) == "/a%2f?s=%2b"


@pytest.mark.parametrize(
    ("login", "sent"),
    [("t0k3n@", "dDBrM246"), ("t0k3n:@", "dDBrM246"), (":pw@", "OnB3"), ("u:p%40@", "dTpwQA==")],
)
def test_credentials_of_a_url_are_sent(
    origin: FaultyOrigin, get: Get, login: str, sent: str
) -> None:
    """A token as a user without a password is how many services take it."""
    origin.add("/page", b"x")
    get(origin.url("/page").replace("://", f"://{login}"))
    assert origin.requests[-1].headers["authorization"] == f"Basic {sent}"


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.1", "0x7f000001"])
def test_an_address_in_any_spelling_is_that_address(
    origin: FaultyOrigin, get: Get, host: str
) -> None:
    origin.add("/page", b"x")
    origin.add("/away", faults=[redirect(origin.url("/page").replace("127.0.0.1", host))])
    get(origin.url("/page").replace("127.0.0.1", host))
    assert get(origin.url("/away")) == "x"


@pytest.mark.parametrize("zone", ["%251", "%1"])
def test_the_zone_of_an_address_is_for_this_machine(get: Get, zone: str) -> None:
    """Link-local addresses are of no use without (RFC 6874); the loopback one takes a number."""
    try:
        server = FaultyOrigin(host="::1").__enter__()
    except OSError:
        pytest.skip("no IPv6 here")
    try:
        server.add("/page", b"x")
        assert get(server.url("/page").replace("[::1]", f"[::1{zone}]")) == "x"
    finally:
        server.__exit__(None, None, None)


@pytest.mark.parametrize("url", ["http://[fe80::1%25lo]:8000/a", "http://[2001:db8:0:0::1]/a"])
def test_an_address_of_ipv6_stays_as_it_is_written(url: str) -> None:
    """Without its zone it is that of another machine."""
    assert target_of(url).text == url


def test_a_name_with_emoji_is_asked_or_refused_in_plain_words(origin: FaultyOrigin) -> None:
    """Such names exist and httpx cannot hold them: its error would be one of no library's root."""
    origin.add("/page", b"x")
    url = origin.url("/page").replace("127.0.0.1", EMOJI)
    origin.add("/away", faults=[redirect(url)] * 2)
    assert fetch(url) == fetch(origin.url("/away")) == "x"
    for client in (None, httpx.AsyncClient(trust_env=False)):
        with pytest.raises(httpx.InvalidURL, match=r"cannot read .*: request it with fetch"):
            asyncio.run(fetch_async(url, client=client))
    with pytest.raises(httpx.RemoteProtocolError, match="redirects to no URL"):
        asyncio.run(fetch_async(origin.url("/away"), max_retries=0))


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://h.test", "http://h.test/"),
        ("http://h.test?x=1", "http://h.test/?x=1"),
        ("http://h.test?u=//b", "http://h.test/?u=//b"),
        ("http://h.test#part", "http://h.test/#part"),
        ("http://t0k3n@h.test", "http://t0k3n@h.test/"),
        ("http://h.test/x?u=http://b", "http://h.test/x?u=http://b"),
        ("http://h.test:80/a", "http://h.test:80/a"),
        ("https://h.test:443/a?b=1", "https://h.test:443/a?b=1"),
    ],
)
def test_mocks_find_what_requests_would_ask_for(given: str, asked: str) -> None:
    """They compare URLs as texts, and so do users with `response.url`."""
    with responses.RequestsMock() as mocked:
        mocked.add("GET", given, body=b"x")
        answer = request("GET", given, max_retries=0)
        assert (answer.text, answer.url) == ("x", mocked.calls[0].request.url)
        assert answer.url == asked


@pytest.mark.parametrize(
    ("given", "sent"),
    [("/p", "/p?q=1"), ("/p?", "/p?q=1"), ("/p?a", "/p?a&q=1"), ("/p?a=b?", "/p?a=b?&q=1")],
)
def test_parameters_follow_what_the_url_has(origin: FaultyOrigin, given: str, sent: str) -> None:
    origin.add("/p", b"x")
    request("GET", origin.url("/")[:-1] + given, params={"q": "1"})
    assert target(origin) == sent
