"""One request of a download, and its body on its way: counted, timed, kept to the client's pace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import httpx

from infra_core.runtime import clock

from .._errors import DownloadError, IncompleteDownloadError
from .._response.decode import DamagedBody, UnsupportedCoding
from .._stream import open_stream

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AsyncExitStack

    from .._stream import StreamedResponse
    from ._plan import DownloadPlan
    from ._result import DownloadSpec

__all__ = ["damaged_body", "open_answer", "receive"]


def open_answer(
    spec: DownloadSpec, plan: DownloadPlan, *, turn: AsyncExitStack | None = None
) -> AbstractAsyncContextManager[StreamedResponse]:
    """Send the plan's next request; gives the answer, for the plan to judge.

    Raises:
        httpx.TransportError: No answer came.
    """
    return open_stream(
        "GET",
        spec.url,
        headers=plan.request_headers(),
        timeout=spec.timeout,
        client=spec.client,
        turn=turn,
    )


async def receive(
    spec: DownloadSpec,
    plan: DownloadPlan,
    chunks: AsyncIterator[bytes],
    write: Callable[[bytes], Awaitable[object]],
) -> None:
    """Take a body to its end.

    Args:
        spec: The download.
        plan: Counts the bytes.
        chunks: The body.
        write: Takes each chunk.

    Raises:
        IncompleteDownloadError: It is shorter or longer than announced.
        DownloadTooLargeError: It is larger than `max_bytes`.
        httpx.TransportError: The connection broke, or the server was too slow.
    """
    total = None if plan.body is None else plan.body.total
    since, received = clock.monotonic(), 0
    if spec.progress is not None:
        spec.progress(plan.size, total)
    try:
        async for chunk in chunks:
            plan.received(len(chunk))
            await write(chunk)
            if spec.progress is not None:
                spec.progress(plan.size, total)
            received += len(chunk)
            seconds = clock.monotonic() - since
            if seconds >= spec.timeout:  # so that no server can hold the call for ever
                if received < spec.min_speed * seconds:
                    raise _too_slow(spec, plan, received, seconds)
                since, received = since + seconds, 0
            if spec.pace is not None:  # the server sends no more meanwhile, and is not slow
                wait = spec.pace.reserve(clock.monotonic(), weight=len(chunk))
                if wait > 0:
                    await clock.sleep_async(wait)
                    since += wait
    except IncompleteDownloadError:
        raise
    except httpx.RemoteProtocolError as error:
        raise plan.incomplete() from error
    if plan.lacks_bytes:
        raise plan.incomplete()
    plan.check_not_empty()


def _too_slow(
    spec: DownloadSpec, plan: DownloadPlan, received: int, seconds: float
) -> httpx.ReadTimeout:
    return httpx.ReadTimeout(
        f"{plan.url} sent {received} bytes in {seconds:.3g} s, below "
        f"min_speed={spec.min_speed:.12g} bytes per second: lower min_speed to wait for such a "
        "server"
    )


def damaged_body(plan: DownloadPlan, error: DamagedBody) -> DownloadError:
    """Return the error for an encoded body that cannot be decoded."""
    name = ", ".join(plan.body.codings if plan.body else ())
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
