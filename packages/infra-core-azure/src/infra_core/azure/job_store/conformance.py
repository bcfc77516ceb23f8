"""How every job store behaves, as checks that run against any of them.

One suite for all backends, ours and yours: inherit from the class, say how a store is opened, and
pytest collects the checks.

Example:
    ::

        class TestMyStore(JobStoreConformance):
            def open_store(self, record_type=JobRecord):
                return MyStore(record_type)
"""

# ruff: noqa: S101, D102, PLR2004 - these are tests; their docstrings state the behaviour
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from threading import Thread
from typing import Any

from infra_core.runtime.testing import fast_time

from ..exceptions import (
    AzureTableError,
    JobConflictError,
    JobExistsError,
    JobRecordError,
)
from ._protocol import JobStore
from ._records import JobRecord, JobStatus

__all__ = ["EntityRecord", "JobStoreConformance", "RichRecord"]


class Colour(Enum):
    """An enum whose values are no text."""

    RED = (1, 0, 0)
    GREEN = (0, 1, 0)


class Level(IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


@dataclass
class Part:
    """A dataclass inside a record."""

    name: str
    seen: datetime
    inner: "Part | None" = None


@dataclass(frozen=True)
class RichRecord:
    """A record of every type that a field may have; frozen, without a field for the version."""

    batch_id: str
    job_id: str
    status: JobStatus = JobStatus.PENDING
    updated_at: datetime = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    small: int = 1
    big: int = 2**40
    ratio: float = 0.1
    flag: bool = True
    text: str = "it's ünïcode \U0001f600 \x00"
    blob: bytes = b"\x00\xff"
    key: uuid.UUID = uuid.UUID(int=5)
    day: date = date(2026, 2, 3)
    span: timedelta = timedelta(days=1, microseconds=7)
    price: Decimal = Decimal("1.10")
    where: PurePosixPath = PurePosixPath("a/b")
    colour: Colour = Colour.GREEN
    level: Level = Level.HIGH
    tags: list[str] = field(default_factory=lambda: ["a", "b"])
    pair: tuple[int, str] = (1, "x")
    ids: frozenset[int] = frozenset({3, 1})
    table: dict[int, Colour] = field(default_factory=lambda: {7: Colour.RED})
    anything: dict[str, Any] = field(default_factory=lambda: {"a": [1, None, {"b": True}]})
    part: Part = field(
        default_factory=lambda: Part(
            "p",
            datetime(2026, 1, 1, tzinfo=timezone.utc),
            Part("q", datetime(2025, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc)),
        )
    )
    maybe: str | None = None
    unless: str | None = "default"


class EntityRecord:
    """A record with hand-written `to_entity` and `from_entity`, times as text."""

    def __init__(
        self, batch_id: str, job_id: str, updated_at: str | None = None, **more: Any
    ) -> None:
        self.batch_id = batch_id
        self.job_id = job_id
        self.updated_at = updated_at
        self.more = more

    @property
    def status(self) -> str | None:
        """State, as text."""
        value: str | None = self.more.get("state")
        return value

    def to_entity(self) -> dict[str, Any]:
        """Return the properties under names of its own."""
        keys = {"PartitionKey": self.batch_id, "RowKey": self.job_id}
        return {**keys, "UpdatedAt": self.updated_at, **self.more}

    @classmethod
    def from_entity(cls, entity: Any) -> "EntityRecord":
        """Read the properties back."""
        more = dict(entity)
        keys = more.pop("PartitionKey"), more.pop("RowKey")
        return cls(*keys, more.pop("UpdatedAt", None), **more)


def raised(error: type[BaseException], call: Callable[[], object]) -> Any:
    """Return the error that a call raises, and fail when it raises none."""
    try:
        call()
    except error as caught:
        return caught
    raise AssertionError(f"{error.__name__} was not raised")


class JobStoreConformance:
    """The checks. Each works in a batch of its own, so that they may share one table."""

    def open_store(self, record_type: type[Any] = JobRecord) -> JobStore[Any]:
        """Open the store under test; overridden by whoever inherits."""
        raise NotImplementedError("say in open_store how the store under test is opened")

    @staticmethod
    def batch() -> str:
        """Return the id of a batch that nobody else uses."""
        return f"batch-{uuid.uuid4().hex}"

    def test_a_created_record_is_fetched_as_it_was(self) -> None:
        """What was created is fetched again, equal in every field."""
        with self.open_store() as store:
            record = JobRecord(self.batch(), "job", payload={"url": "https://example.com/?q=é"})
            created = store.create(record)
            assert created is record
            assert store.fetch(record.batch_id, "job") == record

    def test_fetching_what_is_not_there_gives_none(self) -> None:
        """There is no error for a job that does not exist."""
        with self.open_store() as store:
            assert store.fetch(self.batch(), "nothing") is None

    def test_create_refuses_to_overwrite(self) -> None:
        """A second create of the same ids raises and leaves the first record as it was."""
        with self.open_store() as store:
            batch = self.batch()
            store.create(JobRecord(batch, "job", payload={"n": 1}))
            error = raised(
                JobExistsError, lambda: store.create(JobRecord(batch, "job", payload={"n": 2}))
            )
            assert (error.batch_id, error.job_id) == (batch, "job")
            assert store.fetch(batch, "job").payload == {"n": 1}

    def test_create_of_an_equal_record_is_refused_as_well(self) -> None:
        """Two workers that create the same record do not both believe that they made it."""
        with self.open_store() as store:
            record = JobRecord(self.batch(), "job")
            store.create(record)
            raised(JobExistsError, lambda: store.create(replace(record)))

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
        """A record that somebody deleted does not come back by an update."""
        with self.open_store() as store:
            job = store.create(JobRecord(self.batch(), "job"))
            store.delete(job.batch_id, "job")
            error = raised(JobConflictError, lambda: store.update(job))
            assert error.theirs is None
            assert store.fetch(job.batch_id, "job") is None

    def test_update_of_a_recreated_record_conflicts(self) -> None:
        """A version never comes back, not even when a record is deleted and created again."""
        with self.open_store() as store:
            old = store.create(JobRecord(self.batch(), "job"))
            store.delete(old.batch_id, "job")
            store.create(JobRecord(old.batch_id, "job"))
            raised(JobConflictError, lambda: store.update(old.start()))

    def test_update_without_a_version_says_what_to_do(self) -> None:
        """A record that was never read has no version to compare."""
        with self.open_store() as store:
            error = raised(
                AzureTableError, lambda: store.update(JobRecord(self.batch(), "job").start())
            )
            assert "fetch it first" in str(error)

    def test_update_knows_the_version_from_the_expected_record(self) -> None:
        """Records without a field for the version are updated with `expected`."""
        with self.open_store(RichRecord) as store:
            old = store.create(RichRecord(self.batch(), "job"))
            new = store.update(replace(old, small=2), expected=old)
            assert store.fetch(new.batch_id, "job").small == 2
            raised(JobConflictError, lambda: store.update(replace(old, small=3), expected=old))

    def test_delete_tells_whether_there_was_one(self) -> None:
        """The second delete of a record finds nothing and raises nothing."""
        with self.open_store() as store:
            job = store.create(JobRecord(self.batch(), "job"))
            assert store.delete(job.batch_id, "job") is True
            assert store.delete(job.batch_id, "job") is False

    def test_delete_of_a_changed_record_conflicts(self) -> None:
        """With `expected`, only what was read is deleted."""
        with self.open_store() as store:
            job = store.create(JobRecord(self.batch(), "job"))
            newer = store.update(replace(job).start())
            error = raised(
                JobConflictError, lambda: store.delete(job.batch_id, "job", expected=job)
            )
            assert error.theirs.status is JobStatus.RUNNING
            assert store.delete(job.batch_id, "job", expected=newer) is True

    def test_every_field_type_comes_back_as_it_was(self) -> None:
        """Numbers, text, bytes, times to the microsecond, enums and collections survive."""
        with self.open_store(RichRecord) as store:
            record = RichRecord(self.batch(), "job", unless=None)
            store.create(record)
            fetched = store.fetch(record.batch_id, "job")
            assert fetched == record
            for name in RichRecord.__dataclass_fields__:
                assert type(getattr(fetched, name)) is type(getattr(record, name)), name

    def test_numbers_up_to_64_bits_are_kept(self) -> None:
        """The largest and smallest whole numbers of 64 bits survive, larger ones are refused."""
        with self.open_store(RichRecord) as store:
            for number in (2**63 - 1, -(2**63), 2**31, 0):
                record = RichRecord(self.batch(), "job", big=number)
                store.save(record)
                assert store.fetch(record.batch_id, "job").big == number
            record = RichRecord(self.batch(), "job", big=2**63)
            assert raised(JobRecordError, lambda: store.save(record)).field == "big"

    def test_awkward_ids_are_kept(self) -> None:
        """Slashes, question marks, quotes, percent signs, control and other characters."""
        awkward = ("a/b\\c#d?e", "it's", "100%", "a%2Fb", "tab\there\n\x7f\x85", "ü \U0001f600")
        awkward += ("!x2F!", "!!x", "+a&b=c;d", "..", " lead and trail ", '"double"', "\ud800")
        with self.open_store() as store:
            for name in awkward:
                batch = f"{self.batch()}{name}"
                store.create(JobRecord(batch, name))
                assert store.fetch(batch, name).job_id == name
                assert [r.batch_id for r in store.iter_runs(batch)] == [batch]
                job = store.update(store.fetch(batch, name).start())
                store.save_many([job])
                assert store.delete(batch, name) is True

    def test_an_id_beyond_the_key_limit_is_refused(self) -> None:
        """Keys of more than 1 KiB are refused before anything is sent; the error names the id."""
        with self.open_store() as store:
            store.save(JobRecord("b" * 512, "j" * 512))
            error = raised(JobRecordError, lambda: store.save(JobRecord(self.batch(), "j" * 513)))
            assert error.field == "job_id"
            assert raised(JobRecordError, lambda: store.fetch("", "j")).field == "batch_id"

    def test_large_values_are_spilled_and_come_back(self) -> None:
        """Text and bytes above 64 KiB, and JSON that long, are cut up and put together again."""
        with self.open_store(RichRecord) as store:
            record = RichRecord(
                self.batch(),
                "job",
                text="\U0001f600" * 50_000,
                blob=bytes(range(256)) * 600,
                anything={"urls": ["https://example.com/" + "x" * 80] * 1_500},
            )
            store.create(record)
            assert store.fetch(record.batch_id, "job") == record

    def test_a_record_above_one_mebibyte_is_refused(self) -> None:
        """The error names the largest field."""
        with self.open_store(RichRecord) as store:
            record = RichRecord(self.batch(), "job", text="x" * 530_000)
            error = raised(JobRecordError, lambda: store.create(record))
            assert error.field == "text"
            assert store.fetch(record.batch_id, "job") is None

    def test_more_properties_than_a_table_holds_are_refused(self) -> None:
        """The limit is 252 properties."""
        with self.open_store(EntityRecord) as store:
            many = {f"p{number}": number for number in range(252)}
            error = raised(
                JobRecordError, lambda: store.save(EntityRecord(self.batch(), "job", **many))
            )
            assert "252" in str(error)

    def test_hand_written_entities_are_stored_and_read(self) -> None:
        """`to_entity` and `from_entity` are used as they are, dicts and lists included."""
        with self.open_store(EntityRecord) as store:
            batch = self.batch()
            more = {"n": 5, "big": 2**40, "d": {"a": [1]}, "l": [1, "x"], "t": "x" * 70_000}
            store.create(EntityRecord(batch, "a/b", "2026-01-01T00:00:00Z", **more))
            fetched = store.fetch(batch, "a/b")
            assert (fetched.batch_id, fetched.job_id) == (batch, "a/b")
            assert fetched.updated_at == "2026-01-01T00:00:00Z"
            assert fetched.more == more
            fetched.more["n"] = 6
            store.update(fetched)
            assert store.fetch(batch, "a/b").more["n"] == 6

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
            store.save_many(JobRecord(batch, f"{n:04}") for n in range(450))
            assert [job.job_id for job in store.iter_runs(batch)] == [
                f"{n:04}" for n in range(450)
            ]

    def test_iteration_over_all_batches(self) -> None:
        """Without a batch every record is seen."""
        with self.open_store() as store:
            batches = {self.batch(), self.batch()}
            store.save_many(JobRecord(batch, "job") for batch in batches)
            assert batches <= {job.batch_id for job in store.iter_runs(None)}

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
            store.save_many(
                JobRecord(batch, str(n), updated_at=start + n * tick) for n in range(4)
            )
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
                JobRecord(batch, str(n), payload={"text": "ü" * 200_000}) for n in range(6)
            )
            assert len(list(store.iter_runs(batch))) == 6

    def test_one_unfit_record_stops_save_many_before_anything_is_sent(self) -> None:
        """All records are checked first."""
        with self.open_store() as store:
            batch = self.batch()
            unfit = JobRecord(batch, "b", payload={"x": object()})
            error = raised(
                JobRecordError, lambda: store.save_many([JobRecord(batch, "a"), unfit])
            )
            assert error.field == "payload"
            assert store.fetch(batch, "a") is None

    def test_a_claimed_job_is_held_for_the_worker(self) -> None:
        """The claim starts the job, and nobody else gets it while the lease lasts."""
        with self.open_store() as store, fast_time():
            batch = self.batch()
            store.create(JobRecord(batch, "job"))
            job = store.claim(batch, worker="one", lease_seconds=60)
            assert (job.status, job.attempts, job.lease_owner) == (JobStatus.RUNNING, 1, "one")
            assert store.claim(batch, worker="two", lease_seconds=60) is None
            assert store.update(job.complete()).lease_owner is None
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

    def test_a_renewed_lease_is_not_taken_over(self) -> None:
        """A worker that needs longer renews in time."""
        with self.open_store() as store, fast_time() as time:
            batch = self.batch()
            store.create(JobRecord(batch, "job"))
            job = store.claim(batch, worker="one", lease_seconds=60)
            time.advance(50)
            job = store.renew(job, lease_seconds=60)
            time.advance(50)
            assert store.claim(batch, worker="two", lease_seconds=60) is None
            store.update(job.complete())

    def test_a_running_job_without_a_lease_is_nobodys_to_take(self) -> None:
        """What was started without a claim is left alone."""
        with self.open_store() as store:
            job = store.create(JobRecord(self.batch(), "job").start())
            assert store.claim(job.batch_id, worker="one", lease_seconds=60) is None

    def test_a_job_that_used_up_its_attempts_becomes_timed_out(self) -> None:
        """A job that kills its workers is not given out for ever."""
        with self.open_store() as store, fast_time() as time:
            batch = self.batch()
            store.create(JobRecord(batch, "poison"))
            for _ in range(2):
                assert store.claim(batch, worker="w", lease_seconds=1, max_attempts=2)
                time.advance(2)
            assert store.claim(batch, worker="w", lease_seconds=1, max_attempts=2) is None
            stored = store.fetch(batch, "poison")
            assert stored.status is JobStatus.TIMED_OUT
            assert "2 attempts" in stored.error

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

    def test_unusable_arguments_are_refused(self) -> None:
        """Limits, leases and workers that make no sense raise ValueError."""
        with self.open_store() as store:
            batch = self.batch()
            raised(ValueError, lambda: store.list_runs(batch, limit=0))
            raised(ValueError, lambda: store.list_runs(batch, continuation_token="nonsense"))
            raised(ValueError, lambda: store.claim(batch, worker="", lease_seconds=1))
            raised(ValueError, lambda: store.claim(batch, worker="w", lease_seconds=0))
            raised(ValueError, lambda: store.iter_runs(batch, status=[]))

    def test_a_closed_store_may_be_closed_again_and_used_again(self) -> None:
        """Closing releases what is held; using the store opens it anew."""
        store = self.open_store()
        job = store.create(JobRecord(self.batch(), "job"))
        store.close()
        store.close()
        assert store.fetch(job.batch_id, "job") == job
        store.close()
