"""The folder of a run, and the lock that keeps two runs of one batch apart."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._arguments import CommandError

__all__ = ["JOBS_FILE", "MANIFEST_FILE", "exclusive", "run_folder"]

JOBS_FILE = "jobs.sqlite3"
MANIFEST_FILE = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def run_folder(out: Path, batch_id: str) -> Path:
    """The folder of a batch below the output folder.

    Raises:
        CommandError: The batch id cannot be a folder's name.
    """
    if not NAME.fullmatch(batch_id) or batch_id.endswith("."):
        raise CommandError(
            f"--batch-id {batch_id!r} names a folder: use up to 128 letters, digits, '.', '_' "
            "and '-', the first a letter or digit"
        )
    return out / batch_id


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the batch: a second run of it at the same time is refused.

    The lock is the operating system's, so a killed run leaves none behind.

    Raises:
        CommandError: Another process runs this batch.
    """
    path = folder / "_state" / "run.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+b")
    except OSError as error:
        raise CommandError(
            f"cannot write {str(path)!r}: {error.strerror}; choose another --out, or move what is "
            "in the way"
        ) from None
    with handle:
        try:
            lock(handle.fileno())
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise CommandError(
                    f"cannot lock {str(path)!r}: {error.strerror}; put --out on a file system "
                    "that knows locks"
                ) from None
            raise CommandError(
                f"another process is running this batch ({path} is locked); wait for it, or "
                "choose another --batch-id"
            ) from None
        yield


if sys.platform == "win32":
    import msvcrt

    def lock(descriptor: int) -> None:
        """Lock the first byte of the file, or raise OSError."""
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def lock(descriptor: int) -> None:
        """Lock the file, or raise OSError."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
