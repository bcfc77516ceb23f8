"""Thousands of polls at once: one heap of due times, a few workers, no task per check.

Each worker takes the job that is due, awaits its fetch, and puts the job back with its next due
time. While there is work to do nothing else runs: no timer, no task and no timeout scope is made
for a check. A fetch that hangs is found by one sweep over the workers, whose timer stands at the
earliest time at which any of them has to be cut.
"""

import asyncio
import math
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from types import CoroutineType
from typing import Any, Final, Generic, TypeVar

from infra_core.runtime import clock

from ._due_queue import DueQueue
from ._fetch import is_awaitable
from ._outcome import PollOutcome
from ._run import DONE, PollRules, PollRun
from ._schedule import LAST_CHECK_GRACE

__all__ = ["Scheduler"]

J = TypeVar("J")
T = TypeVar("T")

# Checks that come due within one tick are made together, up to this late: a timer of its own for
# each of 10,000 jobs would cost more than the checks.
_LONGEST_TICK: Final = 0.005
_TICKS_PER_INTERVAL: Final = 20
_CHECKS_PER_TURN: Final = 32  # a fetch that never suspends must not keep the loop to itself


class _JobRun(PollRun[T], Generic[J, T]):
    """The state of one job."""

    __slots__ = ("job",)

    def __init__(self, rules: PollRules[T], job: J) -> None:
        super().__init__(rules, label=str(job) if isinstance(job, (str, int)) else None)
        self.job = job


class _Worker:
    """A worker's place: its task, and until when the fetch it awaits may run."""

    __slots__ = ("cut", "cut_at", "now", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.cut_at = math.inf
        self.cut = False
        self.now = 0.0  # when the newest answer came


class _Turn:
    """Awaited, gives the event loop one turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Scheduler(Generic[J, T]):
    """The state that workers, timekeeper and consumer share; one event loop, so no locks."""

    def __init__(
        self,
        jobs: "Iterable[J] | AsyncIterable[J]",
        fetch_fn: Callable[[J], Any],
        rules: PollRules[T],
        on_poll: Callable[[J, T], object] | None,
        max_active: int,
    ) -> None:
        self.jobs = jobs
        self.fetch = fetch_fn
        self.rules = rules
        self.on_poll = on_poll
        self.max_active = max_active
        self.tick = min(_LONGEST_TICK, rules.schedule.poll_interval / _TICKS_PER_INTERVAL)
        self.source: Iterator[J] | None = None
        self.exhausted = False
        self.failure: BaseException | None = None
        self.running = True
        self.ending = False
        self.cancelling = False
        self.active = 0  # taken in and not yet handed out
        self.unfinished = 0  # taken in and not yet ended
        self.queue: DueQueue[_JobRun[J, T]] = DueQueue()
        self.latest = rules.timeout + LAST_CHECK_GRACE
        self.now = 0.0  # when the newest job was taken
        self.finished: deque[PollOutcome[J, T]] = deque()
        self.workers: list[_Worker] = []
        self.idle: deque[asyncio.Future[None]] = deque()
        self.consumer: asyncio.Future[None] | None = None
        self.feeder_waits: asyncio.Future[None] | None = None
        self.keeper: asyncio.Task[None] | None = None
        self.keeper_due = math.inf
        self.sweep_timer: asyncio.TimerHandle | None = None
        self.sweep_at = math.inf

    async def outcomes(
        self, concurrency: int, cancel: asyncio.Event | None
    ) -> AsyncGenerator[PollOutcome[J, T], None]:
        """Start the workers, hand out what they finish, end them."""
        self.loop = asyncio.get_running_loop()
        helpers: list[asyncio.Task[None]] = []
        if isinstance(self.jobs, AsyncIterable):
            helpers.append(self.loop.create_task(self._feed(self.jobs)))
        else:
            self.source = iter(self.jobs)
        if cancel is not None:
            helpers.append(self.loop.create_task(self._cancel_on(cancel)))
        for _ in range(concurrency):
            worker: _Worker = _Worker()
            worker.task = self.loop.create_task(self._work(worker))
            self.workers.append(worker)
        try:
            while True:
                while self.finished:
                    self.active -= 1
                    self._wake_feeder()
                    yield self.finished.popleft()
                if self.failure is not None:
                    raise self.failure
                if self.exhausted and not self.unfinished:
                    return
                self.consumer = self.loop.create_future()
                await self.consumer
        finally:
            await self._end(helpers)

    async def _end(self, helpers: "list[asyncio.Task[None]]") -> None:
        self.ending, self.running = True, False
        if self.sweep_timer is not None:
            self.sweep_timer.cancel()
        tasks = [*helpers, *(worker.task for worker in self.workers)]
        if self.keeper is not None:
            tasks.append(self.keeper)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- workers ---------------------------------------------------------------------------------

    async def _work(self, worker: _Worker) -> None:
        try:
            checks = 0
            while self.running:
                checks += 1
                if checks == _CHECKS_PER_TURN:
                    checks = 0
                    await _Turn()
                run = self._take()
                if run is None:
                    checks = 0
                    await self._idle()
                    continue
                try:
                    wait = await self._check(worker, run)
                except Exception as error:  # noqa: BLE001 - the outcome of this one job
                    self._finish(run, error)
                except asyncio.CancelledError:
                    if self.cancelling:
                        self._finish(run, run.cancelled())
                    raise
                else:
                    if wait == DONE:
                        self._finish(run, None)
                    elif self.cancelling:  # the fetch did not mind its cancellation
                        self._finish(run, run.cancelled())
                    else:
                        self.queue.push(worker.now + wait, run)
        except BaseException as error:
            # a fetch that raised CancelledError of its own, or a defect: nobody waits in vain
            if self.running:
                self.failure = error
                self._wake_consumer()
            raise

    async def _check(self, worker: _Worker, run: "_JobRun[J, T]") -> float:
        """Make one check of one job; return the wait for its next one, or `DONE`."""
        cut_at = worker.cut_at = self.loop.time() + run.begin_check(self.now)
        if cut_at < self.sweep_at:
            self._stand_sweep_at(cut_at)
        try:
            response = self.fetch(run.job)
            if type(response) is CoroutineType or is_awaitable(response):
                response = await response
        except asyncio.CancelledError:
            if not worker.cut or self.ending or self.cancelling:
                raise
            uncancel = getattr(worker.task, "uncancel", None)  # Python 3.11
            if uncancel is not None:
                uncancel()
            raise run.cut() from None
        except Exception as error:
            if worker.cut:
                raise run.cut() from error
            wait = run.error(error)
            worker.now = clock.monotonic()
            return wait
        finally:
            worker.cut_at = math.inf
            cut, worker.cut = worker.cut, False
        worker.now = now = clock.monotonic()
        run.arrived(response, now)
        if self.on_poll is not None:
            self.on_poll(run.job, response)
            worker.now = now = clock.monotonic()
        if cut:  # it swallowed the cancellation: what it says comes too late all the same
            raise run.cut()
        return run.judge(response, now)

    def _take(self) -> "_JobRun[J, T] | None":
        """Return the job whose check is due, else a new one, else None."""
        while True:
            self.now = now = clock.monotonic()
            run = self.queue.pop_due(now)
            if run is not None:
                if now - run.began > self.latest:
                    self._finish(run, run.timed_out(
                        "there are more checks than the workers can make; raise concurrency or "
                        "poll_interval"))  # fmt: skip
                    continue
            else:
                run = self._pull()
                if run is None:
                    return None
                wait = self.rules.schedule.first_wait()
                if wait > 0:
                    self.queue.push(now + wait, run)
                    continue
            if self.idle and (self.queue.next_due() <= now or self._has_room()):
                self._wake_idle()
            return run

    def _has_room(self) -> bool:
        return self.source is not None and self.active < self.max_active

    def _pull(self) -> "_JobRun[J, T] | None":
        if self.source is None or self.active >= self.max_active:
            return None
        try:
            job = next(self.source)
        except StopIteration:
            self._no_more_jobs(None)
            return None
        except Exception as error:  # noqa: BLE001 - raised to the consumer
            self._no_more_jobs(error)
            return None
        return self._admit(job)

    def _admit(self, job: J) -> "_JobRun[J, T]":
        self.active += 1
        self.unfinished += 1
        return _JobRun(self.rules, job)

    def _no_more_jobs(self, failure: Exception | None) -> None:
        self.source = None
        self.exhausted = True
        self.failure = self.failure or failure
        self._wake_consumer()

    def _finish(self, run: "_JobRun[J, T]", error: Exception | None) -> None:
        elapsed = clock.monotonic() - run.began
        self.finished.append(PollOutcome(run.job, run.last_response, error, run.attempts, elapsed))
        self.unfinished -= 1
        self._wake_consumer()

    # -- waiting and waking ----------------------------------------------------------------------

    async def _idle(self) -> None:
        due = self.queue.next_due()
        if due < self.keeper_due:
            if self.keeper is not None:
                self.keeper.cancel()
            self.keeper_due = due
            self.keeper = self.loop.create_task(self._keep_time(due))
        waiting = self.loop.create_future()
        self.idle.append(waiting)
        await waiting

    async def _keep_time(self, due: float) -> None:
        """Sleep until a check is due, then wake a worker; workers wake each other from there."""
        await clock.sleep_async(max(due - clock.monotonic(), self.tick))
        self.keeper = None
        self.keeper_due = math.inf
        self._wake_idle()

    def _wake_idle(self) -> None:
        while self.idle:
            waiting = self.idle.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    def _wake_consumer(self) -> None:
        if self.consumer is not None and not self.consumer.done():
            self.consumer.set_result(None)

    def _wake_feeder(self) -> None:
        """Tell whoever takes jobs in that there is room for one more."""
        if self.feeder_waits is not None:
            if not self.feeder_waits.done():
                self.feeder_waits.set_result(None)
        elif self.source is not None and self.idle:
            self._wake_idle()

    # -- helpers ---------------------------------------------------------------------------------

    async def _feed(self, jobs: AsyncIterable[J]) -> None:
        """Take jobs in from an async iterable, as there is room."""
        try:
            async for job in jobs:
                run = self._admit(job)
                self.queue.push(run.began + self.rules.schedule.first_wait(), run)
                self._wake_idle()
                while self.active >= self.max_active:
                    self.feeder_waits = self.loop.create_future()
                    await self.feeder_waits
        except Exception as error:  # noqa: BLE001 - raised to the consumer
            self._no_more_jobs(error)
        else:
            self._no_more_jobs(None)

    def _stand_sweep_at(self, when: float) -> None:
        if self.sweep_timer is not None:
            self.sweep_timer.cancel()
        self.sweep_at = when
        self.sweep_timer = self.loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        """Cut the fetches whose time is up and stand the timer at the next one's."""
        now = self.loop.time()
        self.sweep_timer, self.sweep_at = None, math.inf
        following = math.inf
        for worker in self.workers:
            if worker.cut_at <= now:
                worker.cut = True
                worker.cut_at = math.inf
                worker.task.cancel()
            else:
                following = min(following, worker.cut_at)
        if following < math.inf:
            self._stand_sweep_at(following)

    async def _cancel_on(self, event: asyncio.Event) -> None:
        """End all jobs when the event is set."""
        await event.wait()
        self.cancelling, self.running = True, False
        self.source, self.exhausted = None, True
        for worker in self.workers:
            worker.task.cancel()
        while (run := self.queue.pop_due(math.inf)) is not None:
            self._finish(run, run.cancelled())
        self._wake_consumer()
