"""A worker that claims, renews, retries and drains."""

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.job_store import (
    AzureTableError,
    JobRecord,
    JobStatus,
    SqliteJobStore,
    WorkSummary,
    work_batch,
    work_batch_async,
)
from infra_core.runtime import clock


@pytest.fixture
def store(tmp_path: Path) -> "SqliteJobStore[JobRecord]":
    """A store with a batch of six jobs."""
    store = SqliteJobStore(tmp_path / "jobs.sqlite3")
    store.save_many(JobRecord("b", f"{n}", payload={"n": n}) for n in range(6))
    return store


def test_a_batch_is_worked_at_and_failures_are_tried_again(
    store: "SqliteJobStore[JobRecord]",
) -> None:
    """One job fails once, one always; the cause and the results are kept."""

    def handler(job: JobRecord) -> dict[str, int]:
        if job.payload["n"] == 5 or (job.payload["n"] == 4 and job.attempts == 1):
            raise ConnectionError(f"no {job.attempts}")
        return {"square": job.payload["n"] ** 2}

    summary = work_batch(
        store, "b", handler, concurrency=2, max_attempts=2, retry_seconds=0, poll_seconds=0.01
    )
    assert summary == WorkSummary(completed=5, failed=1, retried=2)
    jobs = {job.job_id: job for job in store.iter_runs("b")}
    assert jobs["3"].payload == {"n": 3, "square": 9}
    assert (jobs["5"].status, jobs["5"].error) == (JobStatus.FAILED, "ConnectionError: no 2")
    assert jobs["4"].attempts == 2
    store.close()


def test_a_job_that_cannot_be_read_is_not_waited_for(store: "SqliteJobStore[JobRecord]") -> None:
    """It is pending permanently: the worker does the rest, and ends."""
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(
            "UPDATE jobs SET properties = json_set(properties, '$.attempts', 'many') "
            "WHERE job = '3'"
        )
    assert work_batch(store, "b", lambda _: None).completed == 5
    assert [job.job_id for job in store.unreadable] == ["3"]
    store.close()


@pytest.mark.parametrize("result", [{"x": object()}, {1: 2}, {"x": "y" * 2_000_000}])
def test_a_result_that_cannot_be_stored_fails_its_job_alone(
    store: "SqliteJobStore[JobRecord]", result: dict[Any, Any]
) -> None:
    """Returned by the handler, or put into the job that it was given; no worker ends by it."""

    def handler(job: JobRecord) -> dict[Any, Any] | None:
        if job.job_id == "2":
            job.payload |= result
        return result if job.job_id == "1" else None

    summary = work_batch(store, "b", handler, max_attempts=2, retry_seconds=0, poll_seconds=0.01)
    assert summary == WorkSummary(completed=4, failed=2, retried=2)
    jobs = {job.job_id: job for job in store.iter_runs("b", status="failed")}
    assert jobs.keys() == {"1", "2"}
    for job in jobs.values():
        assert "JobRecordError: " in str(job.error)
        assert job.payload == {"n": int(job.job_id)}
    store.close()


@pytest.mark.parametrize("lost", ["the request", "the answer", "each answer"])
def test_the_lease_is_renewed_while_the_handler_works(
    store: "SqliteJobStore[JobRecord]",
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lost: str,
) -> None:
    """The job is not anybody else's, though the work outlasts the lease and a renewal fails."""
    for number in range(1, 6):
        store.delete("b", f"{number}")
    renew, calls = store.renew, count()

    def unsteady(job: JobRecord, *, lease_seconds: float) -> JobRecord:
        renewed = None if lost == "the request" else renew(job, lease_seconds=lease_seconds)
        if next(calls) == 0 or lost == "each answer":
            raise AzureTableError("try again")
        return renewed or renew(job, lease_seconds=lease_seconds)

    async def handler(job: JobRecord) -> None:
        first = job.lease_until
        while True:
            now = store.fetch("b", job.job_id)
            if now and now.lease_until and first and now.lease_until > first:
                return
            await asyncio.sleep(0.01)

    monkeypatch.setattr(store, "renew", unsteady)
    summary = asyncio.run(work_batch_async(store, "b", handler, lease_seconds=3))
    assert summary == WorkSummary(completed=1)
    assert "the lease of job '0' was not renewed: try again" in caplog.text
    store.close()


def test_a_delayed_job_is_looked_for_now_and_then(
    store: "SqliteJobStore[JobRecord]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all the time: each look is a request."""
    job = store.fetch("b", "0")
    assert job is not None
    store.save(job.requeue(not_before=clock.utc_now() + timedelta(seconds=0.4)))
    claim, claims = store.claim, count()

    def counted(*args: Any, **options: Any) -> Any:
        next(claims)
        return claim(*args, **options)

    monkeypatch.setattr(store, "claim", counted)
    assert work_batch(store, "b", lambda _: None, poll_seconds=0.1).completed == 6
    assert next(claims) < 20
    store.close()


@pytest.mark.parametrize("result", [None, {"x": object()}])
def test_a_job_that_was_taken_over_is_lost(
    store: "SqliteJobStore[JobRecord]", result: dict[str, Any] | None
) -> None:
    """The result of a worker that no longer holds the job is dropped, whatever it is."""

    def handler(job: JobRecord) -> dict[str, Any] | None:
        if job.job_id != "2":
            return None
        stolen = store.fetch("b", "2")
        assert stolen is not None
        store.update(stolen.complete(by="other"))
        return result

    assert work_batch(store, "b", handler) == WorkSummary(completed=5, lost=1)
    store.close()


@pytest.mark.posix(reason="signals of POSIX")
def test_a_job_that_a_signal_cuts_off_has_used_up_no_attempt(
    store: "SqliteJobStore[JobRecord]", caplog: pytest.LogCaptureFixture
) -> None:
    """Restarts of a worker, however many, fail no job; its history tells of them."""

    async def cut_off(_: JobRecord) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    for _ in range(3):
        assert work_batch(store, "b", cut_off, max_attempts=2, grace=0).signal == signal.SIGTERM
    assert caplog.text.count("have 0 s to finish") == 3
    assert store.count_by_status("b") == {"pending": 6}
    assert work_batch(store, "b", lambda _: None, max_attempts=2) == WorkSummary(completed=6)
    outcomes = [attempt.outcome for attempt in store.list_runs("b")[0][-1].attempt_history]
    assert outcomes[-1] == "completed"
    assert set(outcomes[:-1]) <= {"requeued"}
    store.close()


@pytest.mark.posix(reason="signals of POSIX")
def test_a_signal_ends_the_claiming_and_what_is_under_way_is_finished(
    store: "SqliteJobStore[JobRecord]",
) -> None:
    """The rest stays pending for other workers."""

    async def handler(job: JobRecord) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):
            await asyncio.sleep(0)

    summary = work_batch(store, "b", handler)
    assert summary.signal == signal.SIGTERM
    assert summary.completed >= 1
    counts = store.count_by_status("b")
    assert counts["completed"] == summary.completed
    assert counts["pending"] == 6 - summary.completed
    store.close()


class _Handler:
    async def __call__(self, job: JobRecord) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"by": job.job_id}


@pytest.mark.parametrize(
    "handler", [_Handler(), partial(_Handler()), lambda job: _Handler()(job)], ids=range(3)
)
def test_what_a_handler_returns_to_be_awaited_is_awaited(
    store: "SqliteJobStore[JobRecord]", handler: Any
) -> None:
    """Whatever form it has: a job is not completed before its work is done."""
    assert work_batch(store, "b", handler, concurrency=3).completed == 6
    assert all(job.payload["by"] == job.job_id for job in store.iter_runs("b"))
    store.close()


def _cancelled(_: JobRecord) -> None:
    raise asyncio.CancelledError


async def _cancelled_async(_: JobRecord) -> None:
    waiting: asyncio.Future[None] = asyncio.Future()
    waiting.cancel()
    await waiting


def _changes_the_state(job: JobRecord) -> None:
    job.status = JobStatus.COMPLETED


def _changes_the_state_and_fails(job: JobRecord) -> None:
    job.status = JobStatus.PENDING
    raise ValueError


@pytest.mark.parametrize(
    "handler", [_cancelled, _cancelled_async, _changes_the_state, _changes_the_state_and_fails]
)
def test_a_handler_that_cancels_itself_or_spoils_its_job_fails_that_job_alone(
    store: "SqliteJobStore[JobRecord]", handler: Any
) -> None:
    """The worker goes on, and the attempt counts: no job is given out for ever."""

    def first(job: JobRecord) -> Any:
        return handler(job) if job.job_id == "0" else None

    summary = work_batch(store, "b", first, max_attempts=2, retry_seconds=0, poll_seconds=0.01)
    assert summary == WorkSummary(completed=5, failed=1, retried=1)
    failed = store.fetch("b", "0")
    assert failed is not None
    assert (failed.status, failed.attempts) == (JobStatus.FAILED, 2)
    store.close()


def test_a_handler_that_exits_ends_the_worker_and_leaves_no_job_behind(
    store: "SqliteJobStore[JobRecord]",
) -> None:
    """Its attempt has failed, so that it cannot end one worker after another."""

    def handler(_: JobRecord) -> None:
        sys.exit(3)

    with pytest.raises(SystemExit, match="3"):
        work_batch(store, "b", handler, max_attempts=1)
    jobs = list(store.iter_runs("b"))
    assert [job.error for job in jobs if job.status is JobStatus.FAILED] == ["SystemExit: 3"]
    assert not [job for job in jobs if job.status is JobStatus.RUNNING]
    store.close()


def test_a_delay_that_no_clock_can_show_is_the_longest_there_is(
    store: "SqliteJobStore[JobRecord]",
) -> None:
    """The worker that meets one does not end by it."""

    calls = count(1)

    def handler(_: JobRecord) -> None:
        if next(calls) == 6:
            store.delete_batch("b")  # or the others would be waited for
        raise ValueError

    summary = work_batch(store, "b", handler, retry_seconds=1e300, max_retry_seconds=1e300)
    assert summary == WorkSummary(retried=5, lost=1)
    store.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"handler": None}, "handler=None cannot be called"),
        ({"concurrency": 0}, "concurrency must be positive"),
        ({"poll_seconds": -1}, "poll_seconds=-1 is out of range"),
    ],
)
def test_wrong_arguments_are_named_before_a_job_is_claimed(
    store: "SqliteJobStore[JobRecord]", options: dict[str, Any], said: str
) -> None:
    """No attempt is used up by them."""
    with pytest.raises((TypeError, ValueError), match=said):
        work_batch(store, "b", **{"handler": print, **options})
    assert store.count_by_status("b") == {"pending": 6}
    store.close()


@pytest.mark.parametrize("age", [timedelta.max, timedelta.min, timedelta(days=10**6)])
def test_any_age_can_be_pruned(store: "SqliteJobStore[JobRecord]", age: timedelta) -> None:
    """Also one that leads out of the calendar."""
    store.save(JobRecord("b", "done").start().complete())
    assert store.prune(older_than=age) == (1 if age < timedelta() else 0)
    store.close()
