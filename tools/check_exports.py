"""Check that every module's `__all__` is right; runs where the packages are installed.

Every module has a literal `__all__`, sorted as the linter sorts it, or writes its names once: as
imports of the form `X as X`, in the module or in the stub beside it. Each name resolves, at run
time and in a stub alike; each public class and function that a public module defines is in it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from tree import PACKAGES, declared_names, no_arguments


def main() -> int:
    problems: list[str] = []
    checked = 0
    for package in PACKAGES:
        for name, path in package.modules().items():
            if name.endswith("__main__"):
                continue
            problems += check(name, path)
            checked += 1
    print(*problems, sep="\n")
    print(f"exports: {checked} modules, {len(problems)} problems")
    return int(bool(problems))


def check(name: str, path: Path) -> Iterator[str]:
    literal, promised = declared_names(path)
    module = importlib.import_module(name)
    if literal is None and not promised:
        yield f"{name}: no literal __all__"
        return
    exported = set(module.__all__)
    for export in sorted(exported | promised):
        if not hasattr(module, export):
            yield f"{name}: exports {export}, which does not exist"
    for export in sorted(exported - promised - set(literal or ())):
        yield f"{name}: {export} is exported at run time but not promised to type checkers"
    if literal is not None:
        for export in sorted(promised - exported):
            yield f"{name}: {export} is promised to type checkers but not in __all__"
    for attribute, value in vars(module).items():
        if is_public(name) and is_own(module, attribute, value) and attribute not in exported:
            yield f"{name}: defines {attribute}, which is not in __all__"


def is_public(name: str) -> bool:
    """Whether users import the module: no part of its name begins with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def is_own(module: types.ModuleType, attribute: str, value: object) -> bool:
    return (
        not attribute.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and getattr(value, "__module__", None) == module.__name__
        and getattr(value, "__qualname__", attribute) == attribute
    )


if __name__ == "__main__":
    no_arguments(__doc__)
    sys.exit(main())
