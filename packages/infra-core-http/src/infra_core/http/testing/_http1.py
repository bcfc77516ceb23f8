"""What a well-behaved HTTP/1.1 origin answers: requests, resources, ranges, conditions (RFC 9110).

Pure functions and records; the sockets are in `_origin`, the misbehaviour is in `_faults`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import httpx

__all__ = [
    "BadRequest",
    "RecordedRequest",
    "Reply",
    "Resource",
    "answer",
    "complaint_about",
    "new_headers",
]

Ending = Literal["keep", "close", "reset", "stall"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)\s*$")


def new_headers() -> httpx.Headers:
    """Return no fields: look-ups ignore letter case, and values may be of Latin-1."""
    return httpx.Headers(encoding="latin-1")


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it reached the server.

    Attributes:
        method: In upper case, as sent.
        path: The request target: path and query.
        headers: Header fields; look-ups ignore letter case, lines of one name are joined.
        body: The whole body, de-chunked.
    """

    method: str
    path: str
    headers: httpx.Headers
    body: bytes = b""

    @property
    def raw_headers(self) -> tuple[tuple[str, str], ...]:
        """Every field in the order sent, as (name, value), repeated ones included."""
        return tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in self.headers.raw)

    @property
    def resource_path(self) -> str:
        """The path without its query."""
        return urlsplit(self.path).path


@dataclass(slots=True)
class Resource:
    """A file (or an endpoint) of the origin.

    Attributes:
        body: What a whole GET returns.
        content_type: The Content-Type header.
        etag: A quoted entity tag, weak with a leading `W/`; None sends none.
        last_modified: An HTTP date as text; None sends none.
        status: The status of a plain answer.
        headers: More headers of every answer.
        ranges: Whether ranges are served; when False, `Range` is ignored, as RFC 9110 allows.
        chunked: Whether the body goes out in chunks, without a Content-Length.
    """

    body: bytes = b""
    content_type: str = "application/octet-stream"
    etag: str | None = None
    last_modified: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    chunked: bool = False


@dataclass(slots=True)
class Reply:
    """An answer on its way out; faults change it before it is sent.

    Attributes:
        status: The status code.
        headers: Header fields, without the framing ones (length, transfer coding, connection).
        body: The bytes of the message body.
        length_delta: Added to the Content-Length that is announced.
        send: How many bytes of the body really go out; None for all.
        ending: What follows: keep-alive, an orderly close, a reset (RST), or silence.
        silent: When True not even a status line is sent before `ending`.
        bytes_per_second: The pace of the body; None for full speed.
        delay: Seconds to wait before the status line.
        chunked: Use chunked transfer coding in place of a Content-Length.
    """

    status: int
    headers: httpx.Headers = field(default_factory=new_headers)
    body: bytes = b""
    length_delta: int = 0
    send: int | None = None
    ending: Ending = "keep"
    silent: bool = False
    bytes_per_second: float | None = None
    delay: float = 0.0
    chunked: bool = False


class BadRequest(ValueError):  # noqa: N818 - what it is
    """A request that no server should have to read."""


def complaint_about(request: RecordedRequest) -> str | None:
    """Say what is wrong with a request that HTTP allows and no client means to send."""
    if request.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        return None
    coding = request.headers.get("Transfer-Encoding")
    if not request.body and coding is None:
        return None
    framing = f"Transfer-Encoding: {coding}" if coding else f"{len(request.body)} bytes"
    return f"{request.method} {request.path} came with a body ({framing})"


def answer(request: RecordedRequest, resource: Resource) -> Reply:
    """What a well-behaved server answers to this request: 200, 206, 304 or 416."""
    headers = new_headers()
    headers["Content-Type"] = resource.content_type
    for name, value in resource.headers.items():
        headers[name] = value
    if resource.etag is not None:
        headers["ETag"] = resource.etag
    if resource.last_modified is not None:
        headers["Last-Modified"] = resource.last_modified
    reply = Reply(resource.status, headers, resource.body, chunked=resource.chunked)
    if request.method not in {"GET", "HEAD"} or resource.status != 200:
        return reply
    if resource.ranges:
        headers["Accept-Ranges"] = "bytes"
    if _is_unchanged(request, resource):
        reply.status, reply.body, reply.chunked = 304, b"", False
        return reply
    asked = request.headers.get("Range")
    if asked is not None and resource.ranges and _if_range_holds(request, resource):
        _serve_range(reply, asked)
    return reply


def _is_unchanged(request: RecordedRequest, resource: Resource) -> bool:
    """RFC 9110 13.1.2 and 13.1.3: If-None-Match compares weakly and hides If-Modified-Since."""
    tags = request.headers.get("If-None-Match")
    if tags is not None:
        if tags.strip() == "*":
            return True
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return resource.etag is not None and resource.etag.removeprefix("W/") in known
    since = request.headers.get("If-Modified-Since")
    if since is None or resource.last_modified is None:
        return False
    try:
        return parsedate_to_datetime(resource.last_modified) <= parsedate_to_datetime(since)
    except (TypeError, ValueError):
        return False


def _if_range_holds(request: RecordedRequest, resource: Resource) -> bool:
    """RFC 9110 13.1.5: a strong tag that is the same, or exactly the same date."""
    condition = request.headers.get("If-Range")
    if condition is None:
        return True
    if condition.startswith("W/"):
        return False
    return condition in {resource.etag, resource.last_modified}


def _serve_range(reply: Reply, asked: str) -> None:
    """Turn a 200 into a 206 or a 416 for a single range; other forms are ignored (RFC 9110)."""
    match = _RANGE.match(asked)
    if match is None or match.group(0) == "bytes=-":
        return
    first, last = match.groups()
    size = len(reply.body)
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = max(size - int(last), 0), size
    if start >= size or stop <= start:
        reply.status, reply.body, reply.chunked = 416, b"", False
        reply.headers["Content-Range"] = f"bytes */{size}"
        return
    reply.status = 206
    reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    reply.body = reply.body[start:stop]
