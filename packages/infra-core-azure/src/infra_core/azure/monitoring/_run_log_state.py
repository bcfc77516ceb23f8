"""How far the mirror of a run log has come: the blobs in their order, and what each holds."""

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra_core.fs import write_json_atomic

from ._log_file import LogFile, Position

__all__ = ["BATCH_BYTES", "MirrorState", "Part"]

BATCH_BYTES = 4 * 1024 * 1024  # the limit of Append Block in every version of the service
_ANCHOR_BYTES = 512  # how much of the line that was mirrored last is compared with what is there
_REMEMBERED = 20  # full blobs that are looked at, too: five days of a batch every half second
_END: Position = (2**63, 0)  # behind all lines


@dataclass
class Part:
    """A blob, and the lines that it has: those from `begin` to `reached`."""

    blob: int = 0  # its number
    begin: Position = (0, 0)
    reached: Position = (0, 0)
    anchor: str = ""  # the last line before that, or its end: what was replaced is noticed by it
    end: int = -1  # where in the blob that line ends; -1 where not known
    position: int = -1  # confirmed bytes of the blob; -1 while it has not been opened
    blocks: int = 0  # blocks in it
    etag: str = ""  # its ETag then; empty while it is not known

    def __post_init__(self) -> None:
        self.begin = (self.begin[0], self.begin[1])  # JSON makes lists of them
        self.reached = (self.reached[0], self.reached[1])

    def go(self, log: LogFile, position: Position) -> None:
        """Go on from a position of the log."""
        segment, offset = self.reached = position
        start = max(0, offset - _ANCHOR_BYTES)
        last = log.read((segment, start), offset - start)
        self.anchor, self.end = text_of(last[last.rfind(b"\n", 0, -1) + 1 :]), -1

    def fits(self, log: LogFile) -> bool:
        """Whether the files on this disk are still those that the lines came from."""
        segment, offset = self.reached
        last = log.read((segment, max(0, offset - len(self.anchor))), len(self.anchor))
        return segment in log.segments() and (not offset or text_of(last) == self.anchor)

    def read(self, log: LogFile, until: Position) -> bytes:
        """Return the next bytes to mirror: lines of one segment, as many as one append takes."""
        while self.reached < until:
            segment, offset = self.reached
            rotated = segment < log.segments()[-1]
            most = min(BATCH_BYTES, until[1] - offset) if segment == until[0] else BATCH_BYTES
            data = log.read(self.reached, most)
            if whole := data.rfind(b"\n") + 1:
                return data[:whole]
            if data and (rotated or len(data) == most):  # of a line as long, or without an end
                return data
            if not rotated:
                break
            self.reached = (segment + 1, 0)
        return b""


@dataclass
class MirrorState:
    """The blobs of a mirror that are remembered, the newest last; kept on disk for the next run."""

    parts: list[Part] = field(default_factory=lambda: [Part()])

    @classmethod
    def load(cls, path: Path, log: LogFile) -> "MirrorState":
        """Read a state file; where it is missing, damaged or of other files, the blob decides."""
        try:
            given = json.loads(path.read_bytes())
            if given["checksum"] != _checksum(given["parts"]):
                raise ValueError("it is damaged")
            state = cls([Part(**each) for each in given["parts"]])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            state = cls()
        newest = state.parts[-1]
        if not newest.fits(log):
            first = (log.segments()[0], 0)
            state.parts = [Part(newest.blob, begin=first, reached=first)]
        return state

    def save(self, path: Path) -> None:
        """Write the state; the lines themselves are what is durable, so without a flush."""
        parts = [asdict(part) for part in self.parts[-1 - _REMEMBERED :]]
        write_json_atomic(path, {"parts": parts, "checksum": _checksum(parts)}, durable=False)

    def next_batch(self, log: LogFile) -> tuple[Part, bytes] | None:
        """Return the first blob that lacks lines, and the next of them; `None` when all are there.

        That is the newest, unless one before it has lost some.
        """
        ends = [*(part.begin for part in self.parts[1:]), _END]
        for part, end in zip(self.parts, ends, strict=True):
            if data := part.read(log, end):
                return part, data
        return None

    def leave(self, part: Part) -> None:
        """Have another blob take what a blob does not: lines are rather there twice than never."""
        number, start = self.parts[-1].blob + 1, part.reached
        self.parts.append(Part(number, begin=start, reached=start, anchor=part.anchor))
        part.reached = self.parts[self.parts.index(part) + 1].begin  # it lacks no more


def text_of(data: bytes) -> str:
    """Return bytes as JSON can keep them: a character for each, whatever it is."""
    return data.decode("latin-1")


def _checksum(parts: object) -> int:
    return zlib.crc32(json.dumps(parts).encode())
