"""A deadline for blocking requests: at its end the socket is shut, so no read can outlive it.

The timeouts of requests bound each wait for the next byte, and a server that drips bytes never
meets them. Here a timer shuts the socket that the calling thread waits on.
"""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any

__all__ = ["Watch", "shut", "waiting_on"]

_local = threading.local()


class Watch:
    """Shuts the socket that this thread reads from when the time is up.

    Args:
        seconds: From the beginning of the block; None for never.

    Attributes:
        expired: Whether the deadline has passed.
    """

    def __init__(self, seconds: float | None) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        if seconds is not None and seconds < threading.TIMEOUT_MAX:
            self._timer = threading.Timer(max(seconds, 0.0), self._on_deadline)

    def __enter__(self) -> "Watch":
        if self._timer is not None:
            _local.watch = self
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            _local.watch = None
            self._timer.cancel()
            with self._lock:
                self._socket = None

    def follow(self, connection: Any) -> None:
        """From now on this connection is the one that is waited on."""
        with self._lock:
            self._socket = connection.sock
            if self.expired:
                self._shut()

    def _on_deadline(self) -> None:
        with self._lock:
            self.expired = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            shut(self._socket)


def shut(sock: Any) -> None:
    """End a connection that another thread reads from."""
    with contextlib.suppress(OSError):
        if isinstance(sock, socket.socket):
            # Of the plain socket: the TLS layer's own would wait for the reader.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        else:
            sock.shutdown(socket.SHUT_RDWR)


def waiting_on(connection: Any) -> None:
    """Give the watch of this thread, if there is one, the connection that it waits on."""
    watch: Watch | None = getattr(_local, "watch", None)
    if watch is not None:
        watch.follow(connection)
