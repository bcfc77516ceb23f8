"""The last step of an atomic write: permissions, the move into place, the folder's flush."""

import contextlib
import errno
import os
import stat
import time
from pathlib import Path
from typing import Final

from ._names import temp_name

__all__ = [
    "bits_of",
    "bits_of_new_file",
    "check_target",
    "fsync_directory",
    "replace_file",
]

_COPY_SIZE: Final = 1 << 20
# A target that is a mount point of its own (a file bind-mounted into a container) answers a rename
# with EBUSY, some union and network file systems with EXDEV: neither can be renamed onto.
_NOT_RENAMABLE: Final = {errno.EXDEV, errno.EBUSY}
# What Windows says while anybody has the target open, as readers and virus scanners do for moments:
# ERROR_ACCESS_DENIED and ERROR_SHARING_VIOLATION. It is tried again for about a second.
_IN_USE: Final = {5, 32}
_PAUSES: Final = tuple(0.001 * 2**number for number in range(10))
# File systems that know no flush of folders, and folders that may be entered but not read; Windows
# opens none.
_NO_FOLDER_FLUSH: Final = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF}

_FOLDER_FLAGS: Final = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


def fsync_directory(path: "Path | str") -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut.

    Does nothing on Windows and on file systems that cannot do it.

    Raises:
        OSError: The disk reports an error (`EIO`), or the folder does not exist.

    Example:
        >>> fsync_directory(tempfile.mkdtemp())
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _FOLDER_FLAGS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _NO_FOLDER_FLUSH:
            return
        if error.filename is None:  # of the flush, which knows only a number
            raise OSError(
                error.errno,
                f"could not flush the folder ({error.strerror}); a power cut may lose its newest "
                "files; check the disk",
                os.fspath(path),
            ) from error
        raise


def check_target(path: Path) -> bool:
    """Say whether something has this path already.

    Raises:
        OSError: It is what a file must not take the place of, as root could: `/dev/null`,
            `/dev/stdout`; or the name is too long.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - one system call is enough here
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise  # and not at the end of a long download
        return False  # nothing is there, or a link that leads nowhere
    # `/dev/stdout` may lead to a file
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or os.path.dirname(path) == "/dev":  # noqa: PTH120
        raise OSError(errno.ENXIO, "it is a device, pipe or socket")
    return True


def bits_of(path: Path) -> int | None:
    """Return the permission bits of a file; None where there is none, but a link, say."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    return stat.S_IMODE(mode) & 0o777 if stat.S_ISREG(mode) else None


def bits_of_new_file(folder: Path) -> int:
    """Return the permission bits that a new file gets in a folder.

    The umask can only be read by setting it, for all threads at once, and a folder's default ACL
    overrules it: so an empty file is made and looked at.
    """
    probe = folder / temp_name("mode")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        os.unlink(probe)  # noqa: PTH108 - one system call is enough here


def replace_file(source: Path, target: Path, durable: bool) -> None:
    """Move `source` onto `target` in one step, or by copy where it cannot be renamed onto."""
    try:
        _rename(source, target)
    except OSError as error:
        if error.errno not in _NOT_RENAMABLE or target.is_dir():
            raise
        _overwrite(source, target, durable=durable)
        source.unlink()


def _rename(source: Path, target: Path) -> None:
    for pause in _PAUSES:
        try:
            return os.replace(source, target)  # noqa: PTH105 - one system call is enough here
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _IN_USE or target.is_dir():
                raise
        time.sleep(pause)
    return os.replace(source, target)  # noqa: PTH105


def _overwrite(source: Path, target: Path, *, durable: bool) -> None:
    """Copy `source` over `target` in place, putting the old bytes back if that fails.

    Not atomic for readers, which no way of writing to such a target is. The whole new file stays
    beside it, flushed, until the copy is complete.
    """
    backup = target.with_name(temp_name(target.name)) if target.exists() else None
    try:
        if backup is not None:
            _copy(target, backup, durable=durable)
        try:
            _copy(source, target, durable=durable)
        except BaseException:
            if backup is None:
                target.unlink(missing_ok=True)
            else:
                _copy(backup, target, durable=durable)
            raise
    finally:
        if backup is not None:
            with contextlib.suppress(OSError):
                backup.unlink()


def _copy(source: Path, target: Path, *, durable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
    with (
        source.open("rb", buffering=0) as reader,
        open(os.open(target, flags, 0o600), "wb") as writer,  # noqa: PTH123 - needs the flags
    ):
        size = 0
        while chunk := reader.read(_COPY_SIZE):
            size += writer.write(chunk)
        writer.flush()
        # cut only now: a target that shrinks first would be empty when the disk is full
        writer.truncate(size)
        if durable:
            os.fsync(writer.fileno())
        if hasattr(os, "fchmod"):
            with contextlib.suppress(PermissionError):  # a file of another owner keeps its bits
                os.fchmod(writer.fileno(), stat.S_IMODE(os.fstat(reader.fileno()).st_mode))
