"""`TaskRuntime.map` and `TaskRuntime.as_completed`: results in order, or as they come."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import pytest

from infra_core.runtime import (
    RetryPolicy,
    RuntimeCancellationError,
    RuntimeConfig,
    TaskOutcome,
    TaskRuntime,
    _task_run,
)

pytestmark = pytest.mark.usefixtures("orderly_loop")
Task = tuple[str, Callable[[], Awaitable[Any]]]


def runtime(concurrency: int = 1, **config: Any) -> TaskRuntime:
    return TaskRuntime(config=RuntimeConfig(concurrency=concurrency, **config))


async def forever() -> None:
    await asyncio.Event().wait()


async def turns(count: int = 3) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def slow_double(number: int) -> int:
    await turns(7 - number % 7)
    return number * 2


@pytest.mark.parametrize("concurrency", [1, 3, 50])
async def test_map_hands_out_results_in_the_order_of_the_items(concurrency: int) -> None:
    """Whatever order they end in."""
    results = [r async for r in runtime(concurrency).map(slow_double, range(30))]
    assert results == [n * 2 for n in range(30)]


async def test_map_takes_an_asynchronous_source() -> None:
    """Items may come from an asynchronous generator."""

    async def items() -> AsyncIterator[int]:
        for number in range(10):
            await asyncio.sleep(0)
            yield number

    results = [r async for r in runtime(3).map(slow_double, items())]
    assert results == [n * 2 for n in range(10)]


async def test_map_of_nothing_is_empty() -> None:
    """No items, no results, no error."""
    assert [r async for r in runtime(3).map(slow_double, [])] == []


async def _attempts_and_progress(way: str) -> tuple[int, int]:
    """Of one task that fails twice and may not be tried a third time, how often each was seen."""
    tried: list[int] = []
    progress: list[object] = []

    async def fail(_: object = None) -> None:
        tried.append(1)
        raise OSError

    options: dict[str, Any] = {
        "outcomes": True,
        "retry": RetryPolicy(max_retries=5, backoff=0.0),
        "should_retry": lambda error: len(tried) < 2,
        "on_progress": progress.append,
        "progress_interval": 0.0,
    }
    subject: Any = runtime()
    if way == "map":
        stream = subject.map(fail, range(3), **options)
    else:
        stream = subject.as_completed([(str(n), fail) for n in range(3)], **options)
    async for _ in stream:
        pass
    return len(tried), len(progress)


@pytest.mark.parametrize("way", ["map", "as_completed"])
async def test_streams_know_the_options_of_a_run(way: str) -> None:
    """Retries and their rule, the progress and its interval."""
    assert await _attempts_and_progress(way) == (4, 4)


async def test_as_completed_hands_out_outcomes_as_tasks_end() -> None:
    """The first to end is the first to be handed out."""
    gates = {name: asyncio.Event() for name in "abc"}
    order = []
    stream = runtime(3).as_completed([(name, gate.wait) for name, gate in gates.items()])
    asyncio.get_running_loop().call_soon(gates["b"].set)
    async for outcome in stream:
        order.append(outcome.id)
        if order == ["b"]:
            gates["c"].set()
        elif order == ["b", "c"]:
            gates["a"].set()
    assert order == ["b", "c", "a"]


async def test_a_slow_reader_holds_the_run_back() -> None:
    """The run goes at most `concurrency + ahead` tasks ahead of its reader: memory stays flat."""
    taken = 0

    def source() -> Iterator[Task]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield str(number), partial(asyncio.sleep, 0)

    read = 0
    async for _ in runtime(4).as_completed(source(), ahead=2):
        read += 1
        await turns(10)
        assert taken <= read + 6
    assert read == taken == 100


async def test_a_slow_head_holds_map_back_as_well() -> None:
    """Results behind one that is not there yet wait in a bounded buffer."""
    taken = 0
    gate = asyncio.Event()

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield number

    async def function(number: int) -> int:
        if number == 0:
            await gate.wait()
        return number

    stream = runtime(3).map(function, items())
    first = asyncio.ensure_future(anext(stream))
    await turns(30)
    assert taken == 6
    gate.set()
    assert [await first] + [r async for r in stream] == list(range(50))


async def test_map_raises_the_first_failure_after_siblings_ended() -> None:
    """Results that were there come first, then the error; nothing runs any longer."""
    cleaned: list[int] = []

    async def function(number: int) -> int:
        if number == 2:
            await turns(3)
            raise ValueError("broken")
        if number > 2:
            try:
                await forever()
            finally:
                cleaned.append(number)
        return number

    seen: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        async for result in runtime(4).map(function, range(9)):
            seen.append(result)  # noqa: PERF401 - what was seen before the error
    assert seen == [0, 1]
    assert cleaned
    stream_end = runtime(1).map(function, [0])
    assert [r async for r in stream_end] == [0]
    with pytest.raises(StopAsyncIteration):
        await anext(stream_end)


async def test_map_with_outcomes_hands_out_failures_in_their_place() -> None:
    """Nothing is raised for a task's failure: it is an outcome in the order of the items."""
    error = ValueError("odd")

    async def function(number: int) -> int:
        await turns(3 - number)
        if number % 2:
            raise error
        return number

    stream = runtime(4).map(function, range(4), outcomes=True, key=lambda n: f"item {n}")
    outcomes: list[TaskOutcome[int]] = [outcome async for outcome in stream]
    assert [outcome.id for outcome in outcomes] == [f"item {n}" for n in range(4)]
    assert [outcome.value for outcome in outcomes] == [0, None, 2, None]
    assert [outcome.error for outcome in outcomes] == [None, error, None, error]


async def test_as_completed_raises_the_first_failure_by_default() -> None:
    """With `outcomes=True` failures and timeouts are handed out like successes."""

    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async for _ in runtime(2).as_completed([("a", fail), ("b", forever)]):
            pass
    stream = runtime(2, task_timeout=0.01).as_completed(
        [("a", fail), ("b", forever)], outcomes=True
    )
    assert {o.id: str(o.status) async for o in stream} == {"a": "failed", "b": "timed_out"}


async def test_leaving_a_stream_early_cancels_and_awaits_its_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the end of `async with` nothing of the stream runs any longer."""
    monkeypatch.setattr(_task_run, "_SLICE", 0.0)  # a few begin together on a busy machine too
    cleaned: list[int] = []
    subject = runtime(3)

    async def function(number: int) -> int:
        if number:
            try:
                await forever()
            finally:
                await turns()
                cleaned.append(number)
        return number

    with pytest.raises(LookupError):
        async with subject.map(function, range(3)) as stream:
            async for _ in stream:
                raise LookupError("enough")
    assert sorted(cleaned) == [1, 2]
    assert not subject._active_tasks
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_that_is_closed_before_its_first_result_begins_nothing() -> None:
    """It is over, as any that was read to its end."""
    subject = runtime()
    stream = subject.map(slow_double, range(3))
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert subject.stats.started == 0


async def test_a_stream_that_is_forgotten_cancels_its_tasks() -> None:
    """`break` without `async with`: the tasks end when the stream is collected."""
    subject = runtime(3)

    async def function(number: int) -> int:
        if number:
            await forever()
        return number

    async for _ in subject.map(function, range(3)):
        break
    gc.collect()
    await turns(5)
    assert not subject._active_tasks
    assert subject.stats.cancelled == 2


async def test_a_cancelled_reader_takes_the_run_with_it() -> None:
    """`CancelledError` reaches the reader after the tasks have ended."""
    subject = runtime(2)
    cleaned: list[int] = []

    async def function(number: int) -> None:
        try:
            await forever()
        finally:
            cleaned.append(number)

    async def read() -> None:
        async for _ in subject.map(function, range(5)):
            pass

    reader = asyncio.create_task(read())
    await turns()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert sorted(cleaned) == [0, 1]


async def test_several_readers_share_a_stream_and_all_come_to_its_end() -> None:
    """Each result goes to one of them."""
    stream = runtime(3).map(slow_double, range(10))

    async def read() -> list[int]:
        return [result async for result in stream]

    readers = asyncio.gather(*(read() for _ in range(3)))
    results = await asyncio.wait_for(readers, 30)
    assert sorted(chain.from_iterable(results)) == list(range(0, 20, 2))


async def test_a_stream_whose_reader_was_cancelled_does_not_seem_to_be_at_its_end() -> None:
    """As when one result is waited for with a timeout, and then the next one."""
    stream = runtime(2).map(lambda _: forever(), range(5))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(stream), 0.01)
    with pytest.raises(RuntimeCancellationError, match="bound a whole loop in time"):
        await anext(stream)


@pytest.mark.parametrize("way", ["map", "as_completed"])
async def test_a_task_that_raises_stop_async_iteration_does_not_end_the_stream(way: str) -> None:
    """As an `anext` without a default does; the results of the others would be missed."""

    async def function(number: int) -> int:
        if number == 1:
            raise StopAsyncIteration
        return number

    tasks = [(str(number), partial(function, number)) for number in range(3)]
    subject = runtime(1)
    stream: Any = subject.map(function, range(3)) if way == "map" else subject.as_completed(tasks)
    await anext(stream)
    with pytest.raises(RuntimeError, match="StopAsyncIteration") as caught:
        await anext(stream)
    assert isinstance(caught.value.__cause__, StopAsyncIteration)


async def test_cancel_ends_a_stream_with_an_error() -> None:
    """Results that were there are handed out, then `RuntimeCancellationError` is raised."""
    subject = runtime(2)

    async def function(number: int) -> int:
        if number:
            await forever()
        return number

    seen = []
    with pytest.raises(RuntimeCancellationError):
        async for result in subject.map(function, range(3)):
            seen.append(result)
            subject.cancel()
    assert seen == [0]
    with pytest.raises(RuntimeCancellationError):
        async for _ in subject.map(function, range(3)):
            pass


async def test_a_drained_stream_ends_with_an_error_after_its_results() -> None:
    """What had begun is handed out; that something is missing is not passed over."""
    subject = runtime(2)
    seen = []
    with pytest.raises(RuntimeCancellationError, match="drained"):
        async for result in subject.map(slow_double, range(50)):
            seen.append(result)
            subject.stop()
    assert seen == [n * 2 for n in range(len(seen))]
    assert 0 < len(seen) < 10


async def test_a_negative_lead_is_refused() -> None:
    """`ahead` says what it must be."""
    with pytest.raises(ValueError, match="ahead=-1"):
        runtime(1).map(slow_double, [1], ahead=-1)


async def test_an_unread_stream_takes_nothing() -> None:
    """A stream begins with the first result that is asked for."""
    source = iter([1, 2])
    stream = runtime(1).map(slow_double, source)
    await turns()
    await stream.aclose()
    assert list(source) == [1, 2]
