"""URLs: joining them, and taking the usual ones apart at little cost."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from infra_core.runtime import sanitize_url

from ._checks import host_problem
from ._errors import InvalidRequestError

__all__ = ["PlainUrl", "absolute_url", "plain_url"]

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


class PlainUrl(NamedTuple):
    """A URL that every library sends as it stands.

    Attributes:
        origin: Its beginning, up to the path.
        target: The rest, without a fragment.
        scheme: `http` or `https`.
        host: A name or an address of IPv4.
        port: None where it is not named.
    """

    origin: str
    target: str
    scheme: str
    host: str
    port: int | None


@lru_cache(maxsize=64)  # since one call asks several times
def plain_url(url: str) -> PlainUrl | None:
    """Take a URL apart that every library sends as it stands.

    Nearly all URLs are such. Their origins are few and can be remembered, so that a crawl does
    not parse each URL. None for all others, which must be parsed.

    Example:
        >>> plain_url("https://example.com/a?b=1")[:2], plain_url("https://example.com/a/../b")
        (('https://example.com', '/a?b=1'), None)
    """
    found = _PLAIN.fullmatch(url) if len(url) <= _LONGEST else None
    place = None if found is None else _place(found[1])
    return None if found is None or place is None else PlainUrl(found[1], found[2], *place)


@lru_cache(maxsize=1024)
def _place(origin: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port; None where there can be no such host."""
    scheme, _, authority = origin.partition("://")
    host, colon, port = authority.partition(":")
    if host_problem(host) or int(port or 0) > 65_535:
        return None
    return scheme, host, int(port) if colon else None


def absolute_url(base: str, *segments: str) -> str:
    """Append path segments to a URL, one slash between each, a query kept at the end.

    Segments are taken as they are: quote what came from outside with `urllib.parse.quote`.

    Args:
        base: A URL; slashes at its end do not count.
        *segments: Slashes at either end do not count; empty ones are left out.

    Raises:
        InvalidRequestError: A part is no text.

    Example:
        >>> absolute_url("https://example.com/api/", "runs", "7")
        'https://example.com/api/runs/7'
    """
    for part in (base, *segments):
        if not isinstance(part, str):
            raise InvalidRequestError(
                f"{sanitize_url(part)!r} of type {type(part).__name__} is no part of a URL: pass "
                "text"
            )
    head, mark, tail = base, "", ""
    for position, character in enumerate(base):
        if character in "?#":
            head, mark, tail = base[:position], character, base[position + 1 :]
            break
    parts = [head.rstrip("/"), *(part for part in (s.strip("/") for s in segments) if part)]
    return ("/".join(parts) or "/") + mark + tail
