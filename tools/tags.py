"""What git knows of the releases: the tags of the packages."""

from __future__ import annotations

import re
import subprocess

from packaging.version import Version

from tree import ROOT, Package

TAG = re.compile(r"(?P<name>infra-core(?:-[a-z]+)?)-v(?P<version>\d+\.\d+\.\d+\S*)")


class GitError(Exception):
    """A command of git failed; the message says which, and why."""


def tag_of(package: Package) -> str:
    return f"{package.name}-v{package.version}"


def tags() -> set[str]:
    return set(git("tag", "--list", "infra-core*").split())


def last_tag(package: Package) -> str | None:
    own = [m for tag in tags() if (m := TAG.fullmatch(tag)) and m["name"] == package.name]
    return max(own, key=lambda m: Version(m["version"])).group() if own else None


def git(*arguments: str) -> str:
    """What a command of git prints; nothing where it fails."""
    try:
        return git_or_fail(*arguments)
    except GitError:
        return ""


def git_or_fail(*arguments: str) -> str:
    """What a command of git prints.

    Raises:
        GitError: It failed.
    """
    done = subprocess.run(["git", *arguments], cwd=ROOT, text=True, capture_output=True)
    if done.returncode:
        raise GitError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
