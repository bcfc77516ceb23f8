"""One blocking call and its attempts: how it is sent, and what a failure means."""

import logging
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import httpx
import requests
import urllib3

from infra_core.runtime import (
    RetryDetails,
    clock,
    is_permanent_transport_error,
    parse_retry_after,
    redact_secrets,
    sanitize_url,
    trace_fields,
)

from ._checks import check_call, check_sync_client, check_timeout, host_problem
from ._errors import DeadlineExceeded, InvalidRequestError, OutcomeUnknown, ResponseTooLarge
from ._headers import check_method, checked_headers
from ._messages import status_remedy
from ._policy import (
    Failure,
    is_idempotent,
    is_replayable,
    retry_statuses_of,
    status_verdict,
)
from ._sync_client import RequestsHttpClient, get_shared_http_client, sent_headers
from ._sync_messages import chain_of, retell
from ._sync_watch import Watch

__all__ = ["Call", "SyncDeadlineExceeded", "Timeout", "check_url"]

_logger = logging.getLogger("infra_core.http")
_PIECE = 16_384
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# urllib3 before 2.0 took a short body for a whole one.
_COUNTS_BYTES = not version("urllib3").startswith("1.")

Timeout = float | tuple[float, float] | None


class SyncDeadlineExceeded(DeadlineExceeded, requests.Timeout):
    """The deadline as users of requests catch it."""


def check_sync_timeout(timeout: Timeout) -> None:
    """Refuse what is no number of seconds, nor a pair of them.

    Raises:
        InvalidRequestError: Zero and less, NaN, infinity, text.
    """
    for each in timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout,):
        if isinstance(each, httpx.Timeout):
            raise InvalidRequestError(
                f"timeout={each!r} is for asynchronous requests: pass seconds, or a pair of them"
            )
        check_timeout(each)


def check_url(url: str) -> None:
    if not isinstance(url, str):
        raise requests.exceptions.InvalidURL(
            f"{sanitize_url(url)!r} of type {type(url).__name__} is no URL: pass it as text, in "
            "the form https://host[:port]/path"
        )
    try:
        if _CONTROL.search(url):  # the parser would drop some of them
            raise ValueError("it has control characters, such as the line break of a file's line")
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if port == 0:
            raise ValueError("port 0 is not within 1 to 65535")
        if host is not None and (problem := host_problem(host)):
            raise ValueError(problem)
    except ValueError as error:
        raise requests.exceptions.InvalidURL(
            f"{sanitize_url(url)!r} is no URL ({error}): pass it in the form https://host[:port]/path"
        ) from None
    if not parts.scheme or "://" not in url:
        raise requests.exceptions.MissingSchema(
            f"{sanitize_url(url)!r} cannot be requested: a URL begins with http:// or https://"
        )
    if parts.scheme.lower() in ("http", "https") and not host:
        raise requests.exceptions.InvalidURL(
            f"{sanitize_url(url)!r} cannot be requested: it names no host"
        )


class Call:
    """One call and all its attempts."""

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        fields: dict[str, Any],
        timeout: Timeout,
        retry_statuses: Iterable[int] | None,
        client: RequestsHttpClient | None,
        idempotent: bool | None,
        deadline: float | None,
        max_bytes: int | None,
    ) -> None:
        self.method = check_method(method)
        self.url = url
        own = checked_headers(headers)
        self.idempotent = is_idempotent(self.method, own, idempotent)
        check_url(url)
        check_sync_timeout(timeout)
        check_call(max_bytes, fields.get("params"))
        if client is not None:
            check_sync_client(client)
        self._client = client or get_shared_http_client()
        self._own = own
        self._fields = fields
        self._replayable = is_replayable(fields.get("data"))
        self._timeout = timeout
        self._statuses = retry_statuses_of(retry_statuses)
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._started = clock.monotonic()
        self._failure = Failure.OUTCOME_UNKNOWN

    @property
    def safe_url(self) -> str:
        """The URL without its secrets."""
        return sanitize_url(str(self.url))

    def start(self) -> None:
        """Begin to count towards the deadline."""
        self._started = clock.monotonic()

    def _remaining(self) -> float | None:
        if self._deadline is None:
            return None
        return self._deadline - (clock.monotonic() - self._started)

    def _step_timeout(self, remaining: float | None) -> Timeout:
        if remaining is None:
            return self._timeout
        if isinstance(self._timeout, tuple):
            connect, read = self._timeout
            return min(connect, remaining), min(read, remaining)
        return remaining if self._timeout is None else min(self._timeout, remaining)

    def attempt(self) -> requests.Response:
        """Send once and return an answer below 400, read to its end.

        Raises:
            requests.HTTPError: A status of 400 or more.
            requests.RequestException: No answer, when another try is harmless.
            OutcomeUnknown: No answer, when it is not.
        """
        remaining = self._remaining()
        if remaining is not None and remaining <= 0:
            raise self._too_late()
        with Watch(remaining) as watch:
            try:
                response = self._send(self._step_timeout(remaining))
                self._read(response)
            except requests.RequestException as error:
                judged = self._judged(error, watch)
                if judged is error:
                    raise
                raise judged from judged.__cause__
            if watch.expired:  # a body without a length may look whole after the cut
                raise self._lost(self._too_late())
        self._check_status(response)
        return response

    def _send(self, timeout: Timeout) -> requests.Response:
        headers = sent_headers(self._client, self._own)
        capped = self._max_bytes is not None
        client = self._client
        if self.method == "GET" and not self._fields and not capped:
            # The call that 0.7 made, which stand-ins for the client know.
            return client.get(self.url, headers=headers, timeout=timeout)
        fields = {**self._fields, "stream": True} if capped else self._fields
        return client.request(self.method, self.url, headers=headers, timeout=timeout, **fields)

    def _read(self, response: Any) -> None:
        if not isinstance(response, requests.Response):
            return  # of somebody's stand-in
        try:
            if self._max_bytes is not None:
                self._read_capped(response, self._max_bytes)
            if not _COUNTS_BYTES and getattr(response.raw, "length_remaining", None):
                raise requests.exceptions.ChunkedEncodingError(
                    "the connection was closed before the whole body had come"
                )
        except BaseException:
            response.close()
            raise

    def _read_capped(self, response: requests.Response, limit: int) -> None:
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > limit and self.method != "HEAD":
            raise ResponseTooLarge(self.url, limit, int(length))
        parts: list[bytes] = []
        received = 0
        for chunk in response.iter_content(_PIECE):
            received += len(chunk)
            if received > limit:
                raise ResponseTooLarge(self.url, limit, received)
            parts.append(chunk)
        response._content = b"".join(parts)

    def _judged(self, error: requests.RequestException, watch: Watch) -> Exception:
        """Return what to raise for a failure of the network."""
        failure = self._failure = _failure_of(error)
        retell(error, self.url, self._timeout)
        remaining = self._remaining()
        if watch.expired or (remaining is not None and remaining <= 0):
            late = self._too_late()
            late.__cause__ = error
            return late if failure is Failure.NOT_SENT else self._lost(late)
        if failure is Failure.OUTCOME_UNKNOWN or self._moved_on(error):
            return self._lost(error)
        return error

    def _lost(self, error: Exception) -> Exception:
        return error if self.idempotent else OutcomeUnknown(self.method, self.url, error)

    def _moved_on(self, error: requests.RequestException) -> bool:
        """Whether the request was answered by a redirect, and what failed is the next one."""
        method = getattr(error.request, "method", None)
        return method is not None and method != self.method

    def _too_late(self) -> SyncDeadlineExceeded:
        return SyncDeadlineExceeded(
            f"{self.method} {self.safe_url} was not done within deadline={self._deadline:g} s, "
            "retries included: allow more time, or fewer or shorter attempts"
        )

    def _check_status(self, response: Any) -> None:
        if not isinstance(response, requests.Response):
            response.raise_for_status()
            return
        status = response.status_code
        if status < 400:
            return
        kind = "Client" if status < 500 else "Server"
        reason: Any = response.reason
        if isinstance(reason, bytes):
            reason = reason.decode("latin-1")
        asked = parse_retry_after(response.headers)
        error = requests.HTTPError(
            f"{status} {kind} Error: {reason} for url: {sanitize_url(response.url or self.url)}: "
            f"{status_remedy(status, asked)}",
            response=response,
        )
        error.retry_after = asked  # type: ignore[attr-defined]
        raise error

    def should_retry(self, error: Exception) -> bool | float:
        """Judge a failed attempt for the retry loop."""
        if not self._replayable or isinstance(error, (DeadlineExceeded, OutcomeUnknown)):
            return False
        if isinstance(error, requests.HTTPError):
            response = error.response
            if response is None:
                return False
            sent = getattr(getattr(response, "request", None), "method", None)
            if not self.idempotent and sent not in (None, self.method):
                return False  # it ran, and was answered by a redirect
            return status_verdict(
                response.status_code,
                statuses=self._statuses,
                idempotent=self.idempotent,
                retry_after=getattr(error, "retry_after", None),
            )
        sent = isinstance(error, requests.RequestException)
        return sent and self._failure is not Failure.PERMANENT

    def note_retry(self, details: RetryDetails) -> None:
        """Log that an attempt failed and another follows."""
        status = getattr(getattr(details.error, "response", None), "status_code", None)
        kind = type(details.error).__name__
        why = status or f"{kind}: {redact_secrets(str(details.error))}"
        _logger.warning(
            "%s %s: attempt %d failed (%s), the next in %.2f s",
            self.method,
            self.safe_url,
            details.attempt,
            why,
            details.wait,
            extra={
                "method": self.method,
                "url": self.safe_url,
                "attempt": details.attempt,
                "status": status,
                "wait": details.wait,
                "error": kind,
                **trace_fields(),
            },
        )


def _failure_of(error: requests.RequestException) -> Failure:
    """Return what an error of requests means for the request that met it."""
    if is_permanent_transport_error(error):
        return Failure.PERMANENT
    if isinstance(error, requests.ConnectTimeout):
        return Failure.NOT_SENT
    if any(isinstance(link, urllib3.exceptions.NewConnectionError) for link in chain_of(error)):
        return Failure.NOT_SENT
    lost = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
    )
    return Failure.OUTCOME_UNKNOWN if isinstance(error, lost) else Failure.PERMANENT
