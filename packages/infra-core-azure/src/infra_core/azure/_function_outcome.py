"""The error for a function that may or may not have run, as an HTTP status shows."""

import httpx

from infra_core.http import OutcomeUnknown
from infra_core.runtime import sanitize_url

__all__ = ["FunctionOutcomeUnknown"]


class FunctionOutcomeUnknown(OutcomeUnknown, httpx.HTTPStatusError, httpx.TransportError):
    """The gateway gave up waiting for a function that must not run twice.

    Azure cuts every HTTP-triggered function off after 230 seconds, while the function goes on
    (Microsoft, "Azure Functions scale and hosting": function app time-out duration). Caught as
    `OutcomeUnknown`, or as the `httpx.HTTPStatusError` or `httpx.TransportError` it also is.

    Attributes:
        response: The answer of the gateway.
    """

    def __init__(self, method: str, url: str, cause: httpx.HTTPStatusError) -> None:
        # httpx's own constructor wants keywords that OutcomeUnknown does not hand on.
        self.method = method
        self.url = sanitize_url(url)
        self.cause = cause
        self.request = cause.request
        self.response = cause.response
        Exception.__init__(
            self,
            f"{method} {self.url} was cut off with status {cause.response.status_code}: the "
            "function may have run, or still run (the host waits 230 s). Ask the app what "
            "happened before sending it again; a function that takes long belongs behind "
            "start_and_wait()",
        )
        self.__cause__ = cause
