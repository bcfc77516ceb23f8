"""Values that belong to one event loop: made once, closed with their loop, never leaked."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import AsyncIterator

import pytest

from infra_core.runtime import LoopBoundAsyncLock, LoopLocal, run_sync

# In the development mode asyncio warns of steps that are slow, as on a busy machine.
SLOW_IS_FINE = "import logging; logging.getLogger('asyncio').setLevel('ERROR')\n"


class Client:
    """Stands for a client whose close must run on the loop that made it."""

    def __init__(self) -> None:
        self.made_on = asyncio.get_running_loop()
        self.closed_on: asyncio.AbstractEventLoop | None = None

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed_on = asyncio.get_running_loop()


def clients() -> LoopLocal[Client]:
    return LoopLocal(Client, Client.aclose)


async def get(local: LoopLocal[Client]) -> Client:
    return local.get()


def abandon(local: LoopLocal[Client]) -> Client:
    """Use a loop and close it without any shutdown, as old code does."""
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(get(local))
    loop.close()
    return client


async def test_one_loop_has_one_value() -> None:
    """Every task of a loop gets the same."""
    local = clients()
    first = local.get()
    others = await asyncio.gather(get(local), get(local))
    assert list(others) == [first, first]
    await local.aclose()


def test_a_value_is_closed_with_its_loop_and_on_it() -> None:
    """asyncio.run leaves nothing open, though aclose was not called."""
    local = clients()
    client = asyncio.run(get(local))
    assert client.closed_on is client.made_on
    assert not local._entries


def test_loops_one_after_the_other_get_values_of_their_own() -> None:
    """Nothing of a loop that ended is used again."""
    local = clients()
    values = [asyncio.run(get(local)) for _ in range(5)]
    assert len(set(map(id, values))) == 5
    assert all(client.closed_on is client.made_on for client in values)


def test_loops_of_several_threads_do_not_disturb_each_other() -> None:
    """Each keeps its value as long as it lives."""
    local = clients()
    barrier = threading.Barrier(6)
    values: list[Client] = []

    async def work() -> None:
        client = local.get()
        await asyncio.to_thread(barrier.wait, 30)
        assert local.get() is client
        assert client.closed_on is None
        values.append(client)

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, values))) == 6
    assert all(client.closed_on is client.made_on for client in values)
    assert not local._entries


def test_a_value_of_an_abandoned_loop_is_closed_by_the_next_one() -> None:
    """A loop that was closed without shutdown cannot close it any more."""
    local = clients()
    stale = abandon(local)
    assert stale.closed_on is None

    async def next_loop() -> None:
        local.get()
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(next_loop())
    assert stale.closed_on is not stale.made_on
    assert not local._entries


def test_aclose_closes_the_loops_own_and_the_stale_ones() -> None:
    """And waits for both; the next get makes a new value."""
    local = clients()
    stale = abandon(local)

    async def work() -> None:
        client = local.get()
        await local.aclose()
        assert stale.closed_on is client.closed_on is asyncio.get_running_loop()
        assert local.get() is not client

    asyncio.run(work())


def test_aclose_leaves_other_live_loops_alone() -> None:
    """A client that another thread is using is not closed under it."""
    local = clients()
    theirs = run_sync(get(local))
    asyncio.run(local.aclose())
    assert theirs.closed_on is None
    run_sync(local.aclose())
    assert theirs.closed_on is theirs.made_on


async def test_aclose_without_a_value_does_nothing() -> None:
    """Closing twice is no error."""
    local = clients()
    await local.aclose()
    local.get()
    await local.aclose()
    await local.aclose()


async def test_what_closing_raises_comes_through_aclose() -> None:
    """The caller that closes the value gets the error of closing it."""

    async def fail(client: Client) -> None:
        raise OSError("cannot close")

    local = LoopLocal(Client, fail)
    local.get()
    with pytest.raises(OSError, match="cannot close"):
        await local.aclose()


def test_a_stale_value_that_cannot_be_closed_is_logged_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Transports of a closed loop raise; those who ask later do not see it."""

    async def fail(client: Client) -> None:
        raise RuntimeError("Event loop is closed")

    local = LoopLocal(Client, fail)
    abandon(local)
    with caplog.at_level(logging.DEBUG, "infra_core.runtime"):
        asyncio.run(local.aclose())
    assert "closed event loop" in caplog.text


def test_a_value_that_a_dying_loop_asks_for_is_closed_by_the_next() -> None:
    """Generators may need a client while their loop shuts down, also if warnings are errors."""
    local = clients()
    late: list[Client] = []

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await local.aclose()
            late.append(local.get())

    async def main() -> None:
        kept.append(generator())
        await kept[0].__anext__()

    kept: list[AsyncIterator[int]] = []
    asyncio.run(main())
    assert late[0].closed_on is None
    asyncio.run(local.aclose())
    assert late[0].closed_on is not None


def test_outside_of_a_loop_there_is_no_value() -> None:
    """The error is asyncio's own."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        clients().get()


async def test_a_factory_that_fails_leaves_nothing_behind() -> None:
    """The next call tries again."""
    fail = [True]

    def factory() -> Client:
        if fail:
            fail.clear()
            raise OSError("no")
        return Client()

    local = LoopLocal(factory, Client.aclose)
    with pytest.raises(OSError, match="no"):
        local.get()
    assert local.get() is local.get()
    await local.aclose()


def test_nothing_is_kept_alive() -> None:
    """Neither loops, nor values, nor the holder itself."""
    local = clients()
    client = asyncio.run(get(local))
    loop, value, holder = weakref.ref(client.made_on), weakref.ref(client), weakref.ref(local)
    del client, local
    gc.collect()
    assert (loop(), value(), holder()) == (None, None, None)


async def test_a_holder_that_is_dropped_closes_its_value() -> None:
    """The loop's generator hook does, as for any generator that is forgotten."""
    local = clients()
    client = local.get()
    del local
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert client.closed_on is not None


@pytest.mark.posix
def test_a_forked_child_makes_its_own_and_leaves_the_parents_open() -> None:
    """Closing what the parent has in use would break the parent's connections."""
    local = clients()
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(get(local))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks beside threads
        local._lock.acquire()  # as another thread may have at that moment
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not that of pytest-timeout
        signal.alarm(30)
        own = asyncio.run(get(local))
        os._exit(7 if own is not client and own.closed_on and not client.closed_on else 1)
    local._lock.release()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert loop.run_until_complete(get(local)) is client
    loop.run_until_complete(local.aclose())
    loop.close()


def test_nothing_is_left_open_at_exit() -> None:
    """Values of the background loop are closed with it, warnings being errors."""
    code = """
        import asyncio
        from infra_core.runtime import LoopLocal, run_sync

        async def close(name):
            await asyncio.sleep(0)
            print("closed", name)

        local = LoopLocal(lambda: asyncio.current_task().get_name(), close)

        async def use():
            return local.get()

        run_sync(use())
        asyncio.run(use())
    """
    output = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SLOW_IS_FINE + textwrap.dedent(code)],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert output.stderr == ""
    assert output.stdout.count("closed") == 2


# --- LoopBoundAsyncLock ---


def test_a_lock_serves_one_loop_after_another() -> None:
    """An object that outlives loops can be locked in each, also after the lock was fought for."""
    lock = LoopBoundAsyncLock()
    inside = 0

    async def enter() -> None:
        nonlocal inside
        async with lock.get():
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            inside -= 1

    async def crowd() -> None:
        await asyncio.gather(*(enter() for _ in range(10)))

    for _ in range(3):
        asyncio.run(crowd())


async def test_a_loop_has_one_lock() -> None:
    """It is the same one each time."""
    lock = LoopBoundAsyncLock()
    assert lock.get() is lock.get()
    assert isinstance(lock.get(), asyncio.Lock)
    assert lock.get() is not LoopBoundAsyncLock().get()


def test_a_lock_needs_a_running_loop() -> None:
    """Outside there is nothing to be locked."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        LoopBoundAsyncLock().get()


def test_locks_keep_no_loop_alive() -> None:
    """Not even a lock that was waited for, which refers to its loop."""
    lock = LoopBoundAsyncLock()
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def enter() -> None:
        async with lock.get():
            await asyncio.sleep(0)

    async def crowd() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(enter(), enter())

    for _ in range(3):
        asyncio.run(crowd())
    gc.collect()
    assert [loop() for loop in loops] == [None, None, None]
