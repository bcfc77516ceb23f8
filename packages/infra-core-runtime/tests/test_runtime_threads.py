"""Thread pools of our own: bounded, usable to the very end, with a guarantee on cancellation."""

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from typing import Any

import pytest

from infra_core.runtime import ThreadPool, in_thread

WAIT = 30.0  # seconds that nothing here takes


@pytest.mark.parametrize("call", [in_thread, ThreadPool("own", 2).run_abandoning])
async def test_work_runs_beside_the_loop(call: object) -> None:
    """In a daemon thread, with the caller's context variables; its result and error come back."""
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("the caller's")

    def work(number: int) -> tuple[int, str, threading.Thread]:
        return number + 1, variable.get(), threading.current_thread()

    assert callable(call)
    number, seen, thread = await call(work, 1)
    assert (number, seen) == (2, "the caller's")
    assert thread.daemon
    assert thread is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await call(lambda: 1 / 0)


async def test_work_that_raises_stop_iteration_does_not_hang() -> None:
    """No future can hold one: `asyncio.to_thread(next, empty)` never returns."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(next, iter(()))


async def test_a_cancelled_caller_waits_for_its_work() -> None:
    """However often it is cancelled, and is cancelled then."""
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(WAIT)
        ended.set()

    caller = asyncio.create_task(in_thread(work))
    await begun.wait()
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_a_cancelled_look_up_is_abandoned() -> None:
    """A name server that does not answer must not hold up a deadline."""
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    release = threading.Event()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(WAIT)

    caller = asyncio.create_task(ThreadPool("look-ups", 1).run_abandoning(work))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    release.set()


async def test_no_more_threads_than_allowed() -> None:
    """Further work waits its turn, in order; what was abandoned before its turn never runs."""
    pool = ThreadPool("bounded", 2)
    release = threading.Event()
    order: list[int] = []
    threads: set[str] = set()

    def work(number: int) -> None:
        threads.add(threading.current_thread().name)
        release.wait(WAIT)
        order.append(number)

    calls = [asyncio.create_task(pool.run(work, 0)), asyncio.create_task(pool.run(work, 1))]
    gone = asyncio.create_task(pool.run_abandoning(order.append, -1))
    calls += [asyncio.create_task(pool.run(work, number)) for number in range(2, 8)]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(*calls)
    assert sorted(order) == list(range(8))
    assert len(threads) == 2
    assert all(name.startswith("bounded-") for name in threads)  # as logs and debuggers show them


async def test_a_pool_that_is_closed_keeps_no_threads() -> None:
    """Those without work end at once, the others with their work; later work is done all the same.

    A finalizer may close a pool while its own thread is in one of the pool's methods.
    """
    pool = ThreadPool("closed", 3)
    release, busy = threading.Event(), threading.Barrier(3)

    def work(waits: bool) -> threading.Thread:
        busy.wait(WAIT)
        if waits:
            release.wait(WAIT)
        return threading.current_thread()

    calls = [asyncio.create_task(pool.run(work, number == 0)) for number in range(3)]
    done, _ = await asyncio.wait(calls[1:])
    with pool._lock:
        pool.close()
    threads = [call.result() for call in done]
    release.set()
    threads.append(await calls[0])
    threads.append(await pool.run(threading.current_thread))
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)


async def test_a_free_thread_is_used_again() -> None:
    """The threads that burst after burst needed are as many as one burst needs."""
    pool = ThreadPool("reused", 5)
    names: set[str] = set()
    for _ in range(20):
        names.update(
            await asyncio.gather(
                *(pool.run(lambda: threading.current_thread().name) for _ in range(30))
            )
        )
    assert len(names) <= 5


async def test_work_that_hangs_abandoned_gives_its_place_to_others() -> None:
    """Ten look-ups that never end do not use a pool of two up; one that ends is no one too many."""
    pool = ThreadPool("hanging", 2)
    loop, release = asyncio.get_running_loop(), threading.Event()
    alive = threading.active_count()
    for _ in range(8):
        begun = asyncio.Event()

        def hang(begun: asyncio.Event = begun) -> None:
            loop.call_soon_threadsafe(begun.set)
            release.wait(WAIT)

        caller = asyncio.create_task(pool.run_abandoning(hang))
        await begun.wait()
        caller.cancel()
        await asyncio.wait([caller])
    assert await asyncio.gather(*(pool.run(int, "7") for _ in range(5))) == [7] * 5
    synchronous = pool.submit(release.wait, WAIT)
    assert synchronous.cancel()
    assert pool.submit(int, "8").result(WAIT) == 8
    release.set()
    while threading.active_count() > alive + 2:  # noqa: ASYNC110 - the surplus ones end
        await asyncio.sleep(0)
    assert await pool.run(int, "9") == 9


def test_work_that_waits_gets_the_place_of_what_is_abandoned() -> None:
    """At once, and not when something else ends."""
    pool = ThreadPool("one", 1)
    begun, release = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(WAIT)

    hanging = pool.submit(hang)
    assert begun.wait(WAIT)
    waiting = pool.submit(int, "7")
    assert hanging.cancel()
    assert waiting.result(WAIT) == 7
    release.set()


def test_work_that_ends_while_it_is_abandoned_keeps_its_thread() -> None:
    """Its thread has gone on to other work when the pool hears of the cancellation."""
    pool = ThreadPool("both", 1)
    begun, release = threading.Event(), threading.Event()
    abandon = pool._abandon_cancelled

    def hang() -> None:
        begun.set()
        release.wait(WAIT)

    def abandon_late(job: Any, future: Any) -> None:
        if future.cancelled():
            release.set()
            assert waiting.result(WAIT) == 7
        abandon(job, future)

    pool._abandon_cancelled = abandon_late  # type: ignore[method-assign]
    ending = pool.submit(hang)
    assert begun.wait(WAIT)
    waiting = pool.submit(int, "7")
    assert ending.cancel()
    assert (pool._threads, pool._hanging) == (1, 0)


def test_synchronous_callers_get_a_future() -> None:
    """`submit` is that of an executor."""
    pool = ThreadPool("sync", 1)
    assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 7, 0).result(WAIT)


def test_a_pool_without_threads_is_refused() -> None:
    """The error names the value."""
    with pytest.raises(ValueError, match="size=0"):
        ThreadPool("none", 0)


AT_EXIT = """
import asyncio, atexit, threading
from infra_core.runtime import ThreadPool, in_thread

async def use(pool):
    return await pool.run(lambda: "old"), await in_thread(lambda: "files")

old = ThreadPool("old", 4)
if {warm}:
    asyncio.run(use(old))

def late(where):
    fresh = ThreadPool("fresh", 4)
    print(where, *asyncio.run(use(old)), *asyncio.run(use(fresh)), flush=True)

def after_main():
    threading.main_thread().join()
    late("thread")

atexit.register(late, "atexit")
threading.Thread(target=after_main).start()
"""


@pytest.mark.parametrize("warm", [True, False])
def test_work_is_done_after_the_main_thread_has_ended(warm: bool) -> None:
    """And in exit handlers, where the executors of `concurrent.futures` refuse."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT.format(warm=warm)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "thread old files old files",
        "atexit old files old files",
    ]


def test_a_hanging_thread_does_not_keep_the_process() -> None:
    """Its threads are daemons."""
    code = (
        "import threading\n"
        "from infra_core.runtime import ThreadPool\n"
        "begun = threading.Event()\n"
        "ThreadPool('hang', 1).submit(lambda: (begun.set(), threading.Event().wait()))\n"
        "begun.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.posix
def test_a_forked_child_has_threads_of_its_own() -> None:
    """Those of its parent do not exist there, whatever they were at."""
    pool = ThreadPool("forked", 1)
    release = threading.Event()
    busy = pool.submit(release.wait, WAIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        try:
            os._exit(pool.submit(lambda: 7).result(10))
        finally:
            os._exit(1)
    release.set()
    assert busy.result(WAIT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_work_that_is_done_holds_nothing() -> None:
    """Bytes that were written are let go at once, not when garbage is collected next."""

    class Held:
        pass

    pool, held = ThreadPool("own", 1), Held()
    seen = weakref.ref(held)
    future = pool.submit(id, held)
    del held
    gc.disable()
    try:
        future.result(WAIT)
        pool.submit(int).result(WAIT)  # the only thread has let go of what it did before
        assert seen() is None
    finally:
        gc.enable()
