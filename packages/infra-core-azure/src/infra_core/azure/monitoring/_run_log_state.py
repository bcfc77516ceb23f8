"""How far the mirror of a run log has come: kept on disk, so that a restart goes on from there."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra_core.fs import write_json_atomic

from ._log_file import LogFile, Position

__all__ = ["BATCH_BYTES", "MirrorState", "Sent"]

BATCH_BYTES = 4 * 1024 * 1024
"""Most bytes of one append: the limit of Append Block in every version of the service."""

Sent = tuple[int, int, int, int]
"""Begin and end in the blob, and the segment and offset of the local log that stand there."""

_HEAD_BYTES = 512
_MOST_SENT = 1000  # ranges; one suffices while no other writer appends to the blob


@dataclass
class MirrorState:
    """Where the next byte to mirror is, and where it goes.

    Attributes:
        segment: Number of the local segment.
        offset: Bytes of it that are mirrored.
        head: Digest of its first bytes and how many, so that a replaced file is noticed.
        blob: Number of the append blob, from 0.
        position: Bytes in that blob, `-1` while unknown.
        blocks: Blocks in that blob.
        sent: Which parts of the blob hold which parts of the local log, in order.
    """

    segment: int = 1
    offset: int = 0
    head: tuple[str, int] = ("", 0)
    blob: int = 0
    position: int = -1
    blocks: int = 0
    sent: list[Sent] = field(default_factory=list)

    @property
    def reached(self) -> Position:
        """Everything before this is mirrored."""
        return self.segment, self.offset

    @classmethod
    def load(cls, path: Path) -> "MirrorState":
        """Read a state; an absent or unreadable one is a new one."""
        numbers = ("segment", "offset", "blob", "position", "blocks")
        try:
            data = json.loads(path.read_bytes())
            state = cls()
            for name in numbers:
                setattr(state, name, int(data[name]))
            state.head = (str(data["head"][0]), int(data["head"][1]))
            if "sent" in data:
                state.sent = [(int(a), int(b), int(c), int(d)) for a, b, c, d in data["sent"]]
            else:  # of the first release: known is where the blob begins
                segment, offset = (int(number) for number in data["blob_start"])
                if segment == state.segment and state.position == state.offset - offset > 0:
                    state.sent = [(0, state.position, segment, offset)]
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return cls()
        return state

    def save(self, path: Path) -> None:
        """Write the state; the lines themselves are what is durable, so without a flush."""
        write_json_atomic(path, asdict(self), durable=False)

    def fit(self, log: LogFile) -> None:
        """Fit the state to the files that are there: one that was replaced is mirrored anew."""
        rotated = log.rotated()
        active = rotated[-1] + 1 if rotated else 1
        if self.segment > active:  # the folder was emptied
            self._begin(rotated[0] if rotated else active)
            self.sent = []
        elif self.segment < active and self.segment not in rotated:  # somebody tidied up
            self._begin(min((n for n in rotated if n > self.segment), default=active))
        size = log.size(self.segment)
        digest, length = self.head
        if size is None:
            return
        if size < self.offset or _digest(log, self.segment, length) != digest:
            self._begin(self.segment)
            self.sent = [part for part in self.sent if part[2] != self.segment]

    def read_batch(self, log: LogFile) -> bytes:
        """Return the next bytes to mirror: whole lines, at most `BATCH_BYTES`, of one segment.

        Goes on to the next segment when one is exhausted. A line that is still being written is
        left for later; one without end in a segment that is no longer written to is taken as it
        is.
        """
        while True:
            done = log.active() > self.segment
            data = log.read(self.reached, BATCH_BYTES)
            whole = data.rfind(b"\n") + 1
            if whole:
                return data[:whole]
            if len(data) == BATCH_BYTES or (done and data):  # a line as long as that: in pieces
                return data
            if not done:
                return b""
            self._begin(self.segment + 1)

    def advance(self, log: LogFile, count: int, position: int | None = None) -> None:
        """Note that the next `count` bytes of the segment are mirrored.

        Args:
            log: The log.
            count: Bytes.
            position: Where in the blob they begin, if it is an append blob.
        """
        if position is not None and count:
            self._note((position, position + count, self.segment, self.offset))
        self.offset += count
        if self.head[1] < _HEAD_BYTES:
            length = min(_HEAD_BYTES, self.offset)
            self.head = (_digest(log, self.segment, length), length)

    def roll(self) -> None:
        """Go on with another blob."""
        self.blob += 1
        self.position, self.blocks, self.sent = -1, 0, []

    def cut(self, log: LogFile, size: int) -> tuple[int, int]:
        """The blob has only `size` bytes left: go back to what is missing.

        Returns:
            How many bytes are sent again, and how many are on this disk no more.
        """
        missing = [
            (max(begin, size), end, segment, offset + max(0, size - begin))
            for begin, end, segment, offset in self.sent
            if end > size
        ]
        kept = [part for part in missing if (log.size(part[2]) or 0) >= part[3] + part[1] - part[0]]
        lost = sum(part[1] - part[0] for part in missing if part not in kept)
        if not missing and self.position > size:
            lost = self.position - size  # we never knew what stood there
        self.sent = [
            (begin, min(end, size), segment, offset)
            for begin, end, segment, offset in self.sent
            if begin < size
        ]
        if kept:
            _, _, segment, offset = kept[0]
            if segment != self.segment:
                self._begin(segment)
            self.offset = offset
            length = min(_HEAD_BYTES, offset)
            self.head = (_digest(log, segment, length), length)
        self.position = size
        return sum(part[1] - part[0] for part in kept), lost

    def _begin(self, segment: int) -> None:
        self.segment, self.offset, self.head = segment, 0, ("", 0)

    def _note(self, part: Sent) -> None:
        begin, end, segment, offset = part
        if self.sent:
            first, last, same, start = self.sent[-1]
            if (last, same, start + last - first) == (begin, segment, offset):
                self.sent[-1] = (first, end, segment, start)
                return
        self.sent.append(part)
        del self.sent[:-_MOST_SENT]


def _digest(log: LogFile, segment: int, length: int) -> str:
    return hashlib.sha256(log.read((segment, 0), length)).hexdigest() if length else ""
