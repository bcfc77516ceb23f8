"""Many small files to disk: each durable before it appears, those that wait together in one go.

`commit_together` says why that is cheaper and what it promises; here the files are also checked and
written in the same hop to a thread.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra_core.fs import AtomicFile, commit_together
from infra_core.runtime import ThreadBatcher

__all__ = ["FileToWrite", "batch_writer"]

# One writer and large batches: a flush of 256 files costs hardly more than one of 32, and what
# comes meanwhile makes the next batch. The caller that fetches the files bounds their bytes.
_MOST_FILES = 256
_WRITERS = 1
# Where flushes take a millisecond, each would serve a file or two, at twice the processor time a
# file of one that serves thirty.
_LINGER = 0.03  # seconds


def _batch_size(most: int) -> int:
    """Files that are open at a time: at most a quarter of what the system lets a process open."""
    if sys.platform == "win32":  # has no such limit
        return most
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if limit < 0 else min(most, max(8, limit // 4))


@dataclass(frozen=True, slots=True)
class FileToWrite:
    """A file that appears whole and durable, or not at all; both hooks may raise to prevent it."""

    path: Path
    data: bytes
    verify: Callable[[], None]
    before_commit: Callable[[], object] = lambda: None

    def __call__(self) -> AtomicFile:
        """Check and write it; it has no name of its own yet."""
        self.verify()
        file = AtomicFile(self.path)
        try:
            file.write(self.data)
        except BaseException:
            file.abort()
            raise
        return file


def batch_writer(
    width: int = _MOST_FILES, *, coming: Callable[[], bool] = lambda: False
) -> ThreadBatcher[FileToWrite]:
    """What writes files in a thread, those that come at the same time together.

    Awaiting a file raises what the disk or its hooks raised. While others are `coming`, a file
    waits a moment for them.
    """
    size = _batch_size(min(width, _MOST_FILES))
    return ThreadBatcher(_write_all, size=size, workers=_WRITERS, linger=_LINGER, coming=coming)


def _write_all(files: list[FileToWrite]) -> list[Exception | None]:
    return commit_together(files, before=lambda file: file.before_commit())
