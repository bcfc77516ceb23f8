"""The clock that every package uses, its fast-forward for tests, and timeouts."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.runtime import clock, in_thread
from infra_core.runtime.testing import FastTime, fast_time


def test_monotonic_and_time_are_the_real_ones_outside_of_fast_time() -> None:
    """Without the switch the clock is the operating system's."""
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=5)
    assert clock.time() == pytest.approx(time.time(), abs=5)
    assert clock.utc_now().timestamp() == pytest.approx(time.time(), abs=5)
    assert clock.utc_now().utcoffset() == timedelta(0)


def test_a_real_sleep_waits() -> None:
    """The clock's sleep is a true sleep of the seconds asked for."""
    started = time.monotonic()
    clock.sleep(0.01)
    assert time.monotonic() - started >= 0.01


@pytest.mark.parametrize("seconds", [0, -1, -0.5])
async def test_sleeping_zero_or_less_returns_at_once(seconds: float) -> None:
    """A wait that is over already is no error, in either form."""
    clock.sleep(seconds)
    await clock.sleep_async(seconds)


async def test_an_async_sleep_of_zero_gives_the_loop_a_turn() -> None:
    """Other tasks run while somebody sleeps for nothing, and no more than that."""
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "other")
    await clock.sleep_async(0)
    assert seen == ["other"]
    with fast_time():
        sleeper = asyncio.ensure_future(clock.sleep_async(0))
        for _ in range(2):
            await asyncio.sleep(0)
        assert sleeper.done()


@settings(deadline=None)
@given(upper=st.floats(min_value=0, max_value=1e6))
def test_jitter_stays_within_its_bound(upper: float) -> None:
    """A jittered wait is never longer than its ceiling nor negative."""
    assert 0 <= clock.jitter(upper) <= upper


def test_fast_time_returns_at_once_and_records_the_sleeps() -> None:
    """An hour passes in no time, on both clocks, and is listed."""
    real, started, began = time.monotonic(), clock.monotonic(), clock.time()
    with fast_time() as fake:
        clock.sleep(3600)
        assert fake.slept == [3600]
        assert clock.monotonic() - started >= 3600
        assert clock.time() - began >= 3600
    assert time.monotonic() - real < 60


def test_fast_time_gives_the_real_clock_back_after_an_exception() -> None:
    """Whatever ends the block, the switch is thrown back."""
    with pytest.raises(ZeroDivisionError), fast_time():
        clock.sleep(10**9)
        raise ZeroDivisionError
    assert clock.monotonic() == pytest.approx(time.monotonic(), abs=5)


def test_nested_fast_times_count_for_themselves() -> None:
    """The inner block's clock is in force until its end, then the outer one's again."""
    with fast_time() as outer:
        clock.sleep(1)
        with fast_time() as inner:
            clock.sleep(2)
        clock.sleep(3)
    assert (outer.slept, inner.slept) == ([1, 3], [2])


def test_blocks_of_two_threads_may_end_in_any_order() -> None:
    """When the block that began first ends first, the other one stays in force."""
    began, end = threading.Event(), threading.Event()
    slept: list[float] = []

    def other() -> None:
        with fast_time() as fake:
            began.set()
            end.wait(30)
            clock.sleep(7)
            slept.extend(fake.slept)

    thread = threading.Thread(target=other)
    with fast_time():
        thread.start()
        began.wait(30)
    end.set()
    thread.join()
    assert slept == [7]
    assert clock._replace(None) is None


def test_a_fixed_jitter_makes_randomness_reproducible() -> None:
    """Each draw is the same fraction of its bound."""
    with fast_time(jitter=0.25):
        assert [clock.jitter(4), clock.jitter(8)] == [1, 2]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_jitter_that_is_no_fraction_is_refused(fraction: float) -> None:
    """The message says what to pass instead."""
    with pytest.raises(ValueError, match=r"0\.0 .* to 1\.0"):
        FastTime(jitter=fraction)


def test_advance_lets_time_pass_and_never_goes_back() -> None:
    """Tests can move the clock on by hand, forwards only."""
    with fast_time() as fake:
        before, date = clock.monotonic(), clock.utc_now()
        fake.advance(5)
        assert clock.monotonic() - before == pytest.approx(5)
        assert (clock.utc_now() - date).total_seconds() == pytest.approx(5)
        with pytest.raises(ValueError, match="never goes back"):
            fake.advance(-1)


async def test_async_sleepers_wake_in_the_order_of_their_times() -> None:
    """Overlapping sleeps are ordered as in real life and do not add up."""
    woken: list[tuple[float, float]] = []
    with fast_time():
        started = clock.monotonic()

        async def sleeper(seconds: float) -> None:
            await clock.sleep_async(seconds)
            woken.append((seconds, round(clock.monotonic() - started, 3)))

        await asyncio.gather(*(sleeper(seconds) for seconds in (30, 10, 20, 10)))
    assert woken == [(10, 10), (10, 10), (20, 20), (30, 30)]


async def test_a_task_that_sleeps_again_is_put_in_its_place() -> None:
    """One that ticks every second ticks ten times before ten seconds are over."""
    ticks = 0
    with fast_time():

        async def ticker() -> None:
            nonlocal ticks
            while True:
                await clock.sleep_async(1)
                ticks += 1

        task = asyncio.ensure_future(ticker())
        await asyncio.sleep(0)
        await clock.sleep_async(10.5)
        task.cancel()
        await asyncio.wait([task])
    assert ticks == 10


async def test_no_time_passes_while_a_thread_is_at_work() -> None:
    """As in real life, a long wait does not end before a short look at a file."""
    gate = threading.Event()
    with fast_time():
        work = asyncio.ensure_future(in_thread(gate.wait))
        await asyncio.sleep(0)
        sleeper = asyncio.ensure_future(clock.sleep_async(3600))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not sleeper.done()
        gate.set()
        await work
        await sleeper


async def test_a_cancelled_sleep_lets_no_time_pass() -> None:
    """A task that is cancelled while asleep does not drag the clock along."""
    with fast_time():
        started = clock.monotonic()
        task = asyncio.ensure_future(clock.sleep_async(1000))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await clock.sleep_async(1)
        assert clock.monotonic() - started == pytest.approx(1)


def test_fast_time_serves_several_event_loops() -> None:
    """Each loop has its own sleepers on the one clock."""
    with fast_time() as fake:
        for _ in range(3):
            asyncio.run(clock.sleep_async(5))
    assert fake.slept == [5, 5, 5]


async def test_timeout_raises_the_builtin_timeout_error_and_says_it_expired() -> None:
    """Also on 3.10, where asyncio has a TimeoutError of its own."""
    with pytest.raises(TimeoutError):
        async with clock.timeout(0.001) as scope:
            await asyncio.Event().wait()
    assert scope.expired()


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_timeout_of_zero_or_less_cuts_at_the_first_suspension(seconds: float) -> None:
    """A deadline that is past leaves no time to wait."""
    with pytest.raises(TimeoutError):
        async with clock.timeout(seconds):
            await asyncio.Event().wait()


@pytest.mark.parametrize("seconds", [None, 60])
async def test_a_timeout_that_does_not_expire_leaves_no_trace(seconds: float | None) -> None:
    """Results come through, and nothing is pending afterwards."""
    async with clock.timeout(seconds) as scope:
        await asyncio.sleep(0)
    assert not scope.expired()
    await asyncio.sleep(0)


async def test_a_timeout_error_of_the_body_is_not_taken_for_the_timeout() -> None:
    """What the body itself raises comes through, and the scope has not expired."""
    mine = TimeoutError("the database")
    with pytest.raises(TimeoutError) as caught:
        async with clock.timeout(60) as scope:
            raise mine
    assert caught.value is mine
    assert not scope.expired()


async def test_other_errors_during_the_cleanup_come_through() -> None:
    """A body that fails while it is being cut raises its own error."""
    with pytest.raises(ZeroDivisionError):
        async with clock.timeout(0):
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError


def _cut(task: "asyncio.Task[None]", timeout_first: bool) -> tuple[Callable[[], object], ...]:
    """Return what makes a timeout and an outer cancellation fall into one turn of the loop."""
    loop = asyncio.get_running_loop()

    def cancel() -> object:
        return task.cancel()

    def expire() -> object:
        due = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        assert len(due) == 1
        return due[0]._run()

    return (expire, cancel) if timeout_first else (cancel, expire)


@pytest.mark.parametrize("timeout_first", [True, False])
@pytest.mark.parametrize("already_waking", [True, False])
async def test_an_outer_cancellation_wins_over_a_timeout_of_the_same_turn(
    timeout_first: bool, already_waking: bool
) -> None:
    """In either order, on every version, the task ends cancelled."""
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def body() -> None:
        async with clock.timeout(1000):
            await woken
            await asyncio.Event().wait()

    task = asyncio.ensure_future(body())
    await asyncio.sleep(0)
    if already_waking:
        woken.set_result(None)
    for strike in _cut(task, timeout_first):
        strike()
    await asyncio.wait([task], timeout=30)
    assert task.cancelled()


@pytest.mark.parametrize("in_child", [False, True])
async def test_a_timeout_during_the_cleanup_of_a_cancellation_does_not_hide_it(
    in_child: bool,
) -> None:
    """Cancelled first and timed out while cleaning up is cancelled."""
    struck = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            struck.set()
            await asyncio.Event().wait()

    async def body() -> None:
        async with clock.timeout(1000):
            await (asyncio.ensure_future(work()) if in_child else work())

    task = asyncio.ensure_future(body())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await struck.wait()
    _cut(task, timeout_first=True)[0]()
    await asyncio.wait([task], timeout=30)
    assert task.cancelled()


async def test_an_enclosing_timeout_is_not_hidden_by_one_within() -> None:
    """The enclosing one struck first; the inner one cuts only its clean-up."""
    with pytest.raises(TimeoutError):
        async with clock.timeout(0) as outer, clock.timeout(0.01) as inner:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.Event().wait()
    assert outer.expired()
    assert inner.expired()


@pytest.mark.parametrize("seconds", [0.01, 0])
async def test_a_timeout_cuts_the_fallback_of_one_within_that_is_over(seconds: float) -> None:
    """Handling an inner timeout is ordinary work, which the enclosing one bounds."""
    with pytest.raises(TimeoutError):
        async with clock.timeout(seconds) as outer:
            try:
                async with clock.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                await asyncio.Event().wait()
    assert outer.expired()


async def test_an_outer_cancellation_propagates_through_a_timeout() -> None:
    """A cancel long before the time is up is a cancel."""

    async def body() -> None:
        async with clock.timeout(1000):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(body())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("outer_is_shorter", [True, False])
async def test_nested_timeouts_each_expire_for_themselves(outer_is_shorter: bool) -> None:
    """The one whose time is up raises; the other one has not expired."""
    outer_time, inner_time = (0.001, 60) if outer_is_shorter else (60, 0.001)
    with pytest.raises(TimeoutError):
        async with clock.timeout(outer_time) as outer, clock.timeout(inner_time) as inner:
            await asyncio.Event().wait()
    assert (outer.expired(), inner.expired()) == (outer_is_shorter, not outer_is_shorter)


async def test_a_body_that_replaces_the_cancellation_still_times_out() -> None:
    """Code such as asyncio.Condition raises a CancelledError of its own; that changes nothing."""
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise asyncio.CancelledError from None


async def test_a_timeout_can_be_moved() -> None:
    """Sooner, later or off, in the loop's time, while the block lasts."""
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with clock.timeout(None) as scope:
            assert scope.when() is None
            scope.reschedule(loop.time() + 1000)
            assert (scope.when() or 0) > loop.time() + 900
            scope.reschedule(loop.time())
            await asyncio.Event().wait()
    assert scope.expired()
    async with clock.timeout(0) as scope:
        scope.reschedule(None)
        for _ in range(3):
            await asyncio.sleep(0)
    assert not scope.expired()
    with pytest.raises(RuntimeError):
        scope.reschedule(1.0)


async def test_a_task_can_go_on_after_a_timeout() -> None:
    """Nothing of the cancellation is left in the task."""
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            await asyncio.Event().wait()
    await asyncio.sleep(0)
    async with clock.timeout(30):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["by", "via"])
async def test_what_anyio_closes_by_force_hides_no_timeout(how: str) -> None:
    """It cancels the task within, as below httpx, and takes that back; 3.10 goes by its text."""
    with pytest.raises(TimeoutError):
        async with clock.timeout(0):
            try:
                await asyncio.Event().wait()
            finally:
                task: Any = asyncio.current_task()
                task.cancel(f"Cancelled {how} cancel scope 7f")
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
                getattr(task, "uncancel", int)()


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="the backport serves 3.10 only")
async def test_the_backport_of_the_timeout_needs_a_task() -> None:
    """Outside of a task the error says what to do."""
    scope = clock.timeout(1)
    done = asyncio.get_running_loop().create_future()

    def outside() -> None:
        try:
            scope.__aenter__().send(None)
        except RuntimeError as error:
            done.set_result(str(error))

    asyncio.get_running_loop().call_soon(outside)
    assert "asyncio.run()" in await done


def test_fake_sleeps_add_up_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is due with the deadline is so in each form, whatever the clock shows."""
    monkeypatch.setattr("time.monotonic", lambda: 32694.677636578246)  # about to lose a place
    with fast_time():
        began = clock.monotonic()
        for _ in range(12):
            clock.sleep(8)
        assert clock.monotonic() - began == 96
        clock.sleep(0.25)
        assert clock.monotonic() - began == 96.25
