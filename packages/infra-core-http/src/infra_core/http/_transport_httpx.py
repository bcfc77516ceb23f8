"""The fast transport below httpx's own client, and a client that follows redirects safely."""

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from ._errors import InvalidRequestError
from ._headers import checked_headers
from ._intercept import interceptor
from ._redirects import leads_elsewhere, redirected_request
from .engine._session import Engine, EngineResponse, Timeouts
from .engine._target import origin_of, target_of
from .engine.network_settings import NetworkSettings

__all__ = [
    "FastTransport",
    "SafeClient",
    "as_httpx_response",
    "extensions_of",
    "follow_redirects",
    "note_plain",
]

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


class _BodyStream(httpx.AsyncByteStream):
    """The body of an answer as httpx reads it."""

    def __init__(self, response: EngineResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_raw()

    async def aclose(self) -> None:
        self._response.close()


def as_httpx_response(
    response: EngineResponse, request: httpx.Request | None = None, default_encoding: Any = "utf-8"
) -> httpx.Response:
    """Return an answer as httpx knows it, its body unread."""
    return httpx.Response(
        response.status,
        headers=response.raw_headers,
        stream=_BodyStream(response),
        extensions=extensions_of(response),
        request=request,
        default_encoding=default_encoding,
    )


def extensions_of(response: EngineResponse) -> dict[str, object]:
    """Return what `httpx.Response.extensions` has: version and reason as they came."""
    return {
        "http_version": response.http_version.encode("ascii"),
        "reason_phrase": response.reason.encode("ascii", "replace"),
    }


class FastTransport(httpx.AsyncBaseTransport):
    """Carries the requests of an `httpx.AsyncClient`, over httpx's own transport where need be.

    Args:
        engine: Owned from now on.
        plain: Makes httpx's transport, for requests that are to be intercepted or that the engine
            cannot carry.
    """

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
        given = request.extensions.get("timeout") or {}
        timeouts = Timeouts(*(given.get(name) for name in Timeouts._fields))
        response = await self.engine.send(
            request.method,
            target_of(request.url),
            headers=_header_map(request),
            timeout=timeouts,
            body=_body_of(request),
        )
        return as_httpx_response(response)

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
    if request.url.scheme not in ("http", "https") or not request.url.host:
        return "the URL is for httpx to refuse"
    if not all(value.isascii() for _, value in request.headers.raw):
        return "a header has characters outside of ASCII"
    try:
        checked_headers(request.headers)
    except InvalidRequestError:
        return "a header is for httpx to refuse"
    return None


def _header_map(request: httpx.Request) -> Any:
    from multidict import CIMultiDict

    return CIMultiDict(
        (name.decode("ascii"), value.decode("ascii"))
        for name, value in request.headers.raw
        if name.lower() != b"transfer-encoding"
    )


def _body_of(request: httpx.Request) -> bytes | AsyncIterable[bytes] | None:
    try:
        return request.content or None
    except httpx.RequestNotRead:
        stream = request.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise InvalidRequestError(
                "the body of an asynchronous request cannot be a file or a plain iterator: pass "
                "bytes, or an asynchronous iterable of bytes"
            ) from None
        return stream


Send = Callable[[httpx.Request], Awaitable[httpx.Response]]


async def follow_redirects(
    send: Send, client: httpx.AsyncClient, request: httpx.Request, response: httpx.Response
) -> httpx.Response:
    """Follow from a redirect to the last answer, its body unread, its `history` set.

    Args:
        send: Sends one request, follows nothing, applies no authentication.
        client: Knows cookies and `max_redirects`.
        request: The one that was answered.
        response: Its answer, unread.

    Raises:
        httpx.TooManyRedirects: More than the client's `max_redirects`.
    """
    history: list[httpx.Response] = []
    while leads_elsewhere(response):
        if len(history) >= client.max_redirects:
            await response.aclose()
            raise httpx.TooManyRedirects(
                f"more than {client.max_redirects} redirects, the last from "
                f"{origin_of(request.url)[1]}: they lead in a circle, or max_redirects is too low",
                request=request,
            )
        try:
            await response.aread()
            request = redirected_request(request, response, client.cookies)
        except BaseException:
            await response.aclose()
            raise
        history.append(response)
        response = await send(request)
        response.history = list(history)
    return response


class SafeClient(httpx.AsyncClient):
    """An `httpx.AsyncClient` whose redirects carry no credentials to another origin.

    Attributes:
        network: Has the logins of netrc.
    """

    network = NetworkSettings()

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """Send a request as `httpx.AsyncClient.send` does, redirects by our rules."""
        follow = (
            self.follow_redirects
            if follow_redirects is httpx.USE_CLIENT_DEFAULT
            else bool(follow_redirects)
        )
        if not isinstance(request.stream, httpx.AsyncByteStream):
            _body_of(request)  # says clearly what is wrong with it
        if auth is httpx.USE_CLIENT_DEFAULT and self.auth is None:
            self._log_in(request)
        response = await super().send(request, stream=True, auth=auth, follow_redirects=False)
        if follow and leads_elsewhere(response):
            response = await self.follow(response.request, response)
        if not stream:
            try:
                await response.aread()
            except BaseException:
                await response.aclose()
                raise
        return response

    async def follow(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        """Follow from an answer that is a redirect to the last one, its body unread."""
        return await _follow(self._send_hop, self, request, response)

    def _log_in(self, request: httpx.Request) -> None:
        """Add the login of netrc to a request that brings no credentials of its own."""
        if self.network.netrc_path and "Authorization" not in request.headers:
            login = (
                None if request.url.userinfo else self.network.netrc_authorization(request.url.host)
            )
            if login is not None:
                request.headers["Authorization"] = login

    async def _send_hop(self, request: httpx.Request) -> httpx.Response:
        self._log_in(request)
        return await super().send(request, stream=True, auth=None, follow_redirects=False)


_follow = follow_redirects  # the method above has a parameter of that name
