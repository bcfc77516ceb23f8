"""Requests over aiohttp: the connections of one client."""

import asyncio
import ssl
from collections.abc import AsyncIterable, Callable, Mapping
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple

import aiohttp
import httpx

from infra_core.runtime import clock, redact_library_logs

from .._errors import PrivateAddressError
from ._addresses import literal_address, reason_not_public
from ._answer import EngineResponse
from ._connector import Connector
from ._errors import FAILURES, AsyncPrivateAddressError, httpx_error
from ._private_names import send_once
from ._pump import PIECE, Pump
from ._target import Origin, Target, target_of
from ._tls import trust
from .connections import connector, through
from .network_settings import NetworkSettings, Proxy

__all__ = ["Engine", "Timeouts", "timeouts_of"]

# A server may send headers as large as httpx accepts.
_MAX_HEADER = 65_536
# aiohttp would add these by itself; whether they are sent is for our callers to say.
_NO_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_WITH_CONTENT = ("POST", "PUT", "PATCH")  # to which it adds a Content-Type

# Servers send more header lines than the 128 that aiohttp takes by itself, and curl takes them.
# Releases before 3.14 count none, and know no such argument.
_HEADER_LINES: dict[str, Any] = (
    {"max_headers": 10_000}
    if "max_headers" in signature(aiohttp.ClientSession.__init__).parameters
    else {}
)


class Timeouts(NamedTuple):
    """Seconds for each step, in the meaning of `httpx.Timeout`; None means no bound.

    `connect` covers name resolution, connection and TLS handshake together.
    """

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None

    def as_httpx(self) -> httpx.Timeout:
        """Return them as httpx takes them."""
        return httpx.Timeout(**self._asdict())


def timeouts_of(timeout: "float | httpx.Timeout | Timeouts | None") -> Timeouts:
    """Return the four timeouts for what callers pass."""
    if isinstance(timeout, Timeouts):
        return timeout
    if isinstance(timeout, httpx.Timeout):
        return Timeouts(timeout.connect, timeout.read, timeout.write, timeout.pool)
    return Timeouts(timeout, timeout, timeout, timeout)


@lru_cache(maxsize=64)
def _client_timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=read)


class Engine:
    """Connections of one client on one event loop.

    Args:
        limits: As for httpx; the number of idle connections is bounded by time alone.
        ssl_context: Makes the context for https, when the first such request comes; when None,
            the one that trusts the certificates of the settings.
        settings: Proxies and certificates; those of the environment, as it is now, when None.
        public_only: Whether hosts without a public address are refused.
    """

    def __init__(
        self,
        *,
        limits: httpx.Limits | None = None,
        ssl_context: Callable[[], ssl.SSLContext] | None = None,
        settings: NetworkSettings | None = None,
        public_only: bool = False,
    ) -> None:
        limits = limits or httpx.Limits()
        self._settings = NetworkSettings.read() if settings is None else settings
        self._make_ssl_context = ssl_context or (lambda: trust(self._settings))
        self._ssl_context: ssl.SSLContext | None = None
        self._limits = limits
        self._public_only = public_only
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[Origin, Proxy | None] | None = (
            {} if self._settings.has_proxies else None
        )
        # For those of SOCKS, and for requests without TLS to those of HTTP.
        self._by_proxy: dict[Proxy, aiohttp.ClientSession] = {}
        # Requests in flight are bounded here and not in the connector: a request that is
        # cancelled while it waits must not take a connection's place with it.
        size = limits.max_connections
        self._slots = None if size is None else asyncio.Semaphore(size)

    def _open_session(self, proxy: Proxy | None = None) -> aiohttp.ClientSession:
        redact_library_logs()
        options: dict[str, Any] = {"limit": 0, "force_close": True}
        if self._limits.max_keepalive_connections != 0:
            idle = self._limits.keepalive_expiry
            options = {"limit": 0, "keepalive_timeout": 86_400.0 if idle is None else idle}
        if proxy is not None and not proxy.is_socks:
            # A proxy may close a connection after an answer that does not say so (tinyproxy
            # does), and then it is unknown whether the next request was read.
            options = {"limit": 0, "force_close": True}
        options["ssl"] = True  # each request brings its context, which is made when it is needed
        session = aiohttp.ClientSession(
            connector=connector(self._settings, proxy, public_only=self._public_only, **options),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            **_HEADER_LINES,
        )
        send_once(session)
        if proxy is not None:
            self._by_proxy[proxy] = session
        else:
            self._session = session
        return session

    def _proxy_of(self, target: Target) -> Proxy | None:
        known = self._proxies
        if known is None:
            return None
        origin = target.origin
        if origin not in known:
            if len(known) >= 1024:
                known.clear()
            known[origin] = self._settings.proxy_for_origin(*origin)
        return known[origin]

    def _check_public(self, method: str, target: Target, proxy: Proxy | None) -> None:
        """Refuse what the resolver does not see: addresses in URLs, and what goes to a proxy."""
        host = target.origin[1]
        refused: PrivateAddressError | None = None
        if proxy is not None:
            refused = PrivateAddressError.behind_proxy(host, proxy.where, proxy.variable)
        else:
            try:
                address = literal_address(host)
                reason = None if address is None else reason_not_public(address)
            except ValueError as error:
                address, reason = None, str(error)
            if reason is not None:
                refused = PrivateAddressError(host, address, reason)
        if refused is not None:
            raise AsyncPrivateAddressError.of(refused, method, target.url)

    def _tls_for(self, target: Target, proxy: Proxy | None) -> ssl.SSLContext | bool:
        """Return what aiohttp takes: a context, or True where there is no TLS."""
        if not target.secure and (proxy is None or proxy.scheme != "https"):
            return True
        if self._ssl_context is None:
            self._ssl_context = self._make_ssl_context()
        return self._ssl_context

    def _way(
        self, proxy: Proxy | None, target: Target, headers: Mapping[str, str] | None
    ) -> tuple[aiohttp.ClientSession, dict[str, Any], Mapping[str, str]]:
        """Return the session, further arguments and headers for a request."""
        if proxy is None:
            return self._session or self._open_session(), {}, headers or {}
        if proxy.is_socks or not target.secure:
            session = self._by_proxy.get(proxy) or self._open_session(proxy)
        else:  # a tunnel is a connection to the host
            session = self._session or self._open_session()
        return session, *through(proxy, target.origin[0] + ":", headers)

    async def send(
        self,
        method: str,
        url: "str | httpx.URL | Target",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: "float | httpx.Timeout | Timeouts | None" = 30.0,
        body: bytes | AsyncIterable[bytes] | None = None,
        buffer: int = 65_536,
    ) -> EngineResponse:
        """Send a request once and return its answer as soon as the headers are here.

        Args:
            method: In upper case.
            url: Where to.
            headers: All of them, but for Host. Without Content-Length an iterable body is sent
                in chunks.
            timeout: Seconds for each step, or one for each.
            body: Bytes, or an asynchronous iterable of them, which can be sent once.
            buffer: Bytes that may wait unread before the server is slowed down.

        Raises:
            httpx.TransportError: As httpx would raise it.
            httpx.InvalidURL: A malformed URL.
            PrivateAddressError: `public_only` is set, and the host is not public.
            InvalidRequestError: The variable of the proxy holds no proxy URL, or one of SOCKS
                without the packages for it.
        """
        target = url if isinstance(url, Target) else target_of(url)
        timeouts = timeouts_of(timeout)
        proxy = self._proxy_of(target)
        if self._public_only:
            self._check_public(method, target, proxy)
        # Outside of the block below: a missing bundle is the caller's to hear of.
        secure = self._tls_for(target, proxy)
        session, options, headers = self._way(proxy, target, headers)
        if self._slots is not None:
            if self._slots.locked():
                await self._wait_for_slot(self._slots, timeouts.pool, method, target)
            else:
                await self._slots.acquire()
        response: aiohttp.ClientResponse | None = None
        try:
            # Seeing that aiohttp has nothing to add costs less than saying what it may not.
            may_add = (
                body is not None
                or method in _WITH_CONTENT
                or "User-Agent" not in headers
                or "Accept" not in headers
                or "Accept-Encoding" not in headers
            )
            pump = None
            if body is not None and not (isinstance(body, bytes) and len(body) <= PIECE):
                pump = Pump(body, timeouts.write)
            sending = session.request(
                method,
                target.request_url,
                headers=headers,
                data=pump or body or None,
                allow_redirects=False,
                timeout=_client_timeout(timeouts.connect, timeouts.read),
                ssl=secure,
                read_bufsize=buffer,
                skip_auto_headers=_NO_AUTO_HEADERS if may_add else None,
                **options,
            )
            response = await (sending if pump is None else pump.watch(sending))
        except FAILURES as error:
            failure = httpx_error(
                error,
                lambda: _request(method, target, headers),
                connect=timeouts.connect,
                read=timeouts.read,
                proxy=proxy,
            )
            raise failure from failure.__cause__
        except PrivateAddressError as error:  # of the resolver
            raise AsyncPrivateAddressError.of(error, method, target.url) from None
        except httpx.WriteTimeout as error:
            error.request = _request(method, target, headers)
            raise
        finally:
            if response is None:
                self.give_slot()
        return EngineResponse(self, response, method, target, timeouts.read, proxy, pump)

    async def _wait_for_slot(
        self, slots: asyncio.Semaphore, timeout: float | None, method: str, target: Target
    ) -> None:
        try:
            async with clock.timeout(timeout):
                await slots.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout(
                f"no connection of max_connections={self._limits.max_connections} got free within "
                f"{timeout:g} s: send fewer requests at once, or allow more by "
                "httpx.Limits(max_connections=...)",
                request=httpx.Request(method, target.url),
            ) from None

    def give_slot(self) -> None:
        """Let the next waiting request go."""
        if self._slots is not None:
            self._slots.release()

    async def aclose(self) -> None:
        """Close all connections; a request that comes later opens new ones."""
        sessions = [*self._by_proxy.values(), *([self._session] if self._session else [])]
        self._session = None
        self._by_proxy.clear()
        transports: list[asyncio.Transport] = []
        for session in sessions:
            if isinstance(session.connector, Connector):
                transports += session.connector.transports()
            await session.close()
        for transport in transports:
            transport.abort()
        if transports:
            await asyncio.sleep(0)  # an abort is carried out in the loop's next turn


def _request(method: str, target: Target, headers: Mapping[str, str] | None) -> httpx.Request:
    # As they are sent; of texts, httpx takes ASCII alone.
    given = (headers or {}).items()
    sent = {name.encode(): value.encode("utf-8", "replace") for name, value in given}
    return httpx.Request(method, target.url, headers=sent)
