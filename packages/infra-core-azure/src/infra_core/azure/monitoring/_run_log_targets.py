"""Where a run log is mirrored to, and how far: an append blob, or `upload_file` of whole files.

Imported by the mirror's thread, as it imports the SDK.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from io import BytesIO
from os.path import splitext
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobProperties, ContainerClient, ContentSettings
from infra_core.fs import write_bytes_atomic, write_json_atomic
from infra_core.runtime import clock

from ._client_calls import call_strictly, error_code
from ._log_file import LogFile, Position

__all__ = ["AppendBlobTarget", "MirrorState", "UploadFileTarget"]

_log = logging.getLogger("infra_core.azure.monitoring")

# Retries are the mirror's, in one layer: the SDK's own would hold the mirror for minutes, and a
# later run with it.
_ONE_TRY: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 30}
# A 409 of the container or account, which another blob would not help.
_HELD_UP = frozenset({"ContainerBeingDeleted", "ContainerDisabled", "AccountBeingCreated"})
_SEALED = "BlobIsSealed"  # for ever
_BATCH_BYTES = 4 * 1024 * 1024  # the limit of Append Block in every version of the service
_ANCHOR_BYTES = 512  # how much of the line that was mirrored last is compared with what is there
_LARGEST_READ = 64 * 1024 * 1024  # bytes of a blob that are read to find our last line, or kept
_LARGEST = 2**40  # no log is that long; a larger number is damage
_END: Position = (_LARGEST, 0)
_REMEMBERED = 20  # full blobs that are looked at, too: five days of a batch every half second


@dataclass
class MirrorState:
    """Where the next byte to mirror is, and where it goes; kept on disk for the next run."""

    reached: Position = (0, 0)  # everything before this is mirrored
    begin: Position = (0, 0)  # what is before this is in the blobs before, if there are any
    anchor: str = ""  # the last line before that, or its end: what was replaced is noticed by it
    blob: int = 0  # number of the append blob
    position: int = -1  # confirmed bytes of that blob; -1 while it has not been opened
    blocks: int = 0  # blocks in it
    etag: str = ""  # its ETag then; empty while it is not known
    end: int = -1  # where in the blob the last line that is mirrored ends; -1 where not known
    before: list["MirrorState"] = field(default_factory=list)  # of the blobs before, the newest

    @classmethod
    def load(cls, path: Path) -> "MirrorState":
        """Read a state file; one that is missing or damaged is new: the blob shows the rest."""
        try:
            return cls._read(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError):
            return cls()

    @classmethod
    def _read(cls, given: dict[str, Any]) -> "MirrorState":
        found = cls(**given)
        found.before = [cls._read(each) for each in found.before]  # type: ignore[arg-type]
        (segment, offset), (first, start) = found.reached, found.begin
        found.reached, found.begin = (segment, offset), (first, start)
        counts = (found.position + 1, found.end + 1, found.blob, found.blocks)
        numbers = (*found.reached, *found.begin, *counts)
        fits = all(isinstance(number, int) and 0 <= number < _LARGEST for number in numbers)
        if not (fits and isinstance(found.etag, str) and isinstance(found.anchor, str)):
            raise ValueError(numbers)
        return found

    def save(self, path: Path) -> None:
        """Write the state; the lines themselves are what is durable, so without a flush."""
        write_json_atomic(path, asdict(self), durable=False)

    def fit(self, log: LogFile) -> None:
        """Fit the state to the files that are there; where they were replaced, the blob decides."""
        segments, (segment, offset) = log.segments(), self.reached
        there = log.read((segment, max(0, offset - len(self.anchor))), len(self.anchor))
        if segment < segments[-1] and segment not in segments:  # a new state, or a tidied folder
            self.go(log, (min(number for number in segments if number > segment), 0))
        elif segment > segments[-1] or (offset and self.anchor != _text(there)):
            self.go(log, (segments[0], 0))
            self.position, self.begin, self.before = -1, (0, 0), []

    def go(self, log: LogFile, position: Position) -> None:
        """Go on from a position of the log."""
        segment, offset = self.reached = position
        start = max(0, offset - _ANCHOR_BYTES)
        last = log.read((segment, start), offset - start)
        self.anchor, self.end = _text(last[last.rfind(b"\n", 0, -1) + 1 :]), -1

    def roll(self) -> None:
        """Go on with the next blob."""
        self.before = [*self.before, replace(self, before=[])][-_REMEMBERED:]
        self.blob += 1
        self.position = self.end = -1
        self.blocks, self.begin = 0, self.reached

    def read_batch(self, log: LogFile, until: Position = _END) -> bytes:
        """Return the next bytes to mirror: lines of one segment, as many as one append takes."""
        while self.reached < until:
            segment, offset = self.reached
            done = log.segments()[-1] > segment
            most = until[1] - offset if segment == until[0] else _BATCH_BYTES
            data = log.read(self.reached, min(most, _BATCH_BYTES))
            if whole := data.rfind(b"\n") + 1:
                return data[:whole]
            if len(data) == _BATCH_BYTES or (done and data):  # of a line as long, or without an end
                return data
            if not done:
                break
            self.reached = (segment + 1, 0)
        return b""


def _text(data: bytes) -> str:
    return data.decode("latin-1")  # a character for each byte, whatever it is


@dataclass(eq=False, repr=False)
class AppendBlobTarget:
    """Appends batches of lines to an append blob, and rolls to the next blob in time.

    Every append names the position (`x-ms-blob-condition-appendpos`) and the ETag that it expects.
    Where the blob is another, the last line of ours in it says where to go on: so a batch whose
    answer was lost, or whose process was killed, is not sent twice, a blob that became shorter (a
    failover, a restore) is filled again, also where it has grown since, and several machines may
    share a blob.
    """

    container: ContainerClient
    name: str  # of the first blob; the following have a number before their suffix
    log: LogFile
    _: KW_ONLY
    max_blocks: int
    pause = 0.0
    lost: bool = field(default=False, init=False)  # lines neither in the blob nor on this disk

    def mirror(self, state: MirrorState, *, look: bool) -> Iterator[None]:
        """Append what is not there yet, step by step; with `look`, also what any blob has lost."""
        if look:
            self._look([*state.before, state])
            for part, following in zip(state.before, [*state.before, state][1:], strict=True):
                yield from self._fill(part, state, following.begin)
        yield from self._fill(state, state)

    def _look(self, parts: list[MirrorState]) -> None:
        """Compare blobs with what was confirmed, which is trusted where they cannot be asked.

        A blob that is gone or is a block blob now, while the one behind it is whole, was removed or
        converted by intent: for a cheaper tier, say.
        """
        try:
            found = [(part, self._properties(part)) for part in parts if part.position >= 0]
        except Exception as error:  # noqa: BLE001 - a token that may only append, say
            _log.debug("the run log's mirror cannot be looked at: %s", type(error).__name__)
            return
        lost = True  # what is behind the newest one, so that it is made again itself
        for part, properties in reversed(found):
            before, removed = part.reached, properties is None
            if properties and properties.blob_type != "AppendBlob":
                removed = properties.size >= part.position
            if removed and not lost:
                part.position = -1  # it is not looked at any more
            else:
                self._find_place(part, properties)
            lost = part.reached < before

    def _fill(
        self, part: MirrorState, newest: MirrorState, until: Position = _END
    ) -> Iterator[None]:
        while data := part.read_batch(self.log, until):
            if not self._append(part, data):
                _log.info("run log blob %s takes no more lines", self._blob(part).blob_name)
                if part is newest:
                    part.roll()
                else:  # the newest takes them, and rather twice what is behind them
                    newest.begin = min(newest.begin, part.reached)
                    newest.go(self.log, min(newest.reached, part.reached))
                    part.reached = until
            yield

    def _append(self, state: MirrorState, data: bytes) -> bool:
        """Take one step: open the blob, append lines, or find the place; False when it is full."""
        try:
            if state.position < 0:
                return self._open(state)
            if state.blocks >= self.max_blocks:
                self._look([*state.before, state])  # while the disk has what they may have lost
                return state.blocks < self.max_blocks
            answer = self._blob(state).append_block(
                data,
                length=len(data),
                appendpos_condition=state.position,
                etag=state.etag or None,
                match_condition=MatchConditions.IfNotModified if state.etag else None,
                **_ONE_TRY,
            )
            state.go(self.log, (state.reached[0], state.reached[1] + len(data)))
            state.position = state.end = int(str(answer["blob_append_offset"])) + len(data)
            state.blocks = int(str(answer["blob_committed_block_count"]))
            state.etag = str(answer["etag"] or "")  # which a proxy may have left out
        except HttpResponseError as error:
            status, code = error.status_code, error_code(error)
            if state.position >= 0 and (status in (404, 412) or code == "InvalidBlobType"):
                etag, state.etag = state.etag, ""  # it counts no longer where it cannot be asked
                properties, before = self._properties(state), state.reached
                state.etag = etag
                if not self._find_place(state, properties):
                    raise  # somebody has a lease on it, say
                if state.reached < before:
                    self._look(state.before)
            elif code == _SEALED or (
                status == 409 and state.position > 0 and code not in _HELD_UP
            ):  # 50,000 blocks, say, which a blob that never took any line has not
                return False
            else:
                if status == 403:  # a token that may append may not be allowed to compare ETags
                    state.etag = ""
                raise
        return True

    def _open(self, state: MirrorState) -> bool:
        """Make the blob, or go on with the one that is there; False when that takes no lines."""
        blob = self._blob(state)
        try:
            answer = blob.create_append_blob(
                content_settings=ContentSettings(content_type="application/x-ndjson"),
                match_condition=MatchConditions.IfMissing,
                **_ONE_TRY,
            )
            state.position, state.blocks, state.begin = 0, 0, state.reached
            state.etag = str(answer["etag"] or "")
        except HttpResponseError as error:
            if error.status_code not in {409, 412} or error_code(error) in _HELD_UP:
                raise
            properties = blob.get_blob_properties(**_ONE_TRY)
            if properties.blob_type != "AppendBlob":
                return self._take_over(state, properties)
            self._find_place(state, properties)
        return True

    def _take_over(self, state: MirrorState, properties: BlobProperties) -> bool:
        """Have an append blob replace the block blob of 0.7, under the name its readers know.

        Its lines become segment 0 of the log, where this disk does not begin with them, and go to
        the append blob as all others do.
        """
        log, blob, size = self.log, self._blob(state), properties.size
        before, first = state.reached, (log.segments()[0], 0)
        try:
            if state.blob or before != first or size > _LARGEST_READ:
                raise FileExistsError("it is not where a new log begins, or too large")
            lines = self._read(state, 0, size)
            if lines != log.read(first, size):
                if first == (0, 0):
                    raise FileExistsError("the log begins with other lines of 0.7")
                write_bytes_atomic(log.segment_path(0), lines)
                state.go(log, (0, 0))
            blob.delete_blob(
                etag=properties.etag, match_condition=MatchConditions.IfNotModified, **_ONE_TRY
            )
        except (FileExistsError, HttpResponseError) as error:
            if (getattr(error, "status_code", 400) or 0) not in range(400, 500):
                raise  # whether it is there still is not known
            if state.reached != before:
                log.segment_path(0).unlink()
                state.go(log, before)
            _log.warning(
                "run log blob %s is not an append blob and cannot be made one, the lines go to the "
                "next name: %s",
                blob.blob_name,
                type(error).__name__,
            )
            return False
        _log.info("run log blob %s, a block blob, is made an append blob", blob.blob_name)
        return True

    def _find_place(self, state: MirrorState, properties: BlobProperties | None) -> bool:
        """Go on behind the last line of ours in the blob; False when it is as we left it.

        Where it was removed, or another one put into its place, what it held is sent again.
        """
        if properties and properties.blob_type != "AppendBlob":
            properties = None
        size, etag = (properties.size, str(properties.etag or "")) if properties else (0, "")
        if properties and size == state.position and state.etag in ("", etag):
            return False
        name, left, whole = self._blob(state).blob_name, state.position, size >= state.position
        if whole and state.end >= 0:  # as long, but with lines of others in place of ours?
            last = self._read(state, max(0, state.end - len(state.anchor)), len(state.anchor))
            whole = _text(last) == state.anchor
        start = state.reached if whole else max((self.log.segments()[0], 0), state.begin)
        # A batch whose answer was lost begins where the one before ended.
        low = left if whole and left >= 0 else max(0, size - _LARGEST_READ)
        found = self._last_line(state, low, min(size, low + _LARGEST_READ), start)
        place, end = found or (start, state.end if whole else -1)
        if not (whole or found) and state.begin < start > (1, 0):
            self.lost = True
            _log.error("lines of run log blob %s are lost: they are on this disk no more", name)
        if place < state.reached:
            _log.warning(
                "run log blob %s has not all of the %d bytes that were confirmed (a failover, a "
                "restore, or another program replaced it): the lines that are missing are sent "
                "again",
                name,
                left,
            )
        if place != state.reached:
            state.go(self.log, place)
        # Last: what failed before is done again.
        state.end, state.position, state.etag = end, size if properties else -1, etag
        state.blocks = (properties.append_blob_committed_block_count or 0) if properties else 0
        return True

    def _last_line(
        self, state: MirrorState, low: int, high: int, start: Position
    ) -> tuple[Position, int] | None:
        """Return where the last line behind `start` ends that is also in a part of the blob.

        That is in the log, and in the blob. Of lines that are alike, those that stand there count
        from the first one on: rather one is sent twice than one never.
        """
        while high > low:
            begin = max(low, high - _BATCH_BYTES)
            data, place, last = self._read(state, begin, high - begin), start, b""
            cut = data.find(b"\n") + 1 if begin > low else 0  # the end of a line, for the next part
            cut = 0 if cut == len(data) else cut
            there = Counter(BytesIO(data[cut:]))
            for line, end in self.log.lines(start):
                if there[line] > 0:
                    there[line] -= 1
                    place, last = end, line
            if last:
                return place, begin + data.rfind(last) + len(last)
            high = begin + cut
        return None

    def _read(self, state: MirrorState, offset: int, length: int) -> bytes:
        if not length:  # a range that is empty cannot be asked for
            return b""
        download = self._blob(state).download_blob(offset=offset, length=length, **_ONE_TRY)
        return bytes(download.readall())

    def _properties(self, state: MirrorState) -> BlobProperties | None:
        try:
            return self._blob(state).get_blob_properties(**_ONE_TRY)
        except ResourceNotFoundError:
            return None

    def _blob(self, state: MirrorState) -> BlobClient:
        stem, suffix = splitext(self.name)  # noqa: PTH122 - a blob's name, no path
        name = f"{stem}.{state.blob:06d}{suffix}" if state.blob else self.name
        return self.container.get_blob_client(name)


@dataclass(eq=False, repr=False)
class UploadFileTarget:
    """Uploads the whole file with `upload_file(path)`, for clients that know nothing else.

    That is more bytes with every upload, so uploads are kept apart: at least a second, and four
    times as long as the last one took. Rotation bounds the size of the file.
    """

    upload_file: Callable[..., Any]
    log: LogFile
    pause: float = field(default=1.0, init=False)  # seconds until the next upload
    lost = False

    def mirror(self, state: MirrorState, *, look: bool) -> Iterator[None]:
        """Upload the segments that have grown; the client cannot say what it has."""
        log = self.log
        while state.read_batch(log):
            segment = state.reached[0]
            rotated = log.segments()[-1] > segment
            path = log.segment_path(segment) if rotated else log.path
            size, started = path.stat().st_size, clock.monotonic()
            call_strictly(self.upload_file, path)
            self.pause = max(1.0, 4 * (clock.monotonic() - started))
            if rotated == (log.segments()[-1] > segment):  # else: which file did it read?
                state.go(log, (segment, size))
            yield
