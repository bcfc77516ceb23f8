"""Which answers are a success, and what is said of the others, sync and async alike."""

import re
from collections.abc import Mapping
from http import HTTPStatus

from infra_core.runtime import parse_retry_after, redact_secrets, sanitize_url

from ..engine.network_settings import NetworkSettings
from .redirect import REDIRECT_STATUSES

__all__ = ["clean_reason", "is_interim", "is_success", "status_text"]

# No control character of ASCII or of C1, no line separator, nothing that turns the direction of
# text around: a reason phrase is the server's, and goes to logs and terminals.
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
_LONGEST_REASON = 80


def is_success(status: int) -> bool:
    """Whether a request was served (RFC 9110, section 15.3).

    304 is none for who sent no condition, nor is a 3xx without a `Location` to follow.
    """
    return 200 <= status < 300


def is_interim(status: int) -> bool:
    """Whether the answer proper is still to come (RFC 9110, section 15.2).

    101 is the last one in HTTP: what follows it is another protocol, which was not asked for.
    """
    return 100 <= status < 200 and status != 101


def clean_reason(status: int, reason: str | bytes | None) -> str:
    r"""Return a reason phrase that can be printed, the standard one where the server sent none.

    Example:
        >>> clean_reason(404, b""), clean_reason(500, b"Oops\x1b[2J")
        ('Not Found', 'Oops [2J')
    """
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason or ""
    text = redact_secrets(_UNSHOWN.sub(" ", text).strip())[:_LONGEST_REASON]
    if text:
        return text
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def status_text(
    method: str,
    url: str,
    status: int,
    reason: str | bytes | None,
    headers: Mapping[str, str],
    *,
    max_backoff: float | None = None,
) -> str:
    """Return the text of the error for an answer that is not a success, with its remedy."""
    answer = f"{status} {clean_reason(status, reason)}".rstrip()
    remedy = _proxy_remedy(url) if status == 407 else _remedy(status, headers, max_backoff)
    return f"{method} {sanitize_url(url)} answered {answer}: {remedy}"


def _proxy_remedy(url: str) -> str:
    try:
        proxy = NetworkSettings.read().proxy_for(url)
    except ValueError:
        proxy = None
    if proxy is None:
        return "check the credentials for the proxy"
    return (
        f"the proxy {proxy.where} requires authentication; put the credentials into "
        f"{proxy.variable} as http://user:password@host:port, percent-encoded"
    )


def _remedy(status: int, headers: Mapping[str, str], max_backoff: float | None) -> str:
    asked = parse_retry_after(headers)
    if asked:
        above = max_backoff is not None and asked > max_backoff
        more = f", more than max_backoff={max_backoff:g}" if above else ""
        return f"the server asks to wait {asked:g} s{more}"
    if status in (401, 403):
        return "check the credentials"
    if status in (404, 405, 410):
        return "check the URL and the method"
    if status in (408, 425, 429):
        return "ask less often, or try again later"
    if status >= 500:
        return "see the server's log, or try again later"
    if status >= 400:
        return "check the request"
    if status in REDIRECT_STATUSES:
        location = (headers.get("location") or headers.get("Location") or "").strip()
        if location:
            return f"it leads to {sanitize_url(location[:200])!r}, and redirects are not followed"
        return "a redirect without a Location: check the URL, or report it to the server's owner"
    if status == 304:
        return "nothing changed since the copy that the request names in If-None-Match or the like"
    return "check the URL"
