"""A cookie jar with bounds, and the Cookie header of a request.

A crawl of one site may be handed a new cookie with every page. Browsers bound what they keep
(RFC 6265, section 6.1) and let the oldest of a host go; so does this jar. A header that grew above
what servers take would be answered 400 for ever.
"""

import re
from collections.abc import Iterable
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request

import httpx

__all__ = ["BoundedCookieJar", "cookie_header", "cookie_header_after", "keep_cookies", "trimmed"]

PER_DOMAIN = 50
IN_ALL = 3000
MAX_HEADER = 4095
"""Bytes of the Cookie header of one request: below the 4 KiB that browsers and servers keep."""

_Key = tuple[str, str, str]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Policy(DefaultCookiePolicy):
    """Send a cookie without a Domain to the host alone that has set it (RFC 6265, section 5.4)."""

    def return_ok_domain(self, cookie: Cookie, request: Request) -> bool:
        """Whether a cookie goes to the host of a request; called by the jar."""
        # One that a caller has given for all hosts has no domain at all.
        of_one_host = bool(cookie.domain) and not cookie.domain_specified
        if of_one_host and cookie.domain != _host(request.full_url):
            return False
        return bool(super().return_ok_domain(cookie, request))


class BoundedCookieJar(CookieJar):
    """A cookie jar that keeps the newest `PER_DOMAIN` cookies of a domain, and `IN_ALL`."""

    def __init__(self, cookies: Iterable[Cookie] = ()) -> None:
        super().__init__(_Policy())
        self._ages: dict[_Key, None] = {}
        self._cookies: dict[str, dict[str, dict[str, Cookie]]]  # by domain, path and name
        for cookie in cookies:
            self.set_cookie(cookie)

    def set_cookie(self, cookie: Cookie) -> None:
        """Keep a cookie; the oldest one goes where there are too many."""
        if len(cookie.name) + len(cookie.value or "") > MAX_HEADER:
            return  # no browser keeps it (RFC 6265bis, section 5.6), and no header has room for it
        if not _keeps_its_promise(cookie):
            return
        super().set_cookie(cookie)
        key = cookie.domain, cookie.path, cookie.name
        self._ages.pop(key, None)
        self._ages[key] = None
        if sum(map(len, self._cookies[cookie.domain].values())) > PER_DOMAIN:
            self.clear(*next(key for key in self._ages if key[0] == cookie.domain))
        elif len(self._ages) > IN_ALL:
            self.clear_expired_cookies()
            if len(self._ages) > IN_ALL:
                self.clear(*next(iter(self._ages)))

    def clear(
        self, domain: str | None = None, path: str | None = None, name: str | None = None
    ) -> None:
        """Forget all cookies, or those of a domain, of a path of it, or one."""
        super().clear(domain, path, name)
        given = tuple(part for part in (domain, path, name) if part is not None)
        for key in [key for key in self._ages if key[: len(given)] == given]:
            del self._ages[key]
        if domain is not None and not any(self._cookies.get(domain, {}).values()):
            self._cookies.pop(domain, None)  # CookieJar leaves it behind

    def may_have(self, url: str) -> bool:
        """Whether there may be cookies for a URL; costs next to nothing when there are none."""
        domains = self._cookies
        if not self._ages:
            return False
        host = _host(url)
        ends = [host[at:] for at, character in enumerate(host) if character == "."]
        return any(domain in domains for domain in ("", host, f".{host}", *ends))

    def age_of(self, names: Iterable[str]) -> dict[str, int]:
        """Return when cookies of these names were set last: higher is newer."""
        wanted = set(names)
        return {key[2]: age for age, key in enumerate(self._ages) if key[2] in wanted}


def _host(url: str) -> str:
    """Return the host of a URL as `CookieJar` names it."""
    host = urlsplit(url).hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if "." in host else f"{host}.local"


def _keeps_its_promise(cookie: Cookie) -> bool:
    """Whether a cookie is what its name says (RFC 6265bis, section 4.1.3), on one host by address.

    `CookieJar` lets 10.0.0.1 set cookies for all addresses that end in `.0.0.1`.
    """
    if cookie.domain[:1] == "." and cookie.domain.rpartition(".")[2].isdigit():
        cookie.domain, cookie.domain_specified = cookie.domain[1:], False
        if cookie.domain.count(".") != 3:
            return False
    name = cookie.name.lower()
    if name.startswith("__host-"):
        return cookie.secure and cookie.path == "/" and not cookie.domain_specified
    return cookie.secure or not name.startswith("__secure-")


def cookie_header(jar: CookieJar, url: str) -> str | None:
    """Return the Cookie header for an encoded URL; None when the jar has nothing."""
    if isinstance(jar, BoundedCookieJar) and not jar.may_have(url):
        return None
    request = Request(url)  # noqa: S310 - only asked what belongs to it
    jar.add_cookie_header(request)
    header = request.get_header("Cookie")
    return None if header is None else trimmed(jar, header)


def trimmed(jar: CookieJar, header: str) -> str | None:
    """Return a header without its oldest cookies, where it is too long, and without unsendable."""
    if len(header) <= MAX_HEADER and not _CONTROL.search(header):
        return header
    pairs = [pair for pair in header.split("; ") if not _CONTROL.search(pair)]
    ages = jar.age_of(map(_name_of, pairs)) if isinstance(jar, BoundedCookieJar) else {}
    room, kept = MAX_HEADER, set[str]()
    for pair in sorted(pairs, key=lambda pair: -ages.get(_name_of(pair), 0)):
        room -= len(pair.encode()) + 2
        if room < 0:
            break
        kept.add(pair)
    return "; ".join(pair for pair in pairs if pair in kept) or None


def _name_of(pair: str) -> str:
    return pair.partition("=")[0]


def cookie_header_after(
    previous: str | None, set_cookies: Iterable[str], jar: CookieJar, url: str
) -> str | None:
    """Return the Cookie header after a redirect within one origin.

    That of the jar, and what the caller gave by hand, which the jar knows nothing of. What the
    redirect has removed is in neither.
    """
    stored = cookie_header(jar, url)
    if previous is None:
        return stored
    known = {cookie.name for cookie in jar}.union(_name_of(line).strip() for line in set_cookies)
    given = [pair for pair in previous.split("; ") if _name_of(pair) not in known]
    return "; ".join([*given, *([stored] if stored else [])]) or None


def keep_cookies(jar: CookieJar, request: httpx.Request, status: int, headers: Any) -> None:
    """Put the cookies of an answer into a jar."""
    kept = [(name, value) for name, value in headers if name.lower() in _OF_COOKIES]
    httpx.Cookies(jar).extract_cookies(httpx.Response(status, headers=kept, request=request))


_OF_COOKIES = (b"set-cookie", b"set-cookie2")
