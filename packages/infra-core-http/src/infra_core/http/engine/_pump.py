"""Bodies sent piece by piece, under the write timeout that aiohttp does not have."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from typing import Any

import aiohttp
import httpx

from infra_core.runtime import clock

from .._errors import InvalidRequestError

__all__ = ["PIECE", "Measure", "Pump"]

PIECE = 65_536
"""Bodies up to this size are handed to the socket at once; larger ones in such pieces."""


class Measure:
    """Holds a body to its length: a server must not take one that is cut for a whole one."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._left = length
        self._last: bytes | memoryview = b""

    def take(self, piece: bytes | memoryview) -> bytes | memoryview:
        """Return what may be sent after a piece; what completes the body waits for `end`."""
        self._left -= len(piece)
        if self._left < 0:
            raise self._error("longer")
        if self._left == 0 and piece:
            self._last, piece = piece, b""
        return piece

    def end(self) -> bytes | memoryview:
        """Return the last piece."""
        if self._left:
            raise self._error("shorter")
        return self._last

    def _error(self, word: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"the body is {word} than its Content-Length of {self._length} bytes: pass the right "
            "one, or none"
        )


class Pump:
    """A body that aiohttp iterates over while `watch` awaits the answer."""

    def __init__(
        self, body: bytes | AsyncIterable[bytes], timeout: float | None, length: int | None = None
    ) -> None:
        self._body = body
        self._timeout = timeout
        self._length = length
        self.done: bool = False  # all of it has been handed to aiohttp
        self.failure: Exception | None = None  # what ended an iterable before its end
        self._scope: Any = None  # while the answer is awaited

    async def watch(
        self, sending: Coroutine[Any, Any, aiohttp.ClientResponse]
    ) -> aiohttp.ClientResponse:
        """Await the answer; a piece that stays unsent for too long is a write timeout."""
        try:
            async with clock.timeout(None) as scope:
                self._scope = scope
                try:
                    return await sending
                finally:
                    self._scope = None
        except TimeoutError:
            if not scope.expired():
                raise
            raise httpx.WriteTimeout(
                f"sending the body timed out after {self._timeout:g} s: allow a longer timeout"
            ) from None

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        try:
            async for piece in self._pieces():
                self._wind(self._timeout)
                yield piece
        except Exception as error:
            self.failure = error
            raise
        self.done = True
        self._wind(None)

    async def _pieces(self) -> AsyncIterator[bytes | memoryview]:
        if isinstance(self._body, bytes):
            view = memoryview(self._body)
            for start in range(0, len(view), PIECE):
                yield bytes(view[start : start + PIECE])
            return
        measure = None if self._length is None else Measure(self._length)
        async for piece in self._body:
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                raise InvalidRequestError(
                    f"the body yields a piece of type {type(piece).__name__}: yield bytes"
                )
            yield piece if measure is None else measure.take(piece)
        if measure is not None:
            yield measure.end()

    def _wind(self, seconds: float | None) -> None:
        if self._scope is not None and not self._scope.expired():
            now = asyncio.get_running_loop().time()
            self._scope.reschedule(None if seconds is None else now + seconds)
