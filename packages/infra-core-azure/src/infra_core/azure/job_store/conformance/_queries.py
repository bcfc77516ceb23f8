"""Pages, iteration, and queries by status and time."""

# ruff: noqa: S101 - these are tests
from datetime import datetime, timedelta, timezone
from typing import Any

from .._records import JobRecord, JobStatus
from ._base import Checks, EntityRecord

__all__ = ["QueryChecks"]


class QueryChecks(Checks):
    """Pages, iteration, and queries by status and time."""

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
