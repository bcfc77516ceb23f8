"""What a batch works with: opened from settings or handed in, closed in the right order."""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.fs import file_hexdigest

from ._environment import environment_of, open_jobs, open_mirror, table_of
from ._folder import (
    ASSETS,
    JOBS_FILE,
    Reserve,
    check_assets,
    exclusive,
    make_folder,
    run_folder,
)
from ._index import JobIndex
from ._names import INCOMING
from ._results import Summary

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord, JobStore
    from infra_core.azure.monitoring import HeartbeatMonitor, RunLogWriter, TelemetryClient
    from infra_core.azure.storage import AzureStorageClient

    from ._claims import Claims
    from ._options import BatchOptions

__all__ = ["Services", "open_services"]

_FLUSH_SECONDS = 5.0
_BEAT_SECONDS = 5.0


@dataclass(eq=False, repr=False)
class Services:
    """What a batch works with."""

    options: "BatchOptions"
    folder: Path
    env: Mapping[str, str]  # of one service where a prefix is given
    store: "JobStore[JobRecord]"
    fresh: bool  # whether the store was made by this run, so that it holds nothing
    storage: "AzureStorageClient | None"
    log: "RunLogWriter"
    heartbeat: "HeartbeatMonitor"
    telemetry: "TelemetryClient"
    index: JobIndex
    summary: Summary
    reserve: Reserve
    claims: "Claims | None" = None  # where several runs share the store

    async def is_mirrored(self, path: Path, stored: Mapping[str, Any]) -> bool:
        """Whether the container holds a blob of the file's size, and its MD5 where it has one."""
        assert self.storage is not None  # noqa: S101 - the caller looked
        found = await self.storage.stat_async(path)
        if found is None or found.size != stored.get("size"):
            return False
        if found.md5 is None or self.options.scratch is not None:  # the container has the only copy
            return True
        return found.md5.hex() == await asyncio.to_thread(file_hexdigest, path, "md5")

    def url_of(self, name: str) -> str | None:
        """The URL of a mirrored file."""
        if self.storage is None:
            return None
        return self.storage.blob_url_for_name(self.storage.blob_name_for_path(self.folder / name))


async def open_services(
    options: "BatchOptions",
    stack: AsyncExitStack,
    *,
    env: Mapping[str, str] | None = None,
    storage: "AzureStorageClient | None" = None,
    store: "JobStore[JobRecord] | None" = None,
    on_trouble: Callable[[Exception], None],
) -> Services:
    """Open what the options and the environment ask for; the stack closes it, in reverse order.

    `env`, `storage` and `store` are those of `run_batch_async`; `on_trouble` is called with each
    failure of the heartbeat, in its thread.
    """
    from infra_core.azure.monitoring import (
        HeartbeatMonitor,
        RunLogWriter,
        TelemetryClient,
        TelemetryConfig,
    )
    from infra_core.fs import remove_stale_partials

    variables = environment_of(os.environ if env is None else env, options.prefix)
    folder = run_folder(options.out, options.batch_id)
    summary = Summary(
        batch_id=options.batch_id, folder=str(folder), skip_malformed=options.skip_malformed
    )
    if storage is None:
        storage = open_mirror(options, variables, base_path=options.out)
        if storage is not None:
            stack.push_async_callback(storage.aclose)
    elif not storage.is_configured():
        storage = None
    make_folder(folder)
    check_assets(folder)
    stack.enter_context(exclusive(folder))
    for place in (folder, folder / "_state"):  # of a run that was killed while it wrote
        remove_stale_partials(place, older_than=0.0)
    if options.resume and (folder / ASSETS).exists():
        await asyncio.to_thread(_sweep, folder / ASSETS)
    jobs_file = options.out / JOBS_FILE
    fresh = False
    if store is None:
        table = table_of(variables)
        fresh = not table and not jobs_file.exists()
        store = open_jobs(variables, sqlite_path=jobs_file)
        stack.callback(store.close)
        summary.jobs = "Table Storage" if table else str(jobs_file)
    reserve = Reserve(folder)
    stack.callback(reserve.release)
    index = JobIndex()
    stack.callback(index.close)
    claims = None
    if not hasattr(store, "path"):  # no file of this machine, but a table
        from ._claims import Claims

        claims = Claims(store, options, folder)
        stack.callback(claims.close)
    log = RunLogWriter(folder, azure_client=storage)
    stack.push_async_callback(asyncio.to_thread, log.close)
    telemetry = TelemetryClient(
        config=TelemetryConfig.from_env(env=variables),
        service_name="infra-core run",
        journal=log,  # events survive a killed process
    )
    stack.push_async_callback(asyncio.to_thread, telemetry.flush, _FLUSH_SECONDS)
    heartbeat = HeartbeatMonitor(
        folder,
        interval_seconds=_BEAT_SECONDS,
        azure_client=storage,
        log_writer=log,
        on_error=on_trouble,
    )
    stack.push_async_callback(_stop, heartbeat)
    heartbeat.start()
    return Services(
        options, folder, variables, store, fresh, storage, log, heartbeat, telemetry, index,
        summary, reserve, claims,
    )  # fmt: skip


def _sweep(assets: Path) -> None:
    """Remove what killed downloads left; the folders of a batch are this run's alone."""
    from infra_core.fs import remove_stale_partials

    shutil.rmtree(assets.parent / INCOMING, ignore_errors=True)  # none of it is recorded
    for folder, _, _ in os.walk(assets):
        remove_stale_partials(Path(folder), older_than=0.0)


async def _stop(heartbeat: "HeartbeatMonitor") -> None:
    with suppress(Exception):  # on_error was called with it
        await asyncio.to_thread(heartbeat.stop)
