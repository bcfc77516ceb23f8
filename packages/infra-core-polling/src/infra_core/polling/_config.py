"""Settings of a poll: validated once, immutable, shared by all drivers."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from infra_core.runtime import is_number

from ._schedule import PollSchedule

__all__ = ["PollingConfig", "checked_config"]


@dataclass(frozen=True, kw_only=True)
class PollingConfig(PollSchedule):
    """Timing, statuses and tolerance of a poll.

    Attributes:
        timeout: Seconds until `PollingTimeoutError`, the initial delay included; `math.inf` waits
            for ever.
        poll_interval: Seconds between checks.
        initial_delay: Seconds before the first check.
        max_backoff: Where a growing interval stops, in seconds.
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
        TypeError: Statuses given as one string, or as anything else that is no set.

    Example:
        >>> config = PollingConfig(timeout=60, failure_statuses={"failed"}, backoff_multiplier=2)
        >>> sorted(config.failure_statuses)
        ['failed']
    """

    terminal_statuses: AbstractSet[str] | None = None
    failure_statuses: AbstractSet[str] | None = None
    strict: bool = False
    max_consecutive_errors: int = 5
    handle_404: bool = True
    hard_timeout: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()  # checks the times
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


def checked_config(config: PollingConfig | None) -> PollingConfig:
    """Return the configuration, or the default one.

    Raises:
        TypeError: It is something else, such as a dict.
    """
    if config is None:
        return PollingConfig()
    if not isinstance(config, PollingConfig):
        raise TypeError(f"config={config!r} is no PollingConfig; pass PollingConfig(timeout=...)")
    return config
