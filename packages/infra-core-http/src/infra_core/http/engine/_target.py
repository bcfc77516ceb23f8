"""URLs as the transport wants them: parsed once, checked, split into origin and credentials."""

from functools import lru_cache
from urllib.parse import unquote

import httpx
import yarl

from infra_core.runtime import sanitize_url

from .._checks import host_problem
from .._response.redirect import Origin, origin_of
from ._proxies import basic_authorization

__all__ = ["Origin", "Target", "origin_of", "target_of"]

_SCHEMES = ("http", "https")


class Target:
    """One URL to be asked.

    Attributes:
        url: As httpx knows it.
        request_url: As aiohttp wants it: encoded, without user info and fragment.
        origin: Scheme, host and port (RFC 6454).
        authorization: Header value from user info in the URL, or None.
    """

    __slots__ = ("authorization", "origin", "request_url", "secure", "url")

    def __init__(self, url: httpx.URL) -> None:
        self.url: httpx.URL = url
        self.origin: Origin = origin_of(url)
        self.secure: bool = url.scheme == "https"
        self.authorization: str | None = _basic(url)
        bare = url.copy_with(userinfo=b"", fragment=None) if url.userinfo or url.fragment else url
        self.request_url: yarl.URL = yarl.URL(str(bare), encoded=True)


def _basic(url: httpx.URL) -> str | None:
    if not url.userinfo:
        return None
    user, _, password = url.userinfo.decode("ascii").partition(":")
    return basic_authorization(unquote(user), unquote(password))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Target:
    return Target(_checked(text, httpx.URL(text)))


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
            f"{sanitize_url(url)!r} of type {type(url).__name__} is no URL: pass it as text, in "
            "the form https://host[:port]/path"
        )
    try:
        return _parsed(url)
    # yarl is stricter than httpx about a few hosts, and raises a ValueError
    except (httpx.InvalidURL, ValueError) as error:
        raise httpx.InvalidURL(
            f"{sanitize_url(url)!r} is no URL ({str(error).rstrip('.')}): pass it in the form "
            "https://host[:port]/path, with special characters percent-encoded"
        ) from error


def _checked(text: str, url: httpx.URL) -> httpx.URL:
    if url.scheme not in _SCHEMES or not url.host:
        raise httpx.UnsupportedProtocol(
            f"{sanitize_url(text)!r} cannot be requested: a URL begins with http:// or https:// "
            "and names a host"
        )
    if url.port is not None and not 0 < url.port <= 65_535:
        raise httpx.InvalidURL(f"port {url.port} is not within 1 to 65535")
    problem = host_problem(url.raw_host.decode("ascii"))
    if problem:
        raise httpx.InvalidURL(problem)
    return url
