"""`fetch`, `request` and `stream`: one blocking request, retried where that is safe."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any

import httpx
import requests
import urllib3

from infra_core.runtime import (
    clock,
    error_chain,
    is_permanent_transport_error,
    retry_sync,
)

from ._call import BaseCall, OnRetry
from ._checks import check_sync_client, check_timeout
from ._errors import InvalidRequestError, PrivateAddressError
from ._policy import Failure
from ._response.decode import UnsupportedCoding
from ._response.status import is_success
from ._sync_body import attach_decoder, settle_encoding
from ._sync_client import RequestsHttpClient, TurnTooLate, get_shared_http_client, sent_headers
from ._sync_errors import (
    HTTPError,
    SyncDeadlineExceeded,
    SyncOutcomeUnknown,
    Timeout,
    fit_to_travel,
    retell,
    status_error,
    tunnel_answer,
)
from ._sync_prepare import url_to_ask
from ._sync_wire import no_read_after

__all__ = ["SyncDeadlineExceeded", "fetch", "request", "stream"]

_NOT_SENT = (requests.ConnectTimeout, urllib3.exceptions.NewConnectionError)
_LOST = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


def _check_timeout(timeout: Timeout) -> None:
    """Refuse what is not a number of seconds, nor a pair of them."""
    for each in timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout,):
        if isinstance(each, httpx.Timeout):
            raise InvalidRequestError(
                f"timeout={each!r} is for asynchronous requests: pass seconds, or a pair of them"
            )
        check_timeout(each)


def failure_of(error: Exception) -> Failure:
    """Return what an error of requests means for the request that met it."""
    if isinstance(error, PrivateAddressError):
        return Failure.PERMANENT
    if isinstance(error, requests.exceptions.ProxyError):
        answer = tunnel_answer(list(error_chain(error, suppressed=True))) or ""
        return Failure.PERMANENT if answer.startswith("4") else Failure.NOT_SENT
    met = list(error_chain(error))
    if is_permanent_transport_error(error) or any(isinstance(e, UnsupportedCoding) for e in met):
        return Failure.PERMANENT
    if any(isinstance(e, _NOT_SENT) for e in met):
        return Failure.NOT_SENT
    return Failure.OUTCOME_UNKNOWN if isinstance(error, _LOST) else Failure.PERMANENT


class Call(BaseCall):
    """One blocking call."""

    logger = logging.getLogger("infra_core.http")
    outcome_unknown = SyncOutcomeUnknown
    deadline_exceeded = SyncDeadlineExceeded
    failure_of = staticmethod(failure_of)

    def __init__(
        self,
        method: str,
        url: str,
        *,
        timeout: Timeout,
        client: RequestsHttpClient | None,
        headers: Mapping[str, str | None] | None = None,
        **options: Any,
    ) -> None:
        own: Any = headers
        given = headers if isinstance(headers, Mapping) else {}
        self._removed = {name: None for name, value in given.items() if value is None}
        if self._removed:
            own = {name: value for name, value in given.items() if value is not None}
        super().__init__(method, url, headers=own, **options)
        if "content" in self.fields:
            self.fields["data"] = self.fields.pop("content")
        if "params" in self.fields:  # with the texts that httpx makes of their values
            query = httpx.QueryParams(self.fields["params"])
            self.fields["params"] = {name: query.get_list(name) for name in query}
        url_to_ask(url)
        _check_timeout(timeout)
        if client is not None:
            check_sync_client(client)
        self.client = client or get_shared_http_client()
        self._timeout = timeout
        self._ends = math.inf  # when the deadline passes

    def run(self) -> requests.Response:
        """Send until one answer is a success, as far as another try is safe."""
        if self.delay:
            clock.sleep(self.delay)
        self._ends = math.inf if self.deadline is None else clock.monotonic() + self.deadline
        try:
            return retry_sync(
                self.attempt,
                policy=self.policy,
                should_retry=self.should_retry,
                on_retry=self.note_retry,
            )
        except Exception as error:
            self.note_failure(fit_to_travel(error))
            raise

    def attempt(self) -> requests.Response:
        """Send once and return a success, read to its end."""
        remaining = self._ends - clock.monotonic()
        if remaining <= 0:
            raise self.too_late()
        ends = monotonic() + remaining
        try:
            with no_read_after(ends):
                response = self._send(_bounded(self._timeout, remaining))
        except requests.RequestException as error:
            late = monotonic() >= ends or isinstance(error, TurnTooLate)
            judged = self._judged_in_time(error, late=late)
            if judged is error:
                raise
            raise judged from judged.__cause__
        if not isinstance(response, requests.Response):
            response.raise_for_status()
        elif not is_success(response.status_code):
            raise self._status_error(response)
        return response  # type: ignore[no-any-return]  # perhaps a stand-in's

    def sent_headers(self) -> dict[str, str]:
        return sent_headers(self.client, {**self.headers, **self._removed})

    def _send(self, timeout: Timeout) -> Any:
        headers = self.sent_headers()
        client: Any = self.client
        fields = self.fields
        if self.max_bytes is None and self.method == "GET" and not fields:
            # The call that 0.7 made, which stand-ins for the client know.
            return client.get(self.url, headers=headers, timeout=timeout)
        bound_here = False
        if self.max_bytes is not None:
            bound_here = not isinstance(client, RequestsHttpClient)
            bound = {"stream": True} if bound_here else {"max_bytes": self.max_bytes}
            fields = {**fields, **bound}
        response: Any = client.request(
            self.method, self.url, headers=headers, timeout=timeout, **fields
        )
        if bound_here and isinstance(response, requests.Response):
            try:
                attach_decoder(response, self.max_bytes)
                settle_encoding(response, read=True)
            finally:
                response.close()
        return response

    def _judged_in_time(self, error: requests.RequestException, *, late: bool) -> Exception:
        """Return what to raise for a failure of the network, or for the deadline behind it."""
        client: Any = self.client
        if not isinstance(client, RequestsHttpClient):  # whose errors have our text already
            retell(error, self.url, self._timeout)
        if late:
            passed = self.too_late()
            passed.__cause__ = error
            return passed if failure_of(error) is Failure.NOT_SENT else self.lost(passed)
        answer = error.response
        if isinstance(error, _LOST) and isinstance(answer, requests.Response):
            known = self._status_error(answer)  # says enough without the body
            known.__cause__ = error
            return known
        return self.judged(error)

    def _status_error(self, response: requests.Response) -> HTTPError:
        return status_error(response, self.method, self.url, self.policy.max_backoff)


def _bounded(timeout: Timeout, remaining: float) -> Timeout:
    """Return the timeouts of one attempt, none longer than what remains."""
    if remaining == math.inf:
        return timeout
    if isinstance(timeout, tuple):
        return tuple(_bounded(each, remaining) for each in timeout)  # type: ignore[return-value]
    return remaining if timeout is None else min(timeout, remaining)


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
        requests.HTTPError: The last answer is not a success (2xx); `.retry_after` has the seconds
            that the server asked for, or None.
        requests.RequestException: The connection failed, or the URL is malformed.
        OutcomeUnknown: The request went out, its answer was lost, and it must not run twice.
        ResponseTooLarge: The body is above `max_bytes`.
        DeadlineExceeded: The deadline passed; a `requests.Timeout` as well.
        InvalidRequestError: A malformed method or header.
    """
    return Call(**locals()).run()


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
    return Call("GET", **locals()).run().text


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
    call = Call(**locals())
    with call.client.streamed(
        call.method, url, headers=call.sent_headers(), timeout=timeout, **call.fields
    ) as response:
        yield response
