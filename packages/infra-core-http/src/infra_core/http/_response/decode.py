"""Undo Content-Encoding (RFC 9110, section 8.4) in pieces of bounded size: all of it, or an error.

The same for `fetch`, `fetch_async`, `request`, `request_async`, streams, `max_bytes` and downloads.
Names of `Content-Encoding` that are not content codings (`utf-8`, `none`, `binary`, `aws-chunked`)
say nothing about the body, which is then taken as it is.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import chain
from typing import Any, Final

__all__ = ["DamagedBody", "Decoder", "UnsupportedCoding", "codings_of", "decoder_for"]

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
