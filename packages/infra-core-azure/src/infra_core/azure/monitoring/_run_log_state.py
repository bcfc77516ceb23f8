"""How far the mirror of a run log has come: kept on disk, so that a restart goes on from there."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from infra_core.fs import write_json_atomic

from ._log_file import LogFile, Position

__all__ = ["ANCHOR_BYTES", "BATCH_BYTES", "MirrorState"]

BATCH_BYTES = 4 * 1024 * 1024
"""Most bytes of one append: the limit of Append Block in every version of the service."""

ANCHOR_BYTES = 512
"""How much of what was mirrored last is compared with what is there."""

_LARGEST = 2**40  # no log is that long; a larger number is damage
_UNKNOWN: Position = (0, 0)  # before the first segment, unless 0.7's lines are that


@dataclass
class MirrorState:
    """Where the next byte to mirror is, and where it goes.

    Attributes:
        reached: Everything before this is mirrored.
        begin: Where in the log the blob begins.
        anchor: Digest of the last bytes before `reached`, so that a replaced file is noticed.
        blob: Number of the append blob, from 0.
        position: Confirmed bytes of that blob; `-1` while it has not been opened.
        blocks: Blocks in that blob.
        etag: Its ETag then; empty while it is not known.
        tail: How many of its last bytes are those before `reached`, as far as they are compared.
    """

    reached: Position = _UNKNOWN
    begin: Position = (1, 0)
    anchor: str = ""
    blob: int = 0
    position: int = -1
    blocks: int = 0
    etag: str = ""
    tail: int = 0

    @classmethod
    def load(cls, path: Path) -> "MirrorState":
        """Read a state file.

        Returns:
            The file's state; a new one if the file is missing or cannot be read: then the blob
            itself shows how far it holds the log.
        """
        new = cls()
        try:
            data = {**vars(new), **json.loads(path.read_bytes())}  # 1.0 knew fewer
            found = cls(**{name: type(value)(data[name]) for name, value in vars(new).items()})
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return new
        counts = (found.position + 1, found.blob, found.blocks, found.tail)
        numbers = (*found.reached, *found.begin, *counts)
        fits = all(isinstance(number, int) and 0 <= number < _LARGEST for number in numbers)
        return found if fits and len(numbers) == 8 else new

    def save(self, path: Path) -> None:
        """Write the state; the lines themselves are what is durable, so without a flush."""
        write_json_atomic(path, asdict(self), durable=False)

    def fit(self, log: LogFile) -> None:
        """Fit the state to the files that are there.

        Where they were replaced, the blob shows from which line on they are missing in it.
        """
        segments, segment = log.segments(), self.reached[0]
        if segment < segments[-1] and segment not in segments:  # a new state, or a tidied folder
            self.go(log, (min(number for number in segments if number > segment), 0))
        elif segment > segments[-1] or self.anchor != self._anchor(log):
            self.go(log, (segments[0], 0))
            self.position, self.begin = -1, _UNKNOWN

    def go(self, log: LogFile, position: Position) -> None:
        """Go on from a position of the log."""
        self.reached, self.tail = position, 0
        self.anchor = self._anchor(log)

    def read_batch(self, log: LogFile) -> bytes:
        """Return the next bytes to mirror: whole lines, at most `BATCH_BYTES`, of one segment.

        Goes on to the next segment when one is exhausted. A line that is still being written is
        left for later; one without end in a segment that is no longer written to is taken as it
        is.
        """
        while True:
            done = log.segments()[-1] > self.reached[0]
            data = log.read(self.reached, BATCH_BYTES)
            if whole := data.rfind(b"\n") + 1:
                return data[:whole]
            if len(data) == BATCH_BYTES or (done and data):  # a line as long as that: in pieces
                return data
            if not done:
                return b""
            self.go(log, (self.reached[0] + 1, 0))

    def _anchor(self, log: LogFile) -> str:
        return hashlib.sha256(self.last(log, ANCHOR_BYTES)).hexdigest()

    def last(self, log: LogFile, count: int) -> bytes:
        """Return the bytes of the log before `reached`, of one segment."""
        segment, end = self.reached
        start = max(0, end - count)
        return log.read((segment, start), end - start)
