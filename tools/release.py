"""Prepare and check releases: one package at a time, never in a state that cannot be installed.

    release.py prepare infra-core-http minor     new version, change log, ranges, pins
    release.py check                             is the tree releasable?
    release.py check --tag infra-core-http-v1.2.0    does this tag say what the tree says?
    release.py push                              tag what is due, in turns, if CI is green
    release.py order                             packages in the order of their dependencies
    release.py notes infra-core-http             the change log entry of the current version

A tag is `<distribution>-v<version>`. A breaking release moves the ranges of every package that
stands on the released one, and their versions with them; the meta-package is always moved along,
because it pins exact versions.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, MutableMapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import tomlkit
from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from ci_status import NotAskedError, ci_problem
from pins import pinned
from registry import is_published
from tags import TAG, GitError, git, git_or_fail, last_tag, tag_of, tags
from tree import LAYERS, META, PACKAGES, SLICES, Package

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

HEADING = re.compile(
    r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE
)
UNRELEASED = "Unreleased"
AT_ONCE = 3  # GitHub starts no workflow for tags of which more are pushed together
WAIT = 20  # seconds between looks at the index


class ReleaseError(Exception):
    """The tree cannot be released; the message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare_parser = commands.add_parser("prepare")
    prepare_parser.add_argument("package", choices=[package.name for package in PACKAGES])
    prepare_parser.add_argument("bump", help="major, minor, patch or a version")
    prepare_parser.add_argument(
        "--only", action="store_true", help="leave the dependants alone (check will refuse a major)"
    )
    check_parser = commands.add_parser("check")
    check_parser.add_argument("--tag", help="a tag that is being released")
    push_parser = commands.add_parser("push")
    push_parser.add_argument("--remote", default="origin")
    push_parser.add_argument("--index", help="an index to ask first what is published")
    push_parser.add_argument("--once", action="store_true", help="one turn, without waiting")
    push_parser.add_argument(
        "--unchecked", action="store_true", help="do not ask GitHub whether CI is green"
    )
    commands.add_parser("order")
    notes_parser = commands.add_parser("notes")
    notes_parser.add_argument("package", choices=[package.name for package in PACKAGES])
    options = parser.parse_args()
    try:
        if options.command == "prepare":
            prepare(options.package, options.bump, alone=options.only)
        elif options.command == "check":
            return report(list(problems(options.tag)))
        elif options.command == "push":
            push(options.remote, options.index, once=options.once, unchecked=options.unchecked)
        elif options.command == "notes":
            print(notes(Package(options.package)))
        else:
            print(*(package.name for package in PACKAGES), sep="\n")
    except (ReleaseError, GitError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def report(found: list[str]) -> int:
    print(*(found or ["the tree is releasable"]), sep="\n")
    return int(bool(found))


# -- prepare ---------------------------------------------------------------------------------------


def prepare(name: str, bump: str, *, alone: bool = False) -> None:
    """Give a package its next version, and move what must move with it."""
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise ReleaseError("this clone has no tags; run: git fetch --unshallow --tags")
    package = Package(name)
    before = Version(package.version)
    after = bumped(before, bump)
    if after <= before:
        raise ReleaseError(f"{name} is at {before}; {after} is not newer, choose a higher version")
    release_notes = unreleased(package)
    if not release_notes.strip():
        raise ReleaseError(
            f"{name}: CHANGELOG.md has nothing under '## [{UNRELEASED}]'; say what has changed"
        )
    write_version(package, after)
    close_changelog(package, after)
    print(f"{name} {before} -> {after}")
    if alone:
        return
    breaking = after.major != before.major
    for dependant in dependants(name) if breaking else []:
        # Minor: a dependant's own API is what it was; an environment that holds both majors of
        # the released package apart still resolves, to the dependant's earlier version.
        move_range(Package(dependant), name, after)
        follow(Package(dependant), f"Requires {name} {after.major}.", "minor")
    if name != META:
        meta = Package(META)
        path = meta.folder / "pyproject.toml"
        path.write_text(pinned(path.read_text(encoding="utf-8")), encoding="utf-8")
        follow(meta, f"Pins {name} {after}.", "major" if breaking else bump_kind(before, after))


def bumped(version: Version, bump: str) -> Version:
    parts = {"major": 0, "minor": 1, "patch": 2}
    if bump in parts:
        numbers = list(version.release)
        numbers[parts[bump]] += 1
        numbers[parts[bump] + 1 :] = [0] * (2 - parts[bump])
        return Version(".".join(map(str, numbers)))
    try:
        return Version(bump)
    except InvalidVersion:
        raise ReleaseError(
            f"{bump!r} is neither major, minor, patch nor a version such as 1.2.0"
        ) from None


def bump_kind(before: Version, after: Version) -> str:
    return "minor" if after.minor != before.minor else "patch"


def dependants(name: str) -> list[str]:
    return [dependant for dependant, below in LAYERS.items() if name in below]


def follow(package: Package, reason: str, bump: str) -> None:
    """Release a package because another one moved; once per release, however many moved."""
    before = Version(package.version)
    if tag_of(package) in tags() or (last_tag(package) is None and unreleased(package).strip()):
        after = bumped(before, bump)
        write_version(package, after)
        add_note(package, reason)
        close_changelog(package, after)
        print(f"{package.name} {before} -> {after}: {reason}")
    else:  # it has an unpublished version already, which can take one more line
        add_to_current(package, reason)
        print(f"{package.name} {before}: {reason}")


def write_version(package: Package, version: Version) -> None:
    path = package.folder / "pyproject.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    project = document["project"]
    assert isinstance(project, MutableMapping)
    project["version"] = str(version)
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    api = package.folder / "api.json"  # its names are `api.py`'s to write
    text = re.sub(r'"version": "[^"]*"', f'"version": "{version}"', api.read_text("utf-8"), count=1)
    api.write_text(text, encoding="utf-8")


def move_range(package: Package, name: str, version: Version) -> None:
    path = package.folder / "pyproject.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    project = document["project"]
    assert isinstance(project, MutableMapping)
    listed = project["dependencies"]
    for index, line in enumerate(listed):
        if Requirement(str(line)).name == name:
            listed[index] = f"{name}>={version},<{version.major + 1}"
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


# -- change logs -----------------------------------------------------------------------------------


def changelog(package: Package) -> str:
    return (package.folder / "CHANGELOG.md").read_text(encoding="utf-8")


def section(text: str, version: str) -> str:
    """The body under a heading; empty when there is none."""
    matches = list(HEADING.finditer(text))
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        if match["version"] == version:
            return text[match.end() : following.start() if following else len(text)].strip("\n")
    return ""


def unreleased(package: Package) -> str:
    return section(changelog(package), UNRELEASED)


def notes(package: Package) -> str:
    found = section(changelog(package), package.version)
    if not found:
        raise ReleaseError(
            f"{package.name}: CHANGELOG.md has no entry for {package.version}; write one under "
            f"`## [{package.version}] - DATE`"
        )
    return found


def close_changelog(package: Package, version: Version) -> None:
    today = datetime.now(timezone.utc).date()
    text = changelog(package).replace(
        f"## [{UNRELEASED}]", f"## [{UNRELEASED}]\n\n## [{version}] - {today}", 1
    )
    (package.folder / "CHANGELOG.md").write_text(text, encoding="utf-8")


def add_note(package: Package, reason: str) -> None:
    text = changelog(package)
    heading = f"## [{UNRELEASED}]"
    if heading not in text:
        first = HEADING.search(text)
        position = first.start() if first else len(text)
        text = f"{text[:position]}{heading}\n\n{text[position:]}"
    text = text.replace(heading, f"{heading}\n\n### Changed\n\n- {reason}", 1)
    (package.folder / "CHANGELOG.md").write_text(text, encoding="utf-8")


def add_to_current(package: Package, reason: str) -> None:
    text = changelog(package)
    first = next(m for m in HEADING.finditer(text) if m["version"] == package.version)
    text = f"{text[: first.end()]}\n\n- {reason}{text[first.end() :]}"
    (package.folder / "CHANGELOG.md").write_text(text, encoding="utf-8")


# -- check -----------------------------------------------------------------------------------------


def problems(tag: str | None) -> Iterator[str]:
    """Everything that stands between the tree and a release."""
    yield from check_tag(tag) if tag else ()
    for package in PACKAGES:
        yield from check_package(package)
        yield from check_ranges(package)
    meta = (Package(META).folder / "pyproject.toml").read_text(encoding="utf-8")
    if pinned(meta) != meta:
        yield f"{META}: its pins are stale; run: python3 tools/dev.py hatch run checks:pins --write"


def check_tag(tag: str) -> Iterator[str]:
    match = TAG.fullmatch(tag)
    if not match or match["name"] not in {package.name for package in PACKAGES}:
        form = "<distribution>-v<version>, as infra-core-fs-v1.0.0"
        yield f"{tag!r} is not a tag of ours; it is {form}"
        return
    package = Package(match["name"])
    if match["version"] != package.version:
        yield f"{tag} does not match the tree, where {package.name} is at {package.version}"
    if unreleased(package).strip():
        yield (
            f"{package.name}: CHANGELOG.md has lines under '## [{UNRELEASED}]', which no version "
            f"would name; run: release.py prepare {package.name} minor"
        )
    if not on_main():
        yield f"{tag} is not on the branch main; merge its commit, and tag that"


def on_main() -> bool:
    """Whether the commit lies on the remote's main, or where there is no remote on ours."""
    main = "origin/main" if git("rev-parse", "--verify", "--quiet", "origin/main") else "main"
    head = git("rev-parse", "HEAD")
    return bool(head) and git("merge-base", "HEAD", main) == head


def check_package(package: Package) -> Iterator[str]:
    if not section(changelog(package), package.version):
        yield f"{package.name}: CHANGELOG.md has no entry for {package.version}"
    last = last_tag(package)
    if last is None:
        return
    released = Version(TAG.fullmatch(last)["version"])  # type: ignore[index]
    current = Version(package.version)
    if current < released:
        yield f"{package.name}: {current} is older than the tag {last}"
    # An unreleased change is fine as long as it is written down for the next release.
    elif current == released and changed_since(package, last) and not unreleased(package).strip():
        yield (
            f"{package.name}: src or pyproject.toml changed since {last}, and CHANGELOG.md "
            f"says nothing under '## [{UNRELEASED}]'"
        )


def check_ranges(package: Package) -> Iterator[str]:
    for line in package.dependencies:
        requirement = Requirement(line)
        if requirement.name not in SLICES or package.name == META:
            continue
        version = Version(Package(requirement.name).version)
        if version not in requirement.specifier:
            yield (
                f"{package.name}: its range {requirement} leaves out {requirement.name} {version} "
                "of the tree; a breaking release bumps its dependants (release.py prepare does)"
            )
        elif not bounded(requirement.specifier, version):
            yield f"{package.name}: {requirement} must end below {version.major + 1}"


def bounded(specifier: SpecifierSet, version: Version) -> bool:
    return Version(f"{version.major + 1}.0.0") not in specifier


# -- push ------------------------------------------------------------------------------------------


def push(remote: str, index: str | None, *, once: bool, unchecked: bool = False) -> None:
    """Tag every package whose version has no tag yet, a turn once what it stands on is published.

    Only a commit of main on which CI is green gets tags: an index takes no version back.

    Run again, it goes on where it was.
    """
    if found := [*problems(None), *git("status", "--porcelain").splitlines()]:
        raise ReleaseError("\n".join(["the tree cannot be released as it is:", *found]))
    while True:
        listed = git_or_fail("ls-remote", "--tags", remote)
        known = {line.rpartition("refs/tags/")[2] for line in listed.splitlines()}
        waiting = [p for p in PACKAGES if tag_of(p) not in known]
        if not waiting:
            print("every version has its tag")
            return
        missing = {p.name for p in waiting}
        missing |= {
            p.name
            for p in PACKAGES
            if p.name not in missing and not is_published(f"{p.name}=={p.version}", index)
        }
        turn = [p for p in waiting if missing.isdisjoint(p.siblings)][:AT_ONCE]
        if turn:
            git_or_fail("fetch", "--quiet", remote, "main")
            if found := [problem for p in turn for problem in check_tag(tag_of(p))]:
                raise ReleaseError("\n".join(found))
            if not unchecked:
                require_green(remote, git_or_fail("rev-parse", "HEAD").strip())
            names = [tag_of(p) for p in turn]
            for name in set(names) - tags():
                git_or_fail("tag", name)
            git_or_fail("push", "--quiet", remote, *names)
            print("pushed", *names, flush=True)
        if once:
            return
        if not turn:
            print("waiting for the index to have", *sorted(missing - {p.name for p in waiting}))
            time.sleep(WAIT)


def require_green(remote: str, commit: str) -> None:
    """Refuse a commit on which CI is not green, or where that cannot be asked."""
    try:
        problem = ci_problem(remote, commit)
    except NotAskedError as error:
        raise ReleaseError(
            f"could not ask whether CI is green on {commit[:12]} ({error}); look at it yourself, "
            "then run this again with --unchecked"
        ) from None
    if problem is not None:
        raise ReleaseError(f"CI is not green on {commit[:12]}: {problem}")


def changed_since(package: Package, tag: str) -> bool:
    folder = package.folder
    paths = [str(folder / "src"), str(folder / "pyproject.toml")]
    return bool(git("diff", "--name-only", tag, "--", *paths).strip())


if __name__ == "__main__":
    sys.exit(main())
