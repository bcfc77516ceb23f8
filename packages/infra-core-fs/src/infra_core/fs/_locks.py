"""Exclusive locks between processes, which the operating system gives back when one dies.

`FileLock` is for what is held for long, such as a run's folder. Where a file is written by many
and each write is short, as with a log, `lock_descriptor` locks that file itself: two microseconds
in place of a hundred, and no second file.
"""

import errno
import os
import sys
import time
from typing import TYPE_CHECKING

from ._errors import FileLockUnsupported

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["FileLock", "lock_descriptor", "unlock_descriptor"]

# Seconds: as long as it takes. In a wait that has no end, and in no other, `filelock` before 4.1
# remembers which thread holds a file; a release in another thread leaves that memory stale, and the
# next wait of the first one is refused as a deadlock.
_FOREVER = 1e9

# A file system that has no locks, as some network shares: ENOLCK, ENOSYS, EOPNOTSUPP, EINVAL.
_UNSUPPORTED = ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL")


class FileLock:
    """An exclusive lock on a file of its own, between threads and processes.

    Stands on `filelock`. The file and its folders are made when they are missing, the file stays
    empty and may be left behind; what it protects is another file or a folder. The system gives
    the lock back when its holder dies, however that happens. It may be acquired in one thread and
    released in another. A forked child does not hold its parent's lock.

    Args:
        path: The lock's own file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, FileLock(f"{folder}/run.lock"):
        ...     FileLock(f"{folder}/run.lock").acquire(timeout=0)
        False
    """

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        self.path = path
        self._lock: BaseFileLock | None = None

    def acquire(self, *, timeout: float | None = None) -> bool:
        """Take the lock.

        Args:
            timeout: Seconds to wait for it; `None` for as long as it takes, 0 for one try.

        Returns:
            Whether it was taken; false when somebody else still has it.

        Raises:
            FileLockUnsupported: The file system has no locks (some network shares).
            OSError: The lock's file cannot be made or opened.
            RuntimeError: This object holds the lock already.
            ValueError: The timeout is negative, or no number.
        """
        import filelock

        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
            raise ValueError(
                f"timeout={timeout!r} is not 0 or more: pass the seconds to wait, or None for as "
                "long as it takes"
            )
        if self._lock is not None:
            raise RuntimeError(f"{os.fspath(self.path)!r} is locked by this object: release it")
        # No soft lock in its place, a file that a killed holder leaves behind.
        lock = filelock.FileLock(os.fspath(self.path), thread_local=False, fallback_to_soft=False)
        try:
            if timeout == 0:
                lock.acquire(blocking=False)
            else:
                lock.acquire(timeout=_FOREVER if timeout is None else timeout, poll_interval=0.02)
        except filelock.Timeout:
            return False
        except OSError as error:
            if _is_unsupported(error):
                raise FileLockUnsupported(self.path) from error
            raise
        self._lock = lock
        return True

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def _is_unsupported(error: OSError) -> bool:
    return errno.errorcode.get(error.errno or 0) in _UNSUPPORTED


if sys.platform == "win32":
    import msvcrt

    _FAR = 0x7FFF_FFFF  # a byte that no content reaches: locks are mandatory there
    _TAKEN = {errno.EACCES, errno.EDEADLK}
    _PAUSE = 0.005  # LK_LOCK would try once a second, and give up after ten

    def _flock(fd: int, *, wait: bool) -> None:
        while True:
            try:
                return _locking(fd, msvcrt.LK_NBLCK)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                if not wait:
                    raise BlockingIOError from None
            time.sleep(_PAUSE)

    def _locking(fd: int, mode: int) -> None:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(fd, mode, 1)
        finally:
            os.lseek(fd, position, os.SEEK_SET)

    def unlock_descriptor(fd: int) -> None:
        """Give the lock on an open file back; closing the file does that as well."""
        _locking(fd, msvcrt.LK_UNLCK)

else:
    import fcntl

    def _flock(fd: int, *, wait: bool) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_descriptor(fd: int) -> None:
        """Give the lock on an open file back; closing the file does that as well."""
        fcntl.flock(fd, fcntl.LOCK_UN)


def lock_descriptor(fd: int, *, wait: bool = True) -> bool:
    """Lock an open file against all who lock it, other descriptors of this process included.

    Args:
        fd: The file's descriptor. A forked child shares it, and its lock.
        wait: Wait for the lock.

    Returns:
        Whether it was taken; false without `wait`, when somebody else has it.

    Raises:
        FileLockUnsupported: The file system has no locks (some network shares).
    """
    try:
        _flock(fd, wait=wait)
    except BlockingIOError:
        return False
    except OSError as error:
        if _is_unsupported(error):
            raise FileLockUnsupported(f"file descriptor {fd}") from error
        raise
    return True
