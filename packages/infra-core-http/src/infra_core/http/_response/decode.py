"""Undo Content-Encoding (RFC 9110, section 8.4) in pieces of bounded size: all of it, or an error.

The same for `fetch`, `fetch_async`, `request`, `request_async`, streams, `max_bytes` and downloads.
Names of `Content-Encoding` that are not content codings (`utf-8`, `none`, `binary`, `aws-chunked`)
say nothing about the body, which is then taken as it is. A `BodyReader` bounds what a body holds,
and what it costs.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import chain
from typing import Any, Final

from .._errors import ResponseTooLarge

__all__ = [
    "BodyReader",
    "DamagedBody",
    "Decoder",
    "UnsupportedCoding",
    "codings_of",
    "decoder_for",
    "length_of",
]

_PIECE: Final = 1 << 18  # the most that one step inflates to: a bomb stays small
_MAX_CODINGS: Final = 5  # a hundred nested codings would multiply the work of each byte
_GZIP_WINDOW: Final = 31
_ZLIB_WINDOW: Final = 15
_RAW_WINDOW: Final = -15
# RFC 9659: a content coding needs no window above 8 MiB, and a server may not choose our memory.
_ZSTD_WINDOW_LOG: Final = 23
# Registered codings (IANA, "HTTP Content Coding Registry") that nothing here can undo.
_UNDECODABLE: Final = frozenset({"compress", "dcb", "dcz", "exi", "pack200-gzip", "x-compress"})
_KNOWN: Final = _UNDECODABLE | {"gzip", "deflate", "br", "zstd"}
# One member, frame or stream of a coding, with the methods of `bz2.BZ2Decompressor`.
_Stream = Any


class DamagedBody(Exception):  # noqa: N818 - what it is
    """The encoded bytes are damaged, cut or cannot be decoded here; never leaves the package."""


class UnsupportedCoding(DamagedBody):
    """Nothing here decodes it: asking again would bring the same."""


class Decoder:
    """Decode one body, as it comes."""

    def __init__(self, codings: Iterable[str]) -> None:
        self.codings = tuple(codings)
        self._layers: list[_Layer] | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the decoded pieces of these bytes, one by one, each of at most some 256 KiB.

        Raises:
            DamagedBody: The bytes are damaged, or a package that decodes them is missing.
        """
        pieces = iter((data,) if data else ())
        if data and self._layers is None:  # an empty body of any coding is nothing
            self._layers = self._build()
        for layer in self._layers or ():
            pieces = chain.from_iterable(map(layer.feed, pieces))
        return pieces

    def finish(self) -> None:
        """Check that the encoded data had its proper end.

        Raises:
            DamagedBody: It was cut.
        """
        for layer in self._layers or ():
            layer.finish()

    def _build(self) -> "list[_Layer]":
        if len(self.codings) > _MAX_CODINGS:
            raise UnsupportedCoding(
                f"it has {len(self.codings)} content codings, above the {_MAX_CODINGS} that are "
                "undone"
            )
        return [_Layer(coding) for coding in reversed(self.codings)]


class _Layer:
    """One coding of a body, which may be several members or frames in a row."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._open, self._error = _codec(coding)
        self._several = coding in ("gzip", "zstd")
        self._padded = coding in ("gzip", "deflate")  # with zeros, which gzip(1) drops too
        self._least = 2 if coding == "deflate" else 1  # bytes that say which form of it this is
        self._head = b""
        self._stream: _Stream | None = None
        self._ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._head + data
        while data:
            if self._stream is None:
                if self._ended and self._padded:
                    data = data.lstrip(b"\0")
                if self._ended and data and not self._several:
                    raise DamagedBody(f"bytes follow the end of its {self._coding} data")
                self._head = data if len(data) < self._least else b""
                if self._head or not data:
                    return
                self._stream = self._open(data)
            stream = self._stream
            while True:
                try:
                    piece = stream.decompress(data, _PIECE)
                except self._error as error:
                    reason = str(error).rpartition(": ")[2]
                    raise DamagedBody(f"its {self._coding} data are damaged ({reason})") from error
                if piece:
                    yield piece
                if stream.eof:
                    break
                if stream.needs_input:
                    return
                data = b""
            data, self._stream, self._ended = stream.unused_data, None, True

    def finish(self) -> None:
        if self._stream is not None or self._head:
            raise DamagedBody(f"its {self._coding} data end too early")


class _Inflater:
    """One gzip member (RFC 1952), zlib stream (RFC 1950) or bare deflate stream (RFC 1951)."""

    def __init__(self, window: int) -> None:
        self._zlib = zlib.decompressobj(window)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(piece) < max_length
        return piece


class _Brotli:
    """One brotli stream (RFC 7932)."""

    unused_data = b""

    def __init__(self, module: Any) -> None:
        self._stream = module.Decompressor()
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece: bytes = self._stream.process(data, output_buffer_limit=max_length)
        self.needs_input = self._stream.can_accept_more_data() and len(piece) < max_length
        return piece


def _codec(coding: str) -> tuple[Callable[[bytes], _Stream], type[Exception]]:
    """Return what opens a stream of a coding, given its first bytes, and what a damage raises."""
    if coding == "gzip":
        return lambda _: _Inflater(_GZIP_WINDOW), zlib.error
    if coding == "deflate":
        return _open_deflate, zlib.error
    if coding == "br":
        module = _module_of(coding, "brotli", "brotlicffi")
        return lambda _: _Brotli(module), module.error
    if coding == "zstd":
        module = _module_of(coding, "compression.zstd", "backports.zstd")
        limit = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        return lambda _: module.ZstdDecompressor(options=limit), module.ZstdError
    raise UnsupportedCoding(
        f"its Content-Encoding {coding!r} cannot be undone here: send Accept-Encoding: identity"
    )


def _open_deflate(head: bytes) -> _Stream:
    """What HTTP calls deflate is the zlib format (RFC 1950); some servers send the bare one."""
    is_zlib = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return _Inflater(_ZLIB_WINDOW if is_zlib else _RAW_WINDOW)


def _module_of(coding: str, *names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    extra = "brotli" if coding == "br" else coding
    raise UnsupportedCoding(
        f"its Content-Encoding is {coding!r}, which needs a package: install "
        f"infra-core-http[{extra}], or do not ask for it in Accept-Encoding"
    )


def codings_of(values: Iterable[str]) -> tuple[str, ...]:
    """Return the content codings of a body, in the order in which they were applied.

    Example:
        >>> codings_of(["X-GZIP, utf-8", "br"])
        ('gzip', 'br')
    """
    found = []
    for value in values:
        for part in value.lower().split(","):
            name = part.partition(";")[0].strip(" \t\"'")
            name = "gzip" if name == "x-gzip" else name
            if name in _KNOWN:
                found.append(name)
    return tuple(found)


def decoder_for(values: Iterable[str]) -> Decoder | None:
    """Return what decodes a body; None when it is to be taken as it is."""
    codings = codings_of(values)
    return Decoder(codings) if codings else None


# Encoded bytes that may hold nothing at all, and how many times a body may grow by its coding:
# endless empty members and blocks cost work, and never reach a bound on decoded bytes alone.
_EMPTY = 65_536
_GROWTH = 8
# A body that inflates a thousandfold is noticed after so much of it has been read.
_STEP = 16_384


class BodyReader:
    """Decode a body piece by piece, up to a bound."""

    def __init__(self, url: str, encodings: Iterable[str], max_bytes: int | None = None) -> None:
        self._url = url
        self._decoder: Decoder | None = decoder_for(encodings)
        self.max_bytes = max_bytes
        self._encoded = 0
        self._size = 0

    @property
    def decodes(self) -> bool:
        """Whether the body has a content coding."""
        return self._decoder is not None

    def check_length(self, length: int | None) -> None:
        """Refuse a body by the length that the server announced."""
        if length is not None and self.max_bytes is not None and length > self.max_bytes:
            raise ResponseTooLarge(self._url, self.max_bytes, length)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded pieces of these bytes.

        Raises:
            ResponseTooLarge: The body is above `max_bytes`, or costs more work than such a body.
            DamagedBody: The bytes are not a whole body in its content coding.
        """
        if self._decoder is None:
            self._take(len(data))
            if data:
                yield data
            return
        step = len(data) if self.max_bytes is None else _STEP
        for start in range(0, len(data), step or 1):
            part = data[start : start + step]
            self._encoded += len(part)
            for piece in self._decoder.feed(part):
                self._take(len(piece))
                yield piece
            if (
                self.max_bytes is not None
                and self._encoded > max(self.max_bytes, _EMPTY) + _GROWTH * self._size
            ):
                raise ResponseTooLarge(self._url, self.max_bytes, self._encoded)

    def finish(self) -> None:
        """Check that the body had its proper end.

        Raises:
            DamagedBody: Its encoded data were cut.
        """
        if self._decoder is not None:
            self._decoder.finish()

    def _take(self, count: int) -> None:
        self._size += count
        if self.max_bytes is not None and self._size > self.max_bytes:
            raise ResponseTooLarge(self._url, self.max_bytes, self._size)


def length_of(values: Iterable[str]) -> int | None:
    """Return what `Content-Length` announces; None where it says nothing that holds.

    Equal values count once (RFC 9110, section 8.6).
    """
    found = {part.strip(" \t") for value in values for part in value.split(",")}
    if len(found) != 1:
        return None
    (text,) = found
    # Digits of ASCII alone: "²" is a digit to `str.isdigit`. Nineteen of them are 8 EiB.
    if not (text.isascii() and text.isdigit()) or len(text.lstrip("0")) > 19:
        return None
    return int(text.lstrip("0") or "0")
