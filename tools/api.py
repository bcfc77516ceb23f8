"""The public API of every package, written down, so that a break cannot slip in unseen.

    api.py write      write packages/<name>/api.json from the tree
    api.py check      compare the tree with the last release: what broke needs a major version

`api.json` holds what users can import and call: names, parameters and whether they are required,
bases and members of classes. It is read by griffe without importing anything. The tree is compared
with the snapshot at the tag of the last release, so that writing a new one hides no break; in a
clone without history with the file, and before the first release with nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import griffe
from packaging.version import Version

from signatures import AtRunTime
from tags import git, last_tag
from tree import PACKAGES, Package, declared_names, lay_out

WRITE = "python3 tools/dev.py hatch run checks:api write"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    options = parser.parse_args()
    failed = False
    with loaded() as tree:
        for package in PACKAGES:
            current = public(package, tree)
            path = package.folder / "api.json"
            if options.command == "write":
                write(path, package, current)
            else:
                failed |= not check(path, package, current)
    return int(failed)


@contextmanager
def loaded() -> Iterator[griffe.ModulesCollection]:
    """The packages as one tree, as an installation lays them out, read without importing it."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        known = griffe.load_extensions(AtRunTime)
        loader = griffe.GriffeLoader(search_paths=[folder], extensions=known)
        loader.load("infra_core", try_relative_path=False)
        loader.resolve_aliases(implicit=True)
        yield loader.modules_collection


def public(package: Package, tree: griffe.ModulesCollection) -> dict[str, Any]:
    """Dotted name to description of everything that users may import."""
    found: dict[str, Any] = {}
    for name in package.modules():
        if any(part.startswith("_") for part in name.split(".")):
            continue
        module = tree[name]
        for export in sorted(exports(module)):
            found[f"{name}.{export}"] = describe(module[export])
    return found


def exports(module: griffe.Object | griffe.Alias) -> list[str]:
    literal, reexported = declared_names(Path(str(module.filepath)))
    return sorted(literal if literal is not None else reexported)


def describe(item: griffe.Object | griffe.Alias) -> Any:
    """What a user relies on of one object."""
    try:
        target = item.final_target if isinstance(item, griffe.Alias) else item
    except (griffe.AliasResolutionError, griffe.CyclicAliasError):
        return {"kind": "external"}
    if isinstance(target, griffe.Function):
        return {"kind": "function", "parameters": parameters(target)}
    if isinstance(target, griffe.Class):
        members = {
            name: describe(member)
            for name, member in sorted(target.all_members.items())
            if not name.startswith("_") and not member.is_module
        }
        constructor = [
            entry for entry in parameters(target) if entry["name"] not in {"self", "cls"}
        ]
        return {
            "kind": "class",
            "bases": sorted(str(base) for base in target.bases),
            "parameters": constructor,
            "members": members,
        }
    return {"kind": str(target.kind.value)}


def parameters(target: griffe.Function | griffe.Class) -> list[dict[str, Any]]:
    return [
        {
            "name": parameter.name,
            "kind": str(parameter.kind.value if parameter.kind else ""),
            "required": parameter.required,
        }
        for parameter in target.parameters
    ]


# -- comparing -------------------------------------------------------------------------------------


def breaks(old: Any, new: Any, name: str) -> list[str]:
    """What somebody who uses `old` would trip over in `new`."""
    if new is None:
        return [f"{name} was removed"]
    if old["kind"] != new["kind"]:
        return [f"{name} was a {old['kind']} and is a {new['kind']}"]
    found = broken_parameters(old.get("parameters", []), new.get("parameters", []), name)
    found += [
        f"{name} no longer inherits {b}" for b in old.get("bases", []) if b not in new["bases"]
    ]
    for member, description in old.get("members", {}).items():
        found += breaks(description, new["members"].get(member), f"{name}.{member}")
    return found


def broken_parameters(old: list[Any], new: list[Any], name: str) -> list[str]:
    after = {entry["name"]: entry for entry in new}
    open_keywords = any(entry["kind"] == "variadic keyword" for entry in new)
    found = []
    for entry in old:
        match = after.get(entry["name"])
        if match is None:
            if not (open_keywords and entry["kind"] == "keyword-only"):
                found.append(f"{name} lost its parameter {entry['name']}")
        elif match["required"] and not entry["required"]:
            found.append(f"{name} now requires {entry['name']}")
        elif match["kind"] != entry["kind"] and match["kind"] != "positional or keyword":
            found.append(f"{name}: {entry['name']} was {entry['kind']} and is {match['kind']}")
    before = {entry["name"] for entry in old}
    found += [
        f"{name} has a new required parameter {entry['name']}"
        for entry in new
        if entry["required"] and entry["name"] not in before and "variadic" not in entry["kind"]
    ]
    places = [e["name"] for e in old if e["kind"].startswith("positional")]
    kept = [e["name"] for e in new if e["kind"].startswith("positional")][: len(places)]
    if places != kept and not found:
        found.append(f"{name}: the order of its parameters was {places} and is {kept}")
    return found


def released(package: Package, path: Path) -> dict[str, Any] | None:
    """What the last release promised: version and API; None before the first."""
    if tag := last_tag(package):
        text = git("show", f"{tag}:packages/{package.name}/api.json")
    elif git("rev-parse", "--is-shallow-repository").strip() == "true" and path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        return None
    snapshot: dict[str, Any] = json.loads(text)
    return snapshot


def check(path: Path, package: Package, current: dict[str, Any]) -> bool:
    """Whether the tree may carry its version, given what the last release promised."""
    version = Version(package.version)
    if (last := released(package, path)) is not None:
        promised = Version(last["version"])
        broken = [
            problem
            for name, old in last["api"].items()
            for problem in breaks(old, current.get(name), name)
        ]
        if broken and version.major <= promised.major:
            print(*(f"{package.name}: {problem}" for problem in broken), sep="\n")
            print(
                f"{package.name} {version} breaks what {promised} promised; keep the old name or "
                f"parameter, or release {promised.major + 1}.0.0"
            )
            return False
    written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if written != {"version": package.version, "api": current}:
        print(f"{package.name}: api.json is not that of the tree; write it with: {WRITE}")
        return False
    return True


def write(path: Path, package: Package, current: dict[str, Any]) -> None:
    lines = [f"  {json.dumps(name)}: {json.dumps(current[name])}" for name in sorted(current)]
    text = '{"version": %s, "api": {\n%s\n}}\n' % (json.dumps(package.version), ",\n".join(lines))  # noqa: UP031
    path.write_text(text, encoding="utf-8")
    print(f"{package.name} {package.version}: {len(current)} public names")


if __name__ == "__main__":
    sys.exit(main())
