"""One download from its first request to its last byte on the disk."""

from __future__ import annotations

import logging
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx

from infra_core.fs import AtomicFile, media_type
from infra_core.runtime import (
    RetryDetails,
    add_note,
    clock,
    retry_async,
    sanitize_url,
    trace_fields,
)

from .._errors import (
    ChecksumMismatchError,
    DownloadDeadlineError,
    DownloadDiskError,
    DownloadError,
    IncompleteDownloadError,
)
from .._stream import open_stream
from ._decode import DamagedBody, Decoder
from ._identity import SourceLabel, url_identity, write_label
from ._plan import Body, DownloadPlan, Judgement, StartOver, Validators
from ._ranges import pieces_in_order
from ._result import DownloadResult, DownloadSpec
from ._retrying import should_retry, status_error
from ._reuse import Existing, look_at
from ._sidecar import Sidecar
from ._sink import Sink
from ._threads import in_thread

__all__ = ["transfer"]

_logger = logging.getLogger("infra_core.asset_client")
_OCTETS: Final = "application/octet-stream"
_HASHED_INLINE: Final = 1 << 18  # files below this are looked at without a hop to a thread
PIECE: Final = 4 << 20  # bytes of one range when several are fetched side by side


async def transfer(spec: DownloadSpec) -> DownloadResult:
    """Download one file, or find that it is there already."""
    return await _Transfer(spec).run()


class _Transfer:
    def __init__(self, spec: DownloadSpec) -> None:
        self.spec = spec
        self.source = url_identity(spec.url)
        self.attempts = 0
        self.resumed = False
        self.existing: Existing | None = None
        self.sidecar = Sidecar(spec.dest, self.source)
        self.sink: Sink | None = None
        self.plan: DownloadPlan
        self.window = (0.0, 0)

    @property
    def url(self) -> str:
        """The URL without secrets, for messages; most downloads need none."""
        return sanitize_url(self.spec.url)

    async def run(self) -> DownloadResult:
        spec = self.spec
        try:
            return await self._run()
        except TimeoutError as error:
            raise DownloadDeadlineError(
                f"{self.url} was not downloaded within {spec.policy.deadline:g} s, retries "
                "included: allow a longer deadline",
                url=self.url,
                expected=spec.policy.deadline,
                actual=None if self.sink is None else self.sink.size,
            ) from error.__cause__  # what the last attempt met; the error itself says the same
        except DownloadError:
            raise
        except OSError as error:
            raise DownloadDiskError(
                f"{self.url} could not be stored: {error}",
                url=self.url,
                errno=error.errno,
                filename=str(spec.dest),
            ) from error
        finally:
            await self._clean_up()

    async def _run(self) -> DownloadResult:
        spec = self.spec
        self.existing = await self._look()
        if self.existing is not None and self.existing.reusable:
            return self._reused(self.existing)
        held = None
        if self.existing is not None and self.existing.label is not None:
            label = self.existing.label
            held = Validators(label.etag, label.last_modified)
        resume = self.sidecar.load() if held is None else None
        self.plan = DownloadPlan(
            spec.url,
            headers=spec.headers,
            expected_checksum=spec.expected_checksum,
            max_bytes=spec.max_bytes,
            held=held,
            resume=resume,
            piece=PIECE if spec.connections > 1 else None,
        )
        if resume is not None:
            await self._take_up()
        return await retry_async(
            self._attempt,
            policy=spec.policy,
            should_retry=lambda error: should_retry(error, spec.retry_statuses),
            on_retry=self._log_retry,
        )

    async def _look(self) -> Existing | None:
        spec = self.spec
        wanted = spec.skip_if_exists or spec.revalidate
        try:
            status = spec.dest.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            if wanted:
                raise
            return None  # such as a symbolic link to itself, which is replaced
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(f"{spec.dest} is a folder: name a file in it")
        if not wanted:
            return None
        if status.st_size < _HASHED_INLINE:
            return look_at(spec, status)
        return await in_thread(lambda: look_at(spec, status))

    # -- one attempt -------------------------------------------------------------------------------

    async def _attempt(self) -> DownloadResult:
        self.attempts += 1
        try:
            while True:
                try:
                    return await self._ask()
                except StartOver as order:
                    # The next request has neither Range nor If-Range, so this ends here.
                    _logger.debug("%s: starting over, %s", self.url, order)
                    self.plan.start_over()
        except (httpx.ReadError, httpx.TimeoutException):
            # The bytes so far are good: with a strong tag the next attempt asks for the rest.
            if self.sink is not None:
                await self.sink.drain()
                self.plan.continue_from(self.sink.size)
            raise
        except (IncompleteDownloadError, ChecksumMismatchError):
            self.plan.start_over()
            raise

    async def _ask(self) -> DownloadResult:
        spec, plan = self.spec, self.plan
        async with open_stream(
            "GET", spec.url, headers=plan.request_headers(), timeout=spec.timeout
        ) as response:
            fields = {name.lower(): value for name, value in response.headers.items()}
            judgement = plan.judge(response.status, fields)
            if judgement is Judgement.FAILED:
                raise status_error(spec.url, response.status, fields, spec.policy.max_backoff)
            if judgement is Judgement.UNCHANGED and self.existing is not None:
                return self._reused(self.existing)
            body = plan.body
            assert body is not None  # noqa: S101 - judge() says READ only with a body
            sink = await self._ready(body)
            await self._receive(response.aiter_raw(), sink, body)
        if plan.piece is not None and body.total is not None and plan.size < body.total:
            await self._receive_rest(sink, body)
        return await self._finish(sink, body)

    async def _ready(self, body: Body) -> Sink:
        """A sink that holds exactly the bytes before the body."""
        algorithms = set(self.plan.digest_algorithms)
        if self.spec.compute_checksum or body.resumable:
            algorithms.add("sha256")
        sink = self.sink
        if sink is not None and body.start == 0:
            if algorithms <= sink.algorithms:
                await sink.truncate()
            else:
                self.sink = None
                await sink.abort()
                sink = None
        if sink is None:
            sink = self._open(frozenset(algorithms))
        if sink.size != body.start:
            raise StartOver("what is held is not what was asked to be continued")
        self.resumed = body.start > 0
        if self.sidecar.wants(body, small=self.spec.keep_partial):
            self.sidecar.begin(sink.file, body)
        return sink

    def _open(self, algorithms: frozenset[str]) -> Sink:
        self.sink = Sink(
            self.spec.dest,
            algorithms=algorithms,
            durable=self.spec.durable,
            on_written=self.sidecar.checkpoint,
        )
        return self.sink

    async def _take_up(self) -> None:
        """Copy what a killed download left into this one's file, if its digest agrees."""
        algorithms = {"sha256"}
        if self.plan.expected is not None:
            algorithms.add(self.plan.expected[0])
        sink = self._open(frozenset(algorithms))

        def copy() -> bool:
            for chunk in self.sidecar.chunks():
                sink.file.write(chunk)
            return self.sidecar.agrees(sink.file)

        if await in_thread(copy):
            sink.size = sink.file.size
        else:
            await sink.truncate()
            self.plan.forget_resume()

    async def _receive(self, chunks: AsyncIterator[bytes], sink: Sink, body: Body) -> None:
        plan, progress = self.plan, self.spec.progress
        decoder = None if body.encoding is None else Decoder(body.encoding)
        self.window = (clock.monotonic(), 0)
        try:
            if progress is not None:
                progress(plan.size, body.total)
            async for chunk in chunks:
                if decoder is None:
                    plan.received(len(chunk))
                    await sink.write(chunk)
                else:
                    plan.received(len(chunk), 0)
                    for piece in decoder.feed(chunk):
                        plan.received(0, len(piece))
                        await sink.write(piece)
                self._check_speed(len(chunk))
                if progress is not None:
                    progress(plan.size, body.total)
        except httpx.RemoteProtocolError as error:
            if _was_reset(error):
                raise httpx.ReadError(str(error)) from error
            raise self._cut() from error
        except DamagedBody as error:
            raise self._damaged(error) from error
        incomplete = plan.incomplete()
        if incomplete is not None:
            raise incomplete
        if decoder is not None:
            try:
                decoder.finish()
            except DamagedBody as error:
                raise self._damaged(error) from error

    async def _receive_rest(self, sink: Sink, body: Body) -> None:
        """The file goes on in ranges, several at a time, written in their order."""
        spec, progress = self.spec, self.spec.progress
        async for chunk in pieces_in_order(spec, body, first=self.plan.size, piece=PIECE):
            self.plan.received(len(chunk))
            await sink.write(chunk)
            if progress is not None:
                progress(self.plan.size, body.total)

    def _cut(self) -> IncompleteDownloadError:
        return self.plan.incomplete() or IncompleteDownloadError(
            f"{self.url} broke off after {self.plan.wire} bytes, before the end of its body; "
            "try again later",
            url=self.url,
            expected="the end of the body",
            actual=self.plan.wire,
        )

    def _damaged(self, error: DamagedBody) -> IncompleteDownloadError:
        return IncompleteDownloadError(
            f"{self.url} sent a compressed body that is damaged ({error}); try again later",
            url=self.url,
            expected="a whole compressed body",
            actual=f"{self.plan.wire} bytes",
        )

    def _check_speed(self, count: int) -> None:
        """End an attempt that drips, so that no server can hold the call for ever."""
        since, received = self.window
        received += count
        now = clock.monotonic()
        if now - since < self.spec.timeout:
            self.window = (since, received)
            return
        if received < self.spec.min_speed * (now - since):
            raise httpx.ReadTimeout(
                f"{self.url} sent {received} bytes in {now - since:.3g} s, below "
                f"min_speed={self.spec.min_speed:.12g} bytes per second: lower min_speed to wait "
                "for such a server"
            )
        self.window = (now, 0)

    # -- the end -----------------------------------------------------------------------------------

    async def _finish(self, sink: Sink, body: Body) -> DownloadResult:
        spec = self.spec
        sha256: str | None = None

        def judge_and_label(file: AtomicFile) -> None:
            nonlocal sha256
            digests = file.digests
            self.plan.check_content(digests)
            sha256 = digests.get("sha256")
            label = SourceLabel(
                self.source, file.size, sha256, body.etag_as_sent, body.last_modified
            )
            write_label(file.temp_path, label)

        await sink.finish(judge_and_label)
        if _logger.isEnabledFor(logging.DEBUG):
            url = self.url
            extra = {"url": url, "size": sink.size, "attempt": self.attempts, **trace_fields()}
            _logger.debug("downloaded %s", url, extra=extra)
        checksum = None
        if spec.compute_checksum:
            checksum = f"sha256:{sha256}"
        elif self.plan.expected is not None:
            checksum = ":".join(self.plan.expected)
        return DownloadResult(
            path=spec.dest,
            checksum=checksum,
            mime=_mime(spec.dest, body.content_type),
            size=sink.size,
            attempts=self.attempts,
            resumed=self.resumed,
            etag=body.etag_as_sent,
            last_modified=body.last_modified,
        )

    def _reused(self, existing: Existing) -> DownloadResult:
        label = existing.label
        return DownloadResult(
            path=self.spec.dest,
            checksum=existing.checksum if self.spec.compute_checksum else None,
            mime=_mime(self.spec.dest, None),
            reused=True,
            size=existing.size,
            attempts=self.attempts,
            etag=None if label is None else label.etag,
            last_modified=None if label is None else label.last_modified,
        )

    async def _clean_up(self) -> None:
        """Leave nothing behind, unless the caller asked to keep the part for another call."""
        sink = self.sink
        if sink is not None and not sink.closed:
            if self.spec.keep_partial and await self._keep(sink):
                return
            await sink.abort()
        self.sidecar.remove()

    async def _keep(self, sink: Sink) -> bool:
        try:
            await sink.drain()
            return await in_thread(lambda: self.sidecar.keep(sink.file))
        except OSError:
            return False  # a full disk; the error under way tells more

    def _log_retry(self, details: RetryDetails) -> None:
        error = details.error
        status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
        add_note(error, f"while downloading {self.url}")
        named = "" if str(error).startswith(self.url) else f"{self.url}: "
        _logger.warning(
            "download failed (%s: %s%s); attempt %d follows in %.2f s",
            type(error).__name__,
            named,
            error,
            details.attempt + 1,
            details.wait,
            extra={
                "url": self.url,
                "attempt": details.attempt,
                "status": status,
                "wait": details.wait,
                "cause": f"{type(error).__name__}: {error}",
                **trace_fields(),
            },
        )


def _was_reset(error: BaseException | None) -> bool:
    """Whether a connection broke, rather than that its other side closed it too early.

    aiohttp tells a reset from an early close only in the text of its error; where that should
    change, the next attempt begins at zero instead of going on.
    """
    while error is not None:
        if isinstance(error, OSError) or "ConnectionResetError(" in str(error):
            return True
        error = error.__cause__
    return False


def _mime(dest: Path, content_type: str | None) -> str | None:
    """By the name; where that tells nothing, what the server said."""
    named = media_type(dest.name)
    if named != _OCTETS or not content_type:
        return named
    return content_type.split(";")[0].strip().lower() or named
