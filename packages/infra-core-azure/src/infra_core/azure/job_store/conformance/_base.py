"""The records that the checks store, and what they share."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any

from .._records import JobRecord, JobStatus

__all__ = [
    "Checks",
    "CrawlRecord",
    "EarlierJob",
    "EntityRecord",
    "ReservedRecord",
    "RichRecord",
    "raised",
]

_ID = uuid.UUID(int=5)
_PATH = PurePosixPath("a/b")


class Colour(Enum):
    """An enum whose values are not text."""

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
    key: uuid.UUID = _ID
    day: date = date(2026, 2, 3)
    span: timedelta = timedelta(days=1, microseconds=7)
    price: Decimal = Decimal("1.10")
    where: PurePosixPath = _PATH
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


@dataclass
class ReservedRecord:
    """A record whose fields have the names of what a table or a store keeps for itself."""

    batch_id: str
    job_id: str
    Timestamp: str = "t" * 40_000  # so long that it is spilled
    PartitionKey: int = 1
    RowKey: dict[str, int] = field(default_factory=lambda: {"a": 1})
    batch: str = "b"
    job: str = "j"
    lease: float = 0.5
    properties: list[int] = field(default_factory=lambda: [1])
    metadata: str = "m"
    updated: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass
class CrawlRecord(JobRecord):
    """A record of a user's own: more fields, spilled ones and `None` among them."""

    url: str = ""
    timeout: float = 30.0
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    Timestamp: int = 0
    proxy: str | None = "default"


@dataclass
class EarlierJob:
    """A job as a version or a program sees it that knows few of its fields."""

    batch_id: str
    job_id: str
    attempts: int = 0
    etag: str | None = None


def raised(error: type[BaseException], call: Callable[[], object]) -> Any:
    """Return the error that a call raises, and fail when it raises none."""
    try:
        call()
    except error as caught:
        return caught
    raise AssertionError(f"{error.__name__} was not raised")


class Checks:
    """What every group of checks needs. Each check works in a batch of its own."""

    def open_store(self, record_type: type[Any] = JobRecord) -> Any:
        """Open the `JobStore` under test; overridden by subclasses."""
        raise NotImplementedError("say in open_store how the store under test is opened")

    @staticmethod
    def batch() -> str:
        """Return the id of a batch that no other test uses."""
        return f"batch-{uuid.uuid4().hex}"
