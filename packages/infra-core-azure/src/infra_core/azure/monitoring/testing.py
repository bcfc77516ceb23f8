"""A local server that speaks the ingestion protocol of Application Insights, faults included.

Example:
    ::

        with IngestionServer() as server:
            server.plan(reply(503), reply(206, {0: 500}))
            client = TelemetryClient(config=TelemetryConfig(server.connection_string))
            client.track_event("started")
            assert client.flush(10)
            assert [item["data"]["baseData"]["name"] for item in server.items] == ["started"]
"""

import gzip
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["IngestionServer", "ReceivedBatch", "Reply", "reply"]

_MAX_ITEM = 64 * 1024
_TYPES = frozenset({"EventData", "ExceptionData", "MessageData", "MetricData"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer to one batch; see `reply`.

    Attributes:
        status: HTTP status; 0 resets the connection.
        item_statuses: Status of single items, by index; the others are accepted.
        headers: Headers of the answer.
        accept: Whether the items count as accepted in spite of the status.
        hold: Wait for this before answering.
    """

    status: int
    item_statuses: Mapping[int, int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    accept: bool = False
    hold: threading.Event | None = None


def reply(
    status: int,
    item_statuses: Mapping[int, int] | None = None,
    *,
    retry_after: str | None = None,
    location: str | None = None,
    accept: bool = False,
    hold: threading.Event | None = None,
) -> Reply:
    """Make a `Reply`.

    Args:
        status: HTTP status; 0 resets the connection without an answer.
        item_statuses: Status of single items, by index, for 206 and 400.
        retry_after: The header of that name.
        location: The header of that name.
        accept: Take the items although the answer says otherwise: an answer that got lost.
        hold: Wait for this event, at most a minute, before answering.
    """
    headers = {"Retry-After": retry_after, "Location": location}
    return Reply(
        status,
        item_statuses or {},
        {name: value for name, value in headers.items() if value is not None},
        accept,
        hold,
    )


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """One request as it came.

    Attributes:
        path: Its path.
        headers: Its headers, names in lower case.
        items: Its envelopes; empty when it was malformed.
        size: Bytes of its body on the wire.
        error: Why it was malformed.
    """

    path: str
    headers: Mapping[str, str]
    items: list[dict[str, Any]]
    size: int
    error: str = ""


class IngestionServer:
    """The server, on a free loopback port, for the length of a `with` block.

    Without a plan it accepts everything that is well-formed: a gzipped or plain JSON array of
    envelopes at `/v2.1/track`, each at most 64 KB.

    Attributes:
        items: Envelopes accepted so far, in order.
        batches: Requests so far, in order, refused ones too.
    """

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.batches: list[ReceivedBatch] = []
        self._plan: deque[Reply] = deque()
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="ingestion-server",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def connection_string(self) -> str:
        """A connection string that leads here."""
        key = "00000000-0000-4000-8000-000000000000"
        return f"InstrumentationKey={key};IngestionEndpoint={self.url}/"

    def plan(self, *replies: Reply) -> None:
        """Answer the next requests with these, one each."""
        with self._changed:
            self._plan.extend(replies)

    def wait_for_items(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until that many items were accepted."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.items) >= count, timeout)

    def wait_for_batches(self, count: int, timeout: float = 10.0) -> bool:
        """Wait until that many requests came."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.batches) >= count, timeout)

    def names(self) -> list[str]:
        """Return the names of the accepted events."""
        return [item["data"]["baseData"].get("name", "") for item in list(self.items)]

    def __enter__(self) -> "Self":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _receive(self, batch: ReceivedBatch) -> tuple[Reply, bytes]:
        """Book a batch and return the answer to it, with its body."""
        with self._changed:
            self.batches.append(batch)
            answer = self._plan.popleft() if self._plan else Reply(200)
            self._changed.notify_all()
        if answer.hold is not None:
            answer.hold.wait(60)
        count = len(batch.items)
        if batch.error:
            return Reply(400), _body(0, {})
        refused = {index: status for index, status in answer.item_statuses.items() if index < count}
        accepts = answer.accept or 200 <= answer.status < 300
        taken = [item for index, item in enumerate(batch.items) if index not in refused]
        with self._changed:
            if accepts:
                self.items.extend(taken)
            self._changed.notify_all()
        return answer, _body(count, refused, none_accepted=not accepts)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    owner: IngestionServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that vanish are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self) -> None:
        """Take a batch."""
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            items = _parse(raw, headers, self.path)
            batch = ReceivedBatch(self.path, headers, items, len(raw))
        except (ValueError, OSError, EOFError, KeyError, TypeError) as error:
            batch = ReceivedBatch(self.path, headers, [], len(raw), error=repr(error))
        answer, body = self.server.owner._receive(batch)
        if answer.status == 0:
            # Linger of zero: the close is a reset, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


def _parse(raw: bytes, headers: Mapping[str, str], path: str) -> list[dict[str, Any]]:
    if not path.endswith("/track"):
        raise ValueError(f"no such path: {path}")
    text = gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw
    items = json.loads(text)
    if not isinstance(items, list):
        raise ValueError("the body is no array")
    for item in items:
        if len(json.dumps(item, ensure_ascii=False).encode("utf-8", "replace")) > _MAX_ITEM + 1024:
            raise ValueError("an item is larger than 64 KB")
        _ = item["name"], item["time"], item["iKey"], item["data"]["baseData"]
        if item["data"]["baseType"] not in _TYPES:
            raise ValueError(f"unknown base type {item['data']['baseType']!r}")
    return items


def _body(count: int, refused: Mapping[int, int], *, none_accepted: bool = False) -> bytes:
    accepted = 0 if none_accepted else count - len(refused)
    errors = [
        {"index": index, "statusCode": status, "message": f"refused with {status}"}
        for index, status in refused.items()
    ]
    return json.dumps(
        {"itemsReceived": count, "itemsAccepted": accepted, "errors": errors}
    ).encode()
