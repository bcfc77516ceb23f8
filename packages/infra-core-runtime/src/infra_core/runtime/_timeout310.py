"""`asyncio.timeout` for Python 3.10: async-timeout with the face of 3.11's."""

import asyncio
from types import TracebackType

import async_timeout

__all__ = ["Timeout"]


class Timeout:
    """`asyncio.Timeout` for 3.10: builtin `TimeoutError`, and `expired()` as a method.

    async-timeout raises `asyncio.TimeoutError`, which on 3.10 is *not* the builtin one, so that
    `except TimeoutError` of code written for 3.11 would never see it.
    """

    def __init__(self, seconds: float | None) -> None:
        self._scope = async_timeout.timeout(seconds)

    def expired(self) -> bool:
        """Whether this timeout, and nothing else, ended the block."""
        return self._scope.expired

    async def __aenter__(self) -> "Timeout":
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._scope.__aexit__(exc_type, exc, traceback)
        except asyncio.TimeoutError as error:
            raise TimeoutError from error.__cause__ or error.__context__
