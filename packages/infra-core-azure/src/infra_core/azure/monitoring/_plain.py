"""Any Python value as plain JSON data: bounded, without secrets, and never refused.

A line of a log or a telemetry event must not be lost because somebody put a path, a date, a lock
or an object with a broken `repr` into it. So everything becomes *something* here.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

from infra_core.runtime import REDACTED, is_secret_name, redact_secrets

__all__ = ["Bounds", "plain_mapping", "without_secrets"]

Bounds = tuple[int, int, int]
"""Longest string in characters, most items of a container, deepest nesting."""

DEFAULT_BOUNDS: Bounds = (262_144, 10_000, 12)

# Items of a value as a whole: objects that refer to one another have paths without number. A text
# counts by its length. The counter of what is left goes along with the bounds.
_MOST_ITEMS = 100_000
_OWN_ITEMS = 1_000  # of each property of a line, however much those before it have taken
_ITEM_CHARACTERS = 64
_Limits: TypeAlias = tuple[int, int, int, list[int]]

# `redact_secrets` finds nothing in a text that has none of these (a test holds it to that). It
# costs 20 to 400 microseconds a text, this costs one: the difference between 3,000 and 30,000
# lines a second.
_HINTS = (
    "sig", "code", "key", "pwd", "pass", "auth", "token", "secret", "credential", "cookie",
    "bearer", "basic", "eyj", "@",
)  # fmt: skip


def without_secrets(text: str) -> str:
    """Return what `redact_secrets` returns, at little cost for texts that hold no secret."""
    folded = text.lower() if text.isascii() else text.casefold()
    for hint in _HINTS:
        if hint in folded:
            return redact_secrets(text)
    return text


def plain_mapping(values: Mapping[Any, Any], bounds: Bounds = DEFAULT_BOUNDS) -> dict[str, Any]:
    """Return a mapping as JSON data: never raises, never cyclic, never larger than the bounds.

    Keys are strings. What was cut says so and by how much. Values of properties with a secret's
    name, and secrets within texts, are replaced.
    """
    return _mapping(values, (*bounds, [_MOST_ITEMS]), 0)


def _plain(value: object, bounds: _Limits, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value, bounds)  # type: ignore[arg-type]
    if value is None or kind is bool:
        return value
    if kind is int:
        return _integer(value)  # type: ignore[arg-type]
    if kind is float:
        return value if math.isfinite(value) else str(value)  # type: ignore[arg-type]
    try:
        return _other(value, bounds, depth)
    except Exception:  # noqa: BLE001 - foreign code: __str__, __iter__, properties
        return _unprintable(value)


def _other(value: object, bounds: _Limits, depth: int) -> Any:  # noqa: C901 - a table in all but name
    if isinstance(value, Enum):
        return _plain(value.value, bounds, depth + 1)
    if isinstance(value, str):
        return _text(str.__str__(value), bounds)
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, float):
        return _plain(float(value), bounds, depth)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        text = _text(bytes(value[: bounds[0]]).decode("utf-8", "backslashreplace"), bounds)
        cut = len(value) - bounds[0]
        return f"{text}<truncated: {cut} more bytes>" if cut > 0 else text
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {value}", bounds)
    if depth >= bounds[2]:
        return f"<{type(value).__name__}: nested more than {bounds[2]} levels deep>"
    if isinstance(value, Mapping):
        return _mapping(value, bounds, depth)
    if is_dataclass(value) and not isinstance(value, type):
        shown = {field.name: getattr(value, field.name) for field in fields(value) if field.repr}
        return _mapping(shown, bounds, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _sequence(value, bounds, depth)
    return _text(str(value), bounds)


def _mapping(values: Mapping[Any, Any], bounds: _Limits, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    left = bounds[3]
    for index, (key, value) in enumerate(values.items()):
        if depth:
            left[0] -= 1
        elif left[0] < _OWN_ITEMS:
            left[0] = _OWN_ITEMS
        if index >= bounds[1] or left[0] < 0:
            result["<truncated>"] = f"{len(values) - index} more items"
            break
        name = key if type(key) is str else _key_text(key, bounds)
        name, secret = _known_name(name) if len(name) <= 128 else (_text(name, bounds), False)
        if secret and value is not None and _hides(name, value):
            result[name] = REDACTED
        else:
            result[name] = _plain(value, bounds, depth + 1)
    return result


def _key_text(key: object, bounds: _Limits) -> str:
    plain = _plain(key, bounds, bounds[2])
    return plain if isinstance(plain, str) else repr(plain)


def _sequence(values: Iterable[object], bounds: _Limits, depth: int) -> list[Any]:
    items: list[object] = list(values)
    result: list[Any] = []
    left = bounds[3]
    for index, item in enumerate(items):
        left[0] -= 1
        if index >= bounds[1] or left[0] < 0:
            result.append(f"<truncated: {len(items) - index} more items>")
            break
        result.append(_plain(item, bounds, depth + 1))
    return result


def _text(text: str, bounds: _Limits) -> str:
    if (length := len(text)) >= _ITEM_CHARACTERS:
        bounds[3][0] -= min(length, bounds[0]) // _ITEM_CHARACTERS
        if length > bounds[0]:
            # A secret that the cut splits is hidden as well: what is cut off is not looked at.
            kept = without_secrets(text[: bounds[0]])
            return f"{kept}<truncated: {length - bounds[0]} more characters>"
    return without_secrets(text)


def _integer(value: int) -> int | str:
    # Beyond 64 bits most readers lose digits, and beyond 4,300 digits Python refuses to print.
    return value if -(2**63) <= value < 2**64 else hex(value)[:1024]


@lru_cache(maxsize=2048)
def _known_name(name: str) -> tuple[str, bool]:
    return without_secrets(name), is_secret_name(name)


def _hides(name: str, value: object) -> bool:
    """Whether a value below a secret's name is one: an HTTP status below `code` is none."""
    if isinstance(value, (bool, float)):
        return False
    try:
        return REDACTED in redact_secrets(f'{{"{name}": "{value!s}"}}')
    except Exception:  # noqa: BLE001 - when in doubt, hide
        return True


def _unprintable(value: object) -> str:
    return f"<{type(value).__name__} that cannot be printed>"
