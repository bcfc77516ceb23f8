"""Lazy package exports after PEP 562: a name is imported when it is first asked for.

Every package of this project uses this one helper, so that importing a package costs next to
nothing and the cost of httpx, aiohttp or an SDK is paid by those who call it.

Example:
    A package writes its public names once, as imports in a stub beside its `__init__.py`, where
    type checkers and editors look first::

        # __init__.pyi
        from ._paths import ensure_parent as ensure_parent

        # __init__.py
        from infra_core.runtime.lazy import stub_exports

        __getattr__, __dir__, __all__ = stub_exports(__name__)
"""

import sys
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:  # the typing module itself would cost more than everything here
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["stub_exports"]

_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST; the ast module itself would cost some milliseconds


def stub_exports(
    module: str,
    *,
    unlisted: "Iterable[str]" = (),
    renamed: "Mapping[str, tuple[str, str]] | None" = None,
) -> "tuple[Callable[[str], object], Callable[[], list[str]], list[str]]":
    """Build `__getattr__`, `__dir__` and `__all__` of a module from the stub beside it.

    What the stub imports as `from module import name as name`, the form by which stubs re-export
    (PEP 484), is imported at run time when it is first used.

    Args:
        module: The `__name__` of the module or package that exports the names.
        unlisted: Names that can be used but that `import *` does not bind.
        renamed: Public name to the module that has it and its name there. A stub cannot re-export
            under another name, and declares the type of such a name instead.

    Raises:
        ImportError: The stub is not there: a tool that freezes or repackages Python left it out.
    """
    here = sys.modules[module]
    spec = here.__spec__
    stub = f"{here.__file__}".rpartition(".")[0] + ".pyi"
    try:
        source = spec.loader.get_data(stub)  # type: ignore[union-attr] # of files and of zip files
    except OSError as error:
        raise ImportError(
            f"{module} reads its names from {stub}, which is missing; a tool that packs Python "
            "programs must take *.pyi files along (PyInstaller: --collect-all infra_core)",
            name=module,
        ) from error
    parent = str(spec.parent)  # type: ignore[union-attr] # where relative imports start
    origins = dict(renamed or {})
    submodules = []
    for node in compile(source, stub, "exec", _ONLY_AST).body:
        if not hasattr(node, "level"):  # only `from ... import ...` has one
            continue
        origin = "." * node.level + (node.module or "")
        names = [alias.name for alias in node.names if alias.name == alias.asname]
        if origin in (".", parent):
            submodules += names
        else:
            origins.update((name, (origin, name)) for name in names)

    def __getattr__(name: str) -> object:  # noqa: N807
        if name in submodules:
            return import_module(f"{parent}.{name}")
        try:
            origin, original = origins[name]
        except KeyError:
            raise AttributeError(f"module {module!r} has no attribute {name!r}") from None
        value = getattr(import_module(origin, parent), original)
        _stay_silent()
        setattr(here, name, value)  # the next look-up is a plain one
        return value

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(here), *origins, *submodules})

    return __getattr__, __dir__, sorted({*origins, *submodules} - set(unlisted))


_silent = False


def _stay_silent() -> None:
    """Keep warnings of ours off stderr in programs that have set up no logging, as libraries do.

    Done with the first import after that of the logging module: programs that do not log are not
    made to import it.
    """
    global _silent
    logging = sys.modules.get("logging")
    if not _silent and hasattr(logging, "NullHandler"):
        _silent = True
        logging.getLogger("infra_core").addHandler(logging.NullHandler())  # type: ignore[union-attr]
