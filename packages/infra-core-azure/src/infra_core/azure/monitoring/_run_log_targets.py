"""Where a run log is mirrored to: an append blob, or whatever `upload_file` makes of a file.

Imported by the mirror's thread, as it imports the SDK.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobClient, BlobProperties, ContainerClient, ContentSettings
from infra_core.runtime import clock

from ._client_calls import call_strictly, error_code
from ._log_file import LogFile, Position
from ._run_log_state import BATCH_BYTES, MirrorState, last_common_line

__all__ = ["AppendBlobTarget", "UploadFileTarget"]

_log = logging.getLogger("infra_core.azure.monitoring")

# Retries are the mirror's, in one layer: the SDK's own would hold the mirror for minutes, and a
# later run with it.
_ONE_TRY: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 30}
# A 409 of the container or account, which another blob would not help.
_NOT_OURS = frozenset({"ContainerBeingDeleted", "ContainerDisabled", "AccountBeingCreated"})
_LARGEST_READ = 64 * 1024 * 1024  # bytes of a blob that are read to find our last line, or copied


@dataclass(eq=False, repr=False)
class AppendBlobTarget:
    """Appends batches of lines to an append blob, and rolls to the next blob in time.

    Every append names the position that it expects (`x-ms-blob-condition-appendpos`). Where the
    blob is longer or shorter than that, the last line of ours in it says where to go on: so a
    batch whose answer was lost, or whose process was killed, is not sent twice, a blob that became
    shorter (a failover, a restore) is filled again, and several machines may share a blob.

    Args:
        container: The container.
        name: Name of the first blob; the following have a number before their suffix.
        log: What is mirrored.
        max_blocks: Blocks after which to roll; the service allows 50,000.
        interval: Seconds between batches.

    Attributes:
        lost: Whether lines that the blob had confirmed are neither there nor on this disk any more.
    """

    container: ContainerClient
    name: str
    log: LogFile
    _: KW_ONLY
    max_blocks: int
    interval: float
    lost: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        stem, dot, suffix = self.name.rpartition(".")
        self._stem, self._suffix = (stem, dot + suffix) if dot else (self.name, "")

    def push(self, state: MirrorState, *, look: bool = False) -> Iterator[None]:
        """Append everything that is in the log.

        Args:
            state: Where to begin; what it says in the end is mirrored, after an error as well.
            look: Look whether what was confirmed is still there, too.

        Yields:
            Nothing, when the state has changed.

        Raises:
            Exception: Whatever went wrong.
        """
        if look and state.position >= 0:
            self._look(state)
            yield
        while data := state.read_batch(self.log):
            try:
                self._append(state, data)
            except Exception as error:
                if _is_gone(error) and state.position >= 0:
                    self._compare(state, None)
                elif getattr(error, "status_code", None) != 409 or error_code(error) in _NOT_OURS:
                    raise
                else:
                    _log.info("run log blob %s takes no more lines", self._name(state))
                    state.roll()  # 50,000 blocks, or sealed
            yield

    def _look(self, state: MirrorState) -> None:
        """Look whether the blob has what was confirmed; one that cannot be asked is trusted."""
        try:
            properties = self._properties(state)
        except Exception as error:  # noqa: BLE001 - a token that may only append, say
            if not _is_gone(error):
                _log.debug("the run log's mirror cannot be looked at: %s", type(error).__name__)
                return
            properties = None
        self._compare(state, properties)

    def _append(self, state: MirrorState, data: bytes) -> None:
        if state.position < 0:
            self._open(state)
        elif state.blocks >= self.max_blocks:
            self._look(state)  # for the last time
            state.roll()
        else:
            try:
                answer = self._blob(state).append_block(
                    data, length=len(data), appendpos_condition=state.position, **_ONE_TRY
                )
            except HttpResponseError as error:
                if error.status_code != 412:
                    raise
                self._compare(state, self._properties(state))
            else:
                state.go(self.log, (state.segment, state.offset + len(data)))
                state.position = int(str(answer["blob_append_offset"])) + len(data)
                state.blocks = int(str(answer["blob_committed_block_count"]))

    def _open(self, state: MirrorState) -> None:
        """Make the blob, or go on with the one that is there."""
        blob = self._blob(state)
        try:
            blob.create_append_blob(
                content_settings=ContentSettings(content_type="application/x-ndjson"),
                match_condition=MatchConditions.IfMissing,
                **_ONE_TRY,
            )
        except HttpResponseError as error:
            if error.status_code not in {409, 412} or error_code(error) in _NOT_OURS:
                raise
            properties = self._properties(state)
            if _type(properties) != "AppendBlob" and self._take_over(state, properties):
                properties = self._properties(state)
            if _type(properties) != "AppendBlob" or properties.is_append_blob_sealed:
                state.roll()
            else:
                self._compare(state, properties)
        else:
            state.position = state.blocks = 0

    def _take_over(self, state: MirrorState, properties: BlobProperties) -> bool:
        """Make an append blob of the block blob that 0.7 wrote, under the name its readers know.

        Its lines are kept in a blob of their own until that is done.
        """
        blob, size = self._blob(state), properties.size
        if state.blob or state.offset or size > _LARGEST_READ:
            return False
        backup = self.container.get_blob_client(f"{self._stem}.0_7{self._suffix}")
        try:
            old = self._read(state, 0, size)
            with contextlib.suppress(ResourceExistsError):
                backup.upload_blob(old, overwrite=False, **_ONE_TRY)
            blob.delete_blob(
                etag=properties.etag, match_condition=MatchConditions.IfNotModified, **_ONE_TRY
            )
        except Exception as error:  # noqa: BLE001 - the lines go to the next name, as ever
            _log.warning(
                "run log blob %s is no append blob and cannot be made one, the lines go to the "
                "next name: %s",
                self._name(state),
                type(error).__name__,
            )
            return False
        _log.info("run log blob %s, a block blob, is made an append blob", self._name(state))
        blob.create_append_blob(**_ONE_TRY)
        for start in range(0, size, BATCH_BYTES):
            piece = old[start : start + BATCH_BYTES]
            blob.append_block(piece, length=len(piece), appendpos_condition=start, **_ONE_TRY)
        backup.delete_blob(**_ONE_TRY)
        return True

    def _compare(self, state: MirrorState, properties: BlobProperties | None) -> None:
        """Go on behind the last line of ours in the blob, which is not as long as we left it.

        Where it was removed, or another one put into its place, what it held is sent again.
        """
        if properties is not None and _type(properties) != "AppendBlob":
            properties = None
        size = 0 if properties is None else properties.size
        confirmed, log, reached = state.position, self.log, state.reached
        if size >= confirmed:
            found = self._last_line(state, (max(0, confirmed), size), reached)
            state.go(log, found or reached)
        else:
            segments = log.segments()
            found = self._last_line(state, (0, size), state.begin)
            state.go(log, found or max(state.begin, (segments[0], 0)))
            _log.warning(
                "run log blob %s has %d bytes of %d that were confirmed (a failover, a restore, or "
                "another program replaced it): the lines that are missing are sent again",
                self._name(state),
                size,
                confirmed,
            )
            if found is None and state.begin_segment not in segments:
                self.lost = True
                _log.error(
                    "lines of run log blob %s are lost: they are on this disk no more",
                    self._name(state),
                )
        # Last: what failed before is done again.
        state.position = -1
        if properties is not None:
            state.position = size
            state.blocks = properties.append_blob_committed_block_count or 0

    def _last_line(
        self, state: MirrorState, part: tuple[int, int], start: Position
    ) -> Position | None:
        """Look for our last line in a part of the blob, from its end, in what is affordable."""
        end, found = part[1], None
        low = max(part[0], end - _LARGEST_READ)
        while found is None and end > low:
            begin = max(low, end - BATCH_BYTES)
            found = last_common_line(self.log, start, self._read(state, begin, end - begin))
            end = begin
        return found

    def _read(self, state: MirrorState, offset: int, length: int) -> bytes:
        if not length:
            return b""
        download = self._blob(state).download_blob(offset=offset, length=length, **_ONE_TRY)
        return bytes(download.readall())

    def _properties(self, state: MirrorState) -> BlobProperties:
        return self._blob(state).get_blob_properties(**_ONE_TRY)

    def _name(self, state: MirrorState) -> str:
        number = f".{state.blob:06d}" if state.blob else ""
        return f"{self._stem}{number}{self._suffix}"

    def _blob(self, state: MirrorState) -> BlobClient:
        return self.container.get_blob_client(self._name(state))


@dataclass(eq=False, repr=False)
class UploadFileTarget:
    """Uploads the whole file with `upload_file(path)`, for clients that know nothing else.

    That is more bytes with every upload, so uploads are kept apart: at least a second, and four
    times as long as the last one took. Rotation bounds the size of the file.

    Args:
        upload_file: The client's method.
        log: What is mirrored.
        interval: Seconds between uploads, at least.
    """

    upload_file: Callable[..., Any]
    log: LogFile
    _: KW_ONLY
    interval: float
    lost = False

    def __post_init__(self) -> None:
        self._least = self.interval = max(1.0, self.interval)

    def push(self, state: MirrorState, *, look: bool = False) -> Iterator[None]:
        """Upload every segment that has grown; nothing can be looked at."""
        log = self.log
        while state.read_batch(log):
            segment = state.segment
            size = log.size(segment)
            rotated = log.segments()[-1] > segment
            started = clock.monotonic()
            call_strictly(self.upload_file, log.segment_path(segment) if rotated else log.path)
            self.interval = max(self._least, 4 * (clock.monotonic() - started))
            if rotated == (log.segments()[-1] > segment):  # else: which file did it read?
                state.go(log, (segment, size))
                yield


def _type(properties: BlobProperties) -> str:
    kind = properties.blob_type
    return str(getattr(kind, "value", kind))


def _is_gone(error: Exception) -> bool:
    """Whether the blob was removed, or another one put into its place."""
    status = getattr(error, "status_code", None)
    return status == 404 or (status == 409 and error_code(error) == "InvalidBlobType")
