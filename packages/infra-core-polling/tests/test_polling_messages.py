"""Bad input is answered at once, by an error that names the value, the rule and the remedy."""

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from infra_core.polling import (
    PollingConfig,
    PollingFailureError,
    PollingTimeoutError,
    StatusPoller,
    poll_many_async,
    poll_until,
    poll_until_async,
    status_at,
)
from infra_core.runtime.testing import fast_time


def wrong(value: object) -> Any:
    """What the type checker would refuse, and people pass all the same."""
    return value


def running() -> dict[str, str]:
    return {"status": "running"}


async def running_job(job: object) -> dict[str, str]:
    return running()


def never(response: object) -> bool:
    return False


@pytest.mark.parametrize("value", ["5", "", None, math.nan, [5], -1])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timeout", "must be positive, a number of seconds, not {}; math.inf waits for ever"),
        ("poll_interval", "must be positive, a number of seconds, not {}"),
        ("max_backoff", "must be positive, a number of seconds, not {}"),
        ("initial_delay", "0 or more seconds, not {}; 0 checks at once"),
        ("backoff_multiplier", "1 or more and finite, not {}; 1 keeps"),
        ("jitter", "between 0 and 1, not {}; 0.1 shortens"),
        ("max_consecutive_errors", "0 or more, not {}; 0 raises the first error"),
    ],
)
def test_numbers_are_named_with_their_rule(name: str, words: str, value: object) -> None:
    """Text from the environment, None and NaN never get as far as a comparison."""
    with pytest.raises(ValueError, match=f"^{name} must ") as caught:
        PollingConfig(**wrong({name: value}))
    assert words.format(repr(value)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("poll_interval", "poll_interval must be finite, not inf; to wait once"),
        ("backoff_multiplier", "finite, not inf; 1 keeps"),
    ],
)
def test_what_must_be_finite_is_named_alone(name: str, words: str) -> None:
    """Not together with a parameter that is as it should be."""
    with pytest.raises(ValueError, match=words):
        PollingConfig(**wrong({name: math.inf}))


@pytest.mark.parametrize("statuses", ["failed", b"failed", 5, [["failed"]]])
@pytest.mark.parametrize("name", ["terminal_statuses", "failure_statuses"])
def test_statuses_that_are_no_set_are_refused_with_the_remedy(name: str, statuses: object) -> None:
    """One word is a set of letters to Python."""
    with pytest.raises(TypeError, match=f"{name} must be a set of statuses.*; write {{") as caught:
        PollingConfig(**wrong({name: statuses}))
    assert repr(statuses) in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: StatusPoller(wrong(running())), "fetch_fn cannot be called, being of type dict"),
        (lambda: StatusPoller(running, wrong({"timeout": 5})), "pass PollingConfig"),
        (lambda: poll_until(wrong(None), never), "fetch_fn cannot be called"),
        (lambda: poll_until(running, wrong(True)), "is_terminal cannot be called, being of type"),
        (lambda: poll_until(running, never, on_poll=wrong(5)), "on_poll cannot be called"),
        (lambda: poll_until(running, never, next_delay=wrong(5)), "next_delay cannot be called"),
        (lambda: poll_until(running, never, is_transient=wrong(5)), "is_transient cannot be"),
        (lambda: poll_until(running, never, cancel=wrong(True)), "pass a threading.Event"),
        (lambda: poll_many_async(wrong(None), running_job), "jobs cannot be iterated over"),
        (lambda: poll_many_async([1], wrong(None)), "fetch_fn cannot be called"),
        (lambda: poll_many_async([1], running_job, on_poll=wrong(5)), "on_poll cannot be called"),
        (lambda: poll_many_async([1], running_job, config=wrong(5)), "config=5 is not a PollingCo"),
        (
            lambda: poll_many_async([1], running_job, cancel=wrong(threading.Event())),
            "cancel must be an asyncio.Event here, not of type Event; set one",
        ),
    ],
)
def test_arguments_of_other_types_are_refused_before_the_first_check(
    call: Callable[[], object], words: str
) -> None:
    """A `threading.Event` given to `poll_many_async` once blocked the whole loop."""
    with pytest.raises(TypeError) as caught:
        call()
    assert words in str(caught.value)


async def test_the_async_form_checks_alike() -> None:
    """One mechanism for both."""
    with pytest.raises(TypeError, match="fetch_fn cannot be called, being of type NoneType"):
        await poll_until_async(wrong(None), never)
    with pytest.raises(TypeError, match=r"cancel must be an event with is_set\(\), not of type"):
        await poll_until_async(running, never, cancel=wrong(5))


@pytest.mark.parametrize("value", ["5", 1.5, math.inf, None])
@pytest.mark.parametrize("name", ["concurrency", "max_active"])
def test_bounds_of_many_are_whole_numbers(name: str, value: object) -> None:
    """Raised at the call, not at the first iteration."""
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, not .*; give a whole number"):
        poll_many_async([1], running_job, **wrong({name: value}))


@pytest.mark.parametrize("path", [None, 5, "", "a..b"])
def test_status_paths_are_checked(path: object) -> None:
    """With the form to write."""
    with pytest.raises(ValueError, match=r"; write it as 'a\.b\.c'") as caught:
        status_at(wrong(path))
    assert repr(path) in str(caught.value)


def test_a_delay_that_is_no_number_is_named() -> None:
    """Text from a header is the usual mistake."""
    with (
        fast_time(),
        pytest.raises(TypeError, match="next_delay returned '5'; return seconds as a number"),
    ):
        poll_until(running, never, next_delay=wrong(lambda response: "5"))


def test_a_poll_without_any_response_points_to_its_errors() -> None:
    """There is no `last_response` to look at."""

    def broken() -> None:
        raise ConnectionError("reset")

    with fast_time(), pytest.raises(PollingTimeoutError, match="or look at last_error") as caught:
        poll_until(broken, never, timeout=1, poll_interval=0.5)
    assert "last_response" not in str(caught.value)
    with fast_time(), pytest.raises(PollingTimeoutError, match="look at last_response and go on"):
        poll_until(running, never, timeout=1, poll_interval=0.5)


async def test_a_fetch_that_hangs_gets_a_remedy() -> None:
    """More time, or a look at the fetch."""

    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(PollingTimeoutError, match="was cut; allow a longer timeout, or find out"):
        await poll_until_async(hang, never, timeout=0.01, poll_interval=0.01)


async def test_a_blocking_poll_in_a_running_loop_names_the_async_form() -> None:
    """And itself, not the helper that refuses."""

    async def fetch() -> str:
        return "done"

    seen = r"poll_until\(\) with an async fetch blocks.*await poll_until_async\(\)"
    with pytest.raises(RuntimeError, match=seen):
        poll_until(fetch, never)


def test_secrets_of_a_failed_job_stay_out_of_the_message() -> None:
    """The whole response is in the attribute."""
    response = {"status": "failed", "error": "GET https://a.example/b?sig=abc123 failed"}
    poller = StatusPoller(lambda: response, PollingConfig(strict=True))
    with pytest.raises(PollingFailureError, match="sig=<redacted> failed") as caught:
        poller.poll()
    assert "abc123" not in str(caught.value)
    assert caught.value.response is response


def test_warnings_name_the_label_and_the_error(caplog: pytest.LogCaptureFixture) -> None:
    """Of ten polls that log at once one wants to know which; secrets are redacted."""
    errors = [ConnectionError("GET https://a.example/b?sig=abc123\nreset")]

    def fetch() -> str:
        if errors:
            raise errors.pop()
        return "completed"

    with fast_time(), caplog.at_level(logging.WARNING, logger="infra_core.polling"):
        StatusPoller(fetch, label="job 7").poll()
    (record,) = caplog.records
    assert record.getMessage() == (
        "job 7: check 1: ConnectionError: GET https://a.example/b?sig=<redacted> reset; "
        "next check in 5 s"
    )


class MuteError(ConnectionError):
    """Fails when it is shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


async def test_an_error_whose_text_fails_is_waited_out_as_well(poll: Any, script: Any) -> None:
    """It is logged by its type."""
    with fast_time():
        assert await poll(script(MuteError(), "done"), lambda response: True) == "done"


async def later(*args: object) -> object:
    """An asynchronous function in the place of a plain one."""
    return "completed"


@pytest.mark.parametrize("name", ["is_terminal", "is_transient", "next_delay"])
async def test_an_asynchronous_decision_is_refused(name: str, poll: Any, script: Any) -> None:
    """Its coroutine would count as true, and the first response end the poll."""
    fetch = script(ConnectionError("reset"), "running")
    options: dict[str, Any] = {"is_terminal": lambda response: False, name: later}
    with fast_time(), pytest.raises(TypeError, match=f"{name} returned an awaitable"):
        await poll(fetch, options.pop("is_terminal"), **options)


def test_an_asynchronous_on_poll_is_refused_by_the_synchronous_form() -> None:
    """It would never be run."""
    with pytest.raises(TypeError, match="on_poll returned an awaitable"):
        poll_until(lambda: "done", lambda response: True, on_poll=wrong(later))


async def test_an_asynchronous_extractor_is_refused() -> None:
    """The text of its coroutine is no status, and the poll would never end."""
    poller = StatusPoller(running, status_extractor=wrong(later))
    with pytest.raises(TypeError, match="status_extractor returned an awaitable"):
        await poller.poll_async()
    with pytest.raises(TypeError, match="status_extractor returned an awaitable"):
        await asyncio.to_thread(poller.poll)
    async for outcome in poll_many_async([1], running_job, status_extractor=wrong(later)):
        assert isinstance(outcome.error, TypeError)


@pytest.mark.parametrize("options", [{}, {"initial_delay": 1}, {"jitter": 1}])
def test_times_may_be_any_real_numbers(options: dict[str, int]) -> None:
    """Fractions know no format of their own before Python 3.12, and no clock sleeps for one."""
    fractions = {name: Fraction(value, 64) for name, value in options.items()}
    config: Any = {"timeout": Fraction(1, 16), "poll_interval": Fraction(1, 32), **fractions}
    with pytest.raises(PollingTimeoutError, match=r"timed out after 0\.0625 s"):
        poll_until(running, never, next_delay=lambda answer: wrong(Fraction(1, 32)), **config)
