"""Job records and the states they go through."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta, timezone
from typing import Any

import pytest

from infra_core.azure.job_store import JobRecord, JobStateError, JobStatus
from infra_core.runtime import clock
from infra_core.runtime.testing import fast_time


def _job(status: JobStatus = JobStatus.PENDING) -> JobRecord:
    return JobRecord("batch", "job", status=status, error="old", lease_owner="w")


def test_a_new_job_is_pending_and_untried() -> None:
    """The defaults describe a job that no worker has touched."""
    job = JobRecord("batch", "job")
    assert (job.status, job.attempts, job.error, job.payload) == (JobStatus.PENDING, 0, None, {})
    assert job.created_at.tzinfo is timezone.utc


def test_starting_counts_an_attempt_and_forgets_the_error() -> None:
    """A started job is running, tried once more, without error."""
    job = _job().start()
    assert (job.status, job.attempts, job.error) == (JobStatus.RUNNING, 1, None)
    assert job.fail("again").start().attempts == 2


def test_the_verbs_leave_the_record_as_it_was() -> None:
    """A copy is returned; the original can still be compared."""
    job = _job()
    job.start()
    assert job.status is JobStatus.PENDING


def test_every_change_of_state_is_dated() -> None:
    """`updated_at` moves, `created_at` does not."""
    with fast_time() as time:
        job = JobRecord("batch", "job")
        time.advance(5)
        later = job.start()
        assert later.updated_at - job.updated_at == timedelta(seconds=5)
        assert later.created_at == job.created_at


def test_completing_merges_into_the_payload() -> None:
    """What was found out is added to what was known."""
    job = JobRecord("batch", "job", payload={"url": "u"}).start().complete(bytes=3)
    assert job.payload == {"url": "u", "bytes": 3}
    assert job.status is JobStatus.COMPLETED


def test_an_exception_is_kept_as_type_and_message() -> None:
    """The cause of a failure can be read without the traceback."""
    assert _job().start().fail(ValueError("bad")).error == "ValueError: bad"
    assert _job().start().fail(TimeoutError()).error == "TimeoutError"
    assert _job().start().time_out("after 5 s").error == "after 5 s"
    assert _job().start().time_out().error is None


def test_an_ended_job_holds_no_lease() -> None:
    """Owner and end of the lease are cleared with every state but running."""
    running = JobRecord("b", "j", status=JobStatus.RUNNING, lease_owner="w")
    for job in (running.complete(), running.fail("x"), running.time_out(), running.requeue()):
        assert job.lease_owner is None


def test_a_delay_ends_with_the_next_start() -> None:
    """A job that was put back waits for its time, and for that alone."""
    later = clock.utc_now() + timedelta(seconds=60)
    waiting = JobRecord("b", "j").requeue(not_before=later)
    assert waiting.not_before == later
    assert waiting.start().not_before is None


def test_a_completed_job_is_reopened_only_by_force() -> None:
    """What is done is not done again by mistake."""
    done = _job(JobStatus.COMPLETED)
    with pytest.raises(JobStateError, match=r"requeue\(force=True\)"):
        done.requeue()
    assert done.requeue(force=True).status is JobStatus.PENDING


@pytest.mark.parametrize("status", JobStatus)
def test_illegal_transitions_are_refused(status: JobStatus) -> None:
    """The verbs allow exactly what the table of states allows, and the error says what it is."""
    verbs: dict[JobStatus, Callable[[JobRecord], JobRecord]] = {
        JobStatus.RUNNING: lambda job: job.start(),
        JobStatus.COMPLETED: lambda job: job.complete(),
        JobStatus.FAILED: lambda job: job.fail("x"),
        JobStatus.TIMED_OUT: lambda job: job.time_out(),
    }
    for wanted, verb in verbs.items():
        if status.can_become(wanted):
            assert verb(_job(status)).status is wanted
        else:
            with pytest.raises(JobStateError) as caught:
                verb(_job(status))
            assert (caught.value.current, caught.value.wanted) == (status, wanted)
            assert isinstance(caught.value, ValueError)


def test_the_state_machine_is_the_documented_one() -> None:
    """Pending, running, then one of three ends; from two of them there is a way back."""
    ends = [status for status in JobStatus if status.is_terminal]
    assert ends == [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.TIMED_OUT]
    assert [status for status in JobStatus if status.is_failure] == ends[1:]
    assert not any(JobStatus.COMPLETED.can_become(status) for status in JobStatus)
    assert not JobStatus.PENDING.can_become(JobStatus.COMPLETED)
    assert JobStatus.TIMED_OUT.can_become(JobStatus.RUNNING)


def test_a_status_reads_as_its_value() -> None:
    """In text, JSON and comparisons a status is the word that is stored."""
    assert f"{JobStatus.TIMED_OUT}" == "timed_out"
    assert JobStatus("running") is JobStatus.RUNNING


def test_a_record_of_ones_own_inherits_the_verbs() -> None:
    """Fields may be added to the ready-made record."""

    @dataclass
    class Crawl(JobRecord):
        depth: int = 0

    crawl = Crawl("b", "j", depth=3).start()
    assert isinstance(crawl, Crawl)
    assert crawl.depth == 3
    values = [getattr(JobRecord("b", "j"), field.name) for field in fields(JobRecord)]
    make: Any = Crawl
    assert make(*values[:-1], 4).depth == 4  # the history is given by name alone


def test_the_verbs_keep_the_history_of_attempts() -> None:
    """In the outcome's own word; who put a job back before it ran changed nothing."""
    job = JobRecord("b", "j").requeue().start(worker="ann").time_out("late")
    job = job.start().fail(ValueError("no")).requeue().start().complete()
    seen = [(a.number, a.worker, a.outcome, a.error) for a in job.attempt_history]
    assert seen == [
        (1, "ann", "timed_out", "late"),
        (2, None, "failed", "ValueError: no"),
        (3, None, "completed", None),
    ]
    assert re.fullmatch(r"2\d{3}-.*Z - .*Z timed_out by ann: late", str(job.attempt_history[0]))


def test_a_history_of_another_kind_is_let_be() -> None:
    """Of a subclass that has a field of this name for something else."""

    @dataclass
    class Own(JobRecord):
        attempt_history: str = "mine"  # type: ignore[assignment]

    assert Own("b", "j").start().fail("x").attempt_history == "mine"


def test_a_cause_never_is_a_failure_of_its_own() -> None:
    """However long it is, whatever stands in it, and if it cannot be printed at all."""

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    long = _job().start().fail("x" * 2_000_000).error
    assert long is not None
    assert len(long) < 8_100
    assert long.endswith("... (2000000 characters)")
    dirty = _job().start().fail("GET https://a.example/?sig=s3cr3tvalue99 \x1b[2Jfailed").error
    assert dirty is not None
    assert "s3cr3tvalue99" not in dirty
    assert "\x1b" not in dirty
    assert _job().start().fail(BrokenError()).error == "BrokenError: its text cannot be printed"


def test_a_payload_may_hold_any_name() -> None:
    """Those of the arguments of Python's methods as well."""
    assert JobRecord("b", "j").start().complete(self=1).payload == {"self": 1}
