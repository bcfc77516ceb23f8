"""A connection that takes the answers curl takes, and knows whether it is in step.

aiohttp reads answers with a strict parser. Four oddities are harmless and common, and curl takes
them all: the same Content-Length twice, a Content-Length beside Transfer-Encoding (RFC 9112,
section 6.3, lets chunked win and the connection end), `Transfer-Encoding: identity`, and bytes
left over after the answer. `mended`, a pure function on bytes, rewrites the head, or cuts what is
left over.
"""

import asyncio
import os
import re
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import aiohttp  # noqa: F401 - before its parts: another thread may import it
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.http_parser import HttpParser, HttpResponseParser

__all__ = ["Mended", "Protocol", "after_interim", "mended"]

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


# Above this a head is not waited for any more; the session refuses far smaller ones.
_MAX_HEAD = 1 << 20
_BEGINNING = b"HTTP/1."
_IN_PYTHON = issubclass(HttpResponseParser, HttpParser)
_CODINGS = frozenset({"chunked", "identity", ""})
_LOOK_FIRST = BadHttpMessage("its lengths differ")


class Protocol(ResponseHandler):
    """aiohttp's connection with a parser that mends what can be mended."""

    _silent_at: float | None = None  # when the peer will have said nothing for too long
    _alarm: "asyncio.TimerHandle | None" = None
    _taken: bool = False  # what came before the connection broke
    _look: Callable[[], object] | None = None

    # aiohttp sets a timer for each request and each piece of an answer, and cancels it again. Here
    # one timer stays, and checks when it fires whether the deadline has moved on.

    def _reschedule_timeout(self) -> None:
        seconds = self._read_timeout
        if not seconds:
            self._drop_timeout()
            return
        self._silent_at = ends = self._loop.time() + seconds
        if self._alarm is None or self._alarm.when() > ends:
            self._set_alarm(ends)

    def _drop_timeout(self) -> None:
        self._silent_at = None
        if self.transport is None:
            self._set_alarm(None)

    def _set_alarm(self, at: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if at is None else self._loop.call_at(at, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        if self._silent_at is None:
            return
        if self._silent_at > self._loop.time():
            self._set_alarm(self._silent_at)
        else:
            self._on_read_timeout()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the connection; called by the event loop."""
        if exc is not None:
            self._take_last()
        super().connection_lost(exc)
        self._drop_timeout()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Note that sending or reading failed."""
        if isinstance(exc, OSError):
            self._take_last()
        super().set_exception(exc, *cause)

    def fail(self, error: Exception) -> None:
        """End the connection, and what waits for its answer, with an error.

        aiohttp's own `close` forgets the body that is being read, and its reader waits without end.
        """
        self.set_exception(error)
        if self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def _take_last(self) -> None:
        """Read the answer of a server that wanted no body and has closed.

        What is sent after that breaks the connection, and asyncio reads nothing more then, though
        the answer is here. Within TLS it cannot be had.
        """
        transport = self.transport
        if transport is None or self._taken or transport.get_extra_info("sslcontext"):
            return
        self._taken = True
        socket = transport.get_extra_info("socket")
        if os.name == "posix" and type(socket).__module__.startswith(("asyncio.", "uvloop.")):
            with suppress(OSError, ValueError):
                while data := os.read(socket.fileno(), 65_536):
                    self.data_received(data)

    def set_response_params(self, **params: Any) -> None:
        """Prepare for the answer to a request that is about to be sent."""
        super().set_response_params(**params)
        parser: Any = _MendingParser(self, self._parser, params)
        self._parser = parser

    def has_unread_bytes(self) -> bool:
        """Whether the system holds bytes of this connection that are unread.

        On an idle connection they are an answer to no request, or its end: either way it cannot
        be used again.
        """
        look = self._look
        try:
            if look is None:
                transport = self.transport
                socket = None if transport is None else transport.get_extra_info("socket")
                if socket is None:
                    return False
                look = self._look = _look_of(socket.fileno())
            return bool(look())
        except (OSError, ValueError):
            return True

    def fresh_parser(self, params: dict[str, Any]) -> Any:
        """Return a parser that has read nothing."""
        kept = self._parser
        super().set_response_params(**params)
        fresh, self._parser = self._parser, kept
        return fresh


def _look_of(number: int) -> Callable[[], object]:
    """Return what asks the system, without waiting, whether a socket can be read."""
    if sys.platform == "win32":  # has no poll
        return lambda: select.select([number], [], [], 0)[0]
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return partial(poll.poll, 0)


class _MendingParser:
    """Stands before aiohttp's parser until the head of an answer is here."""

    def __init__(self, protocol: Protocol, parser: Any, params: dict[str, Any]) -> None:
        self._protocol = protocol
        self._true = parser
        self._params = params
        self._seen: list[bytes] | None = []
        # aiohttp's parser in Python, for machines that have none in C, takes too much by itself.
        self._error: Exception | None = _LOOK_FIRST if _IN_PYTHON else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._true, name)

    def feed_data(self, data: bytes) -> Any:
        seen = self._seen
        if seen is None:  # the answer is here, its body is coming
            return self._true.feed_data(data)
        seen.append(data)
        if self._error is None:
            try:
                fed = self._true.feed_data(data)
            except Exception as error:  # noqa: BLE001 - whatever it refuses is looked at again
                self._error = error
            else:
                if fed[0]:
                    self._note(fed[0])
                return fed
        return self._mend(self._error)

    def _note(self, messages: Any) -> None:
        """Stop looking once the answer is here; interim answers (1xx) are none."""
        code = messages[-1][0].code
        _check_heads(messages)
        if code >= 200 or code == 101:
            self._seen = None
            if code == 101:  # what follows is another protocol, which was not asked for
                self._protocol.force_close()
        else:
            self._seen = [after_interim(b"".join(self._seen or ()))]

    def _mend(self, error: Exception) -> Any:
        data = b"".join(self._seen or ())
        better = mended(data, head_only=bool(self._params.get("skip_payload")))
        if better is None:
            if len(data) > _MAX_HEAD or not _BEGINNING.startswith(data[: len(_BEGINNING)]):
                raise error
            return (), False, b""
        if (better.data == data and error is not _LOOK_FIRST) or not better.sound:
            raise error
        if error is not _LOOK_FIRST:
            self._true = self._protocol.fresh_parser(self._params)
        self._seen = None
        if not better.clean:
            self._protocol.force_close()
        fed = self._true.feed_data(better.data)
        _check_heads(fed[0])
        return fed


def _check_heads(messages: Any) -> None:
    """Refuse what is not a status, and transfer codings whose bytes would pass as the body.

    RFC 9112, section 6.1: chunked comes last; identity, which is none, does no harm.
    """
    for message, _ in messages:
        if message.code < 100:
            raise BadHttpMessage(f"its status is {message.code:03}")
        if "Transfer-Encoding" not in message.headers:
            continue
        codings = ", ".join(message.headers.getall("Transfer-Encoding"))
        parts = [part.strip(" \t") for part in codings.lower().split(",")]
        if not _CODINGS.issuperset(parts) or ("chunked" in parts and parts[-1] != "chunked"):
            raise BadHttpMessage(f"its Transfer-Encoding {codings!r} is not known")
