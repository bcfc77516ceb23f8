"""Some dozens of items in one event loop: what a process or a machine is handed at a time."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ._download import Downloads
from ._errors import one_line
from ._items import BatchItem
from ._names import INCOMING
from ._results import HERE, BatchRetry, Outcome

if TYPE_CHECKING:
    from infra_core.azure.storage import AzureStorageClient

    from ._jobs import Job
    from ._options import BatchOptions

__all__ = ["Shard", "ShardItem", "ShardResult", "ShardRunner", "Workers", "share_of"]


def share_of(options: "BatchOptions", workers: int) -> "BatchOptions":
    """The options of one of several workers: what bounds the whole run is shared out."""
    shares: dict[str, Any] = {}
    if options.limit_rate is not None:
        shares["limit_rate"] = max(1.0, options.limit_rate / workers)
    if options.rate_per_host is not None:
        shares["rate_per_host"] = max(0.000_001, options.rate_per_host / workers)
    if options.max_per_host is not None:
        shares["max_per_host"] = max(1, options.max_per_host // workers)
    return replace(options, **shares)


class ShardItem(NamedTuple):
    """What a worker needs of an item, its job and the path of its file below the run's folder.

    Attributes:
        job_id: Its job.
        item: What is asked for.
        path: Where its file goes.
        held: ETag and Last-Modified of the file, where that is here and may be current.
    """

    job_id: str
    item: BatchItem
    path: str
    held: tuple[str | None, str | None] = (None, None)

    @classmethod
    def of(cls, job: "Job") -> "ShardItem":
        """What is sent of a job: no metadata, and headers that can be pickled."""
        item = job.item
        headers = None if item.headers is None else dict(item.headers)
        needed = BatchItem(item.url, checksum=item.checksum, headers=headers)
        return cls(job.record.job_id, needed, job.path, job.held)


@dataclass(frozen=True)
class Shard:
    """What one worker is handed; it can be pickled, and done again when the worker dies."""

    items: Sequence[ShardItem]


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard.

    Attributes:
        outcomes: One for each item, in their order; None for an item that was not begun.
        retries: Downloads that were tried again.
        stopped: Why its worker begins no more downloads; empty while it does.
    """

    outcomes: Sequence[Outcome | None]
    retries: Sequence[BatchRetry]
    stopped: str = ""


class Workers(Protocol):
    """What does shards elsewhere than in this event loop.

    Attributes:
        width: Shards to hand out at a time.
    """

    width: int

    async def open(self) -> None:
        """Begin."""

    async def run(self, shard: Shard) -> ShardResult:
        """Have a shard done."""
        ...

    def stop(self) -> None:
        """Begin no more downloads; those under way come to their end."""

    async def close(self, *, kill: bool = False) -> None:
        """End; with `kill`, do not wait for the shards that are under way."""


class ShardRunner:
    """Does shards in the running event loop, any number at once, within one bound on downloads.

    Args:
        options: Of the batch.
        folder: The run's folder; files land below it.
        env: Variables that say where files are mirrored.

    Attributes:
        busy: Shards that it is at.
    """

    def __init__(self, options: "BatchOptions", folder: Path, env: Mapping[str, str]) -> None:
        self._options = options
        self._folder = folder
        self._env = env
        self._slots = asyncio.Semaphore(options.concurrency)
        self._stack = AsyncExitStack()
        self._storage: AzureStorageClient | None = None
        self._retries: list[BatchRetry] = []
        self._stopped = ""
        self._failed = 0
        self.busy = 0
        self._downloads = Downloads(options, folder, self._retries.append)

    async def open(self) -> None:
        """Open what the environment asks for."""
        from ._environment import open_mirror

        base = self._options.scratch or self._options.out
        self._storage = open_mirror(self._options, self._env, base_path=base)
        if self._storage is not None:
            self._stack.push_async_callback(self._storage.aclose)
        self._stack.push_async_callback(self._downloads.close)
        self._downloads.open()

    async def run(self, shard: Shard) -> ShardResult:
        """Download, and mirror, every item of a shard; nothing of an item raises."""
        self.busy += 1
        try:
            outcomes = await asyncio.gather(*(self._one(item) for item in shard.items))
        finally:
            self.busy -= 1
        retries, self._retries[:] = list(self._retries), []
        return ShardResult(outcomes, retries, self._stopped)

    def stop(self, why: str = "the run is to end") -> None:
        """Begin no more downloads; those under way come to their end."""
        self._stopped = self._stopped or why
        self._downloads.stop()

    async def _one(self, item: ShardItem) -> Outcome | None:
        async with self._slots:
            if self._stopped:
                return None
            outcome = await self._downloads.fetch(item.job_id, item.item, item.path, held=item.held)
            if outcome is None:
                return None
            self._look_at_bounds(outcome)
            if self._storage is None or outcome.status != "completed":
                return outcome
            if item.path.startswith(INCOMING):  # it has no name yet
                return outcome
            try:
                await self._storage.upload_file_async(
                    self._folder / item.path,
                    raise_on_error=True,
                    content_type=outcome.content_type,
                )
            except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
                return replace(outcome, mirrored=False, mirror_error=one_line(error))
            if self._options.scratch is not None:
                (self._folder / item.path).unlink(missing_ok=True)
            return replace(outcome, mirrored=True)

    def _look_at_bounds(self, outcome: Outcome) -> None:
        """Stop where the run is to end: it hears of an outcome only with all of its shard."""
        self._failed += outcome.status not in HERE
        bound = self._options.max_failures
        if outcome.by_load:
            self.stop(f"a worker's machine lacks something ({outcome.error})")
        elif bound is not None and self._failed > bound:
            self.stop(f"{self._failed} URLs failed at one worker, more than max_failures={bound}")

    async def close(self) -> None:
        """Close all connections."""
        await self._stack.aclose()
