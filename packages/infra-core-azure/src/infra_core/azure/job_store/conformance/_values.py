"""What records may hold, and what comes back."""

# ruff: noqa: S101 - these are tests
from typing import Any

from ...exceptions import (
    JobRecordError,
)
from .._records import JobRecord
from ._base import Checks, EntityRecord, RichRecord, raised

__all__ = ["ValueChecks"]


class ValueChecks(Checks):
    """What records may hold, and what comes back."""

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
        awkward: tuple[str, ...] = (
            "a/b\\c#d?e",
            "it's",
            "100%",
            "a%2Fb",
            "tab\there\n\x7f\x85",
            "ü \U0001f600",
        )
        awkward += (
            "tab\there\n\x7f\x85",
            "!x2F!",
            "!!x",
            "+a&b=c;d",
            "..",
            " lead and trail ",
            '"double"',
        )
        awkward += ("\ud800",)
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
            many: dict[str, Any] = {f"p{number}": number for number in range(252)}
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
