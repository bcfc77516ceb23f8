"""A worker: claims jobs of a batch, works at several at a time, and settles each in the store."""

import asyncio
import inspect
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from infra_core.runtime import (
    RetryPolicy,
    RuntimeCancellationError,
    RuntimeConfig,
    RuntimeDrainedError,
    TaskRuntime,
    ThreadPool,
    clock,
    handle_signals,
    redact_secrets,
    refuse_running_loop,
)

from .._checks import require_number
from ..exceptions import JobConflictError, JobRecordError, JobStateError
from ._entity import LATEST
from ._protocol import JobStore
from ._records import JobRecord, JobStatus
from ._types import changed

if TYPE_CHECKING:
    from ._table_async import AsyncAzureTableJobStore

__all__ = ["WorkSummary", "work_batch", "work_batch_async"]

JobT = TypeVar("JobT", bound=JobRecord)

_log = logging.getLogger("infra_core.azure.job_store")

_RENEWALS = 3  # tries to renew a lease before it ends
_STORE_THREADS = 4


@dataclass
class WorkSummary:
    """What a worker did.

    Attributes:
        completed: Jobs that it completed.
        failed: Jobs that it gave up after `max_attempts`.
        retried: Attempts that failed and were put back to be tried again.
        lost: Attempts whose job another worker took or changed meanwhile; their result is dropped.
        signal: Number of the signal that ended it early, `None` otherwise.
    """

    completed: int = 0
    failed: int = 0
    retried: int = 0
    lost: int = 0
    signal: int | None = None


def work_batch(
    store: JobStore[JobT], batch_id: str, handler: Callable[[JobT], Any], **options: Any
) -> WorkSummary:
    """Work at a batch until none of its jobs is pending; for code without an event loop.

    Args:
        store: The store.
        batch_id: The batch.
        handler: As for `work_batch_async`.
        options: As for `work_batch_async`.

    Raises:
        RuntimeError: Called inside of a running event loop; await `work_batch_async` there.
    """
    refuse_running_loop("work_batch()", "work_batch_async()")
    return asyncio.run(work_batch_async(store, batch_id, handler, **options))


async def work_batch_async(
    store: "JobStore[JobT] | AsyncAzureTableJobStore[JobT]",
    batch_id: str,
    handler: Callable[[JobT], Any],
    *,
    worker: str = "",
    concurrency: int = 1,
    lease_seconds: float = 60.0,
    max_attempts: int = 3,
    retry_seconds: float = 1.0,
    max_retry_seconds: float = 300.0,
    poll_seconds: float = 1.0,
    grace: float = 30.0,
) -> WorkSummary:
    """Work at a batch until none of its jobs is pending and none of its own is under way.

    A job is claimed, its lease renewed for as long as the handler works, and then completed. A
    handler that raises puts it back, to be claimed again after a delay that doubles with each
    attempt; after `max_attempts` it has failed, with the last cause. In the main thread the first
    SIGINT or SIGTERM ends the claiming, what is under way has `grace` seconds, and what is
    cancelled then is put back at once.

    Args:
        store: The store; of `JobRecord` or records that inherit from it.
        batch_id: The batch.
        handler: Given the job; a plain function runs in a thread, a coroutine function, or what a
            plain one returns to be awaited, in the event loop. A mapping that it returns is merged
            into the payload; one that cannot be stored fails the job.
        worker: Name of the worker; host and process by default.
        concurrency: Jobs at a time.
        lease_seconds: How long a job stays with a worker that has died.
        max_attempts: How often a job is started at most.
        retry_seconds: Delay after the first failed attempt.
        max_retry_seconds: No delay is longer.
        poll_seconds: Seconds between two looks while jobs wait for their delay.
        grace: Seconds for what is under way when a signal comes.

    Raises:
        AzureTableError: The store failed; what was under way has ended before.
    """
    if not callable(handler):
        raise TypeError(f"handler={handler!r:.80} cannot be called: pass a function of one job")
    require_number("poll_seconds", poll_seconds, "0 or more seconds between two looks", least=0)
    runtime = TaskRuntime(config=RuntimeConfig(concurrency=concurrency))
    name = worker or f"{socket.gethostname()}-{os.getpid()}"
    policy = RetryPolicy(
        max_retries=max(max_attempts - 1, 0), backoff=retry_seconds, max_backoff=max_retry_seconds
    )
    threads = ThreadPool("infra-core-work", concurrency)
    work = _Work(store, batch_id, handler, name, lease_seconds, max_attempts, policy, threads)
    with ExitStack() as stack:
        signals = None
        if threading.current_thread() is threading.main_thread():
            signals = stack.enter_context(handle_signals(runtime, grace=grace))
        try:
            await runtime.run(work.jobs(poll_seconds))
        except (RuntimeDrainedError, RuntimeCancellationError):
            if signals is None or signals.received is None:
                raise
            work.summary.signal = int(signals.received)
    return work.summary


@dataclass
class _Work:
    """One worker at one batch."""

    store: Any
    batch: str
    handler: Callable[[Any], Any]
    worker: str
    lease: float
    max_attempts: int
    policy: RetryPolicy
    handlers: ThreadPool
    summary: WorkSummary = field(default_factory=WorkSummary)
    busy: int = 0

    def __post_init__(self) -> None:
        self.is_async = inspect.iscoroutinefunction(self.store.claim)
        self.threads = ThreadPool("infra-core-jobs", _STORE_THREADS)

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        call = partial(getattr(self.store, name), *args, **options)
        return await (call() if self.is_async else self.threads.run(call))

    async def jobs(self, poll: float) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Claim jobs until none is pending and none is under way."""
        limits: dict[str, Any] = {"lease_seconds": self.lease, "max_attempts": self.max_attempts}
        while True:
            claim = self._call("claim", self.batch, worker=self.worker, **limits)
            claiming = asyncio.ensure_future(claim)
            try:
                job = await asyncio.shield(claiming)
            except asyncio.CancelledError:  # the intake ends; what was just taken is put back
                if (job := await claiming) is not None:
                    await self._put_back(job)
                raise
            if job is not None:
                self.busy += 1
                yield job.job_id, partial(self._one, job)
            elif self.busy or await self._is_waiting():
                await asyncio.sleep(poll)
            else:
                return

    async def _is_waiting(self) -> bool:
        """Whether a job waits for its time; one that cannot be read is not waited for."""
        found = self.store.iter_runs(self.batch, status=JobStatus.PENDING)
        if self.is_async:
            return await anext(found, None) is not None
        return await self.threads.run(next, found, None) is not None

    async def _one(self, job: JobRecord) -> None:
        # In a task of its own: what cancels itself has failed, and is not cut off.
        handling = asyncio.ensure_future(self._handle(job))
        renewing = asyncio.ensure_future(self._renew(job, handling))
        try:
            try:
                await asyncio.wait([handling])
            except asyncio.CancelledError:
                handling.cancel()
                await asyncio.wait([handling, renewing])
                await self._put_back(renewing.result())
                raise
            await asyncio.wait([renewing])
            cancelled = RuntimeError("the handler was cancelled, though not by the worker")
            result, failure = (None, cancelled) if handling.cancelled() else handling.result()
            await self._end(renewing.result(), result, failure)
            if failure is not None and not isinstance(failure, Exception):
                raise failure  # such as SystemExit: the job is settled, and the worker ends
        finally:
            self.busy -= 1

    async def _handle(self, job: JobRecord) -> tuple[Any, BaseException | None]:
        """Return the result of the handler, or what it raised."""
        try:
            if inspect.iscoroutinefunction(self.handler):
                result = await self.handler(job)
            else:
                result = await self.handlers.run(self.handler, job)
            return await result if inspect.isawaitable(result) else result, None
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is the job's
            return None, error

    async def _end(self, job: JobRecord, result: Any, failure: BaseException | None) -> None:
        """Settle a job whose handler has returned or failed."""
        try:
            if failure is not None:
                await self._failed(job, failure)
                return
            done = job.complete()
            if isinstance(result, Mapping):  # whose keys may be of any type
                done = changed(done, payload={**done.payload, **result})
            if await self._settle(job, done):
                self.summary.completed += 1
        except (JobRecordError, JobStateError) as error:
            # The handler returned, or put into the job, what cannot be.
            stored = await self._call("fetch", self.batch, job.job_id)
            if stored is None or stored.etag != job.etag:
                self.summary.lost += 1
            else:
                await self._failed(stored, failure or error)

    async def _failed(self, job: JobRecord, error: BaseException) -> None:
        failed = job.fail(error)
        if job.attempts >= self.max_attempts:
            if await self._settle(job, failed):
                self.summary.failed += 1
            return
        try:
            delay = timedelta(seconds=self.policy.ceiling(job.attempts - 1))
            not_before = clock.utc_now() + delay
        except OverflowError:
            not_before = LATEST
        waiting = failed.requeue(not_before=not_before)
        if await self._settle(job, changed(waiting, error=failed.error)):
            self.summary.retried += 1

    async def _put_back(self, held: JobRecord) -> None:
        """Put back a job that was cut off, which is not an attempt that failed."""
        await self._settle(held, changed(held.requeue(), attempts=held.attempts - 1))

    async def _settle(self, held: JobRecord, job: JobRecord) -> bool:
        for _ in range(2):
            try:
                await self._call("update", job)
            except JobConflictError as conflict:
                renewed = _renewed(held, conflict.theirs)
                if renewed is None:
                    break
                job = changed(job, etag=renewed.etag)
            else:
                return True
        self.summary.lost += 1
        return False

    async def _renew(self, job: JobRecord, handling: "asyncio.Future[Any]") -> JobRecord:
        """Renew the lease until the handler has ended; return the version that was renewed last."""
        while not (await asyncio.wait([handling], timeout=self.lease / _RENEWALS))[0]:
            try:
                job = await self._call("renew", job, lease_seconds=self.lease)
            except JobConflictError as conflict:
                renewed = _renewed(job, conflict.theirs)
                if renewed is None:
                    break  # another worker has it: settling it says so
                job = renewed
            except Exception as error:  # noqa: BLE001 - the lease still runs: there is a next try
                text = redact_secrets(str(error))
                _log.warning("the lease of job %r was not renewed: %s", job.job_id, text)
        return job


def _renewed(held: JobRecord, stored: object) -> JobRecord | None:
    """Return what is stored of a job where that is as held, but for a renewal without an answer."""
    if isinstance(stored, JobRecord) and changed(stored, lease_until=held.lease_until) == held:
        return stored
    return None
