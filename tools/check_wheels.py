"""Prove that every wheel stands alone, at the lowest versions that it declares.

No two wheels ship one path, and slices ship one folder with `py.typed`. Each wheel is installed
into a fresh virtual environment with its dependencies at their lowest versions, and nothing else:
every module of it imports there. Then its unit tests run there, against the wheel.

Siblings come from the index, at the lowest version there that the package allows, so that a slice
which uses something unreleased of a sibling fails before its tag; where the index has none that it
allows, from the tree. With `--released` they must come from the index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

from registry import is_published, uv, where
from tree import META, PACKAGES, ROOT, SLICES, Package, need, one_of, test_requirements

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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", nargs="*", help="only these distributions")
    parser.add_argument("--dist", type=Path, help="take their wheels from here, build none of them")
    parser.add_argument("--index", help="an index to ask first")
    parser.add_argument("--released", action="store_true", help="all siblings come from the index")
    parser.add_argument("--python", help="for the environments, such as 3.10; this one otherwise")
    parser.add_argument("--no-tests", action="store_true", help="install and import only")
    options = parser.parse_args()
    if unknown := set(options.packages) - {package.name for package in PACKAGES}:
        parser.error(f"no package {', '.join(sorted(unknown))}; see the folder packages/")
    need("uv")
    chosen = [p for p in PACKAGES if not options.packages or p.name in options.packages]
    with tempfile.TemporaryDirectory() as folder:
        wheels = Wheels(Path(folder) / "dist", options.index, released=options.released)
        for package in chosen:
            if options.dist:
                name = f"{package.name.replace('-', '_')}-{package.version}-*.whl"
                found = one_of(options.dist.glob(name), name, options.dist)
                wheels.built[package.name] = found.resolve()
            wheels.of(package.name)
        problems = check_contents(wheels.built)
        with ThreadPoolExecutor(2) as pool:  # one is installed, or waits, while one is tested
            checks = []
            for package in chosen:
                siblings, from_index = wheels.siblings(package)
                tests = ["-n", "4" if len(chosen) == 1 else "3", "--dist", "loadfile"]
                # What has no other versions here than in the unit tests need not do them again.
                differs = options.python or from_index or outside(package) or wheels.released
                if options.no_tests:
                    tests = []
                elif not differs:
                    tests = ["--collect-only", "-qq"]
                venv = Path(folder) / package.name
                begun = (package, siblings, wheels, venv, options.python, tests)
                checks.append(pool.submit(check_alone, *begun))
            for check in checks:
                printed, wrong = check.result()
                if printed:
                    print(printed.rstrip(), flush=True)
                problems += wrong
    print(*problems, sep="\n")
    print(f"wheels: {len(chosen)} checked, {len(problems)} problems")
    return int(bool(problems))


class Wheels:
    """Where the packages of the tree are installed from."""

    def __init__(self, dist: Path, index: str | None, *, released: bool) -> None:
        self.built: dict[str, Path] = {}
        self.index = index
        self._dist = dist
        self.released = released
        self._published = cache(is_published)

    def of(self, name: str) -> Path:
        """The wheel of the tree, built when it is first asked for."""
        if name not in self.built:
            folder = self._dist / name
            made = uv("build", "--wheel", "--out-dir", str(folder), str(Package(name).folder))
            if made.returncode:
                raise SystemExit(f"{name} does not build:\n{made.stderr}")
            self.built[name] = one_of(folder.glob("*.whl"), "wheel", folder)
        return self.built[name]

    def siblings(self, package: Package) -> tuple[list[str], bool]:
        """What to install beside a package, and whether any of it comes from the index."""
        index = self.index
        lines = [str(line) for line in requirements(package) if line.name in SLICES]
        from_index = [line for line in lines if self.released or self._published(line, index)]
        names = {Requirement(line).name for line in from_index}
        from_tree = {Requirement(line).name for line in lines} - names
        paths = [str(self.of(name)) for name in sorted(from_tree)]
        return from_index + paths, bool(from_index)


def requirements(package: Package) -> list[Requirement]:
    """What a package and its siblings require, siblings included: all of it is kept low."""
    found: list[Requirement] = []
    for requirement in map(Requirement, package.dependencies):
        found.append(requirement)
        if requirement.name in SLICES:
            found += requirements(Package(requirement.name))
    return list(dict.fromkeys(found))


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


def check_alone(
    package: Package,
    siblings: list[str],
    wheels: Wheels,
    venv: Path,
    python_version: str | None,
    tests: list[str],
) -> tuple[str, list[str]]:
    """Install a wheel in an environment of its own, import it, test it.

    Returns:
        What to print, and what is wrong.
    """
    python = venv_python(venv)
    install = [
        "pip", "install", "--python", str(python), "--resolution", "lowest-direct",
        *where(wheels.index), *(f"--refresh-package={name}" for name in SLICES),
        str(wheels.of(package.name)), *siblings, *outside(package),
    ]  # fmt: skip
    made = uv("venv", *(["--python", python_version] if python_version else []), str(venv))
    if not made.returncode:
        made = uv(*install)
    if not made.returncode:
        made = uv("pip", "check", "--python", str(python))
    if made.returncode:
        why = "does not install at the versions that it declares; its siblings are released first"
        return "", [f"{package.name} {why}:\n{made.stderr}"]
    tried = import_all(python, package, venv)
    if tried.returncode:
        beside = ", ".join(siblings) or "no sibling"
        why = "what a sibling has not released needs its next version and a range from there"
        problem = f"{package.name} does not import alone, with {beside}; {why}:\n{tried.stderr}"
        return "", [problem]
    if not tests:
        return tried.stdout, []
    made = uv(*install, "--compile-bytecode", *test_requirements())
    if made.returncode:
        problem = f"{package.name}: the test tools do not install beside it:\n{made.stderr}"
        return tried.stdout, [problem]
    run = subprocess.run(
        [str(python), "-m", "pytest", "-q", *tests,
         "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), str(package.folder / "tests")],
        cwd=venv, env=clean_environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    printed = f"{tried.stdout}{run.stdout}"
    failed = [f"{package.name}: unit tests fail at the lowest versions"]
    return printed, failed if run.returncode else []


def outside(package: Package) -> list[str]:
    """What a package and its siblings require of others."""
    return sorted({str(line) for line in requirements(package) if line.name not in SLICES})


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
