"""What 0.7 had under other names or in another form."""

from collections.abc import Iterable
from dataclasses import dataclass

from infra_core.runtime import RetryPolicy as _Policy

__all__ = ["RetryPolicy"]


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
        _Policy(max_retries=self.max_retries, backoff=self.backoff, max_backoff=self.max_backoff)
