"""Properties of a record against the limits of a table entity: checked, spilled, joined again.

Source of the limits: Azure, "Understanding the Table service data model". Emulators do not enforce
them, so they are checked here, before anything is sent, by every backend.
"""

import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from enum import Enum
from functools import lru_cache
from typing import Any, TypeGuard

from .._checks import type_name
from ..exceptions import JobRecordError

__all__ = [
    "EARLIEST",
    "FIRST_DATE",
    "LATEST",
    "MAX_ENTITY_BYTES",
    "MAX_PROPERTIES",
    "RESERVED",
    "SYSTEM",
    "Int64",
    "field_of",
    "nearest_utc",
    "pack",
    "time_of",
    "to_utc",
    "unpack",
]

MAX_ENTITY_BYTES = 1024 * 1024
MAX_PROPERTIES = 252
MAX_NAME = 255
_CHUNK_UNITS = 32_000  # UTF-16 units; 64 KiB hold 32,768 of them
_CHUNK_BYTES = 65_536
_PART, _PARTS, _JSON = "__part_", "__parts", "__json"
_PART_NAME = re.compile(rf"(.+){_PART}\d+\Z")
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_FRACTION = re.compile(r"\.\d+")
_SURROGATE = re.compile("[\ud800-\udfff]")
EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
LATEST = datetime.max.replace(tzinfo=timezone.utc)
"""The first and the last moment that Python has, in UTC."""
FIRST_DATE = datetime(1601, 1, 1, tzinfo=timezone.utc)
"""The first one that a table holds."""
SYSTEM = frozenset({"PartitionKey", "RowKey", "Timestamp"})
"""Properties that the Table service keeps for itself."""
RESERVED = "infra_core_"
"""How names of properties begin that are not fields of a record."""


class Int64(int):
    """A whole number that is stored as Edm.Int64, however small it is."""

    __slots__ = ()

    @property
    def value(self) -> int:
        """The number; `EntityProperty` of the SDK has this attribute as well."""
        return int(self)


def to_utc(value: datetime, field: str = "the value") -> datetime:
    """Return a datetime as aware UTC; one without a timezone is taken for UTC.

    Raises:
        JobRecordError: In UTC it lies before the year 1 or after 9999, or it is none (pandas.NaT).
    """
    if type(value) is not datetime:
        value = _plain(value, field)
    if value.tzinfo is timezone.utc:
        return value
    if value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise JobRecordError(
            f"field {field!r} is {value.isoformat()}, which in UTC lies outside of the years 1 to "
            "9999; use a time without offset at the ends, such as datetime.max",
            field=field,
        ) from None


def _plain(value: datetime, field: str) -> datetime:
    """Return a plain datetime for one of another library, microseconds kept."""
    try:
        return datetime.combine(value.date(), value.timetz())
    except ValueError:
        raise JobRecordError(
            f"field {field!r} is {value!r}, which is not a time: pass None where there is none",
            field=field,
        ) from None


def time_of(text: str) -> datetime:
    """Return the time that an ISO 8601 text names, as any tool writes it: `Z`, seven decimals."""
    text = _FRACTION.sub(lambda found: f"{found[0]:0<7.7}", text)  # 3.10 reads no other number
    return datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)


def nearest_utc(value: datetime) -> datetime:
    """Return a datetime as aware UTC, the first or last moment where UTC has none for it."""
    try:
        return to_utc(value)
    except JobRecordError:
        return LATEST if value.year > 5000 else EARLIEST


def pack(properties: Mapping[str, Any], *, key_chars: int = 0) -> dict[str, Any]:
    """Turn properties into what a table entity can hold.

    Text and bytes above 64 KiB are cut into numbered properties, dicts and lists become JSON,
    `None` is left out. The keys, of `key_chars` UTF-16 units, count towards the size.

    Raises:
        JobRecordError: A limit would be exceeded or a value cannot be stored; `.field` says which.
    """
    packed: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name, value in properties.items():
        if value is None or name in SYSTEM or "odata." in name:
            continue
        _check_name(name)
        size = _plain_size(value)
        if size:
            packed[name] = value
            sizes[name] = 8 + 2 * len(name) + size
            continue
        own: dict[str, Any] = {}
        _put(own, name, value)
        packed.update(own)
        sizes[name] = sum(8 + 2 * len(key) + _size(item) for key, item in own.items())
    total = 4 + 2 * key_chars + sum(sizes.values())
    if len(packed) <= MAX_PROPERTIES and total <= MAX_ENTITY_BYTES:
        return packed
    widest = max(sizes, key=lambda name: sizes[name])
    if len(packed) > MAX_PROPERTIES:
        raise JobRecordError(
            f"the record takes {len(packed)} properties and a table entity holds "
            f"{MAX_PROPERTIES}; put small fields into one dict field (largest field: {widest!r})",
            field=widest,
        )
    raise JobRecordError(
        f"the record takes {total:,} bytes and a table entity holds {MAX_ENTITY_BYTES:,}; "
        f"field {widest!r} alone takes {sizes[widest]:,}: keep it in a blob and store its name",
        field=widest,
    )


def _plain_size(value: Any) -> int:
    """Bytes of a value that is stored as it is; 0 for one that has to be looked at."""
    kind = type(value)
    if kind is str:
        return 4 + 2 * len(value) if len(value) <= _CHUNK_UNITS and value.isascii() else 0
    if kind is Int64 or (kind is float and value):
        return 8
    if kind is datetime and value.tzinfo is timezone.utc and value.year > FIRST_DATE.year:
        return 8
    return 1 if kind is bool else 0


def unpack(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `pack`: put spilled values together and read JSON."""
    if not any(_is_marked(name) for name in properties):
        return dict(properties)
    plain = {name: value for name, value in properties.items() if not _PART_NAME.match(name)}
    for name in [name for name in plain if name.endswith(_PARTS)]:
        base = name[: -len(_PARTS)]
        count = plain.pop(name)
        if not isinstance(count, int):
            raise _damaged(base, f"its number of parts is {count!r:.40}")
        parts = [properties.get(f"{base}{_PART}{index}") for index in range(count)]
        if any(part is None for part in parts):
            raise _damaged(base, f"part {parts.index(None) + 1} of {len(parts)} is missing")
        plain[base] = (b"" if isinstance(parts[0], bytes) else "").join(parts)  # type: ignore[arg-type]
    for name in [name for name in plain if name.endswith(_JSON)]:
        base, text = name[: -len(_JSON)], plain.pop(name)
        try:
            plain[base] = json.loads(text)
        except (TypeError, ValueError):
            raise _damaged(base, f"{text!r:.40} is not JSON") from None
    return plain


@lru_cache(maxsize=4096)
def field_of(name: str) -> str:
    """Return the field that a property holds, or holds a part of.

    Example:
        >>> field_of("text__json__part_3"), field_of("infra_core_RowKey"), field_of("n")
        ('text', 'RowKey', 'n')
    """
    part = _PART_NAME.match(name)
    field = part[1] if part else name.removesuffix(_PARTS)
    field = field.removesuffix(_JSON)
    return field.removeprefix(RESERVED) if field.removeprefix(RESERVED) in SYSTEM else field


def _damaged(base: str, what: str) -> JobRecordError:
    return JobRecordError(
        f"field {base!r} is incomplete in the store: {what}; something other than this library "
        "has changed the row: save the job anew, or delete it",
        field=base,
    )


@lru_cache(maxsize=4096)
def _is_marked(name: str) -> bool:
    return name.endswith((_PARTS, _JSON)) or _PART_NAME.match(name) is not None


@lru_cache(maxsize=4096)
def _check_name(name: str) -> None:
    if _is_marked(name):
        raise JobRecordError(
            f"field {name!r} has a name that is reserved for spilled values; rename it", field=name
        )
    if not name.isidentifier() or len(name) > MAX_NAME:
        raise JobRecordError(
            f"field {name!r} cannot be a property name: it must be an identifier of at most "
            f"{MAX_NAME} characters; rename it or keep it inside a dict field",
            field=name,
        )


def _put(packed: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, Enum):  # the SDK would write `Kind.NAME`
        value = value.value
    if _is_edm_property(value):
        value = _held(name, value)
    if isinstance(value, (dict, list)) or (type(value) is tuple):
        name, value = name + _JSON, _json_text(value, name)
    elif isinstance(value, str):
        value = str.__str__(value)
        if _SURROGATE.search(value):  # no UTF-8 for these: travels as JSON escapes
            name, value = name + _JSON, json.dumps(value)
    elif isinstance(value, float) and value == 0 and math.copysign(1, value) < 0:
        name, value = name + _JSON, "-0.0"  # as a number it may lose its sign in the store
    if isinstance(value, str) and _units(value) > _CHUNK_BYTES // 2:
        step = _CHUNK_UNITS if _units(value) == len(value) else _CHUNK_UNITS // 2
        _spill(packed, name, [value[i : i + step] for i in range(0, len(value), step)])
    elif isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        if len(data) > _CHUNK_BYTES:
            chunks = [data[i : i + _CHUNK_BYTES] for i in range(0, len(data), _CHUNK_BYTES)]
            _spill(packed, name, chunks)
        else:
            packed[name] = data
    else:
        packed[name] = _scalar(name, value)


def _spill(packed: dict[str, Any], name: str, chunks: list[Any]) -> None:
    packed[name + _PARTS] = len(chunks)
    for index, chunk in enumerate(chunks):
        packed[f"{name}{_PART}{index}"] = chunk


def _scalar(name: str, value: Any) -> Any:
    if isinstance(value, (str, bool, uuid.UUID)):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise JobRecordError(
                f"field {name!r} is a whole number of {value.bit_length() + 1} bits, and they are "
                "stored in 64 bits; keep it as text",
                field=name,
            )
        return value if -(2**31) <= value < 2**31 else Int64(value)
    if isinstance(value, datetime):
        moment = to_utc(value, name)
        if moment < FIRST_DATE:
            raise JobRecordError(
                f"field {name!r} is {value.isoformat()}: a table holds dates from the year 1601 "
                "on; keep it as text",
                field=name,
            )
        # A datetime that came from the SDK keeps its seventh decimal as long as it is not changed.
        return value if getattr(value, "tables_service_value", "") else moment
    raise JobRecordError(
        f"field {name!r} is {value!r:.80}, {type_name(value)}, which a table cannot hold: use "
        "text, a number, bytes, a datetime, a UUID, or a dict or list of JSON types",
        field=name,
    )


def _is_edm_property(value: Any) -> TypeGuard[tuple[Any, Any]]:
    """Whether it is the SDK's EntityProperty, which must not be imported to ask."""
    return isinstance(value, tuple) and len(value) == 2 and hasattr(value, "edm_type")


def _whole(value: Any, bits: int) -> int:
    number, end = int(value), 2 ** (bits - 1)
    if (isinstance(value, float) and number != value) or not -end <= number < end:
        raise ValueError
    return number


# Like the SDK takes them, texts included, which it sends as they are.
_EDM: Mapping[str, Callable[[Any], Any]] = {
    "Edm.Int32": lambda value: _whole(value, 32),
    "Edm.Int64": lambda value: Int64(_whole(value, 64)),
    "Edm.Double": float,
    "Edm.Boolean": lambda value: {"true": True, "false": False}[str(value).lower()],
    "Edm.String": str,
    "Edm.Binary": lambda value: value.encode() if isinstance(value, str) else memoryview(value),
    "Edm.Guid": lambda value: uuid.UUID(str(value)),
    "Edm.DateTime": lambda value: value if isinstance(value, datetime) else time_of(value),
}


def _held(name: str, value: tuple[Any, Any]) -> Any:
    """The value of an EntityProperty, as what is stored with the same type by itself."""
    held, kind = value[0], str(getattr(value[1], "value", value[1]))
    try:
        if held is not None:
            return _EDM[kind](held)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise JobRecordError(
        f"field {name!r} is {held!r:.80}, which is not of type {kind}; give it one of that "
        "type, or the value alone",
        field=name,
    )


def _json_text(value: Any, name: str) -> str:
    try:
        text = _COMPACT.encode(value)
        return json.dumps(value, separators=(",", ":")) if _SURROGATE.search(text) else text
    except (TypeError, ValueError, RecursionError) as error:
        raise JobRecordError(
            f"field {name!r} cannot be written as JSON ({error}): only JSON types can stand in it; "
            "convert the others, with str() or isoformat() for example",
            field=name,
        ) from error


def _units(text: str) -> int:
    """Count the UTF-16 units of a text."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _size(value: Any) -> int:
    if isinstance(value, str):
        return 2 * _units(value) + 4
    if isinstance(value, bytes):
        return len(value) + 4
    if isinstance(value, uuid.UUID):
        return 16
    return {bool: 1, int: 4}.get(type(value), 8)
