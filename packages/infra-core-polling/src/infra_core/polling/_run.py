"""One poll as a state object without I/O: drivers feed it what happened, it says what is next."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Final, Generic, TypeVar

from infra_core.runtime import (
    add_note,
    clock,
    is_number,
    printable,
    redact_secrets,
    trace_fields,
)

from ._config import LAST_CHECK_GRACE, PollingConfig
from ._errors import CheckStopped, PollingCancelledError, PollingError, PollingTimeoutError
from ._signals import is_transient as default_is_transient, retry_after, status_code

__all__ = ["DONE", "PollRules", "PollRun", "check_callable", "plain"]

T = TypeVar("T")
E = TypeVar("E", bound=PollingError)

logger = logging.getLogger("infra_core.polling")

DONE: Final = -1.0
"""What `PollRun.judge` says in place of a wait when the response is the answer."""


def check_callable(name: str, function: object, *, optional: bool = False) -> None:
    """Refuse what cannot be called before the first check is made."""
    if not callable(function) and not (optional and function is None):
        raise TypeError(f"{name} cannot be called, being of type {type(function).__name__}; pass "
                        "a function")  # fmt: skip


def plain(name: str, returned: Any) -> Any:
    """Refuse what an asynchronous function returned: an awaitable counts as true, or as a text."""
    if isawaitable(returned):
        if hasattr(returned, "close"):
            returned.close()  # a coroutine that is not run would warn
        raise TypeError(f"{name} returned an awaitable, which is not awaited here; pass a plain "
                        "function, and await in fetch_fn")  # fmt: skip
    return returned


class PollRules(Generic[T]):
    """What is the same for all checks, and for all jobs of one `poll_many_async`."""

    def __init__(
        self,
        config: PollingConfig,
        is_terminal: Callable[[T], bool],
        *,
        is_transient: Callable[[Exception], bool] | None,
        next_delay: Callable[[Any], float | None] | None,
        status: Callable[[Any], str | None] | None = None,
    ) -> None:
        check_callable("is_terminal", is_terminal)
        check_callable("is_transient", is_transient, optional=True)
        check_callable("next_delay", next_delay, optional=True)
        self.config = config
        self.is_terminal = is_terminal
        self.is_transient = is_transient or default_is_transient
        self.next_delay = next_delay or retry_after
        self.status = status  # finds it in a response, for the error of a poll without success


@dataclass(slots=True, eq=False)
class PollRun(Generic[T]):
    """The state of one poll: counts, newest response, newest error."""

    rules: PollRules[T]
    label: str | None = None
    began: float = field(default_factory=clock.monotonic)
    check_began: float = 0.0
    check_time: float = 0.0
    budget: float = 0.0
    attempts: int = 0
    waits: int = 0
    errors: int = 0
    last: bool = False
    last_response: T | None = None
    last_error: Exception | None = None

    def begin_check(self, now: float) -> float:
        """Note that a fetch begins and return how many seconds it may take."""
        self.check_began = now
        remaining = self.rules.config.timeout - (now - self.began)
        if remaining <= 0 and self.attempts == 0:
            raise self.timed_out("no check was made; make initial_delay shorter than timeout")
        self.attempts += 1
        # or an answer to the last check could never be seen
        self.budget = max(remaining, LAST_CHECK_GRACE)
        return self.budget

    def arrived(self, response: T, now: float) -> None:
        """Note that the fetch returned a response, before anything is done with it."""
        self.check_time = now - self.check_began
        self.last_response = response
        self.last_error = None
        self.errors = 0

    def judge(self, response: T, now: float) -> float:
        """Return how long to wait after a response, or `DONE`; raises what ends the poll."""
        if self.check_time > self.budget:
            raise self.timed_out(
                f"the last check took {self.check_time:.3f} s and came back after the deadline; "
                "give the fetch a timeout of its own"
            )
        try:
            done = plain("is_terminal", self.rules.is_terminal(response))
        except PollingError as error:
            raise self.enriched(error)  # noqa: B904 - it is the same error
        wait = DONE if done else self._wait(response, now)
        if logger.isEnabledFor(logging.DEBUG):
            result = "done" if done else f"not done, next check in {wait:.3g} s"
            fields = self.fields(terminal=True) if done else self.fields(terminal=False, wait=wait)
            logger.debug("check %d: %s", self.attempts, result, extra=fields)
        return wait

    def error(self, error: Exception) -> float:
        """Return how long to wait after an error of the fetch, or raise what ends the poll."""
        now = clock.monotonic()
        self.check_time = now - self.check_began
        config = self.rules.config
        missing = config.handle_404 and status_code(error) == 404
        if not missing:
            self.errors += 1
            transient = plain("is_transient", self.rules.is_transient(error))
            if not transient or self.errors > config.max_consecutive_errors:
                add_note(error, f"while polling: {self.what()}, {self._effort()}")
                raise error
        self.last_error = error
        try:
            wait = self._wait(error, now)
        except PollingTimeoutError as timeout:
            raise timeout from error
        logger.log(
            logging.DEBUG if missing else logging.WARNING,
            "%scheck %d: %s; next check in %.3g s",
            "" if self.label is None else f"{self.what()}: ",
            self.attempts,
            "not there yet (404)" if missing else _error_text(error),
            wait,
            extra=self.fields(wait=wait, error_type=type(error).__name__),
        )
        return wait

    def _wait(self, answer: object, now: float) -> float:
        """Return the seconds to wait, as the server asked for in its answer or as planned."""
        asked = plain("next_delay", self.rules.next_delay(answer))
        if asked is not None and not is_number(asked) and not isinstance(asked, float):
            raise TypeError(f"next_delay returned {asked!r}; return seconds as a number, or None")
        schedule = self.rules.config
        planned = None
        if not self.last:
            planned = schedule.next_wait(
                self.waits,
                now - self.began,
                check_time=self.check_time,
                server_delay=asked,
                chance=clock.jitter(1.0) if schedule.jitter else 0.0,
            )
        if planned is None:
            known = "last_error"
            if self.last_response is not None:
                known = "last_response and go on from there"
            raise self.timed_out(f"allow a longer timeout, or look at {known}")
        self.waits += 1
        wait, self.last = planned
        return float(wait)

    def stopped(self, check: CheckStopped) -> PollingError:
        """Return the error for a poll that ends while a fetch is still running."""
        if check.cancelled:
            return self.cancelled()
        return self.timed_out(
            "the last check was still running and was cut; allow a longer timeout, or find out "
            "why it hangs"
        )

    def timed_out(self, remedy: str) -> PollingTimeoutError:
        """Return the timeout error, with everything known in it."""
        seconds = f"{float(self.rules.config.timeout):g} s"
        return self.enriched(
            PollingTimeoutError(
                f"{self.what()} timed out after {seconds} without reaching a terminal state "
                f"({self._effort()}): {remedy}",
                last_response=self.last_response,
            )
        )

    def cancelled(self) -> PollingCancelledError:
        """Return the error for a poll whose cancel event was set."""
        return self.enriched(
            PollingCancelledError(
                f"{self.what()} was cancelled by its event ({self._effort()})",
                last_response=self.last_response,
            )
        )

    def enriched(self, error: E) -> E:
        """Fill in what the error's attributes promise."""
        error.attempts = self.attempts
        error.elapsed = clock.monotonic() - self.began
        error.last_error = self.last_error
        error.label = self.label
        error.status = self._last_status()
        return error

    def fields(self, **more: object) -> dict[str, object]:
        """Return the structured fields of a log record."""
        fields: dict[str, object] = {
            "attempt": self.attempts,
            "elapsed": clock.monotonic() - self.began,
            **trace_fields(),
            **more,
        }
        if self.label is not None:
            fields["label"] = redact_secrets(self.label)
        return fields

    def what(self) -> str:
        """Name the poll for people, without secrets."""
        return "the polled operation" if self.label is None else redact_secrets(self.label)

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


def _error_text(error: Exception) -> str:
    """Return type and text of an error in one short line without secrets."""
    text = " ".join(redact_secrets(printable(error, keep_lines=True)).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
