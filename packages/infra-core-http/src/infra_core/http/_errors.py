"""Every error of this package that is not one of httpx or requests.

    Exception
    └── HttpError
        ├── OutcomeUnknown              the request was sent, its answer was lost; what is raised
        │                               is also an httpx.TransportError (async) or a
        │                               requests.RequestException (sync)
        ├── ResponseTooLarge            the body is larger than `max_bytes`
        ├── DeadlineExceeded            (also TimeoutError) `deadline` passed
        ├── InvalidRequestError         (also ValueError) bad method, header or option
        ├── PrivateAddressError         `public_only` refused the address of a host
        └── DownloadError               a file could not be downloaded as asked
            ├── IncompleteDownloadError     (also httpx.RemoteProtocolError) cut, or damaged
            ├── ChecksumMismatchError       (also httpx.TransportError) other content
            ├── DownloadTooLargeError       (also ResponseTooLarge) above `max_bytes`
            ├── DownloadDeadlineError       (also httpx.TimeoutException and TimeoutError)
            └── DownloadDiskError           (also OSError) disk full, folder not writable

Failures of the network and error statuses come through as what httpx and requests raise. URLs are
kept and printed without their secrets.
"""

from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import httpx

from infra_core.runtime import sanitize_url

__all__ = [
    "ChecksumMismatchError",
    "DeadlineExceeded",
    "DownloadDeadlineError",
    "DownloadDiskError",
    "DownloadError",
    "DownloadTooLargeError",
    "HttpError",
    "IncompleteDownloadError",
    "InvalidRequestError",
    "OutcomeUnknown",
    "PrivateAddressError",
    "ResponseTooLarge",
]


class HttpError(Exception):
    """Root of the errors of this package."""

    # Parameters of the constructors that take more than a text, which pickling does not know by
    # itself: names of attributes, or `message`.
    _fields: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> Any:
        if not self._fields:
            return super().__reduce__()
        fields = {name: getattr(self, name, str(self)) for name in self._fields}
        notes = getattr(self, "__notes__", None)
        return partial(type(self), **fields), (), notes and {"__notes__": list(notes)}


class OutcomeUnknown(HttpError):  # noqa: N818 - the name says what is known: nothing
    """A request that must not be repeated blindly was sent, and its answer never came.

    The server may have done what was asked, or not. Raised for methods that are not idempotent
    (RFC 9110, section 9.2.2: all but GET, HEAD, OPTIONS, TRACE, PUT and DELETE) when the
    connection broke or a timeout struck after the request went out.

    Attributes:
        cause: The exception that lost the answer (`__cause__` as well).
        method: Of the request.
        url: Of the request, without secrets.
    """

    _fields = ("method", "url", "cause")

    def __init__(self, method: str, url: str, cause: BaseException) -> None:
        self.method = method
        self.url: str = sanitize_url(url)
        self.cause = cause
        # Without the remedy of the cause, which is for requests that may be sent again.
        why = "the deadline passed" if isinstance(cause, TimeoutError) else str(cause)
        super().__init__(
            f"{method} {self.url} was sent but its answer was lost "
            f"({type(cause).__name__}: {why.partition(': ')[0]}): the server may have acted on it. "
            "Ask the server "
            "what happened, or make the request repeatable with an Idempotency-Key header or "
            "idempotent=True"
        )
        self.__cause__: BaseException | None = cause


class ResponseTooLarge(HttpError):  # noqa: N818 - reads as what happened
    """The body is larger than the caller allows; reading was stopped.

    Attributes:
        url: Without secrets.
        limit: `max_bytes`.
        received: Bytes announced or read when it was noticed.
    """

    _fields: ClassVar[tuple[str, ...]] = ("url", "limit", "received")

    def __init__(self, url: str, limit: int, received: int) -> None:
        self.url: str = sanitize_url(url)
        self.limit = limit
        self.received = received
        super().__init__(
            f"the body of {self.url} has {received} bytes or more, above max_bytes={limit}: raise "
            "max_bytes, or stream the body"
        )


class DeadlineExceeded(HttpError, TimeoutError):  # noqa: N818 - reads as what happened
    """The total deadline of a request passed, retries and waits included.

    What is raised is also an `httpx.TimeoutException` (async) or a `requests.Timeout` (sync).
    """


class InvalidRequestError(HttpError, ValueError):
    """A method, header or option that cannot be sent; nothing was."""


class PrivateAddressError(HttpError):
    """`public_only` is set, and no address of the host is public; nothing was sent.

    What is raised is also an `httpx.ConnectError` (async) or a `requests.ConnectionError` (sync).
    It is not retried.

    Attributes:
        host: As the URL names it.
        address: What would have been connected to; None where it is not known.
        reason: Why that is refused.
    """

    _fields = ("host", "address", "reason", "remedy")

    def __init__(
        self, host: str, address: str | None, reason: str, remedy: str | None = None
    ) -> None:
        self.host = host
        self.address = address
        self.reason = reason
        self.remedy: str = (
            remedy or "check the URL, or set public_only=False for hosts of your own network"
        )
        at = "" if address in (None, host) else f" at {address}"
        super().__init__(f"public_only refuses the host {host!r}{at} ({reason}): {self.remedy}")

    @classmethod
    def behind_proxy(cls, host: str, where: str, variable: str) -> "PrivateAddressError":
        """Return the error for a request that would go through a proxy.

        Args:
            host: Of the request.
            where: Host and port of the proxy.
            variable: What names it.
        """
        return cls(
            host,
            None,
            f"the proxy {where} of {variable} would look it up and connect to it, and its address "
            "cannot be checked here",
            "name the host in NO_PROXY, or set public_only=False and let the proxy refuse",
        )


class DownloadError(HttpError):
    """A file could not be downloaded as asked; nothing was left at its place.

    Attributes:
        url: Without secrets.
        expected: What should have come (size, checksum), or None.
        actual: What came, or None.
    """

    _fields: ClassVar[tuple[str, ...]] = ("message", "url", "expected", "actual")

    def __init__(
        self, message: str, *, url: str, expected: object = None, actual: object = None
    ) -> None:
        self.url: str = sanitize_url(url)
        self.expected = expected
        self.actual = actual
        # not super(): the other bases of some of the classes below take other arguments
        error: Any = self
        if isinstance(error, httpx.RequestError):
            httpx.RequestError.__init__(error, message)
            with suppress(httpx.InvalidURL):  # what replaced a secret is not part of a URL
                error.request = httpx.Request("GET", self.url)
        else:
            Exception.__init__(self, message)


class IncompleteDownloadError(DownloadError, httpx.RemoteProtocolError):
    """The body is shorter or longer than the server announced, or its coding is damaged."""


class ChecksumMismatchError(DownloadError, httpx.TransportError):
    """The content is not what `expected_checksum` or the server's digest says."""


class DownloadTooLargeError(DownloadError, ResponseTooLarge):
    """The file is larger than `max_bytes`."""

    def __init__(self, message: str, *, url: str, expected: int, actual: int) -> None:
        DownloadError.__init__(self, message, url=url, expected=expected, actual=actual)
        self.limit = expected
        self.received = actual


class DownloadDeadlineError(DownloadError, httpx.TimeoutException, TimeoutError):
    """The download did not finish before its deadline."""


class DownloadDiskError(DownloadError, OSError):
    """The file could not be written: disk full, read-only folder, too many open files.

    The classes of the system's errors, such as `PermissionError`, do not match it: look at
    `errno`.

    Attributes:
        errno: Of the system's error (`errno.ENOSPC` and the like), or None.
        filename: The destination.
    """

    _fields = ("message", "url", "errno", "filename")

    def __init__(
        self, message: str, *, url: str, errno: int | None = None, filename: str = ""
    ) -> None:
        super().__init__(message, url=url, actual=filename)
        self.errno = errno
        self.filename = filename

    def __str__(self) -> str:
        return str(self.args[0])  # an OSError with an errno would print that alone
