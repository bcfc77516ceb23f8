"""The run of a batch: the list beside the downloads, each job to its end, everything recorded.

An item goes one way: read, seen in the index, recorded as running, downloaded,
made durable, its line written, its row committed, mirrored, its row committed again, reported
to the caller. What is not in flight is in no memory.
"""

import asyncio
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core._start import heard_signals
from infra_core.runtime import (
    RuntimeCancellationError,
    RuntimeConfig,
    RuntimeDrainedError,
    TaskRuntime,
    clock,
    handle_signals,
    until_done,
)

from ._download import WorkItem, workers_of
from ._errors import BatchError, one_line, plural
from ._finishing import Finisher
from ._intake import Intake
from ._items import BatchItem, Rejected
from ._jobs import Job, JobBook
from ._manifest import store_manifest
from ._names import INCOMING, FileNames
from ._results import Hooks
from ._starting import Starter

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord

    from ._services import Services

__all__ = ["BatchRun"]

_GROUP = 32  # jobs that are recorded as running together
_CLAIMED_TOGETHER = 64
_WAITING_FOR_HOSTS = 1_000  # jobs that no other has to wait for, in a list sorted by host
_LOOK_AGAIN = 2.0  # seconds between two looks at what other runs hold


class _Runtime(TaskRuntime):
    """A runtime that says when it is to stop, by a signal or by us."""

    def __init__(self, *, config: RuntimeConfig, on_stop: Callable[[], None]) -> None:
        super().__init__(config=config)
        self._on_stop = on_stop

    def stop(self) -> None:
        super().stop()
        self._on_stop()

    def cancel(self) -> None:
        super().cancel()
        self._on_stop()


class BatchRun:
    """One run of a batch over its folder, with services that the caller has opened."""

    def __init__(self, services: "Services", hooks: Hooks, client: Any = None) -> None:
        options = self._options = services.options
        self._services = services
        self._hooks = hooks
        self.summary = services.summary
        self._index = services.index
        self._book = JobBook(services, self._record_lost)
        self._claims = services.claims
        self._names = FileNames(options, services.index)
        self._starter = Starter(services, self._book, self._names)
        self._finisher = Finisher(
            services, self._book, self._names, hooks, self._has_ended, self._end_early
        )
        self._workers = workers_of(services, client, self._finisher.retried)
        # no run takes more of a shared table than it can begin with
        self._group = _GROUP if self._claims is None else min(_GROUP, options.concurrency)
        self._recording = False  # whether any jobs could be recorded
        self._ahead: dict[str, JobRecord] = {}  # recorded by no run; their turn is to come
        # why jobs are left as they are
        self._unreadable: list[str] = [] if self._claims is None else self._claims.unreadable
        self._intake: Intake | None = None
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []

    # -- the whole -------------------------------------------------------------------------------

    async def open(self, stack: AsyncExitStack) -> None:
        """Get ready to download, here or elsewhere; the stack ends it."""
        stack.push_async_callback(self._workers.close)
        await self._workers.open()
        options, width = self._options, self._workers.width
        bounded = options.max_per_host is not None or options.rate_per_host is not None
        if bounded and self._claims is None:  # a job is claimed for no longer than it may last
            width += _WAITING_FOR_HOSTS
        self._runtime = _Runtime(
            config=RuntimeConfig(concurrency=width, cancel_grace=options.grace),
            on_stop=self._stop_reading,
        )

    async def run(self, source: Iterable[object] | AsyncIterable[object]) -> None:
        """Bring every item of the source to its end, or stop in order at a signal or a bound.

        Raises:
            BatchError: The batch exists and is not to be resumed.
            Exception: What the source raised, after the items before it have come to their end.
            BaseException: What a hook raised that ends the program, once all is recorded.
        """
        options, summary = self._options, self.summary
        with ExitStack() as stack:
            signals = None  # Python allows their handlers in the main thread alone
            if threading.current_thread() is threading.main_thread():
                heard = handle_signals(self._runtime, signals=heard_signals(), grace=options.grace)
                signals = stack.enter_context(heard)
            stack.callback(self._loop.create_task(self._finisher.show_progress()).cancel)
            if (seconds := options.deadline) is not None:
                self._later(seconds, self._end_early, f"the deadline of {seconds:g} s was reached")
            try:
                await asyncio.to_thread(self._open)
                self._intake = Intake(source)
                self._hooks.on_raised = self._end_early
                if self._hooks.raised is not None:  # before there was anything to end
                    self._stopping.set()
                if self._stopping.is_set():
                    self._intake.stop()
                await self._work()
            except (RuntimeCancellationError, RuntimeDrainedError):
                pass  # by a signal or by a bound that was reached; the summary says which
            finally:
                self._finisher.settle_cut_off()
                # the caller may cancel again
                await until_done(asyncio.ensure_future(self._wind_up()))
                for timer in self._timers:
                    timer.cancel()
                if signals is not None and signals.received is not None:
                    summary.interrupted = signals.received.name
        self._finisher.progress()
        if self._hooks.raised is not None:
            raise self._hooks.raised
        if self._intake is not None and self._intake.error is not None:
            raise self._intake.error

    async def _wind_up(self) -> None:
        if self._intake is not None:
            self._intake.stop()
        await self._workers.close(kill=self._runtime.cancelled)  # a manifest needs a descriptor
        await asyncio.to_thread(self._conclude)
        await asyncio.to_thread(store_manifest, self._services)

    async def _work(self) -> None:
        """Run the tasks; their source is ours to close where it was not read to its end."""
        tasks = self._tasks()
        try:
            await self._runtime.run(tasks)
        finally:
            with suppress(RuntimeError):  # it does not come back, say from a store that hangs
                await tasks.aclose()

    def _stop_reading(self) -> None:
        self._stopping.set()
        self._workers.stop()
        if self._intake is not None:
            self._intake.stop()

    def _end_early(self, why: str) -> None:
        """Stop as after a signal, for a reason that the summary gives, unless this is under way."""
        if not self._stopping.is_set():
            self.summary.trouble("ended early", f"{why}; resume the batch for the rest (--resume)")
            self._later(self._options.grace, self._runtime.cancel)
            self._runtime.stop()

    def _later(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        """Call a function then, unless the run has ended."""
        self._timers.append(self._loop.call_later(seconds, function, *arguments))

    def _record_lost(self, why: str) -> None:
        """Stop when jobs cannot be recorded; in whichever thread found that out."""
        with suppress(RuntimeError):  # the loop has ended, and with it the run
            why = f"jobs cannot be recorded ({why})"
            self._loop.call_soon_threadsafe(self._end_early, why)

    def _open(self) -> None:
        """See what the store knows of the batch; in a thread."""
        batch_id, store = self._options.batch_id, self._services.store
        known = 0
        if self._claims is not None:  # rows are looked at when they are taken
            if not self._names.unique:  # but a name that is taken is not to be given away
                self._load_completed()
            known = len(list(islice(store.iter_runs(batch_id), 1)))
        elif not self._services.fresh:  # else the store was made by this run
            known = self._index.load(store.iter_runs(batch_id), self._book.entries)
            left = [job for job in getattr(store, "unreadable", ()) if job.batch_id == batch_id]
            self._unreadable.extend(job.reason for job in left)
            self._index.set_aside(job.job_id for job in left)
        if known and not self._options.resume:
            raise BatchError(
                f"batch {batch_id!r} has {plural(known, 'job')} already; resume it (--resume, "
                "resume=True), or choose another batch id"
            )
        if self._services.storage is not None:
            self.summary.mirrored = 0
        self._book.note("batch_started", known=known)
        self._track("started")

    def _load_completed(self) -> None:
        from infra_core.azure.job_store import JobStatus

        rows = self._services.store.iter_runs(self._options.batch_id, status=JobStatus.COMPLETED)
        self._index.load(rows, self._book.entries)

    def _conclude(self) -> None:
        if self._claims is not None:  # the manifest lists what all runs have brought
            with suppress(Exception):  # a table out of reach: it lists what this one has
                self._load_completed()
        with suppress(OSError):  # it is not empty, or was never made
            (self._services.folder / INCOMING).rmdir()
        self._services.reserve.release()
        active = [job.record for job in self._finisher.active.values()]
        self._book.conclude(active, list(self._ahead.values()))
        store_path = getattr(self._services.store, "path", None)
        if isinstance(store_path, Path) and not store_path.exists():
            self.summary.trouble(
                "jobs were not recorded",
                f"{str(store_path)!r} was removed while the batch ran; resume it (--resume)",
            )
        if why := self._unreadable:
            jobs = plural(len(why), "job")
            self.summary.trouble(f"{jobs} left as they are", f"unreadable, {why[0]}")
        summary = self.summary
        done = summary.succeeded + summary.skipped + summary.failed + summary.elsewhere
        summary.list_ended = self._has_ended()
        summary.pending = summary.total - done
        summary.duration_seconds = clock.monotonic() - self._finisher.started
        self._book.beat(None)
        self._book.note("batch_ended", succeeded=summary.succeeded, failed=summary.failed)
        if self._intake is not None:  # else the batch was refused before it began
            event = "completed" if summary.complete else "failed"
            self._track(event, metadata={"failed": summary.failed})

    def _has_ended(self) -> bool:
        """Whether the list was read to its end."""
        return self._intake is not None and self._intake.ended

    def _track(self, event: str, **properties: Any) -> None:
        """Track an event of the batch where telemetry is configured."""
        self._services.telemetry.track_event(event, batch_id=self._options.batch_id, **properties)

    # -- from the list to the tasks ----------------------------------------------------------------

    async def _tasks(self) -> AsyncGenerator[tuple[str, Callable[[], Awaitable[None]]], None]:
        """Yield each job when a download may begin; the next ones are recorded meanwhile.

        Ends when jobs cannot be recorded.
        """
        chunks = self._recorded()
        upcoming = asyncio.ensure_future(anext(chunks, None))
        try:
            while (chunk := await upcoming) is not None:
                upcoming = asyncio.ensure_future(anext(chunks, None))
                for start in range(0, len(chunk), self._group):
                    jobs = await self._begin(chunk[start : start + self._group])
                    self._recording = True
                    for job in jobs:
                        yield job.job_id, partial(self._one, job)
            async for job in self._deferred():
                yield job.job_id, partial(self._one, job)
        except Exception as error:
            if not self._recording:  # nothing has begun: the settings are at fault
                raise
            self._end_early(f"jobs cannot be recorded ({one_line(error)})")
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
            await chunks.aclose()

    async def _recorded(self) -> AsyncGenerator[list[Job], None]:
        """Yield what the list holds; a new job is recorded when it begins, or at the end."""
        assert self._intake is not None  # noqa: S101 - run() made it
        async for entries in self._intake.chunks():
            items = [entry for entry in entries if isinstance(entry, BatchItem)]
            for entry in entries:
                if isinstance(entry, Rejected):
                    self.summary.rejected_lines += 1
                    self._hooks.call("on_rejected", entry)
            jobs, new, duplicates = await asyncio.to_thread(self._starter.see, items)
            self.summary.duplicates += len(duplicates)
            for item in duplicates:
                self._hooks.call("on_duplicate", item)
            self.summary.total += len(jobs)
            self._ahead.update((record.job_id, record) for record in new)
            self._intake.take_note()
            yield jobs

    async def _begin(self, group: list[Job]) -> list[Job]:
        """Settle what is here already; the rest is recorded as running, and at work from now on."""
        begun = await self._starter.begin(group)
        for job in group:
            self._ahead.pop(job.job_id, None)
        for job in begun.elsewhere:
            self._finisher.pass_over(job)
        # What is not to be tried and not done either counts as pending.
        self.summary.total -= sum(job.record.is_terminal for job in begun.passed_over)
        self._finisher.active.update((job.job_id, job) for job in begun.started)
        return begun.kept + begun.started

    async def _deferred(self) -> AsyncIterator[Job]:
        """Wait for what other runs hold: it is done, fails, or is free when its lease ends."""
        claims, idle = self._claims, 0
        while claims is not None and claims.deferred and not self._stopping.is_set():
            number = min(_CLAIMED_TOGETHER, len(claims.deferred))
            jobs = [claims.deferred.popleft() for _ in range(number)]
            settled = self._finisher.settled
            for job in await self._begin(jobs):
                yield job
            idle = idle + 1 if self._finisher.settled == settled else 0
            if idle > 1 and claims.deferred:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _LOOK_AGAIN)

    # -- from the tasks to the files ---------------------------------------------------------------

    async def _one(self, job: Job) -> None:
        """Bring one item to its end: kept, or downloaded and recorded; then mirrored."""
        if job.job_id not in self._finisher.active:
            await self._finisher.keep(job)
            return
        try:
            outcome = await self._workers.fetch(WorkItem.of(job))
        except Exception as error:  # noqa: BLE001 - workers died, a cluster is gone: not the URL's fault
            self._end_early(one_line(error))
            return
        if outcome is not None:  # else its turn came too late: the end of the run puts it back
            await self._finisher.end(job, outcome)
