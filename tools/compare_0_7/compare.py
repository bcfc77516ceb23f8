#!/usr/bin/env python3
"""Run the same probes in 0.7.6 and in ours, and print what differs and is not allowed.

    python tools/compare_0_7/compare.py [--all] [PROBE...]

Installs 0.7.6 with its extra `azure` from the registry into an environment of its own, and starts
an origin and an Azurite for each side. A difference is allowed by a row of the migration page that
names it in a comment: `<!-- probes: NAME, PATTERN* -->`. `--all` prints the allowed ones too. The
exit code is 1 for a difference that no row allows, or a row that allows nothing any more, and 3
where the registry is out of reach.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from differences import (  # type: ignore[import-not-found]
    SURFACE,
    allowed,
    surface_differences,
)
from origin import origin  # type: ignore[import-not-found]

HERE = Path(__file__).resolve().parent
OLD = "infra-core[azure]==0.7.6"
NO_REGISTRY = 3


class RegistryError(Exception):
    """0.7.6 cannot be installed here."""


def old_python() -> Path:
    """The interpreter of an environment that holds 0.7.6; made on first use."""
    cache = Path(os.environ.get("INFRA_CORE_CACHE") or HERE.parent.parent / ".dev" / "cache")
    folder = cache / f"infra-core-0.7.6-py{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "complete"
    if stamp.exists():
        return python
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", OLD],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            raise RegistryError(f"{OLD} cannot be installed: {done.stderr[-500:]}")
    stamp.touch()
    return python


def modules(python: Path) -> list[str]:
    """The public modules of 0.7.6."""
    code = (
        "import pkgutil, infra_core\n"
        "names = [m.name for m in pkgutil.walk_packages(infra_core.__path__, 'infra_core.')\n"
        "         if '._' not in m.name and m.name != 'infra_core.azure_storage']\n"
        "print('\\n'.join(['infra_core', *names]))"
    )
    return run(python, "-c", code).split()


def run(python: Path | str, *arguments: str) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AZURE_", "APPLICATIONINSIGHTS_", "APPINSIGHTS_"))
        and not name.upper().endswith("_PROXY")
    }
    done = subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, env=environment, timeout=300
    )
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed: {done.stderr[-2000:]}")
    return done.stdout


def probed(python: Path | str) -> dict[str, Any]:
    """What the probes came to, with servers of their own."""
    from infra_core.azure.testing import AzuriteServer

    with AzuriteServer() as azurite, origin() as base, tempfile.TemporaryDirectory() as folder:
        text = run(python, str(HERE / "probes.py"), base, azurite.connection_string, folder)
    found: dict[str, Any] = json.loads(text)
    return found


def exchanged(writer: Path | str, reader: Path | str, *, folder_too: bool) -> dict[str, Any]:
    """What one version reads of what another wrote; with its folder, or from the services alone."""
    from infra_core.azure.testing import AzuriteServer

    script = str(HERE / "exchange.py")
    with AzuriteServer() as azurite, tempfile.TemporaryDirectory() as name:
        theirs, mine = Path(name) / "theirs", Path(name) / "mine"
        run(writer, script, "write", azurite.connection_string, str(theirs))
        place = theirs if folder_too else mine
        found: dict[str, Any] = json.loads(
            run(reader, script, "read", azurite.connection_string, str(place))
        )
    return found


def exchange_differences(old: Path) -> dict[str, str]:
    """What of 0.7.6's data ours does not read as it does, and the reverse."""
    found: dict[str, str] = {}
    new = sys.executable
    for folder_too, place in ((False, "services"), (True, "folder")):
        wanted = exchanged(old, old, folder_too=folder_too)
        for writer, reader, way in ((old, new, "read_by_ours"), (new, old, "read_by_0_7")):
            got = exchanged(writer, reader, folder_too=folder_too)
            for key, value in wanted.items():
                if got.get(key) != value:
                    name = f"data.{way}.{place}.{key.replace(' ', '_')}"
                    found[name] = f"{value!r} -> {got.get(key)!r}"
    return found


def differences() -> dict[str, str]:
    """Every difference by its name."""
    old = old_python()
    found: dict[str, str] = surface_differences()
    found.update(exchange_differences(old))
    before, now = probed(old), probed(sys.executable)
    for name, outcome in before.items():
        ours = now[name]
        # More fields in a log record are no difference.
        outcome["fields"] = [f for f in outcome["fields"] if f not in ours["fields"]]
        ours["fields"] = []
        if outcome != ours:
            found[name] = "; ".join(
                f"{key}: {outcome.get(key)!r} -> {ours.get(key)!r}"
                for key in sorted({**outcome, **ours})
                if outcome.get(key) != ours.get(key)
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="print the allowed differences too")
    parser.add_argument(
        "--write", action="store_true", help="ask 0.7.6 anew what it offers, and store that"
    )
    parser.add_argument("probes", nargs="*", help="only these, as patterns")
    options = parser.parse_args()
    try:
        if options.write:
            old = old_python()
            surface = json.loads(run(old, str(HERE / "surface.py"), *modules(old)))
            text = json.dumps(surface, indent=1, sort_keys=True) + "\n"
            SURFACE.write_text(text, encoding="utf-8")
        found = differences()
    except RegistryError as error:
        print(error)
        return NO_REGISTRY
    patterns = allowed()
    used: set[str] = set()
    new = 0
    for name, text in sorted(found.items()):
        if options.probes and not any(fnmatch.fnmatch(name, p) for p in options.probes):
            continue
        matching = [pattern for pattern in patterns if fnmatch.fnmatch(name, pattern)]
        used.update(matching)
        if not matching:
            new += 1
            print(f"NOT ALLOWED  {name}: {text[:600]}")
        elif options.all:
            print(f"row {patterns[matching[0]]:>3}      {name}: {text[:300]}")
    unused = [] if options.probes else sorted(set(patterns) - used)
    for pattern in unused:
        print(f"NOTHING LEFT  row {patterns[pattern]} allows {pattern}, which differs no more")
    print(f"{len(found)} differences, {new} not allowed, {len(unused)} allowances unused")
    return int(bool(new or unused))


if __name__ == "__main__":
    sys.exit(main())
