"""Check that every module's `__all__` tells the truth; runs where the packages are installed.

Every module has a literal `__all__`, sorted as the linter sorts it; each name in it resolves;
each public class and function that a public module defines is in it; what a package exports
lazily at run time is what its type-checking block promises.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from tree import PACKAGES, no_arguments


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
    literal, promised = declared(ast.parse(path.read_text(encoding="utf-8")))
    module = importlib.import_module(name)
    if literal is None:
        yield f"{name}: no literal __all__"
        return
    for export in literal:
        if not hasattr(module, export):
            yield f"{name}: __all__ names {export}, which does not exist"
    for export in sorted(promised - set(literal)):
        yield f"{name}: {export} is promised to type checkers but not in __all__"
    for attribute, value in vars(module).items():
        if is_public(name) and is_own(module, attribute, value) and attribute not in literal:
            yield f"{name}: defines {attribute}, which is not in __all__"


def declared(tree: ast.Module) -> tuple[list[str] | None, set[str]]:
    """The literal `__all__`, and the names re-exported as `X as X`."""
    literal: list[str] | None = None
    promised: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            promised |= {alias.name for alias in node.names if alias.asname == alias.name}
    for node in tree.body:
        value: ast.expr | None = None
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            value = node.value if names_all(target) else None
        if value is not None:
            literal = [str(item) for item in ast.literal_eval(value)]
    return literal, promised


def names_all(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and target.id == "__all__"


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
