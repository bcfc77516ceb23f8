"""One request whose body is read as it comes, byte for byte as the wire carries it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, cast

import httpx

from ._async_client import AnyClient, AsyncHttpClient, get_shared_http_client, manager_of
from ._attempts import foreign_client, foreign_headers, request_of, send_through
from ._direct import send_direct
from ._headers import check_method, checked_headers
from .engine._answer import EngineResponse
from .engine._target import target_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["StreamedResponse", "host_turn", "open_stream"]

# Bytes that may wait unread: large, so that a fast server is not stopped at every turn.
_BUFFER = 1 << 20
_NO_GATE = nullcontext()


class StreamedResponse:
    """An answer whose headers are here and whose body is not.

    Attributes:
        status: The status code.
        headers: Looked up in any letter case.
        url: Where the answer came from, redirects followed.
        http_version: "HTTP/1.1", "HTTP/2" and the like.
    """

    def __init__(self, source: "EngineResponse | httpx.Response", url: str) -> None:
        self.url = url
        self._source = source
        if isinstance(source, EngineResponse):
            self.status: int = source.status
            self.headers: Mapping[str, str] = source.headers
            self.http_version = source.http_version
        else:
            self.status = source.status_code
            self.headers = source.headers
            self.http_version = source.http_version

    def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body undecoded, in pieces as large as have arrived.

        Raises:
            httpx.TransportError: It did not come whole, as far as the protocol says.
        """
        if isinstance(self._source, EngineResponse):
            return self._source.aiter_raw()
        if self._source.is_stream_consumed:  # an answer that a mock was given whole
            return aiter(cast("httpx.AsyncByteStream", self._source.stream))
        return self._source.aiter_raw()


async def host_turn(url: str, client: AnyClient | None) -> AsyncExitStack | None:
    """Wait for the turn of a URL's host where the client bounds its requests; None where not.

    Raises:
        httpx.InvalidURL: A malformed URL.
    """
    holder = manager_of(client or get_shared_http_client())
    gate = (await holder._here()).gate if isinstance(holder, AsyncHttpClient) else None
    if gate is None:
        return None
    turn = AsyncExitStack()
    await turn.enter_async_context(gate.slot(target_of(url).origin))
    return turn


@asynccontextmanager
async def open_stream(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float | httpx.Timeout | None = 30.0,
    client: AnyClient | None = None,
    cookies: CookieJar | None = None,
    turn: AsyncExitStack | None = None,
) -> "AsyncGenerator[StreamedResponse, None]":
    """Send one request, follow redirects, give out the answer whatever its status; no retries.

    Args:
        method: Without a body.
        url: Where to.
        headers: Win over those of the client.
        timeout: For each step, as in `httpx.Timeout`.
        client: The shared one when None.
        cookies: A jar to take cookies from and to keep them in. Without one those of the client
            count, and without a client they are kept within one chain of redirects only.
        turn: Of `host_turn`, closed with the answer; None to wait for one.

    Raises:
        httpx.TransportError: As httpx would raise it.
        httpx.InvalidURL: A malformed URL.
        InvalidRequestError: A malformed header or method.
    """
    method, sent = check_method(method), checked_headers(headers)
    holder = manager_of(client or get_shared_http_client())
    if not isinstance(holder, AsyncHttpClient):
        http, timeout = await foreign_client(holder, timeout)
        request = request_of(http, method, url, foreign_headers(http, sent), timeout, {})
        response = await send_through(http, request)
        try:
            yield StreamedResponse(response, str(response.url))
        finally:
            await response.aclose()
        return
    here = await holder._here()
    jar = cookies if cookies is not None or client is None else here.jar
    target = target_of(url)
    async with turn or (_NO_GATE if here.gate is None else here.gate.slot(target.origin)):
        timeouts = here.timeout_of(timeout)
        engine = here.direct_engine()
        if engine is not None:
            merged = here.headers_with(sent, target)
            done = await send_direct(
                here, engine, method, target, merged, timeouts, jar=jar, buffer=_BUFFER
            )
            answer = done[-1].answer
            try:
                yield StreamedResponse(answer, done[-1].target.text)
            finally:
                answer.close()
        else:
            request = here.client.build_request(
                method, target.url, headers=sent, timeout=timeouts.as_httpx()
            )
            response = await here.client.send(request, stream=True)
            try:
                yield StreamedResponse(response, str(response.url))
            finally:
                await response.aclose()
