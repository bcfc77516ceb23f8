"""Run mypy strictly over every package with its tests, the integration tests and the tools.

One run per folder of tests: test modules of two packages may bear one name (conftest), which a
single run would refuse.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tree import PACKAGES, ROOT


def main() -> int:
    targets = [
        [str(folder.relative_to(ROOT)) for folder in (package.source, package.folder / "tests")]
        for package in PACKAGES
    ]
    targets += [["tests-integration"], ["tools", "conftest.py"]]
    failed = 0
    for target in targets:
        print("mypy", *target, flush=True)
        extra = ["--cache-dir", str(ROOT / ".mypy_cache")]
        command = [sys.executable, "-m", "mypy", *extra, *sys.argv[1:], *target]
        environment = {**os.environ, "MYPYPATH": "tools"}  # its scripts import each other by name
        failed |= subprocess.run(command, cwd=ROOT, env=environment).returncode
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
