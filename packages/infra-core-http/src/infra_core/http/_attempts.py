"""One asynchronous call and its attempts: which way it travels, and what a failure means."""

import logging
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httpx

from ._async_client import AnyClient, get_shared_http_client, manager_of
from ._async_errors import AsyncDeadlineExceeded, AsyncOutcomeUnknown
from ._async_response import Response, check_status
from ._call import BaseCall
from ._checks import check_async_client, check_timeout
from ._direct import text_of, whole_response
from ._errors import ResponseTooLarge
from ._response.status import is_success
from ._stream import here_of, open_answer, send_once, turn_at
from .engine._answer import EngineResponse
from .engine._errors import failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Call"]


class Call(BaseCall):
    """One asynchronous call.

    Attributes:
        sent: Whether the attempt under way may have reached the server.
    """

    logger = logging.getLogger("infra_core.http_async")
    outcome_unknown = AsyncOutcomeUnknown
    deadline_exceeded = AsyncDeadlineExceeded
    failure_of = staticmethod(failure_of)

    def __init__(
        self,
        method: str,
        url: str,
        *,
        timeout: "float | httpx.Timeout | None",
        client: AnyClient | None,
        want_text: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(method, url, **options)
        check_timeout(timeout)
        if client is not None:
            check_async_client(client)
        self.sent = False
        self._timeout = timeout
        self._client = manager_of(client or get_shared_http_client())
        self._want_text = want_text

    async def attempt(self) -> "str | httpx.Response":
        """Send once and return a success, read to its end; its text when that came cheaply."""
        try:
            here = await here_of(self._client)
            async with turn_at(here, self.url):
                self.sent = True
                started = perf_counter()
                answer = await send_once(
                    self._client,
                    here,
                    self.method,
                    self.url,
                    self.headers,
                    self._timeout,
                    fields=self.fields,
                    whole=True,
                )
                if isinstance(answer, EngineResponse):
                    text = None
                    if self._want_text and self.max_bytes is None:
                        text = await text_of(answer, here)
                    if text is not None:
                        return text
                    answer = await whole_response(answer, here)
                return await self._finish(answer, started)
        except Exception as error:
            self.sent = False  # a cancellation at the deadline leaves it as it is
            judged = self.judged(error) if isinstance(error, httpx.TransportError) else error
            if judged is error:
                raise
            raise judged from error

    async def _finish(self, response: httpx.Response, started: float) -> httpx.Response:
        try:
            if not isinstance(response, Response):
                await response.aread()
            else:
                response.max_bytes = self.max_bytes
                if is_success(response.status_code):
                    await response.aread()
                else:
                    await response.aread_if_whole()
        except BaseException:
            await response.aclose()
            raise
        if self.max_bytes is not None and len(response.content) > self.max_bytes:
            # a mock's, or one that was read elsewhere
            raise ResponseTooLarge(str(response.url), self.max_bytes, len(response.content))
        if not hasattr(response, "_elapsed"):
            response.elapsed = timedelta(seconds=perf_counter() - started)
        check_status(response)
        return response

    @asynccontextmanager
    async def opened(self) -> "AsyncGenerator[httpx.Response, None]":
        """Send once and give out the answer, whatever its status, its body unread."""
        async with open_answer(
            self._client, self.method, self.url, self.headers, self._timeout, fields=self.fields
        ) as answer:
            if not isinstance(answer, EngineResponse):
                yield answer
                return
            async with aclosing(await whole_response(answer, await here_of(self._client))) as whole:
                yield whole
