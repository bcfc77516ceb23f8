"""Processes of this machine that do items; one that dies is replaced, its items done again."""

import asyncio
import atexit
import gc
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from itertools import count
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core import _start

from ._download import Downloads, WorkItem, ahead_of, settle, share_of
from ._errors import BatchError
from ._results import BatchRetry, Outcome

if TYPE_CHECKING:
    from ._options import BatchOptions

__all__ = ["ProcessWorkers", "fork_workers"]

logger = logging.getLogger("infra_core.batch")
_TRIES = 3  # of an item whose worker dies: what kills three workers would kill the fourth
_END_SECONDS = 10.0
_STOP = "stop"  # begin nothing more
_END = "end"
# Signals that workers do not hear: one to the whole group, such as a terminal's, is not for them.
_FOR_THE_COORDINATOR = _start.ENDING_SIGNALS
_starting = threading.Lock()
_forked: list[tuple[Connection, BaseProcess]] = []  # which wait for a batch


def fork_workers(number: int) -> None:
    """Fork workers for the command on Linux, before anything else of it; others are spawned.

    They share the memory of what is imported here, and are there as soon as a job is recorded. A
    program of others is left alone: threads of its own may hold locks.
    """
    if sys.platform != "linux" or not _start.is_own_process() or threading.active_count() > 1:
        return
    _import_all()
    gc.freeze()  # a search for garbage would write to what is shared
    # None is to end them before they ignore it.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_COORDINATOR)
    try:
        while len(_forked) < number:
            _forked.append(_started("fork", inherited=[pipe for pipe, _ in _forked]))
    except OSError:  # too many processes: what tries to spawn the rest says so
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _import_all() -> None:
    """Import what a download needs."""
    _start.import_engine()
    from infra_core.http import AsyncHttpClient  # noqa: F401
    from infra_core.http.assets import AssetDownloadClient, CommitGroup  # noqa: F401

    from . import _environment  # noqa: F401
    from ._download import user_agent

    user_agent()


class ProcessWorkers:
    """A fixed number of processes, each with an event loop and connections of its own."""

    def __init__(
        self,
        options: "BatchOptions",
        folder: Path,
        on_retry: Callable[[BatchRetry], None],
        env: Mapping[str, str],
    ) -> None:
        self._count = int(options.processes)
        self._settings = pickle.dumps((share_of(options, self._count), folder, dict(env)))
        self._on_retry = on_retry
        self._workers: list[_Process] = []
        self._closed = self._stopped = False
        self._opening: asyncio.Future[None] | None = None
        at_a_time = self._count * options.concurrency
        self.width = at_a_time + ahead_of(at_a_time)

    async def open(self) -> None:
        """Begin to start the processes; the first jobs can be recorded meanwhile.

        Raises:
            BatchError: This process may have none.
        """
        if current_process().daemon:
            raise BatchError(
                "processes (--processes) cannot be more than 1 in a daemonic process, such as one "
                "of multiprocessing.Pool: Python lets it start no others"
            )
        starting = asyncio.to_thread(self._start, asyncio.get_running_loop())
        self._opening = asyncio.ensure_future(starting)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        while len(self._workers) < self._count and not self._closed:
            self._workers.append(self._started(loop))
            if self._stopped:
                self._workers[-1].send(_STOP)

    def _started(self, loop: asyncio.AbstractEventLoop) -> "_Process":
        return _Process(self._settings, loop, self._on_retry)

    async def fetch(self, item: WorkItem) -> Outcome | None:
        """Have an item done by the worker that has the fewest; raises where three died over it."""
        if self._opening is not None and not (self._opening.done() and self._workers):
            await asyncio.shield(self._opening)
        for _ in range(_TRIES):
            worker = min(self._workers, key=lambda each: each.load)
            try:
                return await worker.fetch(item)
            except _WorkerDied as error:
                if self._closed:
                    raise asyncio.CancelledError from None
                if self._stopped:
                    return None
                if worker in self._workers:  # not yet replaced by another item of its
                    logger.warning("a worker process ended (%s): its URLs are done again", error)
                    loop = asyncio.get_running_loop()
                    self._workers[self._workers.index(worker)] = self._started(loop)
        raise BatchError(
            f"{_TRIES} worker processes died over the same URLs: is the memory enough? Try fewer "
            "processes, a smaller concurrency, or max_bytes"
        )

    def stop(self) -> None:
        """Have no worker begin another download, and no item done again."""
        self._stopped = True
        for worker in self._workers:
            worker.send(_STOP)

    async def close(self, *, kill: bool = False) -> None:
        """End all workers; with `kill`, do not wait for the items they are at."""
        if self._closed:
            return
        self._closed = True
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        await asyncio.gather(*(worker.close(kill=kill) for worker in self._workers))


class _WorkerDied(Exception):  # noqa: N818 - what happened
    """The process ended with items at work."""


class _Process:
    """One process: items go in, outcomes come out, in any order.

    What begins, or ends, in one turn of an event loop goes through the pipe together.
    """

    def __init__(
        self,
        settings: bytes,
        loop: asyncio.AbstractEventLoop,
        on_retry: Callable[[BatchRetry], None],
    ) -> None:
        self._pipe, self._process = _forked.pop() if _forked else _started("spawn")
        with suppress(OSError):  # the reader says that it has died
            self._pipe.send_bytes(settings)
        self._on_retry = on_retry
        self._loop = loop
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Outcome | None]] = {}
        self._outgoing = _Outgoing(self._loop, self.send)
        self._sending = threading.Lock()
        self._dead: str | None = None
        self._reader = threading.Thread(target=self._read, name="infra-core-worker", daemon=True)
        self._reader.start()

    @property
    def load(self) -> int:
        """Items that it has."""
        return len(self._waiting)

    async def fetch(self, item: WorkItem) -> Outcome | None:
        if self._dead is not None:
            raise _WorkerDied(self._dead)
        number = next(self._numbers)
        done: asyncio.Future[Outcome | None] = self._loop.create_future()
        self._waiting[number] = done
        self._outgoing.add((number, item))
        try:
            return await done
        finally:
            self._waiting.pop(number, None)

    def send(self, message: object) -> None:
        """Send items with their numbers, `_STOP` or `_END`."""
        with suppress(OSError), self._sending:  # the reader says that it has died
            self._pipe.send(message)

    def _read(self) -> None:
        while True:
            try:
                news = self._pipe.recv()
            except (EOFError, OSError):
                break
            self._call(self._hear, news)
        self._process.join()
        self._call(self._die, f"exit code {self._process.exitcode}")

    def _call(self, function: Any, *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it the waiting task
            self._loop.call_soon_threadsafe(function, *arguments)

    def _hear(self, news: "list[BatchRetry | tuple[int, Outcome | BaseException | None]]") -> None:
        for each in news:
            if isinstance(each, BatchRetry):
                self._on_retry(each)
            elif (done := self._waiting.get(each[0])) is not None:
                settle(done, each[1])

    def _die(self, how: str) -> None:
        self._dead = how
        for done in self._waiting.values():
            settle(done, _WorkerDied(how))

    async def close(self, *, kill: bool) -> None:
        if kill:
            self._process.kill()
        else:
            self.send(_END)
        await asyncio.to_thread(self._process.join, _END_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        self._reader.join()
        self._pipe.close()
        self._process.close()  # its descriptors, which would wait for the next search for garbage
        atexit.unregister(self._process.kill)


class _Outgoing:
    """Sends together what is added in one turn of the event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[list[Any]], object]
    ) -> None:
        self._loop = loop
        self._send = send
        self._added: list[Any] = []

    def add(self, each: object) -> None:
        if not self._added:
            self._loop.call_soon(self._flush)
        self._added.append(each)

    def _flush(self) -> None:
        added, self._added = self._added, []
        with suppress(OSError):  # the other end has died, and the reader says so
            self._send(added)


def _started(how: str, inherited: Sequence[Connection] = ()) -> tuple[Connection, BaseProcess]:
    """Start a process that does items; returns our end of the pipe to it, and it."""
    context: Any = get_context(how)
    ours, theirs = context.Pipe()
    # A fork has our ends of all pipes, and would not see that they are closed here.
    closed = (*inherited, ours) if how == "fork" else ()
    process = context.Process(target=_main, args=(theirs, *closed), daemon=True)
    try:
        with _without_main():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    # Its signals are the coordinator's: multiprocessing would wait for it at the exit for ever.
    atexit.register(process.kill)
    return ours, process


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not run the program's main module, which no worker needs.

    It may be a script that calls `run_batch` when it is imported, or have come from standard input.
    `multiprocessing` leaves out what is called `__main__` within a package.
    """
    main = sys.modules["__main__"]
    with _starting:
        spec = main.__spec__
        main.__spec__ = ModuleSpec(f"{__package__}.__main__", None)
        try:
            yield
        finally:
            main.__spec__ = spec


def _main(pipe: Connection, *inherited: Connection) -> None:
    """The life of a worker process: until it is asked to end, or its parent is gone."""
    for each in inherited:
        each.close()
    for number in _FOR_THE_COORDINATOR:
        signal.signal(number, signal.SIG_IGN)
    _start.begin()
    _import_all()
    try:
        settings = pipe.recv()
    except (EOFError, OSError):  # the command has ended before it began
        return
    asyncio.run(_serve(pipe, *settings))


async def _serve(
    pipe: Connection, options: "BatchOptions", folder: Path, env: Mapping[str, str]
) -> None:
    loop = asyncio.get_running_loop()
    outgoing = _Outgoing(loop, pipe.send)
    worker = Downloads(options, folder, outgoing.add, env)
    await worker.open()
    _start.started()
    ended = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def do(number: int, item: WorkItem) -> None:
        outcome: Outcome | BaseException | None
        try:
            outcome = await worker.fetch(item)
        except Exception as error:  # noqa: BLE001 - raised by the coordinator
            outcome = error
        outgoing.add((number, outcome))

    def begin(items: list[tuple[int, WorkItem]]) -> None:
        for number, item in items:
            task = loop.create_task(do(number, item))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def read() -> None:
        while True:
            try:
                message = pipe.recv()
            except (EOFError, OSError):  # the coordinator was killed: end with it
                os._exit(1)
            except Exception:
                logger.exception("a worker process cannot read what it is sent")
                os._exit(1)
            if message == _END:
                loop.call_soon_threadsafe(ended.set)
                return
            if message == _STOP:
                loop.call_soon_threadsafe(worker.stop)
            else:
                loop.call_soon_threadsafe(begin, message)

    threading.Thread(target=read, daemon=True).start()
    await ended.wait()
    await asyncio.gather(*tasks)
    await worker.close()
