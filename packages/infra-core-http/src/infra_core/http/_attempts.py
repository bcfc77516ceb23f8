"""One asynchronous call and its attempts: which way it travels, and what a failure means."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httpx

from infra_core.runtime import RetryDetails

from ._answers import cheap_text, read_capped, status_error
from ._async_client import AsyncHttpClient, LoopClient, get_shared_http_client
from ._async_errors import AsyncDeadlineExceeded, AsyncOutcomeUnknown
from ._call import BaseCall
from ._checks import check_async_client, check_timeout
from ._headers import DEFAULT_HEADERS, merge_headers
from ._intercept import TRUE_CLIENT, interceptor
from ._policy import Failure
from ._response.redirect import REDIRECT_STATUSES
from ._transport_httpx import as_httpx_response, extensions_of, note_plain
from .engine._errors import failure_of
from .engine._session import Engine, timeouts_of
from .engine._target import Target, origin_of, target_of

if TYPE_CHECKING:
    from multidict import CIMultiDict

__all__ = ["Call", "foreign_headers"]

_FIELDS = ("params", "json", "data", "content")


class Call(BaseCall):
    """One asynchronous call.

    Args:
        timeout: Seconds for each step, or an `httpx.Timeout`; None for no bound.
        client: The shared one when None.
        want_text: Whether text will do, which can be had without an `httpx.Response`.

    Attributes:
        sent: Whether the attempt under way may have reached the server.
    """

    __slots__ = ("_client", "_target", "_timeout", "_want_text", "sent")

    logger = logging.getLogger("infra_core.http_async")
    outcome_unknown = AsyncOutcomeUnknown
    deadline_exceeded = AsyncDeadlineExceeded

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        timeout: "float | httpx.Timeout | None",
        client: AsyncHttpClient | None,
        fields: dict[str, Any] | None = None,
        idempotent: bool | None = None,
        want_text: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            method, url, headers=headers, fields=fields, idempotent=idempotent, **options
        )
        check_timeout(timeout)
        if client is not None:
            check_async_client(client)
        self.sent = False
        self._timeout = timeout
        self._client = client or get_shared_http_client()
        self._want_text = want_text
        self._target: Target | None = None

    def failure_of(self, error: Exception) -> Failure:
        return failure_of(error)

    async def attempt(self) -> "str | httpx.Response":
        """Send once and return a success, read to its end; its text when that came cheaply.

        Raises:
            httpx.HTTPStatusError: Any other status.
            httpx.TransportError: No answer, when another try is harmless.
            OutcomeUnknown: No answer, when it is not.
        """
        self.sent = False
        client = self._client
        try:
            if getattr(type(client), "get_client", None) is not AsyncHttpClient.get_client:
                return await self._through(await client.get_client(), own=False)
            here = await client._here()
            if here.gate is None:
                return await self._here(here)
            async with here.gate.slot(self._origin(here)):
                return await self._here(here)
        except httpx.TransportError as error:
            judged = self.judged(error)
            if judged is error:
                raise
            raise judged from error

    def _origin(self, here: LoopClient) -> object:
        if here.base_url is None:
            return target_of(self.url).origin
        return origin_of(here.base_url.join(self.url))

    async def _here(self, here: LoopClient) -> "str | httpx.Response":
        if not self.fields and here.base_url is None:
            target = self._target
            if target is None:
                target = self._target = target_of(self.url)
            engine = here.direct_engine()
            if engine is not None:
                return await self._send_direct(here, engine, target)
        return await self._through(here.client, own=True)

    async def _send_direct(
        self, here: LoopClient, engine: Engine, target: Target
    ) -> "str | httpx.Response":
        """Send without building a request of httpx, nor an answer when only text is wanted."""
        headers = here.headers_with(self.headers, target)
        started = perf_counter()
        self.sent = True
        reply = await engine.send(
            self.method, target, headers=headers, timeout=timeouts_of(self._timeout)
        )
        if "Set-Cookie" in reply.headers:
            here.keep_cookies(self.method, target, reply)
        redirected = reply.status in REDIRECT_STATUSES and here.client.follow_redirects
        if redirected or self.max_bytes is not None:
            request = self._request(target, headers)
            response = as_httpx_response(reply, request, here.default_encoding)
            if redirected:
                response = await here.client.follow(request, response)
            return await self._finish(response, started)
        body = await reply.read()
        if self._want_text and 200 <= reply.status < 300 and here.default_encoding == "utf-8":
            text = cheap_text(reply, body)
            if text is not None:
                return text
        response = httpx.Response(
            reply.status,
            headers=reply.raw_headers,
            stream=httpx.ByteStream(body),
            request=self._request(target, headers),
            extensions=extensions_of(reply),
            default_encoding=here.default_encoding,
        )
        return await self._finish(response, started)

    def _request(self, target: Target, headers: "CIMultiDict[str]") -> httpx.Request:
        return httpx.Request(
            self.method,
            target.url,
            headers=list(headers.items()),
            extensions={"timeout": timeouts_of(self._timeout)._asdict()},
        )

    async def _through(self, client: Any, *, own: bool) -> httpx.Response:
        """Send through an httpx client, ours or one that somebody else gave."""
        headers = self.headers if own else foreign_headers(client, self.headers)
        fields = self.fields or {}
        patched = interceptor()
        if not getattr(client, "base_url", None):
            target_of(self.url)  # says clearly what is wrong with it
        started = perf_counter()
        if not isinstance(client, TRUE_CLIENT) or patched == "AsyncClient.request":
            self.sent = True
            response = await client.request(
                self.method,
                self.url,
                headers=headers,
                timeout=self._timeout,
                **{name: fields.get(name) for name in _FIELDS},
            )
            return await self._finish(response, started)
        if patched is not None:
            note_plain(f"{patched} is patched")
        request = client.build_request(
            self.method, self.url, headers=headers, timeout=self._timeout, **fields
        )
        self.sent = True
        return await self._finish(await client.send(request, stream=True), started)

    async def _finish(self, response: httpx.Response, started: float) -> httpx.Response:
        try:
            if self.max_bytes is None:
                await response.aread()
            else:
                await read_capped(response, self.max_bytes)
        except BaseException:
            await response.aclose()
            raise
        if not hasattr(response, "_elapsed"):
            response.elapsed = timedelta(seconds=perf_counter() - started)
        if not response.is_success:
            raise status_error(response)
        return response

    def note_retry(self, details: RetryDetails) -> Any:
        self.sent = False
        return super().note_retry(details)


def foreign_headers(client: Any, own: dict[str, str]) -> dict[str, str]:
    """Return what to send through somebody else's client: the defaults only where it has none."""
    given = getattr(client, "headers", None)
    named: set[str] = set()
    if isinstance(given, httpx.Headers):
        stock = {
            "accept": "*/*",
            "connection": "keep-alive",
            "user-agent": f"python-httpx/{httpx.__version__}",
        }
        named = {name for name, value in given.items() if stock.get(name) != value}
    defaults = {name: v for name, v in DEFAULT_HEADERS.items() if name.lower() not in named}
    return merge_headers(defaults, own)
