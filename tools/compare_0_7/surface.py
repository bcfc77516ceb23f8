"""What a distribution offers to those who import it: run in 0.7.6 and in ours, printed as JSON.

    python surface.py MODULE...

Names without an underscore in front, also those outside of `__all__`; of each its kind, its bases
that are builtin or third-party, its parameters, dunder methods, fields and printed members.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import os
import sys
import typing
from typing import Any

# What Python puts on every class, or what means nothing to a caller.
_EVERYWHERE = {
    "__annotations__", "__class__", "__class_getitem__", "__dataclass_fields__",
    "__dataclass_params__", "__delattr__", "__dict__", "__dir__", "__doc__", "__firstlineno__",
    "__format__", "__getattribute__", "__getnewargs__", "__getstate__", "__init__",
    "__init_subclass__", "__match_args__", "__module__", "__ne__", "__new__", "__orig_bases__",
    "__parameters__", "__post_init__", "__qualname__", "__reduce__", "__reduce_ex__",
    "__replace__", "__repr__", "__setattr__", "__setstate__", "__sizeof__", "__slots__",
    "__static_attributes__", "__str__", "__subclasshook__", "__weakref__", "__abstractmethods__",
    "__members__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__del__",
    "__protocol_attrs__", "__non_callable_proto_members__",
}  # fmt: skip


_IMPORTS = {"annotations", "Generic", "TYPE_CHECKING"}  # of the language, not of the module


def surface(modules: list[str]) -> dict[str, Any]:
    """Describe the public names of modules."""
    return {name: _module(importlib.import_module(name)) for name in modules}


def _module(module: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(set(dir(module)) | set(getattr(module, "__all__", ()))):
        if name.startswith("_") or name in _IMPORTS:
            continue
        value = getattr(module, name)
        if inspect.ismodule(value):
            if value.__name__.startswith("infra_core"):
                found[name] = {"kind": "module"}
            continue
        origin = getattr(value, "__module__", "") or ""
        foreign = isinstance(value, (type, typing.TypeVar)) or callable(value)
        if foreign and not origin.startswith("infra_core") and not _is_alias(value):
            continue  # imported for its own use: Path, Any, asyncio
        found[name] = _describe(value)
    return found


def _is_alias(value: Any) -> bool:
    return typing.get_origin(value) is not None


def _describe(value: Any) -> dict[str, Any]:
    if _is_alias(value):  # which Python 3.10 takes for a class
        return {"kind": "value", "type": type(value).__name__}
    if inspect.isclass(value):
        return _class(value)
    if callable(value):
        kind = "async function" if inspect.iscoroutinefunction(value) else "function"
        return {"kind": kind, "parameters": _parameters(value)}
    return {"kind": "value", "type": type(value).__name__}


def _class(value: type) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": "class", "bases": _bases(value)}
    if issubclass(value, enum.Enum):
        described["members"] = {m.name: [str(m.value), str(m), f"{m}"] for m in value}
        return described
    described["parameters"] = _parameters(value)
    described["dunders"] = sorted(
        name
        for name in dir(value)
        if name.startswith("__") and name not in _EVERYWHERE and not hasattr(object, name)
    )
    if dataclasses.is_dataclass(value):
        described["fields"] = [field.name for field in dataclasses.fields(value)]
        described["frozen"] = value.__dataclass_params__.frozen  # type: ignore[attr-defined]
    if getattr(value, "_is_protocol", False):
        described["runtime_checkable"] = bool(getattr(value, "_is_runtime_protocol", False))
    methods: dict[str, Any] = {}
    for name in sorted(dir(value)):
        if name.startswith("_"):
            continue
        static = inspect.getattr_static(value, name, None)  # of a metaclass
        if isinstance(static, property):
            methods[name] = {"kind": "property"}
        elif callable(getattr(value, name, None)):
            bound = getattr(value, name)
            kind = "async function" if inspect.iscoroutinefunction(bound) else "function"
            methods[name] = {"kind": kind, "parameters": _parameters(bound)}
        else:
            methods[name] = {"kind": "attribute"}
    described["attributes"] = methods
    return described


def _bases(value: type) -> list[str]:
    """The bases that an `except` or an `isinstance` of a user's may name."""
    skip = {"object", "Generic", "Protocol", "ABC", "Enum", "ReprEnum", "StrEnum"}
    return [
        f"{base.__module__.partition('.')[0]}.{base.__name__}"
        if not base.__module__.startswith("infra_core")
        else base.__name__
        for base in value.__mro__[1:]
        if base.__name__ not in skip
        and not base.__name__.startswith("_")
        and base.__module__ != "typing"
    ]


def _parameters(function: Any) -> list[list[str]] | None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return [
        [parameter.name, parameter.kind.name, _default(parameter.default)]
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if value is os.environ:
        return "the environment"
    if callable(value) or type(value).__module__.startswith("infra_core"):
        return "some"
    return repr(value)


if __name__ == "__main__":
    print(json.dumps(surface(sys.argv[1:]), sort_keys=True))
