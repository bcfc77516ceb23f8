"""Streamed bodies of requests, whose length the caller gives."""

from ._errors import InvalidRequestError

__all__ = ["Measure"]


class Measure:
    """Holds a body to its length: a server must not take one that is cut for a whole one."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._left = length
        self._last: bytes | memoryview = b""

    def take(self, piece: bytes | memoryview) -> bytes | memoryview:
        """Return what may be sent after a piece; what completes the body waits for `end`.

        Raises:
            InvalidRequestError: The body is longer.
        """
        self._left -= len(piece)
        if self._left < 0:
            raise self._error("longer")
        if self._left == 0 and piece:
            self._last, piece = piece, b""
        return piece

    def end(self) -> bytes | memoryview:
        """Return the last piece.

        Raises:
            InvalidRequestError: The body is shorter.
        """
        if self._left:
            raise self._error("shorter")
        return self._last

    def _error(self, word: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"the body is {word} than its Content-Length of {self._length} bytes: pass the right "
            "one, or none"
        )
