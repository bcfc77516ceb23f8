"""The end of a job: its file named and recorded, mirrored, and reported; or why there is none."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infra_core.runtime import ThreadBatcher, clock

from ._download import WorkItem, failure_of
from ._errors import one_line
from ._folder import move_files
from ._jobs import Ended, Job, JobBook, completed, is_same, mirrored, named
from ._names import FileNames
from ._results import (
    HERE,
    KEPT_FAILURES,
    BatchProgress,
    BatchResult,
    BatchRetry,
    Failure,
    Hooks,
    Outcome,
)

if TYPE_CHECKING:
    from ._services import Services

__all__ = ["Finisher"]

_TOGETHER = 256  # jobs that are recorded in one transaction
_CUT_OFF = "the run was cut off by a second signal"
_PROGRESS_SECONDS = 0.5  # between two reports of the progress


@dataclass(eq=False, repr=False)
class Finisher:
    """Brings jobs that are at work to their ends, and reports them to the caller."""

    services: "Services"
    book: JobBook
    names: FileNames
    hooks: Hooks
    list_ended: Callable[[], bool]
    end_early: Callable[[str], object]
    active: dict[str, Job] = field(default_factory=dict)  # each as it was recorded last
    settled: int = 0  # jobs that have come to their end
    started: float = field(default_factory=clock.monotonic)

    def __post_init__(self) -> None:
        self._summary = self.services.summary
        self._recorder = ThreadBatcher(self._record, size=_TOGETHER, workers=1)
        self._settler = ThreadBatcher(self.book.settle, size=_TOGETHER, workers=1)

    def _record(self, done: list[tuple[Job, Outcome]]) -> list[Exception | None]:
        """Name durable files and record their jobs; in a thread.

        Returns:
            An entry for each: None, or why the file could not be given its name.
        """
        paths = [self.names.final_path(job.item, outcome, job.path) for job, outcome in done]
        moves = [(job.path, to) for (job, _), to in zip(done, paths, strict=True)]
        errors = move_files(self.services.folder, moves)
        ended = []
        for (job, outcome), to, error in zip(done, paths, errors, strict=True):
            if error is None:
                record = completed(job.record, outcome if to == job.path else named(outcome, to))
                self.active[record.job_id] = job._replace(record=record)
                ended.append(Ended(record, "job_completed", {"attempts": outcome.attempts}))
        if ended:
            self.book.settle(ended)
        return errors

    async def keep(self, job: Job) -> None:
        """Settle a job whose file an earlier run has brought."""
        self._summary.skipped += 1
        sent = await self._mirror(job, job.record)
        self._report(job, job.record, "kept", mirrored=sent)

    async def end(self, job: Job, outcome: Outcome) -> None:
        """Record the job of a file that is durable and mirror it, or record why there is none."""
        summary = self._summary
        if outcome.status == "completed":
            try:
                await self._recorder((job, outcome))
            except Exception as error:  # noqa: BLE001 - the file could not be given its name
                work, folder = WorkItem.of(job), self.services.folder
                outcome = failure_of(work, error, outcome.attempts, folder)
        if outcome.by_load:  # not the URL's fault: the run ends, which puts the job back
            self.book.note("job_put_back", job=job.record, error=outcome.error)
            self.end_early(f"this machine lacks something ({outcome.error})")
            return
        if outcome.status not in HERE:
            await self._fail(job, outcome)
            return
        record = self.active.pop(job.job_id).record
        unchanged = job.former is not None and is_same(record, job.former)
        if unchanged:
            self.book.note("job_unchanged", job=record)
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
        facts = {"attempts": outcome.attempts, "http_status": outcome.http_status}
        self._report(job, record, status, mirrored=sent, **facts)

    async def _fail(self, job: Job, outcome: Outcome) -> None:
        summary, cause = self._summary, outcome.error or "unknown"
        if job.former is not None:  # the file that is here stays, and so does its record
            record, ended = job.former, Ended(job.former, "", changed=False)
            self.book.note("revalidation_failed", job=record, error=cause)
        else:
            fail = job.record.time_out if outcome.status == "timed_out" else job.record.fail
            record = fail(cause)
            ended = Ended(record, "job_failed", {"error": cause})
        summary.failed += 1
        bound = self.services.options.max_failures
        if bound is not None and summary.failed > bound:  # before others are asked for meanwhile
            self.end_early(f"{summary.failed} URLs failed, more than max_failures={bound}")
        if len(summary.failures) < KEPT_FAILURES:
            summary.failures.append(Failure(job.url, outcome.status, cause))
        try:
            await self._settler(ended)
        except asyncio.CancelledError:  # by a second signal, when it is counted already
            self.book.store_later(record)
        del self.active[job.job_id]
        facts = {"attempts": outcome.attempts, "http_status": outcome.http_status}
        self._report(job, record, outcome.status, error=cause, **facts)

    async def _mirror(self, job: Job, record: Any) -> bool | None:
        """Upload a job's file unless that is done; a failure leaves it to the next run."""
        storage = self.services.storage
        if storage is None:
            return None
        stored = record.payload
        name = str(stored["path"])
        if stored.get("mirrored") and not self.services.options.verify_mirror:
            return True
        try:
            path = self.services.folder / name
            if stored.get("mirrored") and await self.services.is_mirrored(path, stored):
                return True
            content_type = stored.get("content_type")
            await storage.upload_file_async(path, raise_on_error=True, content_type=content_type)
        except asyncio.CancelledError:
            self._unsent(record, _CUT_OFF)
            return False
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
            self._unsent(record, one_line(error))
            return False
        self._summary.mirrored = (self._summary.mirrored or 0) + 1
        await self._settler(Ended(mirrored(record)))
        return True

    def _unsent(self, record: Any, cause: str) -> None:
        """Count and show a file that was not uploaded; a later run does it."""
        self._summary.mirror_failed += 1
        self.hooks.call("on_event", "unsent", f"{record.payload.get('url')}: {cause}")
        self.book.note("mirror_failed", job=record, error=cause)

    def settle_cut_off(self) -> None:
        """Count jobs whose file was recorded while a second signal cut them off."""
        from infra_core.azure.job_store import JobStatus

        for job in list(self.active.values()):
            if job.record.status is JobStatus.COMPLETED and job.record is not job.former:
                del self.active[job.job_id]
                self._summary.succeeded += 1
                self._summary.bytes_downloaded += int(job.record.payload.get("size") or 0)
                sent = None if self.services.storage is None else False
                if sent is False:
                    self._unsent(job.record, _CUT_OFF)
                self._report(job, job.record, "completed", attempts=1, mirrored=sent)

    def _report(self, job: Job, record: Any, status: Any, **facts: Any) -> None:
        """Report a job that has come to its end; `facts` are what its record does not have."""
        self.settled += 1
        if self.hooks.on_result is not None:
            stored = record.payload if status in HERE else {}
            names = ("path", "size", "checksum", "content_type")
            result = BatchResult(
                job_id=record.job_id,
                url=job.url,
                status=status,
                metadata=job.item.metadata,
                **{**{name: stored.get(name) for name in names}, **facts},
            )
            self.hooks.call("on_result", result)

    def pass_over(self, job: Job) -> None:
        """Count a job that another run has."""
        self._summary.elsewhere += 1
        self._report(job, job.record, "elsewhere")

    def retried(self, retry: BatchRetry) -> None:
        """Count and report a retry."""
        self._summary.retries += 1
        self.hooks.call("on_retry", retry)
        self.book.note(
            "retry", url=retry.url, attempt=retry.attempt, wait=retry.wait, cause=retry.error
        )

    async def show_progress(self) -> None:
        """Report again and again how far the batch is, until this is cancelled."""
        while self.hooks.on_progress is not None:
            await asyncio.sleep(_PROGRESS_SECONDS)
            self.progress()

    def progress(self) -> None:
        """Report how far the batch is."""
        progress = BatchProgress(
            settled=self.settled,
            read=self._summary.total,
            list_ended=self.list_ended(),
            bytes_downloaded=self._summary.bytes_downloaded,
            seconds=clock.monotonic() - self.started,
        )
        self.hooks.call("on_progress", progress)
