"""URLs: joining them, taking the usual ones apart at little cost, and what no host can be."""

import re
from functools import lru_cache
from typing import Final

from infra_core.runtime import sanitize_url

from ._errors import InvalidRequestError

__all__ = ["absolute_url", "check_authority", "host_problem", "plain_url"]

_AUTHORITY = re.compile(r"[^/?#]*//([^/?#]*)")

# What httpx, requests and urllib3 leave as it is: characters that may stand unencoded, and bytes
# that may not, in capital digits. No part of the path begins with a dot, nor the path with "//".
_ESCAPE: Final = r"%(?:[0189A-F][0-9A-F]|2[0-9A-CF]|3[A-F]|[46]0|5[B-E]|7[BCDF])"
_PART: Final = rf"[\w\-.~!$&'()*+,;=:@]*(?:{_ESCAPE}[\w\-.~!$&'()*+,;=:@]*)*"
_QUERY: Final = rf"[\w\-.~!$&'()*+,;=:@/?]*(?:{_ESCAPE}[\w\-.~!$&'()*+,;=:@/?]*)*"
_LONGEST: Final = 8192
_PLAIN: Final = re.compile(
    r"(https?://[a-z0-9.\-]+(?::[1-9][0-9]{0,4})?)"
    rf"((?!//)(?:/(?!\.){_PART})+(?:\?(?=.){_QUERY})?)",
    re.ASCII,
)


@lru_cache(maxsize=64)  # since one call asks several times
def plain_url(url: str) -> tuple[str, str] | None:
    """Return origin and request target of a URL that every library sends as it stands.

    Nearly all URLs are such. Their origins are few and can be remembered, so that a crawl does
    not parse each URL. None for all others, which must be parsed.

    Example:
        >>> plain_url("https://example.com/a?b=1"), plain_url("https://example.com/a/../b")
        (('https://example.com', '/a?b=1'), None)
    """
    found = _PLAIN.fullmatch(url) if len(url) <= _LONGEST else None
    return (found[1], found[2]) if found is not None and _can_be(found[1]) else None


@lru_cache(maxsize=1024)
def _can_be(origin: str) -> bool:
    host, _, port = origin.partition("://")[2].partition(":")
    return host_problem(host) is None and int(port or 0) <= 65_535


def absolute_url(base: str, *segments: str) -> str:
    """Append path segments to a URL, one slash between each, a query kept at the end.

    Segments are taken as they are: quote what came from outside with `urllib.parse.quote`.

    Args:
        base: A URL; slashes at its end do not count.
        *segments: Slashes at either end do not count; empty ones are left out.

    Raises:
        InvalidRequestError: A part is not text.

    Example:
        >>> absolute_url("https://example.com/api/", "runs", "7")
        'https://example.com/api/runs/7'
    """
    for part in (base, *segments):
        if not isinstance(part, str):
            raise InvalidRequestError(
                f"{sanitize_url(part)!r} of type {type(part).__name__} is not part of a URL: pass "
                "text"
            )
    head = re.split("[?#]", base, maxsplit=1)[0]
    parts = [head.rstrip("/"), *(part for part in (s.strip("/") for s in segments) if part)]
    return ("/".join(parts) or "/") + base[len(head) :]


def check_authority(url: str) -> None:
    r"""Refuse a URL that others read as one of another host.

    Browsers and urllib3 take a backslash for a slash, so that `http://a\@b/` is on the host a;
    httpx and curl take it for a part of the user name, on the host b. A URL that is checked
    by one of these readings and asked by the other lets a request through that was to be refused.
    """
    found = _AUTHORITY.match(url) if "\\" in url else None
    if found is not None and "\\" in found[1]:
        raise ValueError(
            "there is a backslash before its path, which some read as a slash and others as a "
            "part of the user name"
        )


def host_problem(host: str) -> str | None:
    """Say why no host can have that name (RFC 1035, section 2.3.4); None when one can."""
    if ":" in host:  # an IPv6 address
        return None
    labels = host.removesuffix(".").split(".")
    if not all(labels):
        return "the host has an empty part between dots"
    if len(host) > 253 or any(len(label) > 63 for label in labels):
        return "the host is too long, which may have 253 characters, 63 between dots"
    if "%" in host or " " in host:
        return "the host has characters that no host name has"
    return None
