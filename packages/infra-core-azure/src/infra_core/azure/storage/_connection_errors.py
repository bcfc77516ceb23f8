"""What to tell when no answer came: who did what, and which setting or cable to look at.

The texts of aiohttp, of sockets and of OpenSSL name objects of theirs; whoever runs a service wants
host and port, and what to do.
"""

import asyncio
import errno
import socket
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from infra_core.runtime import is_permanent_transport_error, redact_secrets

from ._config import _AzureStorageConfig
from ._errors import StorageConnectionError, StorageTimeoutError

__all__ = ["connection_error", "deadline_error"]

_NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
_CUT_OFF = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


class _Told(NamedTuple):
    what: str
    remedy: str


def connection_error(
    error: Exception,
    *,
    config: _AzureStorageConfig,
    proxy: str | None,
    limit: float,
    blob: str,
    operation: str,
) -> StorageConnectionError:
    """The error for what a request met instead of an answer.

    Args:
        error: What aiohttp, the socket or the clock raised.
        config: Where the request went.
        proxy: The proxy that it went through.
        limit: Seconds that it was given in all.
        blob: Name of the blob or container.
        operation: What was tried.
    """
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):  # two classes until 3.11
        kind: type[StorageConnectionError] = StorageTimeoutError
        what, remedy = _timed_out(error, config, proxy, limit)
    else:
        kind = StorageConnectionError
        what, remedy = _broken(error, config, proxy)
    failure = kind(
        f"{operation} of {blob!r} failed: {what}", blob=blob, operation=operation, remedy=remedy
    )
    # A name without address, a certificate that is not trusted: these stay so.
    failure.permanent = is_permanent_transport_error(error)
    return failure


def deadline_error(
    config: _AzureStorageConfig, last: BaseException | None, *, blob: str, operation: str
) -> StorageTimeoutError:
    """The error for a request that its deadline cut off; `last` is what a try before it met."""
    options = config.options
    before = f"; the try before: {last}" if isinstance(last, StorageConnectionError) else ""
    return StorageTimeoutError(
        f"{operation} of {blob!r} was not done within the deadline of {options.deadline:g} s, "
        f"retries included{before}",
        blob=blob,
        operation=operation,
        remedy=f"raise {config.variable('deadline')}, or lower {config.variable('timeout')} "
        f"({options.timeout:g} s now) so that a silent server is asked again sooner",
    )


def _place(url: str) -> str:
    """Host and port of a URL, and nothing that could be secret."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _timed_out(
    error: Exception, config: _AzureStorageConfig, proxy: str | None, limit: float
) -> _Told:
    options = config.options
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        peer = f"the proxy {_place(proxy)}" if proxy else _place(config.endpoint)
        return _Told(
            f"{peer} took no connection within {options.connect_timeout:g} s",
            f"{_check_peer(config, proxy)} and that no firewall is in between, or raise "
            f"{config.variable('connect_timeout')}",
        )
    silent = isinstance(error, aiohttp.SocketTimeoutError)
    what = f"was silent for {options.timeout:g} s" if silent else f"was not done within {limit:g} s"
    return _Told(
        f"{_place(config.endpoint)} {what}",
        f"check {config.endpoint_setting} and the service, or raise {config.variable('timeout')} "
        f"({options.timeout:g} s now) on slow links",
    )


def _broken(error: Exception, config: _AzureStorageConfig, proxy: str | None) -> _Told:
    host = urlsplit(config.endpoint).hostname or ""
    at_proxy = proxy is not None and isinstance(error, aiohttp.ClientProxyConnectionError)
    peer = f"the proxy {_place(proxy or '')}" if at_proxy else _place(config.endpoint)
    check = _check_peer(config, proxy if at_proxy else None)
    cause = _cause(error)
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, (socket.gaierror, aiohttp.ClientConnectorDNSError)):
        name = urlsplit(proxy or "").hostname if at_proxy else host
        return _Told(f"the host name {name!r} has no address", check)
    if isinstance(cause, (ssl.SSLError, ssl.CertificateError)):
        return _tls(cause, peer, config)
    if number == errno.ECONNREFUSED:
        return _Told(f"{peer} refused the connection", check)
    if number in _NO_ROUTE:
        return _Told(f"there is no route to {peer}", check)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _Told(
            f"the proxy {_place(proxy or '')} refused with status {error.status}",
            "check HTTPS_PROXY, its user name and password, or name the host in NO_PROXY",
        )
    if isinstance(
        error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)
    ) or number in (None, *_CUT_OFF):
        if isinstance(error, aiohttp.ClientResponseError):
            return _Told(f"{peer} answered with something that is not HTTP", check)
        return _Told(
            f"{peer} closed the connection before its answer was complete",
            "check the network in between and the service",
        )
    return _Told(f"{peer}: {redact_secrets(str(cause)) or type(cause).__name__}", check)


def _cause(error: Exception) -> Exception:
    """What lies below an error of aiohttp."""
    for name in ("certificate_error", "os_error"):
        below = getattr(error, name, None)
        if isinstance(below, Exception):
            return below
    return error


def _tls(error: Exception, peer: str, config: _AzureStorageConfig) -> _Told:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".") or "it cannot be verified"
        return _Told(
            f"the certificate of {peer} is not trusted ({why})",
            f"check the host in {config.endpoint_setting} and this machine's clock, or name the "
            "file of its authority in SSL_CERT_FILE",
        )
    reason = (getattr(error, "reason", None) or type(error).__name__).replace("_", " ").lower()
    return _Told(
        f"the TLS handshake with {peer} failed ({reason})",
        f"check {config.endpoint_setting}: an endpoint that speaks plain HTTP, such as Azurite, "
        "begins with http://",
    )


def _check_peer(config: _AzureStorageConfig, proxy: str | None) -> str:
    if proxy:
        return "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    return f"check that {config.endpoint_setting} names the right account or endpoint"
