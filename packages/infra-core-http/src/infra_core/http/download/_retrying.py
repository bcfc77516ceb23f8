"""Which failures of an attempt are worth another one, and the error of a bad status."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from infra_core.runtime import parse_retry_after, sanitize_url

from .._async_errors import HTTPStatusError
from .._errors import ChecksumMismatchError, IncompleteDownloadError
from .._messages import status_remedy
from .._policy import Failure, status_verdict
from ..engine._errors import failure_of

__all__ = ["should_retry", "status_error"]


def should_retry(error: Exception, statuses: frozenset[int]) -> bool | float:
    """Judge a failed attempt of a GET: repeat it, perhaps after so many seconds, or give up.

    Cut and altered bodies are worth another try; a full disk, a file that is too large and what
    `infra_core.http` calls permanent (unknown host, refused certificate, malformed URL) are not.
    """
    if isinstance(error, (IncompleteDownloadError, ChecksumMismatchError)):
        return True
    if isinstance(error, httpx.HTTPStatusError):
        return status_verdict(
            error.response.status_code,
            statuses=statuses,
            idempotent=True,
            retry_after=parse_retry_after(error.response.headers),
        )
    if isinstance(error, httpx.TransportError):
        return failure_of(error) is not Failure.PERMANENT
    return False


def status_error(
    url: str, status: int, headers: Mapping[str, str], max_backoff: float
) -> httpx.HTTPStatusError:
    """The error that httpx raises for a status, its message without the secrets of the URL.

    `retry_after` holds the seconds that the server asked to wait when that is more than
    `max_backoff`, which ends the retries: the caller may come back then.
    """
    name = sanitize_url(url)
    answer = f"{status} {httpx.codes.get_reason_phrase(status)}".rstrip()
    asked = parse_retry_after(headers)
    remedy = status_remedy(status, asked)
    if asked is not None and asked > max_backoff:
        remedy += f", more than max_backoff={max_backoff:g}"
    request = httpx.Request("GET", url)
    # The length of a body that is not here would make httpx complain.
    kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
    error = HTTPStatusError(
        f"{name} answered {answer}: {remedy}",
        request=request,
        response=httpx.Response(status, headers=kept, request=request),
    )
    error.retry_after = asked if asked is not None and asked > max_backoff else None
    return error
