"""One call and its attempts: what the blocking and the asynchronous half have in common.

Each half derives its own `Call`, which knows how to send once. Here is all the rest: checking the
arguments, judging a failed attempt, logging it, and the words of the errors that are ours.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import httpx

from infra_core.runtime import (
    RetryDetails,
    add_note,
    redact_secrets,
    sanitize_url,
    trace_fields,
)

from ._checks import check_call, check_callable, check_delay
from ._errors import DeadlineExceeded, HttpError, OutcomeUnknown
from ._headers import check_method, check_no_body, checked_headers
from ._policy import (
    Failure,
    build_policy,
    is_idempotent,
    is_replayable,
    retry_statuses_of,
    status_verdict,
)

__all__ = ["FIELDS", "BaseCall", "OnRetry"]

FIELDS = ("params", "json", "data", "content")
"""What a call may send beside its headers, by the names of httpx."""

OnRetry = Callable[[RetryDetails], Any]
"""Called before each wait; what it raises ends the retries. The asynchronous half awaits it."""


class BaseCall:
    """The arguments of one call, checked, and the judgement of its attempts.

    The parameters are those of `request_async` and `request`, and mean what is said here.
    """

    logger: ClassVar[logging.Logger]
    outcome_unknown: ClassVar[type[OutcomeUnknown]]
    deadline_exceeded: ClassVar[type[DeadlineExceeded]]
    failure_of: "ClassVar[staticmethod[[Exception], Failure]]"
    """What a failure of the network means; each half knows the errors of its library."""

    def __init__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Any = None,
        json: Any = None,
        data: Any = None,
        content: Any = None,
        delay: float = 0.0,
        max_retries: int = 2,
        backoff: float = 1.0,
        max_backoff: float = 60.0,
        retry_statuses: Iterable[int] | None = None,
        idempotent: bool | None = None,
        deadline: float | None = None,
        max_bytes: int | None = None,
        on_retry: OnRetry | None = None,
        _log_failure: bool = True,
    ) -> None:
        self.method = check_method(method)
        self.url = url
        self.headers = checked_headers(headers)
        self.idempotent = is_idempotent(self.method, self.headers, idempotent)
        self.statuses = retry_statuses_of(retry_statuses)
        self.policy = build_policy(max_retries, backoff, max_backoff, deadline)
        data, content = _form(_fixed(data)), _fixed(content)
        self.fields: dict[str, Any] = {}
        for name, value in zip(FIELDS, (params, json, data, content), strict=True):
            if value is not None:
                self.fields[name] = value
        if not self.fields.keys() - {"params"}:
            check_no_body(self.headers)
        self.replayable = not self.fields or is_replayable(data, content)
        check_call(max_bytes, params)
        check_delay(delay)
        check_callable("on_retry", on_retry, "a function of one RetryDetails")
        self.delay = delay
        self.deadline = deadline
        self.max_bytes = max_bytes
        self.on_retry = on_retry
        self._log_failure = _log_failure
        self.attempts = 1

    @property
    def safe_url(self) -> str:
        """The URL without its secrets."""
        return sanitize_url(str(self.url))

    def lost(self, error: Exception) -> Exception:
        """Return what to raise when the answer was lost after the request may have been sent."""
        if self.idempotent:
            return error
        return self.outcome_unknown(self.method, self.url, error)

    def judged(self, error: Exception) -> Exception:
        """Return what to raise for a failure of the network."""
        unknown = self.failure_of(error) is Failure.OUTCOME_UNKNOWN or self._moved_on(error)
        return self.lost(error) if unknown else error

    def too_late(self) -> DeadlineExceeded:
        """Return the error for a deadline that passed."""
        return self.deadline_exceeded(
            f"{self.method} {self.safe_url} was not done within deadline={self.deadline:g} s, "
            "retries included: allow more time, or fewer or shorter attempts"
        )

    def should_retry(self, error: Exception) -> bool | float:
        """Judge a failed attempt for the retry loop."""
        if not self.replayable or isinstance(error, HttpError):
            return False
        status = _status_of(error)
        if status is not None:
            if not self.idempotent and self._moved_on(error):
                return False  # it ran, and was answered by a redirect
            return status_verdict(
                status,
                statuses=self.statuses,
                idempotent=self.idempotent,
                retry_after=getattr(error, "retry_after", None),
            )
        failure = self.failure_of(error)
        return failure is Failure.NOT_SENT or (
            failure is Failure.OUTCOME_UNKNOWN and self.idempotent
        )

    def _moved_on(self, error: Exception) -> bool:
        """Whether the request was answered by a redirect, and what failed is the next one."""
        try:
            request = getattr(error, "request", None)
        except RuntimeError:  # of httpx, for an error without a request
            return False
        response = getattr(error, "response", None)
        request = request or getattr(response, "request", None)
        method = getattr(request, "method", None)
        return method is not None and method != self.method

    def note_retry(self, details: RetryDetails) -> Any:
        """Log that an attempt failed and another follows; return what `on_retry` returned."""
        self.attempts += 1
        error = details.error
        self.logger.warning(
            "%s %s: attempt %d failed (%s), the next in %.2f s",
            self.method,
            self.safe_url,
            details.attempt,
            _status_of(error) or f"{type(error).__name__}: {redact_secrets(str(error))}",
            details.wait,
            extra={**self._log_fields(error), "attempt": details.attempt, "wait": details.wait},
        )
        return None if self.on_retry is None else self.on_retry(details)

    def note_failure(self, error: Exception) -> None:
        """Log, once, that the call failed permanently, as 0.7 did; note the URL on the error."""
        add_note(error, f"while requesting {self.safe_url}")
        if not self._log_failure or isinstance(error, (ValueError, httpx.InvalidURL)):
            return  # the caller logs it, or nothing was sent: an argument cannot be
        fields = {**self._log_fields(error), "attempts": self.attempts}
        self.logger.error("Fetch failed", extra=fields, exc_info=error)

    def _log_fields(self, error: BaseException) -> dict[str, Any]:
        return {
            "method": self.method,
            "url": self.safe_url,
            "status": _status_of(error),
            "error": type(error).__name__,
            **trace_fields(),
        }


def _fixed(body: Any) -> Any:
    return bytes(body) if isinstance(body, (bytearray, memoryview)) else body


def _form(data: Any) -> Any:
    """Return a form as both libraries encode it alike; any other body as it is."""
    pairs = list(data.items()) if isinstance(data, Mapping) else data
    is_form = isinstance(pairs, (list, tuple))
    if not (is_form and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs)):
        return data
    form: dict[Any, list[str | bytes]] = {}
    for name, value in pairs:
        single = isinstance(value, (str, bytes)) or not isinstance(value, Iterable)
        form.setdefault(name, []).extend(map(_form_text, [value] if single else value))
    return form


def _form_text(value: Any) -> str | bytes:
    if isinstance(value, (str, bytes)):
        return value
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _status_of(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
