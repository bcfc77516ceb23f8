"""The transports below httpx's own client, fast and plain, and a client that redirects safely."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any

import httpx
from multidict import CIMultiDict

from ._async_response import fit_to_travel, response_of
from ._cookies import BoundedCookieJar, cookie_header
from ._errors import InvalidRequestError, PrivateAddressError
from ._headers import checked_headers
from ._intercept import interceptor
from ._redirects import KnowingHosts, redirected_request, send_following
from .engine._errors import AsyncPrivateAddressError, httpx_error
from .engine._session import Engine
from .engine._target import Timeouts, origin_of, target_of
from .engine.connections import missing_socks
from .engine.network_settings import NetworkSettings, Proxy
from .engine.resolver import lookup_async, public_only_of

if TYPE_CHECKING:
    from ._async_client import AsyncHttpClient

__all__ = ["FastTransport", "PlainTransport", "SafeClient", "bounded", "note_plain", "with_params"]

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
        timeouts = _timeouts_of(request)

        def failure_of(error: Exception) -> Exception:
            return httpx_error(error, lambda: request, timeouts, proxy)

        try:
            if self._public_only:
                request = await self._pinned(request, proxy, timeouts.connect)
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


_logger = logging.getLogger("infra_core.http_async")
_noted: set[str] = set()


def note_plain(reason: str) -> None:
    """Log, once per reason and process, that requests travel over plain httpx."""
    if reason not in _noted:
        _noted.add(reason)
        _logger.info(
            "requests go through plain httpx, not the fast transport: %s",
            reason,
            extra={"reason": reason},
        )


class FastTransport(httpx.AsyncBaseTransport):
    """Carries the requests of an `httpx.AsyncClient`, over httpx's own transport where need be."""

    def __init__(self, engine: Engine, plain: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self.engine = engine
        self._make_plain = plain
        self._plain: httpx.AsyncBaseTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reason = _plain_reason(request)
        if reason is not None:
            note_plain(reason)
            if self._plain is None:
                self._plain = self._make_plain()
            return await self._plain.handle_async_request(request)
        answer = await self.engine.send(
            request.method,
            target_of(request.url),
            headers=_header_map(request),
            timeout=_timeouts_of(request),
            body=_body_of(request),
        )
        return response_of(answer)

    async def aclose(self) -> None:
        await self.engine.aclose()
        plain, self._plain = self._plain, None
        if plain is not None:
            await plain.aclose()


def _plain_reason(request: httpx.Request) -> str | None:
    patched = interceptor()
    if patched is not None:
        return f"{patched} is patched"
    unknown = set(request.extensions) - {"timeout"}
    if unknown:
        return f"request extensions {sorted(unknown)}"
    if request.url.scheme not in ("http", "https") or not request.url.raw_host:
        return "the URL is for httpx to refuse"
    try:
        headers = _header_map(request)
        headers.popall("Cookie", None)  # a cookie goes back as the server gave it
        checked_headers(headers)
    except (UnicodeDecodeError, InvalidRequestError):
        return "a header has characters outside of ASCII, or is for httpx to refuse"
    return None


def _timeouts_of(request: httpx.Request) -> Timeouts:
    given = request.extensions.get("timeout") or {}
    return Timeouts(*(given.get(name) for name in Timeouts._fields))


def _header_map(request: httpx.Request) -> "CIMultiDict[str]":
    return CIMultiDict(
        (name.decode("ascii"), value.decode())
        for name, value in request.headers.raw
        if name.lower() != b"transfer-encoding"
    )


def _body_of(request: httpx.Request) -> bytes | AsyncIterable[bytes] | None:
    try:
        return request.content or None
    except httpx.RequestNotRead:
        stream = request.stream
        if isinstance(stream, httpx.ByteStream):
            return b"".join(stream) or None
        if not isinstance(stream, httpx.AsyncByteStream):
            raise InvalidRequestError(
                "the body of an asynchronous request cannot be a file or a plain iterator: pass "
                "bytes, or an asynchronous iterable of bytes"
            ) from None
        return stream


class SafeClient(KnowingHosts):
    """An `httpx.AsyncClient` with the redirects, cookies, texts and queries of this package."""

    manager: "Callable[[], AsyncHttpClient | None]" = staticmethod(lambda: None)
    """Returns the `AsyncHttpClient` that made this client, while there is one."""

    async def get_client(self) -> httpx.AsyncClient:
        """Return the client in use: `async with AsyncHttpClient()` gives out one with all names."""
        manager = self.manager()
        return self if manager is None else await manager.get_client()

    async def close(self) -> None:
        """Close the connections; the next call with `client=` opens new ones."""
        manager = self.manager()
        await (self.aclose() if manager is None else manager.close())

    async def reconfigure(self, **settings: Any) -> None:
        """Replace all settings, as `AsyncHttpClient.reconfigure` does."""
        manager = self.manager()
        if manager is not None:
            await manager.reconfigure(**settings)

    _building = False

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies of this client, bounded as in browsers."""
        return httpx.Cookies() if self._building else super().cookies

    @cookies.setter
    def cookies(self, cookies: Any) -> None:
        httpx.AsyncClient.cookies.__set__(self, bounded(cookies))  # type: ignore[attr-defined]

    def build_request(
        self, method: str, url: Any, *, params: Any = None, **options: Any
    ) -> httpx.Request:
        """Build a request as `httpx.AsyncClient.build_request` does; `params` adds to the query."""
        given = options.pop("cookies", None)
        self._building = True  # httpx raises an error for a cookie outside of ASCII
        try:
            request = super().build_request(method, url, **options)
        finally:
            self._building = False
        with_params(request, self, url, params)
        if "cookie" not in request.headers:
            cookies = self.cookies
            if given:
                cookies = httpx.Cookies(cookies)
                cookies.update(given)
            cookie = cookie_header(cookies.jar, str(request.url))
            if cookie is not None:
                pair = (b"Cookie", cookie.encode())
                request.headers = httpx.Headers([*request.headers.raw, pair])
        return request

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """Send a request as `httpx.AsyncClient.send` does, redirects by our rules."""
        if follow_redirects is httpx.USE_CLIENT_DEFAULT:
            follow_redirects = self.follow_redirects
        if not isinstance(request.stream, httpx.AsyncByteStream):
            _body_of(request)  # says clearly what is wrong with it
        if auth is httpx.USE_CLIENT_DEFAULT and self.auth is None and not request.url.userinfo:
            login = self.login(request.url.raw_host.decode(), request.headers)
            if login is not None:
                request.headers["Authorization"] = login
        try:
            response = await send_following(
                super().send, self, request, follow=follow_redirects, auth=auth
            )
            if not stream:
                try:
                    await response.aread()
                except BaseException:
                    await response.aclose()
                    raise
        except httpx.RequestError as error:
            fit_to_travel(error)
            raise
        return response

    def login(self, host: str, headers: Mapping[str, str]) -> str | None:
        """Return the login of netrc for a request that brings no credentials of its own."""
        if not self.network.netrc_path or "Authorization" in headers:
            return None
        return self.network.netrc_authorization(host)

    def _build_redirect_request(self, request: httpx.Request, response: httpx.Response) -> Any:
        """Return where a redirect leads, for `next_request`; None where that is not a URL."""
        try:
            return redirected_request(self, request, response)
        except httpx.TransportError:
            return None


def bounded(cookies: Any) -> Any:
    """Return cookies in a jar with bounds; a jar that the caller made stays the caller's."""
    if isinstance(cookies, CookieJar):
        return cookies
    return BoundedCookieJar(httpx.Cookies(cookies).jar)


def with_params(
    request: httpx.Request, client: httpx.AsyncClient, url: Any, params: Any
) -> httpx.Request:
    """Return a request with parameters added to the query of its URL, which stays as it is."""
    if params or client.params:
        own = httpx.URL(url).query
        more = str(client.params.merge(params or {})).encode("ascii")
        query = b"&".join(part for part in (own, more) if part)
        request.url = request.url.copy_with(query=query or None)
    return request
