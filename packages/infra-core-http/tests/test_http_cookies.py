"""Cookies: kept by a client within the bounds of browsers, at full speed for hosts without any."""

from collections.abc import Iterator
from http.cookiejar import CookieJar
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies as st

from infra_core.http import (
    AssetDownloadClient,
    AsyncHttpClient,
    RequestsHttpClient,
    fetch_async,
    request,
    request_async,
)
from infra_core.http._async_client import manager_of
from infra_core.http._cookies import (
    IN_ALL,
    MAX_HEADER,
    PER_DOMAIN,
    BoundedCookieJar,
    cookie_header,
    keep_cookies,
)
from infra_core.http.engine._target import target_of
from infra_core.http.testing import Exchange, Fault, FaultyOrigin, redirect

_numbers = count()


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        running.add("/page", b"page")
        yield running


def _setting(value: str = "x" * 60) -> Fault:
    def change(exchange: Exchange) -> None:
        exchange.reply.headers["Set-Cookie"] = f"seen_{next(_numbers)}={value}; Path=/"

    return Fault("a new cookie", change)


def _header(jar: BoundedCookieJar, url: str) -> str | None:
    return cookie_header(jar, str(httpx.URL(url)))


def _keep(jar: CookieJar, url: str, *cookies: str) -> None:
    headers = [(b"Set-Cookie", cookie.encode()) for cookie in cookies]
    keep_cookies(jar, httpx.Request("GET", url), 200, headers)


@pytest.mark.parametrize(
    ("url", "cookie", "kept"),
    [
        ("https://h.example/", "__Host-a=1; Secure; Path=/", True),
        ("https://h.example/", "__Host-a=1; Path=/", False),
        ("https://h.example/", "__host-a=1; Secure; Path=/x", False),
        ("https://h.example/", "__Host-a=1; Secure; Path=/; Domain=h.example", False),
        ("https://h.example/", "__Secure-a=1; Secure", True),
        ("https://h.example/", "__Secure-a=1", False),
        ("https://127.0.0.1/", "a=1; Domain=0.0.1", False),
        ("https://127.0.0.1/", "a=1; Domain=127.0.0.1", True),
        ("https://web.service.dc1/", "a=1; Domain=service.dc1", True),
    ],
)
def test_a_cookie_is_what_its_name_and_domain_say(url: str, cookie: str, *, kept: bool) -> None:
    """As in browsers; no address sets cookies for another one."""
    jar = BoundedCookieJar()
    _keep(jar, url, cookie)
    assert _header(jar, "https://10.0.0.1/") is None
    assert _header(jar, url) == (cookie.partition(";")[0] if kept else None)


async def test_a_crawl_of_one_site_never_outgrows_a_header(origin: FaultyOrigin) -> None:
    """Each page sets another cookie; the oldest go, the newest are sent."""
    origin.add("/page", b"page", always=_setting())
    client = AsyncHttpClient()
    for _ in range(200):
        await fetch_async(origin.url("/page"), client=client)
    assert all(len(r.headers.get("Cookie", "")) <= MAX_HEADER for r in origin.requests)
    newest = origin.requests[-1].headers["Cookie"]
    assert f"seen_{next(_numbers) - 2}=" in newest
    assert len((await client.get_client()).cookies) <= PER_DOMAIN
    await client.close()


async def test_a_failure_after_a_cookie_beyond_ascii_is_that_of_the_connection(
    origin: FaultyOrigin,
) -> None:
    """The error holds the request, and with it what a server had set for its host."""
    origin.add("/login", b"in", headers={"Set-Cookie": "name=\x80; Path=/"})
    async with AsyncHttpClient() as client:
        await fetch_async(origin.url("/login"), client=client)
        with pytest.raises(httpx.ConnectError):
            await fetch_async("http://127.0.0.1:1/", client=client, max_retries=0)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_answer_has_the_cookies_that_came_with_it(
    origin: FaultyOrigin, method: str
) -> None:
    """Users read a session's id there. Not those of a redirect before it, which has its own."""
    headers = {"Set-Cookie": "a=1; Path=/", "Location": "/login"}
    origin.add("/moved", b"", status=307, headers=headers)
    origin.add("/login", b"in", headers={"Set-Cookie": "session=1; Path=/"})
    blocking = request(method, origin.url("/moved"))
    awaited = await request_async(method, origin.url("/moved"))
    for answer in (blocking, awaited):
        assert [dict(each.cookies) for each in (*answer.history, answer)] == [
            {"a": "1"},
            {"session": "1"},
        ]


async def test_hosts_with_and_without_cookies_stay_on_the_engine(origin: FaultyOrigin) -> None:
    """One cookie of any host once switched the fast way off for all."""
    origin.add("/login", b"in", headers={"Set-Cookie": "session=1; Path=/"})
    client = AsyncHttpClient()
    await fetch_async(origin.url("/login"), client=client)
    assert (await manager_of(client)._here()).direct_engine() is not None
    await fetch_async(origin.url("/page"), client=client)
    assert origin.requests[-1].headers["Cookie"] == "session=1"
    await request_async("POST", origin.url("/page"), json={}, client=client)
    assert origin.requests[-1].headers["Cookie"] == "session=1"
    await client.close()


async def test_a_cookie_given_by_hand_follows_within_its_origin(origin: FaultyOrigin) -> None:
    """With what the redirect sets; and stays behind on the way to another origin."""
    origin.add("/hop", b"", always=redirect("/page") & _setting("new"))
    with FaultyOrigin() as other:
        other.add("/page", b"other")
        origin.add("/away", b"", always=redirect(other.url("/page")))
        for method in ("GET", "POST"):
            headers = {"Cookie": "mine=1"}
            client = AsyncHttpClient()
            await request_async(method, origin.url("/hop"), headers=headers, client=client)
            sent = origin.requests[-1].headers["Cookie"].split("; ")
            assert "mine=1" in sent
            assert any(pair.endswith("=new") for pair in sent)
            await request_async(method, origin.url("/away"), headers=headers, client=client)
            assert "mine=1" not in other.requests[-1].headers.get("Cookie", "")
            await client.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_cookie_that_a_redirect_removes_is_not_sent_again(
    origin: FaultyOrigin, method: str
) -> None:
    """As at the end of a session; a server that saw it again would redirect for ever."""

    def remove(exchange: Exchange) -> None:
        exchange.reply.headers["Set-Cookie"] = "session=; Path=/; Max-Age=0"

    origin.add("/login", b"in", headers={"Set-Cookie": "session=1; Path=/"})
    origin.add("/logout", b"", always=redirect("/page") & Fault("no cookie any more", remove))
    body: dict[str, Any] = {"json": {}} if method == "POST" else {}  # goes another way
    client = AsyncHttpClient()
    await fetch_async(origin.url("/login"), client=client)
    await request_async(method, origin.url("/logout"), client=client, **body)
    assert origin.requests[-2].headers["Cookie"] == "session=1"
    assert "Cookie" not in origin.requests[-1].headers
    await client.close()
    with RequestsHttpClient() as blocking:
        request("GET", origin.url("/login"), client=blocking)
        request(method, origin.url("/logout"), client=blocking, **body)
    assert origin.requests[-2].headers["Cookie"] == "session=1"
    assert "Cookie" not in origin.requests[-1].headers


async def test_downloads_keep_cookies_within_one_chain(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The next download knows nothing of them."""
    origin.add("/hop", b"", always=redirect("/page") & _setting())
    async with AssetDownloadClient(max_retries=0) as client:
        await client.download(origin.url("/hop"), tmp_path / "a")
        assert "Cookie" in origin.requests[-1].headers
        await client.download(origin.url("/page"), tmp_path / "b")
        assert "Cookie" not in origin.requests[-1].headers


async def test_cookies_set_later_count_too(origin: FaultyOrigin) -> None:
    """On the client of httpx, as in 0.7; a jar of the caller's stays the caller's."""
    client = AsyncHttpClient()
    http = await client.get_client()
    http.cookies = {"later": "yes"}
    await fetch_async(origin.url("/page"), client=client)
    assert origin.requests[-1].headers["Cookie"] == "later=yes"
    await client.close()
    mine = CookieJar()
    client = AsyncHttpClient(cookies=mine)
    origin.add("/login", b"in", headers={"Set-Cookie": "session=1; Path=/"})
    await fetch_async(origin.url("/login"), client=client)
    assert [cookie.name for cookie in mine] == ["session"]
    await client.close()


def test_the_oldest_of_a_domain_go_first() -> None:
    """And the oldest of all, when there are too many in all; a cookie set again is new."""
    jar = BoundedCookieJar()
    for number in range(PER_DOMAIN + 1):
        _keep(jar, "http://a.example/", f"c{number}=1")
        _keep(jar, "http://a.example/", "kept=1")
    names = {cookie.name for cookie in jar}
    assert len(names) == PER_DOMAIN
    assert {"kept", f"c{PER_DOMAIN}"} <= names
    assert "c0" not in names
    for number in range(IN_ALL + 5):
        _keep(jar, f"http://h{number}.example/", "c=1")
    assert len(jar) == IN_ALL
    assert not jar.may_have("http://a.example/")


def test_a_cookie_that_is_set_again_is_the_newest() -> None:
    """It does not go before those that were set in between."""
    jar = BoundedCookieJar()
    for name in ("kept", *(f"c{number}" for number in range(PER_DOMAIN - 1)), "kept", "more"):
        _keep(jar, "http://a.example/", f"{name}=1")
    names = {cookie.name for cookie in jar}
    assert len(names) == PER_DOMAIN
    assert {"kept", "more", "c1"} <= names


def test_expired_cookies_go() -> None:
    """Those that a server ends, and those whose time is over."""
    jar = BoundedCookieJar()
    _keep(jar, "http://a.example/", "a=1", "b=2; Max-Age=0", "c=3; Max-Age=100")
    assert sorted(cookie.name for cookie in jar) == ["a", "c"]
    _keep(jar, "http://a.example/", "a=; Max-Age=0")
    assert _header(jar, "http://a.example/") == "c=3"
    jar.clear()
    assert not jar.may_have("http://a.example/")


@pytest.mark.parametrize(
    ("set_by", "asked", "sent"),
    [
        ("http://a.example/", "http://a.example/x", True),
        ("http://a.example/", "http://b.example/", False),
        ("http://a.example/", "http://sub.a.example/", False),
        ("http://localhost/", "http://localhost/", True),
        ("http://127.0.0.1/", "http://127.0.0.1:8080/", True),
        ("http://[::1]/", "http://[::1]/", True),
    ],
)
def test_where_cookies_belong(set_by: str, asked: str, *, sent: bool) -> None:
    """To their host alone, where they name no domain."""
    jar = BoundedCookieJar()
    _keep(jar, set_by, "c=1")
    assert (_header(jar, asked) == "c=1") is sent
    _keep(jar, "http://sub.a.example/", "d=2; Domain=a.example")  # the jar is asked in earnest
    assert ("c=1" in (_header(jar, asked) or "")) is sent


async def test_a_cookie_without_a_domain_goes_to_every_host(origin: FaultyOrigin) -> None:
    """Given by the caller as a mapping, as httpx takes it."""
    async with AsyncHttpClient(cookies={"c": "1"}) as client:
        await request_async("GET", origin.url("/page"), client=client)
    assert origin.requests[-1].headers["Cookie"] == "c=1"


def test_cookies_of_a_domain_are_sent_to_its_hosts() -> None:
    """`Domain=` widens where they go."""
    jar = BoundedCookieJar()
    _keep(jar, "http://www.site.example/", "c=1; Domain=site.example")
    for host in ("site.example", "a.b.site.example"):
        assert _header(jar, f"http://{host}/") == "c=1"
    assert _header(jar, "http://othersite.example/") is None


def test_what_cannot_be_sent_is_left_out() -> None:
    """A server may set control characters; a request with them would be refused."""
    jar = BoundedCookieJar()
    _keep(jar, "http://a.example/", "a=1", "b=\x1b[0m")
    assert _header(jar, "http://a.example/") == "a=1"


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.integers(0, 5000))))
def test_no_header_is_too_long(cookies: list[tuple[str, int]]) -> None:
    """Whatever a server sets."""
    jar = BoundedCookieJar()
    for name, size in cookies:
        _keep(jar, "http://a.example/", f"{name}={'v' * size}")
    header = _header(jar, "http://a.example/")
    assert header is None or len(header) <= MAX_HEADER


def test_a_host_in_another_script_gets_its_cookies_back() -> None:
    """The jar knows it in ASCII, as it goes over the wire."""
    jar = BoundedCookieJar()
    _keep(jar, "http://m\u00fcnchen.example/", "a=1")
    assert _header(jar, "http://m\u00fcnchen.example/") == "a=1"
    assert cookie_header(jar, target_of("http://m\u00fcnchen.example/").text) == "a=1"
