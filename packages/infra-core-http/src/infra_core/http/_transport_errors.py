"""Failures of aiohttp told as the failures of httpx that users of httpx know how to catch."""

import asyncio
from collections.abc import Callable

import aiohttp
import httpx

from infra_core.runtime import is_permanent_transport_error

from ._policy import Fate

__all__ = ["FAILURES", "fate_of", "httpx_error"]

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


def _describe(error: Exception) -> tuple[type[httpx.RequestError], str, bool]:
    """Return the class of httpx, a text, and whether the cause may be shown.

    aiohttp prints whole URLs, secrets and all, into some of its errors; those are not chained.
    """
    if isinstance(error, _CONNECT_TIMEOUT):
        return httpx.ConnectTimeout, "no connection within the connect timeout", False
    if isinstance(error, (aiohttp.ServerTimeoutError, asyncio.TimeoutError, TimeoutError)):
        return httpx.ReadTimeout, "the server sent nothing for the length of the timeout", True
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientConnectorCertificateError)):
        return httpx.ConnectError, str(error), True
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return httpx.RemoteProtocolError, "the server disconnected without an answer", True
    if isinstance(error, aiohttp.ClientPayloadError):
        text = "the connection was closed before the whole body had come"
        return httpx.RemoteProtocolError, text, True
    if isinstance(error, aiohttp.ClientResponseError):
        text = f"the answer is not valid HTTP: {error.message}"
        return httpx.RemoteProtocolError, text, False
    if isinstance(error, aiohttp.InvalidURL):
        return httpx.UnsupportedProtocol, "the URL cannot be requested", False
    if isinstance(error, OSError):
        return httpx.ReadError, f"the connection broke: {error}", True
    if isinstance(error, ValueError):
        return httpx.LocalProtocolError, f"the request cannot be sent: {error}", True
    return httpx.ReadError, str(error) or type(error).__name__, True


def httpx_error(error: Exception, request: Callable[[], httpx.Request]) -> httpx.RequestError:
    """Return what httpx would have raised, its cause set.

    Args:
        error: What aiohttp or the system raised.
        request: Makes the request that the error carries; called only here, where time does not
            matter any more.
    """
    kind, text, chained = _describe(error)
    known = kind(text, request=request())
    known.__cause__ = error if chained else error.__cause__
    known.__suppress_context__ = True
    return known


def fate_of(error: BaseException) -> Fate:
    """Return what an error of httpx means for the request that met it."""
    if is_permanent_transport_error(error):
        return Fate.PERMANENT
    if isinstance(error, _NOT_SENT):
        return Fate.NOT_SENT
    if isinstance(error, (httpx.TransportError, httpx.DecodingError)):
        return Fate.LOST
    return Fate.PERMANENT
