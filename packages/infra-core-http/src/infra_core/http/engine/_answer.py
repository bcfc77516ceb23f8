"""Answers over aiohttp whose bodies are not read yet."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import aiohttp
import httpx

from .._response.redirect import location_of
from ._errors import FAILURES, httpx_error
from ._pump import Pump
from ._target import Target, Timeouts
from .connections import ClosedHereError
from .network_settings import Proxy

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from ._session import Engine

__all__ = ["EngineResponse"]


@dataclass(eq=False, repr=False)
class EngineResponse:
    """An answer whose body is still on its way; holds a slot of the pool until it is closed.

    Attributes:
        method: Of the request.
        target: Where the answer came from.
        request: Makes the request that was answered, as httpx knows it.
        status: The status code.
        headers: Looked up in any letter case; `getall` for headers that came several times.
        proxy: What the request went through, None when nothing.
        body: What was read of it, as it came; None while it is unread.
        history: The redirects that led here.
        default_encoding: As for httpx: that of a text whose answer names none.
    """

    _engine: "Engine | None"
    _response: aiohttp.ClientResponse
    method: str
    target: Target
    request: Callable[[], httpx.Request]
    _timeouts: Timeouts
    proxy: Proxy | None = None
    _pump: Pump | None = None
    body: bytes | None = None
    history: "list[EngineResponse]" = field(default_factory=list)
    default_encoding: str | Callable[[bytes], str] = "utf-8"

    def __post_init__(self) -> None:
        self.status: int = self._response.status
        self.headers: CIMultiDictProxy[str] = self._response.headers

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Names and values byte for byte, in the order in which they came."""
        return list(self._response.raw_headers)

    @property
    def location(self) -> bytes | None:
        """The first `Location` header, byte for byte; None without one."""
        if "Location" not in self.headers:
            return None
        return location_of(self._response.raw_headers)

    @property
    def http_version(self) -> str:
        """The version of the answer, as in `HTTP/1.1`."""
        version = self._response.version
        return "HTTP/1.0" if version is not None and version.minor == 0 else "HTTP/1.1"

    @property
    def reason(self) -> str:
        """The reason phrase as it came."""
        return self._response.reason or ""

    async def read(self) -> bytes:
        """Return the whole body as it came over the wire, and close.

        Raises:
            httpx.TransportError: The body did not come whole.
        """
        try:
            self.body = await self._response.read()
        except FAILURES as error:
            self._raise(error)
        finally:
            self.close()
        return self.body

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the body as it came over the wire, in pieces as large as have arrived.

        Raises:
            httpx.TransportError: The body did not come whole.
        """
        try:
            while chunk := await self._response.content.readany():
                yield chunk
        except FAILURES as error:
            self._raise(error)
        finally:
            self.close()

    def _raise(self, error: Exception) -> NoReturn:
        """Raise what httpx would raise."""
        failure = httpx_error(error, self.request, self._timeouts, self.proxy)
        raise failure from failure.__cause__

    async def drain(self, limit: int) -> bytes:
        """Read a body that is not wanted, so that its connection can be used again, and close.

        Args:
            limit: Bytes to read at most; a longer body ends the connection instead, and so does
                one that is cut or malformed.
        """
        parts: list[bytes] = []
        left = limit
        try:
            async for chunk in self.aiter_raw():
                left -= len(chunk)
                if left < 0:
                    break
                parts.append(chunk)
        except httpx.TransportError as error:
            if isinstance(error.__cause__, ClosedHereError):
                raise  # the next request would open connections that no code closes
            left = -1
        self.close()
        self.body = b"".join(parts) if left >= 0 else b""
        return self.body

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, close it otherwise.

        A refusal may come before the request was sent to its end; the rest is not sent then.
        """
        engine, self._engine = self._engine, None
        if engine is None:
            return
        refused = self._pump is not None and not self._pump.done and self.status >= 300
        if refused or not self._response.content.at_eof():
            self._response.close()
        elif self._response.connection is not None:  # at the end aiohttp gives it back by itself
            self._response.release()
        engine.give_slot()
