"""The errors of the asynchronous half: also those of httpx, and fit to travel between processes.

`ProcessPoolExecutor`, Dask and the like pickle what a task raises. httpx's own status error cannot
be unpickled, and the requests and answers that errors carry hold credentials; those stay behind.
"""

from contextlib import suppress
from functools import partial
from typing import Any

import httpx

from infra_core.runtime import error_chain, is_secret_name, redact_secrets, sanitize_url

from ._errors import DeadlineExceeded, OutcomeUnknown

__all__ = ["AsyncDeadlineExceeded", "AsyncOutcomeUnknown", "HTTPStatusError", "fit_to_travel"]


class _SentRequest(httpx.Request):
    """A request that leaves its credentials and its body behind when it is pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (
            httpx.Request,
            (
                self.method,
                sanitize_url(str(self.url)),
            ),
            {"headers": _kept(self.headers), "extensions": {}},
        )


def _kept(headers: httpx.Headers) -> httpx.Headers:
    # The values too: Location and the like may hold URLs with credentials.
    return httpx.Headers(
        [
            (name, redact_secrets(value.decode("latin-1")).encode("latin-1"))
            for name, value in headers.raw
            if not is_secret_name(name.decode("latin-1"))
        ]
    )


def fit_to_travel(error: Any, method: str = "GET", url: str | httpx.URL | None = None) -> Any:
    """Let an error and all that it wraps be pickled without credentials, and return it.

    A URL that was refused before a request was made gets one, of `method` and `url`: an
    `httpx.RequestError` without it raises where its `request` is read.
    """
    if url is not None and getattr(error, "_request", url) is None:
        error.request = httpx.Request(method, url)
    for link in error_chain(error, suppressed=True):
        with suppress(RuntimeError, AttributeError):  # it has no request
            request = link.request  # type: ignore[attr-defined]
            if type(request) is httpx.Request:
                link.request = _sent(request)  # type: ignore[attr-defined]
    return error


def _sent(request: httpx.Request) -> httpx.Request:
    sent = _SentRequest.__new__(_SentRequest)
    vars(sent).update(vars(request))
    return sent


class HTTPStatusError(httpx.HTTPStatusError):
    """An answer that is not a success; an `httpx.HTTPStatusError` that can be pickled.

    Attributes:
        retry_after: Seconds that the server asked to wait, or None.
    """

    retry_after: float | None = None

    def __reduce__(self) -> tuple[object, ...]:
        fields = {name: value for name, value in vars(self).items() if name not in _CARRIED}
        response = _travelling(self.response)
        make = partial(HTTPStatusError, request=response.request, response=response)
        return make, self.args, fields


_CARRIED = ("_request", "response")


def _travelling(response: httpx.Response) -> httpx.Response:
    """Return a copy without credentials, and without the answers before it."""
    copy = httpx.Response.__new__(type(response))
    state = response.__getstate__()
    state["headers"] = _kept(response.headers)
    copy.__setstate__(state)
    copy.history = []
    copy.request = _sent(response.request)
    return copy


class AsyncDeadlineExceeded(DeadlineExceeded, httpx.TimeoutException):
    """The deadline as users of httpx catch it."""

    def __init__(self, message: str) -> None:
        httpx.TimeoutException.__init__(self, message)


class AsyncOutcomeUnknown(OutcomeUnknown, httpx.TransportError):
    """The lost answer as users of httpx catch it."""

    def __init__(self, method: str, url: str, cause: BaseException) -> None:
        super().__init__(method, url, fit_to_travel(cause))
        with suppress(RuntimeError, AttributeError):  # such as a deadline that passed
            self.request = cause.request  # type: ignore[attr-defined]
