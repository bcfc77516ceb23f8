"""Which failed HTTP calls are worth another try, judged without importing an HTTP library.

An exception can only be one of httpx, requests or urllib3 when that library is imported already,
so its classes are looked up in `sys.modules` and never imported.
"""

import sys
from collections.abc import Callable, Iterable

from ._exceptions import error_chain
from ._printable import as_text

__all__ = [
    "is_permanent_transport_error",
    "should_retry_http_exception",
    "should_retry_requests_exception",
]

# What getaddrinfo may answer otherwise a moment later: the name server was too slow or failed
# (EAI_AGAIN), and this machine was out of memory, file descriptors and the like.
_TEMPORARY_LOOKUPS = ("EAI_AGAIN", "EAI_MEMORY", "EAI_SYSTEM")
_TEMPORARY_TEXT = "temporary failure in name resolution"
# Class names of urllib3, aiohttp and httpx for a host that cannot be resolved, or is not a host.
_PERMANENT_NAMES = {
    *("NameResolutionError", "ClientConnectorDNSError", "ClientConnectorCertificateError"),
    *("ClientConnectorSSLError", "InvalidURL", "LocationParseError", "LocationValueError"),
    *("MissingSchema", "InvalidSchema", "UnsupportedProtocol", "InvalidHeader"),
    *("InvalidProxyURL", "TooManyRedirects"),
}
# Raised by ssl when the peer went away in mid-stream: a lost connection, not a refused one.
_CONNECTION_LOST = ("SSLEOFError", "SSLZeroReturnError", "SSLSyscallError")
# Where a transport keeps only the text of what happened.
_PERMANENT_TEXTS = (
    "certificate verify failed",
    "certificate_verify_failed",
    "getaddrinfo failed",
    "name or service not known",
    "name resolution",
    "no address associated with hostname",
    "nodename nor servname provided",
)


def _loaded(module: str, *names: str) -> tuple[type[BaseException], ...]:
    """Return the classes of that module if somebody imported it, else nothing."""
    loaded = sys.modules.get(module)
    found = (getattr(loaded, name, None) for name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def is_permanent_transport_error(error: BaseException) -> bool:
    """Whether another try would fail alike: malformed URL, unknown host, failed TLS handshake.

    The whole chain of causes is looked at, since HTTP libraries wrap what the socket raised. A
    TLS connection that the peer dropped in mid-stream is not permanent, and neither is a name
    server that could not answer now (`EAI_AGAIN`).

    Args:
        error: What a request raised.
    """
    lookup_error = _loaded("socket", "gaierror")
    tls_error = _loaded("ssl", "SSLError")
    lost = _loaded("ssl", *_CONNECTION_LOST)
    chain = list(error_chain(error))
    if any(isinstance(link, lost) or _is_temporary_lookup(link) for link in chain):
        return False
    for link in chain:
        if isinstance(link, (*lookup_error, *tls_error)):
            return True
        if any(kind.__name__ in _PERMANENT_NAMES for kind in type(link).__mro__):
            return True
        text = as_text(link).lower()
        if any(sign in text for sign in _PERMANENT_TEXTS):
            return True
    return isinstance(error, _loaded("requests.exceptions", "SSLError"))


def _is_temporary_lookup(link: BaseException) -> bool:
    """Whether a look-up of a name failed for a reason that may pass."""
    if _TEMPORARY_TEXT in as_text(link).lower():
        return True
    module = sys.modules.get("socket")
    return isinstance(link, _loaded("socket", "gaierror")) and getattr(link, "errno", 0) in (
        getattr(module, name) for name in _TEMPORARY_LOOKUPS if hasattr(module, name)
    )


def should_retry_http_exception(
    exc: BaseException,
    *,
    retryable_statuses: Iterable[int],
    transport_predicate: Callable[[Exception], bool],
) -> bool:
    """Whether an exception of httpx is worth another try.

    Args:
        exc: What the request raised; anything that is not of httpx is not retried.
        retryable_statuses: Decides over `httpx.HTTPStatusError`.
        transport_predicate: Decides over failures of the connection, except for timeouts, which
            are always retried, and malformed URLs, DNS and TLS failures, which never are.
    """
    names = ("HTTPStatusError", "TimeoutException", "HTTPError")
    return _should_retry(exc, "httpx", names, retryable_statuses, transport_predicate)


def should_retry_requests_exception(
    exc: BaseException,
    *,
    retryable_statuses: Iterable[int],
    transport_predicate: Callable[[Exception], bool],
) -> bool:
    """Whether an exception of requests is worth another try.

    Args:
        exc: What the request raised; anything that is not of requests is not retried.
        retryable_statuses: Decides over a `requests.HTTPError` that has a response.
        transport_predicate: As for `should_retry_http_exception`.
    """
    names = ("HTTPError", "Timeout", "RequestException")
    return _should_retry(exc, "requests.exceptions", names, retryable_statuses, transport_predicate)


def _should_retry(
    error: BaseException,
    module: str,
    names: tuple[str, str, str],
    statuses: Iterable[int],
    transport_predicate: Callable[[Exception], bool],
) -> bool:
    """Judge by the names that a library has for a refused status, a timeout, and all of them."""
    refused, timeout, root = (_loaded(module, name) for name in names)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, refused) and isinstance(status, int):
        return status in frozenset(statuses)
    if not isinstance(error, Exception) or is_permanent_transport_error(error):
        return False
    return isinstance(error, timeout) or (
        isinstance(error, root) and bool(transport_predicate(error))
    )
