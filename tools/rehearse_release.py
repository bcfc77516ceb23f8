"""Rehearse the whole release pipeline on this machine, against an index server of its own.

In a clone of the tree: every package is checked, built, published in the order of dependencies and
tagged; fresh virtual environments install each slice and the meta-package from the index; one
slice gets a patch release alone; a breaking release is refused while its dependants are left
behind, and goes through once they follow.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tree import PACKAGES, ROOT, need, no_arguments

NAMES = [package.name for package in PACKAGES]


def main() -> int:
    need("uv")
    need("git")
    with tempfile.TemporaryDirectory(prefix="infra-core-release-") as folder, index(folder) as url:
        rehearsal = Rehearsal(Path(folder), url)
        rehearsal.first_release()
        rehearsal.patch_release("infra-core-fs")
        rehearsal.breaking_release("infra-core-runtime")
    print("release rehearsal: everything went as it should")
    return 0


@contextmanager
def index(folder: str) -> Iterator[str]:
    """A package index on a free loopback port; empty at first, and it never asks another one."""
    packages = Path(folder) / "index"
    packages.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "pypiserver", "run", "--interface", "127.0.0.1", "--port", str(port),
         "--authenticate", ".", "--passwords", ".", "--disable-fallback", str(packages)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(
        f"the index server does not answer at {url} (exit code {server.poll()}); see what "
        "`python -m pypiserver run` says"
    )


class Rehearsal:
    """One clone, one index, and what is done with them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.index = f"{url}/simple/"
        self.clone = folder / "clone"
        self.published: set[str] = set()
        run("git", "clone", "--quiet", "--no-tags", str(ROOT), str(self.clone))

    def first_release(self) -> None:
        """Publish what the tree holds, then install each package from the index alone."""
        self.release(*NAMES)
        for name in NAMES:
            self.install(name)

    def patch_release(self, name: str) -> None:
        """A patch of one slice: only it and the meta-package, which pins it, are published."""
        self.note(name, "Rehearsed patch.")
        self.tool("prepare", name, "patch")
        self.commit(f"Release a patch of {name}")
        before = set(self.published)
        self.release(*NAMES)
        moved = {item.partition(" ")[0] for item in self.published - before}
        expect(moved == {name, "infra-core"}, f"a patch of {name} published {sorted(moved)}")
        self.install("infra-core-http", expected={name: self.version(name)})
        self.install("infra-core", expected={name: self.version(name)})

    def breaking_release(self, name: str) -> None:
        """Refused while the dependants stay behind; released together with them."""
        self.note(name, "Rehearsed break.")
        self.tool("prepare", name, "major", "--only")
        refused = self.tool("check", check=False)
        expect(refused.returncode != 0, "a breaking release without its dependants was accepted")
        expect("infra-core-polling" in refused.stdout, "the refusal does not name a dependant")
        print("refused, as it should be:", *refused.stdout.strip().splitlines(), sep="\n  ")
        run("git", "checkout", "--quiet", ".", cwd=self.clone)
        self.note(name, "Rehearsed break.")
        self.tool("prepare", name, "major")
        self.commit(f"Release a major version of {name}")
        self.release(*NAMES)
        self.install("infra-core-polling", expected={name: self.version(name)})
        self.install("infra-core", expected={name: self.version(name)})

    # -- steps ---------------------------------------------------------------------------------

    def release(self, *names: str) -> None:
        """Check, build, publish and tag every package whose version is not published yet."""
        for name in names:
            version = self.version(name)
            if f"{name} {version}" in self.published:
                continue
            tag = f"{name}-v{version}"
            self.tool("check", "--tag", tag)
            self.tool("notes", name)
            dist = self.folder / "dist" / tag
            self.script("build", name, str(dist))
            self.script("check_dependants", name, "--dist", str(dist), "--index", self.index)
            run(
                "uv", "publish", "--quiet", "--publish-url", f"{self.url}/", "--username", "none",
                "--password", "none", "--trusted-publishing", "never",
                *(str(path) for path in sorted(dist.iterdir()) if path.suffix in {".whl", ".gz"}),
            )  # fmt: skip
            run("git", "tag", tag, cwd=self.clone)
            self.published.add(f"{name} {version}")
            print("published", name, version, flush=True)

    def install(self, name: str, expected: dict[str, str] | None = None) -> None:
        """Install a package from the index into a fresh environment, and import it."""
        venv = self.folder / "venv"
        shutil.rmtree(venv, ignore_errors=True)
        run("uv", "venv", "--quiet", str(venv))
        python = str(venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
        run(
            "uv", "pip", "install", "--quiet", "--python", python,
            *(f"--refresh-package={sibling}" for sibling in NAMES),
            "--index", self.index, f"{name}=={self.version(name)}",
        )  # fmt: skip
        import_name = name.replace("infra-core-", "infra_core.").replace("-", "_")
        shown = run(
            python, "-c",
            f"import {import_name}; from importlib.metadata import version, distributions\n"
            "for d in distributions():\n"
            "    if d.name.startswith('infra-core'): print(d.name, d.version)",
        ).stdout.splitlines()  # fmt: skip
        installed = dict(line.split() for line in shown)
        expect(installed[name] == self.version(name), f"{name} installed as {installed[name]}")
        for sibling, version in (expected or {}).items():
            expect(
                installed[sibling] == version,
                f"{name} brought {sibling} {installed[sibling]}, not {version}",
            )
        print("installed", name, "with", *(f"{k} {v}" for k, v in sorted(installed.items())))

    def package(self, name: str) -> Path:
        return self.clone / "packages" / name

    def version(self, name: str) -> str:
        for line in (self.package(name) / "pyproject.toml").read_text("utf-8").splitlines():
            if line.startswith("version = "):
                return line.split('"')[1]
        raise SystemExit(f"pyproject.toml of {name} has no line `version = ...`; add it")

    def note(self, name: str, text: str) -> None:
        """Write a line under Unreleased, as a contributor would."""
        path = self.package(name) / "CHANGELOG.md"
        before = path.read_text(encoding="utf-8")
        heading = "## [Unreleased]"
        if heading not in before:
            before = before.replace("\n## [", f"\n{heading}\n\n## [", 1)
        path.write_text(before.replace(heading, f"{heading}\n\n- {text}", 1), encoding="utf-8")

    def commit(self, message: str) -> None:
        identity = ["-c", "user.name=rehearsal", "-c", "user.email=rehearsal@localhost"]
        run("git", *identity, "commit", "--quiet", "--all", "-m", message, cwd=self.clone)

    def tool(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.script("release", *arguments, check=check)

    def script(
        self, name: str, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        path = str(self.clone / "tools" / f"{name}.py")
        return run(sys.executable, path, *arguments, cwd=self.clone, check=check)


def run(
    *command: str, cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done


def expect(condition: bool, problem: str) -> None:
    if not condition:
        raise SystemExit(f"release rehearsal: {problem}")


if __name__ == "__main__":
    no_arguments(__doc__)
    sys.exit(main())
