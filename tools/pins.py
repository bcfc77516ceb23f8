"""Write the exact pins of the meta-package, or check with `--check` that they are not stale."""

from __future__ import annotations

import argparse
import re
import sys

from tree import META, SLICES, Package


def pinned(text: str) -> str:
    """The meta-package's `pyproject.toml` with every slice pinned to the version in the tree."""
    for name in SLICES:
        version = Package(name).version
        text = re.sub(rf'"({name}(?:\[\w+\])?)==[^"]+"', rf'"\1=={version}"', text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="only say whether they are stale")
    parser.add_argument("--write", action="store_true", help="write them (default)")
    options = parser.parse_args()
    path = Package(META).folder / "pyproject.toml"
    before = path.read_text(encoding="utf-8")
    after = pinned(before)
    missing = [name for name in SLICES if f'"{name}==' not in after]
    if missing:
        print(f"{path.name} of {META} does not pin {', '.join(missing)}: add '{missing[0]}==...'")
        return 1
    if after == before:
        print("the meta-package's pins are current")
        return 0
    if options.check:
        stale = [line for line in before.splitlines() if line not in after.splitlines()]
        print("stale pins in the meta-package:", *stale, sep="\n  ")
        print("write them with: python3 tools/dev.py hatch run checks:pins --write")
        return 1
    path.write_text(after, encoding="utf-8")
    print("pins written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
