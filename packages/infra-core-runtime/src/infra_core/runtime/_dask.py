"""`TaskRuntime` on a cluster: the same calls, with the work done by `dask.distributed` workers."""

import asyncio
import contextlib
import itertools
import logging
import pickle
import uuid
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import clock
from ._loop_local import LoopLocal
from ._outcomes import TaskStatus
from ._task_errors import BudgetSpentError
from ._task_options import RunOptions, RuntimeConfig
from ._task_runtime import TaskRuntime
from ._values import shown

if TYPE_CHECKING:
    from ._dask_worker import Report
    from ._outcomes import TaskOutcome
    from ._task_options import Pair, TaskSource
    from ._task_run import TaskRun
    from ._task_stream import TaskStream
    from ._threads import CancelEvent

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
        cancel_event: "CancelEvent | None" = None,
    ) -> None:
        super().__init__(config=config, cancel_event=cancel_event)
        self._clients: LoopLocal[_Cluster] = LoopLocal(partial(_Cluster, client), _Cluster.aclose)

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

    def _open(self, tasks: "TaskSource", options: RunOptions) -> "TaskRun | None":
        options.timed = False  # the worker keeps the time
        make = options.make
        cluster, config = self._clients.get(), self.config

        def remote(item: Any) -> "Pair":
            task_id, function = make(item)
            call = _RemoteCall(cluster, function, config.task_timeout, config.cancel_grace)
            return task_id, call

        options.make = remote
        return super()._open(tasks, options)


@dataclass(slots=True)
class _RemoteCall:
    """One task; called once per attempt, with one budget for all of them."""

    _cluster: "_Cluster"
    _function: Callable[[], Any]
    _budget: float | None
    _grace: float
    _left: float | None = None  # when the last attempt ended, for the wait after it

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
        if report.status == TaskStatus.FAILED:
            raise report.raised()
        if report.status == TaskStatus.TIMED_OUT:
            raise BudgetSpentError(left_behind=report.left_behind)
        if report.status == TaskStatus.CANCELLED:
            raise asyncio.CancelledError
        return pickle.loads(report.value)  # noqa: S301 - from the caller's own cluster


class _Cluster:
    """A connection to a cluster for one event loop.

    Tasks that begin in the same turn of the loop are sent together, and results fetched together:
    a message for each would cost more than a small task itself.
    """

    def __init__(self, given: Any) -> None:
        try:
            self._distributed: Any = import_module("distributed")
        except ImportError as error:
            raise ImportError(
                'DaskTaskRuntime needs dask.distributed: pip install "infra-core-runtime[dask]"'
            ) from error
        client_type = self._distributed.Client
        self._own = True
        options: dict[str, Any] = {"asynchronous": True, "set_as_default": False}
        if not isinstance(given, client_type):  # an address, or a cluster with another loop
            self._client: Any = client_type(getattr(given, "scheduler_address", given), **options)
        elif given.asynchronous and given.loop.asyncio_loop is asyncio.get_running_loop():
            self._own = False
            self._client = given
        else:
            address = given.scheduler.address
            self._client = client_type(address, security=given.security, **options)
        self._patience = _MARGIN + _connect_timeout()
        self._prefix = f"infra-core-task-{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        self._outbox: dict[str, tuple[bytes, float | None, float]] = {}
        self._waiting: dict[str, asyncio.Future[Report]] = {}
        self._futures: dict[str, Any] = {}
        self._ended: Any = None  # distributed's iterator over futures that end
        self._doomed: set[str] = set()
        self._collecting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Close the connection, unless it is the caller's."""
        if self._cancelling is not None:
            await asyncio.wait({self._cancelling})
        for task in (self._collecting, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if self._own:  # its last message goes to a scheduler that may be gone
            with contextlib.suppress(Exception):
                async with clock.timeout(_FAREWELL):
                    await self._client.close()

    async def run(self, pickled: bytes, budget: float | None, grace: float) -> "Report":
        """Run a task on a worker; when cancelled meanwhile, cancel it there and await its end."""
        await self._connected()
        loop = asyncio.get_running_loop()
        key = f"{self._prefix}-{next(self._numbers)}"
        end: asyncio.Future[Report] = loop.create_future()
        self._waiting[key] = end
        if not self._outbox:
            loop.call_soon(self._send)
        self._outbox[key] = pickled, budget, grace
        try:
            return await asyncio.shield(end)
        except asyncio.CancelledError:
            if self._outbox.pop(key, None) is not None:
                raise
            self._doomed.add(key)
            if self._cancelling is None:
                self._cancelling = asyncio.ensure_future(self._cancel())
            await asyncio.wait({end})
            if end.exception() is not None or end.result().status == TaskStatus.CANCELLED:
                raise
            return end.result()
        finally:
            self._waiting.pop(key, None)
            with contextlib.suppress(Exception):  # of a client that is closed
                self._futures.pop(key).release()

    async def _connected(self) -> None:
        status = self._client.status
        if status == "running":
            return
        if status not in _GONE:
            with contextlib.suppress(TimeoutError):
                async with clock.timeout(self._patience):
                    await self._client
                return
        raise _lost()

    def _send(self) -> None:
        from ._dask_worker import execute

        outbox, self._outbox = self._outbox, {}
        if not outbox:  # all were cancelled
            return
        keys = list(outbox)
        try:
            futures = self._client.map(
                execute, *zip(*outbox.values(), strict=True), keys, key=keys, pure=False
            )
            self._futures.update(zip(keys, futures, strict=True))
            if self._collecting is None or self._collecting.done():
                self._ended = self._distributed.as_completed(loop=self._client.loop)
                self._collecting = asyncio.ensure_future(self._collect())
            self._ended.update(futures)
        except Exception as error:  # noqa: BLE001 - raised for each task
            gone = self._client.status in _GONE
            for key in keys:
                self._end(key, error=_lost() if gone else error)
            return
        if self._watching is None or self._watching.done():
            self._watching = asyncio.ensure_future(self._watch())

    async def _collect(self) -> None:
        """Fetch the reports of tasks as they end, until none is under way."""
        async for first in self._ended:
            if len(self._waiting) > _FEW:
                await asyncio.sleep(min(_GATHER * len(self._waiting), _LOOK))
            batch = [first, *self._ended.next_batch(block=False)]
            done = [future for future in batch if future.status == "finished"]
            reports: list[Any] = []
            with contextlib.suppress(Exception):  # then one by one, to see which it was
                reports = await self._client.gather(done)
            for future, report in zip(done, reports, strict=False):
                self._end(future.key, report)
            for future in batch:
                if future.key in self._waiting:
                    await self._collect_one(future)

    async def _collect_one(self, future: Any) -> None:
        from concurrent.futures import CancelledError

        try:
            self._end(future.key, await future)
        except CancelledError:  # by us, and then no one waits for it, or the connection is lost
            self._end(future.key, error=_lost())
        except Exception as error:  # noqa: BLE001 - a worker that died with its task, and the like
            self._end(future.key, error=error)

    def _end(self, key: str, report: Any = None, error: Exception | None = None) -> None:
        end = self._waiting.pop(key, None)
        if end is None or end.done():
            return
        if error is not None:
            end.set_exception(error)
        else:
            end.set_result(report)

    async def _watch(self) -> None:
        """End all tasks when the scheduler is gone permanently; distributed leaves some waiting."""
        away = 0.0
        while self._waiting and away <= self._patience:
            await asyncio.sleep(_LOOK)
            if self._client.status in _GONE:
                break
            away = 0.0 if self._client.status == "running" else away + _LOOK
        for key in list(self._waiting):
            self._end(key, error=_lost())

    async def _cancel(self) -> None:
        """Cancel all doomed tasks, with one message to every worker for many of them."""
        from ._dask_worker import cancel

        try:
            while self._doomed:
                doomed, self._doomed = self._doomed, set()
                if self._client.status != "running":
                    continue
                async with clock.timeout(_FAREWELL):
                    found = await self._client.run(cancel, list(doomed), on_error="ignore")
                    running = {key for keys in found.values() for key in keys}
                    waiting = (doomed - running) & self._futures.keys()
                    with contextlib.suppress(Exception):
                        await self._client.cancel([self._futures[key] for key in waiting])
        except Exception:  # the tasks are reported as unresponsive when their grace is over
            if self._client.status == "running":
                logger.warning("tasks on the cluster could not be cancelled", exc_info=True)
        finally:
            self._cancelling = None


# What a client's status is when it will not come back.
_GONE = ("closing", "closed")
# Seconds: between two looks at the connection, for a reconnection beyond distributed's own time,
# and for messages to a scheduler that may have gone.
_LOOK = 0.25
_MARGIN = 5.0
_FAREWELL = 10.0
# With more than so many tasks under way, reports wait so many seconds for each of them: what the
# cluster has left to do keeps it busy meanwhile.
_FEW = 32
_GATHER = 0.0001


def _lost() -> ConnectionError:
    return ConnectionError(
        "the connection to the Dask scheduler was lost and did not come back: see whether the "
        "scheduler runs, then run the tasks again; those that were under way may have been done"
    )


def _connect_timeout() -> float:
    """Return the seconds in which distributed makes a connection."""
    from dask import config
    from dask.utils import parse_timedelta

    return float(parse_timedelta(config.get("distributed.comm.timeouts.connect", "30s"), "s"))
