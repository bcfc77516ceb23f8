"""The one atomic writer: hash while writing, commit whole or leave nothing."""

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ._checksum import canonical_algorithm, new_hasher
from ._errors import AtomicFileClosed, ChecksumAlgorithmError, no_path, write_error
from ._names import temp_name
from ._paths import ensure_parent
from ._replace import check_target, default_mode, fsync_directory, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["AtomicFile"]

_BUFFER: Final = 1 << 13  # bytes; small writes are gathered, larger ones pass straight through
_WRITE_BEHIND: Final = 1 << 23  # bytes; the disk works while the rest of a large file comes
_OWNER_ONLY: Final = 0o600
_ALL_BITS: Final = 0o777  # a mode that was written in decimal, such as 644, is above
_CREATE_FLAGS: Final = (
    os.O_RDWR | os.O_CREAT | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip


class AtomicFile:
    """A file that appears under its name whole, or not at all.

    Bytes go to a temporary file of a unique name in the same folder, readable by its owner
    alone, and are hashed on the way. `commit()` flushes them to the disk (`fsync`), moves the
    file into place with `os.replace` and flushes the folder. A reader sees the old file or the
    new one, never a mixture; concurrent writers each commit a whole file, the last one stays.

    As a context manager it commits on a clean exit and aborts on any exception, cancellation and
    `KeyboardInterrupt` included. A symbolic link at `path` is replaced, not followed.

    Args:
        path: Where the file shall stand; a relative one counts from the working folder of now.
            Missing folders are made.
        algorithms: Hash algorithms to feed while writing; see `hexdigest`.
        mode: Permission bits of the final file. By default those of the file that is replaced,
            or for a new one what the umask (or the folder's default ACL) gives.
        durable: Flush file and folder to the disk. False is faster and still atomic for readers;
            only a power cut can lose the file.

    Attributes:
        path: Where the file shall stand.
        temp_path: Where its bytes are until the commit.
        size: Bytes written so far.

    Raises:
        FileWriteError: Disk full, read-only folder and so on (also an `OSError` with `errno`);
            nothing is left behind and the old file stands. Also where a device, a pipe or a socket
            has that path, which a file would take the place of.
        ChecksumAlgorithmError: One of `algorithms` is unknown; nothing has been created.
        UnsafePathError: No file can have that path, which has a NUL or a lone surrogate.
        ValueError: `mode` is none.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "data.bin"
        >>> with AtomicFile(target, algorithms=["sha256"]) as file:
        ...     for chunk in (b"ab", b"c"):
        ...         _ = file.write(chunk)
        >>> file.size, file.hexdigest()[:8], target.read_bytes()
        (3, 'ba7816bf', b'abc')
    """

    path: Path
    temp_path: Path
    size: int

    def __init__(
        self,
        path: "Path | str",
        *,
        algorithms: "Iterable[str]" = (),
        mode: int | None = None,
        durable: bool = True,
    ) -> None:
        self._file: BinaryIO | None = None
        if mode is not None and not (isinstance(mode, int) and 0 <= mode <= _ALL_BITS):
            shown = oct(mode) if isinstance(mode, int) else repr(mode)
            raise ValueError(f"mode={shown} is not a file mode; write it in octal: mode=0o644")
        if isinstance(algorithms, str):
            raise ChecksumAlgorithmError(
                f"algorithms={algorithms!r} is one name, not several; write [{algorithms!r}]"
            )
        self.path = path if isinstance(path, Path) else Path(path)
        self.size = 0
        self._begun = 0  # bytes that the kernel was asked to write
        self._mode = mode
        self._durable = durable
        self._hashers = {canonical_algorithm(name): new_hasher(name) for name in algorithms}
        try:
            # The working folder may be another one by the commit.
            self._target = self.path.absolute()
            self.temp_path = self._target.parent / temp_name(self.path.name)
            if not self.path.name:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            check_target(self._target)
            self._owner = os.getpid()
            try:
                descriptor = os.open(self.temp_path, _CREATE_FLAGS, _OWNER_ONLY)
            except OSError:  # most folders exist; the others cost a second try
                ensure_parent(self._target)
                descriptor = os.open(self.temp_path, _CREATE_FLAGS, _OWNER_ONLY)
            self._file = os.fdopen(descriptor, "wb", buffering=_BUFFER)
        except OSError as error:
            raise write_error(error, self.path) from error
        except ValueError as error:  # of the system's path encoding
            raise no_path(error, path) from error

    def write(self, data: "bytes | bytearray | memoryview") -> int:
        """Append bytes and feed the hashes.

        Returns:
            The number of bytes taken: always all of them.

        Raises:
            FileWriteError: The disk refuses; call `abort()` or leave the `with` block.
            TypeError: These are not bytes.
        """
        file = self._open_file()
        try:
            count = file.write(data)
        except TypeError as error:
            raise TypeError(
                f"{self.path} is written in bytes, not {type(data).__name__}; encode text, and "
                "give a stream as an iterable of bytes"
            ) from error
        except OSError as error:
            raise write_error(error, self.path) from error
        for hasher in self._hashers.values():
            hasher.update(data)
        self.size += count
        if self._durable and self.size - self._begun >= _WRITE_BEHIND:
            self._start_writing()
        return count

    def flush(self) -> None:
        """Hand all bytes so far to the system, so that `temp_path` can be read; no `fsync`.

        Raises:
            FileWriteError: The disk refuses.
        """
        file = self._open_file()
        try:
            file.flush()
        except OSError as error:
            raise write_error(error, self.path) from error

    def truncate(self) -> None:
        """Drop all bytes and hashes so far, to start over from zero."""
        file = self._open_file()
        try:
            file.seek(0)
            file.truncate()
        except OSError as error:
            raise write_error(error, self.path) from error
        self.size = self._begun = 0
        self._hashers = {name: new_hasher(name) for name in self._hashers}

    def hexdigest(self, algorithm: str = "sha256") -> str:
        """Return the hex digest of all bytes written so far.

        Raises:
            ChecksumAlgorithmError: The algorithm was not named in `algorithms`.
        """
        hasher = self._hashers.get(canonical_algorithm(algorithm))
        if hasher is None:
            raise ChecksumAlgorithmError(
                f"{algorithm!r} was not computed while {self.path} was written; name it in "
                "algorithms=[...] when the file is opened"
            )
        return hasher.hexdigest()

    @property
    def digests(self) -> dict[str, str]:
        """All digests so far by algorithm."""
        return {name: hasher.hexdigest() for name, hasher in self._hashers.items()}

    @property
    def closed(self) -> bool:
        """Whether the file has been committed or aborted."""
        return self._file is None

    def commit(self) -> Path:
        """Flush the bytes to the disk and move the file into its place.

        Returns:
            The final path.

        Raises:
            FileWriteError: It failed; the temporary file is gone and the old file stands.
            AtomicFileClosed: It has been committed or aborted before.
        """
        self._hand_to_kernel({})
        self._flush_to_disk()
        self._take_name()
        if self._durable:
            fsync_directory(self._target.parent)
        return self.path

    def abort(self) -> None:
        """Remove the temporary file; does nothing after a commit or another abort."""
        file, self._file = self._file, None
        if self._owner != os.getpid():  # a forked child must not remove its parent's work
            return
        self._owner = 0
        try:
            if file is not None:  # first: Windows removes no open file
                with contextlib.suppress(OSError):  # a full disk refuses the last buffer as well
                    file.close()
        finally:
            with contextlib.suppress(OSError):
                self.temp_path.unlink()

    def leave_as(self, path: "Path | str") -> None:
        """Close the file and leave its bytes under another name, to be continued at another time.

        Nothing is flushed to the disk, and the file keeps its owner's permissions alone.

        Raises:
            FileWriteError: It failed, and the temporary file is gone.
            AtomicFileClosed: It has been committed or aborted before.
        """
        self._take_name(Path(path))

    def fileno(self) -> int:
        """Return the descriptor of the open temporary file, to lock it, say.

        Raises:
            AtomicFileClosed: It has been committed or aborted.
        """
        return self._open_file().fileno()

    def _hand_to_kernel(self, modes: dict[str, int]) -> None:
        """Write out all that is the file's own, so that a flush covers it."""
        file = self._open_file()
        self._or_abort(file.flush)
        self._or_abort(self._set_mode, file.fileno(), modes)

    def _start_writing(self) -> None:
        """Let the kernel begin to write what is new, so that a flush waits less; only a hint.

        Linux begins to write what it is advised to forget, and forgets none of it meanwhile.
        """
        begin, self._begun = self._begun, self.size
        if sys.platform != "win32" and hasattr(os, "posix_fadvise"):
            file = self._open_file()
            with contextlib.suppress(OSError):  # the next write or flush reports a full disk
                file.flush()
                os.posix_fadvise(file.fileno(), begin, self.size - begin, os.POSIX_FADV_DONTNEED)

    def _flush_to_disk(self) -> None:
        file = self._open_file()
        if self._durable:
            self._or_abort(os.fsync, file.fileno())

    def _take_name(self, name: Path | None = None) -> None:
        """Move the file into its place, or to another; aborts where that fails."""
        file = self._open_file()
        self._or_abort(file.close)
        self._or_abort(replace_file, self.temp_path, name or self._target, self._durable)
        self._file = None

    def _or_abort(self, step: "Callable[..., object]", *args: object) -> None:
        try:
            step(*args)
        except OSError as error:
            self.abort()
            raise write_error(error, self.path) from error
        except BaseException:
            self.abort()
            raise

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise AtomicFileClosed(
                f"{self.path} has been committed or aborted; open a new AtomicFile to write it "
                "again"
            )
        return self._file

    def _set_mode(self, descriptor: int, modes: dict[str, int]) -> None:
        if not hasattr(os, "fchmod"):  # Windows before 3.13: permission bits mean little there
            return
        mode = self._mode
        if mode is None:
            try:
                status = os.lstat(self._target)
                mode = stat.S_IMODE(status.st_mode) & 0o777
                if not stat.S_ISREG(status.st_mode):
                    raise FileNotFoundError
            except FileNotFoundError:
                mode = default_mode(self.temp_path.parent, modes)
        os.fchmod(descriptor, mode)

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: BaseException | None,
        traceback: "TracebackType | None",
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._file is not None:
            self.commit()

    def __del__(self) -> None:
        if getattr(self, "_owner", 0) and getattr(self, "_file", None) is not None:
            self.abort()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<AtomicFile {str(self.path)!r} {state}, {self.size} bytes>"
