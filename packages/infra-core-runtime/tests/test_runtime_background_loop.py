"""The one background loop on which synchronous facades run their coroutines."""

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from contextlib import suppress
from typing import Any

import pytest

from infra_core.runtime import _background_loop, in_background_loop, run_sync
from infra_core.runtime._threads import file_threads


def script(code: str, *, code_expected: int = 0, interrupt: bool = False) -> str:
    """Run Python code in a process of its own, warnings being errors; return what it printed."""
    # In the development mode asyncio also warns of steps that are slow, as on a busy machine.
    quiet = "import logging; logging.getLogger('asyncio').setLevel('ERROR')\n"
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", quiet + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        if interrupt:
            lines.append(process.stdout.readline())
            process.send_signal(signal.SIGINT)
        output = "".join(lines) + process.communicate(timeout=50)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code_expected, output
    return output


async def answer(value: int = 42) -> int:
    await asyncio.sleep(0)
    return value


def test_the_result_comes_back() -> None:
    """What the coroutine returns is returned."""
    assert run_sync(answer()) == 42


def test_the_coroutines_own_exception_comes_back() -> None:
    """Neither wrapped nor copied."""
    mine = LookupError("x")

    async def fail() -> None:
        raise mine

    with pytest.raises(LookupError) as caught:
        run_sync(fail())
    assert caught.value is mine


def test_all_callers_share_one_loop_in_one_daemon_thread() -> None:
    """So that connections live on from call to call, whichever thread calls."""

    async def where() -> tuple[int, threading.Thread]:
        return id(asyncio.get_running_loop()), threading.current_thread()

    seen = [run_sync(where())]
    threads = [threading.Thread(target=lambda: seen.append(run_sync(where()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 9
    assert len({loop for loop, _ in seen}) == 1
    assert {thread for _, thread in seen} == {seen[0][1]}
    assert seen[0][1].daemon
    assert seen[0][1] is not threading.current_thread()


def test_callers_do_not_wait_for_each_other() -> None:
    """A slow call of one thread leaves the others alone."""
    begun, release = threading.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await release.wait()
        return "slow"

    async def free() -> None:
        release.set()

    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(run_sync(slow())))
    thread.start()
    assert begun.wait(30)
    run_sync(free())
    thread.join()
    assert results == ["slow"]


async def test_a_running_loop_is_refused_with_the_name_of_the_async_form() -> None:
    """The error says what was called and what to await; the coroutine is closed."""
    coroutine: Any = answer()
    with pytest.raises(RuntimeError, match=r"fetch\(\) blocks.*await fetch_async\(\), or call it"):
        run_sync(coroutine, what="fetch()", instead="fetch_async()")
    assert coroutine.cr_frame is None  # closed: "never awaited" will not be warned of
    with pytest.raises(RuntimeError, match="await its async counterpart"):
        run_sync(answer())


async def test_a_thread_beside_a_running_loop_may_call() -> None:
    """The remedy that the error names works."""
    assert await asyncio.to_thread(lambda: run_sync(answer(7))) == 7


def test_a_call_from_within_the_background_loop_is_refused() -> None:
    """It would wait for itself for ever."""

    async def nested() -> int:
        return run_sync(answer())

    with pytest.raises(RuntimeError, match="runs an event loop"):
        run_sync(nested())


def test_code_can_ask_whether_it_runs_on_the_background_loop() -> None:
    """Also in callbacks and in code that no coroutine calls, and nowhere else."""

    async def ask() -> tuple[bool, bool]:
        return in_background_loop(), await asyncio.to_thread(in_background_loop)

    assert run_sync(ask()) == (True, False)
    assert not in_background_loop()


def test_context_variables_of_the_caller_are_seen() -> None:
    """And those that the coroutine sets stay its own."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def read() -> str:
        seen = name.get()
        name.set("changed")
        return seen

    name.set("caller")
    assert run_sync(read()) == "caller"
    assert name.get() == "caller"


@pytest.mark.parametrize("thread", ["main", "other"])
def test_a_timeout_cancels_and_waits_for_the_cleanup(thread: str) -> None:
    """The error names the call and the seconds; nothing of it runs on."""
    begun: list[str] = []
    cleaned: list[str] = []

    async def hang() -> None:
        begun.append("yes")  # on a busy machine it may be cancelled before
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    def call() -> None:
        run_sync(hang(), timeout=0.01, what="poll()")

    with pytest.raises(TimeoutError, match=r"poll\(\) was not done within 0\.01 s and was ca\w+: "):
        call() if thread == "main" else file_threads.submit(call).result(30)
    assert cleaned == begun


def test_a_coroutine_that_ignores_its_cancellation_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the grace period the caller gets its thread back."""
    monkeypatch.setattr(_background_loop, "CANCEL_GRACE", 0.01)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def free() -> None:
        release.set()

    run_sync(asyncio.sleep(0))  # the loop is up: what it is given now begins in time
    with pytest.raises(TimeoutError, match="cancelled, which it ignores"):
        run_sync(stubborn(), timeout=0.25)
    run_sync(free())


def test_a_result_that_races_with_the_timeout_is_not_lost() -> None:
    """Work that was done in spite of the cancellation is reported as done."""

    async def finish() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"
        return "never"

    run_sync(asyncio.sleep(0))  # as above
    assert run_sync(finish(), timeout=0.25) == "saved"


def test_a_timeout_error_of_the_coroutine_is_its_own() -> None:
    """Not taken for the timeout of the call."""
    mine = TimeoutError("mine")

    async def fail() -> None:
        raise mine

    with pytest.raises(TimeoutError) as caught:
        run_sync(fail(), timeout=30)
    assert caught.value is mine


def test_a_coroutine_that_is_cancelled_from_within_says_so() -> None:
    """A cancellation on the loop reaches the caller as such."""

    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError, match="sync\\(\\) was cancelled"):
        run_sync(give_up(), what="sync()")


def test_a_signal_that_wakes_no_thread_is_noticed_all_the_same() -> None:
    """One that comes just before the main thread begins to wait; on Windows none wakes it."""
    output = script(
        """
        import _thread, asyncio
        from infra_core.runtime import run_sync
        async def work():
            _thread.interrupt_main()  # which notes the signal and interrupts no wait
            try:
                await asyncio.Event().wait()
            finally:
                print("cleaned up", flush=True)
        try:
            run_sync(work())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert output.splitlines() == ["cleaned up", "interrupted"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_would_end_a_loop_does_not_end_this_one(kind: type[BaseException]) -> None:
    """asyncio lets these through run_forever; the caller gets them and the loop goes on."""

    async def leave() -> None:
        raise kind

    with pytest.raises(kind):
        run_sync(leave())
    assert run_sync(answer()) == 42


def test_what_is_no_coroutine_is_refused_in_the_callers_thread() -> None:
    """The caller does not hang."""
    wrong: Any = answer
    with pytest.raises(TypeError, match=r"needs a coroutine, not <function .*when it is called"):
        run_sync(wrong)
    assert run_sync(answer()) == 42


def test_an_interrupt_before_the_coroutine_began_closes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C may come at any moment; nothing is left un-awaited, no caller waits for ever."""

    def interrupted(call: object) -> None:
        raise KeyboardInterrupt

    coroutine: Any = answer()
    with monkeypatch.context() as patch:
        patch.setattr(_background_loop._Call, "begin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sync(coroutine)
    assert coroutine.cr_frame is None
    assert run_sync(answer()) == 42


def test_errors_leave_no_reference_cycle() -> None:
    """What a failed call held is free at once."""

    class Payload:
        pass

    held: list[weakref.ref[Payload]] = []

    async def fail() -> None:
        payload = Payload()
        held.append(weakref.ref(payload))
        raise LookupError

    run_sync(answer())
    gc.collect()
    gc.disable()
    try:
        with suppress(LookupError):
            run_sync(fail())
        run_sync(answer())  # the loop's own last handle is gone then
        assert held[0]() is None
    finally:
        gc.enable()


@pytest.mark.posix
def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    """It neither hangs nor disturbs the parent's, though the parent's thread does not exist."""
    run_sync(answer())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(7 if run_sync(answer(7)) == 7 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert run_sync(answer()) == 42


@pytest.mark.posix
@pytest.mark.parametrize("used", ["early", "late"])
def test_a_forked_child_ends_cleanly_and_leaves_the_parents_callbacks_alone(used: str) -> None:
    """Each process closes what it opened, at its own exit; the loop may begin after the fork."""
    output = script(
        f"        used = {used!r}"
        """
        import os, sys, warnings
        from infra_core.runtime import on_background_close, run_sync

        async def work():
            return 1

        def register(name):
            async def closed():
                print("closed", name, flush=True)
            on_background_close(closed)

        register("parent")
        if used == "early":
            run_sync(work())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            register("child")
            run_sync(work())
            sys.exit(3)
        status = os.waitpid(child, 0)[1]
        print("child ended", os.waitstatus_to_exitcode(status), flush=True)
        run_sync(work())
        """
    )
    assert output.split("\n") == ["closed child", "child ended 3", "closed parent", ""]


def test_nothing_is_left_at_exit() -> None:
    """No ResourceWarning, no pending task, no open generator; callbacks run last first."""
    output = script(
        """
        import asyncio
        from infra_core.runtime import on_background_close, run_sync

        def register(name):
            async def closed():
                await asyncio.sleep(0)
                print("closed", name)
            on_background_close(closed)

        async def failing():
            raise OSError("no matter")

        async def ticks():
            try:
                while True:
                    yield 1
            finally:
                print("generator closed")

        async def forever():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)  # its clean-up takes some turns of the loop
                print("task cancelled")
                raise

        async def work():
            global keep, generator
            keep = asyncio.ensure_future(forever())
            generator = ticks()
            await generator.__anext__()
            await asyncio.to_thread(print, "executor used")

        register("first")
        on_background_close(failing)
        register("second")
        run_sync(work())
        """
    )
    assert [line for line in output.splitlines() if "no matter" not in line][:1] == [
        "executor used"
    ]
    wanted = ["closed second", "closed first", "task cancelled", "generator closed"]
    assert [line for line in output.splitlines() if line in wanted] == wanted
    assert "Warning" not in output


def test_callbacks_without_a_loop_start_none() -> None:
    """Who registers and never calls pays for no thread."""
    output = script(
        """
        import threading
        from infra_core.runtime import on_background_close

        async def closed():
            print("closed")

        on_background_close(closed)
        print(threading.active_count())
        """
    )
    assert output == "1\n"


def test_a_callback_that_hangs_does_not_hold_the_exit_up() -> None:
    """It is cut after a while, with a warning."""
    output = script(
        """
        import asyncio, logging
        from infra_core.runtime import _background_loop, on_background_close, run_sync

        logging.basicConfig()
        _background_loop.CLOSE_TIMEOUT = 0.05

        async def hang():
            await asyncio.Event().wait()

        async def work():
            pass

        on_background_close(hang)
        run_sync(work())
        """
    )
    assert "closing at exit took more than 0.05 s" in output


def test_exit_handlers_that_run_later_still_get_their_answer() -> None:
    """The background loop has ended by then; the call runs on a loop of its own."""
    output = script(
        """
        import atexit
        from infra_core.runtime import run_sync

        async def work():
            return "answered"

        atexit.register(lambda: print(run_sync(work(), timeout=5)))
        run_sync(work())
        """
    )
    assert output == "answered\n"


@pytest.mark.posix(reason="signals")
def test_ctrl_c_cancels_the_coroutine_and_waits_for_its_cleanup() -> None:
    """KeyboardInterrupt comes after the clean-up, and the loop goes on to serve."""
    output = script(
        """
        import asyncio
        from infra_core.runtime import run_sync

        async def hang():
            try:
                print("ready", flush=True)
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                print("cleaned up")

        async def work():
            return "still serving"

        try:
            run_sync(hang())
        except KeyboardInterrupt:
            print("interrupted")
        print(run_sync(work()))
        """,
        interrupt=True,
    )
    assert output.splitlines() == ["ready", "cleaned up", "interrupted", "still serving"]


def test_importing_starts_nothing() -> None:
    """No thread before the first call."""
    output = script(
        """
        import threading
        import infra_core.runtime as runtime
        runtime.run_sync, runtime.LoopLocal, runtime.clock.timeout
        print(threading.active_count())
        """
    )
    assert output == "1\n"


@pytest.mark.parametrize("warm", [True, False])
def test_threads_are_to_be_had_when_the_main_thread_has_ended(warm: bool) -> None:
    """In threads that go on and in exit handlers: a facade may still write a file then."""
    output = script(
        f"""
        import asyncio, atexit, threading
        from infra_core.runtime import in_thread, run_sync

        async def work():
            return await asyncio.to_thread(str, 1) + await in_thread(str, 2)

        def late(where):
            print(where, run_sync(work()), flush=True)

        def after_main():
            threading.main_thread().join()
            late("thread")

        if {warm}:
            late("before")
        atexit.register(late, "atexit")
        threading.Thread(target=after_main).start()
        """
    )
    expected = ["before 12"] * warm + ["thread 12", "atexit 12"]
    assert output.splitlines() == expected


@pytest.mark.parametrize(
    "start", ["atexit.register(late)", "threading.Thread(target=late).start()"]
)
def test_facades_may_be_used_for_the_first_time_when_the_main_thread_has_ended(start: str) -> None:
    """What they stand on is imported then, as far as Python still lets it be."""
    output = script(
        f"""
        import asyncio, atexit, threading
        import infra_core.runtime as runtime

        async def work():
            return await runtime.in_thread(str, 5)

        def late():
            if threading.current_thread() is not threading.main_thread():
                threading.main_thread().join()
            print(runtime.run_sync(work()), flush=True)

        {start}
        """
    )
    assert output == "5\n"
