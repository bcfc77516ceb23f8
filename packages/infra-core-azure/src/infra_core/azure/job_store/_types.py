"""One converter per type hint: to what a property or JSON can hold, and back."""

import base64
import dataclasses
import types
import typing
import uuid
from collections.abc import Callable, Collection, Mapping, MutableMapping, MutableSequence, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, NewType, TypeVar, Union

from .._checks import type_name
from ..exceptions import JobRecordError
from ._entity import Int64, to_utc

__all__ = ["Converter", "converter_for"]


class Converter(NamedTuple):
    """How values of one type are stored.

    Attributes:
        encode: Value and path (for errors) to what is stored.
        decode: What is stored to the value.
        optional: Whether `None` is a value of the type.
    """

    encode: Callable[[Any, str], Any]
    decode: Callable[[Any], Any]
    optional: bool = False


_MICROSECOND = timedelta(microseconds=1)


def converter_for(hint: Any, *, where: str, in_json: bool = False) -> Converter:
    """Return the converter of a type hint.

    Args:
        hint: The type hint, resolved.
        where: What it belongs to, for the error message.
        in_json: Whether the value stands inside JSON, where bytes and datetimes become text.

    Raises:
        JobRecordError: Values of this type would not come back as they were.
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
        elif origin is Union or origin is types.UnionType:
            arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
            optional = optional or len(arms) < len(typing.get_args(hint))
            if len(arms) != 1:
                return Union[tuple(arms)], optional  # noqa: UP007 - built at run time
            hint = arms[0]
        else:
            return hint, optional or hint in (Any, object, None, type(None))


def _converter(hint: Any, where: str, in_json: bool) -> Converter:
    if hint in (Any, object) or isinstance(hint, TypeVar):
        return _dynamic(in_json)
    origin = typing.get_origin(hint)
    if origin is Literal:
        kinds = {type(value) for value in typing.get_args(hint)}
        if len(kinds) == 1 and kinds <= {str, int, bool}:
            return _plain(kinds.pop(), in_json)
    elif origin is Union:
        if set(typing.get_args(hint)) <= {str, int, float, bool}:
            return _dynamic(in_json)
    elif origin is not None:
        found = _generic(origin, typing.get_args(hint), where)
        if found is not None:
            return found
    elif isinstance(hint, type):
        found = _class(hint, where, in_json)
        if found is not None:
            return found
    raise JobRecordError(
        f"{where} is declared as {_shown(hint)}, which cannot be stored and come back as it was: "
        "use text, numbers, bool, bytes, datetime, date, time, timedelta, UUID, Decimal, Path, an "
        "enum, a dataclass, or lists, tuples, sets and dicts of these; or give it to_entity() "
        "and from_entity()",
        field=where.rpartition(".")[2],
    )


def _shown(hint: Any) -> str:
    plain = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if plain else str(hint).replace("typing.", "")


def _class(hint: type, where: str, in_json: bool) -> Converter | None:
    if issubclass(hint, Enum):
        by_value = all(isinstance(item.value, (str, int)) for item in hint)
        if by_value:
            return Converter(_check(hint, lambda item: _number(item.value, in_json)), hint)
        return Converter(_check(hint, lambda item: item.name), hint.__getitem__)
    if hint in (bool, int, float, str):
        return _plain(hint, in_json)
    for base, encode, decode in _TEXTUAL:
        if issubclass(hint, base):
            return Converter(_check(hint, encode), decode(hint))
    if hint is timedelta:
        return Converter(
            _check(timedelta, lambda span: _number(span // _MICROSECOND, in_json)),
            lambda number: timedelta(microseconds=int(number)),
        )
    if hint is date:
        return Converter(_check(date, _day), date.fromisoformat)
    if hint is datetime:
        return Converter(_moment(in_json), datetime.fromisoformat if in_json else to_utc)
    if hint in (bytes, uuid.UUID):
        encode, decode = _IN_JSON[hint] if in_json else (_as_is, _as_is)
        return Converter(_check(hint, encode), decode)
    if hint in (list, dict, tuple, set, frozenset):
        return _generic(hint, (), where)
    if dataclasses.is_dataclass(hint):
        return _nested(hint, where)
    return None


def _day(value: date) -> str:
    if isinstance(value, datetime):  # a subclass of date, whose time would be lost
        raise JobRecordError(
            f"{value.isoformat()} is a datetime in a field declared as date; store value.date()"
        )
    return value.isoformat()


# Classes that travel as text: base, to text, and how the class reads text.
_TEXTUAL: tuple[tuple[type, Callable[[Any], str], Callable[[Any], Callable[[str], Any]]], ...] = (
    (PurePath, str, lambda hint: hint),
    (Decimal, str, lambda hint: hint),
    (time, time.isoformat, lambda hint: hint.fromisoformat),
)


def _check(kind: Any, encode: Callable[[Any], Any]) -> Callable[[Any, str], Any]:
    def checked(value: Any, path: str) -> Any:
        _require(value, kind, path, getattr(kind, "__name__", str(kind)))
        return encode(value)

    return checked


def wrong(value: Any, path: str, wanted: str) -> typing.NoReturn:
    """Say that a field holds a value of another type than it declares."""
    raise JobRecordError(
        f"{path} holds {value!r:.80}, {type_name(value)}, and is declared as {wanted}; "
        "convert the value or change the declaration",
        field=path.partition("[")[0].partition(".")[0],
    )


def _as_is(value: Any) -> Any:
    return value


_IN_JSON: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    bytes: (lambda value: base64.b64encode(value).decode(), base64.b64decode),
    uuid.UUID: (str, uuid.UUID),
}


def _moment(in_json: bool) -> Callable[[Any, str], Any]:
    def checked(value: Any, path: str) -> Any:
        _require(value, datetime, path, "datetime")
        moment = to_utc(value, path)
        return moment.isoformat() if in_json else moment

    return checked


def _require(value: Any, kind: Any, path: str, wanted: str) -> None:
    if not isinstance(value, kind):
        wrong(value, path, wanted)


def _number(value: Any, in_json: bool) -> Any:
    """Whole numbers of typed fields are Edm.Int64 always, so that they never change their type."""
    return _int64(value) if type(value) is int and not in_json else value


def _plain(kind: type, in_json: bool) -> Converter:
    if kind is float:
        return Converter(_check((float, int), float), float)
    if kind is int:

        def encode(value: Any, path: str) -> Any:
            if not isinstance(value, int) or isinstance(value, bool):
                wrong(value, path, "int")
            return int(value) if in_json else _int64(int(value))

        return Converter(encode, int)
    return Converter(_check(kind, _as_is), _as_is)


def _int64(value: int) -> int:
    # What does not fit is left as it is, for `pack` to refuse with the field's name.
    return Int64(value) if -(2**63) <= value < 2**63 else value


def _generic(origin: Any, args: tuple[Any, ...], where: str) -> Converter | None:
    if origin in (dict, Mapping, MutableMapping):
        key_hint, value_hint = args or (Any, Any)
        return _dict(key_hint, value_hint, where)
    if origin is tuple and args and args[-1] is not Ellipsis:
        items = [converter_for(arg, where=where, in_json=True) for arg in args]

        def encode(value: Any, path: str) -> Any:
            if not isinstance(value, tuple) or len(value) != len(items):
                wrong(value, path, f"tuple of {len(items)}")
            pairs = enumerate(zip(items, value, strict=True))
            return [item.encode(part, f"{path}[{i}]") for i, (item, part) in pairs]

        return Converter(
            encode, lambda value: tuple(i.decode(v) for i, v in zip(items, value, strict=True))
        )
    kinds: dict[Any, Any] = {list: list, tuple: tuple, set: set, frozenset: frozenset}
    kinds.update({Sequence: list, MutableSequence: list, Collection: list})
    if origin not in kinds:
        return None
    item = converter_for(args[0] if args else Any, where=where, in_json=True)
    kind = kinds[origin]
    accepted = (list, tuple) if origin in (Sequence, Collection) else kind

    def encode_items(value: Any, path: str) -> Any:
        _require(value, accepted, path, kind.__name__)
        encoded = [item.encode(part, f"{path}[{index}]") for index, part in enumerate(value)]
        return sorted(encoded, key=repr) if kind in (set, frozenset) else encoded

    return Converter(encode_items, lambda value: kind(item.decode(part) for part in value))


def _dict(key_hint: Any, value_hint: Any, where: str) -> Converter:
    item = converter_for(value_hint, where=where, in_json=True)
    bare = key_hint in (Any, object)
    key = converter_for(str if bare else key_hint, where=where, in_json=True)
    numeric = _unwrap(key_hint)[0] is int

    def encode(value: Any, path: str) -> Any:
        _require(value, Mapping, path, "dict")
        encoded = {}
        for name, part in value.items():
            text = key.encode(name, f"{path}[key]")
            if not isinstance(text, str) and not numeric:
                wrong(name, f"{path}[key]", "text in JSON")
            encoded[str(text) if numeric else text] = item.encode(part, f"{path}[{name!r}]")
        return encoded

    return Converter(
        encode,
        lambda value: {
            key.decode(int(name) if numeric else name): item.decode(part)
            for name, part in value.items()
        },
    )


def _nested(hint: type, where: str) -> Converter:
    table: dict[str, Converter] = {}

    def converters() -> dict[str, Converter]:
        if not table:  # on first use, so that a type may contain itself
            hints = typing.get_type_hints(hint, include_extras=True)
            for field in dataclasses.fields(hint):
                table[field.name] = converter_for(
                    hints[field.name], where=f"{where}.{field.name}", in_json=True
                )
        return table

    def encode(value: Any, path: str) -> Any:
        _require(value, hint, path, hint.__name__)
        return {
            name: converter.encode(getattr(value, name), f"{path}.{name}")
            for name, converter in converters().items()
        }

    def decode(value: Any) -> Any:
        known = converters()
        return hint(**{name: known[name].decode(v) for name, v in value.items() if name in known})

    return Converter(encode, decode)


_SCALARS = (str, int, float, bool)


def _dynamic(in_json: bool) -> Converter:
    def encode(value: Any, path: str) -> Any:
        if not in_json and isinstance(value, (datetime, bytes, uuid.UUID)):
            return to_utc(value, path) if isinstance(value, datetime) else value
        encoded = _json_types(value, path)
        return _int64(encoded) if type(encoded) is int and not in_json else encoded

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
