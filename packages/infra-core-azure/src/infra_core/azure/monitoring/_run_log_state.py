"""How far the mirror of a run log has come: kept on disk, so that a restart goes on from there."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra_core.fs import ensure_parent, write_json_atomic

from ._file_lock import try_lock
from ._log_file import LogFile, Position

__all__ = ["BATCH_BYTES", "MirrorState", "read_batch", "sole_mirror"]

BATCH_BYTES = 4 * 1024 * 1024
"""Most bytes of one append: the limit of Append Block in every version of the service."""

_HEAD_BYTES = 512


@dataclass
class MirrorState:
    """Where the next byte to mirror is, and where it goes.

    Attributes:
        segment: Number of the local segment.
        offset: Bytes of it that are mirrored.
        head: Digest of its first bytes and how many, so that a replaced file is noticed.
        blob: Number of the append blob, from 0.
        position: Bytes in that blob, `-1` when nobody looked yet.
        blocks: Blocks in that blob.
        blob_start: Where in the local log the blob begins.
    """

    segment: int = 1
    offset: int = 0
    head: tuple[str, int] = ("", 0)
    blob: int = 0
    position: int = -1
    blocks: int = 0
    blob_start: Position = field(default=(1, 0))

    @property
    def reached(self) -> Position:
        """Everything before this is mirrored."""
        return self.segment, self.offset

    @classmethod
    def load(cls, path: Path) -> "MirrorState":
        """Read a state; an absent or unreadable one is a new one."""
        try:
            data = json.loads(path.read_bytes())
            state = cls(**{name: data[name] for name in cls.__dataclass_fields__})
            for name in ("segment", "offset", "blob", "position", "blocks"):
                setattr(state, name, int(getattr(state, name)))
            state.head = (str(state.head[0]), int(state.head[1]))
            state.blob_start = (int(state.blob_start[0]), int(state.blob_start[1]))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return cls()
        return state

    def save(self, path: Path) -> None:
        """Write the state; the lines themselves are what is durable, so without a flush."""
        write_json_atomic(path, asdict(self), durable=False)

    def settle(self, log: LogFile) -> None:
        """Fit the state to the files that are there: one that was replaced is mirrored anew."""
        rotated = log.rotated()
        active = rotated[-1] + 1 if rotated else 1
        if self.segment > active:  # the folder was emptied
            self._restart_at(rotated[0] if rotated else active)
        elif self.segment < active and self.segment not in rotated:  # somebody tidied up
            self._restart_at(min((n for n in rotated if n > self.segment), default=active))
        fd = log.open_segment(self.segment)
        if fd is None:
            return
        try:
            size = os.fstat(fd).st_size
            digest, length = self.head
            if size < self.offset or _digest(fd, length) != digest:
                self._restart_at(self.segment)
        finally:
            os.close(fd)

    def advance(self, log: LogFile, count: int) -> None:
        """Note that the next `count` bytes of the segment are mirrored."""
        self.offset += count
        if self.head[1] < _HEAD_BYTES:
            fd = log.open_segment(self.segment)
            if fd is not None:
                with _closing(fd):
                    length = min(_HEAD_BYTES, self.offset)
                    self.head = (_digest(fd, length), length)

    def next_segment(self) -> None:
        """Go on with the segment after this one."""
        self._restart_at(self.segment + 1)

    def rewind(self, position: Position) -> None:
        """Go back to an earlier position of the log."""
        segment, offset = position
        if segment != self.segment:
            self.head = ("", 0)
        self.segment, self.offset = segment, offset
        if offset == 0:
            self.head = ("", 0)

    def _restart_at(self, segment: int) -> None:
        self.segment, self.offset, self.head = segment, 0, ("", 0)


def read_batch(log: LogFile, state: MirrorState) -> bytes:
    """Return the next bytes to mirror: whole lines, at most `BATCH_BYTES`, of one segment.

    Goes on to the next segment when one is exhausted. A line that is still being written is left
    for later; one without end in a segment that is no longer written to is taken as it is.
    """
    while True:
        done = bool(log.rotated()) and log.rotated()[-1] >= state.segment
        fd = log.open_segment(state.segment)
        if fd is None:
            data = b""
        else:
            with _closing(fd):
                os.lseek(fd, state.offset, os.SEEK_SET)
                data = os.read(fd, BATCH_BYTES)
        whole = data.rfind(b"\n") + 1
        if whole:
            return data[:whole]
        if len(data) == BATCH_BYTES:  # one line as long as that: in pieces
            return data
        if not done:
            return b""
        if data:
            return data
        state.next_segment()


@contextlib.contextmanager
def sole_mirror(path: Path) -> Iterator[bool]:
    """Hold the right to mirror, which one process has at a time; yields whether we got it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        ensure_parent(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield try_lock(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


def _digest(fd: int, length: int) -> str:
    if not length:
        return ""
    os.lseek(fd, 0, os.SEEK_SET)
    return hashlib.sha256(os.read(fd, length)).hexdigest()
