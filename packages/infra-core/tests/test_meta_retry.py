"""The retry surface of 0.7: the same names, parameters and meaning."""

import asyncio
from typing import Any

import pytest
import tenacity
from hypothesis import given, settings, strategies as st

from infra_core.retry import (
    AsyncRetryConfig,
    RetryCallState,
    retry_state_summary,
    run_with_retries,
    run_with_retries_sync,
)
from infra_core.runtime.testing import fast_time


def always(error: BaseException) -> bool:
    return True


def test_the_defaults_are_those_of_07() -> None:
    """Two retries, one second, a minute at most."""
    config = AsyncRetryConfig()
    assert config == AsyncRetryConfig.create() == AsyncRetryConfig(2, 1.0, 60.0)
    assert config.max_attempts == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_retries": -1}, "max_retries must be non-negative, got -1"),
        ({"backoff": 0}, "backoff must be positive, got 0"),
        ({"backoff": -1}, "backoff must be positive, got -1"),
        ({"max_backoff": 0}, "max_backoff must be positive, got 0"),
        ({"backoff": float("nan")}, "backoff must be positive, got nan"),
    ],
)
def test_create_refuses_senseless_values(values: dict[str, Any], message: str) -> None:
    """Negative retries and waits that are not positive."""
    with pytest.raises(ValueError, match=message):
        AsyncRetryConfig.create(**values)


@pytest.mark.parametrize(
    ("backoff", "cap", "waits"), [(1, 60, [1, 2, 4]), (5, 1, [1, 1, 1]), (0.5, 1.5, [0.5, 1, 1.5])]
)
async def test_waits_double_up_to_the_cap_without_jitter(
    backoff: float, cap: float, waits: list[float]
) -> None:
    """As tenacity's wait_exponential does, in both forms."""
    config = AsyncRetryConfig.create(max_retries=3, backoff=backoff, max_backoff=cap)

    async def operation() -> float:
        return 1 / 0

    with fast_time() as fake, pytest.raises(ZeroDivisionError):
        run_with_retries_sync(lambda: 1 / 0, config=config, should_retry=always)
    assert fake.slept == waits
    with fast_time() as fake, pytest.raises(ZeroDivisionError):
        await run_with_retries(operation, config=config, should_retry=always)
    assert fake.slept == waits


def test_the_state_of_a_call_is_that_of_tenacity() -> None:
    """Hooks annotated with it, and those that drive tenacity themselves, go on working."""
    assert RetryCallState is tenacity.RetryCallState


def test_values_that_only_create_refuses_still_run() -> None:
    """The plain constructor does not validate, as in 0.7; nonsense means no retry, no wait."""
    with pytest.raises(ZeroDivisionError):
        run_with_retries_sync(
            lambda: 1 / 0, config=AsyncRetryConfig(-1, -1, -1), should_retry=always
        )


@settings(deadline=None)
@given(retries=st.integers(0, 6), failures=st.integers(0, 8))
def test_max_retries_counts_the_tries_after_the_first(retries: int, failures: int) -> None:
    """Success within the attempts, else the last exception."""
    calls = 0

    def operation() -> int:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise ConnectionError(str(calls))
        return calls

    config = AsyncRetryConfig.create(max_retries=retries)
    with fast_time():
        if failures > retries:
            with pytest.raises(ConnectionError, match=str(config.max_attempts)):
                run_with_retries_sync(operation, config=config, should_retry=always)
        else:
            result = run_with_retries_sync(operation, config=config, should_retry=always)
            assert result == failures + 1


def test_the_hook_of_the_sync_form_sees_one_state_that_moves_on() -> None:
    """Attempt, exception, coming wait and time spent waiting, as tenacity's hooks have them."""
    seen: list[Any] = []
    states: set[int] = set()

    def before_sleep(state: RetryCallState) -> None:
        states.add(id(state))
        assert state.outcome is not None
        assert state.next_action is not None
        seen.append(
            (
                state.attempt_number,
                state.outcome.failed,
                str(state.outcome.exception()),
                state.next_action.sleep,
                state.upcoming_sleep,
                state.idle_for,
            )
        )

    def operation() -> None:
        raise ValueError("no")

    with fast_time(), pytest.raises(ValueError, match="no"):
        run_with_retries_sync(
            operation,
            config=AsyncRetryConfig(),
            should_retry=always,
            before_sleep=before_sleep,
        )
    assert seen == [(1, True, "no", 1, 1, 1), (2, True, "no", 2, 2, 3)]
    assert len(states) == 1


async def test_the_hook_of_the_async_form_is_awaited() -> None:
    """Before each wait, with the same state."""
    seen: list[tuple[int, float]] = []

    async def before_sleep(state: RetryCallState) -> None:
        await asyncio.sleep(0)
        seen.append((state.attempt_number, state.idle_for))

    async def operation() -> str:
        if len(seen) < 2:
            raise ConnectionError
        return "done"

    with fast_time():
        result = await run_with_retries(
            lambda: operation(),  # no coroutine function, and awaited all the same
            config=AsyncRetryConfig(),
            should_retry=always,
            before_sleep=before_sleep,
        )
    assert result == "done"
    assert [attempt for attempt, _ in seen] == [1, 2]
    assert [idle for _, idle in seen] == [1, 3]


async def test_cancellation_is_never_retried_even_when_the_predicate_would() -> None:
    """Neither form asks should_retry about it."""

    async def operation() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await run_with_retries(operation, config=AsyncRetryConfig(), should_retry=always)


def test_an_interrupt_is_never_retried() -> None:
    """Ctrl-C ends the call at once."""
    calls: list[int] = []

    def operation() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_with_retries_sync(operation, config=AsyncRetryConfig(), should_retry=always)
    assert calls == [1]


class Response:
    status_code = 503


class StatusError(Exception):
    response = Response()


def test_the_summary_is_exception_wait_and_status() -> None:
    """What a log line about a retry needs."""
    seen: list[Any] = []
    error = StatusError()

    def operation() -> None:
        raise error

    with fast_time(), pytest.raises(StatusError):
        run_with_retries_sync(
            operation,
            config=AsyncRetryConfig(max_retries=1),
            should_retry=always,
            before_sleep=lambda state: seen.append(retry_state_summary(state)),
        )
    assert seen == [(error, 1.0, 503)]


def test_the_summary_of_a_call_that_has_not_failed_is_empty() -> None:
    """Nothing to report yet, or a success."""
    state = RetryCallState(tenacity.Retrying(), None, (), {})
    assert retry_state_summary(state) == (None, None, None)
    state.set_result(1)
    assert retry_state_summary(state) == (None, None, None)


def test_the_summary_takes_tenacitys_own_state_too() -> None:
    """Users who drive tenacity themselves can go on calling it."""
    state: Any = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.set_exception((StatusError, StatusError(), None))
    state.next_action = tenacity.RetryAction(1.5)
    error, wait, status = retry_state_summary(state)
    assert (type(error), wait, status) == (StatusError, 1.5, 503)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
async def test_what_ends_iterations_comes_through_like_any_other(kind: type[BaseException]) -> None:
    """An operation that reads from an iterator may raise it; asking a generator to end is final."""
    calls = []

    def operation() -> None:
        calls.append(1)
        raise kind

    async def awaited() -> None:
        operation()

    config = AsyncRetryConfig(max_retries=1)
    # A coroutine cannot raise StopIteration: Python makes it a RuntimeError.
    raised = RuntimeError if kind is StopIteration else kind
    with fast_time():
        with pytest.raises(kind):
            run_with_retries_sync(operation, config=config, should_retry=always)
        with pytest.raises(raised):
            await run_with_retries(awaited, config=config, should_retry=always)
    assert len(calls) == (2 if kind is GeneratorExit else 4)
