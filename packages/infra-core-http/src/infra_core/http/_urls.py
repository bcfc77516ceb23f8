"""URLs: joining them, and taking the usual ones apart at little cost."""

import re
from functools import lru_cache
from typing import Final

from infra_core.runtime import sanitize_url

from ._checks import host_problem
from ._errors import InvalidRequestError

__all__ = ["absolute_url", "plain_url"]

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
