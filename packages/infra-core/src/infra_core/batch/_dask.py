"""Workers of a Dask cluster that do shards; those of one that dies are done again by others."""

import asyncio
import pickle
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.runtime import DaskTaskRuntime, RuntimeConfig, on_background_close, run_sync

from ._errors import BatchError, one_line
from ._shard import Shard, ShardResult, ShardRunner, share_of

if TYPE_CHECKING:
    from ._options import BatchOptions

__all__ = ["DaskWorkers"]

_WIDTH = 1_000  # shards at the cluster at most; the run bounds them by the cluster's threads
_runners: dict[str, ShardRunner] = {}
_stopped: set[str] = set()  # runs that are to begin nothing more


class DaskWorkers:
    """The workers of a cluster.

    Args:
        options: Of the batch.
        folder: The run's folder, as the workers see it.
        env: Variables that say where files are mirrored.
        client: A `distributed.Client`, a cluster, or a scheduler's address.
    """

    def __init__(
        self, options: "BatchOptions", folder: Path, env: Mapping[str, str], client: Any
    ) -> None:
        self._settings = (options, folder, dict(env))
        self._pickled = b""
        self._run_id = secrets.token_hex(8)
        self._stopping: asyncio.Future[Any] | None = None
        self._address = client
        self._client: Any = None
        self._runtime: DaskTaskRuntime | None = None
        self.width = 2

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
        self.width = 2 * sum(threads.values())
        options, *rest = self._settings
        self._pickled = pickle.dumps((share_of(options, len(threads)), *rest))
        self._runtime = DaskTaskRuntime(self._client, config=RuntimeConfig(concurrency=_WIDTH))

    async def run(self, shard: Shard) -> ShardResult:
        """Have a shard done by a worker.

        Raises:
            Exception: The scheduler is gone, or workers died over this shard again and again.
        """
        assert self._runtime is not None  # noqa: S101 - open() made it
        do: Any = partial(do_shard, self._run_id, self._pickled)
        async with self._runtime.map(do, [shard]) as results:
            async for result in results:
                found: ShardResult = result
                return found
        raise BatchError("the cluster returned nothing for a shard")

    def stop(self) -> None:
        """Have no worker begin another download."""
        if self._client is not None and self._stopping is None:
            stopping = self._client.run(stop_shards, self._run_id, on_error="ignore")
            self._stopping = asyncio.ensure_future(stopping)

    async def close(self, *, kill: bool = False) -> None:
        """End the connection; what is at the workers is cancelled there.

        Args:
            kill: Without effect here; the other kind of workers needs it.
        """
        if self._stopping is not None:
            self._stopping.cancel()
            await asyncio.gather(self._stopping, return_exceptions=True)
        if self._runtime is not None:
            await self._runtime.aclose()
        if self._client is not None:
            await self._client.close()
        self._runtime = self._client = None


def do_shard(run_id: str, settings: bytes, shard: Shard) -> ShardResult:
    """Do a shard; runs on a worker, whose connections live on in its background loop."""
    return run_sync(_do(run_id, settings, shard), what="a shard", instead="run_batch_async()")


def stop_shards(run_id: str) -> None:
    """Have the shards of a run begin no more downloads; runs on a worker, beside them."""
    _stopped.add(run_id)
    if run_id in _runners:
        _runners[run_id].stop()


async def _do(run_id: str, settings: bytes, shard: Shard) -> ShardResult:
    runner = _runners.get(run_id)
    if runner is None:
        for old in list(_runners):  # of a batch that has ended
            if not _runners[old].busy:
                await _runners.pop(old).close()
        runner = _runners[run_id] = ShardRunner(*pickle.loads(settings))  # noqa: S301 - from the coordinator
        on_background_close(runner.close)
        if run_id in _stopped:
            runner.stop()
        await runner.open()
    return await runner.run(shard)
