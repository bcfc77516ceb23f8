"""`fetch`, `request` and `stream`: one blocking request, retried where that is safe."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests

from infra_core.runtime import clock, retry_sync

from ._call import OnRetry
from ._sync_attempts import Call
from ._sync_client import RequestsHttpClient
from ._sync_errors import SyncDeadlineExceeded, fit_to_travel
from ._sync_messages import Timeout

__all__ = ["SyncDeadlineExceeded", "fetch", "request", "stream"]


def _run(call: Call) -> requests.Response:
    if call.delay:
        clock.sleep(call.delay)
    call.start()
    try:
        return retry_sync(
            call.attempt,
            policy=call.policy,
            should_retry=call.should_retry,
            on_retry=call.note_retry,
        )
    except Exception as error:
        call.note_failure(fit_to_travel(error))
        raise


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str | None] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    data: Any = None,
    content: bytes | str | None = None,
    timeout: Timeout = 30.0,
    delay: float = 0.0,
    max_retries: int = 2,
    backoff: float = 1.0,
    max_backoff: float = 60.0,
    retry_statuses: Iterable[int] | None = None,
    client: RequestsHttpClient | None = None,
    idempotent: bool | None = None,
    deadline: float | None = None,
    max_bytes: int | None = None,
    on_retry: OnRetry | None = None,
) -> requests.Response:
    """Send a request, retry what may be retried, and return a success, read to its end.

    Requests of methods that are not idempotent (POST, PATCH) are sent again only when they surely
    did not run: no connection was made, or the answer is 429 or 503. When the answer to such a
    request is lost, `OutcomeUnknown` says so instead of a blind second try.

    Args:
        method: Any letter case.
        url: Absolute.
        headers: Win over those of the session and over the defaults, in any letter case; one whose
            value is None is not sent.
        params: Added to the URL's query; None is sent as an empty value, True as `true`.
        json: Body, as JSON.
        data: Body, as a form.
        content: Body, as bytes or text.
        timeout: Seconds for connecting and for each wait for bytes, or a pair of both.
        delay: Seconds to wait before the first attempt.
        max_retries: Retries after the first attempt.
        backoff: The wait before retry n is random, at most `min(backoff * 2**n, max_backoff)`.
        max_backoff: No wait is longer, one that the server asks for included: if it wants more,
            the error is raised at once with the seconds in `.retry_after`.
        retry_statuses: Answers worth another try; 429, 500, 502, 503, 504 when None, none at all
            when empty.
        client: The shared one when None.
        idempotent: True when the request may run twice, False when it may not; None judges by
            method and by an `Idempotency-Key` header.
        deadline: Seconds in total, retries and waits included, after `delay`. Adapters of your
            own that bring their own connections are cut between two reads only.
        max_bytes: Largest body to accept, decoded.
        on_retry: Called with `RetryDetails` (attempt, wait, elapsed, error) before each wait; what
            it raises ends the retries.

    Raises:
        requests.HTTPError: The last answer is no success (2xx); `.retry_after` has the seconds
            that the server asked for, or None.
        requests.RequestException: The connection failed, or the URL is malformed.
        OutcomeUnknown: The request went out, its answer was lost, and it must not run twice.
        ResponseTooLarge: The body is above `max_bytes`.
        DeadlineExceeded: The deadline passed; a `requests.Timeout` as well.
        InvalidRequestError: A malformed method or header.
    """
    return _run(Call(**locals()))


def fetch(
    url: str,
    *,
    headers: Mapping[str, str | None] | None = None,
    timeout: Timeout = 30,
    delay: float = 0.0,
    max_retries: int = 2,
    backoff: float = 1.0,
    max_backoff: float = 60.0,
    retry_statuses: Iterable[int] | None = None,
    client: RequestsHttpClient | None = None,
    deadline: float | None = None,
    max_bytes: int | None = None,
    on_retry: OnRetry | None = None,
) -> str:
    """GET a URL and return the text of the answer.

    Parameters and errors are those of `request`.

    Example:
        ::

            html = fetch("https://example.com", max_retries=4, deadline=60)
    """
    return _run(Call("GET", **locals())).text


@contextmanager
def stream(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str | None] | None = None,
    params: Mapping[str, Any] | None = None,
    json: Any = None,
    data: Any = None,
    timeout: Timeout = 30.0,
    client: RequestsHttpClient | None = None,
) -> Iterator[requests.Response]:
    """Send a request once and give out the answer, whatever its status, its body unread.

    Nothing is retried: what was read cannot be unread. `infra_core.http.assets` downloads with
    retries and checks. The parameters are those of `request`.

    Raises:
        requests.RequestException: The connection failed, or the URL is malformed.
        InvalidRequestError: A malformed method or header.

    Example:
        ::

            with stream("GET", url) as response:
                for chunk in response.iter_content(65536):
                    ...
    """
    with Call(**locals()).opened() as response:
        yield response
