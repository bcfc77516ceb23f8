"""Check that type checkers know the type of every public name: `pyright --verifytypes` at 100 %."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tree import PACKAGES, lay_out, no_arguments


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": folder,  # before the editable installation, which it finds in pieces
        }
        done = subprocess.run(
            [sys.executable, "-m", "pyright", "--outputjson", "--ignoreexternal",
             "--verifytypes", "infra_core"],
            cwd=folder, env=environment, text=True, capture_output=True,
        )  # fmt: skip
    try:
        symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    except (ValueError, KeyError):
        print(f"pyright did not report:\n{done.stdout}{done.stderr}")
        return 1
    return report(symbols)


def report(symbols: list[dict[str, Any]]) -> int:
    """Print the share of each package, and what is wrong with a name whose type is not known."""
    failed = False
    for package in sorted(PACKAGES, key=lambda package: package.name, reverse=True):  # slices first
        prefix = f"{package.import_name}."
        own = [symbol for symbol in symbols if symbol["name"].startswith(prefix)]
        symbols = [symbol for symbol in symbols if not symbol["name"].startswith(prefix)]
        unknown = [symbol for symbol in own if not symbol["isTypeKnown"]]
        for symbol in unknown:
            print(symbol["name"], *(item["message"] for item in symbol["diagnostics"]), sep="\n  ")
        print(f"{package.name}: the types of {len(own) - len(unknown)} of {len(own)} are known")
        failed |= bool(unknown) or not own
    return int(failed)


if __name__ == "__main__":
    no_arguments(__doc__)
    sys.exit(main())
