"""poll_many_async: thousands of polls at once."""

import asyncio
import gc
import logging
import time as real_time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import pytest

from infra_core.polling import (
    PollingCancelledError,
    PollingConfig,
    PollingFailureError,
    PollingTimeoutError,
    PollOutcome,
    poll_many_async,
)
from infra_core.runtime import RuntimeConfig
from infra_core.runtime.testing import FastTime


class Jobs:
    """A service whose jobs are done after a number of checks of their own."""

    def __init__(self, needed: dict[Any, int]) -> None:
        self.needed = needed
        self.checks = dict.fromkeys(needed, 0)
        self.now = 0
        self.most = 0

    async def fetch(self, job: Any) -> dict[str, object]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        self.checks[job] += 1
        done = self.checks[job] >= self.needed[job]
        return {"status": "completed" if done else "running", "job": job}


async def collect(outcomes: AsyncIterator[PollOutcome[Any, Any]]) -> list[PollOutcome[Any, Any]]:
    return [outcome async for outcome in outcomes]


class TestOutcomes:
    async def test_every_job_is_polled_until_it_is_done(self, time: FastTime) -> None:
        """Each ends once, after its own number of checks."""
        jobs = Jobs({number: 1 + number % 5 for number in range(200)})
        outcomes = await collect(poll_many_async(range(200), jobs.fetch))
        assert sorted(outcome.job for outcome in outcomes) == list(range(200))
        assert all(outcome.ok for outcome in outcomes)
        assert {outcome.job: outcome.attempts for outcome in outcomes} == jobs.needed
        assert jobs.checks == jobs.needed

    async def test_results_come_as_jobs_finish(self, time: FastTime) -> None:
        """The quick ones first, whatever their place in the list."""
        jobs = Jobs({"slow": 5, "middle": 3, "quick": 1})
        outcomes = await collect(poll_many_async(jobs.needed, jobs.fetch))
        assert [outcome.job for outcome in outcomes] == ["quick", "middle", "slow"]
        assert [outcome.elapsed for outcome in outcomes] == pytest.approx([0, 10, 20], abs=0.1)

    async def test_no_jobs(self, time: FastTime) -> None:
        """Nothing to do is done at once."""
        assert await collect(poll_many_async([], Jobs({}).fetch)) == []

    async def test_the_result_of_an_outcome(self, time: FastTime) -> None:
        """The response, or the error raised."""
        jobs = Jobs({"a": 1})
        (outcome,) = await collect(poll_many_async(["a"], jobs.fetch))
        assert outcome.result() == {"status": "completed", "job": "a"}
        with pytest.raises(KeyError):
            PollOutcome("a", None, KeyError("x"), 1, 0.0).result()

    async def test_a_terminal_predicate(self, time: FastTime) -> None:
        """In place of statuses."""
        counts: dict[int, int] = {}

        def fetch(job: int) -> int:  # a sync fetch works as well
            counts[job] = counts.get(job, 0) + 1
            return counts[job]

        outcomes = await collect(poll_many_async([1, 2], fetch, lambda count: count == 3))
        assert [outcome.response for outcome in outcomes] == [3, 3]

    async def test_on_poll_sees_jobs_and_responses(self, time: FastTime) -> None:
        """It is called for every check."""
        jobs, seen = Jobs({"a": 2}), []
        await collect(
            poll_many_async(
                ["a"], jobs.fetch, on_poll=lambda job, r: seen.append((job, r["status"]))
            )
        )
        assert seen == [("a", "running"), ("a", "completed")]

    async def test_a_status_extractor(self, time: FastTime) -> None:
        """As in StatusPoller."""
        outcomes = await collect(
            poll_many_async([1], lambda job: {"a": {"b": "done"}}, status_extractor="a.b",
                            config=PollingConfig(terminal_statuses={"DONE"}))
        )  # fmt: skip
        assert outcomes[0].ok

    @pytest.mark.parametrize("name", ["concurrency", "max_active"])
    def test_bounds_must_be_positive(self, name: str) -> None:
        """Raised at the call, not at the first iteration."""
        with pytest.raises(ValueError, match=f"{name} must be 1 or more, not 0"):
            poll_many_async([1], lambda job: job, **{name: 0})  # type: ignore[call-overload]


class TestBounds:
    @pytest.mark.parametrize("concurrency", [1, 3, 50])
    async def test_fetches_at_once(self, time: FastTime, concurrency: int) -> None:
        """Never more than `concurrency`, and as many when there is work."""
        jobs = Jobs(dict.fromkeys(range(100), 3))
        await collect(poll_many_async(range(100), jobs.fetch, concurrency=concurrency))
        assert jobs.most == concurrency

    async def test_jobs_are_pulled_lazily(self, time: FastTime) -> None:
        """No more than `max_active` are taken in before one is handed out."""
        pulled = 0

        def source() -> Iterator[int]:
            nonlocal pulled
            for number in range(1000):
                pulled += 1
                yield number

        jobs = Jobs(dict.fromkeys(range(1000), 2))
        handed_out = 0
        async for _ in poll_many_async(source(), jobs.fetch, max_active=10, concurrency=4):
            handed_out += 1
            assert pulled <= handed_out + 10
        assert handed_out == 1000

    @pytest.mark.parametrize("max_active", [1, 7, 10_000])
    async def test_an_async_source(self, time: FastTime, max_active: int) -> None:
        """Jobs may come from a stream, with the same bound."""
        pulled = 0

        async def source() -> AsyncIterator[int]:
            nonlocal pulled
            for number in range(50):
                await asyncio.sleep(0)
                pulled += 1
                yield number

        jobs = Jobs(dict.fromkeys(range(50), 2))
        handed_out = 0
        async for _ in poll_many_async(source(), jobs.fetch, max_active=max_active):
            handed_out += 1
            assert pulled <= handed_out + max_active
        assert handed_out == 50

    async def test_a_slow_consumer_slows_the_intake(self, time: FastTime) -> None:
        """Finished jobs that were not fetched count as active."""
        jobs = Jobs(dict.fromkeys(range(100), 1))
        outcomes = poll_many_async(range(100), jobs.fetch, max_active=5)
        await anext_(outcomes)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sum(jobs.checks.values()) <= 6
        await outcomes.aclose()

    async def test_thousands_of_jobs_in_flat_memory(self, time: FastTime) -> None:
        """A stream of jobs costs what `max_active` of them cost, however long it is."""

        async def fetch(job: int) -> dict[str, str]:
            return {"status": "completed"}

        async def peak(count: int) -> int:
            gc.collect()
            tracemalloc.start()
            async for _ in poll_many_async(range(count), fetch, max_active=100):
                pass
            top = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return top

        await peak(200)
        assert await peak(1500) < 1.5 * await peak(300) + 50_000

    async def test_a_fetch_that_never_suspends_leaves_the_loop_its_turns(self) -> None:
        """Other tasks run while thousands of checks are made."""
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        async for _ in poll_many_async(
            range(500), lambda job: {"status": "completed"}, concurrency=1, max_active=5000
        ):
            pass
        task.cancel()
        assert turns >= 30


class TestDueTimes:
    async def test_each_job_keeps_its_interval(self, time: FastTime) -> None:
        """Backoff and server-given delays are per job."""
        began = time.monotonic()
        checks: dict[str, list[float]] = {"plain": [], "reported": []}

        async def fetch(job: str) -> dict[str, object]:
            checks[job].append(round(time.monotonic() - began, 1))
            done = len(checks[job]) == 4
            return {"status": "completed" if done else "running",
                    "wait": 1 if job == "reported" else None}  # fmt: skip

        await collect(poll_many_async(checks, fetch, next_delay=lambda r: r["wait"], concurrency=1))
        assert checks == {"plain": [0, 5, 10, 15], "reported": [0, 1, 2, 3]}

    async def test_a_long_wait_holds_no_worker(self, time: FastTime) -> None:
        """One job that sleeps for an hour does not keep others from being checked."""
        jobs = Jobs({"sleepy": 2, "a": 3, "b": 3})
        outcomes = await collect(
            poll_many_async(
                jobs.needed, jobs.fetch, concurrency=1,
                config=PollingConfig(timeout=10_000),
                next_delay=lambda r: 3600 if r["job"] == "sleepy" else None,
            )
        )  # fmt: skip
        assert [outcome.job for outcome in outcomes] == ["a", "b", "sleepy"]

    async def test_an_initial_delay(self, time: FastTime) -> None:
        """Before each job's first check."""
        jobs = Jobs({1: 1, 2: 1})
        outcomes = await collect(
            poll_many_async([1, 2], jobs.fetch, config=PollingConfig(initial_delay=7))
        )
        assert [outcome.elapsed for outcome in outcomes] == pytest.approx([7, 7], abs=0.1)


class TestFailures:
    async def test_one_failure_does_not_end_the_others(self, time: FastTime) -> None:
        """Failed, mistaken and timed-out jobs are outcomes beside good ones."""

        async def fetch(job: str) -> dict[str, object]:
            if job == "mistake":
                raise KeyError("id")
            if job == "never":
                return {"status": "running"}
            return {"status": "failed" if job == "fails" else "completed", "error": "disk"}

        outcomes = await collect(
            poll_many_async(["fails", "mistake", "never", "good"], fetch,
                            config=PollingConfig(strict=True, timeout=60))
        )  # fmt: skip
        errors = {outcome.job: type(outcome.error) for outcome in outcomes}
        assert errors == {
            "fails": PollingFailureError,
            "mistake": KeyError,
            "never": PollingTimeoutError,
            "good": type(None),
        }
        (never,) = [outcome for outcome in outcomes if outcome.job == "never"]
        assert never.response == {"status": "running"}
        assert never.elapsed == pytest.approx(60, abs=0.1)
        assert isinstance(never.error, PollingTimeoutError)
        assert never.error.attempts == never.attempts == 13
        assert never.error.status == "running"
        assert "never timed out after 60 s" in str(never.error)

    async def test_transient_errors_are_per_job(self, time: FastTime) -> None:
        """One job's budget is not another's."""
        calls: dict[int, int] = {}

        async def fetch(job: int) -> dict[str, str]:
            calls[job] = calls.get(job, 0) + 1
            if calls[job] <= job:
                raise ConnectionResetError("down")
            return {"status": "completed"}

        outcomes = await collect(
            poll_many_async([1, 2, 3], fetch, config=PollingConfig(max_consecutive_errors=2))
        )
        assert {outcome.job: outcome.ok for outcome in outcomes} == {1: True, 2: True, 3: False}

    async def test_a_hung_fetch_is_cut_at_the_deadline(self) -> None:
        """And its worker goes on with other jobs."""
        cleaned = []

        async def fetch(job: str) -> dict[str, str]:
            if job == "hangs":
                try:
                    await asyncio.Event().wait()
                finally:
                    cleaned.append(job)
            return {"status": "completed"}

        began = real_time.monotonic()
        outcomes = await collect(
            poll_many_async(["hangs", "a", "b"], fetch, concurrency=1,
                            config=PollingConfig(timeout=0.1))
        )  # fmt: skip
        assert real_time.monotonic() - began < 20
        assert cleaned == ["hangs"]
        by_job = {outcome.job: outcome for outcome in outcomes}
        assert isinstance(by_job["hangs"].error, PollingTimeoutError)
        assert "still running and was cut" in str(by_job["hangs"].error)
        assert by_job["a"].ok
        assert by_job["b"].ok

    @pytest.mark.parametrize("way", ["returns", "raises"])
    async def test_a_fetch_that_swallows_its_cancellation(self, way: str) -> None:
        """What it says then comes too late, and its worker still lives."""

        async def fetch(job: str) -> dict[str, str]:
            if job == "stubborn":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if way == "raises":
                        raise RuntimeError("translated") from None
            return {"status": "completed"}

        outcomes = await collect(
            poll_many_async(["stubborn", "a"], fetch, concurrency=1,
                            config=PollingConfig(timeout=0.06))
        )  # fmt: skip
        by_job = {outcome.job: outcome for outcome in outcomes}
        assert isinstance(by_job["stubborn"].error, PollingTimeoutError)
        assert by_job["a"].ok

    async def test_an_answer_after_the_cut_is_late_whatever_the_clock_says(
        self, time: FastTime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A timer may fire before the clock reaches its time, as those of uvloop do."""

        async def fetch(job: str) -> dict[str, str]:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return {"status": "completed"}

        monkeypatch.setattr("infra_core.polling._run.LAST_CHECK_GRACE", 0.0)
        (outcome,) = await collect(
            poll_many_async(["stubborn"], fetch, config=PollingConfig(timeout=0.05))
        )
        assert outcome.elapsed == 0
        assert isinstance(outcome.error, PollingTimeoutError)

    async def test_more_checks_than_workers_can_make(self, time: FastTime) -> None:
        """A job whose turn comes too late has timed out, and is never checked past its deadline."""

        async def fetch(job: int) -> dict[str, str]:
            time.advance(3)
            return {"status": "running"}

        outcomes = await collect(
            poll_many_async(range(6), fetch, concurrency=1,
                            config=PollingConfig(timeout=10, poll_interval=2))
        )  # fmt: skip
        assert all(isinstance(outcome.error, PollingTimeoutError) for outcome in outcomes)
        assert any("raise concurrency" in str(outcome.error) for outcome in outcomes)

    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_an_error_of_the_source_comes_through(self, time: FastTime, kind: str) -> None:
        """After what has finished before it."""

        def jobs() -> Iterator[int]:
            yield 1
            raise OSError("list is broken")

        async def jobs_async() -> AsyncIterator[int]:
            for job in jobs():
                yield job

        service = Jobs({1: 1})
        with pytest.raises(OSError, match="list is broken"):
            await collect(
                poll_many_async(jobs() if kind == "sync" else jobs_async(), service.fetch)
            )
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_cancelled_error_out_of_the_fetch_is_not_lost(self, time: FastTime) -> None:
        """No caller waits for ever for a job that ended itself like that."""

        async def fetch(job: int) -> None:
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await collect(poll_many_async([1], fetch, lambda r: True))

    async def test_a_job_whose_task_other_code_cancels_at_once_is_not_lost(self) -> None:
        """Before its first check as after it."""

        def jobs() -> Iterator[str]:
            yield "a"
            for task in asyncio.all_tasks():
                if task.get_name() == "a":
                    task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await collect(poll_many_async(jobs(), Jobs({"a": 1}).fetch))

    async def test_an_error_of_on_poll_is_that_jobs_outcome(self, time: FastTime) -> None:
        """The others go on."""

        def on_poll(job: int, response: object) -> None:
            if job == 1:
                raise ZeroDivisionError

        jobs = Jobs({1: 1, 2: 1})
        outcomes = await collect(poll_many_async([1, 2], jobs.fetch, on_poll=on_poll))
        assert {outcome.job: outcome.ok for outcome in outcomes} == {1: False, 2: True}


class TestEnding:
    async def test_leaving_early_ends_what_is_under_way(self) -> None:
        """No task is left, hung fetches are cancelled."""
        cancelled = []

        async def fetch(job: int) -> dict[str, str]:
            if job:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(job)
                    raise
            return {"status": "completed"}

        async with aclosing(poll_many_async(range(4), fetch)) as outcomes:
            async for outcome in outcomes:
                assert outcome.job == 0
                break
        assert sorted(cancelled) == [1, 2, 3]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_cancelling_the_consumer_propagates(self) -> None:
        """And leaves no task."""
        started = asyncio.Event()

        async def fetch(job: int) -> dict[str, str]:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        task = asyncio.create_task(collect(poll_many_async(range(10), fetch)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_the_cancel_event_hands_out_what_is_under_way(self) -> None:
        """In a fetch or in a wait: each with its last response, so that no job is orphaned."""
        event = asyncio.Event()
        waiting = asyncio.Event()

        async def fetch(job: str) -> dict[str, str]:
            if job == "in fetch":
                await asyncio.Event().wait()
            if job == "stubborn":
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
            waiting.set()
            return {"status": "running", "url": "https://example.com/1"}

        async def set_event() -> None:
            await waiting.wait()
            event.set()

        setter = asyncio.create_task(set_event())
        outcomes = await collect(
            poll_many_async(["in fetch", "stubborn", "in wait"], fetch, cancel=event)
        )
        await setter
        assert {outcome.job for outcome in outcomes} == {"in fetch", "stubborn", "in wait"}
        assert all(isinstance(outcome.error, PollingCancelledError) for outcome in outcomes)
        (wait,) = [outcome for outcome in outcomes if outcome.job == "in wait"]
        assert wait.response == {"status": "running", "url": "https://example.com/1"}
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_fetch_that_ignores_the_cancel_event_holds_nothing_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is left behind after a grace, and handed out with its last response."""
        short = partial(RuntimeConfig, cancel_grace=0.01)
        monkeypatch.setattr("infra_core.polling._many.RuntimeConfig", short)
        event, release = asyncio.Event(), asyncio.Event()
        answers = iter([{"status": "running"}])

        async def fetch(job: str) -> dict[str, str]:
            if (answer := next(answers, None)) is not None:
                return answer
            event.set()
            while not release.is_set():
                with suppress(asyncio.CancelledError):
                    await release.wait()
            return {"status": "running"}

        config = PollingConfig(poll_interval=0.001)
        (outcome,) = await collect(poll_many_async(["mule"], fetch, config=config, cancel=event))
        assert isinstance(outcome.error, PollingCancelledError)
        assert (outcome.job, outcome.response) == ("mule", {"status": "running"})
        release.set()
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - it is not ours to wait for
            await asyncio.sleep(0)

    async def test_a_cancel_event_that_is_set_before(self, time: FastTime) -> None:
        """No job is taken in."""
        event = asyncio.Event()
        event.set()
        jobs = Jobs({1: 5})
        outcomes = await collect(poll_many_async([1], jobs.fetch, cancel=event))
        assert all(isinstance(outcome.error, PollingCancelledError) for outcome in outcomes)

    async def test_nothing_is_done_before_the_first_iteration(self) -> None:
        """Making the iterator starts no task and pulls no job."""
        before = asyncio.all_tasks()
        outcomes = poll_many_async(iter([1]), lambda job: job)
        assert asyncio.all_tasks() == before
        await outcomes.aclose()


async def test_labels_of_jobs_are_redacted(
    time: FastTime, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that is a URL with a key does not show it."""
    caplog.set_level(logging.DEBUG)

    async def fetch(job: str) -> None:
        raise ConnectionResetError

    url = "https://example.com/?code=SECRETKEY42"
    (outcome,) = await collect(
        poll_many_async([url], fetch, lambda r: True, config=PollingConfig(timeout=8))
    )
    assert "SECRETKEY42" not in str(outcome.error)
    assert "SECRETKEY42" not in caplog.text
    assert all("SECRETKEY42" not in str(record.__dict__) for record in caplog.records)


async def anext_(outcomes: Any) -> Any:
    return await outcomes.__anext__()
