"""The errors of the blocking half: also those of requests, and fit to travel between processes.

`ProcessPoolExecutor`, Dask and the like pickle what a task raises. requests' own errors lose their
answer there, and the requests and answers that errors carry hold credentials; those stay behind.
"""

from functools import partial
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from infra_core.runtime import is_secret_name, parse_retry_after, redact_secrets, sanitize_url

from ._errors import DeadlineExceeded, OutcomeUnknown, PrivateAddressError
from ._response.status import clean_reason, status_text

__all__ = [
    "HTTPError",
    "InvalidRedirect",
    "SyncDeadlineExceeded",
    "SyncOutcomeUnknown",
    "SyncPrivateAddressError",
    "TooManyRedirects",
    "UnsupportedRedirect",
    "WithAnswer",
    "fit_to_travel",
    "status_error",
    "without_body",
]


class _SentRequest(requests.PreparedRequest):
    """A request that leaves its credentials and its body behind when it is pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        state = {
            "method": self.method,
            "url": sanitize_url(self.url or ""),
            "headers": _kept(self.headers),
        }
        return requests.PreparedRequest, (), state


def _kept(headers: Any) -> CaseInsensitiveDict[str]:
    pairs = (headers or {}).items()
    # The values too: Location and the like may hold URLs with credentials.
    kept = {
        k: redact_secrets(v) if isinstance(v, str) else v for k, v in pairs if not is_secret_name(k)
    }
    return CaseInsensitiveDict(kept)


def _sent(request: Any) -> Any:
    if type(request) is not requests.PreparedRequest:
        return request
    sent = _SentRequest()
    vars(sent).update(vars(request))
    return sent


def fit_to_travel(error: Any) -> Any:
    """Let an error of requests be pickled without credentials, and return it."""
    if isinstance(error, requests.RequestException):
        error.request = _sent(error.request)
    return error


class WithAnswer(requests.RequestException):
    """An error about an answer that came, whose answer is still there after it was pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        carried = ("response", "request")
        fields = {name: value for name, value in vars(self).items() if name not in carried}
        answer = None if self.response is None else _travelling(self.response)
        return partial(type(self), response=answer), self.args, fields


def _travelling(response: requests.Response) -> requests.Response:
    """Return a copy without credentials, and without the answers before it."""
    copy = without_body(response)
    if vars(response).get("_content") is not False:  # unread, it may never end
        vars(copy).update({name: getattr(response, name) for name in _OF_THE_BODY})
    return copy


def without_body(response: requests.Response) -> requests.Response:
    """Return what is left, without credentials, of an answer whose body could not be read."""
    left = requests.Response()
    left.status_code = response.status_code
    left.reason = clean_reason(response.status_code, response.reason)
    left.url, left.headers = sanitize_url(response.url or ""), _kept(response.headers)
    left.request, left.raw = _sent(response.request), BytesIO()
    return left


_OF_THE_BODY = ("_content", "encoding", "elapsed")


class HTTPError(WithAnswer, requests.HTTPError):
    """An answer that is no success; a `requests.HTTPError` that can be pickled.

    Attributes:
        retry_after: Seconds that the server asked to wait, or None.
    """

    retry_after: float | None = None


def status_error(
    response: requests.Response,
    method: str | None = None,
    url: str | None = None,
    max_backoff: float | None = None,
) -> HTTPError:
    """Return the error for an answer that is no success."""
    text = status_text(
        getattr(response.request, "method", None) or method or "",
        response.url or url or "",
        response.status_code,
        response.reason,
        response.headers,
        max_backoff=max_backoff,
    )
    error = HTTPError(text, response=response)
    error.retry_after = parse_retry_after(response.headers)
    return error


class TooManyRedirects(WithAnswer, requests.TooManyRedirects):
    """More redirects than the session follows."""


class InvalidRedirect(WithAnswer, requests.exceptions.InvalidURL):
    """A redirect to what is no URL."""


class UnsupportedRedirect(WithAnswer, requests.exceptions.InvalidSchema):
    """A redirect that leads away from http and https."""


class SyncPrivateAddressError(PrivateAddressError, requests.ConnectionError):
    """The refusal of `public_only` as users of requests catch it."""

    @classmethod
    def of(cls, error: PrivateAddressError, url: str) -> "SyncPrivateAddressError":
        """Return it for the refusal of a request."""
        host = error.host or urlsplit(url).hostname or ""
        return cls(host, error.address, error.reason, error.remedy)


class SyncDeadlineExceeded(DeadlineExceeded, requests.Timeout):
    """The deadline as users of requests catch it."""

    def __init__(self, message: str) -> None:
        requests.Timeout.__init__(self, message)


class SyncOutcomeUnknown(OutcomeUnknown, requests.RequestException):
    """The lost answer as users of requests catch it."""

    def __init__(self, method: str, url: str, cause: BaseException) -> None:
        super().__init__(method, url, fit_to_travel(cause))
        self.request = getattr(cause, "request", None)
