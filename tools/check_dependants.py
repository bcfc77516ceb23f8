"""Prove that a built wheel works with the last published packages that stand on it.

Each dependant is installed from the index together with the wheel, in an environment of its own,
and imported with all its modules. A dependant that is not published yet, or whose published
versions leave the new major version out (as they must), is named and passed over.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.version import Version

from check_wheels import import_all, uv, venv_python
from tree import LAYERS, PACKAGES, Package


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", choices=[package.name for package in PACKAGES])
    parser.add_argument("--dist", type=Path, required=True, help="folder with the built wheel")
    parser.add_argument("--index", help="an index to ask first")
    options = parser.parse_args()
    wheel = next(options.dist.glob(f"{options.package.replace('-', '_')}-*.whl"))
    failed = False
    for name in [n for n, below in LAYERS.items() if options.package in below]:
        failed |= not works_with(name, options.package, wheel, options.index)
    return int(failed)


def works_with(dependant: str, name: str, wheel: Path, index: str | None) -> bool:
    """Whether the published dependant installs and imports with the wheel."""
    where = ["--index", index] if index else []
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        uv("venv", str(venv))
        python = venv_python(venv)
        made = uv("pip", "install", "--python", str(python), *where, str(wheel), dependant)
        if made.returncode:
            breaking = Version(Package(name).version).release[1:] == (0, 0)
            if "not found" in made.stderr or breaking:
                print(f"{dependant}: no published version takes {wheel.name}; passed over")
                return True
            print(f"{dependant} does not install with {wheel.name}:\n{made.stderr}")
            return False
        tried: subprocess.CompletedProcess[str] = import_all(python, Package(dependant), venv)
        print(tried.stdout.strip() or tried.stderr.strip())
        return tried.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
