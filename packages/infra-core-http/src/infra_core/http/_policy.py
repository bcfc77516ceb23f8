"""When a failed request is tried again: pure decisions, shared by the sync and the async half."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from infra_core.runtime import RetryPolicy as _Schedule

from ._errors import InvalidRequestError

__all__ = [
    "DEFAULT_RETRY_STATUSES",
    "Failure",
    "RetryPolicy",
    "build_policy",
    "is_idempotent",
    "is_replayable",
    "retry_statuses_of",
    "status_verdict",
]

DEFAULT_RETRY_STATUSES: set[int] = {429, 500, 502, 503, 504}
"""Answers that are worth another try."""

# RFC 9110, section 9.2.2.
_IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
# Said before the work is begun: "too many requests", "cannot serve you now".
_SURELY_NOT_RUN = frozenset({429, 503})
_IDEMPOTENCY_HEADERS = ("idempotency-key", "x-idempotency-key")


class Failure(Enum):
    """What a failure of the network means for the request."""

    PERMANENT = "another try would fail alike: malformed URL, unknown host, refused certificate"
    NOT_SENT = "the server never saw it: no connection, no free slot"
    OUTCOME_UNKNOWN = "it went out, and its answer did not come back whole"


def is_idempotent(
    method: str, headers: Mapping[str, str] | None = None, override: bool | None = None
) -> bool:
    """Whether a request may be sent twice without doing its work twice.

    Args:
        method: In upper case.
        headers: An `Idempotency-Key` header makes any method repeatable: the server sorts out
            the second one.
        override: The caller's word, which is final.
    """
    if override is not None:
        return override
    if method in _IDEMPOTENT_METHODS:
        return True
    return any(name.lower() in _IDEMPOTENCY_HEADERS for name in headers or ())


def is_replayable(*bodies: object) -> bool:
    """Whether bodies can be sent again: a file or an iterator is used up by the first time."""
    return all(isinstance(body, (bytes, str, Mapping, list, tuple, type(None))) for body in bodies)


def retry_statuses_of(statuses: Iterable[int] | None) -> frozenset[int]:
    """Return the statuses to retry: the defaults for None, exactly those given otherwise."""
    if statuses is None:
        return frozenset(DEFAULT_RETRY_STATUSES)
    with suppress(TypeError):  # cannot be iterated over, or has what cannot be in a set
        found = frozenset(statuses)
        given: object = statuses
        if not isinstance(given, (str, bytes)) and all(isinstance(status, int) for status in found):
            return found
    raise InvalidRequestError(
        f"retry_statuses={statuses!r} are not HTTP statuses: pass numbers, such as [429, 503]"
    )


def status_verdict(
    status: int, *, statuses: frozenset[int], idempotent: bool, retry_after: float | None
) -> bool | float:
    """Whether an answer is worth another try; a number when the server named the wait.

    A request that must not run twice is sent again only after an answer that says it did not run.
    """
    if status not in statuses or not (idempotent or status in _SURELY_NOT_RUN):
        return False
    return True if retry_after is None else retry_after


# Programs use a handful of settings; building one per request would cost as much as its headers.
@lru_cache(maxsize=64)
def build_policy(
    max_retries: int, backoff: float, max_backoff: float, deadline: float | None
) -> _Schedule:
    """Return the policy for the parameters that every call takes."""
    return _Schedule(
        max_retries=max_retries, backoff=backoff, max_backoff=max_backoff, deadline=deadline
    )


@dataclass(frozen=True)
class RetryPolicy:
    """How often to retry, how long to wait, and for which answers.

    Attributes:
        max_retries: Retries after the first attempt.
        backoff: Ceiling of the first wait, in seconds; it doubles with each retry.
        max_backoff: No wait is longer.
        retry_statuses: Answers worth another try; the defaults when None.

    Raises:
        ValueError: For negative numbers.

    Example:
        >>> RetryPolicy(retry_statuses=[503]).retry_statuses
        [503]
    """

    max_retries: int = 2
    backoff: float = 1.0
    max_backoff: float = 60.0
    retry_statuses: Iterable[int] | None = None

    def __post_init__(self) -> None:
        _Schedule(max_retries=self.max_retries, backoff=self.backoff, max_backoff=self.max_backoff)
