"""Failures of aiohttp turned into those of httpx, which users of httpx know how to catch."""

import asyncio
import re
import ssl
from collections.abc import Callable

import aiohttp
import httpx

from infra_core.runtime import error_chain, is_permanent_transport_error

from .. import _messages as messages
from .._errors import PrivateAddressError
from .._policy import Failure
from .._response.decode import UnsupportedCoding
from ._target import Timeouts, origin_of
from .connections import ClosedHereError, SocksRefusedError, SocksUnreachableError
from .network_settings import Proxy

__all__ = ["FAILURES", "AsyncPrivateAddressError", "failure_of", "httpx_error"]

# Everything that sending and reading can raise, apart from cancellation.
FAILURES: tuple[type[Exception], ...] = (
    aiohttp.ClientError,
    asyncio.TimeoutError,  # not the builtin one on 3.10
    TimeoutError,
    OSError,
    ValueError,
)
_SILENT = (aiohttp.ServerTimeoutError, asyncio.TimeoutError, TimeoutError, httpx.ReadTimeout)
_CLOSED_H2 = re.compile(r"ConnectionInputs\.(\w+) in state ConnectionState\.CLOSED")
# Before anything was sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class AsyncPrivateAddressError(PrivateAddressError, httpx.ConnectError):
    """The refusal of `public_only` as users of httpx catch it."""

    @classmethod
    def of(cls, error: PrivateAddressError, request: httpx.Request) -> "AsyncPrivateAddressError":
        """Return it for the refusal of a request."""
        known = cls(error.host, error.address, error.reason, error.remedy)
        known.request = request
        return known


class RefusedByProxyError(httpx.ProxyError):
    """The proxy answered that it will never let this request through."""


def _describe(
    error: Exception, url: httpx.URL, timeouts: Timeouts, proxy: Proxy | None
) -> tuple[type[httpx.RequestError], str, bool]:
    """Return the class of httpx, a text, and whether the cause may be shown.

    aiohttp prints whole URLs, secrets and all, into some of its errors; those are not chained.
    """
    _, host, port = origin_of(url)
    where = messages.peer(host, port)
    if proxy is not None:
        met = _of_proxy(error, proxy, where, url)
        if met is not None:
            return met
        where = messages.through_proxy(where, proxy.where)
    if isinstance(error, (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout)):
        return httpx.ConnectTimeout, messages.connect_timeout_text(where, timeouts.connect), False
    if isinstance(error, _SILENT):
        return httpx.ReadTimeout, messages.silence_text(where, timeouts.read), True
    if isinstance(error, (aiohttp.ClientConnectorError, httpx.ConnectError)):
        return httpx.ConnectError, messages.connect_text(where, _cause(error)), True
    protocol = _of_protocol(error, where)
    if protocol is not None:
        return httpx.RemoteProtocolError, *protocol
    unsent = _unsent_by_h2(error)
    if unsent is not None:
        text = f"{where} {messages.BROKEN_OFF}"
        return httpx.ConnectError if unsent else httpx.RemoteProtocolError, text, True
    if isinstance(error, ClosedHereError) or str(error) == "Connector is closed.":
        text = f"the client was closed before {where} had answered: close it after its requests"
        return httpx.ReadError, text, True
    if isinstance(error, aiohttp.InvalidURL):
        text = f"{host!r} is neither a host name nor an address: check the URL"
        return httpx.UnsupportedProtocol, text, False
    if isinstance(error, (OSError, httpx.NetworkError)):
        kind = type(error) if isinstance(error, httpx.NetworkError) else httpx.ReadError
        names_url = isinstance(error, aiohttp.ClientOSError) and error.errno is None
        cause = error.__cause__ or error if names_url else _cause(error)
        return kind, messages.broken_text(where, messages.reason_of(cause)), not names_url
    if isinstance(error, (ValueError, httpx.LocalProtocolError)):
        return httpx.LocalProtocolError, f"the request to {where} cannot be sent: {error}", True
    return httpx.ReadError, messages.broken_text(where, repr(error)), True


def _of_protocol(error: Exception, where: str) -> tuple[str, bool] | None:
    """Return the text for an answer that is none, or no whole one; None for other failures."""
    of_httpx = str(error) if isinstance(error, httpx.RemoteProtocolError) else ""
    if isinstance(error, aiohttp.ServerDisconnectedError) or "disconnected" in of_httpx:
        return f"{where} {messages.BROKEN_OFF}", True
    if isinstance(error, aiohttp.ClientPayloadError) or "complete message body" in of_httpx:
        return f"{where} {messages.CUT_SHORT}", True
    if isinstance(error, aiohttp.ClientResponseError):
        # What follows the first line, or a quote, is what the server sent.
        reason = error.message.strip().partition("\n")[0].partition(": b'")[0].rstrip(":")
    elif of_httpx:
        reason = of_httpx.partition(": bytearray")[0]
    else:
        return None
    return messages.invalid_text(where, reason), False


def _cause(error: Exception) -> BaseException:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    return next((link for link in error_chain(error) if isinstance(link, OSError)), error)


def _of_proxy(
    error: Exception, proxy: Proxy, where: str, url: httpx.URL
) -> tuple[type[httpx.RequestError], str, bool] | None:
    """Return the same for what the proxy itself did, None for what lies behind it."""
    if isinstance(error, (aiohttp.ClientHttpProxyError, httpx.ProxyError)):
        answer = str(getattr(error, "status", error))
        text = messages.proxy_refused_text(proxy.where, proxy.variable, answer, where)
        for_good = answer[:1] == "4" and answer[:3].isdigit()
        return RefusedByProxyError if for_good else httpx.ProxyError, text, False
    if isinstance(error, SocksRefusedError):
        text = messages.proxy_refused_text(proxy.where, proxy.variable, str(error), where)
        return httpx.ProxyError, text, True
    if isinstance(error, aiohttp.ClientConnectorError):
        at_proxy = (error.host, error.port) == (proxy.host, proxy.port)
        at_proxy = at_proxy or isinstance(error, aiohttp.ClientProxyConnectionError)
    elif isinstance(error, httpx.ConnectError):
        tls_within = url.scheme == "https" and proxy.scheme != "https"
        at_proxy = not (tls_within and isinstance(_cause(error), ssl.SSLError))
    else:
        at_proxy = isinstance(error, SocksUnreachableError)
    if not at_proxy:
        return None
    reason = messages.connect_text(proxy.where, _cause(error))
    return httpx.ConnectError, messages.proxy_connect_text(proxy.variable, reason), True


def httpx_error(
    error: Exception,
    request: Callable[[], httpx.Request],
    timeouts: Timeouts,
    proxy: Proxy | None = None,
) -> httpx.RequestError:
    """Return what httpx would have raised, its cause set."""
    asked = request()
    kind, text, chained = _describe(error, asked.url, timeouts, proxy)
    known = kind(text, request=asked)
    known.__cause__ = error if chained else error.__cause__
    known.__suppress_context__ = True
    return known


def _unsent_by_h2(error: BaseException) -> bool | None:
    """Whether a connection of HTTP/2 closed before a request; None for all other errors.

    nginx closes one after 1,000 requests, while others are under way. h2 takes
    what comes too late for a mistake of its caller.
    """
    found = isinstance(error, httpx.LocalProtocolError) and _CLOSED_H2.search(str(error))
    return found[1] == "SEND_HEADERS" if found else None


def failure_of(error: BaseException) -> Failure:
    """Return what an error of httpx means for the request that met it."""
    unsent = _unsent_by_h2(error)
    if unsent is not None:
        return Failure.NOT_SENT if unsent else Failure.OUTCOME_UNKNOWN
    if isinstance(error, (PrivateAddressError, RefusedByProxyError, httpx.LocalProtocolError)):
        return Failure.PERMANENT
    if is_permanent_transport_error(error):
        return Failure.PERMANENT
    if isinstance(error, _NOT_SENT):
        return Failure.NOT_SENT
    if isinstance(error.__cause__, UnsupportedCoding):
        return Failure.PERMANENT  # nothing here decodes it, the next time neither
    if isinstance(error, (httpx.TransportError, httpx.DecodingError)):
        return Failure.OUTCOME_UNKNOWN
    return Failure.PERMANENT
