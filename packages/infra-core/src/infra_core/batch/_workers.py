"""Processes of this machine that do shards; one that dies is replaced, its shards done again."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from itertools import count
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core import _start

from ._errors import BatchError
from ._fork_server import worker_context
from ._shard import Shard, ShardResult, ShardRunner, share_of

if TYPE_CHECKING:
    from ._options import BatchOptions

__all__ = ["ProcessWorkers"]

logger = logging.getLogger("infra_core.batch")
_TRIES = 3  # of a shard whose worker dies: what kills three workers would kill the fourth
_END_SECONDS = 10.0
_STOP = "stop"  # begin nothing more
_END = "end"
_starting = threading.Lock()


class ProcessWorkers:
    """A fixed number of processes, each with an event loop and connections of its own.

    Args:
        options: Of the batch.
        folder: The run's folder.
        env: Variables that say where files are mirrored.
    """

    def __init__(self, options: "BatchOptions", folder: Path, env: Mapping[str, str]) -> None:
        self._settings = (share_of(options, options.processes), folder, dict(env))
        self._workers: list[_Worker] = []
        self._closed = self._stopped = False
        self.width = 2 * options.processes

    async def open(self) -> None:
        """Start the processes.

        Raises:
            BatchError: This process may have none.
        """
        if current_process().daemon:
            raise BatchError(
                "processes (--processes) cannot be more than 1 in a daemonic process, such as one "
                "of multiprocessing.Pool: Python lets it start no others"
            )
        options, *_ = self._settings
        self._workers = [_Worker(*self._settings) for _ in range(options.processes)]

    async def run(self, shard: Shard) -> ShardResult:
        """Have a shard done by the worker that has the fewest.

        Raises:
            BatchError: Three workers died over it.
        """
        for _ in range(_TRIES):
            worker = min(self._workers, key=lambda each: each.load)
            try:
                return await worker.run(shard)
            except _WorkerDied as error:
                if self._closed:
                    raise asyncio.CancelledError from None
                if self._stopped:
                    return ShardResult([None] * len(shard.items), [])
                logger.warning("a worker process ended (%s): its shard is done again", error)
                if worker in self._workers:  # not yet replaced by another shard of its
                    self._workers[self._workers.index(worker)] = _Worker(*self._settings)
        raise BatchError(
            f"{_TRIES} worker processes died over the same {len(shard.items)} URLs: is the memory "
            "enough? Try fewer processes, a smaller concurrency, or max_bytes"
        )

    def stop(self) -> None:
        """Have no worker begin another download, and no shard done again."""
        self._stopped = True
        for worker in self._workers:
            worker.send(_STOP)

    async def close(self, *, kill: bool = False) -> None:
        """End all workers.

        Args:
            kill: Do not wait for the shards they are at.
        """
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(worker.close(kill=kill) for worker in self._workers))


class _WorkerDied(Exception):  # noqa: N818 - what happened
    """The process ended with shards at work."""


class _Worker:
    """One process: shards go in, results come out, in any order."""

    def __init__(self, options: "BatchOptions", folder: Path, env: Mapping[str, str]) -> None:
        settings = (options, folder, dict(env))
        try:
            self._pipe, self._process = _started(worker_context(), settings)
        except (OSError, EOFError):  # what forks them is at its end as well
            self._pipe, self._process = _started(get_context("spawn"), settings)
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[ShardResult]] = {}
        self._sending = threading.Lock()
        self._dead: str | None = None
        self._reader = threading.Thread(target=self._read, name="infra-core-worker", daemon=True)
        self._reader.start()

    @property
    def load(self) -> int:
        """Shards that it has."""
        return len(self._waiting)

    async def run(self, shard: Shard) -> ShardResult:
        number = next(self._numbers)
        done: asyncio.Future[ShardResult] = self._loop.create_future()
        if self._dead is not None:
            raise _WorkerDied(self._dead)
        self._waiting[number] = done
        self.send((number, shard))
        try:
            return await done
        finally:
            self._waiting.pop(number, None)

    def send(self, message: object) -> None:
        """Send a shard with its number, `_STOP` or `_END`."""
        with suppress(OSError), self._sending:  # the reader says that it has died
            self._pipe.send(message)

    def _read(self) -> None:
        while True:
            try:
                number, result = self._pipe.recv()
            except (EOFError, OSError):
                break
            self._call(self._finish, number, result)
        self._process.join()
        self._call(self._die, f"exit code {self._process.exitcode}")

    def _call(self, function: Any, *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it the waiting task
            self._loop.call_soon_threadsafe(function, *arguments)

    def _finish(self, number: int, result: "ShardResult | BaseException") -> None:
        done = self._waiting.get(number)
        if done is None or done.done():
            return
        if isinstance(result, BaseException):
            done.set_exception(result)
        else:
            done.set_result(result)

    def _die(self, how: str) -> None:
        self._dead = how
        for done in list(self._waiting.values()):
            if not done.done():
                done.set_exception(_WorkerDied(how))

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


def _started(context: Any, settings: tuple[Any, ...]) -> tuple[Connection, BaseProcess]:
    """Start a process that does shards; returns our end of the pipe to it, and it."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, *settings), daemon=True)
    try:
        with _without_main():
            process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
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


def _main(pipe: Connection, options: "BatchOptions", folder: Path, env: Mapping[str, str]) -> None:
    """The life of a worker process: until it is asked to end, or its parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the coordinator decides
        signal.signal(number, signal.SIG_IGN)
    _start.begin()
    _start.import_engine()
    asyncio.run(_serve(pipe, options, folder, env))


async def _serve(
    pipe: Connection, options: "BatchOptions", folder: Path, env: Mapping[str, str]
) -> None:
    runner = ShardRunner(options, folder, env)
    await runner.open()
    _start.started()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def do(number: int, shard: Shard) -> None:
        result: ShardResult | BaseException
        try:
            result = await runner.run(shard)
        except Exception as error:  # noqa: BLE001 - raised by the coordinator
            result = error
        pipe.send((number, result))

    def begin(number: int, shard: Shard) -> None:
        task = loop.create_task(do(number, shard))
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
                loop.call_soon_threadsafe(runner.stop)
            else:
                loop.call_soon_threadsafe(begin, *message)

    threading.Thread(target=read, daemon=True).start()
    await ended.wait()
    await asyncio.gather(*tasks)
    await runner.close()
