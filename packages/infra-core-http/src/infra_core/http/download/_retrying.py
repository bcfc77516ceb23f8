"""Which failures of an attempt are worth another one, and where time ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import httpx

from infra_core.runtime import RetryDeadlineError, error_chain, parse_retry_after, until_done

from .._async_response import status_error as answer_error
from .._errors import ChecksumMismatchError, IncompleteDownloadError
from .._policy import Failure, status_verdict
from ..engine._errors import failure_of

__all__ = ["is_load", "should_retry", "status_error", "within"]

T = TypeVar("T")
_GRACE: Final = 0.5  # seconds for cleaning up before the work is left alone
_LOAD = frozenset({errno.EMFILE, errno.ENFILE})


def is_load(error: BaseException) -> bool:
    """Whether the process or the system was out of file descriptors, which passes."""
    return any(isinstance(link, OSError) and link.errno in _LOAD for link in error_chain(error))


def should_retry(error: Exception, statuses: frozenset[int]) -> bool | float:
    """Judge a failed attempt of a GET: repeat it, perhaps after so many seconds, or give up.

    Cut and altered bodies are worth another try, and so is a lack of file descriptors. A full
    disk, a file that is too large and what `infra_core.http` calls permanent (unknown host,
    refused certificate, malformed URL) are not.
    """
    if isinstance(error, (IncompleteDownloadError, ChecksumMismatchError)) or is_load(error):
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
    request = httpx.Request("GET", url)
    # The length of a body that is not here would make httpx complain.
    kept = [
        (name.encode(), value.encode("utf-8", "surrogateescape"))
        for name, value in headers.items()
        if not name.startswith("content-")
    ]
    response = httpx.Response(status, headers=kept, request=request)
    error = answer_error(response, max_backoff=max_backoff)
    if (error.retry_after or 0) <= max_backoff:
        error.retry_after = None
    return error


async def within(
    seconds: float, work: Coroutine[Any, Any, T], *, abandon: Callable[[], object]
) -> T:
    """Await for that many seconds at most; then leave the work to end by itself.

    A thread that hangs in a network file system cannot be stopped. The work is cancelled, goes on
    to clean up when its thread comes back, and the caller does not wait for it. Cancelled by its
    caller, it is waited for. `abandon` is called when the time is up, before the work is cancelled.

    Raises:
        RetryDeadlineError: The time is up.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        with contextlib.suppress(Exception):
            await until_done(task)
        raise
    if not done:
        abandon()
        task.cancel()
        _left.add(task)
        task.add_done_callback(_end_left)
        done, _ = await asyncio.wait([task], timeout=_GRACE)
        if not done or task.cancelled():
            raise RetryDeadlineError
    return task.result()


_left: set[asyncio.Future[Any]] = set()  # the loop itself holds tasks weakly


def _end_left(task: asyncio.Future[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain
