"""`TaskRuntime` on a cluster: the same calls, with the work done by `dask.distributed` workers."""

import asyncio
import contextlib
import itertools
import logging
import pickle
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import clock
from ._cancel_event import CancelEvent
from ._loop_local import LoopLocal
from ._outcomes import TaskStatus
from ._task_errors import BudgetSpentError
from ._task_options import RunOptions, RuntimeConfig
from ._task_runtime import TaskRuntime
from ._values import shown

if TYPE_CHECKING:
    from ._dask_worker import Report
    from ._outcomes import TaskOutcome
    from ._task_run import TaskRun
    from ._task_source import TaskSource
    from ._task_stream import TaskStream

    RemoteTask = tuple[str, Callable[[], object]]
    RemoteSource = Iterable[RemoteTask] | AsyncIterable[RemoteTask]

logger = logging.getLogger("infra_core.task_runtime")

__all__ = ["DaskTaskRuntime"]


class DaskTaskRuntime(TaskRuntime):
    """A `TaskRuntime` whose tasks run on the workers of a `dask.distributed` cluster.

    Bounds, errors, callbacks, retries, rate, statistics, `map`, `as_completed`, `drain` and
    signals are those of `TaskRuntime`: the same code decides here, tasks alone go elsewhere.
    What is different:

    - A task's callable is sent to a worker: a module-level function, synchronous or not, or a
      `functools.partial` of one, whose module is installed there, as is this package.
    - `task_timeout` counts from the task's start on its worker; time in the cluster's queue does
      not. Let `concurrency` be about the number of threads of the cluster, or a little more.
    - A synchronous function cannot be interrupted: when it is late or cancelled it is left
      behind, reported as unresponsive, and its thread runs on.
    - A task whose worker dies is run again on another one, as often as the scheduler's
      `distributed.scheduler.allowed-failures` says, and is then reported as failed: none is
      lost, but a task may run more than once, so let it be idempotent.

    Needs the extra: `pip install "infra-core-runtime[dask]"`.

    Args:
        client: A `distributed.Client`, synchronous or not, a cluster, or the address of a
            scheduler. Unless it is an asynchronous client of the running loop, a connection of
            our own is made when first needed, and closed by `aclose()` or with the event loop.
        config: As for `TaskRuntime`.
        cancel_event: As for `TaskRuntime`.

    Example:
        ::

            async with DaskTaskRuntime("tcp://scheduler:8786", config=config) as runtime:
                await runtime.run([(url, partial(process, url)) for url in urls])
    """

    def __init__(
        self,
        client: Any,
        *,
        config: RuntimeConfig,
        cancel_event: CancelEvent | None = None,
    ) -> None:
        super().__init__(config=config, cancel_event=cancel_event)
        self._given = client
        self._clients: LoopLocal[_Cluster] = LoopLocal(self._connect, _Cluster.aclose)

    if TYPE_CHECKING:  # the same calls; functions may be synchronous here

        async def run(self, tasks: RemoteSource, **options: Any) -> None: ...

        def as_completed(
            self, tasks: RemoteSource, **options: Any
        ) -> TaskStream[TaskOutcome[Any]]: ...

        def map(
            self,
            function: Callable[[Any], Any],
            items: Iterable[Any] | AsyncIterable[Any],
            **options: Any,
        ) -> TaskStream[Any]: ...

    async def aclose(self) -> None:
        """Cancel the runtime, wait for its tasks, close the connection if it is our own."""
        await super().aclose()
        await self._clients.aclose()

    async def __aenter__(self) -> "DaskTaskRuntime":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _connect(self) -> "_Cluster":
        return _Cluster(self._given)

    def _open(self, tasks: "TaskSource", options: RunOptions) -> "TaskRun | None":
        options.timed = False  # the worker keeps the time
        cluster = self._clients.get()
        make = partial(_remote, cluster, self.config)
        return super()._open(_Remote.of(tasks, make), options)


class _Remote:
    """Tasks whose callables send the work to the cluster, made one by one."""

    def __init__(self, tasks: Any, make: Callable[[Any], Any]) -> None:
        self._tasks = tasks
        self._make = make

    @staticmethod
    def of(tasks: "TaskSource", make: Callable[[Any], Any]) -> "TaskSource":
        if isinstance(tasks, AsyncIterable):
            return _RemoteAsync(tasks, make)
        return _RemoteSized(tasks, make) if hasattr(tasks, "__len__") else _Remote(tasks, make)

    def __iter__(self) -> Iterator[Any]:
        return map(self._make, self._tasks)


class _RemoteSized(_Remote):
    def __len__(self) -> int:
        return len(self._tasks)


class _RemoteAsync(_Remote):
    def __init__(self, tasks: AsyncIterable[Any], make: Callable[[Any], Any]) -> None:
        super().__init__(tasks, make)
        self._iterator = aiter(tasks)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return self._make(await anext(self._iterator))


def _remote(cluster: "_Cluster", config: RuntimeConfig, item: Any) -> Any:
    """Turn a task into one that runs on the cluster; what is no task is left to be refused."""
    try:
        task_id, function = item
    except (TypeError, ValueError):
        return item
    return task_id, _RemoteCall(cluster, function, config.task_timeout, config.cancel_grace)


class _RemoteCall:
    """One task; called once per attempt, with one budget for all of them."""

    __slots__ = ("_budget", "_cluster", "_function", "_grace", "_left")

    def __init__(
        self,
        cluster: "_Cluster",
        function: Callable[[], Any],
        budget: float | None,
        grace: float,
    ) -> None:
        self._cluster = cluster
        self._function = function
        self._budget = budget
        self._grace = grace
        self._left: float | None = None  # when the last attempt ended, for the wait after it

    async def __call__(self) -> Any:
        if self._budget is not None and self._left is not None:
            self._budget -= clock.monotonic() - self._left
            if self._budget <= 0:
                raise BudgetSpentError
        try:
            pickled = import_module("cloudpickle").dumps(self._function)
        except (pickle.PicklingError, TypeError, AttributeError, ValueError) as error:
            raise TypeError(
                f"{shown(self._function)} cannot be sent to a worker ({error}): pass a "
                "module-level function, or functools.partial of one with plain arguments"
            ) from error
        report = await self._cluster.run(pickled, self._budget, self._grace)
        self._left = clock.monotonic()
        if self._budget is not None:
            self._budget -= report.seconds
        if report.error is not None:
            raise report.error
        if report.status == TaskStatus.TIMED_OUT:
            raise BudgetSpentError(left_behind=report.left_behind)
        if report.status == TaskStatus.CANCELLED:
            raise asyncio.CancelledError
        return pickle.loads(report.value)  # noqa: S301 - from the caller's own cluster


class _Cluster:
    """A connection to a cluster for one event loop."""

    def __init__(self, given: Any) -> None:
        try:
            client_type: Any = import_module("distributed").Client
        except ImportError as error:
            raise ImportError(
                'DaskTaskRuntime needs dask.distributed: pip install "infra-core-runtime[dask]"'
            ) from error
        self._own = True
        options: dict[str, Any] = {"asynchronous": True, "set_as_default": False}
        if isinstance(given, client_type):
            if given.asynchronous and _same_loop(given):
                self._own = False
                self._client: Any = given
            else:
                options["security"] = given.security
                self._client = client_type(given.scheduler.address, **options)
        else:  # an address, or a cluster, whose own loop is not ours
            self._client = client_type(getattr(given, "scheduler_address", given), **options)
        self._prefix = f"infra-core-task-{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._doomed: dict[str, Any] = {}
        self._cancelling: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Close the connection, unless it is the caller's."""
        if self._cancelling is not None:
            await asyncio.wait({self._cancelling})
        if self._own:
            await self._client.close()

    async def run(self, pickled: bytes, budget: float | None, grace: float) -> "Report":
        """Run a task on a worker; when cancelled meanwhile, cancel it there and await its end."""
        from ._dask_worker import execute

        if self._client.status != "running":
            await self._client
        key = f"{self._prefix}-{next(self._numbers)}"
        future = self._client.submit(execute, pickled, key, budget, grace, key=key, pure=False)
        try:
            report: Report = await future
        except asyncio.CancelledError:
            self._doomed[key] = future
            if self._cancelling is None:
                self._cancelling = asyncio.ensure_future(self._cancel())
            report = await self._end_of(future)
            if report is None or report.status == TaskStatus.CANCELLED:
                raise
        finally:
            future.release()
        return report

    async def _end_of(self, future: Any) -> Any:
        from concurrent.futures import CancelledError

        try:
            return await future
        except CancelledError:
            return None

    async def _cancel(self) -> None:
        """Cancel all doomed tasks, with one message to every worker for many of them."""
        from ._dask_worker import cancel

        try:
            while self._doomed:
                doomed, self._doomed = self._doomed, {}
                found = await self._client.run(cancel, list(doomed), on_error="ignore")
                running = {key for keys in found.values() for key in keys}
                waiting = [future for key, future in doomed.items() if key not in running]
                with contextlib.suppress(Exception):
                    await self._client.cancel(waiting)
        except Exception:  # the tasks are reported as unresponsive when their grace is over
            logger.warning("tasks on the cluster could not be cancelled", exc_info=True)
        finally:
            self._cancelling = None


def _same_loop(client: Any) -> bool:
    loop = getattr(client.loop, "asyncio_loop", None)
    return loop is asyncio.get_running_loop()
