"""Test that a built wheel works with the last published packages that stand on it.

Each dependant is installed from the index together with the wheel, in an environment of its own,
and imported with all its modules. A dependant whose version in the tree is not published yet is
passed over where its published versions refuse the wheel: it is released after this one, and
tested then.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from check_wheels import import_all, venv_python
from registry import is_published, uv, where
from tree import LAYERS, PACKAGES, Package, need, one_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", choices=[package.name for package in PACKAGES])
    parser.add_argument("--dist", type=Path, required=True, help="folder with the built wheel")
    parser.add_argument("--index", help="an index to ask first")
    options = parser.parse_args()
    need("uv")
    pattern = f"{options.package.replace('-', '_')}-*.whl"
    wheel = one_of(options.dist.glob(pattern), pattern, options.dist)
    failed = False
    for name in [n for n, below in LAYERS.items() if options.package in below]:
        failed |= not works_with(name, options.package, wheel, options.index)
    return int(failed)


def works_with(dependant: str, name: str, wheel: Path, index: str | None) -> bool:
    """Whether the published dependant installs and imports with the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        uv("venv", str(venv))
        python = venv_python(venv)
        made = uv("pip", "install", "--python", str(python), *where(index), str(wheel), dependant)
        if made.returncode:
            version = Package(dependant).version
            if not is_published(f"{dependant}=={version}", index):
                # it moves along with this release, or was never published
                print(
                    f"{dependant} {version} is not published yet; it is tested at its own release"
                )
                return True
            print(f"{dependant} does not install with {wheel.name}:\n{made.stderr}")
            return False
        tried: subprocess.CompletedProcess[str] = import_all(python, Package(dependant), venv)
        print(tried.stdout.strip() or tried.stderr.strip())
        return tried.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
