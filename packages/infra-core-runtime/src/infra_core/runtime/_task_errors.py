"""The errors of the task runtime.

    RuntimeError
     +-- RuntimeCancellationError      the run was cancelled, in any way
          +-- RuntimeDrainedError      intake was stopped; everything that had begun was finished
    TimeoutError
     +-- TaskTimeoutError              one task ran into `RuntimeConfig.task_timeout`

A task's own exception comes through as it is.
"""

import asyncio
import sys
from functools import partial

__all__ = [
    "BudgetSpentError",
    "RuntimeCancellationError",
    "RuntimeDrainedError",
    "TaskTimeoutError",
    "foreign_cancellation",
]


class RuntimeCancellationError(RuntimeError):
    """The run was cancelled before all of its tasks were done.

    Attributes:
        unresponsive: Ids of the tasks that still ran when `cancel_grace` was over, because they
            suppress cancellation; they are left behind.
    """

    def __init__(self, *args: object, unresponsive: tuple[str, ...] = ()) -> None:
        super().__init__(*args)
        self.unresponsive = unresponsive


class RuntimeDrainedError(RuntimeCancellationError):
    """Intake was stopped by `drain()` or a signal; tasks that had begun were finished first."""


if sys.version_info >= (3, 11):

    class _AnyTimeoutError(TimeoutError):
        """`asyncio.TimeoutError` and the builtin are one class."""

else:

    class _AnyTimeoutError(asyncio.TimeoutError, TimeoutError):
        """On 3.10 the two are unrelated: `except` of either catches this one."""


class TaskTimeoutError(_AnyTimeoutError):
    """A task did not end within its budget; a `TimeoutError` of the task's own is never this.

    Attributes:
        task_id: Which task.
        timeout: The budget in seconds.
        unresponsive: It suppressed the cancellation as well and was left behind.
    """

    def __init__(self, task_id: str, timeout: float, *, unresponsive: bool = False) -> None:
        left = "; it ignores cancellation and was left behind" if unresponsive else ""
        super().__init__(
            f"task {task_id!r} did not end within its task_timeout of {float(timeout):g} s{left}: "
            "allow it more time, or go on without it, by on_timeout of run() or outcomes=True of a "
            "stream"
        )
        self.task_id = task_id
        self.timeout = timeout
        self.unresponsive = unresponsive

    def __reduce__(self) -> tuple[object, ...]:
        rebuild = partial(TaskTimeoutError, unresponsive=self.unresponsive)
        return rebuild, (self.task_id, self.timeout)


class BudgetSpentError(asyncio.CancelledError):
    """Internal: who runs a task elsewhere has ended it there, because its time was up."""

    def __init__(self, *, left_behind: bool = False) -> None:
        super().__init__()
        self.left_behind = left_behind


def foreign_cancellation(what: str, cause: BaseException | None) -> RuntimeCancellationError:
    """Return the error for a cancellation that the runtime did not ask for."""
    error = RuntimeCancellationError(
        f"{what} was cancelled, though not by the runtime: it awaited something that was "
        "cancelled, or other code cancelled it"
    )
    error.__cause__ = cause
    return error
