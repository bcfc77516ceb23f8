"""`fetch_async`, `request_async` and `stream_async`: one request, retried where that is safe."""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from time import perf_counter
from typing import Any

import httpx

from infra_core.runtime import RetryDeadlineError, clock, retry_async

from ._async_client import AnyClient, get_shared_http_client, manager_of
from ._async_response import (
    AsyncDeadlineExceeded,
    AsyncOutcomeUnknown,
    Response,
    check_status,
    fit_to_travel,
)
from ._call import BaseCall, OnRetry
from ._checks import DEFAULT_TIMEOUT, check_async_client, check_timeout
from ._errors import ResponseTooLarge
from ._redirects import text_of, whole_response
from ._response.status import is_success
from ._stream import here_of, open_answer, send_once, turn_at
from .engine._answer import EngineResponse
from .engine._errors import failure_of

__all__ = ["AsyncDeadlineExceeded", "fetch_async", "request_async", "stream_async"]


class Call(BaseCall):
    """One asynchronous call."""

    logger = logging.getLogger("infra_core.http_async")
    outcome_unknown = AsyncOutcomeUnknown
    deadline_exceeded = AsyncDeadlineExceeded
    failure_of = staticmethod(failure_of)

    def __init__(
        self,
        method: str,
        url: str,
        *,
        timeout: "float | httpx.Timeout | None",
        client: AnyClient | None,
        want_text: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(method, url, **options)
        check_timeout(timeout)
        if client is not None:
            check_async_client(client)
        self.sent = False  # whether the attempt under way may have reached the server
        self._timeout = timeout
        self.client = manager_of(client or get_shared_http_client())
        self._want_text = want_text

    async def run(self) -> "str | httpx.Response":
        """Send until one answer is a success, as far as another try is safe."""
        if self.delay:
            await clock.sleep_async(self.delay)
        try:
            return await retry_async(
                self.attempt,
                policy=self.policy,
                should_retry=self.should_retry,
                on_retry=self.note_retry,
            )
        except Exception as error:
            if not isinstance(error, RetryDeadlineError):
                self.note_failure(fit_to_travel(error, self.method, self.url))
                raise
            cause = error.__cause__  # what the last attempt met; the error itself says the same
            if self.sent and not self.idempotent:
                late: Exception = self.lost(error)
                cause = error
            else:
                late = self.too_late()
            self.note_failure(late)
            raise late from cause

    async def attempt(self) -> "str | httpx.Response":
        """Send once and return a success, read to its end; its text when that came cheaply."""
        try:
            here = await here_of(self.client)
            async with turn_at(here, self.url):
                self.sent = True
                started = perf_counter()
                answer = await send_once(
                    self.client,
                    here,
                    self.method,
                    self.url,
                    self.headers,
                    self._timeout,
                    fields=self.fields,
                    whole=True,
                )
                if isinstance(answer, EngineResponse):
                    text = None
                    if self._want_text and self.max_bytes is None:
                        text = await text_of(answer)
                    if text is not None:
                        return text
                    answer = await whole_response(answer)
                return await self._finish(answer, started)
        except Exception as error:
            self.sent = False  # a cancellation at the deadline leaves it as it is
            judged = self.judged(error) if isinstance(error, httpx.TransportError) else error
            if judged is error:
                raise
            raise judged from error

    async def _finish(self, response: httpx.Response, started: float) -> httpx.Response:
        if isinstance(response, Response):
            response.max_bytes = self.max_bytes
        if isinstance(response, Response) and not is_success(response.status_code):
            await response.aread_if_whole()
        else:
            await response.aread()
        if self.max_bytes is not None and len(response.content) > self.max_bytes:
            # a mock's, or one that was read elsewhere
            raise ResponseTooLarge(str(response.url), self.max_bytes, len(response.content))
        if not hasattr(response, "_elapsed"):
            response.elapsed = timedelta(seconds=perf_counter() - started)
        check_status(response)
        return response


async def request_async(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    data: Any = None,
    content: Any = None,
    timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
    delay: float = 0.0,
    max_retries: int = 2,
    backoff: float = 1.0,
    max_backoff: float = 60.0,
    retry_statuses: Iterable[int] | None = None,
    client: AnyClient | None = None,
    idempotent: bool | None = None,
    deadline: float | None = None,
    max_bytes: int | None = None,
    on_retry: OnRetry | None = None,
    _log_failure: bool = True,
) -> httpx.Response:
    """Send a request, retry what may be retried, and return a success, read to its end.

    Requests of methods that are not idempotent (POST, PATCH) are sent again only when they surely
    did not run: no connection was made, or the answer is 429 or 503. When the answer to such a
    request is lost, `OutcomeUnknown` says so instead of a blind second try.

    Args:
        method: Any letter case.
        url: Absolute, or relative to the client's `base_url`.
        headers: Win over those of the client, in any letter case.
        params: Added to the URL's query; None is sent as an empty value, True as `true`.
        json: Body, as JSON.
        data: Body, as a form.
        content: Body, as bytes, text or an asynchronous iterable, which is sent only once.
        timeout: Seconds for each step, or an `httpx.Timeout`; None for no bound. Where it is not
            given, that of the client, else 30 s.
        delay: Seconds to wait before the first attempt.
        max_retries: Retries after the first attempt.
        backoff: The wait before retry n is random, at most `min(backoff * 2**n, max_backoff)`.
        max_backoff: No wait is longer, one that the server asks for included: if it wants more,
            the error is raised at once with the seconds in `.retry_after`.
        retry_statuses: Answers worth another try; 429, 500, 502, 503, 504 when None, none at all
            when empty.
        client: An `AsyncHttpClient` or an `httpx.AsyncClient`; the shared one when None.
        idempotent: True when the request may run twice, False when it may not; None judges by
            method and by an `Idempotency-Key` header.
        deadline: Seconds in total, retries and waits included, after `delay`.
        max_bytes: Largest body to accept, decoded.
        on_retry: Called with `RetryDetails` (attempt, wait, elapsed, error) before each wait; may
            be a coroutine function; what it raises ends the retries.

    Raises:
        httpx.HTTPStatusError: The last answer is not a success; `.retry_after` has the seconds that
            the server asked for, or None.
        httpx.TransportError: The connection failed.
        httpx.InvalidURL: A malformed URL.
        OutcomeUnknown: The request went out, its answer was lost, and it must not run twice.
        ResponseTooLarge: The body is above `max_bytes`.
        DeadlineExceeded: The deadline passed; an `httpx.TimeoutException` as well.
        InvalidRequestError: A malformed method or header.
    """
    answer = await Call(**locals()).run()
    assert not isinstance(answer, str)  # noqa: S101 - text comes only to those who want it
    return answer


async def fetch_async(
    url: str,
    *,
    headers: dict[str, str] | None = None,
    timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
    delay: float = 0.0,
    max_retries: int = 2,
    backoff: float = 1.0,
    max_backoff: float = 60.0,
    retry_statuses: Iterable[int] | None = None,
    client: AnyClient | None = None,
    deadline: float | None = None,
    max_bytes: int | None = None,
    on_retry: OnRetry | None = None,
) -> str:
    """GET a URL and return the text of the answer.

    Parameters and errors are those of `request_async`.

    Example:
        ::

            html = await fetch_async("https://example.com", max_retries=4, deadline=60)
    """
    answer = await Call("GET", **locals(), want_text=True).run()
    return answer if isinstance(answer, str) else answer.text


@asynccontextmanager
async def stream_async(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    data: Any = None,
    content: Any = None,
    timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
    client: AnyClient | None = None,
) -> AsyncIterator[httpx.Response]:
    """Send a request once and give out the answer, whatever its status, its body unread.

    Nothing is retried: what was read cannot be unread. `infra_core.http.assets` downloads with
    retries and checks. The parameters are those of `request_async`.

    Raises:
        httpx.TransportError: The connection failed.
        httpx.InvalidURL: A malformed URL.
        InvalidRequestError: A malformed method or header.

    Example:
        ::

            async with stream_async("GET", url) as response:
                async for chunk in response.aiter_bytes():
                    ...
    """
    call = Call(**locals())
    try:
        async with open_answer(
            call.client, call.method, url, call.headers, timeout, fields=call.fields
        ) as answer:
            if not isinstance(answer, EngineResponse):
                yield answer
                return
            async with aclosing(await whole_response(answer)) as whole:
                yield whole
    except httpx.RequestError as error:
        fit_to_travel(error)
        raise
