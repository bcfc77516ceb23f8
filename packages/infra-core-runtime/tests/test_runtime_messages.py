"""Bad input is answered at once, by an error that names the value, the rule and the remedy."""

import asyncio
import logging
import math
import signal
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from infra_core.runtime import (
    LoopBoundAsyncLock,
    RetryPolicy,
    RuntimeCancellationError,
    RuntimeConfig,
    RuntimeDrainedError,
    TaskRuntime,
    ThreadBatcher,
    handle_signals,
    is_async_function,
    is_number,
    name_call,
    retry_async,
    retry_sync,
    run_sync,
)
from infra_core.runtime.testing import FastTime, fast_time


def wrong(value: object) -> Any:
    """What the type checker would refuse, and people pass all the same."""
    return value


def broken() -> None:
    raise ConnectionError("reset")


async def nothing() -> None: ...


async def broken_task() -> None:
    broken()


def runtime(**options: Any) -> TaskRuntime:
    return TaskRuntime(config=RuntimeConfig(**options))


NO_NUMBERS = ["5", "", None, math.nan, [5]]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda value: RetryPolicy(max_retries=value), "pass 0 for a single try"),
        (lambda value: RetryPolicy(backoff=value), "pass 0 or more"),
        (lambda value: RetryPolicy(max_backoff=value), "pass 0 or more"),
        (lambda value: RuntimeConfig(concurrency=value), "how many tasks may run at a time"),
        (lambda value: RuntimeConfig(cancel_grace=value), "pass the seconds that"),
        (lambda value: ThreadBatcher(list, size=value), "pass 1 or more"),
        (lambda value: FastTime().advance(value), "pass 0 or more"),
    ],
)
def test_what_is_no_number_is_named_with_the_remedy(
    make: Callable[[Any], object], remedy: str, value: object
) -> None:
    """Text from the environment, None and NaN never get as far as a comparison."""
    with pytest.raises(ValueError, match=remedy) as caught:
        make(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["5", math.nan, [5]])
@pytest.mark.parametrize(
    "make",
    [
        lambda value: RetryPolicy(deadline=value),
        lambda value: RuntimeConfig(task_timeout=value),
        lambda value: RuntimeConfig(max_per_second=value),
        lambda value: run_sync(nothing(), timeout=value),
        lambda value: runtime().map(wrong(nothing), [1], ahead=value),
        lambda value: FastTime(jitter=value),
    ],
)
def test_where_none_has_a_meaning_the_rest_is_refused_alike(
    make: Callable[[Any], object], value: object
) -> None:
    """The remedy then names None as well."""
    with pytest.raises(ValueError, match=r": pass .*None") as caught:
        make(value)
    assert repr(value) in str(caught.value)


def test_an_endless_timeout_of_run_sync_is_no_bound() -> None:
    """`math.inf` is more than a lock can wait for, and a fair way to say "no bound"."""
    assert run_sync(nothing(), timeout=math.inf) is None


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300])
def test_numbers_are_numbers(timeout: float | None) -> None:
    """Infinite ones as well; each parameter has its own bounds."""
    assert is_number(timeout) == (timeout is not None)


async def test_a_policy_that_is_none_is_refused_before_the_first_attempt() -> None:
    """Not after the first failure, which would then hide behind an AttributeError."""
    remedy = r"=3 is not a RetryPolicy: pass RetryPolicy\(max_retries=2\)"
    with pytest.raises(TypeError, match=remedy):
        retry_sync(broken, policy=wrong(3), should_retry=lambda error: True)
    with pytest.raises(TypeError, match=remedy):
        await retry_async(broken_task, policy=wrong(3), should_retry=lambda error: True)
    with pytest.raises(TypeError, match=remedy):
        RuntimeConfig(retry=wrong(3))
    with pytest.raises(TypeError, match=remedy):
        await runtime().run([("a", nothing)], retry=wrong(3))


def test_a_verdict_that_is_none_of_the_three_is_named() -> None:
    """And the error that it was about is the cause."""
    with pytest.raises(TypeError, match="returned 'yes': return True, False or the sec") as caught:
        retry_sync(broken, policy=RetryPolicy(), should_retry=wrong(lambda error: "yes"))
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize("config", [None, {"concurrency": 4}, 4])
def test_a_config_of_another_type_is_refused_at_construction(config: object) -> None:
    """Not when the first run begins."""
    with pytest.raises(TypeError, match=r"is not a RuntimeConfig: pass RuntimeConfig\(") as caught:
        TaskRuntime(config=wrong(config))
    assert repr(config) in str(caught.value)


def test_a_cancel_event_must_be_one() -> None:
    """Anything with `is_set()` will do."""
    with pytest.raises(TypeError, match=r"cancel_event=True has no is_set\(\): pass an asyncio"):
        TaskRuntime(config=RuntimeConfig(), cancel_event=wrong(True))


async def test_sources_that_cannot_be_iterated_over_are_named() -> None:
    """By the parameter that they were given for."""
    with pytest.raises(TypeError, match="tasks cannot be iterated over, being None: pass a list"):
        await runtime().run(wrong(None))
    with pytest.raises(TypeError, match="items cannot be iterated over, being 5: pass a list"):
        runtime().map(wrong(nothing), wrong(5))


async def test_what_is_no_task_is_refused_without_its_secrets() -> None:
    """A partial shows all of its arguments; a long one is cut."""
    item = partial(wrong(nothing), "https://a.example/x?sig=abc123", "y" * 1000)
    with pytest.raises(TypeError, match="sig=<redacted>") as caught:
        await runtime().run([wrong(item)])
    assert "abc123" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["on_error", "on_timeout", "on_outcome", "on_progress"])
async def test_callbacks_that_cannot_be_called_are_refused(name: str) -> None:
    """They would swallow the errors that they were to report."""
    with pytest.raises(TypeError, match=f"{name}=5 cannot be called: pass a function"):
        await runtime().run([("a", broken_task)], **wrong({name: 5}))


@pytest.mark.parametrize("value", [-1, "5", math.nan, None])
async def test_progress_intervals_are_checked(value: object) -> None:
    """Before the first task begins."""
    with pytest.raises(ValueError, match=r"is not 0 or more: pass seconds") as caught:
        await runtime().run([("a", nothing)], progress_interval=wrong(value))
    assert f"progress_interval={value!r}" in str(caught.value)


async def test_a_callback_that_raises_loses_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the callback's error and what it was called with."""

    def on_error(task_id: str, error: Exception) -> None:
        raise KeyError(task_id)

    with caplog.at_level(logging.ERROR):
        await runtime().run([("a", broken_task)], on_error=on_error)
    assert "when called with 'a', ConnectionError('reset'); the run goes on" in caplog.text


async def test_cancelled_and_drained_runs_say_what_there_is_to_do() -> None:
    """How far it came, and how to go on."""
    cancelled = runtime()

    async def cancel() -> None:
        cancelled.cancel()
        await asyncio.sleep(60)

    with pytest.raises(RuntimeCancellationError, match="of 2 tasks begun 1 succeeded; make anoth"):
        await cancelled.run([("a", nothing), ("b", cancel)])
    stopped = runtime()
    stopped.stop()
    with pytest.raises(RuntimeDrainedError, match=r"stop\(\) or a signal has ended .*; make anoth"):
        await stopped.run([("a", nothing)])


@pytest.mark.parametrize(("count", "end"), [(10, ""), (11, " and others")])
async def test_of_many_that_are_left_behind_some_are_named(count: int, end: str) -> None:
    """Ten names are enough for a message; the attribute has them all."""
    release = asyncio.Event()
    begun: list[int] = []

    async def mule() -> None:
        begun.append(1)
        if len(begun) == count:
            mules.cancel()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    mules = runtime(concurrency=count, cancel_grace=0.01)
    try:
        names = rf": (\d+, ){{9}}\d+{end}$"
        with pytest.raises(RuntimeCancellationError, match=names) as caught:
            await mules.run([(str(number), mule) for number in range(count)])
        assert len(caught.value.unresponsive) == count
    finally:
        release.set()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grace": -1}, "grace=-1 is not 0 or more"),
        ({"grace": "5"}, "grace='5' is not 0 or more"),
        ({"signals": signal.SIGINT}, "pass a list such as"),
        ({"signals": [9999]}, r"\[9999\] cannot be handled here"),
    ],
)
async def test_signal_handling_is_checked_before_a_signal_comes(
    options: dict[str, Any], words: str
) -> None:
    """When one came it would be too late: the process would not end."""
    with pytest.raises(ValueError, match=words), handle_signals(runtime(), **options):
        pass


def test_what_belongs_to_a_loop_says_so_outside_of_one() -> None:
    """With the remedy."""
    with pytest.raises(RuntimeError, match=r"no running event loop.*: ask for it in a coroutine"):
        LoopBoundAsyncLock().get()
    with (
        pytest.raises(RuntimeError, match="no running event loop: use handle_signals in the async"),
        handle_signals(runtime()),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, r"returned None for 1 item\(s\): return a list with an entry for each"),
        (["disk full"], r"returned \['disk full'\] for 1 item\(s\): .* the exception"),
    ],
)
async def test_batch_functions_that_return_no_errors_fail(answer: object, words: str) -> None:
    """A function without a return is the usual mistake."""
    store: Callable[[list[int]], Sequence[BaseException | None]] = wrong(lambda items: answer)
    batcher: ThreadBatcher[int] = ThreadBatcher(store)
    with pytest.raises(ValueError, match=words):
        await batcher(1)


def test_notes_of_retries_have_units() -> None:
    """Both numbers are seconds."""

    def ask(error: Exception) -> float:
        return 1000.0

    with fast_time(), pytest.raises(ConnectionError) as caught:
        retry_sync(broken, policy=RetryPolicy(), should_retry=ask)
    if hasattr(caught.value, "add_note"):  # Python 3.11
        notes = str(getattr(caught.value, "__notes__", ""))
        assert "asks for 1000 s, above max_backoff of 60 s" in notes


def test_what_only_makes_a_coroutine_is_seen() -> None:
    """Functions, methods, partial functions, and objects that are called."""

    class Hook:
        async def __call__(self) -> None:
            """Be awaited."""

    async def hook() -> None:
        """Be awaited."""

    asynchronous = (hook, Hook(), Hook().__call__, partial(hook))
    plain = (print, lambda: hook, partial(print), None, 5)
    assert [is_async_function(each) for each in asynchronous] == [True] * 4
    assert [is_async_function(each) for each in plain] == [False] * 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("get_async() got a 'x'", "get() got a 'x'"),
        ("Client.get_async() missing 'x'", "get() missing 'x'"),
        ("other() got a 'x'", "other() got a 'x'"),
        ("get_async is None", "get_async is None"),
    ],
)
def test_an_error_of_arguments_names_what_was_called(text: str, said: str) -> None:
    """And any other stays as it is."""
    error = TypeError(text)
    name_call(error, "get()", "get_async")
    assert str(error) == said


async def _hang() -> None:
    await asyncio.Event().wait()


def _late_task(seconds: Any) -> None:
    runtime = TaskRuntime(config=RuntimeConfig(task_timeout=seconds, cancel_grace=seconds))
    asyncio.run(runtime.run([("a", _hang)]))


def _late_retry(seconds: Any) -> None:
    policy = RetryPolicy(deadline=seconds)
    asyncio.run(retry_async(_hang, policy=policy, should_retry=lambda error: True))


@pytest.mark.parametrize(
    "late",
    [_late_task, _late_retry, lambda seconds: run_sync(_hang(), timeout=seconds)],
    ids=["task", "retry", "run_sync"],
)
def test_a_timeout_may_be_any_real_number(late: Callable[[Any], None]) -> None:
    """Fractions know no format of their own before Python 3.12, and no clock sleeps for one."""
    with pytest.raises(TimeoutError, match=r"0\.0625 s"):
        late(Fraction(1, 16))


@pytest.mark.skipif(not hasattr(BaseException, "add_note"), reason="Python 3.11")
@pytest.mark.parametrize(
    ("policy", "asked", "reason"),
    [
        ({"deadline": Fraction(1, 16)}, 1, "would reach the deadline of 0.0625 s"),
        ({"max_backoff": Fraction(1, 16)}, 1, "asks for 1 s, above max_backoff of 0.0625 s"),
        ({"max_retries": 1, "backoff": Fraction(1, 10_000)}, True, "max_retries is 1"),
    ],
)
def test_a_policy_may_have_any_real_number(policy: Any, asked: Any, reason: str) -> None:
    """The waits included, by the real clock."""
    with pytest.raises(ConnectionError) as caught:
        retry_sync(broken, policy=RetryPolicy(**policy), should_retry=lambda error: asked)
    assert reason in caught.value.__notes__[0]
