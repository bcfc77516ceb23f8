"""`fetch_async`, `request_async` and `stream_async`: one request, retried where that is safe."""

import math
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx

from infra_core.runtime import clock, retry_async

from ._async_client import AnyClient
from ._async_errors import AsyncDeadlineExceeded, fit_to_travel
from ._attempts import Call
from ._call import OnRetry
from ._checks import DEFAULT_TIMEOUT

__all__ = ["AsyncDeadlineExceeded", "fetch_async", "request_async", "stream_async"]

# Seconds by which a timer may be early: 16 ms on Windows before Python 3.13, 1 ms with uvloop.
_EARLY = 0.02


async def _run(call: Call) -> "str | httpx.Response":
    if call.delay:
        await clock.sleep_async(call.delay)
    ends = math.inf if call.deadline is None else monotonic() + call.deadline - _EARLY
    try:
        return await retry_async(
            call.attempt,
            policy=call.policy,
            should_retry=call.should_retry,
            on_retry=call.note_retry,
        )
    except Exception as error:
        if not isinstance(error, TimeoutError) or monotonic() < ends:  # perhaps a stand-in's own
            call.note_failure(fit_to_travel(error, call.method, call.url))
            raise
        cause = error.__cause__  # what the last attempt met; the error itself says the same
        if call.sent and not call.idempotent:
            late: Exception = call.lost(error)
            cause = error
        else:
            late = call.too_late()
        call.note_failure(late)
        raise late from cause


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
        httpx.HTTPStatusError: The last answer is no success; `.retry_after` has the seconds that
            the server asked for, or None.
        httpx.TransportError: The connection failed.
        httpx.InvalidURL: A malformed URL.
        OutcomeUnknown: The request went out, its answer was lost, and it must not run twice.
        ResponseTooLarge: The body is above `max_bytes`.
        DeadlineExceeded: The deadline passed; an `httpx.TimeoutException` as well.
        InvalidRequestError: A malformed method or header.
    """
    answer = await _run(Call(**locals()))
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
    answer = await _run(Call("GET", **locals(), want_text=True))
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
        async with call.opened() as response:
            yield response
    except httpx.RequestError as error:
        fit_to_travel(error)
        raise
