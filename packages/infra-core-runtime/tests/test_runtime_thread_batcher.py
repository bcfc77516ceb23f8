"""ThreadBatcher: items that wait together go to the thread together, and none is lost."""

import asyncio
import gc
import threading
import weakref
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.runtime import ThreadBatcher


class Gate:
    """A function for a batcher that begins only when it may, and keeps account."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.most = self.now = 0
        self.lock = threading.Lock()

    def __call__(self, items: list[int]) -> list[Exception | None]:
        with self.lock:
            self.begun.append(items)
            self.now += 1
            self.most = max(self.most, self.now)
        self.entered.release()
        assert self.may_go.acquire(timeout=30)
        with self.lock:
            self.now -= 1
        return [LookupError(item) if item < 0 else None for item in items]


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.acquire, True, 30)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def opened(gate: Gate) -> Gate:
    gate.may_go.release(10_000)
    return gate


async def test_items_that_wait_together_go_together(orderly_loop: Any, gate: Gate) -> None:
    """One call for all of them, in their order."""
    batcher = ThreadBatcher(opened(gate), size=8)
    await asyncio.gather(*map(batcher, range(8)))
    assert gate.begun == [list(range(8))]


async def test_a_function_that_raises_stop_iteration_does_not_hang(orderly_loop: Any) -> None:
    """No future can hold one."""

    def ends(items: list[int]) -> list[Exception | None]:
        raise StopIteration

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        await ThreadBatcher(ends)(1)


async def test_an_item_alone_does_not_wait_for_others(orderly_loop: Any, gate: Gate) -> None:
    """A batch need not be full."""
    await asyncio.wait_for(ThreadBatcher(opened(gate))(1), 30)
    assert gate.begun == [[1]]


async def test_one_that_lingers_waits_for_a_quarter_of_a_batch(
    orderly_loop: Any, gate: Gate
) -> None:
    """Enough begin at once, however long it would linger; fewer when that time is over."""
    batcher = ThreadBatcher(opened(gate), size=12, workers=1, linger=3600.0)
    few = [asyncio.ensure_future(batcher(item)) for item in range(2)]
    await settled()
    assert not gate.begun
    few[0].cancel()
    await settled()
    await asyncio.gather(*map(batcher, (2, 3)), few[1])
    assert gate.begun == [[1, 2, 3]]
    await ThreadBatcher(gate, size=12, workers=1, linger=0.001)(4)
    assert gate.begun[1:] == [[4]]


async def test_who_lingers_next_has_all_of_the_time(
    orderly_loop: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was complete early leaves no timer behind that would cut the next wait short."""
    now = asyncio.get_running_loop().time()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        batcher = ThreadBatcher(opened(gate), size=8, workers=1, linger=3600.0)
        early = asyncio.ensure_future(batcher(0))
        await settled()
        await asyncio.gather(early, batcher(1))
        now += 3000
        late = asyncio.ensure_future(batcher(2))
        await settled()
        now += 1000
        await settled()
    await asyncio.wait_for(asyncio.gather(late, batcher(3)), 30)
    assert gate.begun == [[0, 1], [2, 3]]


async def test_a_timer_may_be_of_another_class(
    orderly_loop: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of uvloop are: enough begin at once all the same."""
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def call_later(*args: Any, **options: Any) -> Any:
        return SimpleNamespace(cancel=later(*args, **options).cancel)

    monkeypatch.setattr(loop, "call_later", call_later)
    batcher = ThreadBatcher(opened(gate), size=12, workers=1, linger=3600.0)
    await asyncio.wait_for(asyncio.gather(*map(batcher, range(3))), 30)
    assert gate.begun == [[0, 1, 2]]


async def test_none_lingers_for_what_does_not_come(orderly_loop: Any, gate: Gate) -> None:
    """The last ones begin at once, those that waited for company until then as well."""
    coming = iter((True, False))
    batcher = ThreadBatcher(
        opened(gate), size=12, workers=1, linger=3600.0, coming=lambda: next(coming)
    )
    await asyncio.wait_for(asyncio.gather(batcher(1), batcher(2)), 30)
    assert gate.begun == [[1, 2]]


async def test_batches_and_workers_are_bounded(orderly_loop: Any, gate: Gate) -> None:
    """At most `size` items in a batch, at most `workers` batches at once."""
    batcher = ThreadBatcher(gate, size=3, workers=2)
    tasks = [asyncio.ensure_future(batcher(number)) for number in range(20)]
    await entered(gate)
    await entered(gate)
    await settled()
    assert len(gate.begun) == 2
    opened(gate)
    await asyncio.gather(*tasks)
    assert gate.most == 2
    assert all(len(batch) <= 3 for batch in gate.begun)
    assert sorted(chain.from_iterable(gate.begun)) == list(range(20))


async def test_what_comes_while_the_workers_are_busy_makes_the_next_batch(
    orderly_loop: Any, gate: Gate
) -> None:
    """So the busier the disk, the larger the batches."""
    batcher = ThreadBatcher(gate, workers=1)
    first = asyncio.ensure_future(batcher(0))
    await entered(gate)
    others = [asyncio.ensure_future(batcher(number)) for number in (1, 2, 3)]
    await settled()
    opened(gate)
    await asyncio.gather(first, *others)
    assert gate.begun == [[0], [1, 2, 3]]


async def test_what_comes_meanwhile_is_too_little_for_one_that_lingers(
    orderly_loop: Any, gate: Gate
) -> None:
    """A worker that gets free waits for company as well."""
    batcher = ThreadBatcher(gate, size=8, workers=1, linger=3600.0)
    tasks = [asyncio.ensure_future(batcher(item)) for item in range(2)]
    await entered(gate)
    tasks.append(asyncio.ensure_future(batcher(2)))
    await settled()
    gate.may_go.release(10)
    await asyncio.gather(*tasks[:2])
    await settled()
    assert gate.begun == [[0, 1]]
    await asyncio.gather(batcher(3), tasks[2])
    assert gate.begun == [[0, 1], [2, 3]]


async def test_each_await_raises_its_own_error(orderly_loop: Any, gate: Gate) -> None:
    """One item's error is no matter of the others in its batch."""
    batcher = ThreadBatcher(opened(gate))
    results = await asyncio.gather(*map(batcher, [1, -2, 3, -4]), return_exceptions=True)
    assert [repr(result) for result in results] == [
        "None", "LookupError(-2)", "None", "LookupError(-4)",
    ]  # fmt: skip


async def test_what_the_function_raises_all_of_the_batch_raise(orderly_loop: Any) -> None:
    """And the batcher goes on with the next batch."""
    calls: list[list[int]] = []

    def function(items: list[int]) -> list[None]:
        calls.append(items)
        if len(calls) == 1:
            raise OSError("disk gone")
        return [None] * len(items)

    batcher = ThreadBatcher(function)
    results = await asyncio.gather(batcher(1), batcher(2), return_exceptions=True)
    assert [str(result) for result in results] == ["disk gone", "disk gone"]
    await batcher(3)
    assert calls == [[1, 2], [3]]


async def test_a_function_that_miscounts_is_an_error(orderly_loop: Any) -> None:
    """A missing entry must not pass for a success."""
    batcher: ThreadBatcher[int] = ThreadBatcher(lambda items: [])
    with pytest.raises(ValueError, match=r"returned \[\] for 1 item\(s\): return a list"):
        await batcher(1)


async def test_cancelled_before_it_is_begun_the_item_is_taken_back(
    orderly_loop: Any, gate: Gate
) -> None:
    """At once, and the function never sees it."""
    batcher = ThreadBatcher(gate, workers=1)
    first = asyncio.ensure_future(batcher(0))
    await entered(gate)
    second, third = (asyncio.ensure_future(batcher(number)) for number in (1, 2))
    await settled()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    opened(gate)
    await asyncio.gather(first, third)
    assert gate.begun == [[0], [2]]


@pytest.mark.parametrize("item", [1, -1], ids=["done", "failed"])
async def test_cancelled_in_the_thread_it_waits_for_the_thread(
    orderly_loop: Any, gate: Gate, item: int
) -> None:
    """However often it is cancelled: what the thread uses may be freed after the await."""
    batcher = ThreadBatcher(gate)
    task = asyncio.ensure_future(batcher(item))
    await entered(gate)
    for _ in range(3):
        task.cancel()
        await settled()
        assert not task.done()
    opened(gate)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_when_the_thread_is_done_it_is_cancelled(
    orderly_loop: Any, gate: Gate
) -> None:
    """A cancellation in the very last moment counts, and nothing is complained about."""
    batcher = ThreadBatcher(gate)
    task = asyncio.ensure_future(batcher(-1))
    await entered(gate)
    opened(gate)
    lane = next(iter(batcher._lanes.values()))
    while lane._running:  # noqa: ASYNC110 - between this and the task's turn there is no event
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_loop_that_ends_waits_for_what_was_begun(gate: Gate) -> None:
    """asyncio.run cancels everything; the item in the thread is still brought to its end."""

    async def main() -> None:
        batcher = ThreadBatcher(gate, size=1, workers=1)
        main.tasks = [asyncio.ensure_future(batcher(n)) for n in (1, 2)]  # type: ignore[attr-defined]
        await entered(gate)
        threading.Timer(0.01, opened, [gate]).start()

    asyncio.run(main())
    assert gate.begun == [[1]]
    assert gate.now == 0


def test_one_batcher_serves_several_loops(gate: Gate) -> None:
    """Batches never mix loops, and a loop is not kept alive."""
    batcher = ThreadBatcher(opened(gate))

    async def main(first: int) -> "weakref.ref[asyncio.AbstractEventLoop]":
        await asyncio.gather(batcher(first), batcher(first + 1))
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(main(first)) for first in (0, 10)]
    assert gate.begun == [[0, 1], [10, 11]]
    for _ in range(3000):  # a thread that has just given its result may still be on its way out
        gc.collect()
        if [loop() for loop in loops] == [None, None]:
            break
        threading.Event().wait(0.01)
    assert [loop() for loop in loops] == [None, None]


async def test_the_loops_executor_may_be_shut_down(gate: Gate) -> None:
    """Batches have threads of their own."""
    await asyncio.get_running_loop().shutdown_default_executor()
    await ThreadBatcher(opened(gate))(1)
    assert gate.begun == [[1]]


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"workers": 0}, {"linger": -0.5}, {"linger": float("inf")}]
)
def test_bounds_that_would_wait_for_ever_are_refused(options: dict[str, Any], gate: Gate) -> None:
    """The error names the argument, its value and what to pass."""
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{name}={value!r}: pass [01] or more"):
        ThreadBatcher(gate, **options)


@settings(deadline=None, max_examples=40)
@given(
    items=st.lists(st.tuples(st.integers(-3, 50), st.booleans()), max_size=25),
    size=st.integers(1, 6),
    workers=st.integers(1, 3),
    linger=st.sampled_from([0.0, 0.001]),
)
def test_every_item_ends_as_it_should(
    items: list[tuple[int, bool]], size: int, workers: int, linger: float
) -> None:
    """Whatever is cancelled when: each item at most once, errors to their owners, no hang."""
    gate = opened(Gate())

    async def main() -> None:
        batcher = ThreadBatcher(gate, size=size, workers=workers, linger=linger)
        tasks = []
        for number, cancel in items:
            task = asyncio.ensure_future(batcher(number))
            tasks.append(task)
            if cancel:
                asyncio.get_running_loop().call_soon(task.cancel)
            if number % 3 == 0:
                await asyncio.sleep(0)
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        for (number, cancel), result in zip(items, results, strict=True):
            allowed = {repr(LookupError(number) if number < 0 else None)}
            if cancel:
                allowed.add("CancelledError()")
            name = "CancelledError()"
            assert (name if isinstance(result, asyncio.CancelledError) else repr(result)) in allowed

    asyncio.run(main())
    seen = sorted(chain.from_iterable(gate.begun))
    given_numbers = sorted(number for number, _ in items)
    assert all(seen.count(number) <= given_numbers.count(number) for number in seen)
    assert all(number in seen for number, cancel in items if not cancel)
