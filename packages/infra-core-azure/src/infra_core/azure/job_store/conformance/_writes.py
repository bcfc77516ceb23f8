"""Creating, replacing, comparing, deleting, and finding again."""

# ruff: noqa: S101 - these are tests
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from ...exceptions import AzureTableError, JobConflictError, JobExistsError, JobRecordError
from .._records import JobRecord, JobStatus
from ._base import Checks, CrawlRecord, EntityRecord, RichRecord, raised

__all__ = ["WriteChecks"]


class WriteChecks(Checks):
    """Creating, replacing, comparing, deleting, and finding again."""

    def test_a_created_record_is_fetched_as_it_was(self) -> None:
        """What was created is fetched again, equal in every field."""
        with self.open_store() as store:
            record = JobRecord(self.batch(), "job", payload={"url": "https://example.com/?q=é"})
            created = store.create(record)
            assert created is record
            assert store.fetch(record.batch_id, "job") == record
            assert store.fetch(record.batch_id, "nothing") is None

    def test_create_refuses_to_overwrite(self) -> None:
        """Not even with an equal record: two workers do not both believe that they made it."""
        with self.open_store() as store:
            record = store.create(JobRecord(self.batch(), "job", payload={"n": 1}))
            for payload in ({"n": 2}, {"n": 1}):
                again = replace(record, payload=payload)
                error = raised(JobExistsError, partial(store.create, again))
                assert (error.batch_id, error.job_id) == (record.batch_id, "job")
            assert store.fetch(record.batch_id, "job").payload == {"n": 1}

    def test_save_replaces_the_whole_record(self) -> None:
        """No property of the old record stays behind, spilled ones included."""
        with self.open_store(EntityRecord) as store:
            batch = self.batch()
            store.save(EntityRecord(batch, "job", old="x", long="y" * 100_000))
            store.save(EntityRecord(batch, "job", new="z"))
            assert store.fetch(batch, "job").more == {"new": "z"}

    def test_update_writes_over_the_version_that_was_read(self) -> None:
        """An update based on the stored version goes through, and the next one on top of it."""
        with self.open_store() as store:
            job = store.create(JobRecord(self.batch(), "job"))
            job = store.update(job.start())
            job = store.update(job.complete(size=3))
            stored = store.fetch(job.batch_id, "job")
            assert (stored.status, stored.attempts) == (JobStatus.COMPLETED, 1)
            assert stored.payload == {"size": 3}

    def test_update_of_a_stale_version_raises_with_both_versions(self) -> None:
        """A lost update is impossible: the later writer gets its version and the stored one."""
        with self.open_store() as store:
            first = store.create(JobRecord(self.batch(), "job"))
            second = store.fetch(first.batch_id, "job")
            store.update(first.start())
            ours = second.fail("mine")
            error = raised(JobConflictError, lambda: store.update(ours))
            assert error.ours is ours
            assert error.theirs.status is JobStatus.RUNNING
            assert store.update(error.theirs.fail("now")).status is JobStatus.FAILED

    def test_update_of_a_deleted_record_conflicts(self) -> None:
        """It does not come back by an update, nor is another one that was created since changed."""
        with self.open_store() as store:
            old = store.create(JobRecord(self.batch(), "job"))
            store.delete(old.batch_id, "job")
            error = raised(JobConflictError, lambda: store.update(old))
            assert error.theirs is None
            assert store.fetch(old.batch_id, "job") is None
            store.create(JobRecord(old.batch_id, "job"))
            raised(JobConflictError, lambda: store.update(old.start()))

    def test_update_knows_the_version_from_the_expected_record(self) -> None:
        """Records without a field for the version are updated with `expected`, and not without."""
        with self.open_store(RichRecord) as store:
            old = store.create(RichRecord(self.batch(), "job"))
            error = raised(AzureTableError, lambda: store.update(replace(old, small=2)))
            assert "fetch it first" in str(error)
            new = store.update(replace(old, small=2), expected=old)
            assert store.fetch(new.batch_id, "job").small == 2
            raised(JobConflictError, lambda: store.update(replace(old, small=3), expected=old))

    def test_delete_returns_whether_there_was_one(self) -> None:
        """With `expected`, only what was read is deleted."""
        with self.open_store() as store:
            job = store.create(JobRecord(self.batch(), "job"))
            newer = store.update(replace(job).start())
            error = raised(
                JobConflictError, lambda: store.delete(job.batch_id, "job", expected=job)
            )
            assert error.theirs.status is JobStatus.RUNNING
            for expected in (newer, None):
                store.save(newer)
                assert store.delete(job.batch_id, "job", expected=expected) is True
                assert store.delete(job.batch_id, "job", expected=expected) is False

    def test_many_records_of_many_batches_are_saved_at_once(self) -> None:
        """More than one transaction holds, partitions mixed, and of two writes the later wins."""
        with self.open_store() as store:
            batches = [self.batch(), self.batch()]
            records = [
                JobRecord(batches[n % 2], f"{n // 2:03}", payload={"n": n}) for n in range(230)
            ]
            records.append(JobRecord(batches[0], "000", payload={"n": "later"}))
            saved = store.save_many(records)
            assert len(saved) == 231
            assert [len(list(store.iter_runs(batch))) for batch in batches] == [115, 115]
            assert store.fetch(batches[0], "000").payload == {"n": "later"}
            assert store.update(saved[5].start()).attempts == 1

    def test_batches_beyond_four_mebibytes_are_split(self) -> None:
        """Large records go in as many transactions as they need."""
        with self.open_store() as store:
            batch = self.batch()
            store.save_many(
                JobRecord(batch, str(n), payload={"text": "u" * 450_000}) for n in range(11)
            )
            assert len(list(store.iter_runs(batch))) == 11

    def test_one_unfit_record_stops_save_many_before_anything_is_sent(self) -> None:
        """All records are checked first."""
        with self.open_store() as store:
            batch = self.batch()
            unfit = JobRecord(batch, "b", payload={"x": object()})
            error = raised(JobRecordError, lambda: store.save_many([JobRecord(batch, "a"), unfit]))
            assert error.field == "payload"
            assert store.fetch(batch, "a") is None

    def test_a_closed_store_may_be_closed_again_and_used_again(self) -> None:
        """Closing releases what is held; using the store opens it anew."""
        store = self.open_store()
        job = store.create(JobRecord(self.batch(), "job"))
        store.close()
        store.close()
        assert store.fetch(job.batch_id, "job") == job
        store.close()

    def test_fields_of_another_type_survive_every_update(self) -> None:
        """An old worker in a rolling deploy, a command that knows `JobRecord` only."""
        batch = self.batch()
        new = CrawlRecord(
            batch, "job", url="https://a.example", timeout=5.0, text="x" * 40_000,
            headers={"a": "b"}, Timestamp=7, proxy=None,
        )  # fmt: skip
        with self.open_store(CrawlRecord) as store:
            store.create(new)
        with self.open_store() as store:
            job = store.claim(batch, worker="old", lease_seconds=60)
            job = store.renew(job, lease_seconds=60)
            store.update(job.fail("no"))
        with self.open_store() as store:
            (job,) = store.list_runs(batch)[0]
            job = store.update(job.requeue())
            job = store.update(job.start())
        with self.open_store() as store:  # one that has never read it
            store.update(job.complete(files=1))
        with self.open_store(CrawlRecord) as store:
            done = store.fetch(batch, "job")
            assert (done.status, done.payload, done.attempts) == ("completed", {"files": 1}, 2)
            for name in ("url", "timeout", "text", "headers", "Timestamp", "proxy"):
                assert getattr(done, name) == getattr(new, name), name
            done.text, done.url = "short", "https://b.example"
            store.update(done)
            assert store.fetch(batch, "job").text == "short"
        with self.open_store() as store:
            store.update(store.fetch(batch, "job").requeue(force=True))
        with self.open_store(CrawlRecord) as store:
            done = store.fetch(batch, "job")
            assert (done.text, done.url, done.proxy) == ("short", "https://b.example", None)

    def test_pages_follow_each_other_without_gap(self) -> None:
        """Tokens lead through all records, each page sorted by time, newest first."""
        with self.open_store() as store:
            batch = self.batch()
            start = datetime(2026, 1, 1, tzinfo=timezone.utc)
            store.save_many(
                JobRecord(batch, f"job-{n}", updated_at=start + timedelta(hours=n))
                for n in range(7)
            )
            seen: list[str] = []
            token = None
            while True:
                page, token = store.list_runs(batch, limit=3, continuation_token=token)
                assert len(page) <= 3
                assert page == sorted(page, key=lambda job: job.updated_at, reverse=True)
                seen += [job.job_id for job in page]
                if token is None:
                    break
            assert sorted(seen) == [f"job-{n}" for n in range(7)]

    def test_listing_shows_one_batch_only(self) -> None:
        """Neither a batch whose name starts alike nor one with quotes gets in between."""
        with self.open_store() as store:
            batch = self.batch() + "' or '1' eq '1"
            store.save_many([JobRecord(batch, "in"), JobRecord(batch + "2", "out")])
            assert [job.job_id for job in store.list_runs(batch)[0]] == ["in"]
            assert store.list_runs(self.batch()) == ([], None)

    def test_iteration_goes_over_all_pages(self) -> None:
        """More records than a page holds are all seen, once, in the order of their ids."""
        with self.open_store() as store:
            batch = self.batch()
            store.save_many(JobRecord(batch, f"{n:04}") for n in range(210))
            assert [job.job_id for job in store.iter_runs(batch)] == [f"{n:04}" for n in range(210)]
            other = store.save(JobRecord(self.batch(), "job"))
            assert {batch, other.batch_id} <= {job.batch_id for job in store.iter_runs(None)}

    def test_queries_by_status(self) -> None:
        """One status, several, as enum or as text."""
        with self.open_store() as store:
            batch = self.batch()
            store.save_many(
                JobRecord(batch, f"{status.value}", status=status) for status in JobStatus
            )

            def found(status: Any) -> list[str]:
                return [job.job_id for job in store.iter_runs(batch, status=status)]

            assert found(JobStatus.FAILED) == ["failed"]
            assert found("timed_out") == ["timed_out"]
            assert found({JobStatus.FAILED, JobStatus.RUNNING}) == ["failed", "running"]

    def test_queries_by_time_include_the_start_and_exclude_the_end(self) -> None:
        """`since` is inclusive, `until` is not, to the microsecond."""
        with self.open_store() as store:
            batch = self.batch()
            start = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
            tick = timedelta(microseconds=1)
            store.save_many(JobRecord(batch, str(n), updated_at=start + n * tick) for n in range(4))
            found = store.iter_runs(batch, since=start + tick, until=start + 3 * tick)
            assert [job.job_id for job in found] == ["1", "2"]

    def test_queries_of_hand_written_entities(self) -> None:
        """Records that keep status and time under other names are found as well."""
        with self.open_store(EntityRecord) as store:
            batch = self.batch()
            store.save(EntityRecord(batch, "a", "2026-01-01T00:00:00Z", state="failed"))
            store.save(EntityRecord(batch, "b", "2026-01-03T00:00:00+00:00", state="failed"))
            store.save(EntityRecord(batch, "c", "2026-01-03T00:00:00Z", state="running"))
            found = store.iter_runs(
                batch, status="failed", since=datetime(2026, 1, 2, tzinfo=timezone.utc)
            )
            assert [job.job_id for job in found] == ["b"]
