"""The retry policy, which is pure, and its two drivers, which are thin."""

import asyncio
import dataclasses
import gc
import math
import sys
import weakref
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.runtime import (
    RetryDeadlineError,
    RetryDetails,
    RetryPolicy,
    RuntimeConfig,
    TaskRuntime,
    add_note,
    clock,
    retry_async,
    retry_sync,
)
from infra_core.runtime.testing import fast_time

NOTES = sys.version_info >= (3, 11)
waits = st.floats(min_value=0, max_value=1e9, allow_nan=False)
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 2000),
    backoff=waits,
    max_backoff=waits,
    jitter=st.booleans(),
    deadline=st.none() | st.floats(min_value=1e-3, max_value=1e9),
)
Runner = Callable[..., Any]


def run_sync_driver(operation: Callable[[], object], **options: Any) -> object:
    return retry_sync(operation, **options)


def run_async_driver(operation: Callable[[], object], **options: Any) -> object:
    async def call() -> object:
        return operation()

    return asyncio.run(retry_async(call, **options))


@pytest.fixture(params=[run_sync_driver, run_async_driver], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Runner:
    """Both drivers keep the same promises."""
    driver: Runner = request.param
    return driver


def failing(times: int, error: type[BaseException] = ConnectionError) -> Callable[[], int]:
    """Return an operation that fails so many times and then returns how often it was called."""
    calls = 0

    def operation() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error(f"failure {calls}")
        return calls

    return operation


# --- the policy ---


@settings(deadline=None)
@given(policy=policies, retry=st.integers(0, 5000))
def test_the_ceiling_doubles_up_to_the_cap(policy: RetryPolicy, retry: int) -> None:
    """It is min(backoff * 2**n, max_backoff), finite however many retries there were."""
    exact = min(Fraction(policy.backoff) * 2**retry, Fraction(policy.max_backoff))
    assert policy.ceiling(retry) == pytest.approx(float(exact))


@settings(deadline=None)
@given(policy=policies, retry=st.integers(0, 3000), elapsed=waits)
def test_jitter_only_lowers_the_wait(policy: RetryPolicy, retry: int, elapsed: float) -> None:
    """No wait is above the ceiling or the cap, or negative."""
    wait = policy.next_wait(retry=retry, elapsed=elapsed)
    if wait is not None:
        assert 0 <= wait <= policy.ceiling(retry) <= policy.max_backoff


@settings(deadline=None)
@given(policy=policies, elapsed=waits, asked=st.none() | waits)
def test_a_deadline_is_never_overshot(
    policy: RetryPolicy, elapsed: float, asked: float | None
) -> None:
    """A wait that would reach the deadline is not begun."""
    wait = policy.next_wait(retry=0, elapsed=elapsed, retry_after=asked)
    if wait is not None and policy.deadline is not None:
        assert elapsed + wait < policy.deadline


@settings(deadline=None)
@given(policy=policies, beyond=st.integers(0, 10), elapsed=waits)
def test_retries_are_finite(policy: RetryPolicy, beyond: int, elapsed: float) -> None:
    """After max_retries there is none."""
    assert policy.next_wait(retry=policy.max_retries + beyond, elapsed=elapsed) is None


@settings(deadline=None)
@given(asked=st.floats(min_value=1e-9, max_value=1e9), cap=waits)
def test_a_server_is_obeyed_to_the_letter_up_to_the_cap(asked: float, cap: float) -> None:
    """Retry-After is waited exactly; above max_backoff the retries end."""
    policy = RetryPolicy(max_backoff=cap)
    expected = asked if asked <= cap else None
    assert policy.next_wait(retry=0, elapsed=0, retry_after=asked) == expected


@pytest.mark.parametrize("asked", [0, -30])
def test_a_retry_after_that_is_past_leaves_the_usual_backoff(asked: float) -> None:
    """A server that asks for nothing is not hammered."""
    policy = RetryPolicy(backoff=4, jitter=False)
    assert policy.next_wait(retry=0, elapsed=0, retry_after=asked) == 4


def test_without_jitter_the_wait_is_the_ceiling() -> None:
    """Switched off, the waits are predictable."""
    policy = RetryPolicy(max_retries=4, backoff=1, max_backoff=5, jitter=False)
    assert [policy.next_wait(retry=n, elapsed=0) for n in range(5)] == [1, 2, 4, 5, None]


def test_full_jitter_spreads_over_the_whole_range() -> None:
    """Waits come from the lower and the upper part alike."""
    drawn = [RetryPolicy(backoff=1).next_wait(retry=0, elapsed=0) or 0.0 for _ in range(400)]
    assert min(drawn) < 0.2
    assert max(drawn) > 0.8


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_retries", -1),
        ("backoff", -0.1),
        ("backoff", math.nan),
        ("max_backoff", -1),
        ("max_backoff", math.nan),
        ("deadline", 0),
        ("deadline", -1),
        ("deadline", math.nan),
    ],
)
def test_a_senseless_policy_is_refused_by_name(field: str, value: float) -> None:
    """The message names the value and what to pass instead."""
    with pytest.raises(ValueError, match=rf"{field}=.*: pass"):
        RetryPolicy(**{field: value})  # type: ignore[arg-type]


def test_a_policy_is_immutable_and_hashable() -> None:
    """It can be shared between threads and used as a key."""
    policy = RetryPolicy()
    with pytest.raises(AttributeError):
        policy.backoff = 3  # type: ignore[misc]
    assert hash(policy) == hash(RetryPolicy())


# --- the drivers ---


def test_the_first_success_is_returned(run: Runner) -> None:
    """Without a failure there is no wait and no question."""
    with fast_time() as fake:
        assert run(failing(0), policy=RetryPolicy(), should_retry=lambda error: 1 / 0) == 1
    assert fake.slept == []


def test_waits_double_between_failures(run: Runner) -> None:
    """With jitter at its highest the waits are the ceilings."""
    with fast_time(jitter=1.0) as fake:
        policy = RetryPolicy(max_retries=3)
        assert run(failing(3), policy=policy, should_retry=lambda error: True) == 4
    assert fake.slept == [1, 2, 4]


def test_the_last_exception_itself_comes_through_with_a_note(run: Runner) -> None:
    """Nothing wraps it; the note gives attempts, seconds and reason."""
    with fast_time(jitter=1.0), pytest.raises(ConnectionError, match="failure 3") as caught:
        run(failing(9), policy=RetryPolicy(), should_retry=lambda error: True)
    notes = getattr(caught.value, "__notes__", [])
    assert notes == (["gave up after 3 attempts in 3.00 s: max_retries is 2"] if NOTES else [])


@pytest.mark.parametrize("verdict", [False, None])
def test_an_error_that_is_not_to_be_retried_comes_through_at_once(
    run: Runner, verdict: bool | None
) -> None:
    """False, and None from a function that forgot to return, both raise."""
    with fast_time() as fake, pytest.raises(ConnectionError, match="failure 1") as caught:
        run(failing(9), policy=RetryPolicy(), should_retry=lambda error: verdict)
    assert fake.slept == []
    if NOTES:
        assert "1 attempt in" in caught.value.__notes__[0]


def test_a_number_is_the_wait_that_the_server_asked_for(run: Runner) -> None:
    """should_retry can hand a Retry-After on."""
    with fast_time() as fake:
        run(failing(2), policy=RetryPolicy(), should_retry=lambda error: 7.5)
    assert fake.slept == [7.5, 7.5]


def test_a_server_that_asks_for_too_much_ends_the_retries(run: Runner) -> None:
    """The reason names both numbers."""
    with fast_time() as fake, pytest.raises(ConnectionError, match="failure 1") as caught:
        run(failing(2), policy=RetryPolicy(max_backoff=60), should_retry=lambda error: 3600)
    assert fake.slept == []
    if NOTES:
        assert "asks for 3600 s, above max_backoff of 60" in caught.value.__notes__[0]


def test_no_wait_crosses_the_deadline(run: Runner) -> None:
    """The error comes before the deadline rather than after it."""
    with fast_time(jitter=1.0) as fake, pytest.raises(ConnectionError) as caught:
        policy = RetryPolicy(max_retries=99, backoff=1, deadline=10)
        run(failing(99), policy=policy, should_retry=lambda error: True)
    assert fake.slept == [1, 2, 4]
    if NOTES:
        assert "deadline of 10 s" in caught.value.__notes__[0]


@settings(deadline=None)
@given(
    deadline=st.floats(min_value=0.1, max_value=100),
    backoff=st.floats(min_value=0.01, max_value=10),
    cost=st.floats(min_value=0, max_value=5),
)
def test_attempts_begin_before_the_deadline_only(
    deadline: float, backoff: float, cost: float
) -> None:
    """Whatever an attempt costs, none begins at or after the deadline."""
    begun: list[float] = []
    with fast_time() as fake:
        started = clock.monotonic()

        def operation() -> None:
            begun.append(clock.monotonic() - started)
            fake.advance(cost)
            raise ConnectionError

        policy = RetryPolicy(max_retries=50, backoff=backoff, deadline=deadline)
        with pytest.raises(ConnectionError):
            retry_sync(operation, policy=policy, should_retry=lambda error: True)
    assert all(moment <= deadline for moment in begun)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_program_is_never_retried(kind: type[BaseException]) -> None:
    """should_retry is not even asked."""
    with pytest.raises(kind):
        retry_sync(failing(1, kind), policy=RetryPolicy(), should_retry=lambda error: 1 / 0)


def test_cancellation_is_never_retried(run: Runner) -> None:
    """A CancelledError goes straight through both drivers."""
    with pytest.raises(asyncio.CancelledError):
        run(
            failing(1, asyncio.CancelledError),
            policy=RetryPolicy(),
            should_retry=lambda error: 1 / 0,
        )


async def test_a_cancel_during_the_wait_ends_the_retries() -> None:
    """A caller that cancels need not wait for the backoff."""
    calls = 0

    async def operation() -> None:
        nonlocal calls
        calls += 1
        raise ConnectionError

    policy = RetryPolicy(backoff=1000, jitter=False, max_backoff=1000)
    task = asyncio.ensure_future(
        retry_async(operation, policy=policy, should_retry=lambda error: True)
    )
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert calls == 1


def test_the_hook_is_called_before_each_wait(run: Runner) -> None:
    """Attempt, wait, elapsed and error of each failure that is retried."""
    seen: list[RetryDetails] = []
    with fast_time(jitter=1.0):
        run(
            failing(2),
            policy=RetryPolicy(),
            should_retry=lambda error: True,
            on_retry=seen.append,
        )
    assert [(details.attempt, details.wait, str(details.error)) for details in seen] == [
        (1, 1, "failure 1"),
        (2, 2, "failure 2"),
    ]
    assert [details.elapsed for details in seen] == pytest.approx([0, 1], abs=0.01)


async def test_a_coroutine_function_as_hook_is_awaited() -> None:
    """The async driver takes hooks of both kinds."""
    reported: list[int] = []

    async def hook(details: RetryDetails) -> None:
        await asyncio.sleep(0)
        reported.append(details.attempt)

    async def operation() -> int:
        if not reported:
            raise ConnectionError
        return 5

    with fast_time():
        result = await retry_async(
            operation, policy=RetryPolicy(), should_retry=lambda error: True, on_retry=hook
        )
    assert (result, reported) == (5, [1])


def test_what_a_hook_raises_ends_the_retries(run: Runner) -> None:
    """A hook can call it off; the failure is its context."""

    def hook(details: RetryDetails) -> None:
        raise LookupError("enough")

    with fast_time(), pytest.raises(LookupError, match="enough") as caught:
        run(failing(9), policy=RetryPolicy(), should_retry=lambda error: True, on_retry=hook)
    assert isinstance(caught.value.__context__, ConnectionError)


async def test_an_attempt_that_hangs_is_cut_at_the_deadline() -> None:
    """The call does not outlive its deadline; the error says what to change."""

    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RetryDeadlineError, match=r"deadline of 0\.01 s, retries included: allow"):
        await retry_async(hang, policy=RetryPolicy(deadline=0.01), should_retry=lambda error: True)


async def test_the_failure_before_the_cut_attempt_is_the_cause() -> None:
    """A reader of the log sees what went wrong, not only that time ran out."""
    calls = 0

    async def operation() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("reset")
        await asyncio.Event().wait()

    with pytest.raises(RetryDeadlineError) as caught:
        await retry_async(
            operation,
            policy=RetryPolicy(deadline=0.05, backoff=0),
            should_retry=lambda error: True,
        )
    assert str(caught.value.__cause__) == "reset"


async def test_a_timeout_error_of_the_operation_is_its_own() -> None:
    """With a deadline set, an operation's TimeoutError is retried and comes through."""
    mine = TimeoutError("read timed out")

    async def operation() -> None:
        raise mine

    with fast_time(), pytest.raises(TimeoutError) as caught:
        await retry_async(
            operation, policy=RetryPolicy(deadline=60), should_retry=lambda error: True
        )
    assert caught.value is mine


def test_any_awaitable_will_do() -> None:
    """The operation may return a future as well as a coroutine."""

    async def main() -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(3)

        def operation() -> Awaitable[int]:
            return future

        return await retry_async(operation, policy=RetryPolicy(), should_retry=lambda error: True)

    assert asyncio.run(main()) == 3


def test_errors_that_were_retried_do_not_keep_their_frames_alive() -> None:
    """No reference cycle holds what a failed attempt had in hand."""

    class Payload:
        pass

    held: list[weakref.ref[Payload]] = []

    def operation() -> int:
        if len(held) == 2:
            return 1
        payload = Payload()
        held.append(weakref.ref(payload))
        raise ConnectionError

    gc.collect()
    gc.disable()
    try:
        with fast_time():
            retry_sync(operation, policy=RetryPolicy(), should_retry=lambda error: True)
        assert [reference() for reference in held] == [None, None]
    finally:
        gc.enable()


def test_a_note_is_added_once_and_nowhere_on_python_310() -> None:
    """The same line twice says no more; 3.10 has no notes."""
    error = ValueError("x")
    add_note(error, "while reading a.txt")
    add_note(error, "while reading a.txt")
    assert getattr(error, "__notes__", []) == (["while reading a.txt"] if NOTES else [])


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818
    """Takes no attribute, and so no note."""

    code: int


class Mute(Exception):  # noqa: N818
    """Fails when it is shown."""

    __notes__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("error", [Frozen(5), Mute()], ids=["frozen", "mute"])
async def test_an_odd_exception_comes_through_as_itself(error: Exception, run: Runner) -> None:
    """Also where a note cannot be added to it, or its text be logged."""

    def operation() -> None:
        raise error

    async def task() -> None:
        raise error

    with fast_time():
        with pytest.raises(type(error)) as caught:
            await asyncio.to_thread(
                run, operation, policy=RetryPolicy(), should_retry=lambda error: True
            )
        assert caught.value is error
        runtime = TaskRuntime(config=RuntimeConfig(retry=RetryPolicy()))
        with pytest.raises(type(error)):
            await runtime.run([("a", task)])
        await runtime.run([("a", task)], on_error=lambda name, error: 1 / 0)  # type: ignore[arg-type,return-value]


def test_an_asynchronous_operation_is_refused_by_the_synchronous_driver() -> None:
    """Its coroutine would be handed out as the result, and nothing be retried or even run."""

    async def operation() -> int:
        return 5

    with pytest.raises(TypeError, match=r"operation.* is asynchronous.* await retry_async"):
        _ = retry_sync(operation, policy=RetryPolicy(), should_retry=lambda error: True)


def test_an_asynchronous_hook_is_refused_by_the_synchronous_driver() -> None:
    """It would never be run."""

    async def hook(details: RetryDetails) -> None: ...

    options: dict[str, Any] = {"on_retry": hook}
    with pytest.raises(TypeError, match=r"hook.* is asynchronous.* await retry_async"):
        retry_sync(failing(9), policy=RetryPolicy(), should_retry=lambda error: True, **options)


class NumpyBool:
    """As `numpy.bool_`: neither a `bool` nor a number, but it can be made one."""

    def __float__(self) -> float:
        return 0.0


@pytest.mark.parametrize("verdict", [NumpyBool(), "5", object(), math.nan])
def test_a_verdict_that_is_neither_yes_nor_no_nor_a_number_is_refused(
    verdict: Any, run: Runner
) -> None:
    """A number asks for a wait: what only looks like one must not."""
    with pytest.raises(TypeError, match=r"should_retry returned .*: return True, False or"):
        run(failing(9), policy=RetryPolicy(), should_retry=lambda error: verdict)
