"""One request whose body is read as it comes, byte for byte as the wire carries it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import httpx

from ._async_client import AsyncHttpClient, LoopClient, get_shared_http_client
from ._headers import check_method, checked_headers
from ._response.redirect import REDIRECT_STATUSES
from ._transport_httpx import as_httpx_response
from .engine._session import EngineResponse, timeouts_of
from .engine._target import Target, target_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["StreamedResponse", "open_stream"]

# Bytes that may wait unread: large, so that a fast server is not stopped at every turn.
_BUFFER = 1 << 20


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
            httpx.TransportError: It did not come whole, as far as the protocol can tell.
        """
        if isinstance(self._source, EngineResponse):
            return self._source.aiter_raw()
        if self._source.is_stream_consumed:  # an answer that a mock was given whole
            return aiter(cast("httpx.AsyncByteStream", self._source.stream))
        return self._source.aiter_raw()


@asynccontextmanager
async def open_stream(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float | httpx.Timeout | None = 30.0,
    client: AsyncHttpClient | None = None,
) -> "AsyncGenerator[StreamedResponse, None]":
    """Send one request, follow redirects, give out the answer whatever its status; no retries.

    Args:
        method: Without a body.
        url: Where to.
        headers: Win over those of the client.
        timeout: For each step, as in `httpx.Timeout`.
        client: The shared one when None.

    Raises:
        httpx.TransportError: As httpx would raise it.
        httpx.InvalidURL: A malformed URL.
        InvalidRequestError: A malformed header or method.
    """
    method, sent = check_method(method), checked_headers(headers)
    here = await (client or get_shared_http_client())._here()
    target = target_of(url)
    if here.gate is None:
        source, final = await _open(here, method, target, sent, timeout)
        async with _closing(source):
            yield StreamedResponse(source, final)
    else:
        async with here.gate.slot(target.origin):
            source, final = await _open(here, method, target, sent, timeout)
            async with _closing(source):
                yield StreamedResponse(source, final)


async def _open(
    here: LoopClient,
    method: str,
    target: Target,
    headers: Mapping[str, str],
    timeout: float | httpx.Timeout | None,
) -> "tuple[EngineResponse | httpx.Response, str]":
    engine = here.direct_engine()
    if engine is None:
        response = await _send(here, method, target, headers, timeout)
        return response, str(response.url)
    merged = here.headers_with(headers, target)
    answer = await engine.send(
        method, target, headers=merged, timeout=timeouts_of(timeout), buffer=_BUFFER
    )
    if "Set-Cookie" in answer.headers:
        here.keep_cookies(method, target, answer)
    if answer.status not in REDIRECT_STATUSES or not here.client.follow_redirects:
        return answer, str(target.url)
    request = here.client.build_request(method, target.url, headers=dict(headers), timeout=timeout)
    response = await here.client.follow(request, as_httpx_response(answer, request))
    return response, str(response.url)


async def _send(
    here: LoopClient,
    method: str,
    target: Target,
    headers: Mapping[str, str],
    timeout: float | httpx.Timeout | None,
) -> httpx.Response:
    request = here.client.build_request(method, target.url, headers=dict(headers), timeout=timeout)
    return await here.client.send(request, stream=True)


@asynccontextmanager
async def _closing(source: "EngineResponse | httpx.Response") -> AsyncIterator[None]:
    try:
        yield
    finally:
        if isinstance(source, EngineResponse):
            source.close()
        else:
            await source.aclose()
