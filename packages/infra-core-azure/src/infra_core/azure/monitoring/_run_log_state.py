"""How far the mirror of a run log has come: kept on disk, so that a restart goes on from there."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

from infra_core.fs import write_json_atomic

from ._log_file import LogFile, Position

__all__ = ["BATCH_BYTES", "MirrorState", "last_common_line"]

BATCH_BYTES = 4 * 1024 * 1024
"""Most bytes of one append: the limit of Append Block in every version of the service."""

_ANCHOR_BYTES = 512


@dataclass
class MirrorState:
    """Where the next byte to mirror is, and where it goes.

    Attributes:
        segment: Number of the local segment.
        offset: Bytes of it that are mirrored.
        anchor: Digest of the last bytes of those, so that a replaced file is noticed.
        blob: Number of the append blob, from 0.
        position: Bytes in that blob, `-1` while unknown.
        blocks: Blocks in that blob.
        begin_segment: Segment at which that blob begins; 0 when that file was replaced.
        begin_offset: Offset in it.
    """

    segment: int = 1
    offset: int = 0
    anchor: str = f"0 {hashlib.sha256().hexdigest()}"
    blob: int = 0
    position: int = -1
    blocks: int = 0
    begin_segment: int = 1
    begin_offset: int = 0

    @property
    def reached(self) -> Position:
        """Everything before this is mirrored."""
        return self.segment, self.offset

    @property
    def begin(self) -> Position:
        """Where in the log the blob begins."""
        return self.begin_segment, self.begin_offset

    @classmethod
    def load(cls, path: Path) -> "MirrorState":
        """Read a state file.

        Returns:
            The file's state; a new one if the file is missing or cannot be read: then the blob
            itself shows how far it holds the log.
        """
        new = cls()
        try:
            data = json.loads(path.read_bytes())
            found = cls(**{name: type(value)(data[name]) for name, value in vars(new).items()})
        except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return new
        numbers = (found.segment, found.offset, found.blob, found.blocks, *found.begin)
        return found if min(found.position + 1, *numbers) >= 0 else new

    def save(self, path: Path) -> None:
        """Write the state; the lines themselves are what is durable, so without a flush."""
        write_json_atomic(path, asdict(self), durable=False)

    def fit(self, log: LogFile) -> None:
        """Fit the state to the files that are there.

        Where they were replaced, the blob shows from which line on they are missing in it.
        """
        segments = log.segments()
        if self.segment < segments[-1] and self.segment not in segments:  # somebody tidied up
            self.go(log, (min(number for number in segments if number > self.segment), 0))
        elif self.segment > segments[-1] or self.anchor != self._anchor(log):
            self.go(log, (segments[0], 0))
            self.position, self.begin_segment = -1, 0

    def go(self, log: LogFile, position: Position) -> None:
        """Go on from a position of the log."""
        self.segment, self.offset = position
        self.anchor = self._anchor(log)

    def roll(self) -> None:
        """Go on with another blob."""
        self.blob += 1
        self.position, self.blocks = -1, 0
        self.begin_segment, self.begin_offset = self.reached

    def read_batch(self, log: LogFile) -> bytes:
        """Return the next bytes to mirror: whole lines, at most `BATCH_BYTES`, of one segment.

        Goes on to the next segment when one is exhausted. A line that is still being written is
        left for later; one without end in a segment that is no longer written to is taken as it
        is.
        """
        while True:
            done = log.segments()[-1] > self.segment
            data = log.read(self.reached, BATCH_BYTES)
            whole = data.rfind(b"\n") + 1
            if whole:
                return data[:whole]
            if len(data) == BATCH_BYTES or (done and data):  # a line as long as that: in pieces
                return data
            if not done:
                return b""
            self.go(log, (self.segment + 1, 0))

    def _anchor(self, log: LogFile) -> str:
        start = max(0, self.offset - _ANCHOR_BYTES)
        data = log.read((self.segment, start), self.offset - start)
        return f"{start + len(data) - self.offset} {hashlib.sha256(data).hexdigest()}"


def last_common_line(log: LogFile, start: Position, there: bytes) -> Position | None:
    """Return where the last line behind a position ends that is also in part of a blob.

    Lines of others may stand between. Of lines that are alike, those that stand there count from
    the first one on: rather one is sent twice than one never.
    """
    expected = Counter(BytesIO(there))
    found = None
    for line, end in log.lines(start):
        if expected[line] > 0:
            expected[line] -= 1
            found = end
    return found
