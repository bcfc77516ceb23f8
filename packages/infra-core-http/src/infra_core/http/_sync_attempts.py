"""One blocking call and its attempts: how it is sent, and what a failure means."""

import logging
import math
from collections.abc import Iterator, Mapping
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
)

from ._call import BaseCall
from ._checks import check_call, check_sync_client, check_timeout
from ._errors import InvalidRequestError, PrivateAddressError
from ._policy import Failure
from ._response.decode import UnsupportedCoding
from ._response.status import is_success
from ._sync_body import attach_decoder, settle_encoding
from ._sync_client import RequestsHttpClient, get_shared_http_client, sent_headers
from ._sync_errors import (
    HTTPError,
    SyncDeadlineExceeded,
    SyncOutcomeUnknown,
    status_error,
)
from ._sync_messages import Timeout, retell, tunnel_answer
from ._sync_prepare import url_to_ask
from ._sync_wire import no_read_after

__all__ = ["Call"]


_NOT_SENT = (requests.ConnectTimeout, urllib3.exceptions.NewConnectionError)
_LOST = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


def _check_timeout(timeout: Timeout) -> None:
    """Refuse what is no number of seconds, nor a pair of them."""
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
        params: Any = None,
        data: Any = None,
        content: Any = None,
        **options: Any,
    ) -> None:
        own: Any = headers
        given = headers if isinstance(headers, Mapping) else {}
        self._removed = {name: None for name, value in given.items() if value is None}
        if self._removed:
            own = {name: value for name, value in given.items() if value is not None}
        body = data if content is None else content
        super().__init__(method, url, headers=own, params=_query(params), data=body, **options)
        url_to_ask(url)
        _check_timeout(timeout)
        if client is not None:
            check_sync_client(client)
        self._client = client or get_shared_http_client()
        self._timeout = timeout
        self.start()

    def start(self) -> None:
        """Begin to count towards the deadline."""
        self._ends = math.inf if self.deadline is None else clock.monotonic() + self.deadline

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
            judged = self._judged_in_time(error, late=monotonic() >= ends)
            if judged is error:
                raise
            raise judged from judged.__cause__
        if not isinstance(response, requests.Response):
            response.raise_for_status()
        elif not is_success(response.status_code):
            raise self._status_error(response)
        return response  # type: ignore[no-any-return]  # perhaps a stand-in's

    @contextmanager
    def opened(self) -> Iterator[requests.Response]:
        """Send once and give out the answer, whatever its status, its body unread."""
        headers, timeout = self._sent_headers(), self._timeout
        with self._client.streamed(
            self.method, self.url, headers=headers, timeout=timeout, **self.fields
        ) as response:
            yield response

    def _sent_headers(self) -> dict[str, str]:
        return sent_headers(self._client, {**self.headers, **self._removed})

    def _send(self, timeout: Timeout) -> Any:
        headers = self._sent_headers()
        client: Any = self._client
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
        client: Any = self._client
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


def _query(params: Any) -> dict[str, list[str]] | None:
    """Return parameters with the texts that httpx makes of their values."""
    check_call(None, params)
    if params is None:
        return None
    query = httpx.QueryParams(params)
    return {name: query.get_list(name) for name in query}


def _bounded(timeout: Timeout, remaining: float) -> Timeout:
    """Return the timeouts of one attempt, none longer than what remains."""
    if isinstance(timeout, tuple):
        return tuple(_bounded(each, remaining) for each in timeout)  # type: ignore[return-value]
    least = min(math.inf if timeout is None else timeout, remaining)
    return None if least == math.inf else least
