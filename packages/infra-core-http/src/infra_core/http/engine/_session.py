"""Requests over aiohttp: the connections of one client, and answers not read yet."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import aiohttp
import httpx

from infra_core.runtime import clock

from ._connector import Connector
from ._errors import FAILURES, httpx_error
from ._target import Target, target_of

__all__ = ["Engine", "EngineResponse", "Timeouts", "timeouts_of"]

# Bodies up to this size are handed to the socket at once; larger ones in such pieces.
_PIECE = 65_536
# A server may send headers as large as httpx accepts.
_MAX_HEADER = 65_536
# aiohttp would add these by itself; whether they are sent is for our callers to say.
_NO_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

# When a connection breaks, aiohttp sends GET, PUT and the like once more by itself: a second
# request that no retry policy knows of. Since 3.11 that can be switched off.
_SWITCH = "_retry_connection"
_CAN_SEND_ONCE = _SWITCH in getattr(aiohttp.ClientSession, "ATTRS", {_SWITCH})
_made: ContextVar[list[object]] = ContextVar("requests that one call has made")


class _OnceRequest(aiohttp.ClientRequest):
    """For aiohttp 3.10: refuses to be made a second time within one call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        made = _made.get()
        if made:
            raise aiohttp.ServerDisconnectedError
        made.append(self)
        super().__init__(*args, **kwargs)


class Timeouts(NamedTuple):
    """Seconds for each step, in the meaning of `httpx.Timeout`; None means no bound.

    `connect` covers name resolution, connection and TLS handshake together.
    """

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None


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


class EngineResponse:
    """An answer whose body is still on its way; holds a slot of the pool until it is closed.

    Attributes:
        method: Of the request.
        target: Where the answer came from.
        status: The status code.
        headers: Looked up in any letter case; `getall` for headers that came several times.
    """

    __slots__ = ("_engine", "_read_timeout", "_response", "headers", "method", "status", "target")

    def __init__(
        self,
        engine: "Engine",
        response: aiohttp.ClientResponse,
        method: str,
        target: Target,
        read_timeout: float | None,
    ) -> None:
        self._engine: Engine | None = engine
        self._read_timeout = read_timeout
        self._response = response
        self.method = method
        self.target = target
        self.status = response.status
        self.headers = response.headers

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Names and values byte for byte, in the order in which they came."""
        return list(self._response.raw_headers)

    @property
    def http_version(self) -> str:
        """The version of the answer, as in `HTTP/1.1`."""
        version = self._response.version
        return "HTTP/1.0" if version is not None and version.minor == 0 else "HTTP/1.1"

    @property
    def reason(self) -> str:
        """The reason phrase as it came."""
        return self._response.reason or ""

    async def read(self) -> bytes:
        """Return the whole body as it came over the wire, and close.

        Raises:
            httpx.TransportError: The body did not come whole.
        """
        try:
            return await self._response.read()
        except FAILURES as error:
            failure = self._failure(error)
            raise failure from failure.__cause__
        finally:
            self.close()

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body as it came over the wire, in pieces as large as have arrived.

        Raises:
            httpx.TransportError: The body did not come whole.
        """
        content = self._response.content
        try:
            while True:
                chunk = await content.readany()
                if not chunk:
                    break
                yield chunk
        except FAILURES as error:
            failure = self._failure(error)
            raise failure from failure.__cause__
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._response.release() if self._response.content.at_eof() else self._response.close()
            engine.give_slot()

    def _failure(self, error: Exception) -> httpx.RequestError:
        return httpx_error(
            error,
            lambda: httpx.Request(self.method, self.target.url),
            read=self._read_timeout,
        )


class Engine:
    """Connections of one client on one event loop.

    Args:
        limits: As for httpx; the number of idle connections is bounded by time alone.
        ssl_context: Makes the context for https, when the first such request comes; that of
            httpx when None.
    """

    def __init__(
        self,
        *,
        limits: httpx.Limits | None = None,
        ssl_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        limits = limits or httpx.Limits()
        self._make_ssl_context = ssl_context or httpx.create_ssl_context
        self._ssl_context: ssl.SSLContext | None = None
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None
        # Requests in flight are bounded here and not in the connector: a request that is
        # cancelled while it waits must not take a connection's place with it.
        size = limits.max_connections
        self._slots = None if size is None else asyncio.Semaphore(size)

    def _open_session(self) -> aiohttp.ClientSession:
        idle = self._limits.keepalive_expiry
        if self._limits.max_keepalive_connections == 0:
            connector = Connector(limit=0, force_close=True)
        else:
            connector = Connector(limit=0, keepalive_timeout=86_400.0 if idle is None else idle)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NO_AUTO_HEADERS,
            request_class=aiohttp.ClientRequest if _CAN_SEND_ONCE else _OnceRequest,
            trust_env=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )
        self._session._retry_connection = False
        return self._session

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
        """
        target = url if isinstance(url, Target) else target_of(url)
        timeouts = timeouts_of(timeout)
        secure: ssl.SSLContext | bool = True
        if target.secure:
            # Outside of the block below: a missing bundle is the caller's to hear of.
            if self._ssl_context is None:
                self._ssl_context = self._make_ssl_context()
            secure = self._ssl_context
        await self._take_slot(timeouts.pool, method, target)
        try:
            session = self._session or self._open_session()
            pump = None
            if body is not None and not (isinstance(body, bytes) and len(body) <= _PIECE):
                pump = _Pump(body, timeouts.write)
            sending = session.request(
                method,
                target.request_url,
                headers=headers or {},
                data=pump or body or None,
                allow_redirects=False,
                timeout=_client_timeout(timeouts.connect, timeouts.read),
                ssl=secure,
                read_bufsize=buffer,
            )
            if not _CAN_SEND_ONCE:
                _made.set([])
            response = await (sending if pump is None else pump.watch(sending))
        except FAILURES as error:
            self.give_slot()
            failure = httpx_error(
                error,
                lambda: _request(method, target, headers),
                connect=timeouts.connect,
                read=timeouts.read,
            )
            raise failure from failure.__cause__
        except httpx.WriteTimeout as error:
            self.give_slot()
            error.request = _request(method, target, headers)
            raise
        except BaseException:
            self.give_slot()
            raise
        return EngineResponse(self, response, method, target, timeouts.read)

    async def _take_slot(self, timeout: float | None, method: str, target: Target) -> None:
        slots = self._slots
        if slots is None:
            return
        if not slots.locked():
            await slots.acquire()
            return
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
        session, self._session = self._session, None
        if session is None:
            return
        connector = session.connector
        transports = connector.transports() if isinstance(connector, Connector) else []
        await session.close()
        for transport in transports:
            transport.abort()
        if transports:
            await asyncio.sleep(0)  # an abort is carried out in the loop's next turn


class _Pump:
    """A body sent piece by piece, under the write timeout that aiohttp does not have."""

    def __init__(self, body: bytes | AsyncIterable[bytes], timeout: float | None) -> None:
        self._body = body
        self._timeout = timeout
        self._begun = False
        self._stalled: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def watch(self, sending: Coroutine[Any, Any, aiohttp.ClientResponse]) -> Any:
        """Await the answer; a piece that stays unsent for too long is a write timeout."""
        loop = asyncio.get_running_loop()
        stalled = self._stalled = loop.create_future()
        task = loop.create_task(sending)
        try:
            await asyncio.wait({task, stalled}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise httpx.WriteTimeout(
                f"the server took no more of the body for {self._timeout:g} s: allow a longer "
                "timeout"
            )
        finally:
            self._wind(None)
            stalled.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._body, bytes):
            view = memoryview(self._body)
            for start in range(0, len(view), _PIECE):
                self._wind(self._timeout)
                yield bytes(view[start : start + _PIECE])
        else:
            if self._begun:
                raise aiohttp.ClientPayloadError("a streamed body can be sent only once")
            self._begun = True
            async for piece in self._body:
                self._wind(self._timeout)
                yield piece
        self._wind(None)

    def _wind(self, seconds: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        stalled = self._stalled
        if seconds is not None and stalled is not None and not stalled.done():
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(seconds, _finish, stalled)


def _request(method: str, target: Target, headers: Mapping[str, str] | None) -> httpx.Request:
    return httpx.Request(method, target.url, headers=dict(headers or {}))


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
