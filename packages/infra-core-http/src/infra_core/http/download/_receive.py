"""The requests of a download, and its body on its way: counted, timed, kept to a pace."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Final, cast

import httpx

from infra_core.runtime import clock

from .._cookies import BoundedCookieJar
from .._errors import IncompleteDownloadError
from .._stream import open_answer
from ..engine._answer import EngineResponse
from ._fields import fields_of
from ._plan import Body, DownloadPlan, Restart, Resume

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from ._result import DownloadSpec

__all__ = ["CallbackError", "call", "open_body", "pieces_in_order", "receive"]

# Bytes that may wait unread: large, so that a fast server is not stopped at every turn.
_BUFFER: Final = 1 << 20


class CallbackError(Exception):
    """What a callback raised, on its way to the caller; never leaves the package."""

    def __init__(self, raised: Exception) -> None:
        super().__init__()
        self.raised = raised


async def call(callback: Callable[..., object] | None, *args: object) -> None:
    """Call what the caller passed, if anything, and await it where it is a coroutine function.

    Raises:
        CallbackError: What it raises is not taken for a failure of the network or the disk.
    """
    if callback is None:
        return
    try:
        returned = callback(*args)
        if returned is not None and isawaitable(returned):
            await returned
    except Exception as error:  # noqa: BLE001 - raised again where the download ends
        raise CallbackError(error) from None


@asynccontextmanager
async def open_body(
    spec: DownloadSpec, plan: DownloadPlan, *, turn: AsyncExitStack | None = None
) -> AsyncGenerator[tuple[int, dict[str, str], AsyncIterator[bytes]], None]:
    """Send the plan's next request; gives status, fields and undecoded body of the answer.

    Without a client cookies are kept within one chain of redirects only.
    """
    async with open_answer(
        spec.client,
        "GET",
        spec.url,
        plan.request_headers(),
        spec.timeout,
        turn=turn,
        jar=BoundedCookieJar() if spec.client is None else None,
        buffer=_BUFFER,
    ) as answer:
        if isinstance(answer, EngineResponse):
            yield answer.status, fields_of(answer.headers), answer.aiter_raw()
        elif answer.is_stream_consumed:  # a mock was given it whole
            chunks = aiter(cast("httpx.AsyncByteStream", answer.stream))
            yield answer.status_code, fields_of(answer.headers), chunks
        else:
            yield answer.status_code, fields_of(answer.headers), answer.aiter_raw()


async def receive(
    spec: DownloadSpec,
    plan: DownloadPlan,
    chunks: AsyncIterator[bytes],
    write: Callable[[bytes], Awaitable[object]],
) -> None:
    """Take a body to its end, chunk by chunk; raises what ends it before, a slow server too."""
    total = None if plan.body is None else plan.body.total
    await call(spec.progress, plan.size, total)
    since, received = clock.monotonic(), 0
    try:
        async for chunk in chunks:
            came = clock.monotonic()
            received += len(chunk)
            plan.received(len(chunk))
            await write(chunk)
            if spec.progress is not None:
                await call(spec.progress, plan.size, total)
            seconds = came - since
            if seconds >= spec.timeout:  # so that no server can hold the call for ever
                if received < spec.min_speed * seconds:
                    raise httpx.ReadTimeout(
                        f"{spec.shown} sent {received} bytes in {seconds:.3g} s, below "
                        f"min_speed={spec.min_speed:.12g} bytes per second: lower min_speed to "
                        "wait for such a server"
                    )
                since, received = came, 0
            if spec.pace is not None:
                wait = spec.pace.reserve(clock.monotonic(), weight=len(chunk))
                if wait > 0:
                    await clock.sleep_async(wait)
            since += clock.monotonic() - came  # the server is not slow while it is not read
    except IncompleteDownloadError:
        raise
    except httpx.RemoteProtocolError as error:
        raise plan.incomplete() from error
    plan.check_end()


async def pieces_in_order(
    spec: DownloadSpec, body: Body, *, first: int, piece: int
) -> AsyncGenerator[bytes, None]:
    """Yield the file from `first` to its end, fetched in ranges of `piece` bytes side by side.

    The order of the file keeps everything else as it is: one hash, one writer, and a beginning that
    can be resumed. What is fetched ahead waits in memory, `connections` pieces at most. Bytes that
    were yielded before a failure are good.

    Raises:
        Restart: A piece is of another version, or the server serves no more ranges, or not several
            at once.
    """
    rest = body.resume_at(first)
    if rest is None:
        raise Restart("without a strong ETag and a size, ranges cannot be put together")
    starts = iter(range(first, rest.total, piece))
    under_way: deque[asyncio.Task[list[bytes]]] = deque()
    # The connections share the link, so each may be slower; all else is the caller's to say.
    speed = spec.min_speed / spec.connections
    spec = replace(spec, min_speed=speed, progress=None, expected_checksum=None, max_bytes=None)

    def begin_one() -> None:
        start = next(starts, None)
        if start is not None:
            fetch = _fetch(spec, replace(rest, offset=start), min(piece, rest.total - start))
            under_way.append(asyncio.ensure_future(fetch))

    try:
        for _ in range(spec.connections):
            begin_one()
        while under_way:
            chunks = await under_way[0]
            under_way.popleft()
            begin_one()
            for chunk in chunks:
                yield chunk
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _fetch(spec: DownloadSpec, part: Resume, size: int) -> list[bytes]:
    """Fetch one range, whole."""
    plan = DownloadPlan(spec, resume=part, piece=size)
    chunks: list[bytes] = []

    async def keep(chunk: bytes) -> None:
        chunks.append(chunk)

    async with open_body(spec, plan) as (status, fields, body):
        if 400 <= status < 500 and status not in spec.retry_statuses:
            raise Restart(f"the server answered {status} to one range of several")
        if not plan.judge(status, fields) or plan.size == 0:
            raise Restart("the server answered a range with the whole file")
        await receive(spec, plan, body, keep)
    return chunks
