"""What `TaskRuntime.run` does as long as it is not cancelled."""

import asyncio
import contextvars
import itertools
import logging
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from infra_core.runtime import RuntimeConfig, TaskOutcome, TaskRuntime, TaskTimeoutError

pytestmark = pytest.mark.usefixtures("orderly_loop")
Task = tuple[str, Callable[[], Awaitable[Any]]]


def runtime(concurrency: int = 1, **config: Any) -> TaskRuntime:
    return TaskRuntime(config=RuntimeConfig(concurrency=concurrency, **config))


async def succeed() -> None:
    return None


async def fail(error: Exception) -> None:
    raise error


async def forever() -> None:
    await asyncio.Event().wait()


async def turns(count: int = 3) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("concurrency", "count"), [(1, 5), (3, 10), (100, 40), (2, 0)])
async def test_every_task_runs_once_and_within_the_bound(concurrency: int, count: int) -> None:
    """All tasks run, each once, and never more than `concurrency` at a time."""
    alive = 0
    most = 0
    ran: list[int] = []

    async def task(number: int) -> None:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        await turns(number % 3)
        ran.append(number)
        alive -= 1

    await runtime(concurrency).run([(str(n), partial(task, n)) for n in range(count)])
    assert sorted(ran) == list(range(count))
    assert most <= concurrency


async def test_tasks_that_wait_fill_the_whole_bound() -> None:
    """A thousand tasks that all wait are all under way at the same time."""
    waiting = 0
    everybody = asyncio.Event()

    async def task() -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 1000:
            everybody.set()
        await everybody.wait()

    await runtime(1000).run((str(n), task) for n in range(1000))
    assert waiting == 1000


async def test_a_generator_is_read_only_as_slots_become_free() -> None:
    """At any time the source has been read no further than tasks have ended, plus the bound."""
    taken = 0
    ended = 0

    def source() -> Iterator[Task]:
        nonlocal taken
        for number in range(50):
            taken += 1
            assert taken - ended <= 4
            yield str(number), task

    async def task() -> None:
        nonlocal ended
        await turns(2)
        ended += 1

    await runtime(4).run(source())
    assert taken == ended == 50


async def test_an_asynchronous_source_is_read_lazily_and_from_one_task() -> None:
    """An asynchronous source is pulled when there is room, always by the same task."""
    readers = set()
    taken = 0
    ended = 0

    async def source() -> AsyncIterator[Task]:
        nonlocal taken
        for number in range(30):
            readers.add(asyncio.current_task())
            taken += 1
            assert taken - ended <= 3
            await asyncio.sleep(0)
            yield str(number), task

    async def task() -> None:
        nonlocal ended
        await turns(2)
        ended += 1

    await runtime(3).run(source())
    assert taken == ended == 30
    assert len(readers) == 1


async def test_the_first_error_is_raised_after_siblings_were_cancelled_and_awaited() -> None:
    """When `run` raises, no sibling runs any longer: each has finished its cleanup."""
    cleaned: list[str] = []
    begun = asyncio.Event()

    async def sibling(name: str) -> None:
        begun.set()
        try:
            await forever()
        finally:
            await turns(5)
            cleaned.append(name)

    async def failing() -> None:
        await begun.wait()
        raise ValueError("broken")

    tasks: list[Task] = [("a", partial(sibling, "a")), ("b", partial(sibling, "b")), ("c", failing)]
    with pytest.raises(ValueError, match="broken"):
        await runtime(3).run(tasks)
    assert sorted(cleaned) == ["a", "b"]


async def test_an_error_ends_the_intake() -> None:
    """After a failure nothing further is taken from the source."""
    tasks: list[Task] = [("a", partial(fail, ValueError())), ("b", succeed), ("c", succeed)]
    source = iter(tasks)
    with pytest.raises(ValueError):
        await runtime(1).run(source)
    assert [name for name, _ in source] == ["b", "c"]


async def test_errors_of_siblings_that_are_being_cancelled_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only the first error is raised; one raised during cleanup is in the log, not lost."""

    async def sibling() -> None:
        try:
            await forever()
        finally:
            raise KeyError("during cleanup")

    async def failing() -> None:
        await turns()
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await runtime(2).run([("a", sibling), ("b", failing)])
    assert any(r.exc_info and isinstance(r.exc_info[1], KeyError) for r in caplog.records)


async def test_on_error_gets_id_and_exception_and_the_run_goes_on() -> None:
    """With `on_error` every failure is reported and every other task still runs."""
    reported: list[tuple[str, Exception]] = []
    error = ValueError("no")
    tasks: list[Task] = [("bad", partial(fail, error)), ("good", succeed), ("bad2", succeed)]
    subject = runtime(1)
    await subject.run(tasks, on_error=lambda name, seen: reported.append((name, seen)))
    assert reported == [("bad", error)]
    assert (subject.stats.succeeded, subject.stats.failed) == (2, 1)


async def test_callbacks_may_be_asynchronous() -> None:
    """A coroutine function as callback is awaited before its slot is used again."""
    reported: list[str] = []

    async def on_error(name: str, _: Exception) -> None:
        await turns()
        reported.append(name)

    async def check() -> None:
        assert reported == ["bad"]

    await runtime(1).run(
        [("bad", partial(fail, ValueError())), ("check", check)], on_error=on_error
    )
    assert reported == ["bad"]


async def test_a_callback_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error in a callback is logged by `infra_core.task_runtime`; the run goes on."""
    ran = []

    def on_error(name: str, error: Exception) -> None:
        raise RuntimeError("callback broken")

    async def task() -> None:
        ran.append(1)

    with caplog.at_level(logging.ERROR, logger="infra_core.task_runtime"):
        await runtime(1).run(
            [("bad", partial(fail, ValueError())), ("good", task)], on_error=on_error
        )
    assert ran == [1]
    failure, record = (r for r in caplog.records if r.name == "infra_core.task_runtime")
    assert failure.getMessage() == "Unexpected error processing bad"
    assert record.exc_info is not None
    assert "callback broken" in str(record.exc_info[1])
    assert record.__dict__["task_id"] == "bad"


async def test_on_timeout_gets_the_id_of_a_task_over_its_budget() -> None:
    """A task over `task_timeout` is cancelled and reported; the others run."""
    late: list[str] = []
    subject = runtime(2, task_timeout=0.01)
    await subject.run([("slow", forever), ("quick", succeed)], on_timeout=late.append)
    assert late == ["slow"]
    assert (subject.stats.succeeded, subject.stats.timed_out) == (1, 1)


async def test_without_on_timeout_a_late_task_ends_the_run() -> None:
    """`on_error` does not see the runtime's timeouts: they propagate, and name the task."""
    with pytest.raises(TaskTimeoutError, match=r"'slow'.*0\.01 s") as caught:
        await runtime(1, task_timeout=0.01).run([("slow", forever)], on_error=lambda *_: None)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, asyncio.TimeoutError)
    assert (caught.value.task_id, caught.value.timeout) == ("slow", 0.01)
    assert not caught.value.unresponsive


@pytest.mark.parametrize("kind", [TimeoutError, asyncio.TimeoutError])
async def test_a_timeout_of_the_task_itself_is_an_error(kind: type[Exception]) -> None:
    """A `TimeoutError` that the task raised goes to `on_error`, never to `on_timeout`."""
    errors: list[Exception] = []
    late: list[str] = []
    own = kind("of my own")
    await runtime(1, task_timeout=10.0).run(
        [("a", partial(fail, own))],
        on_timeout=late.append,
        on_error=lambda _, error: errors.append(error),
    )
    assert errors == [own]
    assert late == []


async def test_a_value_returned_while_the_timeout_expires_is_a_success() -> None:
    """A task that catches the cancellation and still returns has succeeded."""
    outcomes: list[TaskOutcome[str]] = []

    async def task() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "saved"
        return "never"

    await runtime(1, task_timeout=0.01).run([("a", task)], on_outcome=outcomes.append)
    assert [(outcome.status, outcome.value) for outcome in outcomes] == [("succeeded", "saved")]


async def test_many_timeouts_expire_in_time_with_one_timer() -> None:
    """Tasks begun at different times each get the full budget, and no more."""
    late: list[str] = []
    tasks: list[Task] = [(str(n), forever) for n in range(20)]
    await runtime(7, task_timeout=0.01).run(tasks, on_timeout=late.append)
    assert sorted(late, key=int) == [str(n) for n in range(20)]


async def test_a_context_variable_set_by_a_task_is_invisible_to_the_next() -> None:
    """Each task begins with the caller's context, as with an `asyncio.Task` of its own."""
    variable = contextvars.ContextVar("variable", default="caller's")
    seen: list[str] = []

    async def task(value: str) -> None:
        seen.append(variable.get())
        variable.set(value)
        await asyncio.sleep(0)
        assert variable.get() == value

    await runtime(1).run([(str(n), partial(task, str(n))) for n in range(5)])
    assert seen == ["caller's"] * 5
    assert variable.get() == "caller's"


async def test_a_context_variable_set_by_the_source_reaches_its_task() -> None:
    """A generator that sets a variable before it yields a task hands it to that task."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    seen: list[tuple[int, int]] = []

    async def task(number: int) -> None:
        seen.append((number, variable.get()))

    def source() -> Iterator[Task]:
        for number in range(4):
            variable.set(number)
            yield str(number), partial(task, number)

    await runtime(1).run(source())
    assert seen == [(n, n) for n in range(4)]


async def test_a_context_variable_that_cannot_be_compared_is_no_obstacle() -> None:
    """A value whose comparison raises, as an array's does, leaves tasks isolated."""

    class Array:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

    variable: contextvars.ContextVar[Array] = contextvars.ContextVar("variable")
    variable.set(Array())
    before = variable.get()
    seen: list[bool] = []

    async def task() -> None:
        seen.append(variable.get() is before)
        variable.set(Array())

    await runtime(1).run([("a", task), ("b", task)])
    assert seen == [True, True]


async def test_a_task_that_cancels_itself_and_returns_leaves_the_next_one_alone() -> None:
    """A cancellation that was not consumed ends with its task; it does not hit a later one."""
    ran: list[str] = []

    async def rude() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()

    async def polite(name: str) -> None:
        await asyncio.sleep(0)
        ran.append(name)

    await runtime(1).run([("rude", rude), ("b", partial(polite, "b")), ("c", partial(polite, "c"))])
    assert ran == ["b", "c"]


async def test_tasks_that_never_suspend_do_not_keep_the_loop_to_themselves() -> None:
    """Other coroutines get their turns while an endless row of no-op tasks is run."""
    subject = runtime(2)
    endless = asyncio.create_task(subject.run((str(n), succeed) for n in itertools.count()))
    await turns(20)
    subject.cancel()
    with pytest.raises(RuntimeError):
        await endless


async def test_overlapping_runs_each_have_their_bound_and_share_active_tasks() -> None:
    """Two runs of one runtime count separately; `_active_tasks` holds both."""
    subject = runtime(2)
    gate = asyncio.Event()

    async def task() -> None:
        await gate.wait()

    runs = [asyncio.create_task(subject.run([(str(n), task) for n in range(4)])) for _ in range(2)]
    await turns(5)
    assert len(subject._active_tasks) == 4
    assert subject.stats.in_flight == 4
    gate.set()
    await asyncio.gather(*runs)
    assert not subject._active_tasks
    assert subject.stats.succeeded == 8


async def test_an_error_of_the_source_ends_the_run() -> None:
    """What the source raises is raised by `run`, after the tasks under way were cancelled."""

    def source() -> Iterator[Task]:
        yield "a", forever
        raise LookupError("no more input")

    with pytest.raises(LookupError, match="no more input"):
        await runtime(2).run(source(), on_error=lambda *_: None)


async def test_an_error_of_an_asynchronous_source_ends_the_run() -> None:
    """The same holds for an asynchronous source."""

    async def source() -> AsyncIterator[Task]:
        yield "a", forever
        await asyncio.sleep(0)
        raise LookupError("no more input")

    with pytest.raises(LookupError, match="no more input"):
        await runtime(2).run(source())


@pytest.mark.parametrize("item", ["task", ("id", succeed, "more"), 5])
async def test_an_item_that_is_no_pair_is_refused_with_the_remedy(item: Any) -> None:
    """A malformed item names itself and the form it should have."""
    with pytest.raises(TypeError, match="pair of an id and a callable") as caught:
        await runtime(1).run([item])
    assert repr(item) in str(caught.value)


async def test_a_list_of_two_is_a_pair_as_well() -> None:
    """Anything that unpacks into two will do."""
    ran: list[int] = []

    async def task() -> None:
        ran.append(1)

    items: Any = [["a", task]]
    await runtime(1).run(items)
    assert ran == [1]


async def test_a_callable_that_returns_no_awaitable_is_an_error_of_that_task() -> None:
    """A plain function where an async one is needed is explained in a note."""
    errors: list[Exception] = []
    plain: Any = len
    await runtime(1).run(
        [("a", partial(plain, "xx"))], on_error=lambda _, error: errors.append(error)
    )
    assert isinstance(errors[0], TypeError)
    if hasattr(errors[0], "add_note"):  # Python 3.11
        assert "returns an awaitable" in getattr(errors[0], "__notes__", [""])[0]


async def test_any_awaitable_will_do() -> None:
    """A callable may return a future or a task in the place of a coroutine."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(5)
    outcomes: list[TaskOutcome[int]] = []
    await runtime(1).run(
        [("a", lambda: future), ("b", lambda: asyncio.ensure_future(asyncio.sleep(0, 6)))],
        on_outcome=outcomes.append,
    )
    assert [outcome.value for outcome in outcomes] == [5, 6]


async def test_on_outcome_gets_every_end_and_no_task_ends_the_run() -> None:
    """Success, failure and timeout each arrive as a `TaskOutcome` with duration and attempts."""
    outcomes: dict[str, TaskOutcome[Any]] = {}

    async def value() -> int:
        return 7

    error = ValueError("no")
    await runtime(3, task_timeout=0.02).run(
        [("good", value), ("bad", partial(fail, error)), ("slow", forever)],
        on_outcome=lambda outcome: outcomes.__setitem__(outcome.id, outcome),
    )
    assert (outcomes["good"].status, outcomes["good"].value) == ("succeeded", 7)
    assert outcomes["good"].ok
    assert outcomes["good"].result() == 7
    assert (outcomes["bad"].status, outcomes["bad"].error) == ("failed", error)
    with pytest.raises(ValueError, match="no"):
        outcomes["bad"].result()
    assert outcomes["slow"].status == "timed_out"
    assert isinstance(outcomes["slow"].error, TaskTimeoutError)
    assert outcomes["slow"].duration >= 0.019
    assert {outcome.attempts for outcome in outcomes.values()} == {1}


async def test_a_run_inside_of_a_task_of_the_same_runtime_works() -> None:
    """Tasks may start runs of their own; bounds are per run, so nothing deadlocks."""
    ran: list[str] = []
    subject = runtime(1)

    async def inner() -> None:
        ran.append("inner")

    async def outer() -> None:
        await subject.run([("inner", inner)])
        ran.append("outer")

    await subject.run([("outer", outer)])
    assert ran == ["inner", "outer"]


async def test_changes_of_the_configuration_hold_from_the_next_run_on() -> None:
    """Fields of the configuration may be set; they are checked again."""
    subject = runtime(1)
    subject.config.concurrency = 0
    with pytest.raises(ValueError, match="concurrency must be positive"):
        await subject.run([("a", succeed)])
    subject.config.concurrency = 1
    await subject.run([("a", succeed)])
    assert subject.stats.done == 1


async def test_each_task_has_an_asyncio_task_of_its_own() -> None:
    """Named by its id; SQLAlchemy's `async_scoped_session(scopefunc=current_task)` relies on it."""
    seen: list[asyncio.Task[Any] | None] = []

    async def task() -> None:
        seen.append(asyncio.current_task())

    await runtime(3).run((f"item {n}", task) for n in range(40))
    assert len(seen) == len(set(seen)) == 40
    assert {one.get_name() for one in seen if one} == {f"item {n}" for n in range(40)}


@pytest.mark.parametrize("concurrency", [1, 3, 100])
async def test_tasks_begin_in_the_order_of_the_source(concurrency: int) -> None:
    """Also those that never suspend."""
    order: list[int] = []

    async def task(number: int) -> None:
        order.append(number)

    await runtime(concurrency).run([(str(n), partial(task, n)) for n in range(50)])
    assert order == list(range(50))


async def test_a_failure_is_logged_as_0_7_did(caplog: pytest.LogCaptureFixture) -> None:
    """A reader of the log finds each final failure, with or without `on_error`."""
    error = ValueError("broken")
    with caplog.at_level(logging.ERROR, logger="infra_core.task_runtime"):
        await runtime(1).run([("a", partial(fail, error))], on_error=lambda *_: None)
        with pytest.raises(ValueError, match="broken"):
            await runtime(1).run([("b", partial(fail, error))])
        await runtime(1).run([("c", partial(fail, error))], on_outcome=lambda _: None)
    assert [r.getMessage() for r in caplog.records] == [
        "Unexpected error processing a",
        "Unexpected error processing b",
    ]
    assert all(r.exc_info and r.exc_info[1] is error for r in caplog.records)


async def test_a_source_that_takes_its_time_does_not_keep_the_loop() -> None:
    """Tasks that were taken begin before everything that may be alive has been taken."""
    begun = 0
    seen: list[int] = []

    async def task() -> None:
        nonlocal begun
        begun += 1

    def source() -> Iterator[Task]:
        for number in range(100):
            seen.append(begun)
            if number in (20, 40):
                time.sleep(0.01)  # such as a query for the next page
            yield str(number), task

    await runtime(100).run(source())
    assert begun == 100
    assert seen[60] > 0


async def test_a_long_source_takes_flat_memory() -> None:
    """Six thousand tasks leave no more behind than a few hundred do."""
    subject = runtime(50, task_timeout=30.0)
    await subject.run((str(n), succeed) for n in range(500))
    tracemalloc.start()
    try:
        await subject.run((str(n), succeed) for n in range(6000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300_000


class Sized:
    """A source that says of itself how long it is, as it likes."""

    def __init__(self, length: int | Exception, tasks: list[Task]) -> None:
        self.length = length
        self.tasks = tasks

    def __len__(self) -> int:
        if isinstance(self.length, Exception):
            raise self.length
        return self.length

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


@pytest.mark.parametrize("length", [1, 99, TypeError("no length"), NotImplementedError()])
async def test_a_source_is_read_to_its_end_whatever_length_it_gives(
    length: int | Exception,
) -> None:
    """Loaders of data sets estimate theirs, or refuse to."""
    done: list[int] = []

    async def task(number: int) -> None:
        done.append(number)

    source = Sized(length, [(str(number), partial(task, number)) for number in range(5)])
    subject = runtime(2)
    await subject.run(source)
    assert done == [0, 1, 2, 3, 4]


async def test_tasks_that_are_appended_meanwhile_are_run_as_well() -> None:
    """A list goes on as long as it grows, as in a loop over it."""
    tasks: list[Task] = []

    async def task(number: int) -> None:
        if number < 5:
            tasks.append((str(number + 1), partial(task, number + 1)))

    tasks.append(("0", partial(task, 0)))
    subject = runtime(1)
    await subject.run(tasks)
    assert subject.stats.succeeded == 6


async def test_ids_need_not_be_text() -> None:
    """Any id is handed on as it is."""
    subject = runtime(2, task_timeout=0.01)
    tasks: Any = [(1, forever), ((2, "b"), succeed)]
    late: list[Any] = []
    await subject.run(tasks, on_timeout=late.append)
    assert late == [1]
