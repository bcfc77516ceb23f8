"""When to check next: pure arithmetic, without a clock, shared by every driver."""

import math
from dataclasses import dataclass
from typing import Final

from infra_core.runtime import is_number

__all__ = ["LAST_CHECK_GRACE", "PollSchedule"]

LAST_CHECK_GRACE: Final = 0.05
"""Seconds that a check has at least, also one that begins at the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollSchedule:
    """The times of one poll, in seconds since it began.

    Attributes:
        timeout: The deadline; `math.inf` for none.
        poll_interval: The wait after the first check.
        initial_delay: The wait before the first check.
        backoff_multiplier: What each further wait is multiplied with; 1 keeps the interval.
        max_backoff: Where growing stops. An interval that is longer from the start stays.
        jitter: How much of a wait chance may take away, from 0 (nothing) to 1 (all of it).

    Raises:
        ValueError: A value is out of range.
    """

    timeout: float = 600.0
    poll_interval: float = 5.0
    initial_delay: float = 0.0
    backoff_multiplier: float = 1.0
    max_backoff: float = 60.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("timeout", "poll_interval", "max_backoff"):
            value = getattr(self, name)
            if not (is_number(value) and value > 0):
                remedy = "; math.inf waits for ever" if name == "timeout" else ""
                raise ValueError(
                    f"{name} must be positive, a number of seconds, not {value!r}{remedy}"
                )
        if not (is_number(self.backoff_multiplier) and 1 <= self.backoff_multiplier < math.inf):
            raise ValueError(
                f"backoff_multiplier must be 1 or more and finite, not "
                f"{self.backoff_multiplier!r}; 1 keeps the interval, 2 doubles it each time"
            )
        if not (is_number(self.initial_delay) and self.initial_delay >= 0):
            raise ValueError(
                f"initial_delay must be 0 or more seconds, not {self.initial_delay!r}; 0 checks at "
                "once"
            )
        if not (is_number(self.jitter) and 0 <= self.jitter <= 1):
            raise ValueError(
                f"jitter must lie between 0 and 1, not {self.jitter!r}; 0.1 shortens waits by up "
                "to a tenth"
            )
        if math.isinf(self.poll_interval):
            raise ValueError(
                "poll_interval must be finite, not inf; to wait once and check, use initial_delay"
            )

    def interval(self, waits: int) -> float:
        """Return the wait after the check number `waits` (from 0), before jitter."""
        ceiling = max(self.max_backoff, self.poll_interval)
        try:
            return min(self.poll_interval * self.backoff_multiplier**waits, ceiling)
        except OverflowError:
            return ceiling

    def first_wait(self) -> float:
        """Return the wait before the first check, never beyond the deadline."""
        return min(self.initial_delay, self.timeout)

    def next_wait(
        self,
        waits: int,
        elapsed: float,
        *,
        check_time: float = 0.0,
        server_delay: float | None = None,
        chance: float = 0.0,
    ) -> tuple[float, bool] | None:
        """Decide how long to wait for the next check.

        A wait that would end too late is shortened, so that the last check falls on the
        deadline. A fetch that takes its time is begun earlier, by twice what the newest one took
        but by no more than an interval, so that its answer is there by the deadline.

        Args:
            waits: Waits between checks so far.
            elapsed: Seconds since the poll began.
            check_time: Seconds that the newest fetch took.
            server_delay: Seconds that the server asked for; taken instead of the interval, and
                not shortened by chance. Zero is no wish: it would make the poll a busy loop.
            chance: A random number between 0 and 1.

        Returns:
            The wait in seconds and whether the check after it is the last; None when the
            deadline has come.
        """
        remaining = self.timeout - elapsed
        if remaining <= 0:
            return None
        interval = self.interval(waits)
        if server_delay is not None and 0 < server_delay < math.inf:
            wait = server_delay
        else:
            wait = interval * (1 - self.jitter * chance)
        reserve = 2 * check_time
        if reserve <= LAST_CHECK_GRACE:
            reserve = 0.0
        latest = remaining - min(reserve, interval)
        if wait < latest:
            return wait, False
        return max(latest, 0.0), True
