"""Build the wheel and the source distribution of one package: `build.py infra-core-fs dist`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tree import PACKAGES, Package, need


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", choices=[package.name for package in PACKAGES])
    parser.add_argument("folder", type=Path, help="where they go")
    options = parser.parse_args()
    need("uv")
    source = str(Package(options.package).folder)
    built = subprocess.run(["uv", "build", "--out-dir", str(options.folder), source])
    if built.returncode == 0:
        print(*sorted(path.name for path in options.folder.iterdir()), sep="\n")
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
