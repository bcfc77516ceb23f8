"""One converter per type hint: to what a property or JSON can hold, and back."""

import base64
import dataclasses
import inspect
import json
import math
import types
import typing
import uuid
from collections.abc import Callable, Collection, Mapping, MutableMapping, MutableSequence, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache, lru_cache
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, NewType, TypeVar, Union, cast

from typing_extensions import TypeAliasType

from .._checks import type_name
from ..exceptions import JobRecordError
from ._entity import Int64, to_utc

__all__ = ["Converter", "changed", "check_fields", "converter_for", "make"]


RecordT = TypeVar("RecordT")


class Converter(NamedTuple):
    """How values of one type are stored."""

    encode: Callable[[Any, str], Any]  # takes the value and its path, for errors
    decode: Callable[[Any], Any]
    optional: bool = False  # whether `None` is a value of the type
    is_text: bool = False  # whether they are text in JSON, as names are; others are JSON there


_MICROSECOND = timedelta(microseconds=1)


def converter_for(hint: Any, *, where: str, in_json: bool = True) -> Converter:
    """Return the converter of a resolved type hint, inside JSON or for a property of its own.

    Raises:
        JobRecordError: Values of this type would not come back as they were; `where` names it.
    """
    hint, optional = _unwrap(hint)
    converter = _converter(hint, where, in_json)
    if converter.optional or not optional:
        return converter
    encode, decode = converter.encode, converter.decode
    return Converter(
        lambda value, path: None if value is None else encode(value, path),
        lambda value: None if value is None else decode(value),
        optional=True,
    )


def _unwrap(hint: Any) -> tuple[Any, bool]:
    """Strip what does not change how a value is stored; return whether None is allowed as well."""
    optional = False
    while True:
        origin = typing.get_origin(hint)
        if origin is typing.Annotated or origin in (typing.Final, typing.ClassVar):
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeAliasType):  # type Url = str
            hint = hint.__value__
        elif origin is Union or origin is types.UnionType:
            arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
            optional = optional or len(arms) < len(typing.get_args(hint))
            if len(arms) != 1:
                return Union[tuple(arms)], optional  # noqa: UP007 - built at run time
            hint = arms[0]
        else:
            return hint, optional or hint in (Any, object, None, type(None))


def _converter(hint: Any, where: str, in_json: bool) -> Converter:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    found = None
    if hint in (Any, object) or isinstance(hint, TypeVar):
        found = _dynamic(in_json)
    elif origin is Literal:
        kinds = {type(value) for value in args}
        if len(kinds) == 1 and kinds <= {str, int, bool}:
            found = _class(kinds.pop(), where, in_json)
    elif origin is Union:
        if set(args) <= set(_SCALARS):
            found = _dynamic(in_json)
    elif origin is not None:
        found = _generic(origin, args, where)
    elif isinstance(hint, type):
        found = _class(hint, where, in_json)
    if found is not None:
        return found
    plain = isinstance(hint, type) and not args
    shown = hint.__name__ if plain else str(hint).replace("typing.", "")
    raise JobRecordError(
        f"{where} is declared as {shown}, which cannot be stored and come back as it was: "
        "use text, numbers, bool, bytes, datetime, date, time, timedelta, UUID, Decimal, Path, an "
        "enum, a dataclass, or lists, tuples, sets and dicts of these; or give it to_entity() "
        "and from_entity()",
        field=where.rpartition(".")[2],
    )


def _class(hint: type, where: str, in_json: bool) -> Converter | None:
    if issubclass(hint, Enum):
        is_text = not any(isinstance(item.value, int) for item in hint)
        if all(isinstance(item.value, (str, int)) for item in hint):
            return Converter(_check(hint, lambda item: item.value), hint, is_text=is_text)
        names = _check(hint, lambda item: item.name)
        return Converter(names, hint.__getitem__, is_text=is_text)
    if hint in (bytes, datetime, uuid.UUID) and not in_json:
        return _NATIVE[hint]
    if hint in _EXACT:
        return _EXACT[hint]._replace(is_text=hint in _TEXTS)
    for base, encode, reader in _TEXTUAL:
        if issubclass(hint, base):
            decode = getattr(hint, reader) if reader else hint
            return Converter(_check(hint, encode), decode, is_text=True)
    if hint in (list, dict, tuple, set, frozenset):
        return _generic(hint, (), where)
    return _nested(hint, where) if dataclasses.is_dataclass(hint) else None


def _require(value: Any, kind: Any, path: str, wanted: str) -> None:
    if not isinstance(value, kind):
        wrong(value, path, wanted)


def wrong(value: Any, path: str, wanted: str) -> typing.NoReturn:
    """Raise that a field holds a value of another type than it declares."""
    raise JobRecordError(
        f"{path} holds {value!r:.80}, {type_name(value)}, and is declared as {wanted}; "
        "convert the value or change the declaration",
        field=path.partition("[")[0].partition(".")[0],
    )


def _check(kind: type, encode: Callable[[Any], Any]) -> Callable[[Any, str], Any]:
    def checked(value: Any, path: str) -> Any:
        _require(value, kind, path, kind.__name__)
        return encode(value)

    return checked


def _as_is(value: Any) -> Any:
    return value


def _whole(value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        wrong(value, path, "int")
    return int(value)


def _number(value: Any, path: str) -> float:
    _require(value, (float, int), path, "float")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value and isinstance(value, int):
        wrong(value, path, "float, which has 15 digits")
    return number


def _time(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise JobRecordError(
            f"{value!r} has an offset that depends on the day; store a datetime, or a time without "
            "timezone and the zone's name"
        )
    return value.isoformat()


def _day(value: date) -> str:
    if isinstance(value, datetime):  # a subclass of date, whose time would be lost
        raise JobRecordError(
            f"{value.isoformat()} is a datetime in a field declared as date; store value.date()"
        )
    return value.isoformat()


def _moment(value: Any, path: str) -> datetime:
    _require(value, datetime, path, "datetime")
    return to_utc(value, path)


_NATIVE = {
    bytes: Converter(_check(bytes, _as_is), _as_is),
    datetime: Converter(_moment, to_utc),
    uuid.UUID: Converter(_check(uuid.UUID, _as_is), _as_is),
}
_EXACT: dict[type, Converter] = {
    bool: Converter(_check(bool, _as_is), _as_is),
    str: Converter(_check(str, _as_is), _as_is),
    int: Converter(_whole, int),
    float: Converter(_number, float),
    date: Converter(_check(date, _day), date.fromisoformat),
    timedelta: Converter(
        _check(timedelta, lambda span: span // _MICROSECOND),
        lambda number: timedelta(microseconds=int(number)),
    ),
    bytes: Converter(
        _check(bytes, lambda value: base64.b64encode(value).decode()), base64.b64decode
    ),
    datetime: Converter(
        lambda value, path: _moment(value, path).isoformat(), datetime.fromisoformat
    ),
    uuid.UUID: Converter(_check(uuid.UUID, str), uuid.UUID),
}
# Classes that travel as text, subclasses as well: base, to text, and what of the class reads it.
_TEXTUAL: tuple[tuple[type, Callable[[Any], str], str], ...] = (
    (PurePath, str, ""),
    (Decimal, str, ""),
    (time, _time, "fromisoformat"),
)
_TEXTS = (str, date, datetime, bytes, uuid.UUID)
_SCALARS = (str, int, float, bool)


def _generic(origin: Any, args: tuple[Any, ...], where: str) -> Converter | None:
    if origin in (dict, Mapping, MutableMapping):
        key_hint, value_hint = args or (Any, Any)
        return _dict(key_hint, value_hint, where)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return _fixed_tuple([converter_for(arg, where=where) for arg in args])
    kinds: dict[Any, Any] = {list: list, tuple: tuple, set: set, frozenset: frozenset}
    kinds.update({Sequence: list, MutableSequence: list, Collection: list})
    if origin not in kinds:
        return None
    item = converter_for(args[0] if args else Any, where=where)
    kind = kinds[origin]
    accepted = (list, tuple) if origin in (Sequence, Collection) else kind

    def encode(value: Any, path: str) -> Any:
        _require(value, accepted, path, kind.__name__)
        encoded = [item.encode(part, f"{path}[{index}]") for index, part in enumerate(value)]
        return sorted(encoded, key=repr) if kind in (set, frozenset) else encoded

    return Converter(encode, lambda value: kind(item.decode(part) for part in value))


def _fixed_tuple(items: list[Converter]) -> Converter:
    def encode(value: Any, path: str) -> Any:
        if not isinstance(value, tuple) or len(value) != len(items):
            wrong(value, path, f"tuple of {len(items)}")
        pairs = enumerate(zip(items, value, strict=True))
        return [item.encode(part, f"{path}[{i}]") for i, (item, part) in pairs]

    return Converter(
        encode, lambda value: tuple(i.decode(v) for i, v in zip(items, value, strict=True))
    )


def _dict(key_hint: Any, value_hint: Any, where: str) -> Converter:
    item = converter_for(value_hint, where=where)
    key = converter_for(str if key_hint in (Any, object) else key_hint, where=where)

    def encode(value: Any, path: str) -> Any:
        _require(value, Mapping, path, "dict")
        encoded = {}
        for name, part in value.items():
            known = key.encode(name, f"{path}[key]")
            place = known if key.is_text else json.dumps(known)
            encoded[place] = item.encode(part, f"{path}[{name!r}]")
        return encoded

    def decode(value: Any) -> Any:
        return {
            key.decode(name if key.is_text else json.loads(name)): item.decode(part)
            for name, part in value.items()
        }

    return Converter(encode, decode)


def check_fields(kind: type, where: str) -> None:
    """Refuse a dataclass whose constructor does not take its fields alone."""
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    taken = inspect.signature(kind).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in taken):
        return
    needed = {each.name for each in taken if each.default is each.empty}
    strange = sorted((needed - fields) | (fields - {each.name for each in taken}))
    if strange:
        raise JobRecordError(
            f"{where} cannot be made again from what is stored: the constructor and the fields of "
            f"{kind.__name__} differ in {', '.join(map(repr, strange))}; let it take each field by "
            "name, and give anything else a default",
            field=strange[0],
        )


def make(kind: Any, values: dict[str, Any]) -> Any:
    """Make a dataclass from its fields, those included that its constructor does not take."""
    late = {name: values.pop(name) for name in _late(kind) if name in values}
    made = kind(**values)
    for name, value in late.items():
        object.__setattr__(made, name, value)
    return made


@lru_cache
def _late(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if not field.init]


def changed(record: RecordT, **changes: Any) -> RecordT:
    """Return a copy of a dataclass with other values in some fields.

    Fields that its constructor does not take keep theirs, unless it makes them of the others.
    """
    known: Any = record
    late = [name for name in _late(known.__class__) if hasattr(record, name)]
    copied = dataclasses.replace(known, **{n: v for n, v in changes.items() if n not in late})
    made = dataclasses.replace(known) if late else known
    for name in late:
        value = getattr(record, name)
        if name in changes or value != getattr(made, name, None):
            object.__setattr__(copied, name, changes.get(name, value))
    return cast("RecordT", copied)


def _nested(hint: type, where: str) -> Converter:
    check_fields(hint, where)

    @cache
    def converters() -> dict[str, Converter]:  # on first use, so that a type may contain itself
        hints = typing.get_type_hints(hint, include_extras=True)
        names = [field.name for field in dataclasses.fields(hint)]
        return {name: converter_for(hints[name], where=f"{where}.{name}") for name in names}

    def encode(value: Any, path: str) -> Any:
        _require(value, hint, path, hint.__name__)
        return {
            name: converter.encode(getattr(value, name), f"{path}.{name}")
            for name, converter in converters().items()
        }

    def decode(value: Any) -> Any:
        known = converters().items()
        return make(hint, {n: each.decode(value[n]) for n, each in known if n in value})

    return Converter(encode, decode)


def _dynamic(in_json: bool) -> Converter:
    def encode(value: Any, path: str) -> Any:
        if not in_json and isinstance(value, (datetime, bytes, uuid.UUID)):
            return to_utc(value, path) if isinstance(value, datetime) else value
        return _json_types(value, path)

    def decode(value: Any) -> Any:
        if isinstance(value, datetime):
            return to_utc(value)
        return int(value) if isinstance(value, Int64) else value

    return Converter(encode, decode, optional=True)


def _json_types(value: Any, path: str) -> Any:
    if value is None or isinstance(value, _SCALARS):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, (list, tuple)):
        return [_json_types(part, f"{path}[{index}]") for index, part in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                wrong(name, f"{path}[key]", "text in JSON")
        return {name: _json_types(part, f"{path}[{name!r}]") for name, part in value.items()}
    return wrong(value, path, "JSON types (an untyped place; give the field a type hint for more)")
