"""The local side of the run log: one line, one write, from many threads and processes."""

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
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
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(eq=False, repr=False)
class LogFile:
    """An append-only file of lines that rotates by size.

    The file at `path` is the active segment. When it would grow beyond `max_bytes` it becomes
    `run.000001.log`, the next one `run.000002.log` and so on; the number of the active segment is
    one more than the highest of those.

    What is appended is one `write` to a descriptor opened with `O_APPEND`, under a lock that the
    system keeps between processes and gives back when one dies. It is in the page cache when
    `append` returns: it survives the end of the process, however it comes, but a power cut
    only with `fsync`.
    """

    path: Path
    _: KW_ONLY
    max_bytes: int | None
    fsync: bool
    keep: int | None = None  # rotated segments; `None` for all
    mirrored: bool = False  # a mirror says which are no longer needed; else a rotation removes them
    _fd: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        self._name = re.compile(rf"{stem}\.(\d{{6,}}){suffix}", re.ASCII)
        self._end = -1  # where our own last line ended; anything else was written by others
        self._synced = self.segments()[-1] - 1  # segments that need no flush: those from before us
        self._reset()
        after_fork_in_child(self._reset)

    def __del__(self) -> None:
        self._forget()  # 0.7's log had nothing to close, and its users close none

    def _reset(self) -> None:
        # In a forked child the descriptor is shared with the parent, and so would be its lock.
        self._forget()
        self._lock = threading.RLock()
        self._appending = False

    def append(self, lines: bytes) -> None:
        """Write lines; after an `OSError` they are not in the file, not even in part."""
        with self._lock:
            if self._appending:  # by a signal handler, in the middle of an append of this thread
                with self.path.open("ab", buffering=0) as file:
                    file.write(lines)
                return
            self._appending = True
            try:
                self._append(lines)
            finally:
                self._appending = False

    def _append(self, lines: bytes) -> None:
        fd, locked = self._open_locked()
        try:
            size = os.fstat(fd).st_size
            if size not in (0, self._end) and not _ends_line(fd, size):
                # Its writer was killed in the middle: keep what it wrote, and our lines whole.
                size += os.write(fd, b"\n")
            if self.max_bytes and locked and size and size + len(lines) > self.max_bytes:
                fd, locked = self._rotate()
                size = os.fstat(fd).st_size
            _write_all(fd, lines, size, locked=locked)
            self._end = size + len(lines)
        finally:
            if locked and self._fd is not None:
                unlock_descriptor(self._fd)
        if self.fsync:
            os.fsync(fd)
        if os.name == "nt":  # which renames no open file
            self._forget()

    def sync(self) -> None:
        """Flush everything written so far to the disk, rotated segments and names included."""
        with self._lock:
            while (active := self.segments()[-1]) - 1 != self._synced:
                since = self._synced if self._synced < active else 0  # or they begin again
                for segment in range(since + 1, active):
                    _sync_file(self.segment_path(segment))
                self._synced = active - 1
            if self._fd is not None:
                os.fsync(self._fd)
            else:
                _sync_file(self.path)
            if self.path.parent.is_dir():
                fsync_directory(self.path.parent)

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        with self._lock:
            if not self._appending:
                self._forget()

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

    def remove_before(self, segment: int) -> None:
        """Remove rotated segments below `segment`, except for those to keep: the newest of all."""
        if self.keep is not None:
            for number in self.segments()[: -1 - self.keep]:
                if number < segment:
                    with contextlib.suppress(OSError):  # tried again next time
                        self.segment_path(number).unlink()

    def _open_locked(self) -> tuple[int, bool]:
        while True:
            fd = self._open() if self._fd is None else self._fd
            try:
                locked = lock_descriptor(fd)
            except FileLockUnsupported:
                locked = False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):  # noqa: PTH116 - hot
                    return fd, locked
            self._forget()  # somebody rotated or removed the file since we opened it

    def _open(self) -> int:
        ensure_parent(self.path)
        self._end = -1
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o644)
        if self.fsync:
            fsync_directory(self.path.parent)  # or a power cut takes a new file with its lines
        return self._fd

    def _rotate(self) -> tuple[int, bool]:
        """Move the active file away and open the next one, which comes locked."""
        segment = self.segments()[-1]
        if os.name == "nt":
            self._forget()
        with contextlib.suppress(OSError):  # somebody still has it open: at a later line
            os.rename(self.path, self.segment_path(segment))  # noqa: PTH104 - replaces none there
        if self._fd is not None:
            unlock_descriptor(self._fd)
        self._forget()
        opened = self._open_locked()
        if not self.mirrored:
            self.remove_before(segment)
        return opened

    def _forget(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _ends_line(fd: int, size: int) -> bool:
    os.lseek(fd, max(0, size - 1), os.SEEK_SET)  # appending does not mind
    return os.read(fd, 1) in (b"\n", b"")


def _sync_file(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDWR | _BINARY)
    except (FileNotFoundError, NotADirectoryError):
        return  # it was removed, or nothing was written
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, line: bytes, size: int, *, locked: bool) -> None:
    """Write in one call; what a full disk cut short is taken back, so that no line is torn."""
    written = os.write(fd, line)
    try:
        while written < len(line):
            written += os.write(fd, line[written:])
    except OSError:
        if locked:
            os.ftruncate(fd, size)
        raise
