"""One asynchronous call and its attempts: which way it travels, and what a failure means."""

import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httpx

from infra_core.runtime import RetryDetails, redact_secrets, sanitize_url, trace_fields

from ._answers import cheap_text, read_capped, status_error
from ._async_client import AsyncHttpClient, LoopClient, get_shared_http_client
from ._checks import check_async_client, check_call, check_timeout
from ._errors import OutcomeUnknown
from ._headers import DEFAULT_HEADERS, check_method, checked_headers, merge_headers
from ._intercept import TRUE_CLIENT, interceptor
from ._policy import Failure, is_idempotent, is_replayable, retry_statuses_of, status_verdict
from ._response.redirect import REDIRECT_STATUSES
from ._transport_httpx import as_httpx_response, extensions_of, note_plain
from .engine._errors import failure_of
from .engine._session import Engine, timeouts_of
from .engine._target import Target, origin_of, target_of

if TYPE_CHECKING:
    from multidict import CIMultiDict

__all__ = ["Call", "foreign_headers"]

_logger = logging.getLogger("infra_core.http_async")
_FIELDS = ("params", "json", "data", "content")


class Call:
    """One call and all its attempts.

    Attributes:
        sent: Whether the attempt under way may have reached the server.
    """

    __slots__ = (
        "_client",
        "_fields",
        "_headers",
        "_max_bytes",
        "_replayable",
        "_statuses",
        "_target",
        "_timeout",
        "_want_text",
        "idempotent",
        "method",
        "sent",
        "url",
    )

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        fields: dict[str, Any] | None = None,
        timeout: "float | httpx.Timeout | None",
        retry_statuses: Iterable[int] | None,
        client: AsyncHttpClient | None,
        idempotent: bool | None = None,
        max_bytes: int | None,
        want_text: bool = False,
    ) -> None:
        self.method = check_method(method)
        self.url = url
        self.sent = False
        self._headers = checked_headers(headers)
        self.idempotent = is_idempotent(self.method, self._headers, idempotent)
        self._fields = fields
        check_timeout(timeout)
        bodies = fields or {}
        if max_bytes is not None or bodies:
            check_call(max_bytes, bodies.get("params"))
        if client is not None:
            check_async_client(client)
        self._replayable = is_replayable(bodies.get("data"), bodies.get("content"))
        self._timeout = timeout
        self._statuses = retry_statuses_of(retry_statuses)
        self._client = client or get_shared_http_client()
        self._max_bytes = max_bytes
        self._want_text = want_text
        self._target: Target | None = None

    @property
    def safe_url(self) -> str:
        """The URL without its secrets."""
        return sanitize_url(str(self.url))

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
            lost = failure_of(error) is Failure.OUTCOME_UNKNOWN or self._moved_on(error)
            if lost and not self.idempotent:
                raise OutcomeUnknown(self.method, self.url, error) from error
            raise

    def _origin(self, here: LoopClient) -> object:
        if here.base_url is None:
            return target_of(self.url).origin
        return origin_of(here.base_url.join(self.url))

    def _moved_on(self, error: httpx.RequestError) -> bool:
        """Whether the request was answered by a redirect, and what failed is the next one."""
        try:
            return error.request.method != self.method
        except RuntimeError:  # nobody said which request it was
            return False

    async def _here(self, here: LoopClient) -> "str | httpx.Response":
        if not self._fields and here.base_url is None:
            target = self._target
            if target is None:
                target = self._target = target_of(self.url)
            engine = here.direct_engine(target)
            if engine is not None:
                return await self._send_direct(here, engine, target)
        return await self._through(here.client, own=True)

    async def _send_direct(
        self, here: LoopClient, engine: Engine, target: Target
    ) -> "str | httpx.Response":
        """Send without building a request of httpx, nor an answer when only text is wanted."""
        headers = here.headers_with(self._headers, target)
        started = perf_counter()
        self.sent = True
        reply = await engine.send(
            self.method, target, headers=headers, timeout=timeouts_of(self._timeout)
        )
        if "Set-Cookie" in reply.headers:
            here.keep_cookies(self.method, target, reply)
        redirected = reply.status in REDIRECT_STATUSES and here.client.follow_redirects
        if redirected or self._max_bytes is not None:
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
        headers = self._headers if own else foreign_headers(client, self._headers)
        fields = self._fields or {}
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
            if self._max_bytes is None:
                await response.aread()
            else:
                await read_capped(response, self._max_bytes)
        except BaseException:
            await response.aclose()
            raise
        if not hasattr(response, "_elapsed"):
            response.elapsed = timedelta(seconds=perf_counter() - started)
        if not response.is_success:
            raise status_error(response)
        return response

    def should_retry(self, error: Exception) -> bool | float:
        """Judge a failed attempt for the retry loop."""
        if not self._replayable:
            return False
        if isinstance(error, httpx.HTTPStatusError):
            if not self.idempotent and error.request.method != self.method:
                return False  # it ran, and was answered by a redirect
            return status_verdict(
                error.response.status_code,
                statuses=self._statuses,
                idempotent=self.idempotent,
                retry_after=getattr(error, "retry_after", None),
            )
        if isinstance(error, httpx.DecodingError):
            return self.idempotent
        if isinstance(error, httpx.TransportError):
            return failure_of(error) is not Failure.PERMANENT
        return False

    def note_retry(self, details: RetryDetails) -> None:
        """Log that an attempt failed and another follows."""
        self.sent = False
        status = getattr(getattr(details.error, "response", None), "status_code", None)
        kind = type(details.error).__name__
        why = status or f"{kind}: {redact_secrets(str(details.error))}"
        url = self.safe_url
        _logger.warning(
            "%s %s: attempt %d failed (%s), the next in %.2f s",
            self.method,
            url,
            details.attempt,
            why,
            details.wait,
            extra={
                "method": self.method,
                "url": url,
                "attempt": details.attempt,
                "status": status,
                "wait": details.wait,
                "error": kind,
                **trace_fields(),
            },
        )


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
