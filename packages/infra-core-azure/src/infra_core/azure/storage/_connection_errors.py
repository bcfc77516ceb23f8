"""Messages for requests without an answer: what happened, and which setting to look at.

The engine says what the network did; the messages here add which setting to look at.
"""

import asyncio
import errno
import socket
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx

from infra_core.http.engine import NetworkSettings, Proxy
from infra_core.runtime import is_permanent_transport_error, redact_secrets

from ._config import _AzureStorageConfig
from ._errors import StorageConnectionError, StorageTimeoutError

__all__ = ["connection_error", "deadline_error", "root_cause"]

_NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
# What the engine's errors are raised from, where its cause says no more than the network did.
_CHAINED = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError)
_CUT_OFF = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


class _ErrorText(NamedTuple):
    what: str
    remedy: str


def connection_error(
    error: Exception,
    *,
    config: _AzureStorageConfig,
    limit: float,
    blob: str,
    operation: str,
) -> StorageConnectionError:
    """The error for what a request met instead of an answer.

    Args:
        error: What the engine or the clock raised.
        config: Where the request went.
        limit: Seconds that it was given in all.
        blob: Name of the blob or container.
        operation: What was tried.
    """
    proxy = NetworkSettings.read().proxy_for(config.endpoint)
    timeouts = (httpx.TimeoutException, TimeoutError, asyncio.TimeoutError)
    if isinstance(error, timeouts):
        kind: type[StorageConnectionError] = StorageTimeoutError
        what, remedy = _timed_out(error, config, proxy, limit)
    else:
        kind = StorageConnectionError
        what, remedy = _broken(error, config, proxy)
    failure = kind(
        f"{operation} of {blob!r} failed: {what}", blob=blob, operation=operation, remedy=remedy
    )
    # A name without address, a certificate that is not trusted: these stay so.
    failure.permanent = is_permanent_transport_error(error.__cause__ or error)
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
    error: Exception, config: _AzureStorageConfig, proxy: Proxy | None, limit: float
) -> _ErrorText:
    options = config.options
    if isinstance(error, httpx.ConnectTimeout):
        peer = f"the proxy {proxy.where}" if proxy else _place(config.endpoint)
        return _ErrorText(
            f"{peer}: connect timed out after {options.connect_timeout:g} s",
            f"{_check_peer(config, proxy)} and that no firewall is in between, or raise "
            f"{config.variable('connect_timeout')}",
        )
    silent = isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout))
    what = f"was silent for {options.timeout:g} s" if silent else f"was not done within {limit:g} s"
    return _ErrorText(
        f"{_place(config.endpoint)} {what}",
        f"check {config.endpoint_setting} and the service, or raise {config.variable('timeout')} "
        f"({options.timeout:g} s now) on slow links",
    )


def _broken(error: Exception, config: _AzureStorageConfig, proxy: Proxy | None) -> _ErrorText:
    if isinstance(error, httpx.ProxyError):
        what, _, remedy = str(error).partition(": ")
        return _ErrorText(what, remedy or "check HTTPS_PROXY, its user name and password")
    below = error.__cause__ if isinstance(error.__cause__, Exception) else error
    at_proxy = proxy is not None and isinstance(below, aiohttp.ClientProxyConnectionError)
    peer = f"the proxy {proxy.where}" if proxy and at_proxy else _place(config.endpoint)
    check = _check_peer(config, proxy if at_proxy else None)
    cause = _cause(below)
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, (socket.gaierror, aiohttp.ClientConnectorDNSError)):
        host = proxy.host if proxy and at_proxy else urlsplit(config.endpoint).hostname
        return _ErrorText(f"cannot resolve host {host!r} (DNS)", check)
    if isinstance(cause, (ssl.SSLError, ssl.CertificateError)):
        return _tls(cause, peer, config)
    if number == errno.ECONNREFUSED:
        return _ErrorText(f"{peer} refused the connection", check)
    if number in _NO_ROUTE:
        return _ErrorText(f"there is no route to {peer}", check)
    if isinstance(error, httpx.RemoteProtocolError) and not isinstance(below, _CHAINED):
        return _ErrorText(f"{peer} answered with something that is not HTTP", check)
    if isinstance(error, httpx.RemoteProtocolError) or number in (None, *_CUT_OFF):
        return _ErrorText(
            f"{peer} closed the connection before its answer was complete",
            "check the network in between and the service",
        )
    return _ErrorText(f"{peer}: {redact_secrets(str(cause)) or type(cause).__name__}", check)


def root_cause(error: Exception) -> Exception | None:
    """What may be shown, and pickled, of an error's cause: the system's own error."""
    if not isinstance(error, httpx.TransportError):
        return error
    below = error.__cause__
    return _cause(below) if isinstance(below, _CHAINED) else None


def _cause(error: Exception) -> Exception:
    """What lies below an error of aiohttp."""
    for name in ("certificate_error", "os_error"):
        below = getattr(error, name, None)
        if isinstance(below, Exception):
            return below
    return error


def _tls(error: Exception, peer: str, config: _AzureStorageConfig) -> _ErrorText:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".") or "it cannot be verified"
        return _ErrorText(
            f"the certificate of {peer} is not trusted ({why})",
            f"check the host in {config.endpoint_setting} and this machine's clock, or name the "
            "file of its authority in SSL_CERT_FILE",
        )
    reason = (getattr(error, "reason", None) or type(error).__name__).replace("_", " ").lower()
    return _ErrorText(
        f"the TLS handshake with {peer} failed ({reason})",
        f"check {config.endpoint_setting}: an endpoint that speaks plain HTTP, such as Azurite, "
        "begins with http://",
    )


def _check_peer(config: _AzureStorageConfig, proxy: Proxy | None) -> str:
    if proxy:
        return "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    return f"check that {config.endpoint_setting} names the right account or endpoint"
