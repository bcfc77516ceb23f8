"""The one atomic writer: hash while writing, commit whole or leave nothing."""

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ._checksum import canonical_algorithm, new_hasher
from ._errors import AtomicFileClosed, ChecksumAlgorithmError, no_path, write_error
from ._names import temp_name
from ._paths import ensure_parent
from ._replace import bits_of, bits_of_new_file, check_target, fsync_directory, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

T = TypeVar("T")

__all__ = ["AtomicFile"]

_BUFFER: Final = 1 << 13  # bytes; small writes are gathered, larger ones pass straight through
_WRITE_BEHIND: Final = 1 << 23  # bytes; the disk works while the rest of a large file comes
_OWNER_ONLY: Final = 0o600
_AS_ANY: Final = 0o666  # less what the umask takes
_ALL_BITS: Final = 0o777  # a mode that was written in decimal, such as 644, is above
_CREATE_FLAGS: Final = (
    os.O_RDWR | os.O_CREAT | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip


class AtomicFile:
    """A file that appears under its name whole, or not at all.

    Bytes go to a temporary file of a unique name in the same folder and are hashed on the way; it
    is readable by its owner alone, or as any new file where the final one is new and has no `mode`.
    `commit()` flushes the bytes to the disk (`fsync`), moves the file into place with `os.replace`
    and flushes the folder. A reader sees the old file or the new one, never a mixture; concurrent
    writers each commit a whole file, the last one stays.

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
        self._descriptor: int | None = None
        if mode is not None and not (isinstance(mode, int) and 0 <= mode <= _ALL_BITS):
            shown = oct(mode) if isinstance(mode, int) else repr(mode)
            raise ValueError(f"mode={shown} is not a file mode; write it in octal: mode=0o644")
        if isinstance(algorithms, str):
            raise ChecksumAlgorithmError(
                f"algorithms={algorithms!r} is one name, not several; write [{algorithms!r}]"
            )
        self.path = path if isinstance(path, Path) else Path(path)
        self.size = 0
        self._held: list[bytes] = []  # small writes, to go to the system together
        self._held_size = 0
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
            self._replaces = check_target(self._target)
            # One that is to have other bits gets them when it is whole.
            bits = _AS_ANY if mode is None and not self._replaces else _OWNER_ONLY
            self._owner = os.getpid()
            try:
                self._descriptor = os.open(self.temp_path, _CREATE_FLAGS, bits)
            except OSError:  # most folders exist; the others cost a second try
                ensure_parent(self._target)
                self._descriptor = os.open(self.temp_path, _CREATE_FLAGS, bits)
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
        self._open()
        if not isinstance(data, bytes):  # the caller may change it before it is written
            try:
                data = bytes(memoryview(data))
            except TypeError as error:
                raise TypeError(
                    f"{self.path} is written in bytes, not {type(data).__name__}; encode text, and "
                    "give a stream as an iterable of bytes"
                ) from error
        for hasher in self._hashers.values():
            hasher.update(data)
        self._held.append(data)
        self._held_size += len(data)
        self.size += len(data)
        if self._held_size >= _BUFFER:
            self.flush()
        if self._durable and self.size - self._begun >= _WRITE_BEHIND:
            self._start_writing()
        return len(data)

    def flush(self) -> None:
        """Hand all bytes so far to the system, so that `temp_path` can be read; no `fsync`.

        Raises:
            FileWriteError: The disk refuses.
        """
        try:
            self._write_out()
        except OSError as error:
            raise write_error(error, self.path) from error

    def truncate(self) -> None:
        """Drop all bytes and hashes so far, to start over from zero."""
        descriptor = self._open()
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.ftruncate(descriptor, 0)
        except OSError as error:
            raise write_error(error, self.path) from error
        self._held = []
        self.size = self._begun = self._held_size = 0
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
        return self._descriptor is None

    def commit(self) -> Path:
        """Flush the bytes to the disk and move the file into its place.

        Returns:
            The final path.

        Raises:
            FileWriteError: It failed; the temporary file is gone and the old file stands.
            AtomicFileClosed: It has been committed or aborted before.
        """
        self._hand_to_kernel()
        self._flush_to_disk()
        self._take_name()
        if self._durable:
            fsync_directory(self._target.parent)
        return self.path

    def abort(self) -> None:
        """Remove the temporary file; does nothing after a commit or another abort."""
        descriptor, self._descriptor = self._descriptor, None
        try:
            if descriptor is not None:  # first: Windows removes no open file
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        finally:
            if self._owner == os.getpid():  # a forked child must not remove its parent's work
                self._owner = 0
                with contextlib.suppress(OSError):
                    self.temp_path.unlink()

    def leave_as(self, path: "Path | str") -> None:
        """Close the file and leave its bytes under another name, to be continued at another time.

        Nothing is flushed to the disk, and only its owner may read the file.

        Raises:
            FileWriteError: It failed, and the temporary file is gone.
            AtomicFileClosed: It has been committed or aborted before.
        """
        self._or_abort(self._write_out)
        self._or_abort(self._set_bits, _OWNER_ONLY)
        self._take_name(Path(path))

    def fileno(self) -> int:
        """Return the descriptor of the open temporary file, to lock it, say.

        Raises:
            AtomicFileClosed: It has been committed or aborted.
        """
        return self._open()

    def _hand_to_kernel(self) -> None:
        """Write out all that is the file's own, so that a flush covers it."""
        self._or_abort(self._write_out)
        bits = self._mode
        if bits is None:
            bits = self._or_abort(bits_of, self._target)
        if bits is None and self._replaces:  # what stood there is gone
            bits = self._or_abort(bits_of_new_file, self.temp_path.parent)
        if bits is not None:
            self._or_abort(self._set_bits, bits)

    def _write_out(self) -> None:
        """Write what is held; what the system did not take stays, for a commit to fail by."""
        descriptor = self._open()
        while self._held:
            data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            written = os.write(descriptor, data)
            self._held_size = len(data) - written
            self._held = [data[written:]] if self._held_size else []

    def _start_writing(self) -> None:
        """Let the kernel begin to write what is new, so that a flush waits less; only a hint.

        Linux begins to write what it is advised to forget, and forgets none of it meanwhile.
        """
        begin, self._begun = self._begun, self.size
        if sys.platform != "win32" and hasattr(os, "posix_fadvise"):
            descriptor = self._open()
            with contextlib.suppress(OSError):  # the next write or flush reports a full disk
                self._write_out()
                os.posix_fadvise(descriptor, begin, self.size - begin, os.POSIX_FADV_DONTNEED)

    def _flush_to_disk(self) -> None:
        if self._durable:
            self._or_abort(os.fsync, self._open())

    def _take_name(self, name: Path | None = None) -> None:
        """Move the file into its place, or to another; aborts where that fails."""
        descriptor, self._descriptor = self._open(), None
        self._or_abort(os.close, descriptor)
        self._or_abort(replace_file, self.temp_path, name or self._target, self._durable)
        self._owner = 0

    def _or_abort(self, step: "Callable[..., T]", *args: object) -> "T":
        try:
            return step(*args)
        except OSError as error:
            self.abort()
            raise write_error(error, self.path) from error
        except BaseException:
            self.abort()
            raise

    def _open(self) -> int:
        if self._descriptor is None:
            raise AtomicFileClosed(
                f"{self.path} has been committed or aborted; open a new AtomicFile to write it "
                "again"
            )
        return self._descriptor

    def _set_bits(self, bits: int) -> None:
        if hasattr(os, "fchmod"):  # else it is Windows before 3.13: bits mean little there
            os.fchmod(self._open(), bits)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, kind: "type[BaseException] | None", *exc_info: object) -> None:
        if kind is not None:
            self.abort()
        elif self._descriptor is not None:
            self.commit()

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.abort()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<AtomicFile {str(self.path)!r} {state}, {self.size} bytes>"
