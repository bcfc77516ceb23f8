"""Workers, leases and attempts."""

# ruff: noqa: S101 - these are tests
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.util import find_spec
from threading import Thread
from unittest import SkipTest

from infra_core.runtime import clock
from infra_core.runtime.testing import fast_time

from ...exceptions import JobConflictError, JobRecordError, JobStateError
from .._records import JobRecord, JobStatus
from ._base import Checks, CrawlRecord, EarlierJob, EntityRecord, raised

__all__ = ["ClaimChecks"]


class ClaimChecks(Checks):
    """Workers, leases and attempts."""

    model_examples = 25
    """Sequences of operations that are tried by `hypothesis`."""

    def test_any_sequence_of_operations_agrees_with_a_model(self) -> None:
        """By two users at once; skipped where hypothesis is not installed."""
        if find_spec("hypothesis") is None:
            raise SkipTest("hypothesis is not installed")
        from ._model import check_model

        check_model(self.open_store, self.batch, examples=self.model_examples, steps=20)

    def test_a_claimed_job_is_held_for_the_worker(self) -> None:
        """The claim starts the job, and no other worker gets it while the lease lasts."""
        with self.open_store() as store, fast_time():
            batch = self.batch()
            store.create(JobRecord(batch, "job"))
            job = store.claim(batch, worker="one", lease_seconds=60)
            assert (job.status, job.attempts, job.lease_owner) == (JobStatus.RUNNING, 1, "one")
            assert store.claim(batch, worker="two", lease_seconds=60) is None
            assert store.update(job.complete()).lease_owner is None
            store.create(JobRecord(batch, "started without a claim").start())
            assert store.claim(batch, worker="two", lease_seconds=60) is None

    def test_an_expired_lease_is_taken_over_and_the_first_worker_learns_it(self) -> None:
        """After the lease somebody else goes on, and the slow worker's result is refused."""
        with self.open_store() as store, fast_time() as time:
            batch = self.batch()
            store.create(JobRecord(batch, "job"))
            slow = store.claim(batch, worker="slow", lease_seconds=60)
            time.advance(61)
            quick = store.claim(batch, worker="quick", lease_seconds=60)
            assert (quick.lease_owner, quick.attempts) == ("quick", 2)
            error = raised(JobConflictError, lambda: store.update(slow.complete()))
            assert error.theirs.lease_owner == "quick"
            raised(JobConflictError, lambda: store.renew(slow, lease_seconds=60))
            assert store.update(quick.complete()).status is JobStatus.COMPLETED

    def test_a_record_keeps_the_history_of_its_attempts(self) -> None:
        """Who, when and how it ended; the last ten of them."""
        with self.open_store() as store, fast_time() as time:
            store.create(JobRecord(batch := self.batch(), "job"))
            lost = store.claim(batch, worker="lost", lease_seconds=60)
            time.advance(61)
            job = store.update(store.claim(batch, worker="one", lease_seconds=60).fail("x" * 9_999))
            assert [len(each.error or "") for each in job.attempt_history] == [0, 500]
            assert job.attempt_history[0].ended_at == lost.lease_until
            job = store.update(job.requeue())
            for _ in range(9):
                job = store.update(store.claim(batch, worker="w", lease_seconds=60).requeue())
            store.claim(batch, worker="last", lease_seconds=60)
            time.advance(61)
            assert store.claim(batch, worker="w", lease_seconds=60, max_attempts=12) is None
            found = store.fetch(batch, "job").attempt_history
            assert [each.number for each in found] == list(range(3, 13))
            outcomes = [(each.outcome, each.worker) for each in found]
            assert outcomes == [("requeued", "w")] * 9 + [("lost", "last")]
            assert found[0].started_at <= found[0].ended_at <= found[-1].ended_at
            # A type that knows of no history carries it along, and one of another kind is let be.
            with self.open_store(EarlierJob) as other:
                other.update(replace(other.fetch(batch, "job"), attempts=0))
            assert store.fetch(batch, "job").attempt_history == found

    def test_a_renewed_lease_is_not_taken_over(self) -> None:
        """A worker that needs longer renews in time; a job that has ended is not held."""
        with self.open_store() as store, fast_time() as time:
            batch = self.batch()
            store.create(JobRecord(batch, "job"))
            job = store.claim(batch, worker="one", lease_seconds=60)
            time.advance(50)
            job = store.renew(job, lease_seconds=60)
            time.advance(50)
            assert store.claim(batch, worker="two", lease_seconds=60) is None
            done = store.update(job.complete())
            error = raised(JobStateError, lambda: store.renew(done, lease_seconds=60))
            assert error.job_id == "job"
            assert store.fetch(batch, "job").lease_until is None

    def test_a_job_that_used_up_its_attempts_has_failed(self) -> None:
        """A job that kills its workers is not given out for ever."""
        with self.open_store() as store, fast_time() as time:
            batch = self.batch()
            store.create(JobRecord(batch, "poison"))
            for _ in range(2):
                assert store.claim(batch, worker="w", lease_seconds=1, max_attempts=2)
                time.advance(2)
            assert store.claim(batch, worker="w", lease_seconds=1, max_attempts=2) is None
            stored = store.fetch(batch, "poison")
            assert stored.status is JobStatus.FAILED
            assert "last worker: w" in stored.error
            assert "2 starts" in stored.error

    def test_no_two_workers_get_the_same_job(self) -> None:
        """Threads that claim at the same time share out all jobs, each once."""
        with self.open_store() as store:
            batch = self.batch()
            store.save_many(JobRecord(batch, f"{n:02}") for n in range(24))
            taken: list[str] = []

            def work(name: str) -> None:
                while (job := store.claim(batch, worker=name, lease_seconds=600)) is not None:
                    taken.append(job.job_id)
                    store.update(job.complete())

            threads = [Thread(target=work, args=(f"worker-{n}",)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(taken) == [f"{n:02}" for n in range(24)]

    def test_a_job_that_cannot_be_read_stops_no_other(self) -> None:
        """A newer state, a bad number: left out; the rest goes on."""
        batch = self.batch()
        with self.open_store(EntityRecord) as store:
            store.save(EntityRecord(batch, "bad", status="pending", attempts="many"))
        with self.open_store() as store:
            assert list(store.iter_runs(batch, status="pending")) == []
            raised(JobRecordError, lambda: list(store.iter_runs(batch)))
            for number in range(3):
                store.create(JobRecord(batch, f"good-{number}"))
            assert len(store.list_runs(batch)[0]) == 3
            assert len(list(store.iter_runs(batch))) == 3
            for _ in range(3):
                assert store.claim(batch, worker="w", lease_seconds=60)
            assert store.claim(batch, worker="w", lease_seconds=60) is None
            raised(JobRecordError, lambda: store.fetch(batch, "bad"))
            store.save(JobRecord(batch, "bad"))
            assert len(list(store.iter_runs(batch))) == 4

    def test_claims_find_all_there_is_among_delayed_and_leased_jobs(self) -> None:
        """More jobs than a page of a claim holds, of every kind; delayed ones in their time."""
        with self.open_store() as store, fast_time() as time:
            batch, later = self.batch(), clock.utc_now() + timedelta(seconds=30)
            store.save_many(JobRecord(batch, f"a{n:02}") for n in range(17))
            for _ in range(17):
                assert store.claim(batch, worker="dead", lease_seconds=30)
            store.save_many(JobRecord(batch, f"b{n:02}", not_before=later) for n in range(17))
            store.save_many(JobRecord(batch, f"c{n:02}") for n in range(17))
            names = []
            for wait in (0, 31):
                time.advance(wait)
                while job := store.claim(batch, worker="w", lease_seconds=600):
                    names.append(job.job_id)
                    assert job.not_before is None
            assert sorted(names[:17]) == [f"c{n:02}" for n in range(17)]
            assert sorted(names[17:]) == [f"{k}{n:02}" for k in "ab" for n in range(17)]

    def test_jobs_are_counted_where_they_are(self) -> None:
        """By state, for one batch and for all, those that cannot be read among them."""
        batch = self.batch()
        with self.open_store(EntityRecord) as store:
            store.save(EntityRecord(batch, "bad", status="paused"))
        with self.open_store() as store:
            jobs = [JobRecord(batch, f"{n}") for n in range(3)]
            store.save_many([*jobs, JobRecord(batch, "done").start().complete()])
            counts = {"pending": 3, "completed": 1, "paused": 1}
            assert store.count_by_status(batch) == counts
            assert store.count_by_status(self.batch()) == {}
            listed = next(b for b in store.batches() if b.batch_id == batch)
            assert listed.counts == counts
            assert listed.first_change == jobs[0].updated_at
            assert type(listed.first_change) is datetime  # no class of an SDK's
            assert listed.last_change > jobs[2].updated_at
        with self.open_store(EntityRecord) as store:
            assert sum(store.count_by_status(batch).values()) == 5

    def test_many_are_updated_but_those_that_others_changed(self) -> None:
        """A conflict on one does not end the rest; fields of other types stay."""
        batch = self.batch()
        with self.open_store(CrawlRecord) as store:
            store.save_many(CrawlRecord(batch, f"{n:03}", url="u") for n in range(103))
        with self.open_store() as store:
            jobs = list(store.iter_runs(batch))
            store.update(store.fetch(batch, "007").start())
            store.delete(batch, "009")
            stored = store.update_many(job.start().fail("no") for job in jobs)
            assert [n for n, job in enumerate(stored) if job is None] == [7, 9]
            assert store.count_by_status(batch) == {"failed": 101, "running": 1}
            assert store.update(stored[0].requeue()).status is JobStatus.PENDING
            assert store.update_many([]) == []
            raised(TypeError, lambda: store.update_many("no"))
        with self.open_store(CrawlRecord) as store:
            assert {job.url for job in store.iter_runs(batch)} == {"u"}

    def test_a_batch_is_deleted_with_what_cannot_be_read(self) -> None:
        """And no other batch."""
        batch, other = self.batch(), self.batch()
        with self.open_store(EntityRecord) as store:
            store.save(EntityRecord(batch, "bad", status="paused"))
        with self.open_store() as store:
            store.create(JobRecord(other, "job"))
            store.save_many(JobRecord(batch, f"{n:03}") for n in range(120))
            assert store.delete_batch(batch) == 121
            assert store.delete_batch(batch) == 0
            assert (store.count_by_status(batch), len(list(store.iter_runs(other)))) == ({}, 1)

    def test_old_jobs_are_pruned_by_state(self) -> None:
        """Those that ended by default; by age, state and batch."""
        with self.open_store() as store, fast_time() as time:
            batch = self.batch()
            jobs = [JobRecord(batch, name).start() for name in ("done", "failed", "running")]
            store.save_many([jobs[0].complete(), jobs[1].fail("no"), jobs[2]])
            time.advance(100)
            store.create(JobRecord(batch, "new").start().complete())
            age = timedelta(seconds=50)
            assert store.prune(older_than=timedelta(seconds=500), batch_id=batch) == 0
            assert store.prune(older_than=age, status="failed", batch_id=batch) == 1
            assert store.prune(older_than=clock.utc_now() - age, batch_id=batch) == 1
            (new,) = store.iter_runs(batch, status="completed")
            assert store.prune(older_than=new.updated_at, batch_id=batch) == 0
            assert [job.job_id for job in store.iter_runs(batch)] == ["new", "running"]
