"""A body as it comes: decoded, and bounded in what it holds and in what it costs."""

from collections.abc import Iterable, Iterator

from .._errors import ResponseTooLarge
from .decode import Decoder, decoder_for

__all__ = ["BodyReader", "length_of"]

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
