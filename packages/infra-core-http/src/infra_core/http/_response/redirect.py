"""The next request after a redirect (RFC 9110, section 15.4): pure, one rule for every way.

The code that sends requests asks `next_request` with what was sent and what was answered, and gets
the request to send next. `TooManyRedirects` is the sender's part.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from http.cookiejar import CookieJar
from typing import NamedTuple
from urllib.parse import quote, urljoin

import httpx

from infra_core.runtime import sanitize_url

from .._cookies import cookie_header_after
from .._headers import survives_redirect
from .._urls import plain_url
from ..engine._target import Origin, check_place, origin_of, target_of

__all__ = [
    "MAX_REDIRECTS",
    "REDIRECT_STATUSES",
    "BadRedirect",
    "NextRequest",
    "is_redirect",
    "location_of",
    "next_request",
    "redirected_method",
]

MAX_REDIRECTS = 20
"""Redirects that one call follows unless its client says otherwise; one more is an error."""

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
"""Statuses whose `Location` is followed. 300, 304, 305 and 306 are answers like any other."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
# Says what the body is, so it goes when the body goes. RFC 9110, section 15.4, step 4.
_OF_THE_BODY = re.compile(
    r"content-.*|transfer-encoding|trailer|expect|digest|repr-digest|want-.*digest", re.IGNORECASE
)
# Made anew by the sender: where to, and how long the body is.
_OF_THE_MESSAGE = frozenset({"host", "content-length", "transfer-encoding"})
# Characters that a URL may have as they are; `%` since what is encoded stays as it is.
_AS_THEY_ARE = "%:/?#[]@!$&'()*+,;=-._~"


class BadRedirect(ValueError):  # noqa: N818 - what it is
    """A `Location` that cannot be followed.

    The reason is "scheme" when it leads away from http and https, "host" when it names no host,
    "url" when it is not a URL.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class NextRequest(NamedTuple):
    """The request that a redirect asks for."""

    method: str
    url: str  # as httpx encodes it, without user info: a server must not decide on a password
    headers: list[tuple[str, str]]  # but for Host, Content-Length and Transfer-Encoding
    keeps_body: bool  # a body that can be read only once has been used up


def location_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the first `Location` of raw headers, byte for byte; None without one."""
    return next((value for name, value in headers if name.lower() == b"location"), None)


def is_redirect(status: int, location: bytes | None) -> bool:
    """Whether an answer leads elsewhere: one of five statuses, and a `Location` that is not blank.

    Any other 3xx is neither a success nor a redirect.
    """
    return status in REDIRECT_STATUSES and location is not None and bool(location.strip(b" \t"))


def redirected_method(method: str, status: int) -> str:
    """Return the method of the next request, in upper case as the given one.

    303 asks for a GET (a HEAD stays one). 301 and 302 turn a POST into a GET, as every browser
    does and RFC 9110 allows; all other methods stay, so that a PUT does not become a GET that
    stores nothing. 307 and 308 change nothing.
    """
    if status == 303:
        return method if method == "HEAD" else "GET"
    return "GET" if status in (301, 302) and method == "POST" else method


def next_request(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    *,
    status: int,
    location: bytes,
    set_cookies: Iterable[str] = (),
    jar: CookieJar | None = None,
    login: Callable[[str], str | None] | None = None,
    headers_of: Callable[[str], Mapping[str, str]] | None = None,
) -> NextRequest:
    """Return the request that a redirect asks for.

    Headers that may carry credentials, Cookie among them, stay with their origin; the key of an
    Azure function follows no redirect. Headers of the body go when the body does. The jar has the
    cookies for the new URL, `headers_of` the headers that belong to its host alone, `login` the
    credentials for another host.

    Raises:
        BadRedirect: The `Location` cannot be followed.
    """
    target, origin, same_origin = _resolve(url, location)
    following = redirected_method(method, status)
    keeps_body = following == method and status != 303
    kept = [
        (name, value)
        for name, value in headers
        if name.lower() not in _OF_THE_MESSAGE
        and survives_redirect(name, same_origin=same_origin)
        and (keeps_body or not _OF_THE_BODY.fullmatch(name))
    ]
    in_the_clear = url.startswith("https:") and not target.startswith("https:")
    if headers_of is not None and not same_origin:
        given = {} if in_the_clear else headers_of(target)
        own = {name.lower() for name in (*headers_of(url), *given)}
        kept = [*(pair for pair in kept if pair[0].lower() not in own), *given.items()]
    if jar is not None:
        by_name = {name.lower(): value for name, value in kept}
        kept = [pair for pair in kept if pair[0].lower() != "cookie"]
        cookie = cookie_header_after(by_name.get("cookie"), set_cookies, jar, target)
        if cookie is not None:
            kept.append(("Cookie", cookie))
        asked = login is not None and not (same_origin or in_the_clear)
        if login is not None and asked and "authorization" not in by_name:
            authorization = login(origin[1])
            if authorization is not None:
                kept.append(("Authorization", authorization))
    return NextRequest(following, target, kept, keeps_body)


def _resolve(base: str, location: bytes) -> tuple[str, Origin, bool]:
    """Return the URL that a `Location` means, its origin, and whether that is the one before."""
    usual = plain_url(base)
    if usual is not None:
        text = location.decode("latin-1")
        text = usual[0] + text if text[:1] == "/" else text
        if plain_url(text) is not None:
            with suppress(httpx.InvalidURL):
                origin = target_of(text).origin
                return text, origin, origin == target_of(base).origin
    url = _resolved(httpx.URL(base), location)
    return str(url), origin_of(url), origin_of(url) == origin_of(httpx.URL(base))


@lru_cache(maxsize=1024)
def _resolved(base: httpx.URL, location: bytes) -> httpx.URL:
    """Return the URL that a `Location` means (RFC 3986, section 5).

    Bytes beyond ASCII are requested as they came, percent-encoded (as curl and browsers do it);
    only in a host, where no such bytes can be, they are read as UTF-8.
    """
    raw = location.strip(b" \t")

    def refused(reason: str, text: str) -> BadRedirect:
        shown = sanitize_url(raw[:200].decode("latin-1"))
        return BadRedirect(reason, f"{base.raw_host.decode()} redirects to {shown!r}, {text}")

    head, slashes, rest = raw.partition(b"//")
    if slashes and (not head or head.endswith(b":")):
        end = next((at for at, byte in enumerate(rest) if byte in b"/?#\\"), len(rest))
        authority, tail = rest[:end], rest[end:]
        if tail[:1] == b"\\":
            raise refused(
                "url",
                "whose host is followed by a backslash, which is not a URL: report it to the "
                "server's owner",
            )
    else:
        head, slashes, authority, tail = b"", b"", b"", raw
    try:
        text = (head + slashes).decode("ascii") + authority.decode()
        text += quote(tail, safe=_AS_THEY_ARE)
    except UnicodeDecodeError:
        raise refused("url", "which is not a URL: report it to the server's owner") from None
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1].lower() not in ("http", "https"):
        raise refused(
            "scheme", f"a URL of scheme {scheme[1].lower()!r}: only http and https are followed"
        )
    hostless = "a URL without a host: report it to the server's owner"
    if (scheme is not None or slashes) and not authority.rpartition(b"@")[2].partition(b":")[0]:
        raise refused("host", hostless)
    try:
        url = httpx.URL(urljoin(str(base), text))
        if authority:
            check_place(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise refused(
            "url", f"which is not a URL ({str(error).rstrip('.')}): report it to the server's owner"
        ) from None
    if not url.raw_host:
        raise refused("host", hostless)
    if url.userinfo:
        url = url.copy_with(userinfo=b"")
    if base.fragment and not url.fragment:  # RFC 9110, section 10.2.2
        url = url.copy_with(fragment=base.fragment)
    return url
