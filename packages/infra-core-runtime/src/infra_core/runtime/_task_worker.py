"""What one worker does: run an item, judge how it ended, report it, take the next.

A worker passes nothing on from one item to the next: when an item was cancelled (by its timeout,
by the runtime, by itself) or has changed a context variable, the worker ends with it and a fresh
one goes on.
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from . import clock
from ._notes import add_note
from ._outcomes import TaskOutcome, TaskStatus
from ._redaction import redact_secrets
from ._retry import retry_async
from ._retry_policy import RetryDetails
from ._task_errors import BudgetSpentError, TaskTimeoutError, foreign_cancellation
from ._trace import trace_fields
from ._values import shown

if TYPE_CHECKING:
    from ._task_run import TaskRun

__all__ = ["Factory", "Worker", "call", "call_back", "work"]

logger = logging.getLogger("infra_core.task_runtime")

Factory = Callable[[], Awaitable[Any]]


class Worker:
    """Which item a worker is at, and what was decided about that item."""

    __slots__ = ("attempts", "began", "busy", "detached", "index", "task", "task_id", "verdict")

    def __init__(self, task_id: str, index: int) -> None:
        self.task_id = task_id
        self.index = index
        self.task: asyncio.Task[None] | None = None
        self.began = clock.monotonic()
        self.attempts = 0  # 0: its first step has not come yet
        self.busy = True  # inside an item, as opposed to reporting it
        self.verdict: TaskStatus | None = None  # why the runtime cancelled the item
        self.detached = False  # left behind: what it still does concerns nobody


async def work(  # noqa: C901 - the hot loop: a call per step would double its cost
    run: "TaskRun", worker: Worker, factory: Factory
) -> None:
    """Run this item and all that can be taken after it."""
    options = run.options
    timeout = run.timeout if options.timed else None
    retry = options.retry
    own_task = options.config.own_task
    quiet = options.sink is None and options.on_outcome is None and options.on_progress is None
    stats = run.stats
    take = run.intake.take
    context = run.intake.context
    succeeded = TaskStatus.SUCCEEDED
    monotonic = clock.monotonic
    task = worker.task = asyncio.current_task()
    while True:
        worker.began = began = monotonic()
        value: Any = None
        error: BaseException | None = None
        status = succeeded
        try:
            if worker.verdict is not None:
                raise asyncio.CancelledError
            if timeout is not None:
                run.set_deadline(worker, timeout)
            if retry is None:
                worker.attempts = 1
                value = await factory()
            else:
                worker.attempts = 0
                value = await _attempts(run, worker, factory)
        except asyncio.CancelledError as caught:
            status, error = TaskStatus.CANCELLED, caught
        except Exception as caught:  # noqa: BLE001 - reported below
            status, error = TaskStatus.FAILED, caught
        except BaseException as caught:
            worker.busy = False
            run.close(worker, TaskStatus.FAILED, None, caught, monotonic() - began)
            raise  # KeyboardInterrupt and SystemExit stop the loop; fail() is called with it
        worker.busy = False
        if timeout is not None:
            run.clear_deadline(worker)
        if worker.detached:
            return
        now = monotonic()
        if quiet and status is succeeded:
            stats.succeeded += 1
            stats.durations.add(now - began)
        else:
            await _report(run, worker, status, value, error, now - began)
            value = error = None
        if worker.verdict is not None or own_task or _cancel_requested(task):
            return
        if now > run.slice_end and run.starved(now):
            await asyncio.sleep(0)
        item = take()
        if item is None:
            return
        worker.task_id, factory = item
        try:
            clean = copy_context() == context
        except Exception:  # noqa: BLE001 - a variable's value that refuses to be compared
            clean = False
        if not clean:
            run.replace(worker, item)
            return
        worker.index = stats.started - 1
        worker.busy = True


async def _attempts(run: "TaskRun", worker: Worker, factory: Factory) -> Any:
    """Run an item under the retry policy."""
    options = run.options

    async def attempt() -> Any:
        worker.attempts += 1
        if worker.attempts > 1:
            run.stats.retries += 1
            if options.pacer is not None:
                await clock.sleep_async(options.pacer.reserve(clock.monotonic()))
        return await factory()

    assert options.retry is not None  # noqa: S101 - for the type checker
    return await retry_async(
        attempt,
        policy=options.retry,
        should_retry=options.should_retry or _always,
        on_retry=partial(_log_retry, worker.task_id),
    )


def _log_retry(task_id: str, details: RetryDetails) -> None:
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "task %r failed in attempt %d, next in %.2f s: %s",
            task_id,
            details.attempt,
            details.wait,
            redact_secrets(repr(details.error)),
            extra={"task_id": task_id, "attempt": details.attempt, **trace_fields()},
        )


def _always(error: Exception) -> bool:
    return True


def _cancel_requested(task: "asyncio.Task[Any] | None") -> bool:
    """Say whether somebody has cancelled this task and nothing has taken that back.

    `cancelling()` exists from 3.11 on. `_must_cancel` is what 3.10 has, and what 3.11 and 3.12
    leave set when an item cancels its own task and returns without another await; without it the
    next item would get that cancellation.
    """
    cancelling = getattr(task, "cancelling", None)
    return bool((cancelling is not None and cancelling()) or getattr(task, "_must_cancel", False))


async def _absorb_cancellation(worker: Worker) -> None:
    """Make the worker's task fit for callbacks after a cancellation meant for its item."""
    uncancel = getattr(worker.task, "uncancel", None)
    while uncancel is not None and uncancel():
        pass
    if getattr(worker.task, "_must_cancel", False):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def _report(
    run: "TaskRun",
    worker: Worker,
    status: TaskStatus,
    value: Any,
    error: BaseException | None,
    seconds: float,
) -> None:
    """Judge how the item ended, count it and tell whoever asked to be told."""
    verdict = worker.verdict
    if isinstance(error, BudgetSpentError) and run.timeout is not None:
        worker.verdict = status = TaskStatus.TIMED_OUT
        if error.left_behind:
            run.report_unresponsive(worker.task_id)
        error = TaskTimeoutError(worker.task_id, run.timeout, unresponsive=error.left_behind)
    elif status is TaskStatus.CANCELLED and verdict is None:
        # Cancelled by itself or from outside. When that is the whole loop being shut down, the
        # run is cancelled in the same sweep: let it hear of that before we judge.
        worker.verdict = status
        await _absorb_cancellation(worker)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        if not run.halted:
            cause = error
            error = foreign_cancellation(f"task {worker.task_id!r}", cause)
    elif verdict is not None or _cancel_requested(worker.task):
        worker.verdict = verdict or TaskStatus.CANCELLED  # no further item for this worker
        await _absorb_cancellation(worker)
        if status is TaskStatus.CANCELLED and verdict is TaskStatus.TIMED_OUT:
            assert run.timeout is not None  # noqa: S101 - for the type checker
            status = TaskStatus.TIMED_OUT
            error = TaskTimeoutError(worker.task_id, run.timeout)
    if type(error) is TypeError and error.__traceback__ and not error.__traceback__.tb_next:
        add_note(
            error,
            f"task {worker.task_id!r}: a task is a callable without arguments that returns an "
            "awaitable, such as an async function or functools.partial of one",
        )
    outcome = run.close(worker, status, value, error, seconds)
    await call_back(run, worker, status, error, outcome)


async def call_back(
    run: "TaskRun",
    worker: Worker,
    status: TaskStatus,
    error: BaseException | None,
    outcome: TaskOutcome[Any] | None,
) -> None:
    """Tell the callbacks how an item ended; without one for its end, a failure ends the run."""
    options = run.options
    if options.on_outcome is not None:
        await call(worker.task_id, options.on_outcome, outcome)
    if status is TaskStatus.TIMED_OUT:
        if options.on_timeout is not None:
            await call(worker.task_id, options.on_timeout, worker.task_id)
        elif not options.lenient and error is not None:
            run.fail(error)
    elif isinstance(error, Exception):
        if options.on_error is not None:
            await call(worker.task_id, options.on_error, worker.task_id, error)
        elif not options.lenient:
            run.fail(error)
    if options.on_progress is not None:
        await run.report_progress(clock.monotonic())


async def call(task_id: str, callback: Callable[..., Any], *args: object) -> None:
    """Call a callback, await what it returns if need be, log what it raises.

    And what it was to be told of: without it, the task's own error would be lost.
    """
    try:
        result = callback(*args)
        if result is not None and inspect.isawaitable(result):
            await result
    except Exception:
        logger.exception(
            "callback %s raised when told of %s; the run goes on",
            shown(callback),
            ", ".join(shown(arg) for arg in args),
            extra={"task_id": task_id, **trace_fields()},
        )
