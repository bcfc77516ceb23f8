"""Failures of aiohttp told as the failures of httpx that users of httpx know how to catch."""

import asyncio
from collections.abc import Callable

import aiohttp
import httpx

from infra_core.runtime import is_permanent_transport_error

from .._messages import (
    BROKEN_OFF,
    CUT_SHORT,
    broken_text,
    connect_text,
    connect_timeout_text,
    invalid_text,
    peer,
    reason_of,
    silence_text,
)
from .._policy import Failure
from ._target import origin_of

__all__ = ["FAILURES", "failure_of", "httpx_error"]

# Everything that sending and reading can raise, apart from cancellation.
FAILURES: tuple[type[Exception], ...] = (
    aiohttp.ClientError,
    asyncio.TimeoutError,  # not the builtin one on 3.10
    TimeoutError,
    OSError,
    ValueError,
)
_SOCKET_TIMEOUT: type[Exception] = aiohttp.SocketTimeoutError
_CONNECT_TIMEOUT: type[Exception] = aiohttp.ConnectionTimeoutError
# Before anything was sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def _describe(
    error: Exception, url: httpx.URL, connect: float | None, read: float | None
) -> tuple[type[httpx.RequestError], str, bool]:
    """Return the class of httpx, a text, and whether the cause may be shown.

    aiohttp prints whole URLs, secrets and all, into some of its errors; those are not chained.
    """
    _, host, port = origin_of(url)
    where = peer(host, port)
    if isinstance(error, _CONNECT_TIMEOUT):
        return httpx.ConnectTimeout, connect_timeout_text(where, connect), False
    if isinstance(error, (aiohttp.ServerTimeoutError, asyncio.TimeoutError, TimeoutError)):
        return httpx.ReadTimeout, silence_text(where, read), True
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return httpx.ConnectError, connect_text(where, error.certificate_error), True
    if isinstance(error, aiohttp.ClientConnectorError):
        return httpx.ConnectError, connect_text(where, error.os_error), True
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return httpx.RemoteProtocolError, f"{where} {BROKEN_OFF}", True
    if isinstance(error, aiohttp.ClientPayloadError):
        return httpx.RemoteProtocolError, f"{where} {CUT_SHORT}", True
    if isinstance(error, aiohttp.ClientResponseError):
        # What follows the first line, or a quote, is what the server sent.
        reason = error.message.strip().partition("\n")[0].partition(": b'")[0].rstrip(":")
        return httpx.RemoteProtocolError, invalid_text(where, reason), False
    if isinstance(error, aiohttp.InvalidURL):
        text = f"{host!r} is no host name and no address: check the URL"
        return httpx.UnsupportedProtocol, text, False
    if isinstance(error, OSError):
        return httpx.ReadError, broken_text(where, reason_of(error)), True
    if isinstance(error, ValueError):
        return httpx.LocalProtocolError, f"the request to {where} cannot be sent: {error}", True
    return httpx.ReadError, broken_text(where, repr(error)), True


def httpx_error(
    error: Exception,
    request: Callable[[], httpx.Request],
    *,
    connect: float | None = None,
    read: float | None = None,
) -> httpx.RequestError:
    """Return what httpx would have raised, its cause set.

    Args:
        error: What aiohttp or the system raised.
        request: Makes the request that the error carries; called only here, where time does not
            matter any more.
        connect: The timeout for connecting, in seconds, for the text.
        read: The timeout for each read, likewise.
    """
    asked = request()
    kind, text, chained = _describe(error, asked.url, connect, read)
    known = kind(text, request=asked)
    known.__cause__ = error if chained else error.__cause__
    known.__suppress_context__ = True
    return known


def failure_of(error: BaseException) -> Failure:
    """Return what an error of httpx means for the request that met it."""
    if is_permanent_transport_error(error) or isinstance(error, httpx.LocalProtocolError):
        return Failure.PERMANENT
    if isinstance(error, _NOT_SENT):
        return Failure.NOT_SENT
    if isinstance(error, (httpx.TransportError, httpx.DecodingError)):
        return Failure.OUTCOME_UNKNOWN
    return Failure.PERMANENT
