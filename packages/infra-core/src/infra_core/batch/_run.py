"""The run of a batch: the list beside the downloads, each job to its end, everything recorded.

An item goes one way: read, seen in the index, recorded as pending, recorded as running, downloaded,
made durable, its line written, its row committed, mirrored, its row committed again, reported
to the caller. What is not in flight is in no memory.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.runtime import (
    RuntimeCancellationError,
    RuntimeConfig,
    RuntimeDrainedError,
    TaskRuntime,
    ThreadBatcher,
    clock,
    handle_signals,
)

from ._download import failure_of, outcome_of
from ._errors import BatchError, one_line
from ._folder import move_files
from ._hooks import Hooks, call
from ._intake import Intake
from ._items import BatchItem, Rejected
from ._jobs import Ended, Job, JobBook, completed, is_same, mirrored, named
from ._names import INCOMING, FileNames
from ._results import HERE, KEPT_FAILURES, BatchProgress, BatchResult, BatchRetry, Failure, Outcome
from ._shard import Shard, ShardItem
from ._starting import Starter

if TYPE_CHECKING:
    from infra_core.http.assets import DownloadResult

    from ._options import BatchOptions
    from ._services import Services

__all__ = ["BatchRun"]

_GROUP = 32  # jobs that are recorded as running together
_SETTLED_TOGETHER = 256
_CLAIMED_TOGETHER = 64
_LOOK_AGAIN = 2.0  # seconds between two looks at what other runs hold
_AHEAD = 4  # times the concurrency: items that wait for the network, the disk or their record
_MOST_AHEAD = 256


class _Runtime(TaskRuntime):
    """A runtime that says when it was told to stop, by a signal or by us."""

    def __init__(self, *, config: RuntimeConfig, on_stop: Callable[[], None]) -> None:
        super().__init__(config=config)
        self._on_stop = on_stop

    def stop(self) -> None:
        super().stop()
        self._on_stop()

    def cancel(self) -> None:
        super().cancel()
        self._on_stop()


class _Slot:
    """An item's turn on the network; given back once, as soon as its bytes are here."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = False

    async def take(self) -> None:
        await self._slots.acquire()
        self._held = True

    def leave(self, _size: int = 0) -> None:
        if self._held:
            self._held = False
            self._slots.release()


class BatchRun:
    """One run of a batch over its folder.

    Args:
        options: How.
        services: Where to: store, storage, log, heartbeat, downloads; opened by the caller.
        hooks: What the caller wants to hear.
    """

    def __init__(self, options: "BatchOptions", services: "Services", hooks: Hooks) -> None:
        self._options = options
        self._services = services
        self._hooks = hooks
        self.summary = services.summary
        self._index = services.index
        self._book = JobBook(
            services.store,
            services.log,
            services.heartbeat,
            services.index,
            services.summary,
            services.url_of,
            services.claims,
            on_lost=self._record_lost,
        )
        self._claims = services.claims
        self._names = FileNames(
            options.layout,
            services.index,
            content_disposition=options.content_disposition,
            adjust_extension=options.adjust_extension,
        )
        self._starter = Starter(options, services, self._book, self._names)
        self._settler: ThreadBatcher[Ended] = ThreadBatcher(
            self._book.settle, size=_SETTLED_TOGETHER, workers=1
        )
        self._active: dict[str, Job] = {}
        self._paths: dict[str, str] = {}  # of the files that are under way, to their jobs
        # In this process a task is an item: it waits for its turn on the network, and when its
        # bytes are here lets the next have it. Elsewhere it is a shard, two for each worker, so
        # that none waits for the next.
        workers = services.workers
        shared = self._claims is not None and workers is None
        # Of a shared table no run takes more than it can begin with.
        self._group = min(_GROUP, options.concurrency) if shared else _GROUP
        self._slots = asyncio.Semaphore(options.concurrency)
        ahead = min(_AHEAD * options.concurrency, _MOST_AHEAD)
        width = options.concurrency + ahead if workers is None else workers.width
        self._recording = False  # whether any jobs could be recorded
        self._lacking = 0  # downloads that were put back
        self._settled = 0
        self._started = clock.monotonic()
        self._told = 0.0
        self._intake: Intake | None = None
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._stop_event = asyncio.Event()
        self._runtime = _Runtime(
            config=RuntimeConfig(concurrency=width, cancel_grace=options.grace),
            on_stop=self._stop_reading,
        )

    # -- the whole -------------------------------------------------------------------------------

    async def run(
        self,
        source: Iterable[object] | AsyncIterable[object],
        conclude: Callable[[], Awaitable[object]],
    ) -> None:
        """Bring every item of the source to its end, or stop in order when told to.

        Args:
            source: The list.
            conclude: What is to be done at the end; a signal does not cut it off.

        Raises:
            BatchError: The batch exists and is not to be resumed.
            Exception: What the source raised, after the items before it have come to their end.
        """
        options, summary = self._options, self.summary
        with (
            handle_signals(self._runtime, grace=options.grace) as signals,
            self._watched_deadline(),
        ):
            try:
                await self._open()
                self._intake = Intake(source)
                self._intake.start()
                if self._stopping:
                    self._intake.stop()
                await self._runtime.run(self._tasks())
            except (RuntimeCancellationError, RuntimeDrainedError):
                pass  # by a signal or by a bound that was reached; the summary says which
            finally:
                self._settle_cut_off()
                if self._intake is not None:
                    self._intake.stop()
                if self._services.workers is not None:
                    await self._services.workers.close(kill=self._runtime.cancelled)
                await asyncio.to_thread(self._conclude)
                await conclude()
                if signals.received is not None:
                    summary.interrupted = signals.received.name
        self._progress(last=True)
        if self._intake is not None and self._intake.error is not None:
            raise self._intake.error

    def _stop_reading(self) -> None:
        self._stopping = True
        self._stop_event.set()
        if self._intake is not None:
            self._intake.stop()

    @contextmanager
    def _watched_deadline(self) -> Iterator[None]:
        """End the run early at its deadline; a run that has ended is left alone."""
        seconds = self._options.deadline
        if seconds is None:
            yield
            return
        why = f"the deadline of {seconds:g} s was reached"
        timer = self._loop.call_later(seconds, self._end_early, why)
        try:
            yield
        finally:
            timer.cancel()

    def _end_early(self, why: str) -> None:
        """Stop as after a signal, for a reason that the summary gives."""
        self.summary.trouble("ended early", f"{why}; resume the batch for the rest (--resume)")
        self._runtime.stop()

    def _record_lost(self, why: str) -> None:
        """Stop when jobs cannot be recorded; in whichever thread found that out."""

        def end() -> None:
            if not self._stopping:
                self._end_early(f"jobs cannot be recorded ({why})")

        with suppress(RuntimeError):  # the loop has ended, and with it the run
            self._loop.call_soon_threadsafe(end)

    async def _open(self) -> None:
        batch_id, store = self._options.batch_id, self._services.store
        if self._services.fresh:  # the store was made by this run
            known = 0
        elif self._claims is not None:  # rows are looked at when they are taken
            if not self._names.unique:  # but a name that is taken is not to be given away
                stored = _completed(store, batch_id)
                await asyncio.to_thread(self._index.load_paths, stored)
            known = await asyncio.to_thread(lambda: len(list(islice(store.iter_runs(batch_id), 1))))
        else:
            known = await asyncio.to_thread(
                lambda: self._index.load(store.iter_runs(batch_id), self._book.entries)
            )
        if known and not self._options.resume:
            jobs = "1 job" if known == 1 else f"{known} jobs"
            raise BatchError(
                f"batch {batch_id!r} has {jobs} already; resume it (--resume, resume=True), or "
                "choose another batch id"
            )
        if self._services.storage is not None:
            self.summary.mirrored = 0
        await asyncio.to_thread(self._book.note, "batch_started", known=known)
        await asyncio.to_thread(self._track, "started")

    def _settle_cut_off(self) -> None:
        """Count jobs whose file was recorded while a second signal cut them off."""
        from infra_core.azure.job_store import JobStatus

        for job in list(self._active.values()):
            if job.record.status is JobStatus.COMPLETED and job.record is not job.former:
                self._release(job)
                self.summary.succeeded += 1
                self.summary.bytes_downloaded += int(job.record.payload.get("size") or 0)
                sent = None if self._services.storage is None else False
                if sent is False:
                    self._unsent(job.record, "the run was cut off by a second signal")
                self._tell(job, job.record, "completed", attempts=1, mirrored=sent)

    def _conclude(self) -> None:
        if self._claims is not None:  # the manifest lists what all runs have brought
            with suppress(Exception):  # a table out of reach: it lists what this one has
                store = self._services.store
                self._index.load(_completed(store, self._options.batch_id), self._book.entries)
        with suppress(OSError):  # it is not empty, or was never made
            (self._services.folder / INCOMING).rmdir()
        self._services.reserve.release()
        self._book.conclude([job.record for job in self._active.values()])
        store_path = getattr(self._services.store, "path", None)
        if isinstance(store_path, Path) and not store_path.exists():
            self.summary.trouble(
                "jobs were not recorded",
                f"{str(store_path)!r} was removed while the batch ran; resume it (--resume)",
            )
        summary = self.summary
        done = summary.succeeded + summary.skipped + summary.failed + summary.elsewhere
        summary.list_ended = self._intake is not None and self._intake.ended
        summary.pending = summary.total - done
        summary.duration_seconds = clock.monotonic() - self._started
        self._book.beat(None)
        self._book.note("batch_ended", succeeded=summary.succeeded, failed=summary.failed)
        if self._intake is not None:  # else the batch was refused before it began
            event = "completed" if summary.complete else "failed"
            self._track(event, metadata={"failed": summary.failed})

    def _track(self, event: str, **properties: Any) -> None:
        """Track an event of the batch where telemetry is configured."""
        self._services.telemetry.track_event(event, batch_id=self._options.batch_id, **properties)

    # -- from the list to the tasks ----------------------------------------------------------------

    async def _tasks(self) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Yield each job when a download may begin; ends when jobs cannot be recorded."""
        async with aclosing(self._startable()) as tasks:
            try:
                async for task in tasks:
                    yield task
            except Exception as error:
                if not self._recording:  # nothing has begun: the settings are at fault
                    raise
                self._end_early(f"jobs cannot be recorded ({one_line(error)})")

    async def _startable(self) -> AsyncGenerator[tuple[str, Callable[[], Awaitable[None]]], None]:
        """Yield each job when a download may begin; the next ones are recorded meanwhile."""
        chunks = self._recorded()
        upcoming = asyncio.ensure_future(anext(chunks, None))
        try:
            while (chunk := await upcoming) is not None:
                upcoming = asyncio.ensure_future(anext(chunks, None))
                for start in range(0, len(chunk), self._group):
                    jobs = await self._begin(chunk[start : start + self._group])
                    self._recording = True
                    if self._services.workers is not None and jobs:
                        yield jobs[0].record.job_id, partial(self._shard, jobs)
                        continue
                    for job in jobs:
                        yield job.record.job_id, partial(self._one, job)
            async for job in self._deferred():
                yield job.record.job_id, partial(self._one, job)
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
            await chunks.aclose()

    async def _recorded(self) -> AsyncGenerator[list[Job], None]:
        """Yield what the list holds, each item recorded as pending unless it is known."""
        assert self._intake is not None  # noqa: S101 - run() made it
        async for entries in self._intake.chunks():
            items = [entry for entry in entries if isinstance(entry, BatchItem)]
            for entry in entries:
                if isinstance(entry, Rejected):
                    self.summary.rejected_lines += 1
                    call(self._hooks.on_rejected, entry)
            jobs, new, duplicates = await asyncio.to_thread(self._starter.see, items)
            self.summary.duplicates += len(duplicates)
            for item in duplicates:
                call(self._hooks.on_duplicate, item)
            self.summary.total += len(jobs)
            if new:
                await asyncio.to_thread(self._book.store, new)
            yield jobs

    def _activate(self, jobs: list[Job]) -> None:
        for job in jobs:
            self._active[job.record.job_id] = job
            self._paths[str(self._services.folder / job.path)] = job.record.job_id

    async def _begin(self, group: list[Job]) -> list[Job]:
        """Settle what is here already; the rest is recorded as running, and at work from now on."""
        begun = await self._starter.begin(group)
        for job in begun.elsewhere:
            self.summary.elsewhere += 1
            self._tell(job, job.record, "elsewhere")
        self.summary.total -= begun.passed_over
        self._activate(begun.started)
        return begun.kept + begun.started

    async def _deferred(self) -> AsyncIterator[Job]:
        """Wait for what other runs hold: it is done, fails, or is free when its lease ends."""
        claims, idle = self._claims, 0
        while claims is not None and not self._stopping:
            jobs = await asyncio.to_thread(claims.deferred, _CLAIMED_TOGETHER)
            if not jobs:
                return
            settled = self._settled
            for job in await self._begin(jobs):
                yield job
            idle = idle + 1 if self._settled == settled else 0
            if idle > 1:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stop_event.wait(), _LOOK_AGAIN)

    # -- one job -----------------------------------------------------------------------------------

    async def _one(self, job: Job) -> None:
        """Bring one item to its end: kept, or downloaded and recorded; then mirrored."""
        if job.record.job_id not in self._active:
            await self._keep(job)
            return
        slot = _Slot(self._slots)
        await slot.take()
        try:
            outcome = await self._services.downloads.fetch(
                job.record.job_id, job.item, job.path, slot.leave, held=job.held
            )
        finally:
            slot.leave()
        await self._end(job, outcome)

    async def _shard(self, jobs: list[Job]) -> None:
        """Have a shard done elsewhere."""
        workers = self._services.workers
        assert workers is not None  # noqa: S101 - the caller looked
        here = [job for job in jobs if job.record.job_id not in self._active]
        away = [job for job in jobs if job.record.job_id in self._active]
        await asyncio.gather(*(self._keep(job) for job in here))
        if not away:
            return
        shard = Shard([ShardItem(job.record.job_id, job.item, job.path, job.held) for job in away])
        try:
            result = await workers.run(shard)
        except Exception as error:  # noqa: BLE001 - workers died, a cluster is gone: not these URLs' fault
            if not self._stopping:
                self._end_early(one_line(error))
            return
        for retry in result.retries:
            self.retried(retry)
        ends = dict(zip((job.record.job_id for job in away), result.outcomes, strict=True))
        done = [(job, ends[job.record.job_id]) for job in away]
        done = [(job, outcome) for job, outcome in done if outcome.status == "completed"]
        errors = await asyncio.to_thread(self._record, done)
        for (job, outcome), refused in zip(done, errors, strict=True):
            if refused is not None:
                failure = failure_of(job.record.job_id, job.url, refused, outcome.attempts)
                ends[job.record.job_id] = failure
        await asyncio.gather(*(self._end(job, ends[job.record.job_id]) for job in away))

    def committed(self, results: "list[DownloadResult]") -> list[Exception | None]:
        """Record files that have become durable together; in the thread that made them so.

        Returns:
            An entry for each: None, or why it could not be given its name.
        """
        done = []
        for result in results:
            job = self._active[self._paths[str(result.path)]]
            done.append((job, outcome_of(job.record.job_id, job.path, result)))
        return self._record(done)

    def _record(self, done: list[tuple[Job, Outcome]]) -> list[Exception | None]:
        """Record jobs whose files are durable, as soon as these have their names; in a thread."""
        errors: list[Exception | None] = [None] * len(done)
        final = {
            number: self._names.final_path(job.item, outcome, job.path)
            for number, (job, outcome) in enumerate(done)
            if job.path.startswith(INCOMING)
        }
        if final:
            moves = [(done[number][0].path, path) for number, path in final.items()]
            for number, error in zip(final, move_files(self._services.folder, moves), strict=True):
                errors[number] = error
        ended = []
        for number, (job, outcome) in enumerate(done):
            if errors[number] is not None:
                continue
            if number in final:
                outcome = named(outcome, final[number])  # noqa: PLW2901 - as it is recorded
            record = completed(job.record, outcome)
            self._active[record.job_id] = job._replace(record=record)
            ended.append(Ended(record, "job_completed", {"attempts": outcome.attempts}))
        if ended:
            self._book.settle(ended)
        return errors

    async def _keep(self, job: Job) -> None:
        """Settle a job whose file an earlier run has brought."""
        self.summary.skipped += 1
        sent = await self._mirror(job, job.record)
        self._tell(job, job.record, "kept", mirrored=sent)

    async def _end(self, job: Job, outcome: Outcome) -> None:
        """Mirror the file of a job that is recorded, or record why there is none."""
        summary = self.summary
        if outcome.by_load:
            self._put_back(job, outcome)
            return
        if outcome.status not in HERE:
            await self._fail(job, outcome)
            return
        record = self._release(job)
        unchanged = job.former is not None and is_same(record, job.former)
        if unchanged:
            self._book.note("job_unchanged", job=record)
            summary.skipped += 1
            summary.unchanged += 1
        else:
            summary.succeeded += 1
        summary.bytes_downloaded += outcome.size or 0
        sent = outcome.mirrored
        if sent is None:
            sent = await self._mirror(job, record)
        elif sent:
            summary.mirrored = (summary.mirrored or 0) + 1
        else:
            self._unsent(record, outcome.mirror_error or "unknown")
        status = "unchanged" if unchanged else "completed"
        self._tell(job, record, status, attempts=outcome.attempts, mirrored=sent)

    def _release(self, job: Job) -> Any:
        """Forget a job that has ended; returns its record."""
        del self._paths[str(self._services.folder / job.path)]
        return self._active.pop(job.record.job_id).record

    async def _fail(self, job: Job, outcome: Outcome) -> None:
        summary, cause = self.summary, outcome.error or "unknown"
        late = outcome.status == "timed_out"
        if job.former is not None:  # the file that is here stays, and so does its record
            record, ended = job.former, Ended(job.former, "", changed=False)
            self._book.note("revalidation_failed", job=record, error=cause)
        else:
            record = job.record.time_out(cause) if late else job.record.fail(cause)
            ended = Ended(record, "job_failed", {"error": cause}, ok=False)
        summary.failed += 1
        if len(summary.failures) < KEPT_FAILURES:
            summary.failures.append(Failure(job.url, outcome.status, cause))
        await self._settler(ended)
        self._release(job)
        self._tell(
            job,
            record,
            outcome.status,
            attempts=outcome.attempts,
            error=cause,
            http_status=outcome.http_status,
        )
        bound = self._options.max_failures
        if bound is not None and summary.failed > bound and not self._stopping:
            self._end_early(f"{summary.failed} URLs failed, more than max_failures={bound}")

    def _put_back(self, job: Job, outcome: Outcome) -> None:
        """A full disk is not the URL's fault: the run ends, which puts the job back."""
        self._book.note("job_put_back", job=job.record, error=outcome.error)
        self._lacking += 1
        if self._lacking == 1:  # the others lack the same
            call(self._hooks.on_event, "pending", f"{job.url}: {outcome.error}")
        if not self._stopping:
            self._end_early(f"this machine lacks something ({outcome.error})")

    async def _mirror(self, job: Job, record: Any) -> bool | None:
        """Upload a job's file unless that is done; a failure leaves it to the next run."""
        storage = self._services.storage
        if storage is None:
            return None
        stored = record.payload
        name = str(stored["path"])
        if stored.get("mirrored") and not self._options.verify_mirror:
            return True
        try:
            path = self._services.folder / name
            if stored.get("mirrored") and await self._services.is_mirrored(path, stored):
                return True
            await self._services.upload(path, stored.get("content_type"))
        except asyncio.CancelledError:
            self._unsent(record, "the run was cut off by a second signal")
            return False
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
            self._unsent(record, one_line(error))
            return False
        self.summary.mirrored = (self.summary.mirrored or 0) + 1
        await self._settler(Ended(mirrored(record)))
        return True

    def _unsent(self, record: Any, cause: str) -> None:
        """Count and show a file that was not uploaded; a later run does it."""
        self.summary.mirror_failed += 1
        call(self._hooks.on_event, "unsent", f"{record.payload.get('url')}: {cause}")
        self._book.note("mirror_failed", job=record, error=cause)

    # -- what the caller hears ---------------------------------------------------------------------

    def _tell(self, job: Job, record: Any, status: Any, **facts: Any) -> None:
        self._settled += 1
        if self._hooks.on_result is not None:
            stored = record.payload if status in HERE else {}
            names = ("path", "size", "checksum", "content_type")
            known = {name: stored.get(name) for name in names}
            result = BatchResult(
                job_id=record.job_id,
                url=job.url,
                status=status,
                metadata=job.item.metadata,
                **{**known, **facts},
            )
            call(self._hooks.on_result, result)
        self._progress()

    def retried(self, retry: BatchRetry) -> None:
        """Count and report a retry."""
        self.summary.retries += 1
        call(self._hooks.on_retry, retry)
        self._book.note(
            "retry", url=retry.url, attempt=retry.attempt, wait=retry.wait, cause=retry.error
        )

    def _progress(self, *, last: bool = False) -> None:
        if self._hooks.on_progress is None:
            return
        now = clock.monotonic()
        if not last and now - self._told < 0.5:
            return
        self._told = now
        call(
            self._hooks.on_progress,
            BatchProgress(
                self._settled,
                self.summary.total,
                self._intake is not None and self._intake.ended,
                self.summary.bytes_downloaded,
                now - self._started,
            ),
        )


def _completed(store: Any, batch_id: str) -> Iterable[Any]:
    from infra_core.azure.job_store import JobStatus

    rows: Iterable[Any] = store.iter_runs(batch_id, status=JobStatus.COMPLETED)
    return rows
