"""The local side of the run log: one line, one write, from many threads and processes."""

import contextlib
import io
import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import BinaryIO

from infra_core.fs import (
    FileLockUnsupported,
    ensure_parent,
    fsync_directory,
    lock_descriptor,
    unlock_descriptor,
)
from infra_core.runtime import after_fork_in_child

__all__ = ["LogFile", "Position"]

Position = tuple[int, int]
"""Number of the segment (from 1) and offset in bytes within it; ordered as the lines are."""
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0)


@dataclass(eq=False, repr=False)
class LogFile:
    """An append-only file of lines that rotates by size.

    The file at `path` is the active segment. When it would grow beyond `max_bytes` it becomes
    `run.000001.log`, the next one `run.000002.log` and so on; the number of the active segment is
    one more than the highest of those.

    Lines are appended by one `write` with `O_APPEND`, under a lock that the system keeps between
    processes and gives back when one dies. The file stays open: a process that has no descriptor
    left can still say why it fails. Not so on Windows, where another process could not rotate it
    then. Lines are in the page cache when `append` returns: they survive the end of the process,
    however it comes, but a power cut only with `fsync`.
    """

    path: Path
    _: KW_ONLY
    max_bytes: int | None
    fsync: bool
    keep: int | None = None  # rotated segments; `None` for all
    mirrored: bool = False  # a mirror says which are no longer needed; else a rotation removes them

    def __post_init__(self) -> None:
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        self._name = re.compile(rf"{stem}\.(\d{{6,}}){suffix}", re.ASCII)
        self._synced = self.segments()[-1] - 1  # rotated segments need a flush from there on
        self._last = (0, 0)  # inode of the file with our last line, and where that ended
        self._fd: int | None = None
        self._reset()
        after_fork_in_child(self._reset)

    def __del__(self) -> None:  # 0.7's log had nothing to close, and its users close none
        self._forget()

    def _reset(self) -> None:
        self._forget()  # in a forked child it is the parent's, and so is the lock
        self._lock = threading.RLock()
        self._appending = False

    # Writing

    def append(self, lines: bytes) -> None:
        """Write lines; after an `OSError` they are not in the file, not even in part."""
        with self._lock:
            if self._appending:  # a signal handler, in the middle of an append of this thread
                with self.path.open("ab", buffering=0) as file:
                    file.write(lines)
                return
            self._appending = True
            try:
                self._append(lines)
            finally:
                self._appending = False
                if os.name == "nt":
                    self._forget()

    def _append(self, lines: bytes) -> None:
        limit = self.max_bytes or math.inf
        while True:
            try:
                fd = self._fd = self._open() if self._fd is None else self._fd
                locked = _lock(fd)
                status = os.fstat(fd)
                size = status.st_size
                if not self._is_active(status):
                    self._forget()
                    continue  # somebody rotated or removed it since we opened it
                inode, end = self._last
                if size and (inode, end) != (status.st_ino, size) and not _ends_line(fd, size):
                    # Its writer was killed in the middle: keep what it wrote, and our lines whole.
                    size += os.write(fd, b"\n")
                if locked and size and size + len(lines) > limit:
                    if not self._rotate():
                        limit = math.inf  # rather than no line
                    continue
                _write(fd, lines, size, locked=locked)
                break
            finally:
                self._unlock()
        if self.fsync:  # no other process waits for the disk
            if not size or inode != status.st_ino:  # a power cut takes a new name
                fsync_directory(self.path.parent)
            os.fsync(fd)
        self._last = status.st_ino, size + len(lines)

    def _open(self) -> int:
        flags = _FLAGS | os.O_APPEND | os.O_CREAT
        try:
            return os.open(self.path, flags, 0o644)
        except FileNotFoundError:
            ensure_parent(self.path)
            return os.open(self.path, flags, 0o644)

    def _is_active(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(status, os.stat(self.path))  # noqa: PTH116 - hot
        except FileNotFoundError:
            return False

    def _rotate(self) -> bool:
        """Move the active file away; false where somebody still has it open, on Windows."""
        segment = self.segments()[-1]
        if os.name == "nt":  # which renames no open file, and replaces none
            self._forget()
        try:
            os.rename(self.path, self.segment_path(segment))  # noqa: PTH104 - replaces none there
        except OSError:
            return False
        if not self.mirrored:
            self.remove_before(segment)
        return True

    def _unlock(self) -> None:
        if self._fd is not None:
            try:  # noqa: SIM105 - hot. Not left to the end: a forked child may have the lock, too.
                unlock_descriptor(self._fd)
            except OSError:  # the file system has no locks
                pass

    def _forget(self) -> None:
        fd, self._fd = getattr(self, "_fd", None), None
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        with self._lock:
            if not self._appending:
                self._forget()

    def sync(self) -> None:
        """Flush everything written so far to the disk, rotated segments and names included."""
        _sync(self.path)  # first: what is rotated from now on has been flushed
        rotated = self.segments()[:-1]
        since = self._synced if self._synced in rotated else 0
        for segment in rotated:
            if segment > since:
                _sync(self.segment_path(segment))
        self._synced = rotated[-1] if rotated else 0
        if self.path.parent.is_dir():
            fsync_directory(self.path.parent)

    def remove_before(self, segment: int) -> None:
        """Remove rotated segments below `segment`, except for those to keep: the newest of all."""
        if self.keep is not None:
            for number in self.segments()[: -1 - self.keep]:
                if number < segment:
                    with contextlib.suppress(OSError):  # tried again next time
                        self.segment_path(number).unlink()

    # Reading

    def segment_path(self, segment: int) -> Path:
        """Return where a segment lies that is no longer the active one."""
        return self.path.with_name(f"{self.path.stem}.{segment:06d}{self.path.suffix}")

    def segments(self) -> list[int]:
        """Return the numbers of the segments in order; the last one is the active one."""
        try:
            names = os.listdir(self.path.parent)  # noqa: PTH208 - names suffice, and this is hot
        except (FileNotFoundError, NotADirectoryError):
            return [1]
        matches = (self._name.fullmatch(name) for name in names)
        rotated = sorted(int(match[1]) for match in matches if match)
        return [*rotated, rotated[-1] + 1 if rotated else 1]

    def open(self, segment: int) -> BinaryIO:
        """Open a segment to read, wherever it lies now; one that is not there is empty."""
        rotated = self.segment_path(segment)
        for path in (rotated, self.path, rotated):  # it may be rotated between the first two looks
            with contextlib.suppress(FileNotFoundError):
                file = path.open("rb")
                if path is rotated or self.segments()[-1] == segment:
                    return file
                file.close()
        return io.BytesIO()

    def read(self, position: Position, count: int) -> bytes:
        """Return up to `count` bytes of a segment."""
        with self.open(position[0]) as file:
            file.seek(position[1])
            return file.read(count)

    def lines(self, start: Position) -> Iterator[tuple[bytes, Position]]:
        """Yield the lines behind a position, and where each of them ends."""
        for segment in self.segments():
            if segment >= start[0]:
                offset = start[1] if segment == start[0] else 0
                with self.open(segment) as file:
                    file.seek(offset)
                    for line in file:
                        offset += len(line)
                        yield line, (segment, offset)


def _lock(fd: int) -> bool:
    try:
        return lock_descriptor(fd)
    except FileLockUnsupported:
        return False


def _ends_line(fd: int, size: int) -> bool:
    os.lseek(fd, size - 1, os.SEEK_SET)  # appending does not mind
    return os.read(fd, 1) in (b"\n", b"")


def _write(fd: int, lines: bytes, size: int, *, locked: bool) -> None:
    """Write in one call; what a full disk cut short is taken back, so that no line is torn."""
    try:
        written = os.write(fd, lines)
        while written < len(lines):
            written += os.write(fd, lines[written:])
    except OSError:
        if locked:
            os.ftruncate(fd, size)
        raise


def _sync(path: Path) -> None:
    try:
        fd = os.open(path, _FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        return  # it was removed, or nothing was written
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
