"""The end of a job: its file named and recorded, mirrored, and reported; or why there is none."""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infra_core.runtime import ThreadBatcher

from ._download import outcome_of
from ._errors import one_line
from ._folder import move_files
from ._hooks import Listener, call
from ._jobs import Ended, Job, JobBook, completed, is_same, mirrored, named
from ._names import FileNames
from ._results import HERE, KEPT_FAILURES, Failure, Outcome

if TYPE_CHECKING:
    from infra_core.http.assets import DownloadResult

    from ._options import BatchOptions
    from ._services import Services

__all__ = ["Finisher"]

_SETTLED_TOGETHER = 256


class Finisher:
    """Brings jobs that are at work to their ends.

    Args:
        options: Of the batch.
        services: What it works with.
        book: Where jobs are recorded.
        names: Names their files.
        listener: Hears of each.
        end_early: Called with the reason why the run should end now.

    Attributes:
        active: The jobs that are at work, each as it was recorded last.
    """

    def __init__(
        self,
        options: "BatchOptions",
        services: "Services",
        book: JobBook,
        names: FileNames,
        listener: Listener,
        end_early: Callable[[str], object],
    ) -> None:
        self._options = options
        self._services = services
        self._book = book
        self._names = names
        self._listener = listener
        self._end_early = end_early
        self._summary = services.summary
        self._settler: ThreadBatcher[Ended] = ThreadBatcher(
            book.settle, size=_SETTLED_TOGETHER, workers=1
        )
        self.active: dict[str, Job] = {}
        self._paths: dict[str, str] = {}  # of the files that are under way, to their jobs
        self._lacking = 0  # downloads that were put back

    def begin(self, jobs: list[Job]) -> None:
        """Take jobs that are at work from now on."""
        for job in jobs:
            self.active[job.job_id] = job
            self._paths[self._full(job)] = job.job_id

    def _full(self, job: Job) -> str:
        return f"{self._services.folder}{os.sep}{os.path.normpath(job.path)}"  # a Path is slow

    def committed(self, results: "list[DownloadResult]") -> list[Exception | None]:
        """Record files that have become durable together; in the thread that made them so.

        Returns:
            As `record`.
        """
        jobs = [self.active[self._paths[str(result.path)]] for result in results]
        return self.record(
            [(job, outcome_of(job, result)) for job, result in zip(jobs, results, strict=True)]
        )

    def record(self, done: list[tuple[Job, Outcome]]) -> list[Exception | None]:
        """Record jobs whose files are durable, as soon as these have their names; in a thread.

        Returns:
            An entry for each: None, or why the file could not be given its name.
        """
        paths = [self._names.final_path(job.item, outcome, job.path) for job, outcome in done]
        moves = [(job.path, to) for (job, _), to in zip(done, paths, strict=True)]
        errors = move_files(self._services.folder, moves)
        ended = []
        for (job, outcome), to, error in zip(done, paths, errors, strict=True):
            if error is None:
                record = completed(job.record, outcome if to == job.path else named(outcome, to))
                self.active[record.job_id] = job._replace(record=record)
                ended.append(Ended(record, "job_completed", {"attempts": outcome.attempts}))
        if ended:
            self._book.settle(ended)
        return errors

    async def keep(self, job: Job) -> None:
        """Settle a job whose file an earlier run has brought."""
        self._summary.skipped += 1
        sent = await self._mirror(job, job.record)
        self._listener.report(job, job.record, "kept", mirrored=sent)

    async def end(self, job: Job, outcome: Outcome) -> None:
        """Mirror the file of a job that is recorded, or record why there is none."""
        summary = self._summary
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
        self._listener.report(job, record, status, attempts=outcome.attempts, mirrored=sent)

    def _release(self, job: Job) -> Any:
        """Forget a job that has ended; returns its record."""
        del self._paths[self._full(job)]
        return self.active.pop(job.job_id).record

    async def _fail(self, job: Job, outcome: Outcome) -> None:
        summary, cause = self._summary, outcome.error or "unknown"
        late = outcome.status == "timed_out"
        if job.former is not None:  # the file that is here stays, and so does its record
            record, ended = job.former, Ended(job.former, "", changed=False)
            self._book.note("revalidation_failed", job=record, error=cause)
        else:
            record = job.record.time_out(cause) if late else job.record.fail(cause)
            ended = Ended(record, "job_failed", {"error": cause}, ok=False)
        summary.failed += 1
        bound = self._options.max_failures
        if bound is not None and summary.failed > bound:  # before others are asked for meanwhile
            self._end_early(f"{summary.failed} URLs failed, more than max_failures={bound}")
        if len(summary.failures) < KEPT_FAILURES:
            summary.failures.append(Failure(job.url, outcome.status, cause))
        try:
            await self._settler(ended)
        except asyncio.CancelledError:  # by a second signal, when it is counted already
            self._book.store_later(record)
        self._release(job)
        self._listener.report(
            job,
            record,
            outcome.status,
            attempts=outcome.attempts,
            error=cause,
            http_status=outcome.http_status,
        )

    def _put_back(self, job: Job, outcome: Outcome) -> None:
        """A full disk is not the URL's fault: the run ends, which puts the job back."""
        self._book.note("job_put_back", job=job.record, error=outcome.error)
        self._lacking += 1
        if self._lacking == 1:  # the others lack the same
            call(self._listener.hooks.on_event, "pending", f"{job.url}: {outcome.error}")
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
            content_type = stored.get("content_type")
            await storage.upload_file_async(path, raise_on_error=True, content_type=content_type)
        except asyncio.CancelledError:
            self._unsent(record, "the run was cut off by a second signal")
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
        call(self._listener.hooks.on_event, "unsent", f"{record.payload.get('url')}: {cause}")
        self._book.note("mirror_failed", job=record, error=cause)

    def settle_cut_off(self) -> None:
        """Count jobs whose file was recorded while a second signal cut them off."""
        from infra_core.azure.job_store import JobStatus

        for job in list(self.active.values()):
            if job.record.status is JobStatus.COMPLETED and job.record is not job.former:
                self._release(job)
                self._summary.succeeded += 1
                self._summary.bytes_downloaded += int(job.record.payload.get("size") or 0)
                sent = None if self._services.storage is None else False
                if sent is False:
                    self._unsent(job.record, "the run was cut off by a second signal")
                self._listener.report(job, job.record, "completed", attempts=1, mirrored=sent)
