"""For griffe: the blocking twins of coroutine functions have the parameters of those.

`@blocking(download_asset_async)` gives what it decorates the parameters of the coroutine function
at run time; the source, which is all that griffe reads, says `*args` and `**kwargs`.
"""

from __future__ import annotations

from typing import Any

import griffe


class Twins(griffe.Extension):
    """Read `@blocking(original)` as what it does to a function."""

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
