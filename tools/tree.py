"""What the checks and the release tools know about the tree: packages, layers, metadata."""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
META = "infra-core"

# The layer table: what each distribution stands on. Arrows point down and nowhere else.
LAYERS: dict[str, tuple[str, ...]] = {
    "infra-core-fs": (),
    "infra-core-runtime": (),
    "infra-core-polling": ("infra-core-runtime",),
    "infra-core-http": ("infra-core-fs", "infra-core-runtime"),
    "infra-core-azure": (
        "infra-core-fs",
        "infra-core-runtime",
        "infra-core-polling",
        "infra-core-http",
    ),
}
SLICES = tuple(LAYERS)


@dataclass(frozen=True)
class Package:
    """One distribution of the monorepo."""

    name: str

    @property
    def folder(self) -> Path:
        return ROOT / "packages" / self.name

    @property
    def source(self) -> Path:
        return self.folder / "src"

    @property
    def import_name(self) -> str:
        """`infra_core.fs` for `infra-core-fs`, `infra_core` for the meta-package."""
        return self.name.replace("infra-core-", "infra_core.").replace("-", "_")

    @property
    def metadata(self) -> dict[str, object]:
        text = (self.folder / "pyproject.toml").read_text(encoding="utf-8")
        project: dict[str, object] = tomllib.loads(text)["project"]
        return project

    @property
    def version(self) -> str:
        return str(self.metadata["version"])

    @property
    def dependencies(self) -> list[str]:
        listed = self.metadata["dependencies"]
        assert isinstance(listed, list)
        return [str(item) for item in listed]

    @property
    def libraries(self) -> set[str]:
        """What it needs that is not of this repository, extras included, in lower case."""
        extras = self.metadata.get("optional-dependencies", {})
        assert isinstance(extras, dict)
        listed = [*self.dependencies, *(line for lines in extras.values() for line in lines)]
        names = {re.split(r"[^\w.-]", line)[0].lower() for line in listed}
        return {name for name in names if not name.startswith("infra-core")}

    @property
    def siblings(self) -> tuple[str, ...]:
        """The distributions of this repository that it may import."""
        return LAYERS.get(self.name, SLICES)

    def modules(self) -> dict[str, Path]:
        """Dotted module name to file, for every module that the package ships."""
        found = {}
        for path in sorted(self.source.rglob("*.py")):
            parts = list(path.relative_to(self.source).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts)] = path
        return found


PACKAGES = tuple(Package(name) for name in (*SLICES, META))


def lay_out(folder: Path) -> None:
    """Copy the sources of all packages into one tree, as an installation lays them out."""
    for package in PACKAGES:
        shutil.copytree(package.source / "infra_core", folder / "infra_core", dirs_exist_ok=True)


def test_requirements() -> list[str]:
    """What tests need beside the packages: one list, kept in hatch.toml."""
    hatch = tomllib.loads((ROOT / "hatch.toml").read_text(encoding="utf-8"))
    listed: list[str] = hatch["envs"]["default"]["dependencies"]
    return listed


def no_arguments(description: str | None) -> None:
    """Refuse arguments that would be passed over in silence; answer --help."""
    argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()


def need(program: str) -> None:
    """End with a remedy where a program is missing that a tool calls."""
    if shutil.which(program) is None:
        raise SystemExit(
            f"{program} is not on the PATH; `python3 tools/dev.py hatch run checks:...` brings it"
        )


def one_of(found: Iterable[Path], what: str, folder: Path) -> Path:
    """The first file found, or an end that says what was sought where."""
    path = next(iter(found), None)
    if path is None:
        raise SystemExit(f"no {what} in {folder}; build it: hatch run checks:build NAME {folder}")
    return path


def declared_names(path: Path) -> tuple[list[str] | None, set[str]]:
    """What a module exports by its source, read without importing it.

    Returns:
        Its literal `__all__`, if it has one, and the names that it, or the stub beside it,
        re-exports as `X as X` or only declares (in a stub).
    """
    stub = path.with_suffix(".pyi")
    source = stub if stub.exists() else path
    literal: list[str] | None = None
    promised: set[str] = set()
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            promised |= {alias.name for alias in node.names if alias.asname == alias.name}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and source == stub:
            promised.add(ast.unparse(node.target))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.List):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == "__all__":
                literal = [str(item) for item in ast.literal_eval(node.value)]
    return literal, promised
