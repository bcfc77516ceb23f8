"""One poll as a state object without I/O: drivers feed it what happened, it says what is next."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from infra_core.runtime import clock, is_number

from ._config import PollingConfig
from ._errors import PollingCancelledError, PollingError, PollingTimeoutError
from ._log import logger
from ._schedule import LAST_CHECK_GRACE, PollSchedule
from ._signals import (
    PLAIN_TYPES,
    is_transient as default_is_transient,
    retry_after,
    status_code,
)

__all__ = ["DONE", "PollRules", "PollRun", "check_callable"]

T = TypeVar("T")

DONE: Final = -1.0
"""What `PollRun.response` says in place of a wait when the response is the answer."""


def check_callable(name: str, function: object) -> None:
    """Refuse what cannot be called before the first check is made.

    Raises:
        TypeError: Such as the result of a function in the place of the function.
    """
    if not callable(function):
        raise TypeError(f"{name} cannot be called, being of type {type(function).__name__}; pass "
                        "a function")  # fmt: skip


@dataclass(slots=True, kw_only=True)
class PollRules(Generic[T]):
    """What is the same for all checks, and for all jobs of one `poll_many_async`."""

    schedule: PollSchedule
    is_terminal: Callable[[T], bool]
    is_transient: Callable[[Exception], bool]
    next_delay: Callable[[Any], float | None] | None
    """None for `retry_after`."""
    max_consecutive_errors: int
    handle_404: bool
    status: Callable[[Any], str | None] | None
    """Finds the status in a response, for the error of a poll that came to nothing."""
    timeout: float
    steady: float | None
    """The interval, when neither backoff nor chance changes it."""

    @classmethod
    def of(
        cls,
        config: PollingConfig,
        is_terminal: Callable[[T], bool],
        *,
        is_transient: Callable[[Exception], bool] | None,
        next_delay: Callable[[Any], float | None] | None,
        status: Callable[[Any], str | None] | None = None,
    ) -> "PollRules[T]":
        """Combine a configuration with the callables of one call.

        Raises:
            TypeError: One of them cannot be called.
        """
        check_callable("is_terminal", is_terminal)
        for name, function in (("is_transient", is_transient), ("next_delay", next_delay)):
            if function is not None:
                check_callable(name, function)
        schedule = config.schedule()
        steady = schedule.backoff_multiplier == 1 and schedule.jitter == 0
        return cls(
            schedule=schedule,
            is_terminal=is_terminal,
            is_transient=is_transient or default_is_transient,
            next_delay=next_delay,
            max_consecutive_errors=config.max_consecutive_errors,
            handle_404=config.handle_404,
            status=status,
            timeout=schedule.timeout,
            steady=schedule.poll_interval if steady else None,
        )


class PollRun(Generic[T]):
    """The state of one poll: counts, newest response, newest error."""

    __slots__ = (
        "attempts", "began", "budget", "check_began", "check_time", "errors", "label", "last",
        "last_error", "last_response", "rules", "waits",
    )  # fmt: skip

    def __init__(self, rules: PollRules[T], *, label: str | None = None) -> None:
        self.rules = rules
        self.label = label
        self.began = clock.monotonic()
        self.check_began = self.began
        self.check_time = 0.0
        self.budget = 0.0
        self.attempts = 0
        self.waits = 0
        self.errors = 0
        self.last = False
        self.last_response: T | None = None
        self.last_error: Exception | None = None

    def begin_check(self, now: float) -> float:
        """Note that a fetch begins and return how many seconds it may take.

        Raises:
            PollingTimeoutError: The initial delay used the whole time up.
        """
        self.check_began = now
        remaining = self.rules.timeout - (now - self.began)
        if remaining <= 0 and self.attempts == 0:
            raise self.timed_out("no check was made; make initial_delay shorter than timeout")
        self.attempts += 1
        if remaining < LAST_CHECK_GRACE:
            remaining = LAST_CHECK_GRACE  # or an answer to the last check could never be seen
        self.budget = remaining
        return remaining

    def arrived(self, response: T, now: float) -> None:
        """Note that the fetch returned a response, before anything is done with it."""
        self.check_time = now - self.check_began
        self.last_response = response
        self.last_error = None
        self.errors = 0

    def judge(self, response: T, now: float) -> float:
        """Decide what the response that has just arrived means.

        Returns:
            `DONE` when it is terminal, else the seconds to wait for the next check.

        Raises:
            PollingTimeoutError: It came after the deadline, or was the last one before it.
            PollingError: What `is_terminal` raised, such as `PollingFailureError`.
        """
        rules = self.rules
        if self.check_time > self.budget:
            raise self.timed_out(
                f"the last check took {self.check_time:.3f} s and came back after the deadline; "
                "give the fetch a timeout of its own"
            )
        try:
            if rules.is_terminal(response):
                return DONE
        except PollingError as error:
            raise self.enriched(error)  # noqa: B904 - it is the same error
        next_delay = rules.next_delay
        if next_delay is None:  # the default, which finds nothing in a decoded body
            server_delay = None if type(response) in PLAIN_TYPES else retry_after(response)
        else:
            server_delay = self._asked(next_delay, response)
        steady = rules.steady
        # The usual case, far from the deadline, without the arithmetic of next_wait: a reserve is
        # never longer than an interval, so with two of them left nothing has to be shortened.
        if (
            server_delay is None
            and steady is not None
            and now - self.began + 2 * steady < rules.timeout
            and not self.last
        ):
            self.waits += 1
            return steady
        return self._wait(server_delay, now)

    def error(self, error: Exception) -> float:
        """Take an error of the fetch in.

        Returns:
            The seconds to wait for the next check.

        Raises:
            PollingTimeoutError: There is no time for another check.
            Exception: The error itself when it is not transient, or one too many.
        """
        now = clock.monotonic()
        self.check_time = now - self.check_began
        rules = self.rules
        missing = rules.handle_404 and status_code(error) == 404
        if not missing:
            if not rules.is_transient(error):
                raise self._noted(error)
            self.errors += 1
            if self.errors > rules.max_consecutive_errors:
                raise self._noted(error)
        self.last_error = error
        try:
            wait = self._wait(self._asked(rules.next_delay or retry_after, error), now)
        except PollingTimeoutError as timeout:
            raise timeout from error
        logger.log(
            logging.DEBUG if missing else logging.WARNING,
            "%scheck %d: %s; next check in %.3g s",
            "" if self.label is None else f"{self._what()}: ",
            self.attempts,
            "not there yet (404)" if missing else _told(error),
            wait,
            extra=self.fields(wait=wait, error_type=type(error).__name__),
        )
        return wait

    @staticmethod
    def _asked(next_delay: Callable[[Any], float | None], answer: object) -> float | None:
        """Ask the caller's function how long to wait, and refuse nonsense by name."""
        seconds = next_delay(answer)
        if seconds is None or type(seconds) is float or is_number(seconds):
            return seconds
        raise TypeError(f"next_delay returned {seconds!r}; return seconds as a number, or None")

    def _wait(self, server_delay: float | None, now: float) -> float:
        rules = self.rules
        elapsed = now - self.began
        schedule = rules.schedule
        planned = None
        if not self.last:
            planned = schedule.next_wait(
                self.waits,
                elapsed,
                check_time=self.check_time,
                server_delay=server_delay,
                chance=clock.jitter(1.0) if schedule.jitter else 0.0,
            )
        if planned is None:
            if self.last_response is None:
                raise self.timed_out("allow a longer timeout, or look at last_error")
            raise self.timed_out(
                "allow a longer timeout, or look at last_response and go on from there"
            )
        self.waits += 1
        wait, self.last = planned
        return wait

    def cut(self) -> PollingTimeoutError:
        """Return the error for a fetch that was still running at the deadline."""
        return self.timed_out(
            "the last check was still running and was cut; allow a longer timeout, or find out "
            "why it hangs"
        )

    def timed_out(self, remedy: str) -> PollingTimeoutError:
        """Return the timeout error, with everything known in it."""
        seconds = f"{self.rules.schedule.timeout:g} s"
        return self.enriched(
            PollingTimeoutError(
                f"{self._what()} timed out after {seconds} without reaching a terminal state "
                f"({self._effort()}): {remedy}",
                last_response=self.last_response,
            )
        )

    def cancelled(self) -> PollingCancelledError:
        """Return the error for a poll whose cancel event was set."""
        return self.enriched(
            PollingCancelledError(
                f"{self._what()} was cancelled by its event ({self._effort()})",
                last_response=self.last_response,
            )
        )

    _E = TypeVar("_E", bound=PollingError)

    def enriched(self, error: _E) -> _E:
        """Fill in what the error's attributes promise."""
        error.attempts = self.attempts
        error.elapsed = clock.monotonic() - self.began
        error.last_error = self.last_error
        error.label = self.label
        error.status = self._last_status()
        return error

    def fields(self, **more: object) -> dict[str, object]:
        """Return the structured fields of a log record."""
        from infra_core.runtime import redact_secrets, trace_fields

        fields: dict[str, object] = {
            "attempt": self.attempts,
            "elapsed": clock.monotonic() - self.began,
            **trace_fields(),
            **more,
        }
        if self.label is not None:
            fields["label"] = redact_secrets(self.label)
        return fields

    def _noted(self, error: Exception) -> Exception:
        from infra_core.runtime import add_note

        add_note(error, f"while polling: {self._what()}, {self._effort()}")
        return error

    def _what(self) -> str:
        if self.label is None:
            return "the polled operation"
        from infra_core.runtime import redact_secrets

        return redact_secrets(self.label)

    def _effort(self) -> str:
        checks = "1 check" if self.attempts == 1 else f"{self.attempts} checks"
        text = f"{checks} in {clock.monotonic() - self.began:.3f} s"
        status = self._last_status()
        if status is not None:
            text += f", last status {status!r}"
        if self.last_error is not None:
            text += f", the last one failed with {type(self.last_error).__name__}"
        return text

    def _last_status(self) -> str | None:
        if self.rules.status is None or self.last_response is None:
            return None
        return self.rules.status(self.last_response)


def _told(error: Exception) -> str:
    """Return type and text of an error in one short line without secrets."""
    from infra_core.runtime import redact_secrets

    text = " ".join(redact_secrets(str(error)).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
