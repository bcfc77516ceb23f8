"""For griffe, which reads the source alone: what calls take at run time.

`@blocking(download_asset_async)` gives what it decorates the parameters of the coroutine function;
the source says `*args` and `**kwargs`. A field of a dataclass that is made by a private function,
`_number(8, 1, 10_000)`, has its first argument as its default.
"""

from __future__ import annotations

from typing import Any

import griffe


class AtRunTime(griffe.Extension):
    """Read `@blocking(original)` and `_field(default)` as what they do."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        made = attr.value
        if isinstance(made, griffe.ExprCall) and str(made.function).startswith("_"):
            field = attr.parent is not None and attr.parent.is_class and made.arguments
            attr.value = made.arguments[0] if field else made

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        for decorator in func.decorators:
            call = decorator.value
            if isinstance(call, griffe.ExprCall) and call.canonical_path.endswith(".blocking"):
                original = named(func, str(call.arguments[0]))
                func.parameters = original.parameters
                func.returns = original.returns


def named(func: griffe.Function, name: str) -> griffe.Function:
    """The function that a decorator names: of the same class or module, or by its class."""
    scope: Any = func.parent
    while name.partition(".")[0] not in scope.members:
        if scope.is_module:
            raise LookupError(f"{func.path}: {name!r} of its decorator is not defined beside it")
        scope = scope.parent
    found = scope[name]  # of a base class it is an alias
    original: griffe.Function = found.final_target if found.is_alias else found
    return original
