"""Whether CI is green on a commit: asked of GitHub, whose answer for a public repository is free.

A private one needs a token: `GH_TOKEN`, `GITHUB_TOKEN`, or a login of the command `gh`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from typing import Any

from tags import git

__all__ = ["NotAskedError", "ci_problem"]

WORKFLOW = "ci.yml"
_REPOSITORY = re.compile(
    r"(?:https://(?:[^/@]*@)?|(?:ssh://)?git@)github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?"
)


class NotAskedError(Exception):
    """The state of CI is not known; the message says why."""


def ci_problem(remote: str, commit: str) -> str | None:
    """Why a commit of main may not be released yet; `None` where CI is green on it.

    Raises:
        NotAskedError: GitHub could not be asked.
    """
    # https://docs.github.com/rest/actions/workflow-runs#list-workflow-runs-for-a-workflow
    query = f"head_sha={commit}&branch=main&event=push"
    runs = _ask(f"repos/{_repository(remote)}/actions/workflows/{WORKFLOW}/runs?{query}")
    if not runs:
        return f"{WORKFLOW} has not run for it; push it as the last commit of main"
    newest = max(runs, key=lambda run: run["run_number"])
    if newest["status"] != "completed":
        return f"{WORKFLOW} is {newest['status']}; wait for {newest['html_url']}"
    if newest["conclusion"] != "success":
        return f"{WORKFLOW} ended as {newest['conclusion']}; see {newest['html_url']}"
    return None


def _repository(remote: str) -> str:
    url = git("remote", "get-url", remote).strip()
    found = _REPOSITORY.fullmatch(url)
    if found is None:
        raise NotAskedError(f"the remote {remote!r} is not on github.com")
    return found[1]


def _ask(path: str) -> list[dict[str, Any]]:
    base = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    request = urllib.request.Request(f"{base}/{path}")
    request.add_header("Accept", "application/vnd.github+json")
    if token := _token():
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return list(json.load(answer)["workflow_runs"])
    except urllib.error.HTTPError as error:
        error.close()
        hint = "" if token else "; a private repository needs GH_TOKEN, or `gh auth login`"
        raise NotAskedError(f"GitHub answered {error.code}{hint}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotAskedError(f"{type(error).__name__}: {error}") from None


def _token() -> str:
    for name in ("GH_TOKEN", "GITHUB_TOKEN"):
        if token := os.environ.get(name):
            return token
    if shutil.which("gh") is None:
        return ""
    asked = subprocess.run(["gh", "auth", "token"], text=True, capture_output=True)
    return asked.stdout.strip()
