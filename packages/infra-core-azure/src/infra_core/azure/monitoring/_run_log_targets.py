"""Where a run log is mirrored to: append blobs, or `upload_file` of whole files.

Imported by the mirror's thread, as it imports the SDK.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from io import BytesIO
from os.path import splitext
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobProperties, ContainerClient, ContentSettings
from infra_core.fs import write_bytes_atomic
from infra_core.runtime import clock

from ._client_calls import call_strictly, error_code, is_configured, knows_parameter
from ._log_file import LogFile, Position
from ._protocols import RunLogUploader
from ._run_log_state import MirrorState, Part, text_of

__all__ = ["AppendBlobTarget", "UploadFileTarget", "target_of"]

_log = logging.getLogger("infra_core.azure.monitoring")

# Retries are the mirror's, in one layer: the SDK's own would hold the mirror for minutes, and a
# later run with it.
_ONE_TRY: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 30}
# A 409 of the container or account, which another blob would not help.
_HELD_UP = frozenset({"ContainerBeingDeleted", "ContainerDisabled", "AccountBeingCreated"})
_PIECE_BYTES = 4 * 1024 * 1024  # of such a read; four times as long as our longest line
_LARGEST_READ = 64 * 1024 * 1024  # bytes of a blob that are read to find our last line, or kept


def target_of(
    client: RunLogUploader, log: LogFile, *, max_blocks: int
) -> "AppendBlobTarget | UploadFileTarget | None":
    """Return how a client takes a log; `None` when it has no account to mirror to."""
    given: Any = client
    if not is_configured(given):
        return None
    container = None
    if callable(method := getattr(given, "container", None)):
        # Ours asks nothing of the service yet: a service that is down would hold us up here.
        container = method(create=False) if knows_parameter(method, "create") else method()
    if container is not None and callable(name_of := getattr(given, "blob_name_for_path", None)):
        return AppendBlobTarget(container, str(name_of(log.path)), log, max_blocks=max_blocks)
    if callable(upload_file := getattr(given, "upload_file", None)):
        return UploadFileTarget(upload_file, log)
    raise RuntimeError(
        f"the run log's storage client {type(given).__name__} has neither container() nor "
        "upload_file(): pass an AzureStorageClient, or azure_client=None for no mirror"
    )


@dataclass(eq=False, repr=False)
class AppendBlobTarget:
    """Appends batches of lines to an append blob, and goes on with the next blob in time.

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
            self._look(state.parts)
        while (batch := state.next_batch(self.log)) is not None:
            part, data = batch
            try:
                if not self._step(state, part, data):
                    _log.info("run log blob %s takes no more lines", self._blob(part).blob_name)
                    state.leave(part)
            except HttpResponseError as error:
                if error.status_code == 403:  # a token that may append may not compare ETags, nor
                    part.etag = ""  # look at the blob: then the position alone counts
                raise
            yield

    def _step(self, state: MirrorState, part: Part, data: bytes) -> bool:
        """Make the blob, append lines, or find the place; false when it takes no more lines."""
        new = part.position < 0
        if not new and part.blocks >= self.max_blocks:
            self._look(state.parts)  # while the disk has what they may have lost
            return part.blocks < self.max_blocks
        try:
            if new:
                self._create(part)
            else:
                self._append(part, data)
        except HttpResponseError as error:
            status, code = error.status_code, error_code(error)
            if code in _HELD_UP:
                raise
            if status in (412, 409 if new else 404) or code == "InvalidBlobType":
                properties, reached = self._properties(part), part.reached
                if new and properties and properties.blob_type != "AppendBlob":
                    return self._take_over(part, properties)
                if not self._compare(part, properties):
                    raise  # somebody has a lease on it, say
                if part.reached < reached:
                    self._look(state.parts[:-1])
            elif code == "BlobIsSealed" or (status == 409 and part.position > 0):
                return False  # 50,000 blocks, say, which a blob that never took any line has not
            else:
                raise
        return True

    def _create(self, part: Part) -> None:
        answer = self._blob(part).create_append_blob(
            content_settings=ContentSettings(content_type="application/x-ndjson"),
            match_condition=MatchConditions.IfMissing,
            **_ONE_TRY,
        )
        part.position, part.blocks, part.begin = 0, 0, part.reached
        part.etag = str(answer["etag"] or "")

    def _append(self, part: Part, data: bytes) -> None:
        answer = self._blob(part).append_block(
            data,
            length=len(data),
            appendpos_condition=part.position,
            etag=part.etag or None,
            match_condition=MatchConditions.IfNotModified if part.etag else None,
            **_ONE_TRY,
        )
        segment, offset = part.reached
        part.go(self.log, (segment, offset + len(data)))
        part.position = part.end = part.position + len(data)
        part.blocks += 1
        part.etag = str(answer["etag"] or "")  # which a proxy may have left out

    def _look(self, parts: list[Part]) -> None:
        """Compare blobs with what was confirmed, which is trusted where they cannot be asked.

        A blob that is gone or is a block blob now, while the one behind it is whole, was removed or
        converted by intent: for a cheaper tier, say.
        """
        try:
            found = [(part, self._properties(part)) for part in parts if part.position >= 0]
        except Exception as error:  # noqa: BLE001 - a token that may only append, say
            _log.debug("the run log's mirror cannot be looked at: %s", type(error).__name__)
            return
        whole_behind = False  # behind the newest one, so that it is made again itself
        for part, properties in reversed(found):
            reached, gone = part.reached, properties is None
            if properties and properties.blob_type != "AppendBlob":
                gone = properties.size >= part.position
            if gone and whole_behind:
                part.position = -1  # it is not looked at any more
            else:
                self._compare(part, properties)
            whole_behind = part.reached >= reached

    def _compare(self, part: Part, properties: BlobProperties | None) -> bool:
        """Go on behind the last line of ours in a blob; false when it is as we left it.

        Where it was removed, or another one put into its place, what it held is sent again.
        """
        if properties and properties.blob_type != "AppendBlob":
            properties = None
        size, etag, blocks, confirmed = -1, "", 0, part.position
        if properties:
            size, etag = properties.size, str(properties.etag or "")
            blocks = properties.append_blob_committed_block_count or 0
        if size == confirmed and part.etag in ("", etag):
            return False
        whole = 0 <= confirmed <= size
        if whole and part.end >= 0:  # as long, but with lines of others in place of ours?
            last = self._read(part, max(0, part.end - len(part.anchor)), len(part.anchor))
            whole = text_of(last) == part.anchor
        if whole:  # a batch whose answer was lost begins where the one before ended
            start, end, low = part.reached, part.end, confirmed
        else:
            start, end = max((self.log.segments()[0], 0), part.begin), -1
            low = max(0, size - _LARGEST_READ)
        found = self._last_line(part, low, min(size, low + _LARGEST_READ), start)
        place, end = found or (start, end)
        name = self._blob(part).blob_name
        if not (whole or found) and part.begin < start:
            self.lost = True
            _log.error("lines of run log blob %s are lost: they are on this disk no more", name)
        if place < part.reached:
            _log.warning(
                "run log blob %s has not all of the %d bytes that were confirmed (a failover, a "
                "restore, or another program replaced it): the lines that are missing are sent "
                "again",
                name,
                confirmed,
            )
        if place != part.reached:
            part.go(self.log, place)
        # Last: what failed before is done again.
        part.position, part.end, part.etag, part.blocks = size, end, etag, blocks
        return True

    def _last_line(
        self, part: Part, low: int, high: int, start: Position
    ) -> tuple[Position, int] | None:
        """Return where the last line behind `start` ends that is also in a piece of the blob.

        That is in the log, and in the blob. Of lines that are alike, those that stand there count
        from the first one on: rather one is sent twice than one never.
        """
        while high > low:
            begin = max(low, high - _PIECE_BYTES)
            data, place, last = self._read(part, begin, high - begin), start, b""
            there = Counter(BytesIO(data))
            for line, end in self.log.lines(start):
                if there[line] > 0:
                    there[line] -= 1
                    place, last = end, line
            if last:
                return place, begin + data.rfind(last) + len(last)
            # A line of which this piece has the end only is whole in the next.
            high = begin + _PIECE_BYTES // 4 if begin > low else low
        return None

    def _take_over(self, part: Part, properties: BlobProperties) -> bool:
        """Have an append blob replace the block blob of 0.7, under the name its readers know.

        Its lines become segment 0 of the log, where this disk does not begin with them, and go to
        the append blob as all others do. False where that cannot be.
        """
        log, blob, size = self.log, self._blob(part), properties.size
        before, first = part.reached, (log.segments()[0], 0)
        try:
            if part.blob or before != first or size > _LARGEST_READ:
                raise FileExistsError("it is not where a new log begins, or too large")
            lines = self._read(part, 0, size)
            if lines != log.read(first, size):
                if first == (0, 0):
                    raise FileExistsError("the log begins with other lines of 0.7")
                write_bytes_atomic(log.segment_path(0), lines)
                part.reached = (0, 0)
            blob.delete_blob(
                etag=properties.etag, match_condition=MatchConditions.IfNotModified, **_ONE_TRY
            )
        except (FileExistsError, HttpResponseError) as error:
            if (getattr(error, "status_code", 400) or 0) not in range(400, 500):
                raise  # whether it is there still is not known
            if part.reached != before:
                log.segment_path(0).unlink()
                part.reached = before
            _log.warning(
                "run log blob %s is not an append blob and cannot be made one, the lines go to the "
                "next name: %s",
                blob.blob_name,
                type(error).__name__,
            )
            return False
        _log.info("run log blob %s, a block blob, is made an append blob", blob.blob_name)
        return True

    def _read(self, part: Part, offset: int, length: int) -> bytes:
        if not length:  # a range that is empty cannot be asked for
            return b""
        download = self._blob(part).download_blob(offset=offset, length=length, **_ONE_TRY)
        return bytes(download.readall())

    def _properties(self, part: Part) -> BlobProperties | None:
        try:
            return self._blob(part).get_blob_properties(**_ONE_TRY)
        except ResourceNotFoundError:
            return None

    def _blob(self, part: Part) -> BlobClient:
        stem, suffix = splitext(self.name)  # noqa: PTH122 - a blob's name, no path
        name = f"{stem}.{part.blob:06d}{suffix}" if part.blob else self.name
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
        """Upload what has grown, and what was rotated; the client cannot say what it has.

        A rotated segment is uploaded in any case: what was its name is that of other lines now.
        """
        log, part = self.log, state.parts[-1]
        while True:
            segment, offset = part.reached
            rotated = log.segments()[-1] > segment
            path = log.segment_path(segment) if rotated else log.path
            size = path.stat().st_size if path.exists() else 0
            if size == offset and not rotated:
                return
            if size:
                started = clock.monotonic()
                call_strictly(self.upload_file, path)
                self.pause = max(1.0, 4 * (clock.monotonic() - started))
            if rotated:
                part.go(log, (segment + 1, 0))
            elif log.segments()[-1] == segment:  # else: which file did it read?
                part.go(log, (segment, size))
                return  # what was written since waits for the next pass, and with it for the pause
            yield
