"""Retries, rate, statistics, progress and signals of `TaskRuntime`."""

import asyncio
import contextlib
import itertools
import logging
import os
import pickle
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from infra_core.runtime import (
    RetryPolicy,
    RuntimeCancellationError,
    RuntimeConfig,
    RuntimeDrainedError,
    RuntimeStats,
    TaskOutcome,
    TaskRuntime,
    TaskTimeoutError,
    clock,
    handle_signals,
)
from infra_core.runtime.testing import fast_time

Task = tuple[str, Callable[[], Awaitable[Any]]]
orderly = pytest.mark.usefixtures("orderly_loop")
posix = pytest.mark.posix(reason="os.kill terminates on Windows")


def runtime(concurrency: int = 1, **config: Any) -> TaskRuntime:
    return TaskRuntime(config=RuntimeConfig(concurrency=concurrency, **config))


async def succeed() -> None:
    return None


async def forever() -> None:
    await asyncio.Event().wait()


async def turns(count: int = 3) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class Flaky:
    """Fails the given number of times, then returns how often it was called."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError(f"failure {self.calls}")
        return self.calls


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"concurrency": 0}, "concurrency must be positive"),
        ({"concurrency": 1.5}, "concurrency must be positive and whole, not 1.5"),
        ({"task_timeout": 0}, "task_timeout must be positive when provided"),
        ({"task_timeout": float("nan")}, "task_timeout"),
        ({"cancel_grace": 0}, "cancel_grace must be positive"),
        ({"cancel_grace": float("inf")}, "cancel_grace"),
        ({"max_per_second": -1}, "max_per_second must be positive"),
    ],
)
def test_a_number_out_of_range_is_refused(config: dict[str, Any], message: str) -> None:
    """The error names the value and the remedy."""
    with pytest.raises(ValueError, match=message) as caught:
        RuntimeConfig(**config)
    assert ": pass " in str(caught.value)


def test_the_configuration_of_0_7_still_works() -> None:
    """Three fields by position, with the same defaults."""
    assert RuntimeConfig() == RuntimeConfig(1, None, 2.0)


def test_a_timeout_error_survives_pickling() -> None:
    """It crosses process borders with all it knows."""
    copy = pickle.loads(pickle.dumps(TaskTimeoutError("a", 2.0, unresponsive=True)))
    assert (copy.task_id, copy.timeout, copy.unresponsive) == ("a", 2.0, True)
    assert "'a'" in str(copy)
    usual = TaskTimeoutError("a", 2.0)
    assert not usual.unresponsive
    assert "left behind" not in str(usual)


@orderly
async def test_a_task_is_retried_by_the_policy() -> None:
    """Attempts are on the outcome, retries in the statistics, waits as the policy says."""
    outcomes: list[TaskOutcome[int]] = []
    policy = RetryPolicy(max_retries=3, backoff=1.0)
    with fast_time(jitter=1.0) as time:
        subject = runtime(1, retry=policy)
        await subject.run([("a", Flaky(2)), ("b", Flaky(0))], on_outcome=outcomes.append)
    assert [(o.value, o.attempts) for o in outcomes] == [(3, 3), (1, 1)]
    assert subject.stats.retries == 2
    assert time.slept == [1.0, 2.0]


@orderly
async def test_the_last_error_comes_through_when_retries_are_used_up() -> None:
    """The error of the last attempt itself, not a wrapper."""
    with fast_time(), pytest.raises(ConnectionError, match="failure 3"):
        await runtime(1).run([("a", Flaky(9))], retry=RetryPolicy(max_retries=2))


@orderly
async def test_should_retry_decides() -> None:
    """An error that is not to be retried is final at once."""
    task = Flaky(1)
    with pytest.raises(ConnectionError):
        await runtime(1).run([("a", task)], retry=RetryPolicy(), should_retry=lambda error: False)
    assert task.calls == 1


@orderly
async def test_the_task_timeout_covers_retries() -> None:
    """Waits between attempts count against the budget of the task."""
    with pytest.raises(TaskTimeoutError):
        await runtime(1, task_timeout=0.01).run(
            [("a", Flaky(9))], retry=RetryPolicy(max_retries=9, backoff=60.0, jitter=False)
        )


@orderly
async def test_streams_retry_as_well() -> None:
    """`map` takes the same policy."""
    tasks = {n: Flaky(n) for n in range(3)}
    with fast_time():
        stream = runtime(3, retry=RetryPolicy()).map(lambda n: tasks[n](), range(3), outcomes=True)
        attempts = [outcome.attempts async for outcome in stream]
    assert attempts == [1, 2, 3]


@orderly
async def test_tasks_begin_evenly_spaced_at_the_rate() -> None:
    """Ten a second means a tenth of a second between two starts."""
    starts: list[float] = []

    async def task() -> None:
        starts.append(clock.monotonic())

    with fast_time():
        await runtime(5, max_per_second=10.0).run([(str(n), task) for n in range(6)])
    gaps = [later - former for former, later in itertools.pairwise(starts)]
    assert gaps == pytest.approx([0.1] * 5, abs=0.011)


@orderly
async def test_the_rate_holds_for_asynchronous_sources_and_across_runs() -> None:
    """One rate for a runtime, whatever its tasks come from."""
    starts: list[float] = []

    async def task() -> None:
        starts.append(clock.monotonic())

    async def source() -> AsyncIterator[Task]:
        for number in range(3):
            yield str(number), task

    subject = runtime(5, max_per_second=10.0)
    with fast_time():
        await subject.run(source())
        await asyncio.gather(
            subject.run([("a", task), ("b", task)]), subject.run([("c", task), ("d", task)])
        )
    assert len(starts) == 7
    assert max(starts) - min(starts) == pytest.approx(0.6, abs=0.02)


@orderly
async def test_a_cancel_during_a_wait_for_the_rate_takes_nothing() -> None:
    """The next item stays in the source, and the wait is not waited for."""
    subject = runtime(5, max_per_second=0.001)
    source = iter([("a", succeed), ("b", succeed)])
    run = asyncio.create_task(subject.run(source))
    await turns()
    subject.cancel()
    with pytest.raises(RuntimeCancellationError):
        await run
    assert len(list(source)) == 1
    assert subject.stats.succeeded == 1


@orderly
async def test_a_rate_does_not_delay_the_end() -> None:
    """A run ends with its last task, not when the next start would have been due."""
    subject = runtime(5, max_per_second=0.001)
    with fast_time() as time:
        await subject.run([("a", succeed)])
    assert time.slept == []


@orderly
async def test_statistics_count_every_end() -> None:
    """Each way to end has its counter; durations have quantiles."""

    async def fail() -> None:
        raise ValueError

    subject = runtime(2, task_timeout=0.02)
    assert subject.stats == RuntimeStats()
    await subject.run(
        [("a", succeed), ("b", fail), ("c", forever)],
        on_error=lambda *_: None,
        on_timeout=lambda _: None,
    )
    run = asyncio.create_task(subject.run([("d", forever)]))
    await turns()
    stats = subject.stats
    assert (stats.started, stats.in_flight, stats.done) == (4, 1, 3)
    assert (stats.succeeded, stats.failed, stats.timed_out, stats.cancelled) == (1, 1, 1, 0)
    assert stats.duration_p50 is not None
    assert stats.duration_p99 is not None
    assert stats.duration_p50 < 0.02 <= stats.duration_p99 * 1.04
    await subject.aclose()
    assert subject.stats.cancelled == 1
    with pytest.raises(RuntimeCancellationError):
        await run


@orderly
async def test_progress_is_reported_as_tasks_end_and_at_the_end() -> None:
    """With an interval of 0 after every task; the last call sees everything done."""
    seen: list[RuntimeStats] = []
    await runtime(1).run(
        [(str(n), succeed) for n in range(3)], on_progress=seen.append, progress_interval=0.0
    )
    assert [stats.done for stats in seen] == [1, 2, 3, 3]


@orderly
async def test_progress_is_reported_no_more_often_than_asked_for() -> None:
    """With a long interval only the end is reported; the hook may be asynchronous."""
    seen: list[RuntimeStats] = []

    async def on_progress(stats: RuntimeStats) -> None:
        await turns()
        seen.append(stats)

    await runtime(4).run(
        [(str(n), succeed) for n in range(50)], on_progress=on_progress, progress_interval=60.0
    )
    assert [stats.done for stats in seen] == [50]


@orderly
async def test_progress_is_reported_once_in_each_interval() -> None:
    """When a task ends after it was over, and at the end."""
    seen: list[RuntimeStats] = []
    with fast_time() as time:

        async def task() -> None:
            time.advance(25)

        await runtime(1).run(
            [(str(n), task) for n in range(10)], on_progress=seen.append, progress_interval=60.0
        )
    assert [stats.done for stats in seen] == [3, 6, 9, 10]


@orderly
async def test_streams_report_progress_too() -> None:
    """The hook of a stream is called at its end at the latest."""
    seen: list[RuntimeStats] = []

    async def function(number: int) -> int:
        return number

    async for _ in runtime(4).map(function, range(5), on_progress=seen.append):
        pass
    assert seen[-1].done == 5


@contextlib.contextmanager
def recorded(*numbers: signal.Signals) -> Iterator[list[int]]:
    """Install handlers that only take note, and put back what was there."""
    seen: list[int] = []
    before = {n: signal.signal(n, lambda number, _: seen.append(number)) for n in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@posix
@orderly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_stops_intake_and_drains(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """Tasks under way are finished, none is begun, and `run` says that some are missing."""
    ended: list[int] = []
    begun = asyncio.Event()

    async def task(index: int) -> None:
        begun.set()
        await turns(10)
        ended.append(index)

    subject = runtime(2)
    with recorded(number) as outside:
        before = signal.getsignal(number)
        with handle_signals(subject) as state, caplog.at_level(logging.WARNING):
            run = asyncio.create_task(
                subject.run((str(n), partial(task, n)) for n in itertools.count())
            )
            await begun.wait()
            os.kill(os.getpid(), number)
            with pytest.raises(RuntimeDrainedError):
                await run
            with pytest.raises(RuntimeDrainedError, match="signal"):
                await subject.run([("later", succeed)])
        assert signal.getsignal(number) is before
    assert (state.received, state.count) == (number, 1)
    assert subject.stats.cancelled == 0
    assert len(ended) == subject.stats.started
    assert outside == []
    assert [record.__dict__["signal"] for record in caplog.records] == [number.name]
    await subject.run([("after", succeed)])  # the end of the block ends the stop


@posix
async def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As by `nohup`, or in what a script started with `&`."""
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with handle_signals(runtime()) as state:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
            await turns()
        assert state.received is None
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)


@posix
@orderly
async def test_a_signal_right_before_the_end_of_the_block_stops_nothing() -> None:
    """What it would have stopped is over; the runtime can be used again."""
    subject = runtime()
    with recorded(signal.SIGTERM), handle_signals(subject) as state:
        os.kill(os.getpid(), signal.SIGTERM)
    await turns()
    assert state.count == 0
    await subject.run([("after", succeed)])


@posix
@orderly
async def test_the_second_signal_cancels_and_a_third_is_not_ours() -> None:
    """Cleanup is awaited after the second; the handlers of before get the third."""
    cleaned: list[int] = []
    cleaning = asyncio.Event()
    go_on = asyncio.Event()

    async def task() -> None:
        try:
            await forever()
        finally:
            cleaning.set()
            await go_on.wait()
            cleaned.append(1)

    subject = runtime(1)
    with recorded(signal.SIGTERM) as outside, handle_signals(subject) as state:
        run = asyncio.create_task(subject.run([("a", task), ("b", task)]))
        await turns()
        os.kill(os.getpid(), signal.SIGTERM)
        await turns(5)
        assert not cleaning.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await cleaning.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        go_on.set()
        with pytest.raises(RuntimeCancellationError):
            await run
    assert cleaned == [1]
    assert state.count == 2
    assert outside == [signal.SIGTERM]


@posix
@orderly
async def test_the_grace_of_a_signal_ends_with_a_cancel() -> None:
    """Tasks that do not finish in time are cancelled without a second signal."""
    subject = runtime(1)
    with recorded(signal.SIGTERM), handle_signals(subject, grace=0.01):
        run = asyncio.create_task(subject.run([("a", forever)]))
        await turns()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(RuntimeCancellationError):
            await run
    assert subject.stats.cancelled == 1


@posix
@orderly
@pytest.mark.parametrize("first", [0, 1])
async def test_blocks_at_the_same_time_all_act_on_a_signal(first: int) -> None:
    """In whichever order they end, the handler of before is back afterwards, and not sooner."""
    subjects = [runtime(1), runtime(1)]
    with recorded(signal.SIGTERM) as outside:
        before = signal.getsignal(signal.SIGTERM)
        stacks = [contextlib.ExitStack(), contextlib.ExitStack()]
        states = [
            stack.enter_context(handle_signals(subject))
            for stack, subject in zip(stacks, subjects, strict=True)
        ]
        runs = [asyncio.create_task(subject.run([("a", forever)])) for subject in subjects]
        await turns()
        os.kill(os.getpid(), signal.SIGTERM)
        await turns(5)
        assert [state.count for state in states] == [1, 1]
        stacks[first].close()
        assert signal.getsignal(signal.SIGTERM) is not before
        os.kill(os.getpid(), signal.SIGTERM)
        await turns(5)
        assert states[1 - first].count == 2
        assert states[first].count == 1
        for run in runs:
            run.cancel()
        await asyncio.wait(runs)
        stacks[1 - first].close()
        assert signal.getsignal(signal.SIGTERM) is before
    assert outside == []


@orderly
async def test_signals_are_refused_outside_of_the_main_thread() -> None:
    """The error says where signal handlers work."""
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with handle_signals(runtime(1)):
                pass
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])


def test_signals_are_refused_without_a_loop() -> None:
    """Nothing is installed where no loop runs."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="no running event loop"), handle_signals(runtime(1)):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


@orderly
async def test_retries_are_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """A retry leaves a line with id, attempt and the redacted error."""

    async def task() -> None:
        raise ConnectionError("https://a.example/?sig=SECRET")

    with fast_time(), caplog.at_level(logging.INFO, logger="infra_core.task_runtime"):
        await runtime(1).run(
            [("a", task)], retry=RetryPolicy(max_retries=1), on_outcome=lambda _: None
        )
    (record,) = caplog.records
    assert record.__dict__["task_id"] == "a"
    assert "SECRET" not in record.getMessage()
