"""The checks of the tree fail when they should: each is shown a tree with one fault."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a script of `tools/` by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module


@pytest.fixture
def tree(tmp_path: Path, tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the packages that may be damaged, and that the scripts look at."""
    ignored = shutil.ignore_patterns("__pycache__", "tests", "*.egg-info", ".*")
    shutil.copytree(ROOT / "packages", tmp_path / "packages", ignore=ignored)
    for package in (tmp_path / "packages").iterdir():
        (package / "tests").mkdir()
    monkeypatch.setattr(tool("tree"), "ROOT", tmp_path)
    return tmp_path


def source(tree: Path, name: str) -> Path:
    return tree / "packages" / f"infra-core-{name}" / "src" / "infra_core" / name


def stray_file(tree: Path) -> None:
    (source(tree, "http").parent / "stray.py").write_text("")


def stray_init(tree: Path) -> None:
    (source(tree, "fs").parent / "__init__.py").write_text("")


def no_marker(tree: Path) -> None:
    (source(tree, "polling") / "py.typed").unlink()


def upward_import(tree: Path) -> None:
    (source(tree, "fs") / "_up.py").write_text("from infra_core.runtime import clock\n")


def hidden_upward_import(tree: Path) -> None:
    text = "def late() -> None:\n    import infra_core.azure.storage\n"
    (source(tree, "http") / "_up.py").write_text(text)


def sideways_import(tree: Path) -> None:
    (source(tree, "polling") / "_side.py").write_text("from infra_core.http import fetch\n")


def private_import(tree: Path) -> None:
    text = "from infra_core.runtime._retry import retry_sync\n"
    (source(tree, "http") / "_private.py").write_text(text)


def undeclared_sibling(tree: Path) -> None:
    path = tree / "packages" / "infra-core-polling" / "pyproject.toml"
    path.write_text(path.read_text().replace('"infra-core-runtime>=1.0.0,<2",', ""))


def sibling_against_the_table(tree: Path) -> None:
    path = tree / "packages" / "infra-core-fs" / "pyproject.toml"
    added = '\ndependencies = ["infra-core-http>=1,<2", '
    path.write_text(path.read_text().replace("\ndependencies = [", added))


def part_before_the_whole(tree: Path) -> None:
    text = "from requests.utils import dict_from_cookiejar\n"
    (source(tree, "http") / "_part.py").write_text(text)


def undeclared_library(tree: Path) -> None:
    (source(tree, "fs") / "_more.py").write_text("def f():\n    from azure.core import x\n")


def undescribed_library(tree: Path) -> None:
    path = tree / "packages" / "infra-core-runtime" / "README.md"
    path.write_text(path.read_text().replace("brings `distributed`", "brings a library"))


def mannered_word(tree: Path) -> None:
    (source(tree, "fs") / "_said.py").write_text('MESSAGE = "a lock that nobody\\\n holds"\n')


def mannered_refusal(tree: Path) -> None:
    (source(tree, "fs") / "_refused.py").write_text('MESSAGE = "there is no x: {x} is no URL"\n')


def mannered_comment(tree: Path) -> None:
    (source(tree, "fs") / "_heard.py").write_text("X = 1  # as the caller was told\n")


def mannered_name(tree: Path) -> None:
    (source(tree, "fs") / "_asked.py").write_text("def f(file):\n    told = file.tell()\n")


def mannered_test(tree: Path) -> None:
    tests = tree / "packages" / "infra-core-fs" / "tests"
    (tests / "test_asked.py").write_text("def test_nobody_waits():\n    pass\n")


FAULTS = {
    mannered_word: "'nobody'; say it plainly",
    mannered_refusal: "_refused.py:1: 'is no ...'; say it plainly",
    mannered_comment: "'told'; say it plainly",
    mannered_name: "_asked.py:2: name 'told'; use such as",
    mannered_test: "test_asked.py:1: 'nobody'",
    stray_file: "stray.py lies directly in infra_core/",
    stray_init: "__init__.py lies directly in infra_core/",
    no_marker: "infra_core/polling/py.typed is missing",
    upward_import: "imports infra_core.runtime against the layer table",
    hidden_upward_import: "imports infra_core.azure.storage against the layer table",
    sideways_import: "imports infra_core.http against the layer table",
    private_import: "a private module of another package",
    undeclared_sibling: "stands on infra-core-runtime but does not declare it",
    undeclared_library: "_more:2: imports azure.core, which is not declared",
    undescribed_library: "the section Dependencies of its README does not name distributed",
    part_before_the_whole: "imports requests.utils before `import requests`",
    sibling_against_the_table: "depends on infra-core-http against the layer table",
}


def test_layout_check_finds(
    tree: Path, tool: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A tree with faults is refused, and each is named."""
    for fault in FAULTS:
        fault(tree)
    assert tool("check_layout").main() == 1
    printed = capsys.readouterr().out
    assert [fault.__name__ for fault, message in FAULTS.items() if message not in printed] == []
    assert f"{len(FAULTS)} problems" in printed


def test_layout_check_passes_the_tree_as_it_is(tree: Path, tool: Callable[[str], Any]) -> None:
    """Without a fault there is none."""
    assert tool("check_layout").main() == 0


def test_stale_pin_is_refused_and_written_anew(
    tree: Path,
    tool: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A slice moved on and the meta-package did not."""
    path = tree / "packages" / "infra-core-fs" / "pyproject.toml"
    path.write_text(path.read_text().replace('version = "1.0.0"', 'version = "1.0.1"', 1))
    pins = tool("pins")
    monkeypatch.setattr("sys.argv", ["pins.py", "--check"])
    assert pins.main() == 1
    assert "infra-core-fs==1.0.0" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["pins.py", "--write"])
    assert pins.main() == 0
    monkeypatch.setattr("sys.argv", ["pins.py", "--check"])
    assert pins.main() == 0


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"infra_core/fs/x.py": "infra-core-http"}, "both ship infra_core/fs/x.py"),
        ({"infra_core/stray.py": "infra-core-fs"}, "outside its own folder"),
        ({"other/x.py": "infra-core-fs"}, "outside infra_core/"),
    ],
)
def test_wheel_check_finds(
    contents: dict[str, str], message: str, tmp_path: Path, tool: Callable[[str], Any]
) -> None:
    """Two wheels never ship one path, and none ships anything outside its folder."""
    wheels = {}
    for name in ("infra-core-fs", "infra-core-http"):
        leaf = f"infra_core/{name.rpartition('-')[2]}"
        wheels[name] = tmp_path / f"{name}.whl"
        with zipfile.ZipFile(wheels[name], "w") as archive:
            archive.writestr(f"{leaf}/py.typed", "")
            archive.writestr(f"{leaf}/y.py", "")
            for path, owner in contents.items():
                if owner == name:
                    archive.writestr(path, "")
        if message.startswith("both") and name == "infra-core-fs":
            with zipfile.ZipFile(wheels[name], "a") as archive:
                archive.writestr("infra_core/fs/x.py", "")
    assert message in "\n".join(tool("check_wheels").check_contents(wheels))


def test_missing_marker_in_a_wheel_is_found(tmp_path: Path, tool: Callable[[str], Any]) -> None:
    """A wheel without py.typed is refused."""
    wheel = tmp_path / "infra-core-fs.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("infra_core/fs/x.py", "")
    (problem,) = tool("check_wheels").check_contents({"infra-core-fs": wheel})
    assert "ships no infra_core/fs/py.typed" in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('__all__ = ["missing"]\n', "exports missing, which does not exist"),
        ("def hello() -> None: ...\n__all__: list[str] = []\n", "defines hello"),
        ("x = 1\n", "no literal __all__"),
    ],
)
def test_export_check_finds(
    text: str,
    message: str,
    tmp_path: Path,
    tool: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An `__all__` that disagrees with its module is named."""
    name = f"sample_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    problems = tool("check_exports").check(name, tmp_path / f"{name}.py")
    assert message in "\n".join(problems)


def test_name_of_unknown_type_is_found(
    tool: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What pyright cannot infer is named, with its reason; so is a package without names."""
    check = tool("check_complete")
    names = [f"{package.import_name}.x" for package in check.PACKAGES]
    symbols = [{"name": name, "isTypeKnown": True, "diagnostics": []} for name in names]
    assert check.report(symbols) == 0
    assert check.report(symbols[1:]) == 1
    symbols[0] |= {"isTypeKnown": False, "diagnostics": [{"message": "no annotation"}]}
    assert check.report(symbols) == 1
    assert "infra_core.fs.x\n  no annotation\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "text", "answer"),
    [
        (0, "", True),
        (1, "Because infra-core-fs was not found in the package registry and", False),
        (1, "Because there is no version of infra-core-fs==9 and", False),
        (1, "was not found in the package registry hint: it answered 403 Forbidden", None),
        (1, "something else", None),
        (2, "Failed to fetch: connection refused", None),
    ],
)
def test_index_that_does_not_answer_has_not_said_no(
    code: int,
    text: str,
    answer: bool | None,
    tool: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An index that is down, or refuses, ends the check; it is not "not published yet"."""
    registry = tool("registry")
    done = subprocess.CompletedProcess(["uv"], code, "", text)
    monkeypatch.setattr(registry, "uv", lambda *arguments: done)
    if answer is None:
        with pytest.raises(SystemExit, match="infra-core-fs>=1"):
            registry.is_published("infra-core-fs>=1")
    else:
        assert registry.is_published("infra-core-fs>=1") is answer


def test_a_slice_takes_from_the_index_what_is_released(
    tmp_path: Path, tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Siblings at their lowest released version; from the tree only what was never released."""
    wheels = tool("check_wheels")
    released = ("infra-core-runtime",)
    monkeypatch.setattr(wheels, "is_published", lambda line, index: line.startswith(released))
    made = wheels.Wheels(tmp_path, None, released=False)
    made.built["infra-core-fs"] = tmp_path / "fs.whl"
    siblings, from_index = made.siblings(tool("tree").Package("infra-core-http"))
    assert siblings == ["infra-core-runtime<2,>=1.0.0", str(tmp_path / "fs.whl")]
    assert from_index


def test_a_tag_names_a_version_with_all_changes_on_main(
    tree: Path, tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of another branch, or lines that no version has taken up, are refused."""
    release = tool("release")
    monkeypatch.setattr(release, "git", lambda *arguments: arguments[0])
    text = "## [Unreleased]\n\n- New.\n\n## [1.0.0] - 2026-01-01\n\n- First.\n"
    (tree / "packages" / "infra-core-fs" / "CHANGELOG.md").write_text(text)
    unreleased, main = list(release.check_tag("infra-core-fs-v1.0.0"))[-2:]
    assert "prepare infra-core-fs minor" in unreleased
    assert "is not on the branch main" in main


def ran(number: int, conclusion: str | None) -> dict[str, Any]:
    status = "completed" if conclusion else "in_progress"
    return {"run_number": number, "status": status, "conclusion": conclusion, "html_url": "URL"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ([ran(2, "success"), ran(1, "failure")], None),
        ([ran(2, "failure"), ran(1, "success")], "not green on 0123456789ab: ci.yml ended as"),
        ([ran(1, None)], "ci.yml is in_progress; wait for URL"),
        ([], "ci.yml has not run for it; push it as the last commit of main"),
        (404, "could not ask whether CI is green on 0123456789ab (GitHub answered 404"),
        ("<html>", "could not ask"),
    ],
)
def test_only_a_commit_with_green_ci_is_tagged(
    answer: Any, problem: str | None, tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub is asked for the runs of this commit; where it does not say, nothing is tagged."""
    commit, asked = "0123456789abcdef", []

    class GitHub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            body = answer if isinstance(answer, str) else json.dumps({"workflow_runs": answer})
            self.send_response(answer if isinstance(answer, int) else 200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    release, status = tool("release"), tool("ci_status")
    monkeypatch.setenv("GH_TOKEN", "t")
    monkeypatch.setattr(status, "git", lambda *_: "git@github.com:me/infra-core.git\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), GitHub) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            if problem is None:
                release.require_green("origin", commit)
            else:
                with pytest.raises(release.ReleaseError) as caught:
                    release.require_green("origin", commit)
                assert problem in str(caught.value)
                assert ("--unchecked" in str(caught.value)) == problem.startswith("could not")
        finally:
            server.shutdown()
    query = f"head_sha={commit}&branch=main&event=push"
    path = f"/repos/me/infra-core/actions/workflows/ci.yml/runs?{query}"
    assert asked == [(path, "Bearer t")]
    assert (ROOT / ".github" / "workflows" / "ci.yml").is_file()


def test_a_remote_elsewhere_cannot_be_asked(
    tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token is sent there either."""
    release, status = tool("release"), tool("ci_status")
    for url in ("/srv/git/github.com/me/x/y", "https://evil.example/github.com.x/me/x", ""):
        monkeypatch.setattr(status, "git", Mock(return_value=url))
        with pytest.raises(release.ReleaseError, match=r"not on github\.com.*--unchecked"):
            release.require_green("origin", "0123")
    for start in ("https://t@github.com/", "ssh://git@github.com/", "git@github.com:"):
        monkeypatch.setattr(status, "git", Mock(return_value=f"{start}me/x.git"))
        assert status._repository("origin") == "me/x"


def function(*parameters: str) -> dict[str, Any]:
    """A description: `a` is required, `a=` is optional, `*a` is keyword-only."""
    entries = [
        {
            "name": item.strip("*="),
            "kind": "keyword-only" if item.startswith("*") else "positional or keyword",
            "required": not item.endswith("="),
        }
        for item in parameters
    ]
    return {"kind": "function", "parameters": entries}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (function("a"), None, "f was removed"),
        (function("a", "b="), function("a"), "lost its parameter b"),
        (function("a="), function("a"), "now requires a"),
        (function("a"), function("a", "b"), "new required parameter b"),
        (function("a"), function("*a"), "was positional or keyword and is keyword-only"),
        (function("a", "b"), function("b", "a"), "order of its parameters"),
        (function("*a="), function("a="), ""),
        (function("a"), function("a", "b=", "*c="), ""),
    ],
)
def test_api_check_knows_a_break(
    old: dict[str, Any], new: dict[str, Any] | None, message: str, tool: Callable[[str], Any]
) -> None:
    """What a caller would trip over is named; what a caller would not notice is fine."""
    problems = tool("api").breaks(old, new, "f")
    assert message in "\n".join(problems) if message else not problems


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["pins.py", "--chek"], "--chek"),
        (["check_layout.py", "nope"], "nope"),
        (["check_exports.py", "nope"], "nope"),
        (["rehearse_release.py", "--fast"], "--fast"),
        (["check_wheels.py", "infra-core-ftp"], "infra-core-ftp"),
        (["build.py"], "package"),
        (["build.py", "infra-core-ftp", "dist"], "'infra-core-ftp'"),
        (["docs.py", "serve", "--port", "99999"], "'99999'"),
        (["dev.py", "test", "lnit"], "no stage lnit"),
        (["release.py", "prepare", "infra-core-fs", "huge"], "'huge'"),
        (["release.py", "notes", "infra-core-ftp"], "'infra-core-ftp'"),
    ],
    ids=" ".join,
)
def test_tool_refuses_what_it_does_not_know(arguments: list[str], part: str) -> None:
    """In a line that names it; a slip must not do something else, as writing pins unasked."""
    script, *rest = arguments
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / script), *rest],
        capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert part in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["build.py", "infra-core-fs", "dist"], ["check_wheels.py"], ["rehearse_release.py"]],
    ids=" ".join,
)
def test_tool_that_lacks_a_program_names_it(arguments: list[str], tmp_path: Path) -> None:
    """Outside of hatch there is no uv."""
    script, *rest = arguments
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / script), *rest],
        env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("uv is not on the PATH; ")
    assert "Traceback" not in done.stderr
