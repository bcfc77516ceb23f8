"""The faults that a `FaultyOrigin` can be made to commit, one small change of a reply each."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

from ._http1 import RecordedRequest, Reply, Resource, answer

__all__ = [
    "Exchange",
    "Fault",
    "Reply",
    "change_etag",
    "chunked",
    "chunked_early_end",
    "corrupt",
    "delay",
    "gzip_encoded",
    "hang_up",
    "ignore_range",
    "lie_length",
    "oversized_headers",
    "redirect",
    "redirect_loop",
    "refuse_range",
    "reset_after",
    "slow",
    "stall",
    "status",
    "truncate",
    "wrong_range",
]


@dataclass(slots=True)
class Exchange:
    """What a fault may look at and change: the request, the resource and the reply."""

    request: RecordedRequest
    resource: Resource
    reply: Reply


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour. Write your own with `Fault("name", change)`; join two with `&`.

    Attributes:
        name: For test ids and messages.
        change: Called in the origin's thread with the right answer prepared; changes it in place.
    """

    name: str
    change: Callable[[Exchange], None]

    def __and__(self, other: Fault) -> Fault:
        """Both faults in one request, this one first."""

        def both(exchange: Exchange) -> None:
            self.change(exchange)
            other.change(exchange)

        return Fault(f"{self.name} & {other.name}", both)

    def __repr__(self) -> str:
        return f"<fault {self.name}>"


def _set(name: str, **fields: object) -> Fault:
    """The fault of a reply with these fields."""

    def change(exchange: Exchange) -> None:
        for field, value in fields.items():
            setattr(exchange.reply, field, value)

    return Fault(name, change)


def status(
    code: int,
    *,
    retry_after: str | float | datetime | timedelta | None = None,
    retry_after_ms: int | None = None,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """Answer with another status.

    Args:
        code: The status code.
        retry_after: The Retry-After header: text and numbers as they are (seconds); a datetime as
            an HTTP date; a timedelta as the HTTP date that far from now.
        retry_after_ms: A `retry-after-ms` header, as Azure services send it.
        body: The body of the answer.
        headers: More headers.
    """

    def change(exchange: Exchange) -> None:
        reply = exchange.reply
        reply.status, reply.body, reply.chunked = code, body, False
        for name in ("ETag", "Last-Modified", "Content-Range", "Accept-Ranges"):
            reply.headers.pop(name, None)
        if retry_after is not None:
            reply.headers["Retry-After"] = _retry_after_text(retry_after)
        if retry_after_ms is not None:
            reply.headers["retry-after-ms"] = str(retry_after_ms)
        for name, value in (headers or {}).items():
            reply.headers[name] = value

    return Fault(f"status {code}", change)


def _retry_after_text(value: str | float | datetime | timedelta) -> str:
    if isinstance(value, timedelta):
        value = datetime.now(timezone.utc) + value
    if isinstance(value, datetime):
        return format_datetime(value.astimezone(timezone.utc), usegmt=True)
    return str(value)


def redirect(location: str, code: int = 302) -> Fault:
    """Send the client elsewhere; an absolute location on another `FaultyOrigin` crosses origins."""
    fault = status(code, headers={"Location": location})
    return Fault(f"redirect {code}", fault.change)


def redirect_loop(code: int = 302) -> Fault:
    """Redirect to the very same place; use it as `always=`."""
    return Fault("redirect loop", lambda it: redirect(it.request.path, code).change(it))


def hang_up() -> Fault:
    """Read the request, then reset the connection without a word."""
    return _set("hang up", silent=True, ending="reset")


def reset_after(n: int) -> Fault:
    """Send the headers and n bytes of the body, then reset the connection (TCP RST)."""
    return _set(f"reset after {n}", send=n, ending="reset")


def truncate(n: int) -> Fault:
    """Send the headers and n bytes of the body, then close the connection in good order."""
    return _set(f"truncate at {n}", send=n, ending="close")


def stall(after: int | None = 0) -> Fault:
    """Send `after` bytes of the body, then nothing while the connection stays open.

    Args:
        after: Bytes of the body; None holds back even the status line.
    """
    if after is None:
        return _set("stall", silent=True, ending="stall")
    return _set(f"stall after {after}", send=after, ending="stall")


def slow(bytes_per_second: float) -> Fault:
    """Drip the body out at this pace."""
    return _set(f"slow {bytes_per_second:g} B/s", bytes_per_second=bytes_per_second)


def delay(seconds: float) -> Fault:
    """Wait before the status line."""
    return _set(f"delay {seconds:g} s", delay=seconds)


def lie_length(delta: int) -> Fault:
    """Announce a Content-Length that is off by delta bytes, send the real body, close.

    With a negative delta no client can see that bytes are missing, except by a checksum.
    """
    return _set(f"lie about length by {delta}", length_delta=delta, ending="close")


def chunked() -> Fault:
    """Send the body in chunks, with no Content-Length (legal, but there is no size to check)."""
    return _set("chunked", chunked=True)


def chunked_early_end(n: int) -> Fault:
    """Send n bytes in chunks, then close without the end mark."""
    return _set(f"chunked, ends at {n}", chunked=True, send=n, ending="close")


def gzip_encoded() -> Fault:
    """Compress the body though the client asked for identity; the length is that of the gzip."""

    def change(exchange: Exchange) -> None:
        reply = exchange.reply
        reply.body = gzip.compress(reply.body, mtime=0)
        reply.headers["Content-Encoding"] = "gzip"

    return Fault("gzip", change)


def corrupt(at: int | None = None) -> Fault:
    """Change one byte of the body (the middle one, or the one at `at`) and keep the length."""

    def change(exchange: Exchange) -> None:
        body = bytearray(exchange.reply.body)
        if body:
            where = len(body) // 2 if at is None else at % len(body)
            body[where] ^= 0xFF
            exchange.reply.body = bytes(body)

    return Fault("corrupt", change)


def change_etag(etag: str | None, *, body: bytes | None = None) -> Fault:
    """Replace the file: from this request on it has another ETag and, when given, another body."""

    def change(exchange: Exchange) -> None:
        exchange.resource.etag = etag
        if body is not None:
            exchange.resource.body = body
        fresh = answer(exchange.request, exchange.resource)
        exchange.reply.status, exchange.reply.headers = fresh.status, fresh.headers
        exchange.reply.body = fresh.body

    return Fault(f"etag becomes {etag}", change)


def wrong_range(shift: int = -1) -> Fault:
    """Answer a range request with 206 and bytes from another offset, and name that offset.

    Args:
        shift: Added to the first byte position; kept inside the file. No effect without a Range.
    """

    def change(exchange: Exchange) -> None:
        reply, whole = exchange.reply, exchange.resource.body
        match = re.match(r"bytes (\d+)-(\d+)/", reply.headers.get("Content-Range") or "")
        if match is None:
            return
        start = min(max(int(match.group(1)) + shift, 0), len(whole) - 1)
        stop = max(int(match.group(2)) + 1, start + 1)
        reply.body = whole[start:stop]
        reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(whole)}"

    return Fault(f"range off by {shift}", change)


def ignore_range() -> Fault:
    """Answer a range request with 200 and the whole file."""

    def change(exchange: Exchange) -> None:
        reply = exchange.reply
        if reply.status in {206, 416}:
            reply.status, reply.body = exchange.resource.status, exchange.resource.body
            reply.headers.pop("content-range", None)

    return Fault("range ignored", change)


def refuse_range() -> Fault:
    """Answer a range request with 416 (RFC 9110 15.5.17)."""

    def change(exchange: Exchange) -> None:
        reply = exchange.reply
        if "Range" in exchange.request.headers:
            reply.status, reply.body, reply.chunked = 416, b"", False
            reply.headers["Content-Range"] = f"bytes */{len(exchange.resource.body)}"

    return Fault("range refused", change)


def oversized_headers(size: int = 1_000_000) -> Fault:
    """Send a header field of this many bytes; clients are expected to refuse it."""
    padding = {"X-Padding": "x" * size}
    return Fault("oversized headers", lambda it: it.reply.headers.update(padding))
