"""`DaskTaskRuntime` on a real cluster of two processes."""

import asyncio
import contextlib
import dataclasses
import importlib
import json
import operator
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

distributed = pytest.importorskip("distributed")


from infra_core.runtime import (  # noqa: E402
    RetryPolicy,
    RuntimeCancellationError,
    RuntimeConfig,
    RuntimeDrainedError,
    TaskOutcome,
    TaskTimeoutError,
    ThreadPool,
    _dask_worker,
)
from infra_core.runtime._dask import DaskTaskRuntime  # noqa: E402
from infra_core.runtime._dask_worker import execute  # noqa: E402

cloudpickle: Any = importlib.import_module("cloudpickle")  # comes with distributed
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes of two threads each, on loopback."""
    # This module is no package that workers could import.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    import dask

    with (
        dask.config.set(
            {
                "distributed.worker.daemon": True,
                "distributed.admin.log-format": "%(message)s",
                "distributed.comm.timeouts.connect": "10s",
            }
        ),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=50,
        ) as running,
    ):
        yield running
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
async def runtime(cluster: Any) -> AsyncIterator[DaskTaskRuntime]:
    """A runtime on that cluster with four slots and a short grace."""
    config = RuntimeConfig(concurrency=4, cancel_grace=5.0)
    async with DaskTaskRuntime(cluster.scheduler_address, config=config) as subject:
        yield subject
    assert not [task for task in asyncio.all_tasks() if "_Cluster." in repr(task.get_coro())]


def test_a_worker_without_threads_holds_up_no_other_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is done in the worker's own thread then, and others can be cancelled meanwhile."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("no-more"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(_dask_worker, "_threads", ThreadPool("no-more", 1))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    report = execute(cloudpickle.dumps(_is_held_up), None, 1.0, "key")
    assert (report.status, pickle.loads(report.value)) == ("succeeded", False)


def _is_held_up() -> bool:
    return _dask_worker._lock.locked()


def test_a_task_that_a_worker_cannot_load_is_an_error_with_the_remedy() -> None:
    """Its module is not installed there, say; the note comes with the error."""
    report = execute(b"no pickle", None, 1.0, "key")
    assert report.status == "failed"
    assert "is its module installed there?" in report.notes[0]


def test_a_task_that_is_cancelled_while_it_begins_ends_at_its_first_step() -> None:
    """While its function still makes the coroutine, there is nothing yet to be cancelled."""
    report = execute(cloudpickle.dumps(_cancelled_as_it_begins), None, 30.0, "begins")
    assert (report.status, report.left_behind) == ("cancelled", False)


def _cancelled_as_it_begins() -> Any:
    assert _dask_worker.cancel(["begins"]) == ["begins"]
    return asyncio.Event().wait()


def test_a_task_that_was_cancelled_before_it_arrived_does_not_begin() -> None:
    """A message may overtake it."""
    assert _dask_worker.cancel(["overtaken"]) == []
    assert execute(cloudpickle.dumps(broken), None, 1.0, "overtaken").status == "cancelled"


def broken() -> None:
    raise AssertionError("it began")


def note(folder: Path, text: str) -> None:
    """Leave a note that the test can see, from whatever process."""
    (folder / f"{text}.{uuid.uuid4().hex}").touch()


def notes(folder: Path) -> list[str]:
    paths = [path for path in folder.iterdir() if path.suffix != ".json"]
    return sorted(path.name.rsplit(".", 1)[0] for path in paths)


async def until_noted(folder: Path, count: int) -> None:
    """Wait until so many notes are there."""
    while len(notes(folder)) < count:  # noqa: ASYNC110 - other processes leave them
        await asyncio.sleep(0.01)


async def wait_and_clean(folder: Path, name: str) -> None:
    """Wait for ever; note begin and cleanup."""
    note(folder, f"begun {name}")
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0)
        note(folder, f"cleaned {name}")


class PrivateError(Exception):
    """Its constructor takes other arguments than its `args`: pickling cannot restore it."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def raise_private_error() -> None:
    raise PrivateError(1, 2)


async def raise_timeout() -> None:
    raise TimeoutError("of my own")


def fail_once(folder: Path) -> str:
    note(folder, "tried")
    if len(notes(folder)) < 2:
        raise ConnectionError("not yet")
    return "done"


def hold_a_lock() -> Any:
    return threading.Lock()


def block(gate: Path) -> None:
    """Block without a way to be interrupted, until a file is there."""
    for _ in range(1000):
        if gate.exists():
            return
        time.sleep(0.01)


async def test_synchronous_and_asynchronous_functions_run_on_other_processes(
    runtime: DaskTaskRuntime,
) -> None:
    """The calls of `TaskRuntime`, work done elsewhere, results in order."""
    pids = {pid async for pid in runtime.map(lambda _: os.getpid(), range(12))}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    plain = partial(operator.mul, 3)
    assert [r async for r in runtime.map(plain, range(20))] == [3 * n for n in range(20)]
    waiting = partial(asyncio.sleep, 0, "value")
    outcomes: list[TaskOutcome[Any]] = []
    await runtime.run([("a", waiting)], on_outcome=outcomes.append)
    assert [(o.status, o.value, o.attempts) for o in outcomes] == [("succeeded", "value", 1)]
    assert runtime.stats.succeeded == 33


async def test_an_asynchronous_source_is_taken_as_well(runtime: DaskTaskRuntime) -> None:
    """Tasks may come from an asynchronous generator."""

    async def source() -> AsyncIterator[Any]:
        for number in range(5):
            yield str(number), partial(operator.add, number, 1)

    values = {o.id: o.value async for o in runtime.as_completed(source())}
    assert values == {str(n): n + 1 for n in range(5)}


async def test_the_first_error_is_raised_after_siblings_cleaned_up(
    runtime: DaskTaskRuntime, tmp_path: Path
) -> None:
    """Siblings on other workers are cancelled there, and their cleanup is awaited."""
    tasks: list[Any] = [(name, partial(wait_and_clean, tmp_path, name)) for name in "ab"]

    async def source() -> AsyncIterator[Any]:
        for task in tasks:
            yield task
        await until_noted(tmp_path, 2)
        yield "bad", partial(operator.truediv, 1, 0)

    with pytest.raises(ZeroDivisionError) as caught:
        await runtime.run(source())
    assert notes(tmp_path) == ["begun a", "begun b", "cleaned a", "cleaned b"]
    remote = getattr(caught.value, "__notes__", None)
    assert remote is None or "raised on a worker" in "".join(remote)


async def test_callbacks_have_the_same_meaning(runtime: DaskTaskRuntime) -> None:
    """Errors go to `on_error`, the runtime's timeouts alone to `on_timeout`."""
    errors: dict[str, Exception] = {}
    late: list[str] = []
    runtime.config.task_timeout = 0.2
    tasks: list[Any] = [
        ("own timeout", raise_timeout),
        ("private", raise_private_error),
        ("late", partial(asyncio.sleep, 1000)),
        ("lock", hold_a_lock),
        ("fine", partial(operator.add, 1, 1)),
        ("cannot travel", partial(operator.add, threading.Lock())),
    ]
    await runtime.run(tasks, on_error=errors.__setitem__, on_timeout=late.append)
    assert late == ["late"]
    assert sorted(errors) == ["cannot travel", "lock", "own timeout", "private"]
    assert isinstance(errors["own timeout"], TimeoutError)
    assert not isinstance(errors["own timeout"], TaskTimeoutError)
    assert type(errors["private"]).__name__ == "PrivateError"
    assert str(errors["private"]).startswith("1 and 2")
    assert "cannot be sent back" in str(errors["lock"])
    assert "cannot be sent to a worker" in str(errors["cannot travel"])
    stats = runtime.stats
    assert (stats.succeeded, stats.failed, stats.timed_out) == (1, 4, 1)


async def test_a_late_synchronous_function_is_left_behind_and_reported(
    runtime: DaskTaskRuntime, tmp_path: Path
) -> None:
    """It cannot be interrupted: the run goes on without it and says so."""
    gate = tmp_path / "gate"
    runtime.config.task_timeout = 0.05
    runtime.config.cancel_grace = 0.05
    plain = partial(block, gate)
    with pytest.raises(TaskTimeoutError, match="left behind") as caught:
        await runtime.run([("blocked", plain)])
    assert caught.value.unresponsive
    assert runtime.stats.unresponsive == ("blocked",)
    gate.touch()


async def test_a_late_coroutine_is_cancelled_on_its_worker(cluster: Any, tmp_path: Path) -> None:
    """And cleans up there, before the run goes on."""
    late: list[str] = []
    config = RuntimeConfig(task_timeout=0.3, cancel_grace=30.0)
    async with DaskTaskRuntime(cluster.scheduler_address, config=config) as runtime:
        tasks = [("a", partial(wait_and_clean, tmp_path, "a"))]
        await runtime.run(tasks, on_timeout=late.append)
        assert runtime.stats.unresponsive == ()
    assert late == ["a"]
    assert notes(tmp_path) in (["begun a", "cleaned a"], [])  # or it was late before it began


async def test_time_in_the_queue_does_not_count(cluster: Any, tmp_path: Path) -> None:
    """With more tasks than threads, `task_timeout` begins when a task does."""
    config = RuntimeConfig(concurrency=40, task_timeout=0.5)
    plain = partial(time.sleep, 0.06)
    async with DaskTaskRuntime(cluster.scheduler_address, config=config) as subject:
        await subject.run([(str(n), plain) for n in range(40)])
        assert subject.stats.succeeded == 40
        assert subject.stats.duration_p99 is not None
        assert subject.stats.duration_p99 > 0.5


async def test_cancel_reaches_running_and_queued_tasks(
    runtime: DaskTaskRuntime, tmp_path: Path
) -> None:
    """Those that run clean up before `run` raises; those in the queue never begin."""
    runtime.config.concurrency = 10
    run = asyncio.create_task(
        runtime.run([(str(n), partial(wait_and_clean, tmp_path, str(n))) for n in range(10)])
    )
    await until_noted(tmp_path, 4)
    runtime.cancel()
    with pytest.raises(RuntimeCancellationError) as caught:
        await run
    assert caught.value.unresponsive == ()
    seen = notes(tmp_path)
    assert len(seen) == 8
    assert [text.split()[0] for text in seen] == ["begun"] * 4 + ["cleaned"] * 4


async def test_cancelling_the_caller_cancels_on_the_cluster(
    runtime: DaskTaskRuntime, tmp_path: Path
) -> None:
    """`CancelledError` comes through after the cleanup on the workers."""
    run = asyncio.create_task(runtime.run([("a", partial(wait_and_clean, tmp_path, "a"))]))
    await until_noted(tmp_path, 1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert notes(tmp_path) == ["begun a", "cleaned a"]


async def test_closing_the_runtime_cancels_on_the_cluster(cluster: Any, tmp_path: Path) -> None:
    """And waits for the cleanup there, before the connection is closed."""
    config = RuntimeConfig(concurrency=1, cancel_grace=5.0)
    runtime = DaskTaskRuntime(cluster.scheduler_address, config=config)
    run = asyncio.create_task(runtime.run([("a", partial(wait_and_clean, tmp_path, "a"))]))
    await until_noted(tmp_path, 1)
    await runtime.aclose()
    with pytest.raises(RuntimeCancellationError):
        await run
    assert notes(tmp_path) == ["begun a", "cleaned a"]


async def test_tasks_that_wait_for_a_worker_are_cancelled_at_once() -> None:
    """An adaptive cluster has none at times: then none can be asked to cancel them."""
    async with (
        distributed.LocalCluster(
            n_workers=0,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            asynchronous=True,
        ) as empty,
        DaskTaskRuntime(empty, config=RuntimeConfig(concurrency=2, cancel_grace=30.0)) as runtime,
    ):
        run = asyncio.create_task(runtime.run([("a", partial(abs, 1)), ("b", partial(abs, 2))]))
        while len(empty.scheduler.tasks) < 2:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        runtime.cancel()
        with pytest.raises(RuntimeCancellationError) as caught:
            await run
        assert caught.value.unresponsive == ()


async def test_a_cluster_that_refuses_to_cancel_is_logged(
    cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks are left behind when their grace is over, and the log says why."""

    async def refuse(*args: object, **options: object) -> None:
        raise ValueError("no messages to workers")

    gate = tmp_path / "gate"
    config = RuntimeConfig(concurrency=1, cancel_grace=0.1)
    async with distributed.Client(cluster.scheduler_address, asynchronous=True) as client:
        monkeypatch.setattr(client, "run", refuse)
        async with DaskTaskRuntime(client, config=config) as runtime:
            run = asyncio.create_task(runtime.run([("a", partial(block, gate))]))
            while not runtime.stats.in_flight or not client.futures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            runtime.cancel()
            with pytest.raises(RuntimeCancellationError) as caught:
                await run
            assert caught.value.unresponsive == ("a",)
            assert "tasks on the cluster could not be cancelled" in caplog.text
            gate.touch()


async def test_drain_lets_tasks_on_the_cluster_finish(runtime: DaskTaskRuntime) -> None:
    """What had begun is done; the rest is not taken."""
    source = iter([(str(n), partial(asyncio.sleep, 0.05)) for n in range(100)])
    run = asyncio.create_task(runtime.run(source))
    while runtime.stats.succeeded < 4:  # noqa: ASYNC110 - the cluster is elsewhere
        await asyncio.sleep(0.01)
    await runtime.drain()
    with pytest.raises(RuntimeDrainedError):
        await run
    stats = runtime.stats
    assert stats.started == stats.succeeded == 100 - len(list(source))


async def test_a_failed_task_is_retried_by_the_policy(
    runtime: DaskTaskRuntime, tmp_path: Path
) -> None:
    """Each attempt is sent to the cluster anew."""
    plain = partial(fail_once, tmp_path)
    outcomes: list[TaskOutcome[Any]] = []
    await runtime.run(
        [("a", plain)],
        retry=RetryPolicy(max_retries=2, backoff=0.001),
        on_outcome=outcomes.append,
    )
    assert [(o.value, o.attempts) for o in outcomes] == [("done", 2)]


async def test_retries_share_one_budget(runtime: DaskTaskRuntime) -> None:
    """`task_timeout` bounds all attempts together, the waits between them included."""
    runtime.config.task_timeout = 0.2
    with pytest.raises(TaskTimeoutError):
        await runtime.run(
            [("a", raise_timeout)],
            retry=RetryPolicy(max_retries=50, backoff=0.1, jitter=False, max_backoff=0.1),
        )


async def test_clients_of_either_kind_are_accepted(cluster: Any) -> None:
    """A synchronous client lends its address; an asynchronous one of this loop is used as it is."""
    config = RuntimeConfig(concurrency=2)
    plain = partial(operator.add, 1, 2)
    address = cluster.scheduler_address
    client = await asyncio.to_thread(distributed.Client, address, set_as_default=False)
    try:
        async with DaskTaskRuntime(client, config=config) as subject:
            assert [o.value async for o in subject.as_completed([("a", plain)])] == [3]
    finally:
        await asyncio.to_thread(client.close)
    async with distributed.Client(address, asynchronous=True, set_as_default=False) as own:
        async with DaskTaskRuntime(own, config=config) as subject:
            assert [o.value async for o in subject.as_completed([("a", plain)])] == [3]
        assert own.status == "running"  # the caller's stays open


def test_a_runtime_is_reused_across_loops_and_closes_with_each(cluster: Any) -> None:
    """Without `async with`, the connection ends with its event loop."""
    subject = DaskTaskRuntime(cluster.scheduler_address, config=RuntimeConfig(concurrency=2))
    plain = partial(operator.add, 1, 2)
    for _ in range(2):
        asyncio.run(subject.run([("a", plain), ("b", plain)]))
    assert subject.stats.succeeded == 4


@pytest.mark.posix
async def test_tasks_of_a_killed_worker_run_again_and_none_is_lost(
    cluster: Any, tmp_path: Path
) -> None:
    """A worker killed in mid-run costs time, not results."""
    gate = tmp_path / "gate"
    marks = tmp_path / "marks"
    marks.mkdir()
    config = RuntimeConfig(concurrency=8)
    outcomes: list[TaskOutcome[Any]] = []
    async with DaskTaskRuntime(cluster.scheduler_address, config=config) as subject:
        run = asyncio.create_task(
            subject.run(
                [(str(n), partial(report_pid_at_gate, marks, gate, n)) for n in range(30)],
                on_outcome=outcomes.append,
            )
        )
        await until_noted(marks, 4)  # every thread of both workers is in a task
        pids = sorted({int(text.split()[0]) for text in notes(marks)})
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        await until_noted(marks, 6)  # two of them have begun for the second time
        gate.touch()
        await run
    assert sorted(int(o.id) for o in outcomes) == list(range(30))
    assert {str(o.status) for o in outcomes} == {"succeeded"}
    assert sorted(o.result() for o in outcomes) == list(range(30))


async def report_pid_at_gate(marks: Path, gate: Path, number: int) -> int:
    """Note the process, wait for the gate, return the number."""
    note(marks, f"{os.getpid()} {number}")
    while not os.path.exists(gate):  # noqa: ASYNC110, PTH110 - a process elsewhere opens it
        await asyncio.sleep(0.01)
    return number


@pytest.mark.posix
async def test_a_task_that_kills_its_workers_is_reported(tmp_path: Path) -> None:
    """After `allowed-failures` deaths it is a failure like any other, not a hang."""
    import dask

    killer = partial(os.kill)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        contextlib.closing(
            await asyncio.to_thread(
                distributed.LocalCluster,
                n_workers=1,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                silence_logs=50,
            )
        ) as cluster,
    ):
        errors: dict[str, Exception] = {}
        config = RuntimeConfig(concurrency=2)
        async with DaskTaskRuntime(cluster.scheduler_address, config=config) as subject:
            (pid,) = [o.value async for o in subject.as_completed([("pid", os.getpid)])]
            await subject.run(
                [("killer", partial(killer, pid, signal.SIGKILL)), ("fine", os.getpid)],
                on_error=errors.__setitem__,
            )
            assert subject.stats.done == 3
    assert "killer" in errors
    assert type(errors["killer"]).__name__ == "KilledWorker"


class Answer:
    """A response as HTTP libraries have it, which cannot be pickled."""

    status_code = 503
    url = "https://h.example/?sig=S3CR3T"

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.headers = {"Authorization": "S3CR3T"}


class StatusError(Exception):
    """An error that, like httpx's, needs its response to be made."""

    def __init__(self, message: str, *, response: Any) -> None:
        super().__init__(message)
        self.response = response


def answer_503() -> None:
    raise StatusError("503 for https://h.example/?sig=S3CR3T", response=Answer())


async def test_an_error_of_http_comes_back_with_its_type_and_status(
    runtime: DaskTaskRuntime,
) -> None:
    """Also one that cannot be pickled; without credentials."""
    with pytest.raises(Exception, match="503") as caught:
        await runtime.run([("a", answer_503)])
    error: Any = caught.value
    assert type(error).__name__ == "StatusError"
    assert error.response.status_code == 503
    assert str(error).startswith("503 for https://h.example/?sig=<redacted>")
    notes = f"{getattr(error, '__notes__', '')}"
    assert ("raised on a worker" in notes) == (sys.version_info >= (3, 11))
    assert "S3CR3T" not in f"{vars(error)}{notes}"


def answers_503_in_a_group() -> None:
    group: Any = __builtins__["ExceptionGroup"]  # type: ignore[index]
    error = StatusError("503 for https://h.example/?sig=S3CR3T", response=Answer())
    raise group("of ?sig=S3CR3T", [ValueError(5), error])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs exception groups")
async def test_a_group_comes_back_with_its_members(runtime: DaskTaskRuntime) -> None:
    """As a `TaskGroup` in a task raises them, also those that cannot be pickled."""
    with pytest.raises(Exception, match="of ") as caught:
        await runtime.run([("a", answers_503_in_a_group)])
    error: Any = caught.value
    assert type(error).__name__ == "ExceptionGroup"
    assert [type(member).__name__ for member in error.exceptions] == ["ValueError", "StatusError"]
    assert error.exceptions[1].response.status_code == 503
    assert "S3CR3T" not in f"{error}{vars(error.exceptions[1])}{error.exceptions[1]}"


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """Takes no attribute, so that it cannot be unpickled."""

    code: int


def refuse_with_code() -> None:
    raise FrozenError(5)


async def test_an_error_that_takes_no_attribute_comes_back(runtime: DaskTaskRuntime) -> None:
    """With what it holds."""
    with pytest.raises(Exception, match="5") as caught:
        await runtime.run([("a", refuse_with_code)])
    assert (type(caught.value).__name__, vars(caught.value)["code"]) == ("FrozenError", 5)


def started(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a program of distributed, without its dashboard and its output."""
    return subprocess.Popen(
        [sys.executable, "-m", module, "--no-dashboard", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.timeout(300)
async def test_when_the_scheduler_dies_the_run_ends_with_an_error(tmp_path: Path) -> None:
    """Within a bounded time, for tasks under way and for those that come after; quietly."""
    import dask

    file = tmp_path / "scheduler.json"
    place = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
    scheduler = started("distributed.cli.dask_scheduler", *place)
    worker = None
    try:
        while not (file.is_file() and file.read_text()):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        address = json.loads(file.read_text())["address"]
        worker = started("distributed.cli.dask_worker", address)
        with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
            config = RuntimeConfig(concurrency=2, cancel_grace=1.0)
            async with DaskTaskRuntime(address, config=config) as runtime:
                tasks = ((str(n), partial(touch_and_wait, tmp_path, n)) for n in range(100))
                run = asyncio.ensure_future(runtime.run(tasks))
                await until_noted(tmp_path, 2)
                scheduler.kill()
                with pytest.raises(ConnectionError, match="Dask scheduler was lost"):
                    await run
                with pytest.raises(ConnectionError, match="Dask scheduler was lost"):
                    await runtime.run([("late", partial(abs, 1))])
    finally:
        for process in (worker, scheduler):
            if process is not None:
                process.kill()
                process.wait()


async def test_a_client_that_its_owner_closes_ends_the_run(cluster: Any, tmp_path: Path) -> None:
    """While tasks are under way, and between a task and its sending."""
    gate = tmp_path / "gate"
    for late in (False, True):
        client = await distributed.Client(cluster.scheduler_address, asynchronous=True)
        closing = OnPickling(lambda client=client: asyncio.ensure_future(client.close()))
        task = closing if late else partial(block, gate)
        async with DaskTaskRuntime(client, config=RuntimeConfig()) as runtime:
            run = asyncio.ensure_future(runtime.run([("a", task)]))
            while not (run.done() or client.futures):  # noqa: ASYNC110 - they have no event
                await asyncio.sleep(0.01)
            await client.close()
            with pytest.raises(ConnectionError, match="Dask scheduler was lost"):
                await run
    gate.touch()


@dataclasses.dataclass
class OnPickling:
    """Does something while it is pickled, which is before it is sent."""

    action: Any

    def __reduce__(self) -> tuple[Any, ...]:
        self.action()
        return abs, (1,)

    def __call__(self) -> int:
        return 1


async def test_a_task_that_is_cancelled_before_it_is_sent_is_not_sent(cluster: Any) -> None:
    """The cluster never hears of it, and there is nothing to wait for."""
    async with (
        distributed.Client(cluster.scheduler_address, asynchronous=True) as client,
        DaskTaskRuntime(client, config=RuntimeConfig(cancel_grace=30.0)) as runtime,
    ):
        with pytest.raises(RuntimeCancellationError) as caught:
            await runtime.run([("a", OnPickling(runtime.cancel))])
        assert caught.value.unresponsive == ()
        assert not client.futures


async def test_a_connection_that_stands_has_no_end_of_patience(runtime: DaskTaskRuntime) -> None:
    """That is for one that is lost: a task may take days."""
    await runtime.run([("connects", partial(abs, 1))])
    runtime._clients.get()._patience = 0.0
    await runtime.run([("takes several looks", partial(asyncio.sleep, 1.0))])


async def test_what_has_ended_is_not_kept_on_the_cluster(cluster: Any) -> None:
    """A million results would fill the memory of its workers."""
    async with (
        distributed.Client(cluster.scheduler_address, asynchronous=True) as client,
        DaskTaskRuntime(client, config=RuntimeConfig(concurrency=2)) as runtime,
    ):
        results = [value async for value in runtime.map(abs, range(5))]
        assert (results, dict(client.futures)) == ([0, 1, 2, 3, 4], {})
        await runtime.aclose()
        assert await client.submit(abs, -1) == 1  # it is the caller's, and stays open


def touch_and_wait(folder: Path, number: int) -> None:
    """Say that the task runs, and run on."""
    note(folder, f"task {number}")
    time.sleep(0.05 if number > 1 else 30)


def test_the_example_of_the_readme_runs(cluster: Any) -> None:
    """On the cluster of these tests, in the place of one of its own."""
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    (example,) = re.findall(r"^```py\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "README.md", "exec"), names)
    asyncio.run(names["main"](cluster.scheduler_address))


def test_the_package_does_not_import_distributed() -> None:
    """Not even when `DaskTaskRuntime` is imported."""
    code = (
        "import sys; from infra_core.runtime import DaskTaskRuntime; "
        "sys.exit('distributed' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without distributed the error says what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    subject = DaskTaskRuntime("tcp://127.0.0.1:1", config=RuntimeConfig())
    with pytest.raises(ImportError, match=r"infra-core-runtime\[dask\]"):
        await subject.run([("a", os.getpid)])
