"""Where a run log is mirrored to: an append blob, or whatever `upload_file` makes of a file."""

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from infra_core.runtime import clock

from ._client_calls import call_strictly
from ._log_file import LogFile
from ._run_log_state import BATCH_BYTES, MirrorState

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

__all__ = ["AppendBlobTarget", "MirrorTarget", "UploadFileTarget"]

_log = logging.getLogger("infra_core.azure.monitoring")

# Retries are the mirror's, in one layer: the SDK's own would hold the mirror for minutes, and a
# later run with it.
_ONE_TRY: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 30}
# A 409 of the container or account, which another blob would not help.
_NOT_OURS = frozenset({"ContainerBeingDeleted", "ContainerDisabled", "AccountBeingCreated"})
_LARGEST_OF_0_7 = 64 * 1024 * 1024  # bytes of a block blob that is made an append blob


class MirrorTarget(Protocol):
    """A place that takes the bytes of a log.

    Attributes:
        interval: Seconds between batches.
        lost: Bytes that it had confirmed, lost since, and that are on this disk no more.
    """

    interval: float
    lost: int

    def push(self, log: LogFile, state: MirrorState, saved: Callable[[], None]) -> None:
        """Mirror everything that is in the log, calling `saved` after each step.

        Raises:
            Exception: Whatever went wrong; what `state` says by then is mirrored.
        """

    def check(self, log: LogFile, state: MirrorState) -> bool:
        """Whether all that was confirmed is still there; when not, `state` went back."""
        ...


class AppendBlobTarget:
    """Appends batches of lines to an append blob, and rolls to the next blob in time.

    Every append names the position that it expects (`x-ms-blob-condition-appendpos`), so that a
    batch whose answer was lost, or whose process was killed, is found to be there and not sent
    twice, and a blob that became shorter (a failover, a restore) is noticed. Several machines may
    share a blob: their batches alternate.

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
        self.lost = 0
        self._container = container
        self._stem, dot, suffix = name.rpartition(".")
        if not dot:
            self._stem, suffix = name, ""
        self._suffix = dot + suffix
        self._max_blocks = max_blocks

    def push(self, log: LogFile, state: MirrorState, saved: Callable[[], None]) -> None:
        """Append everything that is in the log."""
        from azure.core.exceptions import HttpResponseError

        while data := state.read_batch(log):
            try:
                if state.position < 0:
                    self._open(log, state)
                elif state.blocks >= self._max_blocks:
                    state.roll()
                else:
                    self._append(log, state, data)
            except HttpResponseError as error:
                code = _code(error)
                if error.status_code == 404 and state.position >= 0:
                    self._go_back(log, state, 0)
                    state.position = -1  # made again
                elif error.status_code == 409 and code == "InvalidBlobType":
                    state.position = -1  # somebody put another blob into its place
                elif error.status_code == 409 and code not in _NOT_OURS:
                    _log.info("run log blob %s takes no more lines", self.name(state))
                    state.roll()  # 50,000 blocks, or sealed
                else:
                    raise
            saved()

    def check(self, log: LogFile, state: MirrorState) -> bool:
        """Compare the blob's size with what was confirmed."""
        from azure.core.exceptions import HttpResponseError

        if state.position < 0:
            return True
        try:
            size = self._blob(state).get_blob_properties(**_ONE_TRY).size
        except HttpResponseError as error:
            if error.status_code != 404:
                raise
            size = 0
        if size >= state.position:
            return True
        self._go_back(log, state, size)
        return False

    def name(self, state: MirrorState) -> str:
        """Return the name of the blob that the state is at."""
        number = f".{state.blob:06d}" if state.blob else ""
        return f"{self._stem}{number}{self._suffix}"

    def _append(self, log: LogFile, state: MirrorState, data: bytes) -> None:
        from azure.core.exceptions import HttpResponseError

        try:
            answer = self._blob(state).append_block(
                data, length=len(data), appendpos_condition=state.position, **_ONE_TRY
            )
        except HttpResponseError as error:
            if error.status_code != 412:
                raise
            self._reconcile(log, state, data)
            return
        begin = int(str(answer["blob_append_offset"]))
        state.advance(log, len(data), begin)
        state.position = begin + len(data)
        state.blocks = int(str(answer["blob_committed_block_count"]))

    def _open(self, log: LogFile, state: MirrorState) -> None:
        """Make the blob, or go on with the one that is there."""
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
            if _type(properties) != "AppendBlob":
                if state.blob or not self._take_over(log, state, properties):
                    state.roll()
                return
            if properties.is_append_blob_sealed:
                state.roll()
                return
            state.position = properties.size
            state.blocks = properties.append_blob_committed_block_count or 0
            if state.offset == 0:
                self._match(log, state)
        else:
            state.position = state.blocks = 0
            state.sent = []

    def _match(self, log: LogFile, state: MirrorState) -> None:
        """Skip the lines with which a blob begins that is older than our knowledge of it.

        The state was lost, or the folder was brought here by a download.
        """
        at = 0
        while at < state.position and (data := state.read_batch(log)):
            landed = _common_lines(self._read(state, at, len(data)), data)
            if landed:
                state.advance(log, landed, at)
                at += landed
            if landed < len(data):
                return

    def _take_over(self, log: LogFile, state: MirrorState, properties: "BlobProperties") -> bool:
        """Make an append blob of the block blob that 0.7 wrote, under the name its readers know.

        Its lines are at the beginning of the local log as a rule: then they are sent again.
        Otherwise they are copied, and kept in a blob of their own until that is done.
        """
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError

        if state.offset or properties.size > _LARGEST_OF_0_7:
            return False
        blob, size = self._blob(state), properties.size
        try:
            old = self._read(state, 0, size) if size else b""
            copied = old if log.read(state.reached, size) != old else b""
            backup = self._container.get_blob_client(f"{self._stem}.0_7{self._suffix}")
            if copied:
                with contextlib.suppress(ResourceExistsError):
                    backup.upload_blob(copied, overwrite=False, **_ONE_TRY)
            blob.delete_blob(
                etag=properties.etag, match_condition=MatchConditions.IfNotModified, **_ONE_TRY
            )
        except Exception as error:  # noqa: BLE001 - the lines go to the next name, as ever
            _log.warning(
                "run log blob %s is no append blob and cannot be made one, the lines go to the "
                "next name: %s",
                self.name(state),
                type(error).__name__,
            )
            return False
        _log.info("run log blob %s, a block blob, is made an append blob", self.name(state))
        blob.create_append_blob(**_ONE_TRY)
        state.position = state.blocks = 0
        state.sent = []
        for start in range(0, len(copied), BATCH_BYTES):
            piece = copied[start : start + BATCH_BYTES]
            blob.append_block(piece, length=len(piece), appendpos_condition=start, **_ONE_TRY)
            state.position, state.blocks = start + len(piece), state.blocks + 1
        if copied:
            backup.delete_blob(**_ONE_TRY)
        return True

    def _reconcile(self, log: LogFile, state: MirrorState, data: bytes) -> None:
        """Find out what is behind the position where our batch was to go."""
        properties = self._blob(state).get_blob_properties(**_ONE_TRY)
        state.blocks = properties.append_blob_committed_block_count or 0
        if properties.size < state.position:
            self._go_back(log, state, properties.size)
            return
        there = b""
        if properties.size > state.position:
            length = min(properties.size - state.position, BATCH_BYTES)
            there = self._read(state, state.position, length)
        landed = _common_lines(there, data)
        if landed:
            state.advance(log, landed, state.position)
        state.position = properties.size

    def _go_back(self, log: LogFile, state: MirrorState, size: int) -> None:
        confirmed = state.position
        again, lost = state.cut(log, size)
        self.lost += lost
        _log.warning(
            "run log blob %s has %d bytes of %d that were confirmed (a failover, a restore, or "
            "somebody removed it): %d bytes are sent again",
            self.name(state),
            size,
            confirmed,
            again,
        )
        if lost:
            _log.error(
                "%d bytes of run log blob %s are lost: they are on this disk no more",
                lost,
                self.name(state),
            )

    def _read(self, state: MirrorState, offset: int, length: int) -> bytes:
        download = self._blob(state).download_blob(offset=offset, length=length, **_ONE_TRY)
        return bytes(download.readall())

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
        self.lost = 0
        self._upload_file = upload_file

    def push(self, log: LogFile, state: MirrorState, saved: Callable[[], None]) -> None:
        """Upload every segment that has grown."""
        while state.read_batch(log):
            segment = state.segment
            size = log.size(segment) or state.offset
            rotated = log.active() > segment
            started = clock.monotonic()
            call_strictly(self._upload_file, log.segment_path(segment) if rotated else log.path)
            self.interval = max(self._least, 4 * (clock.monotonic() - started))
            if not rotated and log.active() > segment:
                continue  # rotated meanwhile: we cannot know which file it read
            state.advance(log, size - state.offset)
            saved()

    def check(self, log: LogFile, state: MirrorState) -> bool:
        """Nothing can be asked of such a client."""
        return True


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


def _type(properties: "BlobProperties") -> str:
    kind = properties.blob_type
    return str(getattr(kind, "value", kind))


def _code(error: Exception) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code))
