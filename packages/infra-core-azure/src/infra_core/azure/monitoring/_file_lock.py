"""Exclusive locks on open files, between processes; released by the system when one dies."""

import os
import sys

__all__ = ["lock", "try_lock", "unlock"]

if sys.platform == "win32":
    import msvcrt

    _FAR = 0x7FFF_FFFF  # a byte that no content reaches: locks are mandatory there

    def _locking(fd: int, mode: int) -> None:
        position = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(fd, mode, 1)
        finally:
            os.lseek(fd, position, os.SEEK_SET)

    def lock(fd: int) -> bool:
        """Wait for the lock; False when the file system has none."""
        try:
            _locking(fd, msvcrt.LK_LOCK)
        except OSError:
            return False
        return True

    def try_lock(fd: int) -> bool:
        """Take the lock if nobody has it."""
        try:
            _locking(fd, msvcrt.LK_NBLCK)
        except OSError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        _locking(fd, msvcrt.LK_UNLCK)

else:
    import errno
    import fcntl

    def lock(fd: int) -> bool:
        """Wait for the lock; False when the file system has none (some network shares)."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        return True

    def try_lock(fd: int) -> bool:
        """Take the lock if nobody has it; True as well where the file system has no locks."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return True
            raise
        return True

    def unlock(fd: int) -> None:
        """Give the lock back."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    _NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
