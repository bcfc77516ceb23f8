"""Answers whose framing aiohttp refuses and every browser takes: pure functions on bytes.

aiohttp reads answers with a strict parser. Four oddities are harmless and common, and curl takes
them all: the same Content-Length twice, a Content-Length beside Transfer-Encoding (RFC 9112,
section 6.3, lets chunked win and the connection end), `Transfer-Encoding: identity`, and bytes
left over after the answer. `mended` rewrites the head, or cuts what is left over.
"""

import re
from typing import NamedTuple

__all__ = ["Mended", "after_interim", "mended"]

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?=[ \r\n])")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
_NO_BODY = frozenset({204, 304})


class Mended(NamedTuple):
    """An answer that a strict parser takes."""

    data: bytes  # as far as they have come
    clean: bool  # whether the connection is in step after it, so that it may be used again
    sound: bool  # whether its length is said once, or always in the same way


def after_interim(data: bytes) -> bytes:
    """Return the bytes after the interim answers (1xx) at the beginning."""
    while True:
        status, end = _head_of(data)
        if end is None or status is None or status == 101 or status >= 200:
            return data
        data = data[end:]


def mended(data: bytes, *, head_only: bool) -> Mended | None:
    """Return an answer as a strict parser wants it; None while its head is not here.

    What cannot be mended comes back as it is.
    """
    data = after_interim(data)
    status, end = _head_of(data)
    if end is None:
        return None
    lines = data[:end].splitlines(keepends=True)
    lengths = _values(lines, b"content-length")
    codings = [coding.lower() for coding in _values(lines, b"transfer-encoding")]
    body = data[end:]
    clean = True
    stop: int | None = None
    if codings[-1:] == [b"chunked"]:
        stop = _end_of_chunks(body)
        if lengths:
            lines = _without(lines, b"content-length")
            clean = False
    else:
        if set(codings) == {b"identity"}:
            lines = _without(lines, b"transfer-encoding")
        if len(set(lengths)) == 1:
            if len(lengths) > 1:
                lines = _without(lines, b"content-length")
                lines.insert(1, b"Content-Length: " + lengths[0] + b"\r\n")
            if re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
                stop = int(lengths[0])
    if head_only or status in _NO_BODY:
        stop = 0
    if stop is not None and len(body) > stop:
        body, clean = body[:stop], False
    return Mended(b"".join(lines) + body, clean, len(set(lengths)) < 2 or not clean)


def _head_of(data: bytes) -> tuple[int | None, int | None]:
    """Return the status and where the head ends, None for what is not there."""
    line, end = _STATUS_LINE.match(data), _END_OF_HEAD.search(data)
    return int(line[1]) if line else None, end.end() if end else None


def _values(lines: list[bytes], name: bytes) -> list[bytes]:
    """Return the members of all header lines of that name."""
    found: list[bytes] = []
    for line in lines[1:]:
        key, colon, value = line.partition(b":")
        if colon and key.lower() == name:
            found += [member.strip() for member in value.split(b",")]
    return found


def _without(lines: list[bytes], name: bytes) -> list[bytes]:
    prefix = name + b":"
    return [line for line in lines if not line.lower().startswith(prefix)]


def _end_of_chunks(body: bytes) -> int | None:
    """Return where a chunked body ends, None when it goes on or is not chunked."""
    at = 0
    while size := _CHUNK_SIZE.match(body, at):
        count = int(size[1], 16)
        if count == 0:
            if body.startswith(b"\r\n", size.end()):
                return size.end() + 2
            trailer = _END_OF_HEAD.search(body, size.end())
            return trailer.end() if trailer else None
        at = size.end() + count + 2
    return None
