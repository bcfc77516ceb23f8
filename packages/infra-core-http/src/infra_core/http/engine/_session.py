"""Requests over aiohttp: the connections of one client."""

import asyncio
import ssl
from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from inspect import signature
from typing import Any

import aiohttp
import httpx
from multidict import CIMultiDict

from infra_core.runtime import clock, redact_library_logs

from .._errors import PrivateAddressError
from .._response.decode import length_of
from ._addresses import literal_address, reason_not_public
from ._answer import EngineResponse
from ._errors import FAILURES, AsyncPrivateAddressError, httpx_error
from ._private_names import send_once
from ._pump import PIECE, Pump
from ._target import Target, Timeouts, target_of, timeouts_of
from ._tls import trust
from .connections import ClosedHereError, Connector, connector, through
from .network_settings import NetworkSettings, Proxy

__all__ = ["Engine"]

# A server may send headers as large as httpx accepts.
_MAX_HEADER = 65_536
# aiohttp would add these by itself; whether they are sent is for our callers to say.
_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding")
_WITH_CONTENT = ("POST", "PUT", "PATCH")  # to which it adds a Content-Type

# Servers send more header lines than the 128 that aiohttp takes by itself, and curl takes them.
# Releases before 3.14 count none, and know no such argument.
_HEADER_LINES: dict[str, Any] = (
    {"max_headers": 10_000}
    if "max_headers" in signature(aiohttp.ClientSession.__init__).parameters
    else {}
)


@lru_cache(maxsize=64)
def _client_timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=read)


class _Request(aiohttp.ClientRequest):
    async def write_bytes(self, *args: Any, **options: Any) -> None:
        """Send the body; a connection that is closing by then ends the wait for the answer, too.

        Its error would be one of a task whose end no code awaits, and asyncio would log it.
        """
        with suppress(aiohttp.ClientConnectionResetError):
            await super().write_bytes(*args, **options)


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
        # Of each proxy of SOCKS, and of HTTP for requests without TLS; under None all others.
        self._sessions: dict[Proxy | None, aiohttp.ClientSession] = {}
        self._proxy_of: Callable[..., Proxy | None] | None = None
        if self._settings.has_proxies:
            self._proxy_of = lru_cache(maxsize=1024)(self._settings.proxy_for_origin)
        # Requests in flight are bounded here and not in the connector: a request that is
        # cancelled while it waits must not take a connection's place with it.
        size = limits.max_connections
        self._slots = None if size is None else asyncio.Semaphore(size)

    def _open_session(self, proxy: Proxy | None) -> aiohttp.ClientSession:
        redact_library_logs()
        idle = self._limits.keepalive_expiry
        options: dict[str, Any] = {"keepalive_timeout": 86_400.0 if idle is None else idle}
        # A proxy may close a connection after an answer that does not say so (tinyproxy does), and
        # then it is unknown whether the next request was read.
        at_proxy = proxy is not None and not proxy.is_socks
        if at_proxy or self._limits.max_keepalive_connections == 0:
            options = {"force_close": True}
        options["limit"] = 0
        options["ssl"] = True  # each request brings its context, which is made when it is needed
        session = aiohttp.ClientSession(
            connector=connector(self._settings, proxy, public_only=self._public_only, **options),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            request_class=_Request,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            **_HEADER_LINES,
        )
        send_once(session)
        self._sessions[proxy] = session
        return session

    def _tls_for(self, target: Target, proxy: Proxy | None) -> ssl.SSLContext | bool:
        """Return what aiohttp takes: a context, or True where there is no TLS."""
        if not target.secure and (proxy is None or proxy.scheme != "https"):
            return True
        if self._ssl_context is None:
            self._ssl_context = self._make_ssl_context()
        return self._ssl_context

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
            headers: All of them, but for Host and Expect, which is not sent. Without
                Content-Length an iterable body is sent in chunks.
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
        proxy = None if self._proxy_of is None else self._proxy_of(*target.origin)
        asked = partial(_request, method, target, headers, timeouts)
        # Outside of the block below: a missing bundle is the caller's to hear of.
        secure = self._tls_for(target, proxy)
        # A tunnel through a proxy of HTTP is a connection to the host.
        at_proxy = proxy is not None and (proxy.is_socks or not target.secure)
        key = proxy if at_proxy else None
        session = self._sessions.get(key) or self._open_session(key)
        options, headers = through(proxy, target.origin[0] + ":", headers)
        length = None
        if body is not None or "Expect" in headers:
            headers, length = _framed(headers, body)
        if self._slots is not None:
            if self._slots.locked():
                await self._wait_for_slot(self._slots, timeouts.pool, asked)
            else:
                await self._slots.acquire()
        response: aiohttp.ClientResponse | None = None
        pump: Pump | None = None
        try:
            if session.closed:  # while the slot was waited for
                raise ClosedHereError
            if self._public_only:
                _check_public(target.origin[1], proxy)
            # Seeing that aiohttp has nothing to add costs less than saying what it may not.
            may_add = body is not None or method in _WITH_CONTENT
            may_add = may_add or not all(map(headers.__contains__, _AUTO_HEADERS))
            if body is not None and not (isinstance(body, bytes) and len(body) <= PIECE):
                pump = Pump(body, timeouts.write, length)
            sending = session.request(
                method,
                target.request_url,
                headers=headers,
                data=pump or body or None,
                allow_redirects=False,
                timeout=_client_timeout(timeouts.connect, timeouts.read),
                ssl=secure,
                read_bufsize=buffer,
                skip_auto_headers=(*_AUTO_HEADERS, "Content-Type") if may_add else None,
                **options,
            )
            response = await (sending if pump is None else pump.watch(sending))
        except FAILURES as error:
            if pump is not None and pump.failure is not None:
                raise pump.failure from None
            failure = httpx_error(error, asked, timeouts, proxy)
            raise failure from failure.__cause__
        except PrivateAddressError as error:  # of the resolver, too
            raise AsyncPrivateAddressError.of(error, asked()) from None
        except httpx.WriteTimeout as error:
            error.request = asked()
            raise
        finally:
            if response is None:
                self.give_slot()
        return EngineResponse(self, response, method, target, asked, timeouts, proxy, pump)

    async def _wait_for_slot(
        self,
        slots: asyncio.Semaphore,
        timeout: float | None,
        asked: Callable[[], httpx.Request],
    ) -> None:
        try:
            async with clock.timeout(timeout):
                await slots.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout(
                f"no connection of max_connections={self._limits.max_connections} got free within "
                f"{timeout:g} s: send fewer requests at once, or allow more by "
                "httpx.Limits(max_connections=...)",
                request=asked(),
            ) from None

    def give_slot(self) -> None:
        """Let the next waiting request go."""
        if self._slots is not None:
            self._slots.release()

    async def aclose(self) -> None:
        """Close all connections; a request that comes later opens new ones."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            if isinstance(session.connector, Connector):
                session.connector.abort()
            await session.close()
        if sessions:
            await asyncio.sleep(0)  # an abort is carried out in the loop's next turn


def _check_public(host: str, proxy: Proxy | None) -> None:
    """Refuse what the resolver does not see: addresses in URLs, and what goes to a proxy."""
    if proxy is not None:
        raise PrivateAddressError.behind_proxy(host, proxy.where, proxy.variable)
    try:
        address = literal_address(host)
        reason = None if address is None else reason_not_public(address)
    except ValueError as error:
        address, reason = None, str(error)
    if reason is not None:
        raise PrivateAddressError(host, address, reason)


def _framed(
    headers: Mapping[str, str], body: bytes | AsyncIterable[bytes] | None
) -> tuple[Mapping[str, str], int | None]:
    """Return the headers to send with a body, and the length that they give an iterable.

    aiohttp waits without end for the answer to `Expect: 100-continue`, and cuts bytes at a
    Content-Length that is too small.
    """
    sent = CIMultiDict(headers)
    sent.popall("Expect", None)
    if isinstance(body, bytes):
        sent["Content-Length"] = str(len(body))
    return sent, length_of(sent.getall("Content-Length", ()))


def _request(
    method: str, target: Target, headers: Mapping[str, str] | None, timeouts: Timeouts
) -> httpx.Request:
    given = (headers or {}).items()
    # Bytes, since a cookie may have what is not ASCII.
    sent = [(name.encode(), value.encode("utf-8", "replace")) for name, value in given]
    extensions = {"timeout": timeouts._asdict()}
    return httpx.Request(method, target.url, headers=sent, extensions=extensions)
