"""What the package index holds: asked through uv, so that its settings count."""

from __future__ import annotations

import subprocess
import sys

from packaging.requirements import Requirement

# uv's words for an answer that says no; anything else is an index that did not answer.
_NO = ("was not found in the package registry", "there is no version of", "there are no versions")
_REFUSED = ("401", "403", "network was disabled")


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["uv", "--quiet", *arguments], text=True, capture_output=True)


def where(index: str | None) -> list[str]:
    """The options that have uv ask an index before the others."""
    return ["--index", index] if index else []


def is_published(requirement: str, index: str | None = None) -> bool:
    """Whether the index has a version that fits, such as `infra-core-fs>=1.0.0,<2`.

    Ends the program where the index does not answer: that is not an answer that it has none.
    """
    name = Requirement(requirement).name
    asked = uv(
        "pip", "install", "--dry-run", "--no-deps", "--python", sys.executable, *where(index),
        f"--refresh-package={name}", "--reinstall", requirement,
    )  # fmt: skip
    if asked.returncode == 0:
        return True
    text = " ".join(asked.stderr.split())
    if asked.returncode == 1 and any(no in text for no in _NO) and not _refused(text):
        return False
    raise SystemExit(
        f"the index does not say whether it has {requirement}; try again when it answers:\n"
        f"{asked.stderr}"
    )


def _refused(text: str) -> bool:
    return any(word in text.partition("hint:")[2] for word in _REFUSED)
