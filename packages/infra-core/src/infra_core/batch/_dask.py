"""Workers of a Dask cluster that do shards: some dozens of items in one event loop.

The shards of a worker that dies are done again by others.
"""

import asyncio
import pickle
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from infra_core.runtime import DaskTaskRuntime, RuntimeConfig, on_background_close, run_sync

from ._download import Downloads, WorkItem, settle, share_of
from ._errors import BatchError, one_line
from ._results import BatchRetry, Outcome

if TYPE_CHECKING:
    from ._options import BatchOptions

__all__ = ["DaskWorkers"]

_WIDTH = 1_000  # shards at the cluster at most; the run bounds them by the cluster's threads
_SHARD = 32
_GATHERED = 0.02  # seconds after the first item of a shard in which others may join it
_workers: dict[str, "_ShardWorker"] = {}
_stopped: set[str] = set()  # runs that are to begin nothing more


class ShardResult(NamedTuple):
    """What became of a shard."""

    outcomes: Sequence[Outcome | None]  # of each item; None for one that was not begun
    retries: Sequence[BatchRetry]


class DaskWorkers:
    """The workers of a cluster, given as a `distributed.Client`, a cluster, or an address."""

    def __init__(
        self,
        options: "BatchOptions",
        folder: Path,
        on_retry: Callable[[BatchRetry], None],
        env: Mapping[str, str],
        client: Any,
    ) -> None:
        self._settings = (options, folder, dict(env))
        self._on_retry = on_retry
        # its outcomes come together: none is to wait long for the others
        self._shard = min(_SHARD, 2 * options.concurrency)
        self._gathered: list[tuple[WorkItem, asyncio.Future[Outcome | None]]] = []
        self._shards: set[asyncio.Task[None]] = set()
        self._pickled = b""
        self._run_id = secrets.token_hex(8)
        self._stopping: asyncio.Future[Any] | None = None
        self._address = client
        self._client: Any = None
        self._runtime: DaskTaskRuntime | None = None
        self.width = self._shard

    async def open(self) -> None:
        """Connect, and see how many shards the cluster can do at a time.

        Raises:
            BatchError: There is no scheduler, or it has no workers.
        """
        try:
            from distributed import Client
        except ImportError:
            raise BatchError(
                'a Dask cluster needs dask.distributed: pip install "infra-core[dask]"'
            ) from None
        address = self._address
        if isinstance(address, Client):
            address = address.scheduler.address
        else:
            address = getattr(address, "scheduler_address", address)
        try:
            self._client = await Client(address, asynchronous=True, set_as_default=False)
            threads = await self._client.nthreads()
        except (OSError, ValueError, TypeError) as error:
            raise BatchError(
                f"no Dask scheduler at {address!r} ({one_line(error)}): start one with "
                "`dask scheduler`, and workers with `dask worker ADDRESS`"
            ) from None
        if not threads:
            await self._client.close()
            raise BatchError(
                f"the Dask scheduler at {address!r} has no workers: start some with `dask worker "
                f"{address}`"
            )
        self.width = 2 * sum(threads.values()) * self._shard
        options, *rest = self._settings
        self._pickled = pickle.dumps((share_of(options, len(threads)), *rest))
        self._runtime = DaskTaskRuntime(self._client, config=RuntimeConfig(concurrency=_WIDTH))

    async def fetch(self, work: WorkItem) -> Outcome | None:
        """Have an item done by a worker, with others that are asked for at the same time.

        Raises:
            Exception: The scheduler is gone, or workers died over its shard again and again.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome | None] = loop.create_future()
        self._gathered.append((work, done))
        if len(self._gathered) == self._shard:
            self._begin()
        elif len(self._gathered) == 1:
            loop.call_later(_GATHERED, self._begin)
        return await done

    def _begin(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            task = asyncio.ensure_future(self._run(gathered))
            self._shards.add(task)
            task.add_done_callback(self._shards.discard)

    async def _run(self, gathered: "list[tuple[WorkItem, asyncio.Future[Outcome | None]]]") -> None:
        try:
            result = await self._result_of([item for item, _ in gathered])
        except BaseException as error:  # each of its items raises it
            for _, done in gathered:
                settle(done, error)
            if not isinstance(error, Exception):
                raise
            return
        for retry in result.retries:
            self._on_retry(retry)
        for (_, done), outcome in zip(gathered, result.outcomes, strict=True):
            settle(done, outcome)

    async def _result_of(self, items: list[WorkItem]) -> ShardResult:
        assert self._runtime is not None  # noqa: S101 - open() made it
        do: Any = partial(do_shard, self._run_id, self._pickled)
        async with self._runtime.map(do, [items]) as results:
            found: list[ShardResult] = [each async for each in results]
        return found[0]

    def stop(self) -> None:
        """Have no worker begin another download."""
        if self._client is not None and self._stopping is None:
            # at the workers that are there, and at those that join while others end their downloads
            stopping = self._client.register_worker_callbacks(partial(stop_shards, self._run_id))
            self._stopping = asyncio.ensure_future(stopping)

    async def close(self, *, kill: bool = False) -> None:
        """End the connection; what is at the workers is cancelled there, whatever `kill` says."""
        if self._stopping is not None:
            self._stopping.cancel()
            await asyncio.gather(self._stopping, return_exceptions=True)
        if self._runtime is not None:
            await self._runtime.aclose()
        if self._client is not None:
            await self._client.close()
        self._runtime = self._client = None


def do_shard(run_id: str, settings: bytes, items: Sequence[WorkItem]) -> ShardResult:
    """Do a shard; runs on a worker, whose connections live on in its background loop."""
    return run_sync(_do(run_id, settings, items), what="a shard", instead="run_batch_async()")


def stop_shards(run_id: str) -> None:
    """Have the shards of a run begin no more downloads; runs on a worker, beside them."""
    _stopped.add(run_id)
    if run_id in _workers:
        _workers[run_id].stop()


async def _do(run_id: str, settings: bytes, items: Sequence[WorkItem]) -> ShardResult:
    worker = _workers.get(run_id)
    if worker is None:
        for old in list(_workers):  # of a batch that has ended
            if not _workers[old].busy:
                await _workers.pop(old).close()
        worker = _workers[run_id] = _ShardWorker(*pickle.loads(settings))  # noqa: S301 - from the coordinator
        on_background_close(worker.close)
        if run_id in _stopped:
            worker.stop()
        await worker.open()
    return await worker.run(items)


class _ShardWorker(Downloads):
    """Does shards, any number at once, until the run is to end."""

    def __init__(self, options: "BatchOptions", folder: Path, env: Mapping[str, str]) -> None:
        self._retries: list[BatchRetry] = []
        super().__init__(options, folder, self._retries.append, env)
        self.busy = 0  # shards

    async def run(self, items: Sequence[WorkItem]) -> ShardResult:
        """Do every item of a shard."""
        self.busy += 1
        try:
            outcomes = await asyncio.gather(*(self.fetch(item) for item in items))
        finally:
            self.busy -= 1
        retries, self._retries[:] = list(self._retries), []
        return ShardResult(outcomes, retries)
