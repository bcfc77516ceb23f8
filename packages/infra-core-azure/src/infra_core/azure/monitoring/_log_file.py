"""The local side of the run log: one line, one write, from many threads and processes."""

import contextlib
import os
import re
import threading
from pathlib import Path

from infra_core.fs import (
    FileLockUnsupported,
    ensure_parent,
    fsync_directory,
    lock_descriptor,
    unlock_descriptor,
)
from infra_core.runtime import after_fork_in_child

__all__ = ["LogFile", "Mark", "Position"]

Position = tuple[int, int]
"""Number of the segment (from 1) and offset in bytes within it; ordered as the lines are."""
Mark = tuple[int, Position]
"""A position, and before it how often the log was found removed: positions begin anew then."""
_BINARY = getattr(os, "O_BINARY", 0)


class LogFile:
    """An append-only file of lines that rotates by size.

    The file at `path` is the active segment. When it would grow beyond `max_bytes` it becomes
    `run.000001.log`, the next one `run.000002.log` and so on; the number of the active segment is
    one more than the highest of those.

    Every line is one `write` to a descriptor opened with `O_APPEND`, under a lock that the system
    keeps between processes and gives back when one dies. A line is in the system's page cache
    when `append` returns: it survives the end of the process, however it comes, but a power cut
    only with `fsync`.

    Args:
        path: The active file.
        max_bytes: Size at which it rotates; `None` for never.
        fsync: Flush every line to the disk before `append` returns.
    """

    def __init__(self, path: Path, *, max_bytes: int | None, fsync: bool) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._name = re.compile(
            rf"{re.escape(path.stem)}\.(\d{{6,}}){re.escape(path.suffix)}", re.ASCII
        )
        self._fd: int | None = None
        self._lock = threading.Lock()
        self._segment = 0
        self._end = -1  # where our own last line ended; anything else was written by others
        self._removed = 0  # times
        after_fork_in_child(self._after_fork)

    def append(self, line: bytes) -> Mark:
        """Write one line.

        Args:
            line: Ends with a newline and holds no other.

        Returns:
            Where it ends.

        Raises:
            OSError: It is not in the file, not even in part.
        """
        with self._lock:
            fd, locked = self._open_locked()
            try:
                size = os.fstat(fd).st_size
                if self._max_bytes and locked and size and size + len(line) > self._max_bytes:
                    fd, size = self._rotate(fd)
                if size not in (0, self._end) and not _ends_line(fd, size):
                    # Its writer was killed in the middle: keep what it wrote, and our line whole.
                    line = b"\n" + line
                self._end = size + _write_all(fd, line, size, locked=locked)
                mark = self._removed, (self._segment, self._end)
            finally:
                if locked:
                    with contextlib.suppress(OSError):  # closed already, by a rotation that failed
                        unlock_descriptor(fd)
            if self._fsync:
                os.fsync(fd)
            return mark

    def sync(self) -> None:
        """Flush everything written so far to the disk."""
        with self._lock:
            if self._fd is not None:
                os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def segment_path(self, segment: int) -> Path:
        """Return where a segment lies that is no longer the active one."""
        return self.path.with_name(f"{self.path.stem}.{segment:06d}{self.path.suffix}")

    def rotated(self) -> list[int]:
        """Return the numbers of the segments that are no longer active, in order."""
        try:
            names = os.listdir(self.path.parent)  # noqa: PTH208 - names suffice, and this is hot
        except FileNotFoundError:
            return []
        matches = (self._name.fullmatch(name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def active(self) -> int:
        """Return the number of the segment that lines are appended to."""
        rotated = self.rotated()
        return rotated[-1] + 1 if rotated else 1

    def open_segment(self, segment: int) -> int | None:
        """Open a segment to read, wherever it lies now; `None` when there is no such file."""
        rotated = self.segment_path(segment)
        for _ in range(3):
            with contextlib.suppress(FileNotFoundError):
                return os.open(rotated, os.O_RDONLY | _BINARY)
            if self.active() != segment:
                continue  # it has just been rotated, or does not exist
            try:
                fd = os.open(self.path, os.O_RDONLY | _BINARY)
            except FileNotFoundError:
                return None
            if self.active() == segment:
                return fd
            os.close(fd)
        return None

    def read(self, position: Position, count: int) -> bytes:
        """Return up to `count` bytes of a segment; nothing where there is no such file."""
        segment, offset = position
        fd = self.open_segment(segment)
        if fd is None:
            return b""
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - closes the descriptor
            file.seek(offset)
            return file.read(count) or b""

    def size(self, segment: int) -> int | None:
        """Return the size of a segment, `None` when there is no such file."""
        fd = self.open_segment(segment)
        if fd is None:
            return None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def remove_before(self, segment: int, *, keep: int) -> None:
        """Remove rotated segments below `segment`, except for the `keep` newest of all."""
        rotated = self.rotated()
        for number in rotated[: max(0, len(rotated) - max(1, keep))]:
            if number < segment:
                with contextlib.suppress(OSError):  # tried again next time
                    self.segment_path(number).unlink()

    def _open_locked(self) -> tuple[int, bool]:
        while True:
            if self._fd is None:
                self._open()
            fd = self._fd
            assert fd is not None  # noqa: S101 - _open sets it or raises
            try:
                locked = lock_descriptor(fd)
            except FileLockUnsupported:
                locked = False
            mine = os.fstat(fd)
            try:
                now = os.stat(self.path)  # noqa: PTH116 - hot
                if (now.st_ino, now.st_dev) == (mine.st_ino, mine.st_dev):
                    return fd, locked
            except FileNotFoundError:
                pass
            # Somebody rotated or removed the file since we opened it.
            os.close(fd)
            self._fd = None

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY
        try:
            self._fd = os.open(self.path, flags, 0o644)
        except FileNotFoundError:
            ensure_parent(self.path)
            self._fd = os.open(self.path, flags, 0o644)
        segment = self.active()
        if (segment, os.fstat(self._fd).st_size) < (self._segment, self._end):
            self._removed += 1
        self._segment, self._end = segment, -1

    def _rotate(self, fd: int) -> tuple[int, int]:
        """Move the active file away and open the next one, which comes locked."""
        segment = self.active()
        size = os.fstat(fd).st_size
        if not _ends_line(fd, size):
            os.write(fd, b"\n")  # or its torn end would run into the next segment's first line
        try:
            os.rename(self.path, self.segment_path(segment))  # noqa: PTH104
        except OSError:  # on Windows, while another process has it open: next time
            return fd, os.fstat(fd).st_size
        if self._fsync:
            os.fsync(fd)
        unlock_descriptor(fd)
        os.close(fd)
        self._fd = None
        fd, _ = self._open_locked()
        if self._fsync:
            fsync_directory(self.path.parent)
        return fd, os.fstat(fd).st_size

    def _after_fork(self) -> None:
        # The descriptor is shared with the parent, and so would be its lock.
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._lock = threading.Lock()


def _ends_line(fd: int, size: int) -> bool:
    if size == 0:
        return True
    if hasattr(os, "pread"):
        return os.pread(fd, 1, size - 1) == b"\n"
    os.lseek(fd, size - 1, os.SEEK_SET)
    return os.read(fd, 1) == b"\n"


def _write_all(fd: int, line: bytes, size: int, *, locked: bool) -> int:
    """Write in one call; what a full disk cut short is taken back, so that no line is torn."""
    written = os.write(fd, line)
    if written == len(line):
        return written
    try:
        rest = line[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        if locked:
            os.ftruncate(fd, size)
        raise
    return len(line)
