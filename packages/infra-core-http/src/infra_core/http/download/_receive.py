"""The body of an answer on its way to the disk: counted, decoded, timed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx

from infra_core.fs import new_hasher
from infra_core.runtime import clock, error_chain

from .._errors import DownloadError, IncompleteDownloadError
from .._response.decode import DamagedBody, Decoder, UnsupportedCoding
from ._ranges import pieces_in_order

if TYPE_CHECKING:
    from ._plan import Body, DownloadPlan
    from ._result import DownloadSpec
    from ._sink import Sink

__all__ = ["Receiver", "damaged_body"]


class Receiver:
    """Takes one body.

    Args:
        spec: The download.
        plan: Counts the bytes.
        body: What is to come.
        sink: Where the bytes go.
    """

    def __init__(self, spec: DownloadSpec, plan: DownloadPlan, body: Body, sink: Sink) -> None:
        self._spec = spec
        self._plan = plan
        self._body = body
        self._sink = sink
        decodes = bool(body.codings) and not plan.keeps_encoded
        self._decoder = Decoder(body.codings) if decodes else None
        names = plan.digest_algorithms if decodes else set()
        self._as_sent = {name: new_hasher(name) for name in names}
        self._window = (clock.monotonic(), 0)

    async def receive(self, chunks: AsyncIterator[bytes]) -> dict[str, str]:
        """Take the body to its end; returns the digests of a decoded one as it was sent.

        Raises:
            IncompleteDownloadError: It is shorter or longer than announced, or damaged.
            DownloadError: Nothing here decodes it.
            DownloadTooLargeError: It is larger than `max_bytes`.
            httpx.TransportError: The connection broke, or the server was too slow.
        """
        plan, progress, total = self._plan, self._spec.progress, self._body.total
        try:
            if progress is not None:
                progress(plan.size, total)
            async for chunk in chunks:
                if self._decoder is None:
                    plan.received(len(chunk))
                    await self._sink.write(chunk)
                else:
                    await self._decode(chunk, self._decoder)
                self._check_speed(len(chunk))
                if progress is not None:
                    progress(plan.size, total)
                await self._keep_pace(len(chunk))
            incomplete = plan.incomplete()
            if incomplete is not None:
                raise incomplete
            plan.check_not_empty()
            if self._decoder is not None:
                self._decoder.finish()
        except httpx.RemoteProtocolError as error:
            if _was_reset(error):
                raise httpx.ReadError(str(error)) from error
            raise self._cut() from error
        except DamagedBody as error:
            raise damaged_body(plan, self._body, error) from error
        return {name: hasher.hexdigest() for name, hasher in self._as_sent.items()}

    async def receive_rest(self, piece: int) -> None:
        """Take the rest of the file in ranges of so many bytes, several at a time."""
        spec, plan = self._spec, self._plan
        async for chunk in pieces_in_order(spec, self._body, first=plan.size, piece=piece):
            plan.received(len(chunk))
            await self._sink.write(chunk)
            if spec.progress is not None:
                spec.progress(plan.size, self._body.total)
            await self._keep_pace(len(chunk))

    async def _decode(self, chunk: bytes, decoder: Decoder) -> None:
        self._plan.received(len(chunk), 0)
        for hasher in self._as_sent.values():
            hasher.update(chunk)
        for piece in decoder.feed(chunk):
            self._plan.received(0, len(piece))
            await self._sink.write(piece)

    def _check_speed(self, count: int) -> None:
        """End an attempt that drips, so that no server can hold the call for ever."""
        since, received = self._window
        received += count
        now = clock.monotonic()
        if now - since < self._spec.timeout:
            self._window = (since, received)
            return
        if received < self._spec.min_speed * (now - since):
            raise httpx.ReadTimeout(
                f"{self._plan.url} sent {received} bytes in {now - since:.3g} s, below "
                f"min_speed={self._spec.min_speed:.12g} bytes per second: lower min_speed to wait "
                "for such a server"
            )
        self._window = (now, 0)

    async def _keep_pace(self, count: int) -> None:
        """Wait until so many bytes fit the client's rate: the server sends no more meanwhile."""
        pace = self._spec.pace
        if pace is None:
            return
        wait = pace.reserve(clock.monotonic(), weight=count)
        if wait > 0:
            await clock.sleep_async(wait)
            since, received = self._window
            self._window = (since + wait, received)  # it was not the server that was slow

    def _cut(self) -> IncompleteDownloadError:
        plan = self._plan
        return plan.incomplete() or IncompleteDownloadError(
            f"{plan.url} broke off after {plan.wire} bytes, before the end of its body: try again "
            "later",
            url=plan.url,
            expected="the end of the body",
            actual=plan.wire,
        )


def damaged_body(plan: DownloadPlan, body: Body, error: DamagedBody) -> DownloadError:
    """Return the error for an encoded body that cannot be decoded."""
    name = ", ".join(body.codings)
    if isinstance(error, UnsupportedCoding):
        return DownloadError(
            f"{plan.url} came with Content-Encoding {name!r} though identity was asked for, and "
            f"cannot be decoded: {error}",
            url=plan.url,
            expected="identity",
            actual=name,
        )
    return IncompleteDownloadError(
        f"{plan.url} sent a body that is not whole or not {name} ({error}): try again later",
        url=plan.url,
        expected=f"a whole {name} body",
        actual=f"{plan.wire} bytes",
    )


def _was_reset(error: BaseException) -> bool:
    """Whether a connection broke, rather than that its other side closed it too early.

    aiohttp shows the difference only in the text of its error; where that should change, the
    next attempt begins at zero instead of going on.
    """
    return any(
        isinstance(link, OSError) or "ConnectionResetError(" in str(link)
        for link in error_chain(error)
    )
