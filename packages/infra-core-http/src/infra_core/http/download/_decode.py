"""Undo a Content-Encoding that nobody asked for, in pieces of bounded size, to the last bit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

__all__ = ["DamagedBody", "Decoder"]

_PIECE: Final = 1 << 20  # the most that one step may inflate to: a thousandfold bomb stays small
_GZIP_WINDOW: Final = 31
_ZLIB_WINDOW: Final = 15
_RAW_WINDOW: Final = -15


class DamagedBody(Exception):  # noqa: N818 - what it is
    """The encoded bytes are damaged or cut; never leaves the package."""


class Decoder:
    """Decode `gzip` (RFC 1952, several members too) or `deflate` (RFC 1950, or bare RFC 1951).

    Args:
        encoding: `gzip` or `deflate`.
    """

    def __init__(self, encoding: str) -> None:
        self._gzip = encoding == "gzip"
        self._stream: zlib._Decompress | None = None
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded pieces of these bytes.

        Raises:
            DamagedBody: The bytes are damaged.
        """
        while data:
            if self._stream is None:
                self._stream = zlib.decompressobj(self._window(data[0]))
                self._begun = True
            try:
                piece = self._stream.decompress(data, _PIECE)
            except zlib.error as error:
                raise DamagedBody(str(error)) from error
            if piece:
                yield piece
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                # A file may be several gzip members in a row; zeros after the last are padding.
                data = self._stream.unused_data.lstrip(b"\0") if self._gzip else b""
                self._stream = None

    def finish(self) -> None:
        """Check that the encoded data had its proper end.

        Raises:
            DamagedBody: It was cut.
        """
        if self._stream is not None or not self._begun:
            raise DamagedBody("it ends too early")

    def _window(self, first: int) -> int:
        if self._gzip:
            return _GZIP_WINDOW
        # What HTTP calls deflate is the zlib format, whose first byte says method 8; some servers
        # send the bare one.
        return _ZLIB_WINDOW if first & 0x0F == 8 else _RAW_WINDOW
