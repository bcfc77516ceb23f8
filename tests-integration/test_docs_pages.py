"""The generated parts of the documentation: made from their sources, and strict about them."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra_core import CAPABILITIES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script `tools/docs.py`."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("docs")


def taken(docs: Any, file: str, heading: str) -> str:
    match = docs.TAKEN_PART.search(f'before\n<!-- from: {file} "{heading}" -->\nafter')
    return str(docs.taken_part(match))


def test_capabilities_page_holds_every_capability(docs: Any) -> None:
    """A capability that is added is documented."""
    page = docs.capabilities()
    for capability in CAPABILITIES:
        assert capability.summary in page
        for symbol in capability.symbols:
            assert f"[`{symbol}`][{capability.module}.{symbol}]" in page


def test_command_page_holds_every_subcommand_and_option(docs: Any) -> None:
    """Those of the verbs as well, such as `infra-core mirror up --dry-run`."""
    page = docs.command_reference()
    sections = dict(re.findall(r"^#+ (infra-core.*)\n([^#]*)", page, re.MULTILINE))
    parsers = list(docs.command_parsers())
    assert {"infra-core jobs retry", "infra-core mirror up"} <= {one.prog for one in parsers}
    for parser in parsers:
        for action in parser._actions:
            for name in action.option_strings or action.choices or [action.metavar or action.dest]:
                assert name in sections[parser.prog], f"{parser.prog}: {name}"


def test_part_of_another_file_ends_at_the_next_heading(
    docs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its subheadings; comments in code are no headings."""
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(
        "# A\n\n## One\n\ntext\n\n```bash\n# Two\n```\n\n### More\n\nmore\n\n## Two\n\nelse\n"
        "\n## [1.0.0] - 2026-11-23\n\n### Fixed\n\n- a bug\n\n## [0.9.0]\n\n### Fixed\n\n- older\n"
    )
    assert taken(docs, "README.md", "One") == "text\n\n```bash\n# Two\n```\n\n### More\n\nmore"
    assert taken(docs, "README.md", "Two") == "else"
    assert taken(docs, "README.md", "1.0.0 > Fixed") == "- a bug"
    for heading in ("Three", "Fixed"):  # there is none, there are two
        with pytest.raises(docs.DocsError, match=heading):
            taken(docs, "README.md", heading)


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example/css">',
        "<img src=//pixel.example/1.png>",
        '<iframe src="http://a.example"></iframe>',
    ],
)
def test_page_that_loads_from_another_host_is_found(docs: Any, tmp_path: Path, tag: str) -> None:
    """The site works offline and asks no other host for anything; plain links are fine."""
    page = tmp_path / "index.html"
    page.write_text('<a href="https://a.example/">a</a><script src="x.js"></script>')
    assert not list(docs.foreign(tmp_path))
    page.write_text(tag)
    assert len(list(docs.foreign(tmp_path))) == 1


def test_examples_of_docstrings_become_code(docs: Any) -> None:
    """A block after `::` is fenced, at the indent of what introduces it."""
    lines = [
        '"""It.',
        "",
        "Example:",
        "    Like this::",
        "",
        "        f()",
        "        g()",
        '"""',
        "",
    ]
    made = docs.as_markdown("\n".join(lines))
    assert made.splitlines()[2:8] == [
        "Examples:",
        "    Like this:",
        "",
        "    ```python",
        "    f()",
        "    g()",
    ]
    compile(made, "made", "exec")


def test_every_public_module_stands_in_the_navigation(docs: Any) -> None:
    """The strict build says so as well, later."""
    navigation = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    with docs.loaded() as tree:
        pages = [name for package in docs.PACKAGES for name in docs.reference(package, tree)]
    assert len(pages) > 30
    assert [name for name in pages if name not in navigation] == []


def test_reference_shows_what_a_call_takes(docs: Any) -> None:
    """That of a blocking twin as well, though its source says `*args` and `**kwargs`."""
    api = importlib.import_module("api")
    shown: dict[str, Any] = {}
    with docs.loaded() as tree:
        for package in docs.PACKAGES:
            for name, item in api.public(package, tree).items():
                members = item.get("members", {}).items()
                shown |= {name: item} | {f"{name}.{member}": one for member, one in members}
        options = tree["infra_core.batch.BatchOptions"].final_target.parameters
        assert str(options["concurrency"].default) == "8"  # and not the call that makes the field
    functions = {name: one for name, one in shown.items() if one["kind"] == "function"}
    assert len(functions) > 500
    wrong = []
    for name, function in functions.items():
        real = inspect.signature(pkgutil.resolve_name(name)).parameters
        # That of a class method is bound, and lacks its first parameter.
        if [one["name"] for one in function["parameters"]][-len(real) :] != list(real):
            wrong.append(name)
    # They say of the options of `TaskRuntime`, which they pass on, that they are the same.
    assert {name.rpartition(".")[0] for name in wrong} == {"infra_core.runtime.DaskTaskRuntime"}


def test_what_pages_name_is_there(docs: Any) -> None:
    """Names of modules and what is in them, files of the repository, options of the command."""
    actions = [action for parser in docs.command_parsers() for action in parser._actions]
    options = {name for action in actions for name in action.option_strings}
    patterns = ("*.md", "packages/*/README.md", "docs/pages/**/*.md")
    pages = [page for pattern in patterns for page in ROOT.glob(pattern)]
    lost = []
    for page in pages:
        text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        named = re.findall(r"(?<!user\.)\binfra_core(?:\.\w+)+", text)
        if page.name != "migration.md":  # which names what is gone
            lost += [(page.name, name) for name in set(named) if not is_importable(name)]
        files = re.findall(r"\b(?:tools|tests-integration|docs/pages)/[\w/-]+\.\w+", text)
        lost += [(page.name, file) for file in files if not (ROOT / file).exists()]
        for line in re.findall(r"infra-core (?:run|mirror|jobs|manifest|doctor|trigger)\b.*", text):
            used = re.findall(r"(?<![\w-])--[a-z][a-z-]+", line.partition("`")[0])
            lost += [(page.name, option) for option in used if option not in options]
    assert lost == []


def is_importable(name: str) -> bool:
    """Whether a module, or a name in one, is there."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


PROOF = re.compile(r" <!-- proof: (.*) --> \|$")
# Folder, file, classes, function, the id of the case.
NODE = re.compile(r"(?:[^:\[]*/)?(test_\w+\.py)::(?:\w+::)*(\w+)(?:\[(.*)\])?$")
PROVEN = {
    "docs/pages/faults.md": [
        "## A download",
        "## An upload or a download of a blob",
        "## A whole run",
    ],
    "packages/infra-core-http/README.md": ["### What is retried", "### What is made of an answer"],
}


def rows_of(page: str) -> list[str]:
    """The rows of the tables below the headings of a page that promise what faults do."""
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = []
    for heading in PROVEN[page]:
        assert text.count(f"\n{heading}\n") == 1, heading
        part = text.split(f"\n{heading}\n")[1].split("\n## ")[0].split("\n### ")[0]
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len(table) > 2, heading
        rows += table[2:]
    return rows


@pytest.mark.parametrize("page", PROVEN)
def test_each_row_of_a_fault_table_names_tests_that_exist(page: str) -> None:
    """`file::test`, or `file::test[words]` for the cases of it whose ids hold the words."""
    proofs = {row: PROOF.search(row) for row in rows_of(page)}
    assert [row for row, proof in proofs.items() if proof is None] == []
    named = {name.strip() for proof in proofs.values() if proof for name in proof[1].split(";")}
    paths = {
        file: next(iter([*ROOT.glob(f"packages/*/tests/{file}"), *ROOT.glob(f"*/{file}")]), None)
        for file in {name.partition("::")[0] for name in named}
    }
    assert [file for file, path in paths.items() if path is None] == []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *map(str, paths.values())],
        cwd=ROOT, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = [match.groups("") for line in done.stdout.splitlines() if (match := NODE.match(line))]

    def exists(name: str) -> bool:
        test, _, words = name.removesuffix("]").partition("[")
        file, _, function = test.partition("::")
        return any(node[:2] == (file, function) and words in node[2] for node in nodes)

    assert sorted(name for name in named if not exists(name)) == []
