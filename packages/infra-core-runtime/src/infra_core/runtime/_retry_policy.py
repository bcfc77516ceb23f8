"""When to try again and how long to wait before: pure arithmetic, no clock and no I/O."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import clock
from ._values import is_number

__all__ = ["RetryDetails", "RetryPolicy", "check_policy", "parse_retry_after"]

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")
# Azure services count milliseconds in these; both are more exact than the standard's header.
_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to retry, how long to wait, and when to stop: immutable, shareable, finite.

    The wait before retry `n` (counted from 0) is drawn evenly from 0 to
    `min(backoff * 2**n, max_backoff)`: full jitter, which only ever lowers it and keeps a crowd
    of clients from returning in step.

    Attributes:
        max_retries: Retries after the first try; 0 means one try.
        backoff: Ceiling of the first wait, in seconds; it doubles with each retry. 0 means no
            waiting.
        max_backoff: No wait is longer than this many seconds, one that the server asks for
            included: a server that wants more ends the retries.
        jitter: `False` waits exactly the ceiling each time.
        deadline: Seconds in total, from the first try to the end of the last, waits included; a
            wait that would reach it is not begun. `None` for no bound.

    Raises:
        ValueError: For negative numbers, what is not a number, and a deadline that is not positive.

    Example:
        >>> policy = RetryPolicy(max_retries=3, backoff=1.0, max_backoff=3.0)
        >>> [policy.ceiling(retry) for retry in range(3)]
        [1.0, 2.0, 3.0]
    """

    max_retries: int = 2
    backoff: float = 1.0
    max_backoff: float = 60.0
    jitter: bool = True
    deadline: float | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.max_retries) and self.max_retries >= 0):
            raise ValueError(
                f"max_retries={self.max_retries!r} must be 0 or more: pass 0 for a single try, "
                "or the number of retries after it"
            )
        for name, value in (("backoff", self.backoff), ("max_backoff", self.max_backoff)):
            if not (is_number(value) and value >= 0):
                raise ValueError(f"{name}={value!r} must be a number of seconds: pass 0 or more")
        if self.deadline is not None and not (is_number(self.deadline) and self.deadline > 0):
            raise ValueError(
                f"deadline={self.deadline!r} must be a positive number of seconds: pass more than "
                "0, or None for no deadline"
            )

    def ceiling(self, retry: int) -> float:
        """Return the longest wait before the given retry, in seconds.

        Args:
            retry: Counted from 0.
        """
        try:
            return min(math.ldexp(self.backoff, retry), self.max_backoff)
        except OverflowError:
            return self.max_backoff

    def next_wait(
        self, *, retry: int, elapsed: float, retry_after: float | None = None
    ) -> float | None:
        """Return the seconds to wait before the given retry, or `None` to give up.

        Args:
            retry: Counted from 0.
            elapsed: Seconds since the first try began.
            retry_after: Seconds that the server asked for (RFC 9110, section 10.2.3), kept to the
                letter; zero or less, as from a date that is past, leaves the usual backoff.

        Returns:
            `None` when the retries are used up, the server asks for more than `max_backoff`, or
            the wait would reach the deadline.
        """
        if retry >= self.max_retries:
            return None
        if retry_after is not None and retry_after > 0:
            if retry_after > self.max_backoff:
                return None
            wait = retry_after
        else:
            wait = self.ceiling(retry)
            if self.jitter:
                wait = min(wait, clock.jitter(wait))
        if self.deadline is not None and elapsed + wait >= self.deadline:
            return None
        return wait


def check_policy(name: str, policy: RetryPolicy) -> None:
    """Refuse what is not a `RetryPolicy` at the call, and not when the first attempt has failed."""
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"{name}={policy!r} is not a RetryPolicy: pass RetryPolicy(max_retries=2)")


@dataclass(frozen=True, slots=True)
class RetryDetails:
    """What a retry hook is given, before the wait.

    Attributes:
        attempt: The attempt that failed, counted from 1.
        wait: Seconds until the next one.
        elapsed: Seconds since the first one began.
        error: What it raised.
    """

    attempt: int
    wait: float
    elapsed: float
    error: BaseException


def parse_retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return how many seconds the server asks to wait, from any form of the header.

    `retry-after-ms` and `x-ms-retry-after-ms` (Azure) count milliseconds; `Retry-After` counts
    seconds or names a date (RFC 9110, section 10.2.3). A date that is past gives 0.0. What cannot
    be read counts as absent: a malformed header is no reason to fail.

    Args:
        headers: Of the response; a case-insensitive mapping, or one in lower or title case.
        now: Seconds since the epoch, the current time when None.

    Example:
        >>> parse_retry_after({"Retry-After": "120"}), parse_retry_after({"retry-after-ms": "1500"})
        (120.0, 1.5)
    """
    for name in _MILLISECONDS:
        text = _value(headers, name)
        if _NUMBER.fullmatch(text):
            return float(text) / 1000.0
    text = _value(headers, "retry-after")
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        return float(text)
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        current = datetime.fromtimestamp(clock.time() if now is None else now, timezone.utc)
        return max(0.0, (moment - current).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _value(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = headers.get(name.title())
    return str(value or "").strip()
