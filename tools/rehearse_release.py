"""Rehearse the whole release pipeline on this machine, against an index server of its own.

The working tree, uncommitted changes included, becomes the main branch of a remote repository of
its own. What is due there is tagged as `release.py push` does it, in turns; for each tag, what the
workflow does is done: the tag is checked, the package built, its wheel installed at its lowest
versions with siblings from the index and imported, then with the published packages that stand on
it, and published. (Unit tests at the lowest versions are the stage `wheels`.) Fresh environments
install each package from the index. Then a slice that uses what its sibling has not released is
refused, one slice gets a patch release alone, a break is refused in a minor version, and a breaking
release is refused while its dependants are left behind, and goes through once they follow.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from check_wheels import import_all, venv_python
from release import AT_ONCE, UNRELEASED, section
from tree import PACKAGES, ROOT, Package, need, no_arguments

NAMES = [package.name for package in PACKAGES]


def main() -> int:
    need("uv")
    need("git")
    with tempfile.TemporaryDirectory(prefix="infra-core-release-") as folder, index(folder) as url:
        rehearsal = Rehearsal(Path(folder), url)
        rehearsal.first_release()
        rehearsal.unreleased_use("infra-core-polling", "infra-core-runtime")
        rehearsal.patch_release("infra-core-fs")
        rehearsal.hidden_break("infra-core-runtime")
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
    """One repository, its remote, one index, and what is done with them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.index = f"{url}/simple/"
        self.clone = folder / "clone"
        self.published: set[str] = set()
        listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, self.clone / name)
        run("git", "init", "--quiet", "--bare", str(folder / "origin"))
        run("git", "init", "--quiet", "--initial-branch=main", str(self.clone))
        run("git", "remote", "add", "origin", str(folder / "origin"), cwd=self.clone)
        run("git", "add", "--all", cwd=self.clone)
        self.commit("The working tree")

    def first_release(self) -> None:
        """Publish what the tree holds, then install each package from the index alone."""
        for name in NAMES:
            text = (self.package(name) / "CHANGELOG.md").read_text(encoding="utf-8")
            if section(text, UNRELEASED).strip():
                self.tool("prepare", name, "minor")
        self.commit("Release what has changed")
        refused = self.tool("push", "--once", "--index", self.index, check=False)
        expect("could not ask whether CI is green" in refused.stderr, f"pushed unasked: {refused}")
        turns = self.release()
        expect(len(turns) > 2 and max(map(len, turns)) <= 3, f"pushed in the turns {turns}")
        self.at_once(self.install, NAMES)

    def unreleased_use(self, name: str, sibling: str) -> None:
        """A slice that uses what its sibling has not released fails before its tag."""
        module = self.package(sibling) / "src" / "infra_core" / sibling.rpartition("-")[2]
        (module / "unreleased.py").write_text('"""New."""\n', encoding="utf-8")
        using = self.package(name) / "src" / "infra_core" / name.rpartition("-")[2] / "_using.py"
        imported = f"infra_core.{sibling.rpartition('-')[2]}.unreleased"
        using.write_text(f'"""Uses it."""\n\nimport {imported}\n', encoding="utf-8")
        refused = self.script(
            "check_wheels", "--no-tests", "--index", self.index, name, check=False
        )
        expect(refused.returncode != 0, f"{name} may use what {sibling} has not released")
        expect("its siblings" not in refused.stdout, f"refused for another reason: {refused}")
        print("refused, as it should be:", refused.stdout.partition(":")[0])
        self.revert()

    def patch_release(self, name: str) -> None:
        """A patch of one slice: only it and the meta-package, which pins it, are published."""
        self.note(name, "Rehearsed patch.")
        self.tool("prepare", name, "patch")
        self.commit(f"Release a patch of {name}")
        before = set(self.published)
        self.release()
        moved = {item.partition(" ")[0] for item in self.published - before}
        expect(moved == {name, "infra-core"}, f"a patch of {name} published {sorted(moved)}")
        self.install("infra-core-http", expected={name: self.version(name)})
        self.install("infra-core", expected={name: self.version(name)})

    def hidden_break(self, name: str) -> None:
        """A name is taken away, and a new snapshot written over the old: the tag has the old."""
        path = self.package(name) / "src" / "infra_core" / name.rpartition("-")[2] / "clock.py"
        path.write_text('"""Nothing any more."""\n\n__all__: list[str] = []\n', encoding="utf-8")
        self.script("api", "write")
        refused = self.script("api", "check", check=False)
        expect(refused.returncode != 0 and "was removed" in refused.stdout, "a break was hidden")
        print("refused, as it should be:", refused.stdout.partition("\n")[0])
        self.revert()

    def breaking_release(self, name: str) -> None:
        """Refused while the dependants stay behind; released together with them."""
        self.note(name, "Rehearsed break.")
        self.tool("prepare", name, "major", "--only")
        refused = self.tool("check", check=False)
        expect(refused.returncode != 0, "a breaking release without its dependants was accepted")
        expect("infra-core-polling" in refused.stdout, "the refusal does not name a dependant")
        print("refused, as it should be:", *refused.stdout.strip().splitlines(), sep="\n  ")
        self.revert()
        self.note(name, "Rehearsed break.")
        self.tool("prepare", name, "major")
        self.commit(f"Release a major version of {name}")
        self.release()
        self.install("infra-core-polling", expected={name: self.version(name)})
        self.install("infra-core", expected={name: self.version(name)})

    # -- steps ---------------------------------------------------------------------------------

    def release(self) -> list[list[str]]:
        """Push what is due, and do for each tag what its workflow does; returns the turns."""
        turns: list[list[str]] = []
        while True:
            self.tool("push", "--once", "--unchecked", "--index", self.index)
            refs = run("git", "ls-remote", "--tags", "origin", cwd=self.clone).stdout.split()
            tags = [ref.rpartition("/")[2] for ref in refs if ref.startswith("refs/")]
            due = [tag for tag in tags if tag.replace("-v", " ") not in self.published]
            if not due:
                return turns
            turns.append(due)
            self.at_once(self.work, due)

    def work(self, tag: str) -> None:
        """What build.yml and release.yml do for a tag."""
        name, _, version = tag.rpartition("-v")
        self.tool("check", "--tag", tag)
        self.tool("notes", name)
        dist = self.folder / "dist" / tag
        self.script("build", name, str(dist))
        common = ("--dist", str(dist), "--index", self.index, name)
        self.script("check_wheels", "--released", "--no-tests", *common)
        self.script("check_dependants", *common)
        run(
            "uv", "publish", "--quiet", "--publish-url", f"{self.url}/", "--username", "none",
            "--password", "none", "--trusted-publishing", "never",
            *(str(path) for path in sorted(dist.iterdir()) if path.suffix in {".whl", ".gz"}),
        )  # fmt: skip
        self.published.add(f"{name} {version}")
        print("published", name, version, flush=True)

    def install(self, name: str, expected: dict[str, str] | None = None) -> None:
        """Install a package from the index into a fresh environment, and import it."""
        venv = self.folder / "venv" / name
        shutil.rmtree(venv, ignore_errors=True)
        run("uv", "venv", "--quiet", str(venv))
        python = venv_python(venv)
        run(
            "uv", "pip", "install", "--quiet", "--python", str(python),
            *(f"--refresh-package={sibling}" for sibling in NAMES),
            "--index", self.index, f"{name}=={self.version(name)}",
        )  # fmt: skip
        if expected is None:  # what moved later is what `work` has imported
            tried = import_all(python, Package(name), self.folder)
            expect(tried.returncode == 0, f"{name} does not import:\n{tried.stderr}")
        shown = run("uv", "pip", "freeze", "--quiet", "--python", str(python)).stdout
        lines = [line.partition("==") for line in shown.splitlines()]
        installed = {key: value for key, _, value in lines if key in NAMES}
        expect(installed[name] == self.version(name), f"{name} installed as {installed[name]}")
        for sibling, version in (expected or {}).items():
            expect(
                installed[sibling] == version,
                f"{name} brought {sibling} {installed[sibling]}, not {version}",
            )
        print("installed", name, "with", *(f"{k} {v}" for k, v in sorted(installed.items())))

    def at_once(self, step: Callable[[str], None], names: list[str]) -> None:
        """Take a step for each; as the workflows of tags do, several run at a time."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(step, names))

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
        run("git", "push", "--quiet", "origin", "main", cwd=self.clone)

    def revert(self) -> None:
        run("git", "checkout", "--quiet", ".", cwd=self.clone)
        run("git", "clean", "--quiet", "-d", "--force", "packages", cwd=self.clone)

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
