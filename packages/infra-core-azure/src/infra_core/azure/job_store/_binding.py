"""A record type and the rows it is stored as: dataclasses by codec, others by their own methods."""

import contextlib
import copy
import dataclasses
import secrets
import typing
import weakref
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar, cast

from infra_core.runtime import redact_secrets

from .._checks import type_name
from ..exceptions import AzureTableError, JobRecordError
from ._codec import NULLS, DataclassCodec
from ._entity import (
    EARLIEST,
    MAX_PROPERTIES,
    RESERVED,
    SYSTEM,
    field_of,
    nearest_utc,
    pack,
    time_of,
    unpack,
)
from ._keys import escape_key
from ._rows import Query, Row
from ._types import changed

__all__ = [
    "RecordBinding",
    "StoredEntity",
    "moment_of",
    "newest_first",
    "same_content",
    "same_write",
    "status_of",
    "updated_at",
]

RecordT = TypeVar("RecordT")

_WRITE = "infra_core_write"
_OLD_VERSION = "_infra_core_etag"  # a property that version 1.0.0 wrote for some records
_MAX_CARRIED = 20_000


class _Versions:
    """The versions of records that have no field for it, kept beside them.

    An attribute on the record would show up in `vars(record)`, which many a `to_entity` returns.
    A record that cannot be referenced weakly (slots, a tuple) has none: `update` asks for
    `expected` then.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], str | None]] = {}

    def put(self, record: object, etag: str | None) -> None:
        known, key = self._known, id(record)
        with contextlib.suppress(TypeError):
            known[key] = weakref.ref(record, lambda _: known.pop(key, None)), etag

    def get(self, record: object) -> str | None:
        held, etag = self._known.get(id(record), (None, None))
        return etag if held is not None and held() is record else None


_versions = _Versions()


class StoredEntity(dict[str, Any]):
    """What `from_entity` of a record is given: the properties, keys included.

    `metadata` has `etag` and `timestamp` of the stored row.
    """

    def __init__(self, properties: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        super().__init__(properties)
        self.metadata = metadata


class RecordBinding(Generic[RecordT]):
    """Turns records of one type into rows and rows into records.

    Raises:
        JobRecordError: It is neither a dataclass with `batch_id` and `job_id`, nor a class with
            `to_entity()` and `from_entity()`.
    """

    def __init__(self, record_type: type[RecordT]) -> None:
        if not isinstance(typing.get_origin(record_type) or record_type, type):
            raise JobRecordError(
                f"record_type={record_type!r:.80} is not a class: pass the class of the records, "
                "such as JobRecord"
            )
        methods = [callable(getattr(record_type, m, None)) for m in ("to_entity", "from_entity")]
        if any(methods) and not all(methods):
            raise JobRecordError(
                f"{record_type.__name__} has only one of to_entity() and from_entity(); "
                "give it both, or neither and make it a dataclass"
            )
        self.record_type = record_type
        self._codec = None if all(methods) else DataclassCodec(record_type)
        self._has_etag = self._codec.has_etag if self._codec else False
        # With hints, status and time are known to be stored in the one form that can be compared
        # where the rows are; otherwise records are compared here.
        hints = self._codec.hints if self._codec else {}
        status = hints.get("status")
        values = _values_of(status)
        self.statuses = tuple(map(str, values))
        self._known: set[str] = set()  # names of properties that hold fields of this type
        self._carried: dict[tuple[str, str], tuple[str | None, dict[str, Any]]] = {}
        texts = bool(values) and all(isinstance(value, str) for value in values)
        self._remote_status = status is str or texts
        self._remote_time = hints.get("updated_at") is datetime

    def to_row(self, record: RecordT, *, new: bool = False) -> Row:
        """Return the row of a record, limits checked.

        That of a `new` one holds a token of this one write. When the answer is lost, the token says
        whether a row is our own or somebody else's. Not that of a class with `to_entity`: what
        reads its rows may be 0.7, or another program, which hands every property to a constructor.
        """
        self.check(record)
        batch_id: Any
        job_id: Any
        if self._codec is None:
            made = cast("Any", record).to_entity()
            if not isinstance(made, Mapping):
                raise JobRecordError(
                    f"to_entity() of {type(record).__name__} returned {made!r:.80}: return a dict "
                    "of properties"
                )
            entity = dict(made)
            entity.pop(_OLD_VERSION, None)
            reserved = [n for n in entity if isinstance(n, str) and n.startswith(RESERVED)]
            if reserved:
                raise JobRecordError(
                    f"property {reserved[0]!r} of {type(record).__name__} has a name that is "
                    f"reserved for this library ({RESERVED}...); rename it",
                    field=reserved[0],
                )
            batch_id, job_id = (
                entity.pop(key, None) or getattr(record, name, None)
                for key, name in (("PartitionKey", "batch_id"), ("RowKey", "job_id"))
            )
        else:
            entity = self._codec.encode(record)
            known: Any = record
            batch_id, job_id = known.batch_id, known.job_id
        partition = escape_key(batch_id, field="batch_id")
        key = escape_key(job_id, field="job_id")
        for name in SYSTEM & entity.keys():  # fields whose names the table keeps for itself
            entity[RESERVED + name] = entity.pop(name)
        chars = len(partition) + len(key)
        if new and self._codec is not None:
            with contextlib.suppress(JobRecordError):  # no room for it, or for the record itself
                marked = {**entity, _WRITE: secrets.token_hex(8)}
                return Row(partition, key, pack(marked, key_chars=chars))
        return Row(partition, key, pack(entity, key_chars=chars))

    def from_row(self, row: Row) -> RecordT:
        """Return the record of a row, with its version."""
        batch_id, job_id = row.ids
        if row.damage:
            raise JobRecordError(
                f"job {job_id!r} of batch {batch_id!r} cannot be read: {row.damage}; something "
                "other than this library has changed the row: save the job anew, or delete it"
            )
        try:
            properties = unpack(row.properties)
            properties.pop(_WRITE, None)
            properties.pop(_OLD_VERSION, None)
            for name in SYSTEM:
                if RESERVED + name in properties:
                    properties[name] = properties.pop(RESERVED + name)
            decoded = self._codec and self._codec.decode(batch_id, job_id, properties)
        except JobRecordError as error:
            raise JobRecordError(
                f"job {job_id!r} of batch {batch_id!r} cannot be read: {error}", field=error.field
            ) from error.__cause__
        if self._codec is not None:
            record = cast("RecordT", decoded)
        else:
            entity = {"PartitionKey": batch_id, "RowKey": job_id, **properties}
            metadata = {"etag": row.etag, "timestamp": row.timestamp}
            make = cast("Any", self.record_type).from_entity
            record = cast("RecordT", make(StoredEntity(entity, metadata)))
        return self.stored(record, row, row.etag)

    def stored(self, record: RecordT, row: Row, etag: str | None) -> RecordT:
        """Return a record with the version that its row has in the store, which is remembered."""
        self.remember(row, etag)
        return self.stamp(record, etag)

    def remember(self, row: Row, etag: str | None) -> None:
        """Keep in mind what a row of this version holds besides the fields of this type."""
        if self._codec is not None:
            if len(self._carried) >= _MAX_CARRIED:
                self._carried.clear()
            self._carried[row.partition, row.key] = etag, self._strangers(row)

    def _strangers(self, row: Row) -> dict[str, Any]:
        """Return the properties of a row that hold no field of this type.

        Another version of the program, or another type, has written them: they are carried along
        through every update. A class with methods of its own sees to that itself.
        """
        if self._codec is None or row.properties.keys() <= self._known:
            return {}
        found: dict[str, Any] = {}
        for name, value in row.properties.items():
            if name in (_WRITE, _OLD_VERSION) or field_of(name) in self._codec.names:
                self._known.add(name)
            elif name == NULLS:
                nulls = [n for n in str(value).split(",") if n not in self._codec.names]
                if nulls:
                    found[name] = ",".join(nulls)
            else:
                found[name] = value
        return found

    def carry(self, row: Row) -> bool:
        """Add to a row what its version holds besides the fields; return whether that is known."""
        if self._codec is None:
            return True
        known, strangers = self._carried.get((row.partition, row.key), (None, {}))
        if known != row.etag:
            return False
        for name, value in strangers.items():
            if name == NULLS and name in row.properties:
                row.properties[name] = f"{row.properties[name]},{value}"
            else:
                row.properties.setdefault(name, value)
        if len(row.properties) > MAX_PROPERTIES:
            raise JobRecordError(
                f"the record takes {len(row.properties)} properties, those of other types that are "
                f"carried along among them, and a table entity holds {MAX_PROPERTIES}"
            )
        return True

    def check(self, record: object) -> None:
        """Refuse what is not a record of this store."""
        # A class with methods of its own may be stood in for by any other that has them.
        known = self._codec is None and hasattr(record, "to_entity")
        kind = typing.get_origin(self.record_type) or self.record_type
        if not known and not isinstance(record, kind):
            raise JobRecordError(
                f"{type_name(record)} ({redact_secrets(f'{record!r:.80}')}) is not a "
                f"{self.record_type.__name__}, which this store keeps: pass one, or open a store "
                "with record_type= for others"
            )

    def version(self, record: RecordT) -> str | None:
        """Return the version that a record was read or written as, `None` when unknown."""
        self.check(record)
        return getattr(record, "etag", None) if self._has_etag else _versions.get(record)

    def stamp(self, record: RecordT, etag: str | None) -> RecordT:
        """Return the record with its version; the same object unless it is frozen."""
        known: Any = record
        if self._has_etag:
            if known.__dataclass_params__.frozen:
                return changed(record, etag=etag)
            known.etag = etag
        else:
            _versions.put(record, etag)
        return record

    def evolve(self, record: RecordT, **changes: Any) -> RecordT:
        """Return a copy of a record with other values in some fields, for `claim` and `renew`."""
        self.check(record)
        missing = sorted(name for name in changes if not hasattr(record, name))
        if missing:
            raise AzureTableError(
                f"claiming needs records with the fields {', '.join(missing)}, which "
                f"{self.record_type.__name__} lacks; add them or inherit from JobRecord"
            )
        if dataclasses.is_dataclass(record):
            copied = cast("RecordT", changed(cast("Any", record), **changes))
        else:
            copied = copy.copy(record)
            for name, value in changes.items():
                setattr(copied, name, value)
        return self.stamp(copied, self.version(record))

    @property
    def counts_remotely(self) -> bool:
        """Whether the backend can count by the stored status and time."""
        return self._remote_status and self._remote_time

    def remote(self, query: Query) -> Query:
        """Return the part of a query that the backend can judge by the stored properties."""
        judged = self._remote_status and (self._remote_time or not (query.since or query.until))
        return query if judged else Query(partition=query.partition)

    def matches(self, record: RecordT, query: Query) -> bool:
        """Judge a record by status, time and lease; its batch is judged by the backend."""
        if query.statuses and status_of(record) not in query.statuses:
            return False
        if query.since or query.until:
            moment = updated_at(record)
            if query.since and moment < query.since:
                return False
            if query.until and moment >= query.until:
                return False
        if query.claimable_at is None:
            return True
        status = status_of(record)
        if status == "pending":
            wait = moment_of(getattr(record, "not_before", None))
            return wait is None or wait <= query.claimable_at
        lease = moment_of(getattr(record, "lease_until", None))
        return status == "running" and lease is not None and lease < query.claimable_at


def _values_of(hint: Any) -> list[Any]:
    """The statuses that a type hint allows, empty when it does not say."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [item.value for item in hint]
    return list(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else []


def status_of(record: Any) -> str | None:
    """Return the status of any record as text."""
    status = getattr(record, "status", None)
    return None if status is None else str(getattr(status, "value", status))


def moment_of(value: Any) -> datetime | None:
    """Return a time that is kept as datetime or as ISO 8601 text."""
    if isinstance(value, datetime):
        return nearest_utc(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return nearest_utc(time_of(value))
    return None


def updated_at(record: Any) -> datetime:
    """Return when a record was updated last; the beginning of time when it does not say."""
    return moment_of(getattr(record, "updated_at", None)) or EARLIEST


def newest_first(records: list[RecordT]) -> list[RecordT]:
    """Sort records by when they were updated; as texts, like 0.7, where one is not a time."""
    texts = [value for r in records if isinstance(value := getattr(r, "updated_at", None), str)]
    if any(text and moment_of(text) is None for text in texts):
        return sorted(records, key=lambda r: str(getattr(r, "updated_at", "")), reverse=True)
    return sorted(records, key=updated_at, reverse=True)


def same_write(row: Row, stored: Row) -> bool:
    """Whether what is stored is this very creation; without a token, the same content counts."""
    if _WRITE not in row.properties:
        return same_content(row, stored)
    return bool(row.properties[_WRITE] == stored.properties.get(_WRITE))


def same_content(row: Row, stored: Row) -> bool:
    """Whether what is stored is what a row holds."""
    return row.properties == stored.properties
