"""The body of an answer of requests, decoded by us, in whichever way it is read."""

import io
import sys
from collections.abc import Iterator
from typing import Any

import requests
import urllib3
from requests.utils import get_encoding_from_headers

from ._messages import undecodable_text
from ._response.decode import BodyReader, DamagedBody, length_of
from ._response.text import encoding_of
from ._sync_errors import READ_RAW, cut_text, status_error
from ._sync_wire import Answer

__all__ = ["attach_decoder", "settle_encoding"]


class _DecodedBody(io.RawIOBase):
    """Stands before the body that urllib3 gives, with our decoder and our bound.

    `Response.content`, `iter_content` and `raw.read` all come here, and go on where the one
    before stopped.
    """

    def __init__(self, raw: Any, reader: BodyReader, url: str) -> None:
        self._raw = raw
        self._url = url
        self.reader = reader
        self.decode_content = bool(getattr(raw, "decode_content", False))
        self._pieces: Iterator[bytes] | None = None
        self._held = memoryview(b"")  # the rest of the last piece

    def __getattr__(self, name: str) -> Any:
        if name == "_raw":  # of an instance that is being copied
            raise AttributeError(name)
        return getattr(self._raw, name)

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
        super().close()

    def tell(self) -> int:
        """How many bytes came over the wire so far."""
        return int(self._raw.tell())

    def fileno(self) -> int:
        """Of the socket; without one, the error that the classes of `io` expect."""
        try:
            return int(self._raw.fileno())
        except OSError as error:
            raise io.UnsupportedOperation(str(error)) from error

    def readable(self) -> bool:
        """As a file; always True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as a file into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def stream(
        self, amt: int | None = 65_536, decode_content: bool | None = None
    ) -> Iterator[bytes]:
        """Yield the body in pieces of at most `amt` bytes."""
        if not (self.decode_content if decode_content is None else decode_content):
            yield from self._raw.stream(amt, decode_content=False)
            return
        while piece := self._next(amt or 65_536):
            yield piece

    def read(self, amt: int | None = None, decode_content: bool | None = None, **_: Any) -> bytes:
        """Read as a file: `amt` bytes, or all."""
        amt = None if amt is not None and amt < 0 else amt
        if not (self.decode_content if decode_content is None else decode_content):
            data: bytes = self._raw.read(amt, decode_content=False)
            return data
        parts: list[bytes] = []
        left = sys.maxsize if amt is None else amt
        while left > 0 and (piece := self._next(left)):
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts)

    def _next(self, limit: int) -> bytes:
        """Return the next bytes, at most so many; none at the end."""
        self._pieces = self._pieces or filter(None, self._decoded(limit))
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        piece, self._held = self._held[:limit], self._held[limit:]
        return bytes(piece)

    def _decoded(self, step: int) -> Iterator[bytes]:
        if isinstance(getattr(self._raw, "_original_response", None), Answer):
            step = 65_536  # which gives out what is there, and waits for no more
        else:
            step = min(step, 65_536)
        if self.reader.decodes:
            step = max(step, 4096)
        try:
            for data in self._raw.stream(step, decode_content=False):
                yield from self.reader.feed(data)
            self.reader.finish()
        except Exception as error:
            self._raw.close()
            if isinstance(error, DamagedBody):
                text = undecodable_text(self._url, error, READ_RAW)
                raise urllib3.exceptions.DecodeError(text) from error
            if isinstance(error, urllib3.exceptions.ProtocolError):
                raise urllib3.exceptions.ProtocolError(cut_text(self._url, error)) from error
            raise


def attach_decoder(response: requests.Response, max_bytes: int | None = None) -> None:
    """Put our decoder before a body that is still unread."""
    raw: Any = response.raw
    if not isinstance(raw, _DecodedBody):
        if not hasattr(raw, "stream"):
            return
        encodings = [response.headers.get("Content-Encoding", "")]
        if not isinstance(raw, urllib3.BaseHTTPResponse):
            encodings = []  # such as vcrpy's, which was decoded when it was recorded
        raw = _DecodedBody(raw, BodyReader(response.url, encodings), response.url)
        response.raw = raw
    raw.reader.max_bytes = max_bytes
    if max_bytes is not None and response.request.method != "HEAD":
        length = response.headers.get("Content-Length")
        raw.reader.check_length(None if length is None else length_of([length]))
        if vars(response).get("_content", False):  # read by a hook, or a session of a user's class
            raw.reader.check_length(len(response.content))


class _Answer(requests.Response):
    """An answer whose error has a text without secrets, and can be pickled."""

    provisional: str | None = None
    """The encoding of a body that is unread, which is found out when the text is asked for."""

    def raise_for_status(self) -> None:
        """Raise the error of a status from 400."""
        if self.status_code >= 400:
            raise status_error(self)

    @property
    def text(self) -> str:
        """The text of the body, as everywhere."""
        if self.provisional is not None and self.encoding == self.provisional:
            self.encoding = encoding_of(self.content, self.headers.get("Content-Type"))
        return super().text


def settle_encoding(response: requests.Response, *, read: bool) -> None:
    """Set the encoding with which `response.text` says the same as the asynchronous half."""
    body = response.content if read else b""
    settled = response.encoding == get_encoding_from_headers(response.headers)
    if settled:
        response.encoding = encoding_of(body, response.headers.get("Content-Type"))
    if type(response) is requests.Response:
        response.__class__ = _Answer
        vars(response)["provisional"] = response.encoding if settled and not read else None
