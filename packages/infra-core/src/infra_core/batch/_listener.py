"""What the caller of a batch hears: each result, each retry, and how far it is."""

from collections.abc import Callable
from typing import Any

from infra_core.runtime import clock

from ._hooks import Hooks, call
from ._jobs import Job, JobBook
from ._results import HERE, BatchProgress, BatchResult, BatchRetry, Summary

__all__ = ["Listener"]

_PROGRESS_SECONDS = 0.5  # between two reports of the progress


class Listener:
    """Calls the hooks.

    Args:
        hooks: What the caller wants to hear.
        summary: Of the batch.
        book: Where retries are noted.
        list_ended: Whether the list was read to its end.

    Attributes:
        hooks: As given.
        settled: Jobs that have come to their end.
        started: When the run began, by the monotonic clock.
    """

    def __init__(
        self, hooks: Hooks, summary: Summary, book: JobBook, list_ended: Callable[[], bool]
    ) -> None:
        self.hooks = hooks
        self.settled = 0
        self.started = clock.monotonic()
        self._summary = summary
        self._book = book
        self._list_ended = list_ended
        self._reported = 0.0

    def report(self, job: Job, record: Any, status: Any, **facts: Any) -> None:
        """Report a job that has come to its end.

        Args:
            job: The job.
            record: As it was stored.
            status: What became of it.
            **facts: Fields of the `BatchResult` that the record does not have.
        """
        self.settled += 1
        if self.hooks.on_result is not None:
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
            call(self.hooks.on_result, result)
        self.progress()

    def retried(self, retry: BatchRetry) -> None:
        """Count and report a retry."""
        self._summary.retries += 1
        call(self.hooks.on_retry, retry)
        self._book.note(
            "retry", url=retry.url, attempt=retry.attempt, wait=retry.wait, cause=retry.error
        )

    def progress(self, *, last: bool = False) -> None:
        """Report how far the batch is, now and then."""
        if self.hooks.on_progress is None:
            return
        now = clock.monotonic()
        if not last and now - self._reported < _PROGRESS_SECONDS:
            return
        self._reported = now
        call(
            self.hooks.on_progress,
            BatchProgress(
                self.settled,
                self._summary.total,
                self._list_ended(),
                self._summary.bytes_downloaded,
                now - self.started,
            ),
        )
