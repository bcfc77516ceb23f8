"""One large file in several ranges side by side, handed on in the order of the file.

The order keeps everything else as it is: one hash, one writer, and a beginning that can be
resumed. What is fetched ahead waits in memory, `connections` pieces at most.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING

from ._fields import fields_of
from ._plan import Body, DownloadPlan, Restart, Resume
from ._receive import open_answer, receive

if TYPE_CHECKING:
    from ._result import DownloadSpec

__all__ = ["pieces_in_order"]


async def pieces_in_order(
    spec: DownloadSpec, body: Body, *, first: int, piece: int
) -> AsyncGenerator[bytes, None]:
    """Yield the file from `first` to its end, fetched in ranges of `piece` bytes.

    All must be of the size and strong tag that the first answer had.

    Raises:
        Restart: A piece is of another version, or the server serves no more ranges, or not several
            at once.
        IncompleteDownloadError: A piece was cut.
        httpx.HTTPError: A request failed; the bytes yielded before it are good.
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

    async with open_answer(spec, plan) as response:
        status = response.status
        if 400 <= status < 500 and status not in spec.retry_statuses:
            raise Restart(f"the server answered {status} to one range of several")
        if not plan.judge(status, fields_of(response.headers)) or plan.size == 0:
            raise Restart("the server answered a range with the whole file")
        await receive(spec, plan, response.aiter_raw(), keep)
    return chunks
