"""What the caller of a batch hears of it while it runs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from infra_core.runtime import clock

from ._items import BatchItem, Rejected
from ._results import HERE, BatchProgress, BatchResult, BatchRetry, Summary

if TYPE_CHECKING:
    from ._jobs import Job, JobBook

__all__ = ["Hooks", "Listener", "call"]

_logger = logging.getLogger("infra_core.batch")
_PROGRESS_SECONDS = 0.5  # between two reports of the progress


@dataclass(frozen=True)
class Hooks:
    """Functions of the caller's; each is called in the event loop and must not block.

    Attributes:
        on_result: Called for each URL, when it has come to its end and is recorded.
        on_retry: Called for each failed attempt that is followed by another.
        on_progress: Called every half second while URLs come to their end, and once at the end.
        on_rejected: Called for each entry of the list that is no URL.
        on_duplicate: Called for each item whose URL stood in the list before.
        on_event: Called with a word and a text for what else a person wants to see.

    Raises:
        TypeError: One is an async function, or no function.
    """

    on_result: Callable[[BatchResult], object] | None = None
    on_retry: Callable[[BatchRetry], object] | None = None
    on_progress: Callable[[BatchProgress], object] | None = None
    on_rejected: Callable[[Rejected], object] | None = None
    on_duplicate: Callable[[BatchItem], object] | None = None
    on_event: Callable[[str, str], object] | None = None

    def __post_init__(self) -> None:
        for name, hook in vars(self).items():
            if iscoroutinefunction(hook) or iscoroutinefunction(getattr(hook, "__call__", None)):  # noqa: B004 - not whether it can be called
                raise TypeError(
                    f"{name} is an async function, and nothing would await it: pass a plain one, "
                    "which may start a task (asyncio.create_task) or fill a queue"
                )
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be a function, got {hook!r:.80}")


def call(hook: Callable[..., object] | None, *arguments: object) -> None:
    """Call a hook; what it raises is logged and ends nothing."""
    if hook is None:
        return
    try:
        hook(*arguments)
    except Exception:
        _logger.exception("a hook of the batch raised")


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
        self, hooks: Hooks, summary: Summary, book: "JobBook", list_ended: Callable[[], bool]
    ) -> None:
        self.hooks = hooks
        self.settled = 0
        self.started = clock.monotonic()
        self._summary = summary
        self._book = book
        self._list_ended = list_ended
        self._reported = 0.0

    def report(self, job: "Job", record: Any, status: Any, **facts: Any) -> None:
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
