"""What a request brings along: its URL, checked and split into origin and credentials; timeouts."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

import httpx
import yarl

from infra_core.runtime import sanitize_url

from .._urls import check_authority, host_problem, plain_url
from ._addresses import literal_address
from ._proxies import basic_authorization

__all__ = [
    "Origin",
    "Target",
    "Timeouts",
    "check_place",
    "httpx_target_of",
    "is_usual",
    "origin_of",
    "target_of",
    "timeouts_of",
]

Origin = tuple[str, str, int]
"""Scheme, host and port (RFC 6454)."""

_PORTS = {"http": 80, "https": 443}
# The zone of an address as people write it; in a URL its "%" is encoded (RFC 6874).
_BARE_ZONE = re.compile(r"^([^/?#]*//[^/?#]*\[[^\]%/?#]*)%(?!25)")


class Target(NamedTuple):
    """One URL to be asked.

    Attributes:
        text: The URL in the form in which httpx writes it.
        origin: Its scheme, host and port (RFC 6454).
        request_url: As aiohttp wants it: encoded, without user info and fragment.
        authorization: Header value from user info in the URL, or None.
    """

    text: str
    origin: Origin
    request_url: yarl.URL
    authorization: str | None = None

    @property
    def secure(self) -> bool:
        """Whether TLS is asked for."""
        return self.origin[0] == "https"

    @property
    def url(self) -> httpx.URL:
        """As httpx knows it; parsed at each call, since most requests have no need of it."""
        return httpx.URL(self.text)

    def at(self, path: str) -> "Target":
        """Return another URL of the same origin, without parsing it.

        Args:
            path: Encoded, with its query.
        """
        here = self.request_url
        scheme, authority = here.scheme, here.raw_authority
        path, mark, query = path.partition("?")
        return Target(
            f"{scheme}://{authority}{path}{mark}{query}",
            self.origin,
            yarl.URL.build(
                scheme=scheme, authority=authority, path=path, query_string=query, encoded=True
            ),
        )


class Timeouts(NamedTuple):
    """Seconds for each step, in the meaning of `httpx.Timeout`; None means no bound.

    `connect` covers name resolution, connection and TLS handshake together.
    """

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None

    def as_httpx(self) -> httpx.Timeout:
        """Return them as httpx takes them."""
        return httpx.Timeout(**self._asdict())


def timeouts_of(timeout: "float | httpx.Timeout | Timeouts | None") -> Timeouts:
    """Return the four timeouts for what callers pass."""
    if isinstance(timeout, Timeouts):
        return timeout
    if isinstance(timeout, httpx.Timeout):
        return Timeouts(timeout.connect, timeout.read, timeout.write, timeout.pool)
    return Timeouts(timeout, timeout, timeout, timeout)


def origin_of(url: httpx.URL) -> Origin:
    """Return scheme, host and port, the default port filled in.

    The host is in ASCII: httpx cannot read all names that exist, such as those with emoji.
    """
    return url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS.get(url.scheme, 0)


def _basic(url: httpx.URL) -> str | None:
    if not url.userinfo:
        return None
    user, _, password = url.userinfo.decode("ascii").partition(":")
    return basic_authorization(unquote(user), unquote(password))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Target:
    check_authority(text)
    text = _BARE_ZONE.sub(r"\1%25", text)
    url = _checked(text, httpx.URL(text))
    bare = url.copy_with(userinfo=b"", fragment=None) if url.userinfo or url.fragment else url
    return Target(str(url), origin_of(url), yarl.URL(str(bare), encoded=True), _basic(url))


@lru_cache(maxsize=1024)
def _root_of(origin: str) -> Target | None:
    """Return the root of an origin; None if httpx would write that in another form."""
    root = _parsed(origin + "/")
    return root if root.text == origin + "/" else None


def is_usual(url: str) -> bool:
    """Whether a URL is asked for as it stands, found out at little cost."""
    plain = plain_url(url)
    if plain is None:
        return False
    port = ":443" if plain[0].startswith("https:") else ":80"  # stays where it is written
    try:
        return _root_of(plain[0].removesuffix(port)) is not None
    except (httpx.InvalidURL, ValueError):
        return False


def target_of(url: str | httpx.URL) -> Target:
    """Return the target for a URL.

    Raises:
        httpx.InvalidURL: It cannot be parsed: bad port, bad host, control characters.
        httpx.UnsupportedProtocol: It does not begin with http:// or https://, or has no host.
    """
    if isinstance(url, httpx.URL):
        url = str(url)
    if not isinstance(url, str):
        raise httpx.InvalidURL(
            f"{sanitize_url(url)!r} of type {type(url).__name__} is not a URL: pass it as text, in "
            "the form https://host[:port]/path"
        )
    try:
        plain = plain_url(url)
        root = None if plain is None else _root_of(plain[0])
        return _parsed(url) if plain is None or root is None else root.at(plain[1])
    # yarl is stricter than httpx about a few hosts, and raises a ValueError
    except (httpx.InvalidURL, ValueError) as error:
        raise httpx.InvalidURL(
            f"{sanitize_url(url)!r} is not a URL ({str(error).rstrip('.')}): pass it in the form "
            "https://host[:port]/path, with special characters percent-encoded"
        ) from error


def httpx_target_of(url: str) -> Target:
    """Return the target for a URL that httpx can hold in a request, too.

    It refuses names in Punycode that IDNA 2008 has no room for, such as those with emoji.
    """
    target = target_of(url)
    if "://xn--" in target.text:
        try:
            _ = target.url.host
        except ValueError as error:
            raise httpx.InvalidURL(
                f"{target.origin[1]!r} is a host name that httpx cannot read ({error}): request it "
                "with fetch() or request()"
            ) from error
    return target


def _checked(text: str, url: httpx.URL) -> httpx.URL:
    host = url.raw_host.decode("ascii")
    if url.scheme not in _PORTS or not host:
        raise httpx.UnsupportedProtocol(
            f"{sanitize_url(text)!r} cannot be requested: a URL begins with http:// or https:// "
            "and names a host"
        )
    check_place(url)
    address = None if ":" in host else literal_address(host)
    return url if address in (None, host) else url.copy_with(host=address)


def check_place(url: httpx.URL) -> None:
    """Refuse a host that no server can have, and such a port."""
    if url.port is not None and not 0 < url.port <= 65_535:
        raise httpx.InvalidURL(f"port {url.port} is not within 1 to 65535")
    problem = host_problem(url.raw_host.decode("ascii"))
    if problem:
        raise httpx.InvalidURL(problem)
