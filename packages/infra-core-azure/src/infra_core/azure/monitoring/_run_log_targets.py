"""Where a run log is mirrored to: an append blob, or whatever `upload_file` makes of a file."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ._client_calls import call_strictly
from ._log_file import LogFile
from ._run_log_state import BATCH_BYTES, MirrorState, read_batch

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

__all__ = ["AppendBlobTarget", "MirrorTarget", "UploadFileTarget"]

_log = logging.getLogger("infra_core.azure.monitoring")

# A 409 of the container or account, which another blob would not help.
# Retries are the mirror's, in one layer: the SDK's own would hold the mirror for minutes, and a
# later run with it.
_ONE_TRY: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 30}

_NOT_OURS = frozenset({"ContainerBeingDeleted", "ContainerDisabled", "AccountBeingCreated"})


class MirrorTarget(Protocol):
    """A place that takes the bytes of a log."""

    interval: float

    def push(self, log: LogFile, state: MirrorState, saved: Callable[[], None]) -> None:
        """Mirror everything that is in the log, calling `saved` after each step.

        Raises:
            Exception: Whatever went wrong; what `state` says by then is mirrored.
        """


class AppendBlobTarget:
    """Appends batches of lines to an append blob, and rolls to the next blob in time.

    Every append names the position that it expects (`x-ms-blob-condition-appendpos`), so that a
    batch whose answer was lost, or whose process was killed, is found to be there and not sent
    twice. Several machines may share a blob: their batches alternate.

    Args:
        container: The container.
        name: Name of the first blob; the following have a number before their suffix.
        max_blocks: Blocks after which to roll; the service allows 50,000.
        interval: Seconds between batches.
    """

    def __init__(
        self, container: "ContainerClient", name: str, *, max_blocks: int, interval: float
    ) -> None:
        self.interval = interval
        self._container = container
        self._name = name
        self._max_blocks = max_blocks

    def push(self, log: LogFile, state: MirrorState, saved: Callable[[], None]) -> None:
        """Append everything that is in the log."""
        from azure.core.exceptions import HttpResponseError

        while data := read_batch(log, state):
            try:
                self._append(log, state, data)
            except HttpResponseError as error:
                if error.status_code == 404 and state.position >= 0:
                    # Somebody removed the blob. Its lines are still here: it is made again.
                    state.position, state.blocks = -1, 0
                    self._rewind_to_blob_start(log, state)
                elif error.status_code == 409 and _code(error) not in _NOT_OURS:
                    # 50,000 blocks, sealed, or made by 0.7 as a block blob.
                    _log.info("run log blob %s takes no more lines", self.name(state))
                    self._roll(state)
                else:
                    raise
            saved()

    def name(self, state: MirrorState) -> str:
        """Return the name of the blob that the state is at."""
        if state.blob == 0:
            return self._name
        stem, dot, suffix = self._name.rpartition(".")
        return f"{stem}.{state.blob:06d}.{suffix}" if dot else f"{self._name}.{state.blob:06d}"

    def _append(self, log: LogFile, state: MirrorState, data: bytes) -> None:
        from azure.core.exceptions import HttpResponseError

        if state.position < 0:
            self._create(state)
        if state.blocks >= self._max_blocks:
            self._roll(state)
            self._create(state)
        try:
            answer = self._blob(state).append_block(
                data, length=len(data), appendpos_condition=state.position, **_ONE_TRY
            )
        except HttpResponseError as error:
            if error.status_code != 412:
                raise
            self._reconcile(log, state, data)
            return
        state.position = int(str(answer["blob_append_offset"])) + len(data)
        state.blocks = int(str(answer["blob_committed_block_count"]))
        state.advance(log, len(data))

    def _create(self, state: MirrorState) -> None:
        """Make the blob, or take over the one that is there."""
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError
        from azure.storage.blob import ContentSettings

        blob = self._blob(state)
        try:
            blob.create_append_blob(
                content_settings=ContentSettings(content_type="application/x-ndjson"),
                match_condition=MatchConditions.IfMissing,
                **_ONE_TRY,
            )
        except HttpResponseError as error:
            if error.status_code not in {409, 412} or _code(error) in _NOT_OURS:
                raise
            properties = blob.get_blob_properties(**_ONE_TRY)
            if not _appendable(properties):
                raise
            state.position = properties.size
            state.blocks = properties.append_blob_committed_block_count or 0
        else:
            state.position = state.blocks = 0
            state.blob_start = state.reached

    def _reconcile(self, log: LogFile, state: MirrorState, data: bytes) -> None:
        """Find out what is behind the position where our batch was to go."""
        blob = self._blob(state)
        properties = blob.get_blob_properties(**_ONE_TRY)
        there = b""
        if properties.size > state.position >= 0:
            length = min(properties.size - state.position, BATCH_BYTES)
            there = blob.download_blob(offset=state.position, length=length, **_ONE_TRY).readall()
        landed = _common_lines(there, data)
        state.position = properties.size
        state.blocks = properties.append_blob_committed_block_count or 0
        if landed:
            state.advance(log, landed)

    def _roll(self, state: MirrorState) -> None:
        state.blob += 1
        state.position, state.blocks = -1, 0

    def _rewind_to_blob_start(self, log: LogFile, state: MirrorState) -> None:
        segment, _ = state.blob_start
        if segment == state.segment or segment in log.rotated():
            state.rewind(state.blob_start)

    def _blob(self, state: MirrorState) -> "BlobClient":
        return self._container.get_blob_client(self.name(state))


class UploadFileTarget:
    """Uploads the whole file with `upload_file(path)`, for clients that know nothing else.

    That is more bytes with every upload, so uploads are kept apart: at least a second, and four
    times as long as the last one took. Rotation bounds the size of the file.

    Args:
        upload_file: The client's method.
        interval: Seconds between uploads, at least.
    """

    def __init__(self, upload_file: Callable[..., Any], *, interval: float) -> None:
        self._least = self.interval = max(1.0, interval)
        self._upload_file = upload_file

    def push(self, log: LogFile, state: MirrorState, saved: Callable[[], None]) -> None:
        """Upload every segment that has grown."""
        from infra_core.runtime import clock

        while read_batch(log, state):
            segment, size = state.segment, _size(log, state)
            rotated = segment in log.rotated()
            started = clock.monotonic()
            call_strictly(self._upload_file, log.segment_path(segment) if rotated else log.path)
            self.interval = max(self._least, 4 * (clock.monotonic() - started))
            if not rotated and segment in log.rotated():
                continue  # rotated meanwhile: we cannot know which file it read
            state.advance(log, size - state.offset)
            saved()


def _size(log: LogFile, state: MirrorState) -> int:
    """Return the size of the state's segment up to its last whole line."""
    import os

    fd = log.open_segment(state.segment)
    if fd is None:
        return state.offset
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _common_lines(there: bytes, ours: bytes) -> int:
    """Return how many bytes of ours are there: whole lines, or all of what is there."""
    length = min(len(there), len(ours))
    if there[:length] == ours[:length]:
        return length
    low, high = 0, length  # the first difference, by halves
    while low < high:
        middle = (low + high + 1) // 2
        if there[:middle] == ours[:middle]:
            low = middle
        else:
            high = middle - 1
    return ours.rfind(b"\n", 0, low) + 1


def _appendable(properties: "BlobProperties") -> bool:
    kind = properties.blob_type
    return (
        str(getattr(kind, "value", kind)) == "AppendBlob" and not properties.is_append_blob_sealed
    )


def _code(error: Exception) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code))
