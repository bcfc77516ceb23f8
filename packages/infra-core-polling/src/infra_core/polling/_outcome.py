"""What became of one job of many."""

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

__all__ = ["PollOutcome"]

J = TypeVar("J")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PollOutcome(Generic[J, T]):
    """What became of one job of `poll_many_async`.

    Attributes:
        job: The job, as it was given.
        response: The terminal response; for a job that ended in an error the newest one, or None.
        error: Why there is no terminal response: `PollingTimeoutError`, `PollingFailureError`,
            `PollingCancelledError`, or what the fetch raised. None when there is one.
        attempts: How often the fetch was called.
        elapsed: Seconds from the moment the job was taken in to its end.
    """

    job: J
    response: T | None
    error: Exception | None
    attempts: int
    elapsed: float

    @property
    def ok(self) -> bool:
        """Whether there is a terminal response."""
        return self.error is None

    def result(self) -> T:
        """Return the terminal response.

        Raises:
            Exception: `error`, when there is none.
        """
        if self.error is not None:
            raise self.error
        return cast("T", self.response)  # may well be None: a response like any other
