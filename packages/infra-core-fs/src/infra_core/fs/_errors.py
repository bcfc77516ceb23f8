"""Errors of the file-system slice.

The tree::

    FsError
    ├── UnsafePathError            (ValueError)       a name would leave its base folder
    ├── ChecksumAlgorithmError     (ValueError)       no such hash algorithm here
    ├── ChecksumFormatError        (ValueError)       not of the form "algorithm:hexdigest"
    ├── ChecksumFileError          (OSError)          the file to hash cannot be read
    │   └── ChecksumFileMissing    (FileNotFoundError)
    ├── FileWriteError             (OSError)          an atomic write failed, the old file stands
    │   └── FileWriteDenied        (PermissionError)
    ├── FileLockUnsupported        (OSError)          the file system has no locks
    └── AtomicFileClosed           (ValueError)       written to after commit or abort

Each one is also the built-in error in brackets, so that code which catches `OSError`,
`PermissionError`, `FileNotFoundError` or `ValueError` keeps working.
"""

import os
from functools import partial

__all__ = [
    "AtomicFileClosed",
    "ChecksumAlgorithmError",
    "ChecksumFileError",
    "ChecksumFileMissing",
    "ChecksumFormatError",
    "FileLockUnsupported",
    "FileWriteDenied",
    "FileWriteError",
    "FsError",
    "UnsafePathError",
    "no_path",
    "write_error",
]


class FsError(Exception):
    """Root of all errors that this package raises itself."""


class UnsafePathError(FsError, ValueError):
    """A relative name would leave, or could not safely live in, its base folder.

    Attributes:
        path: The offending name as it was given.
        base: The folder it was to be joined to.
    """

    def __init__(self, message: str, *, path: str, base: "str | os.PathLike[str]") -> None:
        super().__init__(message)
        self.path = path
        self.base = base

    def __reduce__(self) -> "tuple[object, ...]":
        # keyword-only arguments do not survive the default pickling of exceptions
        return partial(type(self), path=self.path, base=self.base), (str(self),)


class ChecksumAlgorithmError(FsError, ValueError):
    """The hash algorithm is not known to this Python's `hashlib`."""


class ChecksumFormatError(FsError, ValueError):
    """A checksum is not written as `algorithm:hexdigest`."""


class ChecksumFileError(FsError, OSError):
    """The file whose checksum is wanted cannot be read; `errno` and `filename` say why."""


class ChecksumFileMissing(ChecksumFileError, FileNotFoundError):  # noqa: N818 - reads as the fact
    """The file whose checksum is wanted does not exist."""


class FileWriteError(FsError, OSError):
    """An atomic write failed: what stood at the path before still stands there, whole."""


class FileWriteDenied(FileWriteError, PermissionError):  # noqa: N818 - reads as the fact
    """An atomic write failed because permission is missing."""


class FileLockUnsupported(FsError, OSError):  # noqa: N818 - reads as the fact
    """The file system has no locks, as some network shares."""

    def __init__(self, path: "str | os.PathLike[str]") -> None:
        import errno

        super().__init__(
            errno.ENOLCK,
            "the file system supports no file locks; choose a folder on one that does",
            os.fspath(path),
        )
        self.path = path

    def __reduce__(self) -> "tuple[object, ...]":
        return type(self), (self.path,)


class AtomicFileClosed(FsError, ValueError):  # noqa: N818 - reads as the fact
    """An `AtomicFile` was used after its commit or abort."""


_REMEDIES = {
    "ENOSPC": "free some space or choose another folder",
    "EDQUOT": "raise the quota or choose another folder",
    "EFBIG": "raise the limit on file sizes (ulimit -f) or write less",
    "EROFS": "the file system is mounted read-only; choose another folder",
    "EACCES": "give this user write permission on the folder",
    "EPERM": "give this user write permission on the folder",
    "ENOTDIR": "a part of the path is a file; choose another path",
    "EEXIST": "a part of the path is a file; choose another path",
    "EISDIR": "the path is a folder; name a file below it",
    "ENAMETOOLONG": "shorten the file name, of at most 255 bytes, or the path",
    "EMFILE": "close files or raise the limit (ulimit -n)",
    "ENOENT": "its folder was removed meanwhile; write the file again",
    "ELOOP": "symbolic links on the path lead in a circle; choose another path",
    "EIO": "check the disk",
    "ENXIO": "name an ordinary file",
}


def no_path(error: ValueError, path: "str | os.PathLike[str]") -> UnsafePathError:
    """Turn what Python says of a path that the system cannot be given into one that helps."""
    name = os.fspath(path)
    remedy = "take out NUL characters and lone surrogates"
    if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
        remedy = "set PYTHONUTF8=1, or a locale of UTF-8 (LC_ALL=C.UTF-8)"
    return UnsafePathError(
        f"{name!r} cannot be the path of a file ({error}); {remedy}",
        path=name,
        base=os.path.dirname(name),  # noqa: PTH120 - pathlib would cost its import here
    )


def write_error(error: OSError, path: "str | os.PathLike[str]") -> FileWriteError:
    """Turn an `OSError` met while writing `path` into one that says what to do."""
    import errno

    code = errno.errorcode.get(error.errno or 0, "")
    remedy = _REMEDIES.get(code, "check the folder and its disk")
    message = (
        f"could not write the file ({error.strerror or error}); "
        f"what was there before is unchanged; {remedy}"
    )
    kind = FileWriteDenied if isinstance(error, PermissionError) else FileWriteError
    return kind(error.errno, message, os.fspath(path))
