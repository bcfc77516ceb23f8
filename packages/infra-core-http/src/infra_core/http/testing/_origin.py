"""The server itself: sockets, keep-alive and the scripted faults of every path."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import httpx

from ._faults import Exchange, Fault
from ._http1 import (
    BadRequest,
    RecordedRequest,
    Reply,
    Resource,
    answer,
    complaint_about,
)

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

__all__ = ["FaultyOrigin"]

_MAX_HEAD = 1 << 20
_PIECE = 256 * 1024
_TICK = 0.05  # seconds between two pieces of a dripping body


@dataclass(slots=True)
class _Route:
    resource: Resource
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise ValueError(f"path is {path!r}, but must begin with a slash: write {'/' + path!r}")


class FaultyOrigin:
    """A misbehaving web server on a free loopback port, in its own thread and event loop.

    Use it as a context manager; on exit every connection is cut and the thread has ended. All
    methods may be called from any thread, also while requests are under way.

    Args:
        host: The address to listen on.
        ssl_context: Serve https with this context.
        strict: Fail at the end of the block (`AssertionError`) when a client sent what h11 does
            not read, or a GET, HEAD, DELETE or OPTIONS with a body.

    Example:
        >>> from infra_core.http.testing import FaultyOrigin, status
        >>> with FaultyOrigin() as origin:
        ...     origin.add("/a", b"abc", faults=[status(503)])
        ...     origin.count("/a")
        0
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        ssl_context: ssl.SSLContext | None = None,
        strict: bool = True,
    ) -> None:
        self._strict = strict
        self._complaints: list[str] = []
        self._host = host
        self._ssl = ssl_context
        # a fault may add and ask for files while it changes an answer
        self._lock = threading.RLock()
        self._routes: dict[str, _Route] = {}
        self._requests: list[RecordedRequest] = []
        self._in_flight = 0
        self._peak_in_flight = 0
        self._connections = 0
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    # -- what a test calls ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start to listen; the port is open when this returns."""
        listener = socket.create_server((self._host, 0), backlog=1024)
        self._port = listener.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run,
            args=(listener, ready),
            name="faulty-origin",
            daemon=True,
        )
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        """Cut every connection and wait until the thread has ended."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self._strict and self._complaints and exc_type is None:
            raise AssertionError(
                "a client sent what no server should get: " + "; ".join(self._complaints[:3])
            )

    def add(
        self,
        path: str,
        body: bytes = b"",
        *,
        content_type: str = "application/octet-stream",
        etag: str | None = None,
        last_modified: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        ranges: bool = True,
        chunked: bool = False,
        faults: Iterable[Fault] = (),
        always: Fault | None = None,
    ) -> None:
        """Serve `body` at `path`, replacing what was there.

        Any method is answered; GET and HEAD know ranges and conditions. A path that carries a
        query is matched first with its query, then without.

        Args:
            path: Begins with a slash.
            body: The file.
            content_type: Its media type.
            etag: A quoted tag such as `'"v1"'` or `'W/"v1"'`.
            last_modified: An HTTP date.
            status: The status of a right answer, e.g. 202 for a POST endpoint.
            headers: More headers of every answer.
            ranges: Whether `Range` is honoured.
            chunked: Whether the body goes out without a Content-Length.
            faults: Used up one per request, in order.
            always: Committed on every request that no scripted fault is left for.

        Raises:
            ValueError: The path does not begin with a slash.
        """
        _check_path(path)
        extra = dict(headers or {})
        resource = Resource(body, content_type, etag, last_modified, status, extra, ranges, chunked)
        with self._lock:
            self._routes[path] = _Route(resource, deque(faults), always)

    def script(self, path: str, *faults: Fault) -> None:
        """Append faults to the script of a path that was added before."""
        with self._lock:
            if path not in self._routes:
                raise KeyError(f"there is nothing at {path!r}: call add() with that path first")
            self._routes[path].faults.extend(faults)

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a slash at the end."""
        return f"{'https' if self._ssl else 'http'}://{self._host}:{self._port}"

    def url(self, path: str = "/") -> str:
        """The absolute URL of a path, which begins with a slash."""
        _check_path(path)
        return self.base_url + path

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests that reached the server, in order, those answered by a fault included."""
        with self._lock:
            return list(self._requests)

    def count(self, path: str, method: str | None = None) -> int:
        """How many requests reached a path (with or without query), of one method or of all."""
        return sum(
            path in {request.path, request.resource_path}
            and (method is None or request.method == method)
            for request in self.requests
        )

    @property
    def peak_in_flight(self) -> int:
        """The largest number of requests that were being answered at one moment."""
        return self._peak_in_flight

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted."""
        return self._connections

    # -- the server ------------------------------------------------------------------------------

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        loop = asyncio.SelectorEventLoop()  # `_serve` needs its remove_reader, on Windows as well
        try:
            loop.run_until_complete(self._serve(listener, ready))
        finally:
            loop.close()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections += 1
            task = asyncio.ensure_future(self._converse(reader, writer))
            talks[task] = writer
            task.add_done_callback(talks.pop)

        server = await asyncio.start_server(connected, sock=listener, ssl=self._ssl)
        ready.set()
        await self._stop.wait()
        # A server that is closed loses the sockets that asyncio has accepted and not set up yet:
        # stop to accept, let asyncio finish (no longer than a TLS handshake takes), then close.
        self._loop.remove_reader(listener.fileno())
        accepting = asyncio.all_tasks() - {asyncio.current_task(), *talks}
        if accepting:
            _, late = await asyncio.wait(accepting, timeout=0.1 if self._ssl else None)
            for handshake in late:
                handshake.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        server.close()
        left = dict(talks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for writer in left.values():
            writer.transport.abort()  # a task that never ran has closed nothing
        for _ in range(3):
            await asyncio.sleep(0)  # transports close their sockets in the next turn of the loop

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until either side ends it."""
        if not self._ssl:  # whose transport never resumes from a limit of zero
            writer.transport.set_write_buffer_limits(high=0)  # drain() means handed to the kernel
        ahead = b""
        try:
            while True:
                read = await _read_request(reader, writer, ahead)
                if read is None:
                    return
                request, ahead = read
                complaint = complaint_about(request)
                if complaint is not None:
                    self._complaints.append(complaint)
                reply = self._plan(request)
                self._in_flight += 1
                self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
                try:
                    keep = await _send(request, reply, reader, writer)
                finally:
                    self._in_flight -= 1
                if not keep:
                    return
        except BadRequest as error:
            self._complaints.append(str(error))
        except OSError:
            return  # the client went away or spoke no HTTP: nothing to report
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.wait_for(writer.wait_closed(), 1)
            writer.transport.abort()

    def _plan(self, request: RecordedRequest) -> Reply:
        with self._lock:
            self._requests.append(request)
            route = self._routes.get(request.path) or self._routes.get(request.resource_path)
            if route is None:
                return answer(request, Resource(b"not here\n", "text/plain", status=404))
            reply = answer(request, route.resource)
            fault = route.faults.popleft() if route.faults else route.always
            if fault is not None:
                fault.change(Exchange(request, route.resource, reply))
            return reply


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
) -> tuple[RecordedRequest, bytes] | None:
    """Read one request as strictly as h11 does; None at the end of the connection.

    Returns:
        The request, and what came after it.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
    asked: h11.Request | None = None
    body = b""
    while True:
        try:
            if data:
                connection.receive_data(data)
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(f"{data[:200]!r}: {error}") from error
        if isinstance(event, h11.Request):
            asked = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and asked is not None:
            break
        if event is not h11.NEED_DATA:
            data = b""
            continue
        if connection.they_are_waiting_for_100_continue:
            go = h11.InformationalResponse(status_code=100, headers=[])
            writer.write(connection.send(go) or b"")
        data = await reader.read(_PIECE)
        if not data:  # the client went away
            if asked is None and connection.trailing_data[0]:
                raise BadRequest(f"{connection.trailing_data[0][:200]!r} is not a whole request")
            return None
    headers = httpx.Headers(asked.headers.raw_items(), encoding="latin-1")
    method, target = asked.method.decode("ascii"), asked.target.decode("latin-1")
    request = RecordedRequest(method, target, headers, body)
    return request, connection.trailing_data[0]


async def _send(
    request: RecordedRequest,
    reply: Reply,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """Send one reply; True when the connection may carry another request."""
    # Real sleeping, not the project's clock: a test that speeds up the clients' time must not
    # change how the network behaves.
    if reply.delay:
        await asyncio.sleep(reply.delay)
    if not reply.silent:
        writer.write(_head(request, reply))
        await writer.drain()
        if request.method != "HEAD" and reply.status not in {204, 304}:
            await _send_body(reply, writer)
    if reply.ending == "stall":
        await reader.read()  # until the client gives up
        return False
    if reply.ending == "reset":
        await _reset(writer)
        return False
    asked_to_close = (request.headers.get("Connection") or "").lower() == "close"
    return reply.ending == "keep" and not asked_to_close


def _head(request: RecordedRequest, reply: Reply) -> bytes:
    try:
        reason = HTTPStatus(reply.status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [b"HTTP/1.1 %d %s" % (reply.status, reason.encode())]
    lines += [b"%s: %s" % field for field in reply.headers.raw]
    if reply.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif reply.status not in {204, 304}:
        lines.append(b"Content-Length: %d" % (len(reply.body) + reply.length_delta))
    if (request.headers.get("Connection") or "").lower() == "close":
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""])


async def _send_body(reply: Reply, writer: asyncio.StreamWriter) -> None:
    whole = memoryview(reply.body)
    body = whole if reply.send is None else whole[: reply.send]
    piece, pause = _PIECE, 0.0
    if reply.bytes_per_second is not None:
        piece = max(1, int(reply.bytes_per_second * _TICK))
        pause = piece / reply.bytes_per_second
    for start in range(0, len(body), piece):
        part = body[start : start + piece]
        if reply.chunked:
            writer.write(b"%x\r\n%b\r\n" % (len(part), bytes(part)))
        else:
            writer.write(part)
        await writer.drain()
        if pause:
            await asyncio.sleep(pause)
    if reply.chunked and reply.send is None:
        writer.write(b"0\r\n\r\n")


async def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST, after what was written has reached the other side's kernel."""
    sock = writer.get_extra_info("socket")
    if sys.platform != "win32":
        import array
        import fcntl
        import termios

        unsent = array.array("i", [0])  # bytes in the kernel's queue, where the system says it
        for _ in range(200):
            with contextlib.suppress(OSError):
                fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, unsent)
            if unsent[0] == 0:
                break
            await asyncio.sleep(0.001)
    # A linger time of zero turns close() into RST (socket(7)).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
