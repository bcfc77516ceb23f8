"""What errors and responses mean for a poll: worth another try? when to come back?

Judged by shape (attributes and classes that are loaded already), so that no HTTP library or SDK
is imported for it.
"""

import math
import sys
from typing import TYPE_CHECKING, Final

from infra_core.runtime import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_transient", "retry_after", "status_code"]

_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
# Connections that fail or break, where a library has classes of its own for that.
_TRANSIENT_CLASSES: Final = {
    "aiohttp": ("ClientConnectionError", "ClientPayloadError"),
    "asyncio": ("TimeoutError",),  # a class of its own on Python 3.10
    "azure.core.exceptions": ("ServiceRequestError", "ServiceResponseError"),
    "http.client": ("BadStatusLine", "IncompleteRead"),
    "httpx": ("TransportError",),
    "requests.exceptions": ("ChunkedEncodingError", "ConnectionError", "Timeout"),
    "socket": ("gaierror",),  # those that are left: a name server that was too slow
    "ssl": ("SSLError",),  # and a peer that went away
    "urllib3.exceptions": ("MaxRetryError", "NewConnectionError", "ProtocolError", "TimeoutError"),
}


def status_code(error: BaseException) -> int | None:
    """Return the HTTP status that an exception carries, in whatever library's way."""
    response = getattr(error, "response", None)
    for holder in (response, error):
        for name in ("status_code", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def is_transient(error: Exception) -> bool:
    """Whether a poll goes on after this error: the default judgement.

    Transient are HTTP 408, 425, 429, 500, 502, 503 and 504, connections that break or cannot be
    made, and timeouts, of the standard library, httpx, requests, urllib3, aiohttp and the Azure
    SDK. Unknown hosts, failed TLS handshakes, malformed URLs, other statuses and everything else
    (a `KeyError` in the fetch) are not: they end the poll at once.

    Example:
        >>> is_transient(ConnectionResetError()), is_transient(KeyError("id"))
        (True, False)
    """
    status = status_code(error)
    if status is not None:
        return status in _TRANSIENT_STATUSES
    from infra_core.runtime import is_permanent_transport_error

    if is_permanent_transport_error(error):
        return False
    reason = getattr(error, "reason", None)
    if isinstance(error, _loaded("urllib.error", "URLError")) and isinstance(reason, Exception):
        return is_transient(reason)
    known = [_loaded(module, *names) for module, names in _TRANSIENT_CLASSES.items()]
    return isinstance(error, (ConnectionError, TimeoutError, *known))


def _loaded(module: str, *names: str) -> "tuple[type[BaseException], ...]":
    """Return the classes of a module if somebody imported it, else nothing."""
    loaded = sys.modules.get(module)
    return tuple(kind for name in names if isinstance(kind := getattr(loaded, name, None), type))


def retry_after(answer: object) -> float | None:
    """Return the seconds after which the server wants to be asked again; the default extractor.

    Looks for a number in the attribute `retry_after`, then for a `Retry-After` header (seconds or
    a date, RFC 9110 section 10.2.3) in `headers`, on the answer itself and, for an exception, on
    its `response`.

    Args:
        answer: What the fetch returned or raised.

    Returns:
        Seconds from now, 0 for a date in the past; None when the server said nothing.
    """
    given = getattr(answer, "retry_after", None)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return max(0.0, float(given))
    for holder in (answer, getattr(answer, "response", None)):
        headers: Mapping[str, str] | None = getattr(holder, "headers", None)
        if headers is not None and hasattr(headers, "get"):
            asked = parse_retry_after(headers)
            if asked is not None:
                return asked
    return None
