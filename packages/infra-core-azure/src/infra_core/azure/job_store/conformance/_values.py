"""What records may hold, and what comes back."""

# ruff: noqa: S101 - these are tests
from dataclasses import make_dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from ...exceptions import JobRecordError
from .._records import JobRecord
from ._base import Checks, EntityRecord, ReservedRecord, RichRecord, raised

__all__ = ["ValueChecks"]


class ValueChecks(Checks):
    """What records may hold, and what comes back."""

    def test_every_value_comes_back_as_it_was(self) -> None:
        """Types, microseconds, 64 bits, the sign of zero, what is spilled, names of the store's."""
        batch = self.batch()
        records: list[Any] = [
            RichRecord(batch, "types", unless=None),
            *(RichRecord(batch, f"{number}", big=number) for number in (2**63 - 1, -(2**63), 0)),
            RichRecord(batch, "zero", ratio=-0.0),
            RichRecord(
                batch,
                "large",
                text="\U0001f600" * 50_000,
                blob=bytes(range(256)) * 600,
                anything={"urls": ["https://example.com/" + "x" * 80] * 1_500},
            ),
            ReservedRecord(batch, "names"),
        ]
        for record in records:
            with self.open_store(type(record)) as store:
                store.create(record)
                store.save_many([record])
                fetched = store.fetch(batch, record.job_id)
                assert fetched == record
                for name, value in vars(record).items():
                    held = getattr(fetched, name)
                    assert type(held) is type(value), name
                    assert repr(held) == repr(value), name

    def test_what_no_table_can_hold_is_refused_by_the_fields_name(self) -> None:
        """In every store, before anything is stored."""
        batch = self.batch()
        many: dict[str, Any] = {f"p{number}": number for number in range(252)}
        refused: list[tuple[Any, str | None]] = [
            (RichRecord(batch, "job", big=2**63), "big"),
            (RichRecord(batch, "job", text="x" * 530_000), "text"),
            (JobRecord(batch, "j" * 513), "job_id"),
            (EntityRecord(batch, "job", long="x", **many), "long"),
            (EntityRecord(batch, "job", infra_core_nulls="x"), "infra_core_nulls"),
        ]
        for record, field in refused:
            with self.open_store(type(record)) as store:
                for write in (store.save, store.create):
                    error = raised(JobRecordError, partial(write, record))
                    assert error.field == field
                assert store.fetch(batch, "job") is None
        names = ("batch_id", "job_id", "infra_core_write")
        kind = make_dataclass("Own", [(name, str) for name in names])
        error = raised(JobRecordError, lambda: self.open_store(kind))
        assert error.field == "infra_core_write"

    def test_awkward_ids_are_kept(self) -> None:
        """Slashes, question marks, quotes, percent signs, control and other characters."""
        awkward = (
            *("a/b\\c#d?e", "it's", "100%", "a%2Fb", "tab\there\n\x7f\x85", "ü \U0001f600"),
            *("!x2F!", "!!x", "+a&b=c;d", "..", " lead and trail ", '"double"', "\ud800"),
        )
        with self.open_store() as store:
            for name in awkward:
                batch = f"{self.batch()}{name}"
                store.create(JobRecord(batch, name))
                assert store.fetch(batch, name).job_id == name
                assert [r.batch_id for r in store.iter_runs(batch)] == [batch]
                job = store.update(store.fetch(batch, name).start())
                store.save_many([job])
                assert store.delete(batch, name) is True
            store.save(JobRecord("b" * 512, "j" * 512))
            assert raised(JobRecordError, lambda: store.fetch("", "j")).field == "batch_id"

    def test_hand_written_entities_are_stored_and_read(self) -> None:
        """`to_entity` and `from_entity` are used as they are, and nothing is added by the store."""
        with self.open_store(EntityRecord) as store:
            batch = self.batch()
            more = {"n": 5, "big": 2**40, "d": {"a": [1]}, "l": [1, "x"], "t": "x" * 70_000}
            more["Timestamp"] = "mine"
            store.create(EntityRecord(batch, "a/b", "2026-01-01T00:00:00Z", **more))
            fetched = store.fetch(batch, "a/b")
            assert (fetched.batch_id, fetched.job_id) == (batch, "a/b")
            assert fetched.updated_at == "2026-01-01T00:00:00Z"
            assert fetched.more == more
            fetched.more["n"] = more["n"] = 6
            store.update(fetched)
            assert vars(fetched).keys() == {"batch_id", "job_id", "updated_at", "more"}
            entity = fetched.to_entity()
            fetched.to_entity = lambda: entity  # such as `vars(self)`
            store.save(fetched)
            assert len(entity) == 3 + len(more)
            assert store.fetch(batch, "a/b").more == more

    def test_the_ends_of_time_are_kept_or_refused_with_the_fields_name(self) -> None:
        """The last moment, microseconds, offsets; before 1601 and beyond 9999 in UTC."""
        last = datetime.max.replace(tzinfo=timezone.utc)
        first = datetime.min.replace(tzinfo=timezone.utc)
        ahead, behind = timezone(timedelta(hours=5)), timezone(timedelta(hours=-5))
        beyond = (last.replace(tzinfo=behind), first.replace(tzinfo=ahead))
        kept = (
            last,
            last.replace(tzinfo=None),
            datetime(1601, 1, 1, tzinfo=timezone.utc),
            datetime(2026, 1, 1, 0, 0, 0, 1, ahead),
        )
        with self.open_store() as store:
            batch = self.batch()
            for moment in kept:
                store.save(JobRecord(batch, "job", updated_at=moment))
                utc = moment.replace(tzinfo=moment.tzinfo or timezone.utc)
                assert store.fetch(batch, "job").updated_at == utc
            for moment in (*beyond, first, datetime(1600, 12, 31, 23, tzinfo=timezone.utc)):
                save = partial(store.save, JobRecord(batch, "job", updated_at=moment))
                assert raised(JobRecordError, save).field == "updated_at"
            store.save(JobRecord(batch, "job", updated_at=kept[-1]))
            for since, until, found in (
                (first.replace(tzinfo=None), last.replace(tzinfo=None), 1),
                (beyond[1], beyond[0], 1),
                (None, last, 1),
                (last, None, 0),
                (None, first, 0),
            ):
                assert len(list(store.iter_runs(batch, since=since, until=until))) == found

    def test_times_that_are_no_times_are_sorted_as_text(self) -> None:
        """As in 0.7: "2026-03", the seconds of an epoch."""
        with self.open_store(EntityRecord) as store:
            batch = self.batch()
            for number, text in enumerate(["2026-01", "2026-03", "2026-02"]):
                store.save(EntityRecord(batch, str(number), text))
            records, _ = store.list_runs(batch)
            assert [record.updated_at for record in records] == ["2026-03", "2026-02", "2026-01"]
