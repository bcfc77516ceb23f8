"""Check the namespace rules and the layer table without importing anything.

Fails on: a file of a slice directly in `infra_core/`, a missing `py.typed` or package file, an
import against the layer table, an import of another package's private module, a sibling that is
imported but not declared or declared against the table, a library that is imported but not declared
or that the README does not name, a part of a library that is imported before the whole (see
`WHOLE_FIRST`).
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from tree import LAYERS, META, PACKAGES, ROOT, SLICES, Package, no_arguments

LAZY_FACADE = {"infra_core"}
# Imports whose distribution has another name, and those that the user's own project brings or that
# type checkers alone read.
DISTRIBUTIONS = {"PIL": "pillow", "dask": "distributed"}
BROUGHT = ("azure.functions", "hypothesis", "opentelemetry", "pytest", "typing_extensions")
# Libraries whose parts import each other. Where one thread imports such a library and another one a
# part of it, each waits for what the other has begun, and Python raises `_DeadlockError` in one of
# them. A thread that imports the whole first waits for the other one, and holds nothing meanwhile.
WHOLE_FIRST = ("aiohttp", "azure.core", "requests", "urllib3")
# What is said, and what to say.
WORDS = {
    "nobody": "no caller, no other worker",
    **dict.fromkeys(("tell", "tells", "told"), "report, call with, ask, return"),
    **dict.fromkeys(("proof", "prove", "proves", "proven"), "credential, test, show"),
    "for want of": "without, because ... is missing",
    "by whatever road": "in any way",
    **dict.fromkeys(("says goodbye", "good-bye"), "closes, stops, sends close_notify"),
    "good manners": "optional, recommended",
    "unproven": "not authenticated",
    "for good": "permanently",
    **dict.fromkeys(("honest", "honestly"), "safe, correct"),
    "in vain": "without success",
    "whoever": "the caller, a client that ...",
    "no time to wait": "must be a positive number of seconds, got x",
    "took no connection": "connect timed out",
    "has no address": "cannot resolve host (DNS)",
    "no connection to": "cannot connect to, connect timed out",
    "no tls with": "TLS handshake with ... failed",
}
# `'x' is no URL`, but for what is said everywhere.
IS_NO = re.compile(
    r"(?<!there )\b(?:is|are) no (?!danger|faster|longer|problem|reason|use\b)", re.IGNORECASE
)
# Identifiers that a search for the field's word does not find.
NAMES = {
    "told": "what it is: explained, returned, printed",
    **dict.fromkeys(("_Told", "_told"), "error text"),
    "tell": "report, print_error, answer",
    "_tell": "_report, _call_back",
    "a_kind": "type_name",
    "fate": "ending, outcome",
    "Fate": "Ending, Outcome",
    "Wire": "service client",
    "Judgement": "response action",
    "StartOver": "restart",
    "look_at": "get_properties",
    "_strike": "on_deadline",
    "_lean": "send_direct",
    "_settled": "resolve_ambiguous_put, _finished",
}
MANNERED = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
REQUIRED = ["README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "tests"]


def main() -> int:
    problems = [problem for package in PACKAGES for problem in check(package)]
    problems += check_words()
    for problem in problems:
        print(problem)
    count = sum(len(package.modules()) for package in PACKAGES)
    print(f"layout: {len(PACKAGES)} packages, {count} modules, {len(problems)} problems")
    return int(bool(problems))


def check(package: Package) -> Iterator[str]:
    for name in REQUIRED:
        if not (package.folder / name).exists():
            yield f"{package.name}: {name} is missing"
    yield from check_namespace(package)
    yield from check_siblings(package)
    yield from check_libraries(package)
    for module, path in package.modules().items():
        yield from check_imports(package, module, path)


def check_words() -> Iterator[str]:
    """What the code says and names, what tests are called, and the text of READMEs and pages."""
    for path in [path for package in PACKAGES for path in package.modules().values()]:
        before = ""
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                text, place = token.string, token.start[0]
                if token.type == tokenize.NAME:
                    if text in NAMES and before not in (".", "def"):  # `tell` of a file is its own
                        yield f"{path.name}:{place}: name {text!r}; use such as {NAMES[text]!r}"
                elif token.type not in (tokenize.OP, tokenize.NUMBER):
                    yield from mannered(path, place, text)
                    if IS_NO.search(text):
                        yield f"{path.name}:{place}: 'is no ...'; say it plainly: 'is not a ...'"
                before = text
    folders = [*(package.folder / "tests" for package in PACKAGES), ROOT / "tests-integration"]
    for path in [path for folder in folders for path in folder.glob("*.py")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if name := re.match(r"\s*(?:async )?def (test_\w+)", line):
                yield from mannered(path, number, name[1].replace("_", " "))
    pages = ("*.md", "packages/*/README.md", "packages/*/CHANGELOG.md", "docs/**/*.md")
    for path in [path for pattern in pages for path in ROOT.glob(pattern)]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield from mannered(path, number, re.sub(r"<!--.*?-->|`[^`]*`", "", line))


def mannered(path: Path, line: int, text: str) -> Iterator[str]:
    for found in MANNERED.findall(" ".join(text.split())):
        instead = WORDS[found.lower()]
        yield f"{path.name}:{line}: {found!r}; say it plainly, such as {instead!r}"


def check_namespace(package: Package) -> Iterator[str]:
    shared = package.source / "infra_core"
    if package.name == META:
        if not (shared / "py.typed").is_file():
            yield f"{package.name}: infra_core/py.typed is missing"
        return
    leaf = package.import_name.rpartition(".")[2]
    for entry in sorted(shared.iterdir()):
        if entry.name != leaf and entry.name != "__pycache__":
            yield (
                f"{package.name}: {entry.name} lies directly in infra_core/; a slice ships only "
                f"the folder infra_core/{leaf}/"
            )
    if not (shared / leaf / "py.typed").is_file():
        yield f"{package.name}: infra_core/{leaf}/py.typed is missing"


def check_siblings(package: Package) -> Iterator[str]:
    declared = {
        Requirement(line).name
        for line in package.dependencies
        if Requirement(line).name.startswith("infra-core")
    }
    expected = set(LAYERS.get(package.name, SLICES))
    for name in sorted(declared - expected):
        yield f"{package.name}: depends on {name} against the layer table"
    for name in sorted(expected - declared):
        yield f"{package.name}: stands on {name} but does not declare it"


def check_libraries(package: Package) -> Iterator[str]:
    """Each library that is imported is declared, by the meta-package also with a pinned slice."""
    pinned = package.siblings if package.name == META else ()
    declared = {name for one in (package.name, *pinned) for name in Package(one).libraries}
    known = {name.replace("-", ".") for name in declared}
    for module, path in package.modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for line, target in imported(tree, module, is_package=path.name == "__init__.py"):
            top = target.partition(".")[0]
            name = DISTRIBUTIONS.get(top, target).replace("_", ".")
            if top == "infra_core" or top in sys.stdlib_module_names:
                continue
            if not any(is_below(target, one) for one in BROUGHT) and not any(
                is_below(name, one) for one in known
            ):
                yield f"{package.name}: {module}:{line}: imports {target}, which is not declared"
    readme = (package.folder / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Dependencies\n")[2].lower()
    for name in sorted(package.libraries):
        if name not in section:
            yield f"{package.name}: the section Dependencies of its README does not name {name}"


def check_imports(package: Package, module: str, path: Path) -> Iterator[str]:
    allowed = {Package(name).import_name for name in package.siblings}
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    whole = set()
    for line, target in sorted(imported(tree, module, is_package=path.name == "__init__.py")):
        where = f"{package.name}: {module}:{line}"
        whole.add(target)
        for name in WHOLE_FIRST:
            if is_below(target, name) and name not in whole:
                yield f"{where}: imports {target} before `import {name}`"
        if not target.startswith("infra_core"):
            continue
        if is_below(target, package.import_name) and (package.name != META or not sliced(target)):
            continue
        if not any(is_below(target, name) for name in allowed):
            yield f"{where}: imports {target} against the layer table"
        elif any(part.startswith("_") and part != "__init__" for part in target.split(".")):
            yield f"{where}: imports {target}, a private module of another package"


def imported(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every import of the module, those in functions and type-checking blocks included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = module.split(".")
                anchor = anchor[: len(anchor) - node.level + is_package]
                base = ".".join([*anchor, *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if base == "infra_core" else base
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith("infra_core.")
            and module in LAZY_FACADE
        ):
            yield node.lineno, node.value  # lazily exported modules are named in strings


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def sliced(target: str) -> bool:
    return any(is_below(target, Package(name).import_name) for name in SLICES)


if __name__ == "__main__":
    no_arguments(__doc__)
    sys.exit(main())
