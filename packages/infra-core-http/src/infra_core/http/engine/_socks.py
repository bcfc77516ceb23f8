"""SOCKS proxies, which the extra `socks` brings."""

import asyncio
from typing import Any

import aiohttp

from .._errors import InvalidRequestError
from ._connector import Connector
from ._protocol import Protocol
from .network_settings import Proxy

__all__ = ["SocksRefusedError", "SocksUnreachableError", "missing_socks", "socks_connector"]


class SocksUnreachableError(aiohttp.ClientConnectionError):
    """There is no connection to the proxy; the cause says why."""


class SocksRefusedError(aiohttp.ClientConnectionError):
    """The proxy let the connection not through."""


def missing_socks(proxy: Proxy) -> InvalidRequestError:
    """Return what to raise where the packages for SOCKS are not installed."""
    return InvalidRequestError(
        f"{proxy.variable} names the SOCKS proxy {proxy.where}, and the packages for SOCKS are "
        "not installed: pip install 'infra-core-http[socks]', or name an http:// proxy"
    )


def socks_connector(proxy: Proxy, **options: Any) -> Connector:
    """Return an aiohttp connector whose connections go through a SOCKS proxy.

    Raises:
        InvalidRequestError: The packages for SOCKS are not installed.
    """
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
