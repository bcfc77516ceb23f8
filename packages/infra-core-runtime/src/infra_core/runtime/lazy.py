"""Lazy package exports after PEP 562: a name is imported when it is first asked for.

Every package of this project uses this one helper, so that importing a package costs next to
nothing and the cost of httpx, aiohttp or an SDK is paid by those who call it.

Example:
    A package `__init__` lists its exports twice: once for type checkers, once for run time::

        from typing import TYPE_CHECKING
        from infra_core.runtime.lazy import lazy_exports

        if TYPE_CHECKING:
            from ._paths import ensure_parent as ensure_parent

        __all__ = ["ensure_parent"]
        __getattr__, __dir__ = lazy_exports(__name__, {"._paths": ["ensure_parent"]})
"""

import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:  # the typing module itself would cost more than everything here
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["lazy_exports"]


def lazy_exports(
    package: str, exports: "Mapping[str, Iterable[str]]", *, submodules: "Iterable[str]" = ()
) -> "tuple[Callable[[str], object], Callable[[], list[str]]]":
    """Build the `__getattr__` and `__dir__` of a package whose names are imported on first use.

    Args:
        package: The `__name__` of the package.
        exports: Module name (relative with a leading dot, or absolute) to the names it provides;
            `"x as y"` exports the module's `x` under the name `y`.
        submodules: Names of submodules that are attributes of the package as well.

    Returns:
        The pair `(__getattr__, __dir__)`, to be bound at the package's top level.
    """
    origin = {
        (renamed or name): (module, name)
        for module, names in exports.items()
        for name, _, renamed in (entry.partition(" as ") for entry in names)
    }
    modules = frozenset(submodules)

    def __getattr__(name: str) -> object:  # noqa: N807
        if name in modules:
            return import_module(f"{package}.{name}")
        try:
            module, original = origin[name]
        except KeyError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        value = getattr(import_module(module, package), original)
        setattr(sys.modules[package], name, value)  # the next look-up is a plain one
        return value

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(sys.modules[package]), *origin, *modules})

    return __getattr__, __dir__
