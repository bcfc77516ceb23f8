"""Settings of a poll, and when it checks next: immutable, without a clock, for all drivers."""

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from infra_core.runtime import is_number

__all__ = ["LAST_CHECK_GRACE", "PollingConfig", "checked_config"]

LAST_CHECK_GRACE: Final = 0.05
"""Seconds that a check has at least, also one that begins at the deadline."""


@dataclass(frozen=True, kw_only=True)
class PollingConfig:
    """Timing, statuses and tolerance of a poll.

    Attributes:
        timeout: Seconds until `PollingTimeoutError`, the initial delay included; `math.inf` waits
            for ever.
        poll_interval: Seconds between checks.
        initial_delay: Seconds before the first check.
        max_backoff: Where a growing interval stops, in seconds; one that is longer from the start
            stays.
        backoff_multiplier: What the interval is multiplied with after each check; 1 keeps it.
        terminal_statuses: Statuses that end the poll; by default completed, succeeded, failed,
            cancelled and canceled. Letter case does not matter, enum members are welcome.
        failure_statuses: Statuses that raise `PollingFailureError`. **By default none**, as in
            0.7: a response with the status "failed" is *returned*, and the caller looks at it.
        strict: Raise for "failed", "cancelled" and "canceled" when `failure_statuses` is not
            given. Recommended for new code.
        jitter: How much of each wait chance may take away, 0 to 1, so that many pollers do not
            come back in step.
        max_consecutive_errors: How many transient errors in a row are waited out; the next one is
            raised. Every response sets the count back. 0 raises the first.
        handle_404: A 404 means "not there yet": the poll goes on, without counting it as an error.
        hard_timeout: Run a synchronous fetch of the sync forms in a thread and leave that behind
            when it hangs, so that the caller is back at the deadline. The async forms always do.

    Raises:
        ValueError: A value is out of range.
        TypeError: Statuses given as one string, or as anything else that is not a set.

    Example:
        >>> config = PollingConfig(timeout=60, failure_statuses={"failed"}, backoff_multiplier=2)
        >>> sorted(config.failure_statuses)
        ['failed']
    """

    timeout: float = 600.0
    poll_interval: float = 5.0
    initial_delay: float = 0.0
    backoff_multiplier: float = 1.0
    max_backoff: float = 60.0
    jitter: float = 0.0
    terminal_statuses: AbstractSet[str] | None = None
    failure_statuses: AbstractSet[str] | None = None
    strict: bool = False
    max_consecutive_errors: int = 5
    handle_404: bool = True
    hard_timeout: bool = False

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
        errors = self.max_consecutive_errors
        if not (is_number(errors) and errors >= 0):
            raise ValueError(
                f"max_consecutive_errors must be 0 or more, not {errors!r}; 0 raises the first "
                "error"
            )
        for name in ("terminal_statuses", "failure_statuses"):
            statuses = getattr(self, name)
            if isinstance(statuses, (str, bytes)):
                raise TypeError(f"{name} must be a set of statuses; write {{{statuses!r}}}")
            if statuses is not None:
                try:
                    object.__setattr__(self, name, frozenset(statuses))
                except TypeError as error:
                    raise TypeError(
                        f"{name} must be a set of statuses, not {statuses!r}; write {{'failed'}}"
                    ) from error

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
                not shortened by chance. Zero is not a wish: it would make the poll a busy loop.
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


def checked_config(config: PollingConfig | None) -> PollingConfig:
    """Return the configuration, or the default one; refuse anything else, such as a dict."""
    if config is None:
        return PollingConfig()
    if not isinstance(config, PollingConfig):
        raise TypeError(f"config={config!r} is not a PollingConfig; pass PollingConfig(timeout=60)")
    return config
