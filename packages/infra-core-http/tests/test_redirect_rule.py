"""The next request after a redirect: RFC 9110, section 15.4, as a pure function."""

from http.cookiejar import CookieJar

import httpx
import pytest
from hypothesis import given, strategies as st

from infra_core.http._response.redirect import (
    REDIRECT_STATUSES,
    BadRedirect,
    is_redirect,
    next_request,
    redirected_method,
)
from infra_core.http.engine._target import origin_of

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BASE = "http://a.example/dir/page?q=1#frag"
USUAL = "http://a.example/dir/page?q=1"  # without what keeps it from being read in the short way


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("status", sorted(REDIRECT_STATUSES))
def test_methods(method: str, status: int) -> None:
    """303 asks for a GET, 301 and 302 turn a POST into one, nothing else changes."""
    expected = method
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        expected = "GET"
    assert redirected_method(method, status) == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("status", sorted(REDIRECT_STATUSES))
def test_the_body_and_its_headers_stay_together(method: str, status: int) -> None:
    """A request that carries none has no header that speaks of one."""
    headers = [
        ("Content-Type", "text/plain"),
        ("content-encoding", "gzip"),
        ("Content-Length", "4"),
        ("Transfer-Encoding", "chunked"),
        ("Expect", "100-continue"),
        ("X-Trace", "t"),
    ]
    following = next_request(method, BASE, headers, status=status, location=b"/next")
    names = [name for name, _ in following.headers]
    if following.keeps_body:
        assert following.method == method
        assert names == ["Content-Type", "content-encoding", "Expect", "X-Trace"]
    else:
        assert following.method in ("GET", "HEAD")
        assert names == ["X-Trace"]


@pytest.mark.parametrize(
    ("location", "url"),
    [
        (b"/next", "http://a.example/next#frag"),
        (b"next", "http://a.example/dir/next#frag"),
        (b"?x=2", "http://a.example/dir/page?x=2#frag"),
        (b"#other", "http://a.example/dir/page?q=1#other"),
        (b"//b.example/x", "http://b.example/x#frag"),
        (b"HTTP://B.EXAMPLE/x", "http://b.example/x#frag"),
        (b"http://b.example", "http://b.example/#frag"),
        (b"http://b.example?x", "http://b.example/?x#frag"),
        (b"http://user:pw@b.example/x", "http://b.example/x#frag"),
        (b"  /next\t", "http://a.example/next#frag"),
        (b"/a b", "http://a.example/a%20b#frag"),
        (b"/100%25", "http://a.example/100%25#frag"),
        (b"/caf\xe9", "http://a.example/caf%E9#frag"),
        ("/龍".encode(), "http://a.example/%E9%BE%8D#frag"),
        (b"/x?q=\xfcber", "http://a.example/x?q=%FCber#frag"),
        ("http://münchen.example/ü".encode(), "http://xn--mnchen-3ya.example/%C3%BC#frag"),
        (b"/to?next=http://b.example/", "http://a.example/to?next=http://b.example/#frag"),
        (b"/a//b", "http://a.example/a//b#frag"),
        (b"/a:b", "http://a.example/a:b#frag"),
        (b"http://[::1]:8080/x", "http://[::1]:8080/x#frag"),
    ],
)
def test_where_a_location_leads(location: bytes, url: str) -> None:
    """Relative to the request, bytes beyond ASCII as they came, no user info, the fragment kept."""
    found = httpx.URL(next_request("GET", BASE, [], status=302, location=location).url)
    expected = httpx.URL(url)
    assert found.scheme == expected.scheme
    assert found.raw_host == expected.raw_host
    assert found.raw_path == expected.raw_path
    assert found.fragment == expected.fragment
    assert not found.userinfo
    usual = next_request("GET", USUAL, [], status=302, location=location)
    again = httpx.URL(usual.url)
    assert (origin_of(again), again.raw_path) == (origin_of(found), found.raw_path)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (b"ftp://b.example/", "scheme"),
        (b"javascript:alert(1)", "scheme"),
        (b"mailto:a@b.example", "scheme"),
        (b"file:///etc/passwd", "scheme"),
        (b"http:///path", "host"),
        (b"https://", "host"),
        (b"http:path", "host"),
        (b"///path", "host"),
        (b"http://:80/", "host"),
        (b"http://user@/", "host"),
        (b"http://h:99999/", "url"),
        (b"http://h:0/", "url"),
        (b"http://h:x/", "url"),
        (b"http://[::1/", "url"),
        (b"http://a..b/", "url"),
        (b"http://a\\@b/", "url"),
        (b"//a\\b/", "url"),
        (b"http://\xff\xfe/", "url"),
    ],
)
def test_locations_that_cannot_be_followed(location: bytes, reason: str) -> None:
    """Each says which server sent what, and which rule it breaks."""
    for base in (BASE, USUAL):
        with pytest.raises(BadRedirect, match=r"^a\.example redirects to ") as caught:
            next_request("GET", base, [], status=302, location=location)
        assert caught.value.reason == reason
        if reason == "host":
            assert "a URL without a host" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "location", "followed"),
    [(302, b"/x", True), (302, None, False), (302, b" ", False), (300, b"/x", False)],
)
def test_what_is_a_redirect(status: int, location: bytes | None, *, followed: bool) -> None:
    """Five statuses with a Location that is not blank."""
    assert is_redirect(status, location) is followed


@given(st.binary(max_size=60).filter(lambda raw: b"\r" not in raw and b"\n" not in raw))
def test_any_location_is_followed_or_refused(location: bytes) -> None:
    """Whatever a server sends: a request line in ASCII, or our error."""
    try:
        url = httpx.URL(next_request("GET", BASE, [], status=302, location=location).url)
    except BadRedirect:
        return
    assert url.scheme in ("http", "https")
    assert url.host
    assert all(0x21 <= byte < 0x7F for byte in url.raw_path)
    usual = httpx.URL(next_request("GET", USUAL, [], status=302, location=location).url)
    assert (origin_of(usual), usual.raw_path) == (origin_of(url), url.raw_path)


@pytest.mark.parametrize(
    ("base", "target", "sent"),
    [
        ("http://h.example/", "https://h.example/", {"X-Key": "h", "Authorization": "h.example"}),
        ("https://h.example/", "http://h.example/", {}),
        ("https://h.example/", "http://i.example/", {}),
        ("https://h.example/", "https://i.example/", {"X-Key": "i", "Authorization": "i.example"}),
    ],
)
def test_what_belongs_to_a_host_is_sent_nowhere_else_nor_in_the_clear(
    base: str, target: str, sent: dict[str, str]
) -> None:
    """A redirect from https to http shows it to everybody on the way."""
    following = next_request(
        "GET",
        base,
        [("X-Key", "h"), ("Authorization", "mine")],
        status=302,
        location=target.encode(),
        jar=CookieJar(),
        login=lambda host: host,
        headers_of=lambda url: {"X-Key": url.partition("//")[2][0]},
    )
    assert dict(following.headers) == sent
