"""Undo Content-Encoding (RFC 9110, section 8.4) in pieces of bounded size: all of it, or an error.

The same for `fetch`, `fetch_async`, `request`, `request_async`, streams, `max_bytes` and downloads.
Names of `Content-Encoding` that are no content coding (`utf-8`, `none`, `binary`, `aws-chunked`)
say nothing about the body, which is then taken as it is.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, Final, Protocol

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


class DamagedBody(Exception):  # noqa: N818 - what it is
    """The encoded bytes are damaged, cut or cannot be decoded here; never leaves the package."""


class UnsupportedCoding(DamagedBody):
    """Nothing here decodes it: asking again would bring the same."""


class _Stream(Protocol):
    """One member, frame or stream of a coding."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: bytes) -> Iterator[bytes]: ...


class Decoder:
    """Decode one body, as it comes.

    Args:
        codings: In the order in which they were applied, in lower case.
    """

    def __init__(self, codings: Iterable[str]) -> None:
        self.codings = tuple(codings)
        self._layers: list[_Layer] | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded pieces of these bytes, each of at most some 256 KiB.

        Raises:
            DamagedBody: The bytes are damaged, or a package that decodes them is missing.
        """
        if not data:
            return
        if self._layers is None:  # an empty body needs no decoder: any coding of it is nothing
            self._layers = self._build()
        yield from _through(self._layers, data)

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
        self._open: Callable[[], _Stream] = _opener(coding)
        self._several = coding in ("gzip", "zstd")
        self._padded = coding in ("gzip", "deflate")  # with zeros, which gzip(1) drops too
        self._stream: _Stream | None = None
        self._ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream is None:
                if self._ended:
                    if self._padded:
                        data = data.lstrip(b"\0")
                        if not data:
                            return
                    if not self._several:
                        raise DamagedBody(f"bytes follow the end of its {self._coding} data")
                self._stream = self._open()
            stream = self._stream
            yield from stream.decompress(data)
            if not stream.eof:
                return
            data = stream.unused
            self._stream, self._ended = None, True

    def finish(self) -> None:
        if self._stream is not None:
            raise DamagedBody(f"its {self._coding} data end too early")


def _through(layers: "list[_Layer]", data: bytes) -> Iterator[bytes]:
    first, rest = layers[0], layers[1:]
    if not rest:
        yield from first.feed(data)
        return
    for piece in first.feed(data):
        yield from _through(rest, piece)


class _Gzip:
    """One gzip member (RFC 1952)."""

    window = _GZIP_WINDOW

    def __init__(self) -> None:
        self._inflater: Any = None
        self.unused = b""

    @property
    def eof(self) -> bool:
        return self._inflater is not None and bool(self._inflater.eof)

    def decompress(self, data: bytes) -> Iterator[bytes]:
        inflater = self._inflater
        if inflater is None:
            inflater = self._inflater = zlib.decompressobj(self.window)
        while True:
            try:
                piece = inflater.decompress(data, _PIECE)
            except zlib.error as error:
                raise DamagedBody(str(error).rpartition(": ")[2]) from error
            if piece:
                yield piece
            data = inflater.unconsumed_tail
            if inflater.eof:
                self.unused = inflater.unused_data
                return
            if not data and len(piece) < _PIECE:
                return


class _Deflate(_Gzip):
    """What HTTP calls deflate is the zlib format (RFC 1950); some servers send the bare one."""

    def __init__(self) -> None:
        super().__init__()
        self._head = b""

    def decompress(self, data: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            self._head = data = self._head + data
            if len(data) < 2:
                return
            is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self.window = _ZLIB_WINDOW if is_zlib else _RAW_WINDOW
        yield from super().decompress(data)


class _Brotli:
    """One brotli stream (RFC 7932)."""

    unused = b""

    def __init__(self, module: Any) -> None:
        self._error: type[Exception] = module.error
        self._stream = module.Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    def decompress(self, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = self._stream.process(data, output_buffer_limit=_PIECE)
            except self._error as error:
                raise DamagedBody(f"its br data are damaged ({error})") from error
            if piece:
                yield piece
            data = b""
            if self._stream.is_finished() or (
                self._stream.can_accept_more_data() and len(piece) < _PIECE
            ):
                return


class _Zstd:
    """One frame of Zstandard (RFC 8878)."""

    def __init__(self, module: Any) -> None:
        limit = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        self._error: type[Exception] = module.ZstdError
        self._frame = module.ZstdDecompressor(options=limit)

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused(self) -> bytes:
        found: bytes = self._frame.unused_data
        return found

    def decompress(self, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = self._frame.decompress(data, _PIECE)
            except self._error as error:
                raise DamagedBody(f"its zstd data are damaged ({error})") from error
            if piece:
                yield piece
            if self._frame.eof or self._frame.needs_input:
                return
            data = b""


def _opener(coding: str) -> Callable[[], _Stream]:
    if coding == "gzip":
        return _Gzip
    if coding == "deflate":
        return _Deflate
    if coding == "br":
        module = _module_of(coding, "brotli", "brotlicffi")
        return lambda: _Brotli(module)
    if coding == "zstd":
        module = _module_of(coding, "compression.zstd", "backports.zstd")
        return lambda: _Zstd(module)
    raise UnsupportedCoding(
        f"its Content-Encoding {coding!r} cannot be undone here: send Accept-Encoding: identity"
    )


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

    Args:
        values: Of each `Content-Encoding` line.

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
    """Return what decodes a body; None when it is to be taken as it is.

    Args:
        values: Of each `Content-Encoding` line.
    """
    codings = codings_of(values)
    return Decoder(codings) if codings else None
