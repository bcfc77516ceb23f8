"""One asynchronous call and its attempts: which way it travels, and what a failure means."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from time import perf_counter
from typing import Any

import httpx

from infra_core.runtime import RetryDetails

from ._async_client import (
    AnyClient,
    AsyncHttpClient,
    LoopClient,
    get_shared_http_client,
    manager_of,
)
from ._async_errors import AsyncDeadlineExceeded, AsyncOutcomeUnknown
from ._async_response import Response, check_status, ours
from ._call import BaseCall
from ._checks import DEFAULT_TIMEOUT, DefaultTimeout, check_async_client, check_timeout
from ._direct import as_response, send_direct
from ._errors import ResponseTooLarge
from ._headers import DEFAULT_HEADERS, merge_headers
from ._intercept import TRUE_CLIENT, interceptor
from ._policy import Failure
from ._redirects import follow_redirects, leads_elsewhere
from ._response.status import is_success
from ._response.text import decode_text
from ._transport_httpx import SafeClient, note_plain, with_query
from .engine._errors import failure_of
from .engine._session import Engine, Timeouts
from .engine._target import Target, origin_of, target_of

__all__ = ["Call", "foreign_client", "foreign_headers", "request_of", "send_through"]

_FIELDS = ("params", "json", "data", "content")
_STOCK_TIMEOUT = httpx.Timeout(5.0)


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
        client: AnyClient | None,
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
        self._client = manager_of(client or get_shared_http_client())
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
                return await self._through_foreign(client)
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
        base = here.client.base_url
        return origin_of(base.join(self.url)) if base.host else target_of(self.url).origin

    async def _here(self, here: LoopClient) -> "str | httpx.Response":
        if not self.fields:
            engine = here.direct_engine()
            if engine is not None:
                target = self._target
                if target is None:
                    target = self._target = target_of(self.url)
                return await self._send_direct(here, engine, target)
        return await self._through(here.client, self.headers, here.timeout_of(self._timeout))

    async def _send_direct(
        self, here: LoopClient, engine: Engine, target: Target
    ) -> "str | httpx.Response":
        """Send without building a request of httpx, nor an answer when only text is wanted."""
        started = perf_counter()
        self.sent = True
        timeouts = here.timeout_of(self._timeout)
        headers = here.headers_with(self.headers, target)
        done = await send_direct(here, engine, self.method, target, headers, timeouts, jar=here.jar)
        answer = done[-1].answer
        if self._want_text and self.max_bytes is None and is_success(answer.status):
            body = await answer.read()
            if "Content-Encoding" not in answer.headers:
                default = here.default_encoding
                kind = answer.headers.get("Content-Type")
                if kind is not None and not kind.isascii():
                    kind = kind.encode("utf-8", "surrogateescape").decode("latin-1")
                return decode_text(body, kind, None if default == "utf-8" else default)
            done[-1] = done[-1]._replace(body=body)
        response = await as_response(done, timeouts, here.default_encoding)
        return await self._finish(response, started)

    async def _through_foreign(self, client: Any) -> httpx.Response:
        """Send through a client that somebody else made, or a stand-in for one."""
        client, timeout = await foreign_client(client, self._timeout)
        headers = foreign_headers(client, self.headers)
        return await self._through(client, headers, timeout)

    async def _through(self, client: Any, headers: dict[str, str], timeout: Any) -> httpx.Response:
        fields = self.fields or {}
        patched = interceptor()
        timeout = timeout.as_httpx() if isinstance(timeout, Timeouts) else timeout
        if not getattr(client, "base_url", None):
            target_of(self.url)  # says clearly what is wrong with it
        started = perf_counter()
        if not isinstance(client, TRUE_CLIENT) or patched == "AsyncClient.request":
            self.sent = True
            response = await client.request(
                self.method,
                self.url,
                headers=headers,
                timeout=timeout,
                **{name: fields.get(name) for name in _FIELDS},
            )
            return await self._finish(response, started)
        if patched is not None:
            note_plain(f"{patched} is patched")
        request = request_of(client, self.method, self.url, headers, timeout, fields)
        self.sent = True
        return await self._finish(await send_through(client, request), started)

    async def _finish(self, response: httpx.Response, started: float) -> httpx.Response:
        try:
            if not isinstance(response, Response):
                await response.aread()
            else:
                response.max_bytes = self.max_bytes
                if is_success(response.status_code):
                    await response.aread()
                else:
                    await response.aread_if_whole()
        except BaseException:
            await response.aclose()
            raise
        if self.max_bytes is not None and len(response.content) > self.max_bytes:
            # a mock's, or one that was read elsewhere
            raise ResponseTooLarge(str(response.url), self.max_bytes, len(response.content))
        if not hasattr(response, "_elapsed"):
            response.elapsed = timedelta(seconds=perf_counter() - started)
        check_status(response)
        return response

    def note_retry(self, details: RetryDetails) -> Any:
        self.sent = False
        return super().note_retry(details)


async def foreign_client(client: Any, timeout: Any) -> tuple[Any, Any]:
    """Return the httpx client to send through, and the timeout of a call.

    Args:
        client: An `httpx.AsyncClient`, or something with `get_client()`.
        timeout: Of the call.
    """
    if hasattr(client, "get_client"):
        return await client.get_client(), timeout
    if isinstance(timeout, DefaultTimeout):
        # A download allows more than the 5 s of httpx, unless somebody has set these.
        is_set = timeout is DEFAULT_TIMEOUT or client.timeout != _STOCK_TIMEOUT
        timeout = client.timeout if is_set else timeout
    return client, timeout


def request_of(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: dict[str, str],
    timeout: Any,
    fields: dict[str, Any],
) -> httpx.Request:
    """Build a request; `params` adds to the query of the URL, whosever client it is."""
    fields = dict(fields)
    params = fields.pop("params", None)
    if isinstance(client, SafeClient):
        return client.build_request(
            method, url, headers=headers, timeout=timeout, params=params, **fields
        )
    if params or client.params:
        url = str(with_query(httpx.URL(url), client.params.merge(params or {})))
        request = client.build_request(method, url, headers=headers, timeout=timeout, **fields)
        return _with_query_of(request, url)
    return client.build_request(method, url, headers=headers, timeout=timeout, **fields)


def _with_query_of(request: httpx.Request, url: str) -> httpx.Request:
    request.url = request.url.copy_with(query=httpx.URL(url).query or None)
    return request


async def send_through(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request through an httpx client, redirects by our rules, the body unread."""
    if isinstance(client, SafeClient):
        return await client.send(request, stream=True)
    response = ours(await client.send(request, stream=True, follow_redirects=False))
    if not client.follow_redirects or not leads_elsewhere(response):
        return response

    async def hop(request: httpx.Request) -> httpx.Response:
        return ours(await client.send(request, stream=True, auth=None, follow_redirects=False))

    return await follow_redirects(hop, client, response.request, response)


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
