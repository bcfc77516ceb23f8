"""One request of a download, and its body on its way: counted, timed, kept to the client's pace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING

import httpx

from infra_core.runtime import clock

from .._errors import IncompleteDownloadError
from .._stream import open_stream

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AsyncExitStack

    from .._stream import StreamedResponse
    from ._plan import DownloadPlan
    from ._result import DownloadSpec

__all__ = ["CallbackError", "call", "open_answer", "receive"]


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


def open_answer(
    spec: DownloadSpec, plan: DownloadPlan, *, turn: AsyncExitStack | None = None
) -> AbstractAsyncContextManager[StreamedResponse]:
    """Send the plan's next request; gives the answer, for the plan to judge."""
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
                    raise _too_slow(spec, plan, received, seconds)
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


def _too_slow(
    spec: DownloadSpec, plan: DownloadPlan, received: int, seconds: float
) -> httpx.ReadTimeout:
    return httpx.ReadTimeout(
        f"{spec.shown} sent {received} bytes in {seconds:.3g} s, below "
        f"min_speed={spec.min_speed:.12g} bytes per second: lower min_speed to wait for such a "
        "server"
    )
