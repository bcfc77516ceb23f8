"""Read answers from the socket for requests, to the letter of RFC 9112 and as forgiving as curl.

`http.client` takes an interim answer for the answer, refuses more than 100 header lines, reads a
negative or malformed length as none, and cannot say whether bytes are left over. An `Answer` here
takes its place below urllib3. A connection that may be out of step is closed and not used again.

The timeouts of requests bound each connection and each wait for the next byte, and a server that
redirects or drips bytes never meets them: `no_read_after` bounds them together.
"""

import contextlib
import math
import re
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage, IncompleteRead, RemoteDisconnected
from time import monotonic
from typing import Any, Final

from ._response.decode import length_of
from ._response.status import is_interim

__all__ = ["Answer", "BadAnswer", "no_read_after", "within"]

_READ: Final = 65_536
_MAX_HEAD: Final = 1 << 20
_MAX_LINE: Final = 65_536
_MAX_INTERIM: Final = 100
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE: Final = re.compile(r"HTTP/(1\.[01]|2\.0) ([1-9][0-9]{2})(?: ([^\0\r]*))?")
# RFC 9110, sections 5.1 and 5.5. Spaces around a name, which some readers drop and others do not,
# are how answers are smuggled (RFC 9112, section 5.1).
_FIELD: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\0\r]*)")
_CHUNK: Final = re.compile(rb"0*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r]*)?")
_NO_BODY: Final = frozenset({101, 204, 304})


_local = threading.local()


class BadAnswer(HTTPException):
    """What came is not an answer of HTTP/1."""


@contextlib.contextmanager
def no_read_after(ends: float) -> Iterator[None]:
    """Bound connecting and sending in this thread, and reading of what is begun in the block."""
    before = getattr(_local, "ends", math.inf)  # of a call whose hook makes this one
    _local.ends = min(before, ends)
    try:
        yield
    finally:
        _local.ends = before


def within(timeout: float | None, ends: float | None = None) -> float | None:
    """Return a timeout that ends with `no_read_after`."""
    ends = getattr(_local, "ends", math.inf) if ends is None else ends
    if ends == math.inf:
        return timeout
    left = ends - monotonic()
    if left <= 0:
        raise TimeoutError("the deadline passed")
    return left if timeout is None else min(left, timeout)


class Answer:
    """One answer, as `http.client.HTTPConnection` and urllib3 want it.

    It has no attribute `fp`, so that urllib3 leaves reading chunks to it.
    """

    def __init__(
        self, sock: Any, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        self._sock = sock
        self._source: Any = sock.makefile("rb", buffering=0)
        self._ends: float = getattr(_local, "ends", math.inf)
        self._timeout: float | None = sock.gettimeout()
        self._method = method
        self._buffer = b""
        self._at = 0
        self._left: int | None = None  # bytes to come of the body, or of the chunk
        self._ended = False
        self.chunked = False
        self.will_close = False
        self.headers = self.msg = HTTPMessage()
        self.status = self.version = 0
        self.reason = ""

    def begin(self) -> None:
        """Read up to the body."""
        for _ in range(_MAX_INTERIM):
            first, *lines = self._head()
            line = _STATUS_LINE.fullmatch(first)
            if line is None:
                raise BadAnswer(f"its first line is {first[:60]!r}")
            self.status = int(line[2])
            if not is_interim(self.status):
                break
        else:
            raise BadAnswer(f"{_MAX_INTERIM} interim answers came, and no other")
        self.version = 10 if line[1] == "1.0" else 11
        self.reason = (line[3] or "").strip()
        fields = _fields(lines)
        for name, value in fields:
            self.msg.set_raw(name, value)
        names = ("connection", "transfer-encoding", "content-length")
        self._frame(*([value for key, value in fields if key.lower() == name] for name in names))

    def _frame(self, connection: list[str], encodings: list[str], lengths: list[str]) -> None:
        """Find out where the body ends (RFC 9112, section 6.3)."""
        tokens = _tokens(connection)
        keep = self.version == 11 or "keep-alive" in tokens
        self.will_close = "close" in tokens or not keep or self.status == 101
        applied = _tokens(encodings)
        codings = [name for name in applied if name != "identity"]
        length = length_of(lengths)
        if lengths and length is None and not codings:
            raise BadAnswer(f"its Content-Length is {', '.join(lengths)[:60]!r}")
        if self._method == "HEAD" or self.status in _NO_BODY:
            self._left = 0
        elif codings:
            if set(codings) != {"chunked"} or applied[-1] != "chunked":
                raise BadAnswer(f"its Transfer-Encoding {', '.join(applied)!r} is not known")
            self.chunked = True
            if lengths or len(codings) > 1:
                # One of the two lies, and somebody between may believe the other.
                del self.msg["Content-Length"]
                self.will_close = True
        elif lengths:
            self._left = length
        else:
            self.will_close = True

    def read(self, amt: int | None = None) -> bytes:
        """Return some bytes of the body, all of it without `amt`, none at its end."""
        if amt is not None:
            return self._read(amt)
        parts = []
        while part := self._read(_READ):
            parts.append(part)
        return b"".join(parts)

    read1 = read

    def _read(self, limit: int) -> bytes:
        if self._source is None or limit <= 0:
            return b""
        if self._left == 0 and not self.chunked:
            self._end()  # not before somebody reads: urllib3 takes the connection back then
            return b""
        if self.chunked and not self._left:
            size = self._chunk_size()
            if size == 0:
                self._end()
                return b""
            self._left = size
        data = self._take(limit if self._left is None else min(limit, self._left))
        if not data:
            if self._left is not None:
                raise IncompleteRead(b"", self._left)
            self._end()
        elif self._left is not None:
            self._left -= len(data)
            if not self._left:
                if not self.chunked:
                    self._end()
                elif self._line() != b"\r":
                    raise BadAnswer("a chunk is longer than its size")
        return data

    def _chunk_size(self) -> int:
        line = self._line().removesuffix(b"\r")
        found = _CHUNK.fullmatch(line)
        if found is None:
            raise BadAnswer(f"the size of a chunk is {line[:60].decode('latin-1')!r}")
        size = int(found[1], 16)
        if size == 0:
            read = 0
            while trailer := self._line().removesuffix(b"\r"):
                read += len(trailer)
                if read > _MAX_LINE:
                    raise BadAnswer("its trailer fields are longer than 64 KiB")
                _fields([trailer.decode("latin-1")])
        return size

    def _head(self) -> list[str]:
        """Return the lines of a head, the folded ones joined."""
        while True:
            start = self._buffer[self._at :].lstrip(b"\r\n")
            end = _END_OF_HEAD.search(start)
            if end is not None:
                break
            if len(start) > _MAX_HEAD:
                raise BadAnswer("its header is larger than 1 MiB")
            if not self._fill():
                if start:
                    raise BadAnswer("the connection was closed in the middle of its header")
                raise RemoteDisconnected("the connection was closed without an answer")
        self._buffer, self._at = start, end.end()
        lines: list[str] = []
        for ended in start[: end.start()].decode("latin-1").split("\n"):
            line = ended.removesuffix("\r")
            if line[:1] in (" ", "\t") and lines:  # RFC 9112, section 5.2
                lines[-1] += " " + line.strip(" \t")
            else:
                lines.append(line)
        return lines

    def _line(self) -> bytes:
        while True:
            end = self._buffer.find(b"\n", self._at)
            if end >= 0:
                line = self._buffer[self._at : end]
                self._at = end + 1
                return line
            if len(self._buffer) - self._at > _MAX_LINE:
                raise BadAnswer("a line between its chunks is longer than 64 KiB")
            if not self._fill():
                raise IncompleteRead(b"")

    def _take(self, limit: int) -> bytes:
        if self._at < len(self._buffer):
            data = self._buffer[self._at : self._at + limit]
            self._at += len(data)
            return data
        # Line ends and chunk sizes come with the bytes before them where that is possible.
        if self.chunked:
            return self._take(limit) if self._fill() else b""
        return self._receive(limit)

    def _receive(self, limit: int) -> bytes:
        if self._ends < math.inf:
            self._sock.settimeout(within(self._timeout, self._ends))
        data: bytes = self._source.read(limit)
        return data

    def _fill(self) -> bool:
        data = self._receive(_READ)
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        return bool(data)

    def _end(self) -> None:
        self._ended = self._at == len(self._buffer)
        self.close()

    def close(self) -> None:
        """Let go of the socket, which is of no use any more if something is left to read.

        The next request on that connection must not get it.
        """
        source, self._source = self._source, None
        if source is not None:
            if not self._ended and not self.will_close:
                # What urllib3 has for TLS within TLS cannot be shut, but what lies below it.
                sock = getattr(self._sock, "socket", self._sock)
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            source.close()

    def isclosed(self) -> bool:
        """Whether the body was read to its end, or given up."""
        return self._source is None

    closed = property(isclosed)


def _fields(lines: list[str]) -> list[tuple[str, str]]:
    found = []
    for line in lines:
        if len(line) > _MAX_LINE:
            raise BadAnswer("a line of its header is longer than 64 KiB")
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadAnswer(f"a line of its header is {line[:60]!r}")
        found.append((field[1], field[2].rstrip(" \t")))
    return found


def _tokens(values: list[str]) -> list[str]:
    return [part.strip(" \t").lower() for value in values for part in value.split(",") if part]
