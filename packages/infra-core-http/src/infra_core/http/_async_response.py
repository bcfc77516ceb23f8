"""Answers and errors of the asynchronous half, as those of httpx.

An `httpx.Response` as this package hands it out is decoded and read by one set of rules.

`ProcessPoolExecutor`, Dask and the like pickle what a task raises. httpx's own status error cannot
be unpickled, and the requests and answers that errors carry hold credentials; those stay behind.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import httpx

from infra_core.runtime import (
    error_chain,
    is_secret_name,
    parse_retry_after,
    redact_secrets,
    sanitize_url,
)

from ._errors import DeadlineExceeded, OutcomeUnknown, ResponseTooLarge
from ._messages import undecodable_text
from ._response.decode import BodyReader, DamagedBody, length_of
from ._response.status import clean_reason, is_success, status_text
from ._response.text import DefaultEncoding, encoding_of
from .engine._answer import EngineResponse
from .engine.connections import ClosedHereError

__all__ = [
    "HOP_BODY",
    "AsyncDeadlineExceeded",
    "AsyncOutcomeUnknown",
    "HTTPStatusError",
    "Response",
    "check_status",
    "fit_to_travel",
    "ours",
    "response_of",
    "status_error",
]


class _SentRequest(httpx.Request):
    """A request that leaves its credentials and its body behind when it is pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (
            httpx.Request,
            (
                self.method,
                sanitize_url(str(self.url)),
            ),
            {"headers": _kept(self.headers), "extensions": {}},
        )


def _kept(headers: httpx.Headers) -> httpx.Headers:
    # The values too: Location and the like may hold URLs with credentials.
    return httpx.Headers(
        [
            (name, redact_secrets(value.decode("latin-1")).encode("latin-1"))
            for name, value in headers.raw
            if not is_secret_name(name.decode("latin-1"))
        ]
    )


def fit_to_travel(error: Any, method: str = "GET", url: str | httpx.URL | None = None) -> Any:
    """Let an error and all that it wraps be pickled without credentials, and return it.

    A URL that was refused before a request was made gets one, of `method` and `url`: an
    `httpx.RequestError` without it raises where its `request` is read.
    """
    if url is not None and getattr(error, "_request", url) is None:
        error.request = httpx.Request(method, url)
    for link in error_chain(error, suppressed=True):
        with suppress(RuntimeError, AttributeError):  # it has no request
            request = link.request  # type: ignore[attr-defined]
            if type(request) is httpx.Request:
                link.request = _sent(request)  # type: ignore[attr-defined]
    return error


def _sent(request: httpx.Request) -> httpx.Request:
    sent = _SentRequest.__new__(_SentRequest)
    vars(sent).update(vars(request))
    return sent


class HTTPStatusError(httpx.HTTPStatusError):
    """An answer that is not a success; an `httpx.HTTPStatusError` that can be pickled.

    Attributes:
        retry_after: Seconds that the server asked to wait, or None.
    """

    retry_after: float | None = None

    def __reduce__(self) -> tuple[object, ...]:
        fields = {name: value for name, value in vars(self).items() if name not in _CARRIED}
        response = _travelling(self.response)
        make = partial(HTTPStatusError, request=response.request, response=response)
        return make, self.args, fields


_CARRIED = ("_request", "response")


def _travelling(response: httpx.Response) -> httpx.Response:
    """Return a copy without credentials, and without the answers before it."""
    copy = httpx.Response.__new__(type(response))
    state = response.__getstate__()
    state["headers"] = _kept(response.headers)
    copy.__setstate__(state)
    copy.history = []
    copy.request = _sent(response.request)
    return copy


class AsyncDeadlineExceeded(DeadlineExceeded, httpx.TimeoutException):
    """The deadline as users of httpx catch it."""

    def __init__(self, message: str) -> None:
        httpx.TimeoutException.__init__(self, message)


class AsyncOutcomeUnknown(OutcomeUnknown, httpx.TransportError):
    """The lost answer as users of httpx catch it."""

    def __init__(self, method: str, url: str, cause: BaseException) -> None:
        super().__init__(method, url, fit_to_travel(cause))
        with suppress(RuntimeError, AttributeError):  # such as a deadline that passed
            self.request = cause.request  # type: ignore[attr-defined]


HOP_BODY = 65_536
"""Bytes of the body of a redirect that are read; a longer one ends its connection instead."""


class Response(httpx.Response):
    """An answer whose content coding, size limit and text are those of `infra_core.http`."""

    max_bytes: int | None = None
    _named: str | None = None

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Yield the decoded body."""
        if hasattr(self, "_content"):  # read before, or made by a mock
            async for piece in super().aiter_bytes(chunk_size):
                yield piece
            return
        reader = self._reader()
        held = bytearray()
        try:
            async for raw in self.aiter_raw():
                for piece in reader.feed(raw):
                    if chunk_size is None:
                        yield piece
                        continue
                    held += piece
                    while len(held) >= chunk_size:
                        yield bytes(held[:chunk_size])
                        del held[:chunk_size]
            reader.finish()
        except DamagedBody as error:
            way = "stream_async() and aiter_raw()"
            text = undecodable_text(str(self.request.url), error, way)
            raise httpx.DecodingError(text, request=self.request) from error
        if held:
            yield bytes(held)

    def raise_for_status(self) -> "Response":
        """Return itself if it is a success."""
        check_status(self)
        return self

    async def aread_hop(self) -> None:
        """Read the body of a redirect, so that its connection can be used again.

        It was not asked for: a long, cut or damaged one counts as empty.
        """
        self.max_bytes = HOP_BODY
        try:
            await self.aread()
        except (httpx.TransportError, httpx.DecodingError, ResponseTooLarge) as error:
            if isinstance(error.__cause__, ClosedHereError):
                raise  # the next request could not be sent
            await self.aclose()
            self._content = b""

    async def aread_if_whole(self) -> None:
        """Read the body of an answer whose status says enough: a cut or damaged one is empty."""
        try:
            await self.aread()
        except (httpx.TransportError, httpx.DecodingError):
            await self.aclose()
            self._content = b""

    def _reader(self) -> BodyReader:
        headers = self.headers
        coded = headers.get_list("content-encoding") if "content-encoding" in headers else ()
        reader = BodyReader(str(self.url), coded, self.max_bytes)
        if self.max_bytes is not None and self.request.method != "HEAD":
            reader.check_length(length_of(headers.get_list("content-length")))
        return reader

    @property
    def encoding(self) -> str | None:
        """The encoding of the text; see `infra_core.http._response.text` for the order."""
        if self._named is not None:
            return self._named
        default: DefaultEncoding = self.default_encoding
        read = getattr(self, "_content", b"")
        return encoding_of(
            read, self.headers.get("content-type"), None if default == "utf-8" else default
        )

    @encoding.setter
    def encoding(self, value: str) -> None:
        httpx.Response.encoding.__set__(self, value)  # type: ignore[attr-defined]
        self._named = value


class _BodyStream(httpx.AsyncByteStream):
    """The body of an answer as httpx reads it."""

    def __init__(self, response: EngineResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_raw()

    async def aclose(self) -> None:
        self._response.close()


def response_of(
    answer: EngineResponse,
    request: httpx.Request | None = None,
    *,
    default_encoding: Any = "utf-8",
) -> Response:
    """Return an answer of the engine as httpx knows it."""
    return Response(
        answer.status,
        headers=answer.raw_headers,
        stream=_BodyStream(answer) if answer.body is None else httpx.ByteStream(answer.body),
        extensions={
            "http_version": answer.http_version.encode("ascii"),
            "reason_phrase": clean_reason(answer.status, answer.reason).encode("ascii", "replace"),
        },
        request=request,
        default_encoding=default_encoding,
    )


def ours(response: httpx.Response) -> httpx.Response:
    """Let an answer of plain httpx be decoded and read like all others; a mock stays a mock."""
    if type(response) is httpx.Response:
        response.__class__ = Response
    return response


def check_status(response: httpx.Response) -> None:
    """Raise the error for an answer that is not a success, its `retry_after` set."""
    if not is_success(response.status_code):
        raise status_error(response)


def status_error(response: httpx.Response, *, max_backoff: float | None = None) -> HTTPStatusError:
    """Return the error for an answer that is not a success."""
    request, headers = response.request, response.headers
    reason = response.extensions.get("reason_phrase")
    status, url = response.status_code, str(request.url)
    text = status_text(request.method, url, status, reason, headers, max_backoff=max_backoff)
    error = HTTPStatusError(text, request=request, response=response)
    error.retry_after = parse_retry_after(headers)
    return error
