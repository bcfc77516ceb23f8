#!/usr/bin/env python3
"""Set everything up in a fresh clone and run it: `dev.py demo`, `dev.py test`, `dev.py hatch ...`.

Needs Python 3.10 or newer, git and the package registries; nothing is installed outside the
clone. hatch and uv go into a virtual environment of the project's own (`.dev/`), which also
works where the system's Python is externally managed or lacks the `venv` module.

    python3 tools/dev.py demo [--azurite]     a batch of real downloads that survive faults
    python3 tools/dev.py test [STAGE ...]     every check and test, as CI runs them
    python3 tools/dev.py hatch run fs         any hatch command, with hatch and uv provided
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / ".dev"
BIN = DEV / "tools" / ("Scripts" if os.name == "nt" else "bin")
REQUIREMENTS = ["hatch==1.18.2", "uv==0.13.9"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# Integration tests that run on one Python alone here, so that the whole ends within twenty minutes
# on two cores: those of texts and of this tree, comparisons with other programs, and the longest.
# The workflow of pull requests runs all of them on each.
ONCE = [
    *("docs_", "readme", "tree_checks", "upgrade_", "odd_answers", "dask", "soak", "run_command"),
    "uvloop",
]
CACHES = {
    "INFRA_CORE_CACHE": "",
    "HATCH_CACHE_DIR": "hatch",
    "PIP_CACHE_DIR": "pip",
    "UV_CACHE_DIR": "uv",
    "npm_config_cache": "npm",
}

# Cheapest first, so that a slip is reported within seconds.
STAGES: dict[str, list[list[str]]] = {
    "lint": [["run", "lint:check"], ["run", "workflows:check"]],
    "layout": [["run", "checks:layout"], ["run", "checks:pins"], ["run", "checks:api"]],
    "types": [["run", "types:check"], ["run", "types:exports"], ["run", "types:complete"]],
    "docs": [["run", "docs:build"]],
    "release": [["run", "checks:release", "check"], ["run", "checks:rehearse"]],
    "unit": [],  # one run per Python that is here, as below
    "integration": [],
    "wheels": [],
}
# Each of these keeps one core busy. They run at once, and what one says is shown when it ends.
AT_ONCE = ["types", "docs", "release"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["demo", "test", "hatch"])
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to the command")
    options = parser.parse_args()
    if sys.version_info < (3, 10):  # noqa: UP036 - this may run on any Python
        print(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    if options.command == "test" and (unknown := sorted(set(options.arguments) - set(STAGES))):
        parser.error(f"no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    try:
        bootstrap()
        if options.command == "demo":
            return hatch(["run", "demo:run", *options.arguments]).returncode
        if options.command == "hatch":
            return hatch(options.arguments).returncode
        return run_stages(options.arguments)
    except subprocess.CalledProcessError as error:  # it has said why
        print(
            f"setting up .dev/ failed: {' '.join(map(str, error.cmd))} ended with "
            f"{error.returncode}; can the package registry be reached (PIP_INDEX_URL, a proxy)?",
            file=sys.stderr,
        )
        return 1
    except OSError as error:
        print(f"setting up .dev/ failed: {error}; check space and permissions", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def bootstrap() -> None:
    """Create `.dev/tools` with hatch and uv unless it is there and complete."""
    stamp = DEV / "tools" / "requirements.txt"
    wanted = "\n".join([*REQUIREMENTS, sys.version.split()[0], ""])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print("setting up hatch and uv in .dev/ ...", file=sys.stderr, flush=True)
    shutil.rmtree(DEV / "tools", ignore_errors=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(DEV / "tools")], capture_output=True, text=True
    )
    if made.returncode:  # Debian's python3 without python3-venv has no ensurepip
        seed = DEV / "virtualenv"
        subprocess.run(
            [*pip(), "install", "--quiet", "--target", str(seed), "virtualenv"],
            check=True,
            env=environment(),
        )
        subprocess.run(
            [sys.executable, "-m", "virtualenv", "--quiet", str(DEV / "tools")],
            check=True,
            env={
                **environment(),
                "PYTHONPATH": str(seed),
                "VIRTUALENV_OVERRIDE_APP_DATA": str(DEV / "cache" / "virtualenv"),
            },
        )
    python = next(path for path in (BIN / "python", BIN / "python.exe") if path.exists())
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS],
        check=True,
        env={**environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    stamp.write_text(wanted, encoding="utf-8")


def pip() -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def environment() -> dict[str, str]:
    """The variables under which hatch runs: our uv, our folders, every Python in sight."""
    variables = dict(os.environ)
    variables.pop("PYTHONPATH", None)
    variables.pop("VIRTUAL_ENV", None)
    # Many tests start processes, and each would compile all that it imports once more.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    uv = BIN / ("uv.exe" if os.name == "nt" else "uv")
    variables["PATH"] = os.pathsep.join([str(BIN), variables.get("PATH", "")])
    variables["HATCH_ENV_TYPE_VIRTUAL_UV_PATH"] = str(uv)
    variables["HATCH_DATA_DIR"] = str(DEV / "hatch")
    variables["HATCH_CONFIG"] = str(hatch_config())
    variables["UV_PYTHON_DOWNLOADS"] = "never"
    for name, folder in CACHES.items():  # a cache shared among clones stays
        variables.setdefault(name, str(DEV / "cache" / folder))
    if found := pyenv_versions():  # its shim has narrowed the variable to one version
        variables["PYENV_VERSION"] = ":".join(found)
    return variables


def hatch_config() -> Path:
    """An empty configuration of hatch, which would make one in the home folder."""
    path = DEV / "hatch.toml"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return path


def pyenv_versions() -> list[str]:
    """The Pythons that pyenv keeps, this one first; empty where there is no pyenv."""
    if not shutil.which("pyenv"):
        return []
    listing = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True)
    names = re.findall(r"^3\.(?:1[0-3])\.\d+$", listing.stdout, flags=re.MULTILINE)
    mine = ".".join(map(str, sys.version_info[:2])) + "."
    return sorted(names, key=lambda name: not name.startswith(mine))


def hatch(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "hatch"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), text=True, **options)


def available_pythons() -> list[str]:
    """Those of the supported Pythons that run here; says which of the matrix are left out."""
    variables = environment()
    own = ".".join(map(str, sys.version_info[:2]))
    found = [
        version
        for version in PYTHONS
        if version == own
        or (
            (program := shutil.which(f"python{version}", path=variables["PATH"]))
            and not subprocess.run(
                [program, "-c", ""], env=variables, capture_output=True
            ).returncode
        )
    ]
    for version in PYTHONS:
        if version not in found:
            print(f"Python {version} is not on this machine: its tests are skipped")
    return found


def run_stages(names: list[str]) -> int:
    chosen = [name for name in STAGES if name in (names or STAGES)]
    stages = STAGES | stages_of_tests(available_pythons(), chosen)
    results: dict[str, tuple[float, int]] = {}
    at_once = [name for name in AT_ONCE if name in chosen]
    for name in chosen:
        if name in results:
            continue
        if name not in at_once:
            results[name] = run_stage(name, stages[name])
            continue
        print(f"\n==> at once: {' '.join(at_once)}", flush=True)
        with ThreadPoolExecutor(len(at_once)) as pool:
            begun = {pool.submit(run_stage, one, stages[one], held=True): one for one in at_once}
            results |= {begun[done]: done.result() for done in as_completed(begun)}
    print()
    for name, (seconds, code) in results.items():
        print(f"{'FAILED' if code else 'passed'}  {name:12} {seconds:6.1f} s")
    return int(any(code for _, code in results.values()))


def stages_of_tests(versions: list[str], chosen: list[str]) -> dict[str, list[list[str]]]:
    """The commands of the stages that run tests, on the Pythons that are here.

    The wheels are tested on the oldest. It runs the unit tests there, so that the stage `unit`
    beside it leaves that Python out.
    """
    own = ".".join(map(str, sys.version_info[:2]))
    whole = own if own in versions else versions[0]
    oldest = versions[0]
    once = "wheels" in chosen and oldest != whole
    few = ["-k", " and ".join(f"not {name}" for name in ONCE)]
    return {
        "unit": [
            ["run", f"+py={version}", "test:run"]
            for version in versions
            if not (once and version == oldest)
        ],
        "integration": [
            ["run", f"+py={version}", "test:integration", *([] if version == whole else few)]
            for version in sorted(versions, key=lambda version: version != whole)
        ],
        "wheels": [["run", "checks:wheels", *([] if oldest == whole else ["--python", oldest])]],
    }


def run_stage(name: str, commands: list[list[str]], *, held: bool = False) -> tuple[float, int]:
    """Run the commands of a stage; returns its seconds, and 0 if all of them went well."""
    started = time.monotonic()
    code = int(not commands)  # a stage that runs nothing is a failure
    said = ""
    for command in commands:
        heading = f"\n==> {name}: hatch {' '.join(command)}"
        if held:
            done = hatch(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said += f"{heading}\n{done.stdout}"
        else:
            print(heading, flush=True)
            done = hatch(command)
        code = done.returncode or code
    if held:
        print(said, flush=True)
    return time.monotonic() - started, code


if __name__ == "__main__":
    sys.exit(main())
