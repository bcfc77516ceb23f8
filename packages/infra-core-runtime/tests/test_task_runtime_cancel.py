"""How runs of a `TaskRuntime` are cancelled, and what stays behind: nothing."""

import asyncio
import gc
import logging
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import partial
from itertools import chain, repeat
from typing import Any

import pytest

from infra_core.runtime import (
    RuntimeCancellationError,
    RuntimeConfig,
    RuntimeDrainedError,
    TaskOutcome,
    TaskRuntime,
    TaskStream,
    TaskTimeoutError,
    timeout,
)

Task = tuple[str, Callable[[], Awaitable[Any]]]
orderly = pytest.mark.usefixtures("orderly_loop")


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


class Stubborn:
    """A task that suppresses cancellation until it is let go."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.begun = asyncio.Event()
        self.leave = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self) -> str:
        self.begun.set()
        while not self.leave.is_set():
            try:
                await self.leave.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        self.gone.set()
        return "at last"

    async def let_go(self) -> None:
        self.leave.set()
        await self.gone.wait()
        await turns()


@pytest.fixture
async def stubborn(orderly_loop: object) -> AsyncIterator[Stubborn]:
    """Let go however the test ends: the end of the loop would wait for it for ever."""
    subject = Stubborn()
    yield subject
    subject.leave.set()


@orderly
async def test_cancel_ends_all_runs_after_their_cleanup() -> None:
    """One `cancel()` sweeps overlapping runs; each raises when its tasks have cleaned up."""
    subject = runtime(2)
    cleaned: list[str] = []

    async def task(name: str) -> None:
        try:
            await forever()
        finally:
            await turns(5)
            cleaned.append(name)

    names = ["a", "b", "c", "d"]
    runs = [
        asyncio.create_task(subject.run([(n, partial(task, n)) for n in part]))
        for part in (names[:2], names[2:])
    ]
    await turns()
    for _ in range(2):
        subject.cancel()
    for run in runs:
        with pytest.raises(RuntimeCancellationError, match="runtime cancelled"):
            await run
    assert sorted(cleaned) == names
    assert subject.cancelled
    assert not subject._active_tasks


@orderly
async def test_a_cancel_before_the_start_is_not_lost() -> None:
    """A runtime that was cancelled refuses every later run, and takes nothing."""
    subject = runtime()
    subject.cancel()
    source = iter([("a", succeed)])
    for _ in range(2):
        with pytest.raises(RuntimeCancellationError, match="make another TaskRuntime"):
            await subject.run(source)
    assert len(list(source)) == 1


@orderly
async def test_a_cancelled_runtime_accepts_a_run_of_nothing() -> None:
    """There is nothing to refuse in an empty list."""
    subject = runtime()
    subject.cancel()
    await subject.run([])


@orderly
async def test_a_cancel_before_the_first_step_of_a_task_means_it_never_runs() -> None:
    """Tasks that were taken but have not begun are counted as cancelled, not called."""
    subject = runtime(2)
    outcomes: list[TaskOutcome[Any]] = []
    called: list[int] = []

    async def task() -> None:
        called.append(1)

    def source() -> Iterator[Task]:
        asyncio.get_running_loop().call_soon(subject.cancel)  # before their first steps
        yield "a", task
        yield "b", task

    with pytest.raises(RuntimeCancellationError):
        await subject.run(source(), on_outcome=outcomes.append)
    assert called == []
    assert [(outcome.id, outcome.attempts) for outcome in outcomes] == [("a", 0), ("b", 0)]


@orderly
async def test_a_cancel_event_cancels_promptly() -> None:
    """Setting the event ends the run in a few turns of the loop."""
    event = asyncio.Event()
    subject = TaskRuntime(config=RuntimeConfig(concurrency=2), cancel_event=event)
    run = asyncio.create_task(subject.run([("a", forever), ("b", forever)]))
    await turns()
    event.set()
    await turns(6)
    assert run.done()
    with pytest.raises(RuntimeCancellationError):
        await run


@orderly
async def test_a_cancel_event_that_is_cleared_at_once_cancels_nevertheless() -> None:
    """What is waited for is that somebody sets it."""
    event = asyncio.Event()
    subject = TaskRuntime(config=RuntimeConfig(), cancel_event=event)
    run = asyncio.create_task(subject.run([("a", forever)]))
    await turns(5)
    event.set()
    event.clear()
    with pytest.raises(RuntimeCancellationError):
        await asyncio.wait_for(run, 30)


@orderly
async def test_a_cancel_event_that_is_set_already_refuses_the_run() -> None:
    """The event is looked at before anything is taken, and the cancel is not forgotten."""
    event = asyncio.Event()
    event.set()
    subject = TaskRuntime(config=RuntimeConfig(), cancel_event=event)
    source = iter([("a", succeed)])
    with pytest.raises(RuntimeCancellationError):
        await subject.run(source)
    event.clear()
    with pytest.raises(RuntimeCancellationError):
        await subject.run(source)
    assert len(list(source)) == 1


@orderly
async def test_a_threading_event_cancels_as_well() -> None:
    """An event of another kind is looked at regularly."""
    event = threading.Event()
    subject = TaskRuntime(config=RuntimeConfig(), cancel_event=event)
    run = asyncio.create_task(subject.run([("a", forever)]))
    await turns()
    event.set()
    with pytest.raises(RuntimeCancellationError):
        await run


@orderly
async def test_a_cancel_racing_with_completion_drops_no_success_and_takes_nothing() -> None:
    """What was done when the cancel came counts as done; the next item stays in the source."""
    subject = runtime(1)
    outcomes: list[TaskOutcome[str]] = []

    async def task() -> str:
        subject.cancel()  # we are done in this very moment
        return "done"

    source = iter([("a", task), ("b", task)])
    with pytest.raises(RuntimeCancellationError):
        await subject.run(source, on_outcome=outcomes.append)
    assert [(outcome.id, outcome.status, outcome.value) for outcome in outcomes] == [
        ("a", "succeeded", "done")
    ]
    assert [name for name, _ in source] == ["b"]


@orderly
async def test_a_cancel_after_the_last_task_ended_leaves_the_run_a_success() -> None:
    """Between the last completion and the caller's next step a cancel comes too late."""
    subject = runtime(1)
    released = asyncio.Event()

    async def last() -> None:
        await released.wait()

    run = asyncio.create_task(subject.run([("a", last)]))
    await turns()
    released.set()
    while subject.stats.in_flight:  # noqa: ASYNC110 - turn by turn, to hit the very moment
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    subject.cancel()
    await run
    assert subject.stats.succeeded == 1


@orderly
async def test_cancellation_from_outside_propagates_after_the_tasks_have_ended() -> None:
    """Cancelling the caller of `run` raises `CancelledError` there, cleanup awaited."""
    cleaned: list[int] = []

    async def task() -> None:
        try:
            await forever()
        finally:
            await turns(4)
            cleaned.append(1)

    subject = runtime(3)
    run = asyncio.create_task(subject.run([(str(n), task) for n in range(3)]))
    await turns()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert cleaned == [1, 1, 1]
    assert subject.stats.cancelled == 3
    assert not subject.cancelled  # the runtime itself was not
    await subject.run([("again", succeed)])


@orderly
async def test_the_error_of_a_run_that_is_cancelled_while_it_ends_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller gets its cancellation, and the log what would be lost by that."""
    cleaning, release = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        raise ValueError("the disk is full")

    async def slow() -> None:
        try:
            await forever()
        finally:
            cleaning.set()
            await release.wait()

    run = asyncio.ensure_future(runtime(2).run([("slow", slow), ("fail", fail)]))
    await cleaning.wait()
    run.cancel()
    await turns()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    (record,) = [r for r in caplog.records if "cancelled while it failed" in r.getMessage()]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the disk is full"


@orderly
async def test_a_timeout_around_a_run_is_not_taken_for_a_cancel() -> None:
    """`asyncio.timeout` around `run` raises its own `TimeoutError`, tasks cancelled before."""
    subject = runtime(1, task_timeout=10.0)
    with pytest.raises(TimeoutError) as caught:
        async with timeout(0.01):
            await subject.run([("a", forever)])
    assert not isinstance(caught.value, TaskTimeoutError)
    assert subject.stats.cancelled == 1
    assert subject.stats.timed_out == 0


@orderly
@pytest.mark.parametrize("way", ["run", "map", "aclose"])
async def test_a_further_cancellation_from_outside_leaves_no_task_unattended(way: str) -> None:
    """A scope of anyio cancels at each turn of the loop; cleanup is awaited all the same."""
    subject = runtime(1)
    cleaned = False

    async def task(_: object = None) -> None:
        nonlocal cleaned
        try:
            await forever()
        finally:
            await turns(9)
            cleaned = True

    async def read(stream: TaskStream[None]) -> None:
        async for _ in stream:
            raise AssertionError

    async def caller() -> None:
        if way == "run":
            await subject.run([("a", task)])
        elif way == "map":
            await read(subject.map(task, [1]))
        async with subject.map(task, [1]) as stream:
            asyncio.ensure_future(read(stream))  # noqa: RUF006 - ends with the stream
            await turns()

    call = asyncio.create_task(caller())
    await turns(5)
    for _ in range(4):
        call.cancel()
        await turns(2)
    assert not call.done()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert cleaned


@orderly
async def test_a_task_that_suppresses_cancellation_is_reported_and_left_behind(
    caplog: pytest.LogCaptureFixture, stubborn: Stubborn
) -> None:
    """After the grace `run` raises; the id is on the error, in the statistics and in the log."""
    subject = runtime(2, cancel_grace=0.01)
    ends: list[str] = []
    run = asyncio.create_task(
        subject.run([("mule", stubborn), ("b", forever)], on_outcome=lambda o: ends.append(o.id))
    )
    await stubborn.begun.wait()
    subject.cancel()
    with (
        caplog.at_level(logging.ERROR, logger="infra_core.task_runtime"),
        pytest.raises(RuntimeCancellationError, match="mule") as caught,
    ):
        await run
    assert caught.value.unresponsive == ("mule",)
    assert subject.stats.unresponsive == ("mule",)
    assert [r.__dict__["task_id"] for r in caplog.records] == ["mule"]
    assert len(subject._active_tasks) == 1
    await stubborn.let_go()
    assert stubborn.cancelled == 2  # once, and once more at the end of the grace
    assert sorted(ends) == ["b", "mule"]  # what it does after that is of no interest
    assert not subject._active_tasks


@orderly
async def test_a_late_task_that_suppresses_cancellation_does_not_hold_up_the_run(
    stubborn: Stubborn,
) -> None:
    """After timeout and grace its slot goes to the next task; it counts as timed out."""
    subject = runtime(1, task_timeout=0.01, cancel_grace=0.01)
    late: list[str] = []
    ran: list[int] = []

    async def task() -> None:
        ran.append(1)

    await subject.run([("mule", stubborn), ("b", task)], on_timeout=late.append)
    assert late == ["mule"]
    assert ran == [1]
    assert subject.stats.unresponsive == ("mule",)
    assert (subject.stats.timed_out, subject.stats.succeeded) == (1, 1)
    await stubborn.let_go()
    assert (subject.stats.timed_out, subject.stats.succeeded) == (1, 1)  # counted once


@orderly
async def test_a_late_task_that_suppresses_cancellation_raises_without_callback(
    stubborn: Stubborn,
) -> None:
    """Without `on_timeout` the error says that the task was left behind."""
    with pytest.raises(TaskTimeoutError, match="ignores cancellation") as caught:
        await runtime(1, task_timeout=0.01, cancel_grace=0.01).run([("mule", stubborn)])
    assert caught.value.unresponsive
    await stubborn.let_go()


@orderly
async def test_a_sibling_that_suppresses_cancellation_does_not_hide_the_error(
    stubborn: Stubborn,
) -> None:
    """The first error is raised after the grace, whatever a sibling does."""

    async def failing() -> None:
        await stubborn.begun.wait()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken") as caught:
        await runtime(2, cancel_grace=0.01).run([("mule", stubborn), ("b", failing)])
    if hasattr(caught.value, "add_note"):  # Python 3.11
        assert "mule" in str(getattr(caught.value, "__notes__", ""))
    await stubborn.let_go()


@orderly
async def test_a_cleanup_under_way_is_not_interrupted_by_a_further_cancel() -> None:
    """A task that was cancelled by its timeout is not cancelled again by `cancel()`."""
    interrupted: list[int] = []
    cleaning = asyncio.Event()
    go_on = asyncio.Event()

    async def task() -> None:
        try:
            await forever()
        finally:
            cleaning.set()
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                interrupted.append(1)
                raise

    subject = runtime(1, task_timeout=0.01)
    run = asyncio.create_task(subject.run([("a", task)], on_timeout=lambda _: None))
    await cleaning.wait()
    subject.cancel()
    await turns()
    go_on.set()
    with pytest.raises(RuntimeCancellationError):
        await run
    assert interrupted == []


@orderly
async def test_a_callback_under_way_is_finished_within_the_grace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`cancel()` cancels tasks; a callback gets to its end, also in the last moment."""
    loop: Any = asyncio.get_running_loop()
    reporting = asyncio.Event()
    go_on = asyncio.Event()
    reported: list[str] = []

    async def on_error(name: str, _: Exception) -> None:
        reporting.set()
        await go_on.wait()
        reported.append(name)

    async def failing() -> None:
        raise ValueError

    subject = runtime(1)
    run = asyncio.create_task(subject.run([("a", failing)], on_error=on_error))
    await reporting.wait()
    subject.cancel()
    await turns()
    go_on.set()
    for timer in list(loop._scheduled):  # the grace is over in the very turn in which it ends
        loop.call_soon(lambda timer=timer: timer.cancelled() or timer._run())
    with pytest.raises(RuntimeCancellationError):
        await run
    assert reported == ["a"]
    assert caplog.messages == ["Unexpected error processing a"]


@orderly
async def test_a_callback_that_hangs_is_cancelled_after_the_grace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It cannot hold up the end of a cancelled run for ever, and the log names its task."""
    reporting = asyncio.Event()

    async def on_error(name: str, _: Exception) -> None:
        reporting.set()
        await forever()

    async def failing() -> None:
        raise ValueError

    subject = runtime(1, cancel_grace=0.01)
    run = asyncio.create_task(subject.run([("a", failing)], on_error=on_error))
    await reporting.wait()
    subject.cancel()
    with pytest.raises(RuntimeCancellationError):
        await run
    await turns()
    (record,) = [r for r in caplog.records if "a callback for task" in r.getMessage()]
    assert record.__dict__["task_id"] == "a"
    assert (subject.stats.failed, subject.stats.done) == (1, 1)  # the task had ended by itself


@orderly
async def test_a_task_cancelled_by_something_else_is_an_error_that_says_so() -> None:
    """A task that awaits something cancelled neither vanishes nor cancels the caller."""
    inner = asyncio.ensure_future(forever())
    inner.cancel()

    async def task() -> None:
        await inner

    with pytest.raises(RuntimeCancellationError, match="'a' was cancelled, though not by") as error:
        await runtime(1).run([("a", task)])
    assert isinstance(error.value.__cause__, asyncio.CancelledError)


@orderly
async def test_a_task_cancelled_by_something_else_before_its_first_step_is_no_less() -> None:
    """It ends as cancelled, and so does the run, unless each outcome is looked at."""

    def source() -> Iterator[Task]:
        yield "a", forever
        for task in asyncio.all_tasks():
            if task.get_name() == "a":
                task.cancel()
        yield "b", succeed

    with pytest.raises(RuntimeCancellationError, match="'a' was cancelled, though not by"):
        await runtime(2).run(source())
    outcomes = [o async for o in runtime(2).as_completed(source(), outcomes=True)]
    ended = {outcome.id: (outcome.ok, outcome.attempts) for outcome in outcomes}
    assert ended == {"a": (False, 0), "b": (True, 1)}


@orderly
async def test_a_task_cancelled_by_something_else_before_its_first_step_is_reported() -> None:
    """Every callback hears of it, as of one that was cancelled later, and the run goes on."""
    reported: list[tuple[str, str, type[Any]]] = []

    def source() -> Iterator[Task]:
        yield "a", forever
        for task in asyncio.all_tasks():
            if task.get_name() == "a":
                task.cancel()
        yield "b", succeed

    def note(outcome: TaskOutcome[Any]) -> None:
        reported.append((outcome.id, str(outcome.status), type(outcome.error)))

    await runtime(2).run(source(), on_outcome=note)
    assert sorted(reported) == [
        ("a", "cancelled", RuntimeCancellationError),
        ("b", "succeeded", type(None)),
    ]
    errors: list[str] = []
    await runtime(2).run(source(), on_error=lambda name, _: errors.append(name))
    assert errors == ["a"]


@orderly
async def test_a_task_cancelled_by_something_else_is_reported_to_on_error() -> None:
    """With `on_error` it is one failure among others, and the run goes on."""
    errors: list[tuple[str, Exception]] = []

    async def task() -> None:
        raise asyncio.CancelledError

    subject = runtime(1)
    await subject.run(
        [("a", task), ("b", succeed)], on_error=lambda name, error: errors.append((name, error))
    )
    assert [(name, type(error)) for name, error in errors] == [("a", RuntimeCancellationError)]
    assert (subject.stats.cancelled, subject.stats.succeeded) == (1, 1)


@orderly
async def test_aclose_waits_for_cleanup() -> None:
    """When `aclose()` returns, tasks of background runs have cleaned up."""
    subject = runtime(1)
    cleaned: list[int] = []

    async def task() -> None:
        try:
            await forever()
        finally:
            await turns(4)
            cleaned.append(1)

    run = asyncio.create_task(subject.run([("a", task)]))
    await turns()
    await subject.aclose()
    assert cleaned == [1]
    with pytest.raises(RuntimeCancellationError):
        await run


@orderly
async def test_the_end_of_the_context_cancels_what_is_under_way(stubborn: Stubborn) -> None:
    """`async with` ends with `aclose()`, within the grace also for stubborn tasks."""
    async with runtime(1, cancel_grace=0.01) as subject:
        run = asyncio.create_task(subject.run([("a", stubborn)]))
        await stubborn.begun.wait()
    with pytest.raises(RuntimeCancellationError):
        await run
    await stubborn.let_go()


@orderly
async def test_cancel_may_come_from_another_thread() -> None:
    """`cancel()` reaches runs in the loop they belong to."""
    subject = runtime(1)
    run = asyncio.create_task(subject.run([("a", forever)]))
    await turns()
    await asyncio.get_running_loop().run_in_executor(None, subject.cancel)
    with pytest.raises(RuntimeCancellationError):
        await run
    await asyncio.get_running_loop().shutdown_default_executor()


@orderly
async def test_cancel_ends_a_run_that_waits_for_its_source() -> None:
    """An asynchronous source that has nothing to give is cancelled as well."""
    closed: list[int] = []

    async def source() -> AsyncIterator[Task]:
        try:
            await forever()
        finally:
            closed.append(1)
        yield "never", succeed

    subject = runtime(1)
    run = asyncio.create_task(subject.run(source()))
    await turns()
    subject.cancel()
    with pytest.raises(RuntimeCancellationError):
        await run
    assert closed == [1]


@orderly
async def test_a_source_that_suppresses_cancellation_is_reported(stubborn: Stubborn) -> None:
    """It is left behind after the grace, under the name `<source>`."""

    async def source() -> AsyncIterator[Task]:
        await stubborn()
        yield "never", succeed

    subject = runtime(1, cancel_grace=0.01)
    run = asyncio.create_task(subject.run(source()))
    await stubborn.begun.wait()
    subject.cancel()
    with pytest.raises(RuntimeCancellationError) as caught:
        await run
    assert caught.value.unresponsive == ("<source>",)
    await stubborn.let_go()


@orderly
async def test_a_source_that_is_cancelled_by_something_else_is_an_error() -> None:
    """A `CancelledError` out of the source does not pass for its end."""

    async def source() -> AsyncIterator[Task]:
        yield "a", succeed
        raise asyncio.CancelledError

    with pytest.raises(RuntimeCancellationError, match="source of tasks was cancelled"):
        await runtime(1).run(source())


@orderly
async def test_drain_finishes_what_has_begun_and_takes_nothing_further() -> None:
    """`drain()` returns when tasks under way are done; the rest stays in the source."""
    gate = asyncio.Event()
    ended: list[str] = []

    async def task(name: str) -> None:
        await gate.wait()
        ended.append(name)

    subject = runtime(2)
    source = iter([(name, partial(task, name)) for name in "abcd"])
    run = asyncio.create_task(subject.run(source))
    await turns()
    drained = asyncio.create_task(subject.drain())
    await turns()
    gate.set()
    await drained
    assert sorted(ended) == ["a", "b"]
    with pytest.raises(RuntimeDrainedError, match="has not been read to its end"):
        await run
    assert [name for name, _ in source] == ["c", "d"]
    await subject.run([("e", succeed)])  # a drained runtime may be used again


@orderly
async def test_a_drain_that_cuts_nothing_off_is_no_error() -> None:
    """A run of a list whose tasks have all begun ends as if nothing had been asked."""
    gate = asyncio.Event()
    subject = runtime(2)
    run = asyncio.create_task(subject.run([("a", gate.wait), ("b", gate.wait)]))
    await turns()
    drained = asyncio.create_task(subject.drain())
    await turns()
    gate.set()
    await drained
    await run


@orderly
async def test_drain_ends_a_run_that_waits_for_its_source() -> None:
    """An asynchronous source with nothing to give does not hold up a drain."""

    async def source() -> AsyncIterator[Task]:
        yield "a", succeed
        await forever()

    subject = runtime(2)
    run = asyncio.create_task(subject.run(source()))
    await turns()
    await subject.drain()
    with pytest.raises(RuntimeDrainedError):
        await run


@orderly
async def test_a_drained_run_names_what_was_left_behind(stubborn: Stubborn) -> None:
    """A task that ran out of time and ignored its cancellation is on the error of the drain too."""
    subject = runtime(1, task_timeout=0.01, cancel_grace=0.01)
    first: Task = "mule", stubborn
    other: Task = "b", succeed
    with pytest.raises(RuntimeDrainedError) as caught:
        await subject.run(chain([first], repeat(other)), on_timeout=lambda task_id: subject.stop())
    assert caught.value.unresponsive == ("mule",)
    await stubborn.let_go()


def test_a_runtime_is_reused_across_event_loops() -> None:
    """The same runtime serves one loop after another, also with a cancel event."""
    subject = TaskRuntime(config=RuntimeConfig(concurrency=2), cancel_event=asyncio.Event())
    ran: list[int] = []

    async def task() -> None:
        await asyncio.sleep(0)
        ran.append(1)

    for _ in range(3):
        asyncio.run(subject.run([("a", task), ("b", task)]))
    assert len(ran) == 6


def test_a_cancel_event_works_in_a_second_loop() -> None:
    """An event that belongs to a former loop still cancels, if not as fast."""
    event = asyncio.Event()
    subject = TaskRuntime(config=RuntimeConfig(), cancel_event=event)

    async def bind() -> None:
        await subject.run([("a", partial(asyncio.sleep, 0))])

    async def cancelled() -> None:
        asyncio.get_running_loop().call_soon(event.set)
        await subject.run([("a", forever)])

    asyncio.run(bind())
    with pytest.raises(RuntimeCancellationError):
        asyncio.run(cancelled())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.usefixtures("only_new_garbage")
def test_keyboard_interrupt_and_system_exit_leave_no_task_behind(
    kind: type[BaseException],
) -> None:
    """They go through the loop as ever; siblings are cancelled and cleaned up on the way out."""
    cleaned: list[int] = []
    complaints: list[dict[str, Any]] = []

    async def sibling() -> None:
        try:
            await forever()
        finally:
            cleaned.append(1)

    async def interrupt() -> None:
        await turns()
        raise kind

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        await subject.run([("a", sibling), ("b", interrupt)])

    subject = runtime(2)
    with pytest.raises(kind):
        asyncio.run(main())
    assert cleaned == [1]
    assert (subject.stats.failed, subject.stats.cancelled, subject.stats.in_flight) == (1, 1, 0)
    gc.collect()
    assert complaints == []


@pytest.mark.usefixtures("only_new_garbage")
def test_the_shutdown_of_a_loop_ends_a_background_run_quietly() -> None:
    """`asyncio.run` cancels what is left; a run among that reports no task as failed."""
    errors: list[str] = []
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        tasks: list[Task] = [(str(n), forever) for n in range(5)]
        background = runtime(3).run(tasks, on_error=lambda name, _: errors.append(name))
        main.task = asyncio.create_task(background)  # type: ignore[attr-defined]
        await turns()

    asyncio.run(main())
    gc.collect()
    assert main.task.cancelled()  # type: ignore[attr-defined]
    assert errors == []
    assert complaints == []


@pytest.mark.usefixtures("only_new_garbage")
def test_an_error_without_a_reader_is_never_unretrieved() -> None:
    """Errors of many siblings at once make no noise at the end of the loop."""
    complaints: list[dict[str, Any]] = []

    async def failing(gate: asyncio.Event) -> None:
        await gate.wait()
        raise ValueError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        gate = asyncio.Event()
        loop.call_later(0.001, gate.set)
        with pytest.raises(ValueError):
            await runtime(50).run([(str(n), partial(failing, gate)) for n in range(50)])
        gc.collect()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()
    assert complaints == []


def test_an_eager_task_factory_is_no_obstacle() -> None:
    """With `asyncio.eager_task_factory` (3.12) tasks run isolated and all of them."""
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        pytest.skip("eager tasks came with 3.12")
    import contextvars

    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    async def task(number: int) -> None:
        seen.append(variable.get())
        variable.set(number)
        if number % 3 == 0:
            await asyncio.sleep(0)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await runtime(4).run((str(n), partial(task, n)) for n in range(3000))

    asyncio.run(main())
    assert seen == [0] * 3000


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
@pytest.mark.parametrize("how", ["event", "source", "cancel", "stop"])
def test_the_first_step_of_an_eager_task_ends_the_run(how: str) -> None:
    """It is taken before the run has its task in hand, or the runtime its run."""
    event = asyncio.Event()
    begun: list[int] = []

    async def main() -> None:
        factory: Any = getattr(asyncio, "eager_task_factory")  # noqa: B009 - newer than 3.10
        asyncio.get_running_loop().set_task_factory(factory)
        subject = TaskRuntime(config=RuntimeConfig(concurrency=3), cancel_event=event)

        async def task(number: int) -> None:
            begun.append(number)
            if how == "stop":
                subject.stop()
            else:
                subject.cancel()
                await forever()

        def source() -> Iterator[Task]:
            for number in range(3):
                if how == "source":
                    subject.cancel()
                yield str(number), partial(task, number)

        if how == "event":
            event.set()
        await subject.run(source())

    with pytest.raises(RuntimeCancellationError):
        asyncio.run(asyncio.wait_for(main(), 30))
    assert begun == ([] if how in ("event", "source") else [0])


@orderly
async def test_a_run_that_was_cancelled_keeps_nothing_alive() -> None:
    """No timer of its ending holds its tasks until their grace would have been over."""

    class Payload:
        pass

    async def cancel(payload: Payload) -> None:
        subject.cancel()

    subject = runtime(1, cancel_grace=3600)
    payload = Payload()
    held = weakref.ref(payload)
    with pytest.raises(RuntimeCancellationError):
        await subject.run(iter([("a", partial(cancel, payload))]))
    del payload
    await turns()
    gc.collect()
    assert held() is None


@orderly
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", [asyncio.Event, threading.Event])
async def test_a_cancel_event_set_by_a_task_that_ends_takes_nothing(
    asynchronous: bool, kind: type[Any]
) -> None:
    """Nothing is taken once the event is set, also before the run has been notified of it."""
    event = kind()
    subject = TaskRuntime(config=RuntimeConfig(), cancel_event=event)
    taken: list[str] = []

    async def task() -> None:
        event.set()

    def source() -> Iterator[Task]:
        for name in "abc":
            taken.append(name)
            yield name, task

    async def source_async() -> AsyncGenerator[Task, None]:
        for item in source():
            yield item

    async with aclosing(source_async()) as pairs:
        with pytest.raises(RuntimeCancellationError):
            await subject.run(pairs if asynchronous else source())
    assert taken == ["a"]
    assert subject.stats.succeeded == 1


@orderly
@pytest.mark.parametrize("setter", ["task", "callback"])
@pytest.mark.parametrize("kind", [asyncio.Event, threading.Event])
@pytest.mark.parametrize(("concurrency", "lazy"), [(4, False), (4, True), (1, False)])
async def test_a_cancel_event_set_by_the_last_task_cancels_nothing(
    setter: str, kind: type[Any], concurrency: int, lazy: bool
) -> None:
    """Nothing was left to cancel, so the run is a success, as in 0.7."""
    event = kind()
    subject = TaskRuntime(config=RuntimeConfig(concurrency=concurrency), cancel_event=event)

    async def last() -> None:
        if setter == "task":
            event.set()

    def found(outcome: TaskOutcome[Any]) -> None:
        if setter == "callback" and outcome.id == "last":
            event.set()

    tasks: list[Task] = [("first", succeed), ("last", last)]
    await subject.run(iter(tasks) if lazy else tasks, on_outcome=found)
    assert subject.stats.succeeded == 2
    with pytest.raises(RuntimeCancellationError):
        await subject.run(tasks)  # it is set all the same


@orderly
async def test_a_task_that_raises_the_cancellation_error_ends_the_run() -> None:
    """Also with `on_error`, which is not called for it: the task says that all is to end."""
    errors: list[str] = []
    own = RuntimeCancellationError("the database is gone")

    async def task() -> None:
        raise own

    with pytest.raises(RuntimeCancellationError, match="database") as caught:
        await runtime(1).run(
            [("a", task), ("b", forever)], on_error=lambda name, _: errors.append(name)
        )
    assert caught.value is own
    assert errors == []


@orderly
@pytest.mark.parametrize(
    ("way", "said"), [(TaskRuntime.stop, "intake stopped"), (TaskRuntime.cancel, "run cancelled")]
)
async def test_what_is_asked_for_twice_is_done_and_logged_once(
    way: Callable[[TaskRuntime], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As by an impatient second signal; and after the end there is nothing left to log."""
    caplog.set_level(logging.INFO, "infra_core.task_runtime")
    subject = runtime(1)

    async def task() -> None:
        way(subject)
        way(subject)
        await asyncio.sleep(0)

    with pytest.raises(RuntimeCancellationError):
        await subject.run([("a", task), ("b", succeed)])
    way(subject)
    assert [record.getMessage() for record in caplog.records] == [f"{said}, 1 tasks under way"]
