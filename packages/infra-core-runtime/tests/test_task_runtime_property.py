"""Properties of `TaskRuntime` over any mix of tasks, bounds and interruptions."""

import asyncio
import gc
import math
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.runtime import (
    RateLimit,
    RuntimeCancellationError,
    RuntimeConfig,
    TaskOutcome,
    TaskRuntime,
    TaskStatus,
)
from infra_core.runtime._outcomes import StatsRecorder

BEHAVIOUR = st.sampled_from(["return", "wait", "raise", "swallow", "cleanup"])


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _act(behaviour: str, log: Counter[str], name: str) -> str:
    log[f"begun {name}"] += 1
    try:
        if behaviour == "return":
            return name
        await _turns(3)
        if behaviour == "raise":
            raise ValueError(name)
        return name
    except asyncio.CancelledError:
        if behaviour == "swallow":
            return name
        if behaviour == "cleanup":
            await _turns(2)
        raise
    finally:
        log[f"ended {name}"] += 1


@settings(max_examples=100, deadline=None)
@given(
    behaviours=st.lists(BEHAVIOUR, max_size=25),
    concurrency=st.integers(1, 8),
    interruption=st.sampled_from(["none", "cancel", "outer", "drain", "error"]),
    after=st.integers(0, 30),
    asynchronous=st.booleans(),
)
def test_each_task_runs_at_most_once_and_ends_before_the_run(
    behaviours: list[str], concurrency: int, interruption: str, after: int, asynchronous: bool
) -> None:
    """No task is lost, run twice, counted twice or left behind, however a run is interrupted."""
    log: Counter[str] = Counter()
    outcomes: list[TaskOutcome[Any]] = []
    complaints: list[dict[str, Any]] = []

    def source() -> Any:
        for index, behaviour in enumerate(behaviours):
            yield str(index), partial(_act, behaviour, log, str(index))

    async def source_async() -> Any:
        for item in source():
            await asyncio.sleep(0)
            yield item

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        runtime = TaskRuntime(config=RuntimeConfig(concurrency=concurrency, task_timeout=30.0))
        tasks = source_async() if asynchronous else source()
        report: dict[str, Any] = {} if interruption == "error" else {"on_outcome": outcomes.append}
        run = asyncio.create_task(runtime.run(tasks, **report))
        await _turns(after)
        if interruption == "cancel":
            runtime.cancel()
        elif interruption == "outer":
            run.cancel()
        elif interruption == "drain":
            await runtime.drain()
        try:
            await run
        except (RuntimeCancellationError, asyncio.CancelledError, ValueError):
            pass
        else:
            assert runtime.stats.started == len(behaviours)
        assert not runtime._active_tasks
        stats = runtime.stats
        assert stats.in_flight == 0
        assert stats.started == stats.done
        if interruption != "error":
            assert stats.done == len(outcomes) == len({outcome.id for outcome in outcomes})
        for outcome in outcomes:
            if outcome.ok:
                assert outcome.value == outcome.id
            assert log[f"begun {outcome.id}"] == min(outcome.attempts, 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    gc.freeze()  # so that collecting looks at what the run made, and takes no time
    asyncio.run(main())
    gc.collect()
    gc.unfreeze()
    assert complaints == []
    for name, count in log.items():
        assert count == 1
        if name.startswith("begun"):
            assert log[name.replace("begun", "ended")] == 1


@settings(max_examples=100, deadline=None)
@given(
    turns=st.lists(st.integers(0, 6), max_size=30),
    concurrency=st.integers(1, 8),
    ahead=st.integers(0, 5),
)
def test_map_is_the_builtin_map_for_any_timing(
    turns: list[int], concurrency: int, ahead: int
) -> None:
    """Same results, same order, whatever the tasks' timing and the bounds."""

    async def function(item: tuple[int, int]) -> int:
        await _turns(item[1])
        return item[0]

    async def main() -> list[int]:
        runtime = TaskRuntime(config=RuntimeConfig(concurrency=concurrency))
        return [r async for r in runtime.map(function, enumerate(turns), ahead=ahead)]

    assert asyncio.run(main()) == list(range(len(turns)))


@settings(deadline=None)
@given(st.lists(st.floats(1e-7, 1e5), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_quantiles_are_right_within_their_bound(values: list[float], fraction: float) -> None:
    """A quantile is within 3.2 percent of the value of that rank."""
    recorder = StatsRecorder()
    for value in values:
        recorder.ended(TaskStatus.SUCCEEDED, value)
    rank = math.ceil(fraction * len(values) - 1e-9)
    true = sorted(values)[max(rank, 1) - 1]
    assert recorder.quantile(fraction) == pytest.approx(true, rel=0.032)


@settings(deadline=None)
@given(st.lists(st.floats(1e-7, 1e5), max_size=50), st.lists(st.floats(1e-7, 1e5), max_size=50))
def test_histograms_add_up(left: list[float], right: list[float]) -> None:
    """Merging two gives what counting everything in one would have given."""
    parts = [StatsRecorder(), StatsRecorder(), StatsRecorder()]
    for part, values in zip(parts, (left, right, left + right), strict=True):
        for value in values:
            part.ended(TaskStatus.SUCCEEDED, value)
    parts[0].merge(parts[1])
    for fraction in (0.1, 0.5, 0.99):
        assert parts[0].quantile(fraction) == parts[2].quantile(fraction)


@settings(deadline=None)
@given(
    rate=st.floats(0.1, 1000.0),
    delays=st.lists(st.floats(0.0, 0.5), min_size=2, max_size=60),
)
def test_a_rate_limit_never_allows_more_than_its_bound(rate: float, delays: list[float]) -> None:
    """Over any stretch of time, however late each start is asked for."""
    pacer = RateLimit(rate)
    now = 100.0
    starts = []
    for delay in delays:
        now += delay
        now += pacer.reserve(now)
        starts.append(now)
    for first in range(len(starts)):
        for last in range(first + 1, len(starts)):
            span = starts[last] - starts[first]
            assert last - first <= (span + 0.01) * rate + 1e-3


def test_a_rate_limit_forgets_keys_that_are_not_waited_for() -> None:
    """A crawler meets a million hosts; those whose start is still to come keep their place."""
    limit = RateLimit(1.0)
    for number in range(10_000):
        assert limit.reserve(float(number), number) == 0.0
        assert limit.reserve(float(number), "busy") == number
        assert limit.reserve(float(number), "busy") == number + 1
    assert len(limit._next) < 5_000


def test_of_tasks_left_behind_the_first_hundred_are_named() -> None:
    """However many there are, of one run or of several."""
    one, all_runs = StatsRecorder(), StatsRecorder()
    for number in range(150):
        one.left_behind(str(number))
    assert one.snapshot().unresponsive == tuple(map(str, range(100)))
    all_runs.merge(one)
    all_runs.merge(one)
    assert all_runs.snapshot().unresponsive == tuple(map(str, range(100)))
