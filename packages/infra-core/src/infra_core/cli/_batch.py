"""The main job: download a list of URLs as one batch, and know of each what became of it.

The order of writes is what makes a killed run resumable: a job is recorded as pending before
anything starts, as running before its request is made, as completed only after its file is
verified and durable, and as mirrored only after its upload has succeeded.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.azure.job_store import JobRecord, JobStatus, JobStore
from infra_core.azure.run_report import human_size
from infra_core.fs import (
    compute_checksum,
    parse_checksum,
    remove_stale_partials,
    safe_join,
    unique_asset_path,
)
from infra_core.runtime import clock, sanitize_url

from ._arguments import CommandError
from ._errors import one_line, without_url
from ._report import Failure, Reporter, Summary, plural

if TYPE_CHECKING:
    from infra_core.azure.monitoring import HeartbeatMonitor, RunLogWriter
    from infra_core.azure.storage import AzureStorageClient
    from infra_core.http.assets import AssetDownloadClient, DownloadResult

__all__ = ["Batch", "BatchOptions", "Services", "job_id_of"]


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How a batch is run.

    Attributes:
        batch_id: Name of the batch; also its folder's name.
        concurrency: Downloads at a time.
        task_timeout: Seconds for one URL, retries included.
        resume: Continue a batch that exists.
        grace: Seconds that downloads in flight get to end after a signal.
        max_bytes: Largest file accepted, `None` for any.
    """

    batch_id: str
    concurrency: int
    task_timeout: float
    resume: bool
    grace: float
    max_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a batch works with; each is opened and closed by the caller."""

    downloads: "AssetDownloadClient"
    store: JobStore[JobRecord]
    storage: "AzureStorageClient"
    log: "RunLogWriter"
    heartbeat: "HeartbeatMonitor"
    reporter: Reporter


def job_id_of(url: str) -> str:
    """The job's id: 128 bits of the URL's SHA-256, the same in every run."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


class Batch:
    """One run of a batch over its folder.

    Args:
        options: How to run it.
        folder: The run's folder; files land below `folder/assets`.
        services: Stores, clients and reporters.
    """

    def __init__(self, options: BatchOptions, folder: Path, services: Services) -> None:
        self._options = options
        self._folder = folder
        self._services = services
        self._records: dict[str, JobRecord] = {}
        self._urls: dict[str, str] = {}
        self.summary = Summary(batch_id=options.batch_id, folder=str(folder))

    async def run(self, urls: Iterable[str]) -> Summary:
        """Download every URL that is not here already; returns what came of each.

        Raises:
            CommandError: The batch exists and is not to be resumed.
        """
        started = clock.monotonic()
        await self._open_jobs(list(urls))
        self.summary.total = len(self._urls)
        if self._services.storage.is_configured():
            self.summary.mirrored = 0
        self._services.reporter.begin(self.summary.total)
        self._note("batch_started", total=self.summary.total)
        try:
            await self._run_tasks()
        finally:
            await self._settle()
            self.summary.duration_seconds = clock.monotonic() - started
        return self.summary

    # -- jobs ---------------------------------------------------------------------------------

    async def _open_jobs(self, urls: list[str]) -> None:
        """Record every URL as a job before any of them starts."""
        batch_id = self._options.batch_id
        store = self._services.store
        known = {
            r.job_id: r for r in await asyncio.to_thread(lambda: list(store.iter_runs(batch_id)))
        }
        if known and not self._options.resume:
            raise CommandError(
                f"batch {batch_id!r} has {plural(len(known), 'job')} already; add --resume to "
                "continue it, or choose another --batch-id"
            )
        self._urls = {job_id_of(url): url for url in urls}
        new = [
            JobRecord(batch_id, job_id, payload={"url": sanitize_url(url)})
            for job_id, url in self._urls.items()
            if job_id not in known
        ]
        if new:
            await asyncio.to_thread(partial(store.save_many, new))
        self._records = known | {record.job_id: record for record in new}

    async def _save(self, record: JobRecord) -> JobRecord:
        saved = await asyncio.to_thread(partial(self._services.store.save, record))
        self._records[record.job_id] = saved
        return saved

    # -- tasks --------------------------------------------------------------------------------

    async def _run_tasks(self) -> None:
        from infra_core.runtime import (
            RuntimeCancellationError,
            RuntimeConfig,
            RuntimeDrainedError,
            TaskRuntime,
            handle_signals,
        )

        config = RuntimeConfig(
            concurrency=self._options.concurrency,
            task_timeout=self._options.task_timeout,
            cancel_grace=self._options.grace,
        )
        async with TaskRuntime(config=config) as runtime:
            with ExitStack() as stack:
                stack.enter_context(watch("infra_core.asset_client", "wait", self._on_retry))
                stack.enter_context(watch("infra_core.task_runtime", "signal", self._on_drain))
                signals = stack.enter_context(handle_signals(runtime, grace=self._options.grace))
                try:
                    await runtime.run(
                        self._tasks(), on_error=self._on_error, on_timeout=self._on_timeout
                    )
                except (RuntimeCancellationError, RuntimeDrainedError):
                    if signals.received is None:
                        raise
                finally:
                    if signals.received is not None:
                        self.summary.interrupted = signals.received.name

    def _tasks(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        for job_id, url in self._urls.items():
            yield job_id, partial(self._one, job_id, url)

    async def _one(self, job_id: str, url: str) -> None:
        """Bring one URL to its end: verified here already, or downloaded; then mirrored."""
        record = self._records[job_id]
        self._beat(job_id)
        if record.status is JobStatus.COMPLETED:
            if await asyncio.to_thread(partial(self._is_intact, record)):
                self.summary.skipped += 1
                self._services.reporter.line("kept", sanitize_url(url), "dim")
                self._note("job_kept", job=record)
                await self._mirror(record)
                self._services.reporter.advance()
                return
            record = record.requeue(force=True)
        elif record.status is JobStatus.RUNNING:  # an earlier run was killed here
            record = record.requeue()
        record = await self._save(record.start())
        result = await self._download(url)
        done = record.complete(
            path=result.path.relative_to(self._folder).as_posix(),
            checksum=result.checksum,
            size=result.size,
            content_type=result.mime,
            mirrored=False,
        )
        record = await self._save(done)
        self.summary.succeeded += 1
        self.summary.bytes_downloaded += result.size or 0
        self._services.reporter.line("ok", f"{sanitize_url(url)} ({human_size(result.size or 0)})")
        self._note("job_completed", job=record, attempts=result.attempts)
        await self._mirror(record)
        self._services.reporter.advance(result.size or 0)

    async def _download(self, url: str) -> "DownloadResult":
        target = unique_asset_path(self._folder / "assets", url)
        result = await self._services.downloads.download(
            url, target, skip_if_exists=False, max_bytes=self._options.max_bytes
        )
        # The folder is this URL's alone and the batch is locked: what is partial in it now was
        # left by a run that was killed, and is of no use any more.
        remove_stale_partials(target.parent, older_than=0.0)
        return result

    def _is_intact(self, record: JobRecord) -> bool:
        """Whether the file of a completed job is here with the bytes that were verified."""
        stored = record.payload
        try:
            path = safe_join(self._folder, str(stored["path"]))
            algorithm, expected = parse_checksum(str(stored["checksum"]))
            return path.is_file() and compute_checksum(path, algorithm) == expected
        except (KeyError, ValueError, OSError):
            return False  # an unreadable file or record is a reason to download again

    async def _mirror(self, record: JobRecord) -> None:
        """Upload the job's file unless that is done; a failure leaves it to the next run."""
        storage = self._services.storage
        if not storage.is_configured() or record.payload.get("mirrored"):
            return
        path = safe_join(self._folder, str(record.payload["path"]))
        try:
            await storage.upload_file_async(path, raise_on_error=True)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
            self._unsent(record, error)
            return
        self.summary.mirrored = (self.summary.mirrored or 0) + 1
        await self._save(replace(record, payload={**record.payload, "mirrored": True}))

    # -- what goes wrong ----------------------------------------------------------------------

    def _on_retry(self, record: logging.LogRecord) -> None:
        """Count and show a retry; the download client logs each with its attempt and wait."""
        self.summary.retries += 1
        url, attempt, wait, cause = (
            getattr(record, name, None) for name in ("url", "attempt", "wait", "cause")
        )
        cause = " ".join(without_url(str(cause), str(url)).split())[:300]
        text = f"{url}: attempt {attempt} failed, next in {wait:.2f} s ({cause})"
        self._services.reporter.line("retry", text, "yellow")
        self._note("retry", url=url, attempt=attempt, wait=wait, cause=cause)

    async def _on_error(self, job_id: str, error: Exception) -> None:
        if self._is_here(job_id, error):
            return
        await self._fail(job_id, self._records[job_id].fail(one_line(error)), "failed", error)

    async def _on_timeout(self, job_id: str, *_: object) -> None:
        cause = TimeoutError(f"not done within {self._options.task_timeout:g} s (--task-timeout)")
        if self._is_here(job_id, cause):
            return
        await self._fail(job_id, self._records[job_id].time_out(str(cause)), "timed out", cause)

    def _is_here(self, job_id: str, error: Exception) -> bool:
        """Whether only the upload was cut off: the file is whole, and its job stays completed."""
        record = self._records[job_id]
        if record.status is not JobStatus.COMPLETED:
            return False
        self._unsent(record, error)
        self._services.reporter.advance()
        return True

    def _unsent(self, record: JobRecord, error: Exception) -> None:
        """Count and show a file that was not uploaded; a later run with --resume does it."""
        self.summary.mirror_failed += 1
        url = str(record.payload.get("url"))
        self._services.reporter.line("unsent", f"{url}: {one_line(error)}", "yellow")
        self._note("mirror_failed", job=record, error=one_line(error))

    async def _fail(self, job_id: str, record: JobRecord, mark: str, error: Exception) -> None:
        url = sanitize_url(self._urls[job_id])
        cause = without_url(one_line(error), url)
        self.summary.failed += 1
        self.summary.failures.append(Failure(url, str(record.status), cause))
        self._services.reporter.line(mark, f"{url}: {cause}", "red")
        self._services.reporter.advance()
        self._note("job_failed", job=record, error=cause)
        try:
            await self._save(record)
        except Exception as unsaved:  # noqa: BLE001 - a full disk, a table out of reach
            self._records[job_id] = record  # the summary still knows
            self._trouble("jobs were not recorded", unsaved)

    def _on_drain(self, record: logging.LogRecord) -> None:
        """Show that a signal was heard; the runtime logs each with its name."""
        self._services.reporter.line("drain", record.getMessage(), "yellow")

    async def _settle(self) -> None:
        """Put back what was cut off, so that the store never calls a dead job running."""
        cut = [self._records[j] for j in self._urls if self._records[j].status is JobStatus.RUNNING]
        if cut:
            try:
                await asyncio.to_thread(
                    partial(self._services.store.save_many, [record.requeue() for record in cut])
                )
            except Exception as unsaved:  # noqa: BLE001 - told; a resume puts them back as well
                self._trouble("jobs were not recorded", unsaved)
            for record in cut:
                self._records[record.job_id] = record.requeue()
        self.summary.pending = sum(
            self._records[job_id].status is JobStatus.PENDING for job_id in self._urls
        )
        self._beat(None)
        self._note("batch_ended", succeeded=self.summary.succeeded, failed=self.summary.failed)

    def _beat(self, job_id: str | None) -> None:
        """Tell the heartbeat what is under way; a beat that was not mirrored stops nothing."""
        with suppress(Exception):  # told by the heartbeat's on_error as it happened
            self._services.heartbeat.set_slug(job_id)

    def _note(self, event: str, *, job: JobRecord | None = None, **properties: Any) -> None:
        """Write an event to the run log."""
        if job is not None:
            properties |= {"job_id": job.job_id, "url": job.payload.get("url")}
        if "url" in properties:
            properties["url"] = sanitize_url(str(properties["url"]))
        try:
            self._services.log.write(event, batch_id=self._options.batch_id, **properties)
        except OSError as error:
            self._trouble("the run log has gaps", error)

    def _trouble(self, what: str, error: Exception) -> None:
        """Keep for the summary what went wrong beside the downloads, each kind once."""
        if not any(problem.startswith(what) for problem in self.summary.problems):
            self.summary.problems.append(f"{what}: {one_line(error)}")


@contextmanager
def watch(name: str, field: str, told: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Be told of the structured records of a logger that carry a certain field."""

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if hasattr(record, field):
                told(record)

    logger = logging.getLogger(name)
    handler = Watch()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
