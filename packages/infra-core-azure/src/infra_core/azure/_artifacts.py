"""Files that this library keeps beside a run's artifacts, and which no tree or manifest takes.

Locks, states and journals belong to the process that works in a folder: mirrored and brought back,
they would undo what happened since. The run log has a mirror of its own, see `is_run_log`.
"""

import re
from pathlib import Path

__all__ = ["MIRROR_STATE", "is_own_state", "is_run_log", "run_log_is_mirrored", "run_log_lives"]

MIRROR_STATE = "_state/run_log_mirror.json"
"""Where a run log keeps how far its mirror has come, below the run's folder."""

# `_state/run.lock`, `_state/run_log_mirror.lock`; what was written beside a file before it was
# renamed; and whatever begins with the name of this library.
_OWN = re.compile(
    r"(?:.*/)?(?:_state/(?:run_log_mirror\.json|[^/]+\.lock)|\.infra-core[^/]*(?:/.*)?)",
    re.DOTALL,
)
_RUN_LOG = re.compile(r"((?:.*/)?)_logs/run(?:\.\d{6,})?\.log", re.DOTALL | re.ASCII)


def is_own_state(name: str) -> bool:
    """Whether a relative path is a lock or state of this library, at any depth.

    Example:
        >>> is_own_state("run-1/_state/run_log_mirror.json"), is_own_state("poetry.lock")
        (True, False)
    """
    return _OWN.fullmatch(name) is not None


def is_run_log(name: str) -> bool:
    """Whether a relative path is a run log, or a part of one, at any depth."""
    return _RUN_LOG.fullmatch(name) is not None


def run_log_lives(root: Path, name: str) -> bool:
    """Whether the run log that `name` below `root` is a part of is mirrored from here, and here.

    A part that is not on this disk is none that is missing: the blobs of a log end where their
    limits are, and its files where theirs are. Brought here, its lines would be sent once more.
    """
    return run_log_is_mirrored(root, name) and (
        (root / name).exists() or (root / name).with_name("run.log").exists()
    )


def run_log_is_mirrored(root: Path, name: str) -> bool:
    """Whether the run log at `name` below `root` has, or had, a mirror of its own from here."""
    found = _RUN_LOG.fullmatch(name)
    if found is None:
        return False
    state = root / found[1] / MIRROR_STATE
    return state.exists() or state.with_suffix(".lock").exists()
