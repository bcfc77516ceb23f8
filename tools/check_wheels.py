"""Build every wheel and prove that it stands alone.

Checks that no two wheels ship one path, that slices ship one folder with `py.typed`, and that
each wheel installs into a fresh virtual environment with only its declared siblings, where every
module of it imports. With `--floor`, everything is installed at the lowest versions that the
packages declare, and the unit tests of each package run there, against the wheel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement

from tree import META, PACKAGES, ROOT, Package, need, one_of, test_requirements

# Modules that need an extra, which a plain install of the slice does not bring.
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
count = 1
for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if info.name.endswith("__main__") or any(info.name.startswith(x) for x in sys.argv[2:]):
        continue
    importlib.import_module(info.name)
    count += 1
print(f"{sys.argv[1]}: {count} modules import")
"""
NEED_EXTRA = [
    "infra_core.runtime._dask",
    "infra_core.http.pytest_plugin",
    "infra_core.runtime.pytest_plugin",
    "infra_core.azure.pytest_plugin",
    "infra_core.azure.job_store.conformance._model",
    "infra_core.pytest_plugin",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floor", action="store_true", help="lowest versions, with unit tests")
    parser.add_argument("packages", nargs="*", help="only these distributions")
    parser.add_argument("--dist", type=Path, help="take these wheels instead of building them")
    options = parser.parse_args()
    if unknown := set(options.packages) - {package.name for package in PACKAGES}:
        parser.error(f"no package {', '.join(sorted(unknown))}; see the folder packages/")
    need("uv")
    chosen = [p for p in PACKAGES if not options.packages or p.name in options.packages]
    with tempfile.TemporaryDirectory() as folder:
        wheels = build(Path(folder) / "dist")
        for package in chosen if options.dist else []:
            name = f"{package.name.replace('-', '_')}-{package.version}-*.whl"
            wheels[package.name] = one_of(options.dist.glob(name), name, options.dist).resolve()
        problems = check_contents(wheels)
        with ThreadPoolExecutor(max_workers=1 if options.floor else 2) as pool:
            problems += [
                problem
                for problem in pool.map(
                    lambda package: install_alone(
                        package, wheels, Path(folder) / package.name, floor=options.floor
                    ),
                    chosen,
                )
                if problem
            ]
    print(*problems, sep="\n")
    print(f"wheels: {len(chosen)} checked, {len(problems)} problems")
    return int(bool(problems))


def uv(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        ["uv", "--quiet", *arguments], text=True, capture_output=True, **kwargs
    )


def build(dist: Path) -> dict[str, Path]:
    for package in PACKAGES:
        made = uv("build", "--wheel", "--out-dir", str(dist), str(package.folder))
        if made.returncode:
            raise SystemExit(f"{package.name} does not build:\n{made.stderr}")
    return {
        package.name: next(dist.glob(f"{package.name.replace('-', '_')}-{package.version}-*.whl"))
        for package in PACKAGES
    }


def check_contents(wheels: dict[str, Path]) -> list[str]:
    problems = []
    owner: dict[str, str] = {}
    for name, wheel in wheels.items():
        paths = [p for p in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in p]
        for path in paths:
            if path in owner:
                problems.append(f"{name} and {owner[path]} both ship {path}")
            owner[path] = name
            if name != META and path.count("/") < 2:
                problems.append(f"{name} ships {path} outside its own folder")
            if path.split("/")[0] != "infra_core":
                problems.append(f"{name} ships {path} outside infra_core/")
        leaf = Package(name).import_name.replace(".", "/")
        if f"{leaf}/py.typed" not in paths:
            problems.append(f"{name} ships no {leaf}/py.typed")
    return problems


def closure(name: str) -> list[str]:
    """The package and the siblings that its metadata pull in, and nothing else of ours."""
    names = [name]
    for line in Package(name).dependencies:
        sibling = Requirement(line).name
        if sibling.startswith("infra-core"):
            names += [n for n in closure(sibling) if n not in names]
    return names


def install_alone(package: Package, wheels: dict[str, Path], venv: Path, *, floor: bool) -> str:
    """Install the wheel in an environment of its own; the problem as text, empty when fine."""
    made = uv("venv", str(venv))
    python = venv_python(venv)
    ours = [str(wheels[name]) for name in closure(package.name)]
    extras = test_requirements() if floor else []
    resolution = ["--resolution", "lowest-direct"] if floor else []
    if not made.returncode:
        made = uv("pip", "install", "--python", str(python), *resolution, *ours, *extras)
    if not made.returncode:
        made = uv("pip", "check", "--python", str(python))
    if made.returncode:
        return f"{package.name} does not install alone:\n{made.stderr}"
    tried = import_all(python, package, venv)
    if tried.returncode:
        return f"{package.name} does not import alone:\n{tried.stderr}"
    print(tried.stdout.strip(), flush=True)
    if not floor:
        return ""
    tests = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile",
         "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), str(package.folder / "tests")],
        cwd=venv, env=clean_environment(),
    )  # fmt: skip
    return f"{package.name}: unit tests fail at the floor versions" if tests.returncode else ""


def venv_python(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def import_all(python: Path, package: Package, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Import every module of an installed package, apart from those that need an extra."""
    return subprocess.run(
        [str(python), "-c", IMPORT_ALL, package.import_name, *NEED_EXTRA],
        cwd=cwd, env=clean_environment(), text=True, capture_output=True,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
