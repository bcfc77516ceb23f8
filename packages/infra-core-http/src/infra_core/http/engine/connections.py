"""The network settings for those who call aiohttp or requests themselves, as the SDKs of clouds do.

Example:
    A session of aiohttp for one origin::

        settings = NetworkSettings.read()
        proxy = settings.proxy_for(url)
        async with aiohttp.ClientSession(connector=connector(settings, proxy)) as session:
            arguments, headers = through(proxy, url, headers)
            async with session.get(url, headers=headers, **arguments) as response:
                ...

    One of requests, for all::

        session = requests_session()
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import yarl
from multidict import CIMultiDict

from .._errors import InvalidRequestError
from . import _private_names as private
from ._protocol import Protocol
from ._tls import trust
from .network_settings import NetworkSettings, Proxy
from .resolver import Resolver

if TYPE_CHECKING:
    import requests

__all__ = [
    "ClosedHereError",
    "Connector",
    "SocksRefusedError",
    "SocksUnreachableError",
    "connector",
    "missing_socks",
    "requests_session",
    "through",
    "trust",
]


class Connector(aiohttp.TCPConnector):
    """Direct connections, and those to HTTP proxies.

    A connection whose last answer left something behind (bytes after it, a body not read, a
    request not sent to its end) is ended at once: asking for a clean end would mean to wait
    for the peer. An idle one is looked at again before it is used.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        private.use_protocol(self, partial(Protocol, loop=asyncio.get_running_loop()))

    async def _get(self, key: Any, traces: Any) -> Any:
        while True:
            connection = await super()._get(key, traces)
            if connection is None:
                return None
            protocol: Any = connection.protocol
            if not protocol.should_close and not protocol.has_unread_bytes():
                return connection
            connection.close()

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        transport = protocol.transport
        if transport is not None and (
            should_close or protocol.should_close or transport.get_write_buffer_size()
        ):
            transport.abort()
            should_close = True
        super()._release(key, protocol, should_close=should_close)

    def abort(self) -> None:
        """End all connections, idle and in use; who waits for an answer hears of it."""
        for protocol in private.protocols_of(self):
            if isinstance(protocol, Protocol):  # and no connection that is being opened
                protocol.fail(ClosedHereError())


class ClosedHereError(aiohttp.ClientConnectionError):
    """The client was closed while an answer was awaited or read."""


class SocksUnreachableError(aiohttp.ClientConnectionError):
    """The proxy cannot be connected to; the cause says why."""


class SocksRefusedError(aiohttp.ClientConnectionError):
    """The proxy let the connection not through."""


def missing_socks(proxy: Proxy) -> InvalidRequestError:
    """Return what to raise where the packages for SOCKS are not installed."""
    return InvalidRequestError(
        f"{proxy.variable} names the SOCKS proxy {proxy.where}, and the packages for SOCKS are "
        "not installed: pip install 'infra-core-http[socks]', or name an http:// proxy"
    )


def _socks_connector(proxy: Proxy, **options: Any) -> Connector:
    """Return an aiohttp connector whose connections go through a SOCKS proxy."""
    try:
        from aiohttp_socks import (
            ProxyConnectionError,
            ProxyConnector,
            ProxyError,
            ProxyTimeoutError,
            ProxyType,
        )
    except ImportError:
        raise missing_socks(proxy) from None

    class SocksConnector(Connector, ProxyConnector):
        """Ours, on theirs, with errors of aiohttp."""

        async def connect(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().connect(*args, **kwargs)
            except ProxyConnectionError as error:
                raise SocksUnreachableError(str(error)) from error
            except ProxyTimeoutError as error:
                raise aiohttp.ConnectionTimeoutError(str(error)) from error
            except ProxyError as error:
                raise SocksRefusedError(str(error)) from error

        async def _connect_via_proxy(self, *args: Any, **kwargs: Any) -> Any:
            transport, theirs = await super()._connect_via_proxy(*args, **kwargs)
            ours: Any = Protocol(loop=asyncio.get_running_loop())
            transport.set_protocol(ours)
            ours.connection_made(transport)
            ours.theirs = theirs  # it holds the writer that would close the connection
            return transport, ours

    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    return SocksConnector(
        proxy_type=kind,
        host=proxy.host,
        port=proxy.port,
        username=proxy.username,
        password=proxy.password,
        rdns=proxy.scheme in ("socks4a", "socks5h"),
        **options,
    )


def connector(
    settings: NetworkSettings,
    proxy: Proxy | None = None,
    *,
    public_only: bool = False,
    **options: Any,
) -> Connector:
    """Return a connector of aiohttp with our look-ups of names, and for SOCKS where it is used.

    Args:
        settings: Whose certificates are trusted, unless `ssl` is among the options.
        proxy: What all its connections go through; one of HTTP is an argument of each request
            besides (`through`).
        public_only: Whether addresses that are not public are refused.
        **options: Of `aiohttp.TCPConnector`.

    Raises:
        InvalidRequestError: A SOCKS proxy, and the packages for it are not installed.
        OSError: A file or folder of certificates is missing or cannot be read.
    """
    if "ssl" not in options:
        options["ssl"] = trust(settings)
    if proxy is not None and proxy.is_socks:
        return _socks_connector(proxy, **options)
    return Connector(resolver=Resolver(public_only=public_only), **options)


def through(
    proxy: Proxy | None, url: str, headers: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return the arguments of `aiohttp.ClientSession.request` for a proxy, and the headers.

    Args:
        proxy: What the request goes through; None for nothing.
        url: Of the request; its scheme decides who is shown the credentials of the proxy.
        headers: Of the request; not changed.
    """
    sent = headers or {}
    if proxy is None or proxy.is_socks:
        return {}, sent
    arguments: dict[str, Any] = {"proxy": yarl.URL(proxy.bare_url)}
    login = proxy.authorization
    if login is None:
        return arguments, sent
    if url[:6].lower() == "https:":  # with CONNECT, and not with the request in the tunnel
        arguments["proxy_headers"] = {"Proxy-Authorization": login}
        return arguments, sent
    more = CIMultiDict(sent)
    more.setdefault("Proxy-Authorization", login)
    return arguments, more


def requests_session() -> "requests.Session":
    """Return a session of requests that looks at the network settings at each request.

    Not thread-safe, as every such session.
    """
    from .._sync_adapter import NetworkSession

    return NetworkSession()
