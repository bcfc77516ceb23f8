"""Build the documentation site out of docs/pages, the code and the packages' READMEs.

    docs.py build [--site-dir DIR]    strictly: a broken link, an undocumented module, fails
    docs.py serve [--port N]          build it and look at it; run again after a change

Written by hand are the pages in docs/pages. From the code come `capabilities.md` (out of
`infra_core.capabilities`), `reference/command.md` (out of `infra-core --help`) and a page for each
public module; from the READMEs a page for each package, and the parts that a page asks for with
`<!-- from: FILE "HEADING" -->`, so that no figure stands in two places.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import griffe

from api import exports, loaded
from infra_core.capabilities import CAPABILITIES
from infra_core.cli._main import COMMANDS, build_parser
from tree import PACKAGES, ROOT, Package

DOCS = ROOT / "docs"
TAKEN_PART = re.compile(r'^<!-- from: (\S+) "(.+)" -->$', re.MULTILINE)
README_LINK = re.compile(r"\]\(packages/(infra-core[a-z-]*)/README\.md")
# What makes a browser load something from another host; plain links (<a href>) do not.
FOREIGN = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'> ]*""")
FOREIGN_LINK = re.compile(r"""<link\b[^>]*\brel=["']?stylesheet[^>]*href=["']?(?:https?:)?//""")


class DocsError(Exception):
    """A page cannot be made; the message says which and why."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["build", "serve"])
    parser.add_argument("--site-dir", type=Path, default=ROOT / "site", help="where it goes (site)")
    parser.add_argument("--port", type=port, default=8000, help="port on 127.0.0.1 (8000)")
    options = parser.parse_args()
    try:
        options.site_dir.mkdir(parents=True, exist_ok=True)
        code = build(options.site_dir.resolve())
        if code == 0 and options.command == "serve":
            serve(options.site_dir, options.port)
    except (DocsError, OSError) as error:  # such as a folder that is a file, a port in use
        print(f"docs: {error}", file=sys.stderr)
        return 1
    return code


def port(text: str) -> int:
    """An argparse type: a port, 0 for any that is free."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 0 to 65535")
    return int(text)


def build(site: Path) -> int:
    """Make all pages in a temporary folder and have mkdocs build them."""
    with tempfile.TemporaryDirectory() as scratch:
        pages = Path(scratch) / "pages"
        shutil.copytree(DOCS / "pages", pages)
        with loaded() as tree:
            write_pages(pages, tree)
            source = Path(str(tree["infra_core"].filepath)).parent.parent  # all packages merged
            for path in source.rglob("*.py"):
                path.write_text(as_markdown(path.read_text(encoding="utf-8")), encoding="utf-8")
            config = ["--config-file", str(DOCS / "mkdocs.yml"), "--site-dir", str(site)]
            done = subprocess.run(
                [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", *config],
                env={
                    **os.environ,
                    "INFRA_CORE_DOCS_PAGES": str(pages),
                    "INFRA_CORE_DOCS_SOURCE": str(source),
                    "NO_MKDOCS_2_WARNING": "true",
                },
            )
    if done.returncode:
        return done.returncode
    if found := list(foreign(site)):
        raise DocsError("pages load from other hosts:\n" + "\n".join(found))
    print(f"docs: {len(list(site.rglob('*.html')))} pages in {site}")
    return 0


def as_markdown(source: str) -> str:
    """Source with the few marks of reStructuredText in its docstrings made Markdown's.

    `Example:` becomes the section that griffe knows, and a block after `::` a fenced one.
    """
    source = re.sub(r"^( *)Example:$", r"\1Examples:", source, flags=re.MULTILINE)
    return LITERAL.sub(fenced, source)


# A line that ends with `::`, then whatever is indented more than it.
LITERAL = re.compile(r"^( *)((?:\S.*[^:])?)::\n\n((?:\1 +\S.*\n|\n)+)", re.MULTILINE)


def fenced(match: re.Match[str]) -> str:
    indent, lead, block = match.groups()
    code = textwrap.indent(textwrap.dedent(block).strip("\n"), indent)
    end = block[len(block.rstrip("\n")) :]
    before = f"{indent}{lead}:\n\n" if lead else ""
    return f"{before}{indent}```python\n{code}\n{indent}```{end}"


def serve(site: Path, number: int) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", number), handler) as server:
        print(f"docs: http://127.0.0.1:{server.server_address[1]}/ until Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def foreign(site: Path) -> Iterator[str]:
    """What a page would load from another host; a page needs nothing but this site."""
    for path in sorted(site.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        for match in [*FOREIGN.finditer(text), *FOREIGN_LINK.finditer(text)]:
            yield f"{path.relative_to(site)}: {match[0]}"


# -- pages -----------------------------------------------------------------------------------------


def write_pages(pages: Path, tree: griffe.ModulesCollection) -> None:
    """Add what is generated to the copy of the pages written by hand."""
    for path in pages.rglob("*.md"):
        text = TAKEN_PART.sub(taken_part, path.read_text(encoding="utf-8"))
        here = os.path.relpath(pages / "packages", path.parent).replace(os.sep, "/")
        text = README_LINK.sub(rf"]({here}/\1.md", text)
        path.write_text(text, encoding="utf-8")
    made = {"capabilities.md": capabilities(), "reference/command.md": command_reference()}
    for package in PACKAGES:
        readme = (package.folder / "README.md").read_text(encoding="utf-8")
        made[f"packages/{package.name}.md"] = readme
        made.update(reference(package, tree))
    for name, text in made.items():
        path = pages / name
        if path.exists():
            raise DocsError(f"docs/pages/{name} is generated; do not write it by hand")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def taken_part(match: re.Match[str]) -> str:
    """The text below a heading of another file; `A > B` is heading B below one that begins with A.

    It ends where the next heading of the same level begins.
    """
    path, wanted = ROOT / match[1], match[2]
    text = without_code(path.read_text(encoding="utf-8"))
    for name in wanted.split(" > "):
        found = list(below(text, name))
        if len(found) != 1:
            raise DocsError(
                f"{match[1]} has {len(found)} headings {wanted!r}; a page of docs/pages asks for it"
            )
        text = found[0]
    return text.replace(HIDDEN_HASH, "#").strip()


def below(text: str, name: str) -> Iterator[str]:
    """What stands below each heading of this name, or of one with more after it in brackets."""
    titles = list(re.finditer(r"^(#{1,6}) (.*)$", text, re.MULTILINE))
    for number, title in enumerate(titles):
        if title[2] == name or title[2].startswith(f"[{name}]"):
            level = len(title[1])
            after = (other.start() for other in titles[number + 1 :] if len(other[1]) <= level)
            yield text[title.end() : next(after, len(text))]


HIDDEN_HASH = "\0"


def without_code(text: str) -> str:
    """The text with the hashes of comments in code hidden, so that they are not headings."""
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    return fenced.sub(lambda match: match[0].replace("#", HIDDEN_HASH), text)


def capabilities() -> str:
    """The index by task; its one source is `infra_core.capabilities`."""
    lines = [
        "# What can it do for me?",
        "",
        "By task. The same index answers in Python: `infra_core.find_capabilities('upload')`.",
        "",
    ]
    for capability in CAPABILITIES:
        names = ", ".join(f"[`{s}`][{capability.module}.{s}]" for s in capability.symbols)
        lines += [
            f"## {capability.name.replace('-', ' ').capitalize()}",
            "",
            capability.summary,
            "",
            "```python",
            wrapped(capability.import_line),
            "```",
            "",
            f"{names}, in [{capability.package}](packages/{capability.package}.md).",
            "",
        ]
    return "\n".join(lines)


def wrapped(line: str) -> str:
    """An import line as ruff would break it for the width of a page."""
    start, _, names = line.partition(" import ")
    if len(line) <= 70:
        return line
    return "\n".join([f"{start} import (", *(f"    {name}," for name in names.split(", ")), ")"])


def command_reference() -> str:
    """What `--help` says of the command, of each subcommand, and of each verb of those."""
    lines = ["# The command `infra-core`", "", "What `--help` says, exit codes included.", ""]
    for parser in command_parsers():
        level = "##" if len(parser.prog.split()) < 3 else "###"
        shown = parser.format_help().rstrip()
        lines += [f"{level} {parser.prog}", "", "```text", shown, "```", ""]
    return "\n".join(lines)


def command_parsers() -> Iterator[argparse.ArgumentParser]:
    """The parsers of the command, of each subcommand, and of each verb of those."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "90"
    try:
        yield build_parser([])[0]
        for name, _, _ in COMMANDS:
            subparser = verbs_of(build_parser([name])[0])[name]
            yield from (subparser, *verbs_of(subparser).values())
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


# -- reference -------------------------------------------------------------------------------------


def reference(package: Package, tree: griffe.ModulesCollection) -> dict[str, str]:
    """A page for each public module of a package, by the page's name.

    An object is documented once, in the module that `homes` says; the others link there.
    """
    made = {}
    known = homes(tree)
    for name in public_modules(package):
        names = sorted(exports(tree[name]), key=str.lower)
        if not names or name.startswith("infra_core.cli"):
            continue  # a folder of private modules; the command has a page of its own
        own = [export for export in names if known[canonical(tree[name][export])] == name]
        page = [f"# {name}", "", f"::: {name}", *options(members=False, show_root_heading=False)]
        for export in own:
            page += ["", f"::: {name}.{export}", *options(show_root_heading=True)]
        if len(own) < len(names):
            page += ["", "## Names from elsewhere", "", "| name | documented as |", "|---|---|"]
        for export in names:
            if export not in own:
                target = canonical(tree[name][export])
                home = known[target]
                place = home if tree[home].path == target else f"{home}.{short(target, home, tree)}"
                page.append(f"| `{export}` | [`{place}`][{place}] |")
        made[f"reference/{name.removeprefix('infra_core.')}.md"] = "\n".join([*page, ""])
    return made


def options(**chosen: bool) -> list[str]:
    given = [f"      {name}: {str(value).lower()}" for name, value in chosen.items()]
    return ["    options:", *given]


def public_modules(package: Package) -> list[str]:
    return [
        name
        for name in package.modules()
        if not any(part.startswith("_") for part in name.split("."))
    ]


def canonical(item: griffe.Object | griffe.Alias) -> str:
    """Where an object is really defined."""
    try:
        return str(item.final_target.path if isinstance(item, griffe.Alias) else item.path)
    except griffe.AliasResolutionError:  # of a library, which is not part of the tree
        return str(item.path)


@functools.cache
def homes(tree: griffe.ModulesCollection) -> dict[str, str]:
    """The public module that documents each object, by the place where it is defined.

    Of the modules that export it, that is the innermost one which also contains it, else the
    first one; the slices come before the facade.
    """
    found: dict[str, str] = {}
    for package in PACKAGES:
        for name in public_modules(package):
            if exports(tree[name]):
                found.setdefault(name, name)
    for package in PACKAGES:
        for name in public_modules(package):
            for export in exports(tree[name]):
                target = canonical(tree[name][export])
                best = found.get(target)
                if best is None or (
                    target.startswith(f"{name}.") and len(name) > len(best) and best != target
                ):
                    found[target] = name
    return found


def short(target: str, home: str, tree: griffe.ModulesCollection) -> str:
    """The name under which a module exports an object."""
    return next(name for name in exports(tree[home]) if canonical(tree[home][name]) == target)


if __name__ == "__main__":
    sys.exit(main())
