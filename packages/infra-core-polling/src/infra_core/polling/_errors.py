"""Errors of polling.

The tree::

    PollingError
    ├── PollingTimeoutError      not done by the deadline
    ├── PollingFailureError      done, and failed
    └── PollingCancelledError    stopped by its cancel event

Errors of the fetch itself come through as they are: at once when they are not transient, after
`max_consecutive_errors` in a row when they are.
"""

from typing import Any

__all__ = [
    "CheckStopped",
    "PollingCancelledError",
    "PollingError",
    "PollingFailureError",
    "PollingTimeoutError",
]


class PollingError(Exception):
    """Root of all errors that polling raises itself.

    Attributes:
        last_response: The newest response, or None when there was none; what a caller needs to
            take the wait up again (its status URL, its job id).
        last_error: The newest transient error of the fetch, if it came after the last response.
        attempts: How often the fetch was called.
        elapsed: Seconds since the poll began.
        label: The label that the caller gave this poll, as it was given.
        status: The status in the newest response, when polling by status.
    """

    last_error: Exception | None = None
    attempts: int = 0
    elapsed: float = 0.0
    label: str | None = None
    status: str | None = None

    def __init__(self, message: str = "", last_response: Any = None) -> None:
        super().__init__(message)
        self.last_response = last_response


class PollingTimeoutError(PollingError):
    """No terminal response came before the deadline.

    A response that arrives later than that is not taken for an answer, yet kept in
    `last_response`.
    """


class PollingFailureError(PollingError):
    """The job ended with one of the failure statuses.

    Attributes:
        response: The response with that status; also `last_response`.
    """

    def __init__(self, message: str, response: Any = None) -> None:
        super().__init__(message, response)
        self.response = response


class PollingCancelledError(PollingError):
    """The cancel event was set before a terminal response came."""


class CheckStopped(Exception):  # noqa: N818 - a signal between our own modules
    """The fetch was still running when its time was up, or when the cancel event was set."""

    def __init__(self, *, cancelled: bool = False) -> None:
        super().__init__()
        self.cancelled = cancelled
