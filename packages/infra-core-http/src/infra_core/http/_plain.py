"""httpx's own transport, with the proxies, certificates and checks of all others."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from ._errors import PrivateAddressError
from .engine._errors import AsyncPrivateAddressError, httpx_error
from .engine._target import origin_of
from .engine.connections import missing_socks
from .engine.network_settings import NetworkSettings, Proxy
from .engine.resolver import lookup_async, public_only_of

__all__ = ["PlainTransport"]

# httpx has no text for some of these, and for others that of its parser.
_OF_NETWORK = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.LocalProtocolError,
    httpx.ProxyError,
    httpx.ReadError,
    httpx.ReadTimeout,
    httpx.RemoteProtocolError,
    httpx.WriteError,
)


class _Body(httpx.AsyncByteStream):
    """A body whose failures have our texts."""

    def __init__(self, stream: Any, failure_of: Callable[[Exception], Exception]) -> None:
        self._stream = stream
        self._failure_of = failure_of

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                yield piece
        except _OF_NETWORK as error:
            raise self._failure_of(error) from error

    async def aclose(self) -> None:
        await self._stream.aclose()


class PlainTransport(httpx.AsyncBaseTransport):
    """Carries requests over `httpx.AsyncHTTPTransport`, one for each proxy.

    With `public_only` the host is looked up and checked here, and httpx is given the address
    instead, so that it looks nothing up again; TLS still checks the name.
    """

    def __init__(
        self, settings: NetworkSettings, *, public_only: bool = False, **options: Any
    ) -> None:
        self._settings = settings
        self._public_only = public_only
        self._options = options
        self._transports: dict[Proxy | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self._settings.proxy_for_origin(*origin_of(request.url))
        given = request.extensions.get("timeout") or {}
        seconds = given.get("connect")

        def failure_of(error: Exception) -> Exception:
            read = given.get("read")
            return httpx_error(error, lambda: request, connect=seconds, read=read, proxy=proxy)

        try:
            if self._public_only:
                request = await self._pinned(request, proxy, seconds)
            transport = self._transports.get(proxy)
            if transport is None:
                transport = self._transports[proxy] = self._make(proxy)
            response = await transport.handle_async_request(request)
        except PrivateAddressError as error:
            raise AsyncPrivateAddressError.of(error, request) from None
        except _OF_NETWORK as error:
            raise failure_of(error) from error
        if type(response.stream).__module__.startswith("httpx."):  # and not of a mock
            response.stream = _Body(response.stream, failure_of)
        return response

    def _make(self, proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
        if proxy is None:
            return httpx.AsyncHTTPTransport(**self._options)
        login = None if proxy.username is None else (proxy.username, proxy.password or "")
        # httpx knows SOCKS 5 alone, whose names it always has looked up by the proxy.
        scheme = "socks5" if proxy.is_socks else proxy.scheme
        url = f"{scheme}://{proxy.where}"
        try:
            return httpx.AsyncHTTPTransport(proxy=httpx.Proxy(url, auth=login), **self._options)
        except ImportError:
            raise missing_socks(proxy) from None

    async def _pinned(
        self, request: httpx.Request, proxy: Proxy | None, seconds: float | None
    ) -> httpx.Request:
        """Return a request to an address of the host that is public."""
        scheme, host, port = origin_of(request.url)
        if proxy is not None:
            raise PrivateAddressError.behind_proxy(host, proxy.where, proxy.variable)
        try:
            infos = await asyncio.wait_for(lookup_async(host, port), seconds)
        except socket.gaierror as error:
            raise httpx.ConnectError(str(error)) from error
        except (TimeoutError, asyncio.TimeoutError):
            raise httpx.ConnectTimeout("no answer of the name server") from None
        address = str(public_only_of(host, infos)[0][4][0])
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,  # Host among them
            stream=request.stream,
            extensions=request.extensions,
        )
        if scheme == "https":
            pinned.extensions = {**request.extensions, "sni_hostname": host}
        return pinned

    async def aclose(self) -> None:
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            await transport.aclose()
