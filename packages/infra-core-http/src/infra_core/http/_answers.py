"""From a raw answer to what callers get: text cheaply, an `httpx.Response`, or an error."""

from collections.abc import AsyncIterator
from typing import cast

import httpx

from infra_core.runtime import parse_retry_after, sanitize_url

from ._async_errors import HTTPStatusError
from ._errors import ResponseTooLarge
from ._messages import status_remedy
from .engine import EngineResponse

__all__ = ["cheap_text", "read_capped", "status_error"]

_UTF8 = ("utf-8", "utf8")
# What a compressed body grows to is seen after each such piece: at most about 16 MiB.
_PIECE = 16_384


def cheap_text(reply: EngineResponse, body: bytes) -> str | None:
    """Return the text of a body that is neither compressed nor in a charset other than UTF-8."""
    headers = reply.headers
    if "Content-Encoding" in headers:
        return None
    _, found, charset = headers.get("Content-Type", "").lower().partition("charset=")
    if found and charset.strip("\"' ") not in _UTF8:
        return None
    return body.decode("utf-8", "replace")


async def read_capped(response: httpx.Response, max_bytes: int) -> None:
    """Read a body, decoded, up to a limit.

    Raises:
        ResponseTooLarge: It is larger; the connection is closed by the caller.
    """
    if response.is_closed:  # a mock, or one that was read elsewhere
        if len(response.content) > max_bytes:
            raise ResponseTooLarge(str(response.url), max_bytes, len(response.content))
        return
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes and response.request.method != "HEAD":
        raise ResponseTooLarge(str(response.url), max_bytes, int(length))
    response.stream = _Pieces(cast("httpx.AsyncByteStream", response.stream))
    parts: list[bytes] = []
    received = 0
    async for chunk in response.aiter_bytes():
        received += len(chunk)
        if received > max_bytes:
            raise ResponseTooLarge(str(response.url), max_bytes, received)
        parts.append(chunk)
    response._content = b"".join(parts)


class _Pieces(httpx.AsyncByteStream):
    """A stream cut into small pieces."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            for start in range(0, len(chunk), _PIECE):
                yield chunk[start : start + _PIECE]

    async def aclose(self) -> None:
        await self._stream.aclose()


def status_error(response: httpx.Response) -> httpx.HTTPStatusError:
    """Return the error for an answer that is no success, its `retry_after` set.

    The URL in the message has no secrets, unlike that of `raise_for_status`.
    """
    status = response.status_code
    kind = {1: "Informational response", 3: "Redirect response", 4: "Client error"}.get(
        status // 100, "Server error"
    )
    reason = f"{status} {response.reason_phrase}".strip()
    message = f"{kind} '{reason}' for url '{sanitize_url(str(response.url))}'"
    asked = parse_retry_after(response.headers)
    if response.has_redirect_location:
        message += f"; redirect location: '{sanitize_url(response.headers['location'])}'"
    else:
        message += f": {status_remedy(status, asked)}"
    error = HTTPStatusError(message, request=response.request, response=response)
    error.retry_after = asked
    return error
