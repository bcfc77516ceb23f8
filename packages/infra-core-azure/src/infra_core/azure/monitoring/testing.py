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
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra_core.http.testing import Exchange, Fault, FaultyOrigin

if TYPE_CHECKING:
    from typing_extensions import Self

    from infra_core.http.testing import RecordedRequest

__all__ = ["IngestionServer", "ReceivedBatch", "Reply", "reply"]

_MAX_ITEM = 64 * 1024
_TYPES = frozenset({"EventData", "ExceptionData", "MessageData", "MetricData"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer to one batch.

    Attributes:
        status: HTTP status; 0 resets the connection without an answer.
        item_statuses: Status of single items, by index, for 206 and 400; the others are accepted.
        retry_after: The header of that name.
        location: The header of that name.
        accept: Take the items although the answer says otherwise: an answer that got lost.
        hold: Wait for this event, at most a minute, before answering.
    """

    status: int
    item_statuses: Mapping[int, int] = field(default_factory=dict)
    _: KW_ONLY
    retry_after: str | None = None
    location: str | None = None
    accept: bool = False
    hold: threading.Event | None = None


reply = Reply


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
        self._origin = FaultyOrigin()
        self._serve("/v2.1/track")

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return self._origin.base_url

    @property
    def connection_string(self) -> str:
        """A connection string that leads here."""
        key = "00000000-0000-4000-8000-000000000000"
        return f"InstrumentationKey={key};IngestionEndpoint={self.url}/"

    def plan(self, *replies: Reply) -> None:
        """Answer the next requests with these, one each."""
        with self._changed:
            self._plan.extend(replies)
        for location in (urlsplit(reply.location or "") for reply in replies):
            if location.path.endswith("/track"):
                self._serve(location.path)

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
        self._origin.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._origin.__exit__(None, None, None)

    def _serve(self, path: str) -> None:
        ingest = Fault("ingestion", self._receive)
        self._origin.add(path, content_type="application/json; charset=utf-8", always=ingest)

    def _receive(self, exchange: Exchange) -> None:
        """Book a batch and answer it."""
        request, reply = exchange.request, exchange.reply
        items, problem = [], ""
        try:
            items = _parse(request)
        except (ValueError, OSError, EOFError, KeyError, TypeError) as error:
            problem = repr(error)
        batch = ReceivedBatch(
            request.path, dict(request.headers), items, len(request.body), problem
        )
        with self._changed:
            self.batches.append(batch)
            answer = self._plan.popleft() if self._plan else Reply(200)
            self._changed.notify_all()
        if answer.hold is not None:
            answer.hold.wait(60)
        if problem:
            answer = Reply(400)
        refused = {n: code for n, code in answer.item_statuses.items() if n < len(items)}
        taken = [item for index, item in enumerate(items) if index not in refused]
        if accepts := answer.accept or 200 <= answer.status < 300:
            with self._changed:
                self.items.extend(taken)
                self._changed.notify_all()
        reply.status, reply.body = answer.status, _body(items, refused, len(taken) * accepts)
        if answer.retry_after is not None:
            reply.headers["Retry-After"] = answer.retry_after
        if answer.location is not None:
            reply.headers["Location"] = answer.location
        if answer.status == 0:
            reply.silent, reply.ending = True, "reset"


def _parse(request: "RecordedRequest") -> list[dict[str, Any]]:
    gzipped = request.headers.get("content-encoding") == "gzip"
    items = json.loads(gzip.decompress(request.body) if gzipped else request.body)
    if not isinstance(items, list):
        raise ValueError("the body is not an array")
    for item in items:
        if len(json.dumps(item, ensure_ascii=False).encode("utf-8", "replace")) > _MAX_ITEM + 1024:
            raise ValueError("an item is larger than 64 KB")
        _ = item["name"], item["time"], item["iKey"], item["data"]["baseData"]
        if item["data"]["baseType"] not in _TYPES:
            raise ValueError(f"unknown base type {item['data']['baseType']!r}")
    return items


def _body(items: list[dict[str, Any]], refused: Mapping[int, int], accepted: int) -> bytes:
    errors = [
        {"index": index, "statusCode": status, "message": f"refused with {status}"}
        for index, status in refused.items()
    ]
    answer = {"itemsReceived": len(items), "itemsAccepted": accepted, "errors": errors}
    return json.dumps(answer).encode()
