"""Build the wheel and the source distribution of one package: `build.py infra-core-fs dist`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tree import PACKAGES, Package


def main() -> int:
    name, folder = sys.argv[1:]
    if name not in {package.name for package in PACKAGES}:
        print(f"{name!r} is no package of this repository", file=sys.stderr)
        return 2
    source = str(Package(name).folder)
    built = subprocess.run(["uv", "build", "--out-dir", folder, source])
    print(*sorted(path.name for path in Path(folder).iterdir()), sep="\n")
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
