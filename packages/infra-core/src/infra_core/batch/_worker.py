"""What downloads elsewhere than in the run's event loop: workers, and what they are handed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ._download import Downloads, WorkItem, ahead_of
from ._errors import BatchError, one_line
from ._names import INCOMING
from ._results import BatchRetry, Outcome

if TYPE_CHECKING:
    from infra_core.azure.storage import AzureStorageClient

    from ._jobs import Job
    from ._options import BatchOptions
    from ._services import Services

__all__ = ["WorkItem", "Worker", "Workers", "ahead_of", "share_of", "workers_of"]


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


class Workers(Protocol):
    """What does items: `Downloads` in this event loop, others elsewhere.

    Attributes:
        width: Items to hand out at a time.
    """

    width: int

    async def open(self) -> None:
        """Begin."""

    async def fetch(self, work: "Job") -> Outcome | None:
        """Have an item done; None where it was not begun, since the run is to end.

        Raises:
            Exception: Those elsewhere are gone, which is not the item's fault.
        """
        ...

    def stop(self) -> None:
        """Begin no more downloads; those under way come to their end."""

    async def close(self, *, kill: bool = False) -> None:
        """End; with `kill`, do not wait for the items that are under way."""


class Worker(Downloads):
    """Downloads items in the running event loop, any number at once, and mirrors them.

    Args:
        options: Of the batch.
        folder: The run's folder; files land below it.
        env: Variables that say where files are mirrored.
        on_retry: Called with each failed attempt that is followed by another.
    """

    def __init__(
        self,
        options: "BatchOptions",
        folder: Path,
        env: Mapping[str, str],
        on_retry: Callable[[BatchRetry], None],
    ) -> None:
        super().__init__(options, folder, on_retry)
        self._env = env
        self._storage: AzureStorageClient | None = None

    async def open(self) -> None:
        """Open what the environment asks for."""
        from ._environment import open_mirror

        base = self._options.scratch or self._options.out
        self._storage = open_mirror(self._options, self._env, base_path=base)
        if self._storage is not None:
            self._opened.push_async_callback(self._storage.aclose)
        await super().open()

    async def fetch(self, work: "WorkItem | Job") -> Outcome | None:
        """Download an item, and mirror it; nothing of an item raises."""
        outcome = await super().fetch(work)
        if outcome is None or self._storage is None or outcome.status != "completed":
            return outcome
        if work.path.startswith(INCOMING):  # it has no name yet
            return outcome
        try:
            await self._storage.upload_file_async(
                self._folder / work.path,
                raise_on_error=True,
                content_type=outcome.content_type,
            )
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
            return replace(outcome, mirrored=False, mirror_error=one_line(error))
        if self._options.scratch is not None:
            (self._folder / work.path).unlink(missing_ok=True)
        return replace(outcome, mirrored=True)


def workers_of(
    services: "Services",
    client: Any,
    *,
    on_retry: Callable[[BatchRetry], None],
    on_stopped: Callable[[str], None],
) -> "Workers":
    """What downloads: this process, others of this machine, or those of a cluster.

    Args:
        services: What the batch works with.
        client: Of a Dask cluster.
        on_retry: Called with each failed attempt that is followed by another.
        on_stopped: Called with the reason why a worker begins no more downloads.

    Raises:
        BatchError: Files would be removed that are mirrored nowhere.
    """
    options, folder = services.options, services.folder
    if options.scratch is not None:
        if services.storage is None:
            raise BatchError(
                "scratch (--scratch) removes files once they are mirrored, and no storage is "
                "configured: set AZURE_STORAGE_CONTAINER and how to sign in, or leave it out"
            )
        folder = options.scratch / options.batch_id
    if client is not None or options.dask is not None:
        from ._dask import DaskWorkers

        where = client or options.dask
        return DaskWorkers(options, folder.absolute(), services.env, where, on_retry, on_stopped)
    if options.processes > 1 or options.scratch is not None:
        from ._workers import ProcessWorkers

        return ProcessWorkers(options, folder, services.env, on_retry)
    return Downloads(options, folder, on_retry)
