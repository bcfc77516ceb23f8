"""One download from its first request to its last byte on the disk."""

from __future__ import annotations

import contextlib
import errno
import logging
import stat
from collections.abc import Awaitable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

import httpx

from infra_core.fs import AtomicFile, FileWriteError, media_type, parse_checksum
from infra_core.runtime import (
    RetryDeadlineError,
    RetryDetails,
    add_note,
    in_thread,
    retry_async,
    trace_fields,
)

from .._async_response import fit_to_travel
from .._errors import (
    ChecksumMismatchError,
    DownloadDeadlineError,
    DownloadDiskError,
    DownloadError,
)
from .._response.decode import DamagedBody, Decoder
from .._stream import host_turn
from ._commit import CommitGroup, ReceivedFile
from ._fields import conditions, media_type_of
from ._identity import SourceLabel, inspect_existing, url_identity, write_label
from ._plan import Body, DownloadPlan, Restart
from ._receive import CallbackError, call, open_body, pieces_in_order, receive
from ._result import DownloadResult, DownloadSpec
from ._retrying import is_load, should_retry, within
from ._sidecar import Sidecar
from ._sink import HANDOVER, Sink, is_coded_file

__all__ = ["transfer"]

_logger = logging.getLogger("infra_core.asset_client")
_OCTETS: Final = "application/octet-stream"
_HASHED_INLINE: Final = 1 << 18  # files below this are looked at without a hop to a thread
PIECE: Final = 4 << 20  # bytes of one range when several are fetched side by side
_LENIENCE: Final = 0.05  # seconds after the deadline until work in a thread is left to itself
_ALONE: Final = CommitGroup()  # of files whose downloads have none
_LOAD_REMEDY: Final = ": raise the limit of open files (ulimit -n), or download fewer at once"


async def transfer(spec: DownloadSpec) -> DownloadResult:
    """Download one file, or find that it is there already."""
    try:
        return await _Transfer(spec).run()
    except CallbackError as error:
        raised = error.raised
    try:
        raise raised
    finally:
        del raised  # its traceback holds this frame


class _Transfer:
    def __init__(self, spec: DownloadSpec) -> None:
        self.spec = spec
        self.source = url_identity(spec.url)
        self.attempts = 0
        self.status: int | None = None  # of the last answer
        self.existing: DownloadResult | None = None
        self.sidecar = Sidecar(spec.dest, self.source)
        self.sink: Sink | None = None
        self.plan: DownloadPlan | None = None
        self.received: ReceivedFile | None = None
        self.failed: BaseException | None = None
        self.turn: AsyncExitStack | None = None  # of the first request

    async def run(self) -> DownloadResult:
        spec = self.spec
        try:
            if spec.on_turn is not None:
                self.turn = await host_turn(spec.url, spec.client)
                await call(spec.on_turn)
            result = await self._run()
        except (DownloadError, httpx.HTTPError) as error:
            extra = {"attempts": self.attempts, "error": type(error).__name__, **self._facts(error)}
            _logger.error("Async download failed", extra=extra, exc_info=error)
            fit_to_travel(error, url=spec.url)
            raise
        finally:
            self.failed = None  # its traceback holds this frame
            if self.turn is not None:
                await self.turn.aclose()
        if self.received is not None and self.received.after_error is not None:
            raise self.received.after_error
        return result

    async def _run(self) -> DownloadResult:
        spec = self.spec
        deadline = spec.policy.deadline
        try:
            if deadline is None:
                return await self._with_retries()
            # The retries keep the deadline by themselves, but where a thread hangs in the disk.
            return await within(deadline + _LENIENCE, self._with_retries(), abandon=self._abandon)
        except RetryDeadlineError as error:
            if deadline is None:
                raise  # of a client of the caller's
            raise spec.error(
                DownloadDeadlineError,
                f"was not downloaded within {deadline:g} s, retries included: allow a longer "
                "deadline",
                expected=deadline,
                actual=None if self.sink is None else self.sink.size,
            ) from self.failed or error  # what the last attempt met; the error says the same
        except FileWriteError as error:  # while the body comes
            self._raise_disk_error(error)

    def _raise_disk_error(self, error: OSError) -> NoReturn:
        """Raise an error of the disk as one that names the download.

        For work on the disk alone: an OSError of a callback, or of a client of the caller's, is not
        ours to name.
        """
        if error.errno is None or isinstance(error, DownloadError):
            raise error
        raise DownloadDiskError(
            f"{self.spec.shown} could not be stored: {error}"
            f"{_LOAD_REMEDY if is_load(error) else ''}",
            url=self.spec.shown,
            errno=error.errno,
            filename=str(self.spec.dest),
        ) from error

    def _abandon(self) -> None:
        if self.received is not None:
            self.received.abandoned = True

    async def _with_retries(self) -> DownloadResult:
        spec = self.spec
        try:
            return await retry_async(
                self._attempt,
                policy=spec.policy,
                should_retry=lambda error: should_retry(error, spec.retry_statuses),
                on_retry=self._on_retry,
            )
        finally:
            await self._clean_up()

    async def _prepare(self, *, fresh: bool) -> DownloadPlan:
        """Plan the download, from the part that an earlier one left where there may be any."""
        spec = self.spec
        held, known = spec.held, self.existing
        if known is not None:
            held = conditions(known.etag, known.last_modified) or held
        resume = self.sidecar.load() if held is None and not fresh else None
        if resume is not None:
            algorithms = {"sha256"}
            if spec.expected_checksum is not None:
                algorithms.add(parse_checksum(spec.expected_checksum)[0])
            sink = self._open(algorithms)
            if await in_thread(lambda: self.sidecar.restore(sink.file)):
                sink.size = resume.offset
            else:
                await self._drop_sink()
                resume = None
        piece = PIECE if spec.connections > 1 else None
        return DownloadPlan(spec, held=held, resume=resume, piece=piece)

    async def _look(self) -> DownloadResult | None:
        spec = self.spec
        wanted = spec.skip_if_exists or spec.revalidate
        try:
            status = spec.dest.stat()
        except OSError:
            return None  # a symbolic link to itself is replaced; writing says what is wrong else
        if stat.S_ISDIR(status.st_mode):
            problem = "it is a folder: name a file in it"
            raise IsADirectoryError(errno.EISDIR, problem, str(spec.dest))
        if not stat.S_ISREG(status.st_mode):  # root would replace /dev/null
            problem = "it is a device, pipe or socket: name a regular file"
            raise FileExistsError(errno.EEXIST, problem, str(spec.dest))
        if not wanted:
            return None
        if status.st_size < _HASHED_INLINE:
            return inspect_existing(spec, status.st_size)
        return await in_thread(inspect_existing, spec, status.st_size)

    # -- one attempt -------------------------------------------------------------------------------

    async def _attempt(self) -> DownloadResult:
        spec = self.spec
        if self.plan is None:
            group, alone = spec.group, not spec.keep_partial
            try:
                fresh = group is not None and alone and group.finds_nothing(spec.dest)
                self.existing = None if fresh else await self._look()
                trusted = spec.expected_checksum is not None or not spec.revalidate
                if self.existing is not None and trusted:
                    return self.existing
                self.plan = await self._prepare(fresh=fresh)
            except OSError as error:
                self._raise_disk_error(error)
        plan = self.plan
        self.attempts += 1
        try:
            while True:
                try:
                    return await self._request(plan)
                except Restart as reason:
                    # The next request has neither Range nor If-Range, so this ends here.
                    _logger.debug("%s: restarting, %s", self.spec.shown, reason)
                    plan.start_over()
        except ChecksumMismatchError:
            plan.start_over()
            raise
        except httpx.HTTPError:
            # The bytes so far are good: with a strong tag the next attempt asks for the rest.
            if self.sink is not None:
                await self.sink.drain()
                plan.continue_from(self.sink.size)
            raise
        except OSError as error:
            if is_load(error):  # the next attempt begins anew
                plan.start_over()
                await self._drop_sink()
            raise

    async def _request(self, plan: DownloadPlan) -> DownloadResult:
        spec = self.spec
        turn, self.turn = self.turn, None
        async with open_body(spec, plan, turn=turn) as (self.status, fields, chunks):
            body = plan.judge(self.status, fields)
            if body is None:
                known = self.existing or DownloadResult(spec.dest, reused=True)  # the caller's
                return replace(known, attempts=self.attempts, http_status=self.status)
            sink = await self._ready(plan, body)
            await receive(spec, plan, chunks, sink.write)
        if plan.piece is not None and body.total is not None and plan.size < body.total:
            plan.body = replace(body, length=body.total - body.start)
            pieces = pieces_in_order(spec, body, first=plan.size, piece=PIECE)
            async with aclosing(pieces):  # which ends those that are under way
                async for chunk in pieces:
                    plan.received(len(chunk))
                    await sink.write(chunk)
                    await call(spec.progress, plan.size, body.total)
        return await self._finish(sink, plan, body)

    async def _ready(self, plan: DownloadPlan, body: Body) -> Sink:
        """A sink that holds exactly the bytes before the body."""
        if body.start == 0:
            await self._drop_sink()
        algorithms = plan.digest_algorithms
        if self.spec.compute_checksum or body.resumable:
            algorithms.add("sha256")
        sink = self.sink or self._open(algorithms)
        if sink.size != body.start:
            raise Restart("what is held is not what was asked to be continued")
        self.sidecar.begin(sink, body, small=self.spec.keep_partial)
        return sink

    def _open(self, algorithms: set[str]) -> Sink:
        self.sink = Sink(
            self.spec.dest,
            algorithms=frozenset(algorithms),
            durable=self.spec.durable,
            on_written=self.sidecar.checkpoint,
        )
        return self.sink

    async def _drop_sink(self) -> None:
        sink, self.sink = self.sink, None
        if sink is not None:
            await sink.abort()

    # -- the end -----------------------------------------------------------------------------------

    async def _finish(self, sink: Sink, plan: DownloadPlan, body: Body) -> DownloadResult:
        spec, group = self.spec, self.spec.group
        await call(spec.on_received, sink.size)

        def complete() -> AtomicFile:
            if group is not None:
                group.look_at(spec.dest)
            file = sink.write_parts(parts)
            as_sent = file.digests
            if body.codings and not plan.expects(as_sent):
                try:
                    if plan.expected or not is_coded_file(spec.dest.name, body, file):
                        file = sink.decode(Decoder(body.codings), plan.check_size)
                except DamagedBody as error:
                    raise plan.damaged(error) from error
            plan.check_size(file.size)  # of one that is stored as it was sent
            digests = file.digests
            plan.check_content(digests, as_sent)
            received.result = self._stored(file, plan, body, digests.get("sha256"))
            return file

        received = self.received = ReceivedFile(complete)
        try:
            parts = await sink.take_rest()
            # The flush of a large file takes long, and would hold up the small ones in its batch.
            if group is not None and sink.size < HANDOVER:
                await group.add(received)
            else:
                (error,) = await in_thread((group or _ALONE).commit, [received])
                if error is not None:
                    raise error
        except OSError as error:
            self._raise_disk_error(error)
        if _logger.isEnabledFor(logging.DEBUG):
            url = spec.shown
            extra = {"url": url, "size": sink.size, "attempt": self.attempts, **trace_fields()}
            _logger.debug("downloaded %s", url, extra=extra)
        return received.result

    def _stored(
        self, file: AtomicFile, plan: DownloadPlan, body: Body, sha256: str | None
    ) -> DownloadResult:
        spec = self.spec
        label = SourceLabel(self.source, file.size, sha256, body.etag_as_sent, body.last_modified)
        write_label(file.fileno(), label)
        checksum = None
        if spec.compute_checksum:
            checksum = f"sha256:{sha256}"
        elif plan.expected is not None:
            checksum = ":".join(plan.expected)
        return DownloadResult(
            path=spec.dest,
            checksum=checksum,
            mime=_mime(spec.dest, body.content_type),
            size=file.size,
            attempts=self.attempts,
            resumed=body.start > 0,
            etag=body.etag_as_sent,
            last_modified=body.last_modified,
            name=body.name,
            http_status=self.status,
        )

    async def _clean_up(self) -> None:
        """Leave nothing behind, unless the caller asked to keep the part for another call."""
        sink = self.sink
        if sink is not None and not sink.closed:
            with contextlib.suppress(OSError):  # a full disk; the error under way says more
                if self.spec.keep_partial:
                    await sink.drain()
                    if await in_thread(self.sidecar.keep, sink.file):
                        return
            await sink.abort()
        self.sidecar.remove()

    def _on_retry(self, details: RetryDetails) -> Awaitable[None] | None:
        error = self.failed = details.error
        add_note(error, f"while downloading {self.spec.shown}")
        named = "" if str(error).startswith(self.spec.shown) else f"{self.spec.shown}: "
        _logger.warning(
            "download failed (%s: %s%s); attempt %d follows in %.2f s",
            type(error).__name__,
            named,
            error,
            details.attempt + 1,
            details.wait,
            extra={
                "attempt": details.attempt,
                "wait": details.wait,
                "cause": f"{type(error).__name__}: {error}",
                **self._facts(error),
            },
        )
        return None if self.spec.on_retry is None else self.spec.on_retry(details)

    def _facts(self, error: BaseException) -> dict[str, object]:
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        dest = str(self.spec.dest)
        return {"url": self.spec.shown, "destination": dest, "status": status, **trace_fields()}


def _mime(dest: Path, content_type: str | None) -> str | None:
    """By the name; where that says nothing, what the server said."""
    named = media_type(dest.name)
    return named if named != _OCTETS else media_type_of(content_type) or named
