"""Records to properties and back: every type, every limit."""

import bisect
import json
import uuid
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional

import pytest
from hypothesis import given, settings, strategies as st
from typing_extensions import TypeAliasType

from infra_core.azure.exceptions import JobRecordError
from infra_core.azure.job_store import JobStatus
from infra_core.azure.job_store._binding import RecordBinding
from infra_core.azure.job_store._entity import MAX_ENTITY_BYTES, Int64, pack, unpack
from infra_core.azure.job_store._rows import Row
from infra_core.azure.job_store.conformance import RichRecord

_UTC_TIMES = st.datetimes(
    min_value=datetime.fromisoformat("1601-01-01"),
    max_value=datetime.fromisoformat("9999-12-30"),
    timezones=st.just(timezone.utc),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)

Slug = NewType("Slug", str)


class Kind(str, Enum):
    A = "a"
    B = "b"


@dataclass
class Sample:
    batch_id: str
    job_id: str
    text: str = ""
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    blob: bytes = b""
    when: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)
    kind: Kind = Kind.A
    data: dict[str, Any] = field(default_factory=dict)
    times: list[datetime] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    maybe: int | None = None
    unless: str | None = "something"
    anything: Any = None
    span: timedelta = timedelta()
    pairs: dict[tuple[int, int], int] = field(default_factory=dict)
    at: time = time()


class _NoOffset(tzinfo):
    """As that of a time in a zone with summer time, which depends on the day."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


@settings(max_examples=120)
@given(
    st.builds(
        Sample,
        batch_id=st.just("b"),
        job_id=st.just("j"),
        text=st.text(),
        number=st.integers(-(2**63), 2**63 - 1),
        ratio=st.floats(allow_nan=False),
        flag=st.booleans(),
        blob=st.binary(),
        when=_UTC_TIMES,
        kind=st.sampled_from(Kind),
        data=st.dictionaries(st.text(), _JSON, max_size=4),
        times=st.lists(_UTC_TIMES, max_size=3),
        blobs=st.dictionaries(st.text(), st.binary(), max_size=3),
        maybe=st.none() | st.integers(0, 5),
        unless=st.none() | st.text(),
        anything=st.none() | st.text() | st.integers(0, 9) | st.lists(st.integers(), max_size=3),
    )
)
def test_every_record_comes_back_as_it_was(record: Sample) -> None:
    """Whatever the fields hold, the stored row gives an equal record."""
    binding = RecordBinding(Sample)
    assert binding.from_row(binding.to_row(record)) == record


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 80_000).map(lambda size: "xü\U0001f600"[size % 3] * size)
        | st.integers(0, 150_000).map(bytes),
    )
)
@settings(max_examples=30)
def test_spilling_is_reversible_and_keeps_every_property_within_64_kib(
    properties: dict[str, Any],
) -> None:
    """Values of any length come back, and no stored property is longer than a table allows."""
    packed = pack(properties)
    assert unpack(packed) == properties
    for value in packed.values():
        if isinstance(value, str):
            assert len(value.encode("utf-16-le")) <= 65_536
        elif isinstance(value, bytes):
            assert len(value) <= 65_536


@dataclass
class Unusual:
    batch_id: str
    job_id: str
    slug: Slug = Slug("s")
    noted: Annotated[int, "note"] = 1
    optional: Optional[Kind] = None  # noqa: UP045 - the old spelling is understood as well
    either: int | str | None = None
    choice: Literal["x", "y"] = "x"
    at: time = time(1, 2, 3, 4)
    path: Path = Path("a/b")
    pairs: tuple[tuple[str, int], ...] = (("a", 1),)
    pair: tuple[datetime, bytes] = (datetime(2026, 1, 1, tzinfo=timezone.utc), b"\0")
    names: set[str] = field(default_factory=lambda: {"b", "a"})
    by_kind: dict[Kind, timedelta] = field(default_factory=lambda: {Kind.B: timedelta(seconds=1)})
    keys: dict[uuid.UUID, Decimal] = field(
        default_factory=lambda: {uuid.UUID(int=1): Decimal("0.1")}
    )
    made: str = field(default="later", init=False)


def test_less_usual_hints_are_understood() -> None:
    """NewType, Annotated, Literal, unions, nested collections and fields outside __init__."""
    binding = RecordBinding(Unusual)
    record = Unusual("b", "j", optional=Kind.B, either="x")
    record.made = "changed"
    assert binding.from_row(binding.to_row(record)) == record


class Level(IntEnum):
    LOW = 1


class Odd(Enum):
    NONE = None
    TWO = 2


@dataclass(frozen=True)
class Point:
    x: int
    label: str = field(default="", init=False)
    moved: InitVar[int] = 0

    def __post_init__(self, moved: int) -> None:
        object.__setattr__(self, "label", f"at {self.x + moved}")


Alias = TypeAliasType("Alias", int | None)  # what `type Alias = int | None` is since 3.12


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (dict[int, str], {1: "a", -2: "b"}),
        (dict[float, int], {1.5: 1, float("inf"): 2}),
        (dict[bool, int], {True: 1}),
        (dict[Level, int], {Level.LOW: 1}),
        (dict[Odd, int], {Odd.NONE: 1, Odd.TWO: 2}),
        (dict[Literal[1, 2], int], {2: 1}),
        (dict[Literal["1"], int], {"1": 1}),
        (dict[str | None, int], {None: 1, "null": 2}),
        (dict[str | int, int], {1: 1, "1": 2}),
        (dict[tuple[str, ...], int], {("a", "b"): 1, (): 2}),
        (dict[timedelta, int], {timedelta(days=1): 1}),
        (dict[Point, int], {Point(1): 1}),
        (dict[bytes, int], {b"\xff": 1}),
        (dict[date, int], {date(2026, 1, 1): 1}),
        (list[Point], [Point(3, moved=2)]),
        (Point, Point(3, moved=2)),
        (Alias, 5),
        (dict[Alias, Alias], {None: 1, 2: None}),
    ],
)
def test_keys_and_nested_records_of_any_type_come_back(hint: Any, value: object) -> None:
    """Keys that are no text in JSON, fields that a constructor does not take, names of types."""
    kind: Any = make_dataclass("Record", ["batch_id", "job_id", ("value", hint)])
    kind.__annotations__.update(batch_id=str, job_id=str)
    binding = RecordBinding(kind)
    found = binding.from_row(binding.to_row(kind("b", "j", value))).value
    assert (type(found), found) == (type(value), value)


def test_a_naive_datetime_is_taken_for_utc() -> None:
    """It comes back aware, with its microseconds."""
    binding = RecordBinding(Sample)
    naive = Sample("b", "j", when=datetime(2026, 5, 6, 7, 8, 9, 123456))  # noqa: DTZ001 - the point
    assert binding.from_row(binding.to_row(naive)).when == datetime(
        2026, 5, 6, 7, 8, 9, 123456, tzinfo=timezone.utc
    )


class _Nanoseconds(datetime):
    """As those of pandas write themselves."""

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        return super().isoformat(sep, timespec).replace("+00:00", "001+00:00")


class _NoTime(datetime):
    """As pandas.NaT: a datetime, and none."""

    def date(self) -> date:
        raise ValueError("NaTType does not support date")


def test_datetimes_of_other_libraries_are_plain_ones_in_the_store() -> None:
    """In properties and in JSON; what is no time is refused by its field's name."""
    binding = RecordBinding(Sample)
    moment = _Nanoseconds(2026, 1, 1, 0, 0, 0, 5, tzinfo=timezone.utc)
    row = binding.to_row(Sample("b", "j", when=moment, times=[moment]))
    assert json.dumps(row.properties, default=str).count("00:00:00.000005+00:00") == 2
    found = binding.from_row(row)
    assert found.when == moment
    assert found.times == [moment]
    with pytest.raises(JobRecordError, match="which is not a time") as raised:
        binding.to_row(Sample("b", "j", when=_NoTime(2026, 1, 1, tzinfo=timezone.utc)))
    assert raised.value.field == "when"


def test_another_time_zone_comes_back_as_utc() -> None:
    """The moment is the same."""
    binding = RecordBinding(Sample)
    there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    stored = binding.from_row(binding.to_row(Sample("b", "j", when=there)))
    assert stored.when == there
    assert stored.when.tzinfo is timezone.utc


def test_whole_numbers_are_always_64_bits() -> None:
    """The type of a column does not depend on how large a number happens to be."""
    row = RecordBinding(Sample).to_row(Sample("b", "j", number=1))
    assert isinstance(row.properties["number"], Int64)


def test_an_enum_is_stored_by_its_value() -> None:
    """Not as `Kind.B`, which is what the SDK would write."""
    row = RecordBinding(Sample).to_row(Sample("b", "j", kind=Kind.B))
    assert row.properties["kind"] == "b"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"text": 5}, "text"),
        ({"number": True}, "number"),
        ({"number": 2**63}, "number"),
        ({"when": "2026-01-01"}, "when"),
        ({"when": datetime(1600, 1, 1, tzinfo=timezone.utc)}, "when"),
        ({"kind": "a"}, "kind"),
        ({"text": None}, "text"),
        ({"data": {"x": datetime(2026, 1, 1, tzinfo=timezone.utc)}}, "data"),
        ({"data": {1: "x"}}, "data"),
        ({"times": [1]}, "times"),
        ({"anything": object()}, "anything"),
        ({"span": timedelta.max}, "span"),
        ({"pairs": {(1, "x"): 3}}, "pairs"),
        ({"ratio": 10**400}, "ratio"),
        ({"ratio": 2**53 + 1}, "ratio"),
        ({"number": 10**5000}, "number"),
        ({"text": 10**5000}, "text"),
        ({"pairs": {(1, 10**5000): 3}}, "pairs"),
        ({"at": time(1, tzinfo=_NoOffset())}, "at"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(change: dict[str, Any], name: str) -> None:
    """What would come back as something else is not stored; the error names the field."""
    with pytest.raises(JobRecordError) as caught:
        RecordBinding(Sample).to_row(Sample("b", "j", **change))
    assert caught.value.field == name
    assert name in str(caught.value)


def _without_batch() -> type:
    @dataclass
    class Record:
        job_id: str

    return Record


def _with_odd_field() -> type:
    @dataclass
    class Record:
        batch_id: str
        job_id: str
        handler: Callable[[], None]

    return Record


def _half() -> type:
    class Record:
        def to_entity(self) -> dict[str, Any]:
            return {}

    return Record


def _plain() -> type:
    class Record:
        pass

    return Record


def _with_another_value() -> type:
    @dataclass
    class Record:
        batch_id: str
        job_id: str
        seed: InitVar[int]

    return Record


def _with_own_constructor() -> type:
    @dataclass(init=False)
    class Record:
        batch_id: str
        job_id: str

        def __init__(self, key: str = "") -> None:
            self.batch_id, self.job_id = key.split("/")

    return Record


def _with_nested() -> type:
    @dataclass
    class Record:
        batch_id: str
        job_id: str
        inner: _with_another_value()  # type: ignore[valid-type]

    return Record


@pytest.mark.parametrize(
    "make",
    [
        _without_batch, _with_odd_field, _half, _plain, _with_another_value, _with_own_constructor,
        _with_nested,
    ],
)  # fmt: skip
def test_an_unusable_record_type_is_refused_at_once(make: Callable[[], type]) -> None:
    """When the store is made, not when the first record is lost."""
    with pytest.raises(JobRecordError, match=r"Record"):
        RecordBinding(make())


@dataclass
class Older:
    batch_id: str
    job_id: str


@dataclass
class Newer:
    batch_id: str
    job_id: str
    added: str


@dataclass
class Tolerant:
    batch_id: str
    job_id: str
    added: str = "default"
    listed: list[int] = field(default_factory=list)


def test_records_of_an_older_form_are_read_with_defaults() -> None:
    """A new field with a default needs no migration; one without says what to do."""
    row = RecordBinding(Older).to_row(Older("b", "j"))
    assert RecordBinding(Tolerant).from_row(row) == Tolerant("b", "j")
    with pytest.raises(JobRecordError, match="default") as caught:
        RecordBinding(Newer).from_row(row)
    assert caught.value.field == "added"


def test_unknown_properties_are_ignored() -> None:
    """A newer record can be read by an older program."""
    row = RecordBinding(Newer).to_row(Newer("b", "j", "x"))
    assert RecordBinding(Older).from_row(row) == Older("b", "j")


def test_a_stored_value_that_does_not_fit_is_reported_by_name() -> None:
    """Reading an enum value that no longer exists names the field and the value."""
    row = RecordBinding(Sample).to_row(Sample("b", "j"))
    row.properties["kind"] = "gone"
    with pytest.raises(JobRecordError, match="'gone'") as caught:
        RecordBinding(Sample).from_row(row)
    assert caught.value.field == "kind"


@dataclass
class Strict:
    batch_id: str
    job_id: str
    amount: Decimal = Decimal(1)
    span: timedelta = timedelta()

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ArithmeticError("an amount is at least 0")


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"amount": "much"}, "field 'amount' holds 'much'"),
        ({"amount": "-1"}, r"Strict\(\) does not take what is stored \(an amount is at least 0\)"),
        ({"span": "long"}, "field 'span' holds 'long'"),
    ],
)
def test_whatever_a_type_raises_names_the_job(stored: dict[str, Any], said: str) -> None:
    """Errors of any class, of a field or of the constructor."""
    with pytest.raises(JobRecordError, match=f"job 'j' of batch 'b' cannot be read: {said}"):
        RecordBinding(Strict).from_row(Row("b", "j", stored))


def test_a_stored_pair_of_three_is_no_pair() -> None:
    """Nothing of it is left out."""
    binding = RecordBinding(Unusual)
    row = binding.to_row(Unusual("b", "j"))
    row.properties["pair__json"] = '["2026-01-01T00:00:00+00:00","AA==","AA=="]'
    with pytest.raises(JobRecordError, match="which its type cannot read") as raised:
        binding.from_row(row)
    assert raised.value.field == "pair"


def test_a_missing_part_of_a_spilled_value_is_reported() -> None:
    """Half a text is never given out as the whole."""
    packed = pack({"text": "x" * 70_000})
    del packed["text__part_1"]
    with pytest.raises(JobRecordError, match="incomplete"):
        unpack(packed)


def test_the_number_of_properties_is_limited() -> None:
    """252 properties fit, 253 do not."""
    assert len(pack({f"p{n}": 1 for n in range(252)})) == 252
    with pytest.raises(JobRecordError, match="252"):
        pack({f"p{n}": 1 for n in range(253)})


def test_the_size_of_a_record_is_limited_and_the_largest_field_named() -> None:
    """1 MiB by Azure's formula: two bytes per character of text and of names."""
    pack({"text": "x" * 523_000})
    with pytest.raises(JobRecordError) as caught:
        pack({"small": "y" * 1_000, "text": "x" * 525_000})
    assert caught.value.field == "text"


@pytest.mark.parametrize("name", ["with-dash", "2nd", "a b", "x" * 256, "y__json", "z__part_3"])
def test_an_impossible_property_name_is_refused(name: str) -> None:
    """Names must be identifiers of at most 255 characters and not look like spilled values."""
    with pytest.raises(JobRecordError) as caught:
        pack({name: 1})
    assert caught.value.field == name


def test_system_properties_of_an_entity_are_left_out() -> None:
    """What the service itself adds is not written back."""
    packed = pack({"Timestamp": 1, "odata.etag": "x", "n@odata.type": "Edm.Int32", "n": 1})
    assert packed == {"n": 1}


def test_the_values_of_hand_written_entities_keep_their_types() -> None:
    """Small whole numbers stay 32 bits, large ones become 64, SDK properties are understood."""
    from azure.data.tables import EdmType, EntityProperty

    packed = pack(
        {"small": 5, "large": 2**31, "expected": EntityProperty(7, EdmType.INT64), "kind": Kind.A}
    )
    assert [type(packed[name]) for name in ("small", "large", "expected")] == [int, Int64, Int64]
    assert packed["expected"].value == 7
    assert packed["kind"] == "a"


def test_the_mark_of_a_creation_takes_no_record_beyond_the_limit() -> None:
    """A record that fits is stored without one rather than refused by the service."""
    binding = RecordBinding(Sample)

    def fits(length: int) -> bool:
        try:
            return bool(binding.to_row(Sample("b", "j", text="x" * length)))
        except JobRecordError:
            return False

    longest = bisect.bisect_left(range(600_000), True, key=lambda length: not fits(length)) - 1
    for length, marked in ((longest, False), (longest - 100, True)):
        row = binding.to_row(Sample("b", "j", text="x" * length), new=True)
        assert ("infra_core_write" in row.properties) is marked
    with pytest.raises(JobRecordError, match="1,048,576"):
        binding.to_row(Sample("b", "j", text="x" * (longest + 1)), new=True)


def test_properties_of_the_sdk_are_stored_as_the_values_that_they_hold() -> None:
    """In both stores: a file knows no `Edm.Guid`."""
    from azure.data.tables import EdmType, EntityProperty

    key, moment = uuid.UUID(int=3), datetime(2026, 3, 1, 12, 30, 0, 500_000, timezone.utc)
    held: list[tuple[Any, EdmType, Any]] = [
        (5, EdmType.INT32, 5), (2**40, EdmType.INT64, Int64(2**40)), (1, EdmType.DOUBLE, 1.0),
        (True, EdmType.BOOLEAN, True), ("x", EdmType.STRING, "x"), (b"x", EdmType.BINARY, b"x"),
        (str(key), EdmType.GUID, key), (key, EdmType.GUID, key), (7.0, EdmType.INT64, Int64(7)),
        ("-Infinity", EdmType.DOUBLE, -float("inf")), ("-5", EdmType.INT32, -5),
        (bytearray(b"x"), EdmType.BINARY, b"x"), ("False", EdmType.BOOLEAN, False),
        ("7", EdmType.INT64, Int64(7)), ("1.5", EdmType.DOUBLE, 1.5), (7, EdmType.STRING, "7"),
        ("x", EdmType.BINARY, b"x"), ("2026-03-01T12:30:00.5Z", EdmType.DATETIME, moment),
        ("2026-03-01T13:30:00.5000001+01:00", EdmType.DATETIME, moment),
    ]  # fmt: skip
    for value, kind, expected in held:
        stored = pack({"v": EntityProperty(value, kind)})["v"]
        assert (type(stored), stored) == (type(expected), expected)
    assert len(pack({"v": EntityProperty("x" * 70_000, EdmType.STRING)})) > 2
    refused: list[tuple[Any, Any]] = [
        (2**31, EdmType.INT32), (-(2**31) - 1, EdmType.INT32), ("x", EdmType.GUID),
        (None, EdmType.STRING), (1, EdmType.BOOLEAN), (5, EdmType.BINARY), (5, "Edm.Nothing"),
        ("today", EdmType.DATETIME), (5, EdmType.DATETIME), (0.5, EdmType.INT32),
        ([], EdmType.GUID),
    ]  # fmt: skip
    for value, kind in refused:
        with pytest.raises(JobRecordError, match="which is not of type Edm") as caught:
            pack({"v": EntityProperty(value, kind)})
        assert caught.value.field == "v"


def test_a_negative_zero_comes_back_from_a_store_that_knows_none() -> None:
    """JavaScript, so Azurite as well, writes both zeros as `0`; neither goes there as a number."""
    from azure.data.tables import EdmType, EntityProperty

    values = {"n": -0.0, "sdk": EntityProperty(-0.0, EdmType.DOUBLE), "zero": 0.0, "r": [-0.0]}
    packed = pack(values)
    assert "-0.0" not in [repr(value) for value in packed.values() if isinstance(value, float)]
    fetched = unpack(packed)
    shown = [repr(fetched[name]) for name in values]
    assert shown == ["-0.0", "-0.0", "0.0", "[-0.0]"]


@pytest.mark.parametrize("value", ["caf\udce9", {"name": "\ud800"}, ["ü\udfff"]])
def test_a_text_with_lone_surrogates_comes_back(value: object) -> None:
    """File names that are no UTF-8 may stand in an error text; requests are UTF-8 all the same."""
    packed = pack({"error": value})
    assert unpack(packed) == {"error": value}
    assert [text.encode() for text in packed.values()]


@pytest.mark.parametrize("number", [-(2**63), -(2**31) - 1, -(2**31), 2**31 - 1, 2**31, 2**63 - 1])
def test_whole_numbers_at_their_bounds_have_the_type_that_holds_them(number: int) -> None:
    """32 bits as a plain number, 64 as Edm.Int64."""
    stored = pack({"number": number})["number"]
    assert stored == number
    assert isinstance(stored, Int64) == (not -(2**31) <= number < 2**31)


def test_a_name_may_have_255_characters() -> None:
    """And not one more."""
    assert pack({"n" * 255: 1}) == {"n" * 255: 1}
    with pytest.raises(JobRecordError, match="at most 255 characters"):
        pack({"n" * 256: 1})


def test_a_record_may_take_a_mebibyte_to_the_byte() -> None:
    """By the formula of Azure: keys, names and values, each of its size."""
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    values = {"u": uuid.UUID(int=1), "b": True, "i": 1, "l": 2**40, "f": 0.5, "d": moment}
    sizes = {"u": 16, "b": 1, "i": 4, "l": 8, "f": 8, "d": 8, "t": 4 + 2 * 5, "x": 4 + 3}
    values |= {"t": "texté", "x": b"abc"}
    room = MAX_ENTITY_BYTES - 4 - 2 * 10 - sum(8 + 2 * len(name) + sizes[name] for name in sizes)
    room -= 8 + 2 * len("data__parts") + 4
    numbers = [f"data__part_{n}" for n in range(16)]
    most = room - sum(8 + 2 * len(name) + 4 for name in numbers)
    assert len(pack(values | {"data": bytes(most)}, key_chars=10)) == len(sizes) + 1 + len(numbers)
    with pytest.raises(JobRecordError, match=r"1,048,577 bytes.* 1,048,576"):
        pack(values | {"data": bytes(most + 1)}, key_chars=10)


def test_dates_and_datetimes_are_not_mixed_up() -> None:
    """A datetime in a date field would lose its time."""

    @dataclass
    class Dated:
        batch_id: str
        job_id: str
        day: date

    with pytest.raises(JobRecordError, match="date"):
        RecordBinding(Dated).to_row(Dated("b", "j", datetime(2026, 1, 1, tzinfo=timezone.utc)))


def test_a_frozen_record_gets_its_version_without_being_changed() -> None:
    """The version is kept beside the fields and does not take part in comparisons."""
    binding = RecordBinding(RichRecord)
    record = RichRecord("b", "j")
    assert binding.version(binding.stamp(record, "v1")) == "v1"
    assert record == RichRecord("b", "j")


def test_status_texts_of_the_record_are_the_values() -> None:
    """Queries compare what is stored."""
    row = RecordBinding(RichRecord).to_row(RichRecord("b", "j", status=JobStatus.TIMED_OUT))
    assert row.properties["status"] == "timed_out"


@dataclass
class Loose:
    batch_id: str
    job_id: str
    value: Any = None


@pytest.mark.parametrize(
    "value", [datetime(2026, 3, 1, tzinfo=timezone.utc), 2**40, 7, b"x", True, uuid.UUID(int=1)]
)
def test_values_of_any_type_come_back(value: object) -> None:
    """As what a table itself holds, and of the plain type."""
    binding = RecordBinding(Loose)
    fetched = binding.from_row(binding.to_row(Loose("b", "j", value))).value
    assert (type(fetched), fetched) == (type(value), value)


@pytest.mark.parametrize(
    "value", [{1: 2}, {"when": datetime(2026, 3, 1, tzinfo=timezone.utc)}, [b"x"], {1, 2}]
)
def test_a_value_of_any_type_that_would_come_back_as_another_is_refused(value: object) -> None:
    """JSON has text as names alone, and no times, bytes or sets."""
    with pytest.raises(JobRecordError) as caught:
        RecordBinding(Loose).to_row(Loose("b", "j", value))
    assert caught.value.field == "value"


def test_pairs_that_are_no_pairs_are_refused() -> None:
    """A list, or another length, would come back as something else."""
    binding = RecordBinding(RichRecord)
    for wrong in ([1, "x"], (1,), (1, "x", 2)):
        values: dict[str, Any] = {"pair": wrong}
        record = RichRecord("b", "j", **values)
        with pytest.raises(JobRecordError, match="tuple of 2") as raised:
            binding.to_row(record)
        assert raised.value.field == "pair"
