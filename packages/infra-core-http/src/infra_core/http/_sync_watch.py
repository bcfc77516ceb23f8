"""A deadline for blocking requests: at its end the socket is shut, so no read can outlive it.

The timeouts of requests bound each wait for the next byte, and a server that drips bytes never
meets them. Here a timer shuts the socket that the calling thread waits on.
"""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

__all__ = ["Watch", "WatchedAdapter"]

_local = threading.local()


class Watch:
    """Shuts the socket that this thread reads from when the time is up.

    Args:
        seconds: From the beginning of the block; None for never.

    Attributes:
        expired: Whether it struck.
    """

    def __init__(self, seconds: float | None) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        if seconds is not None and seconds < threading.TIMEOUT_MAX:
            self._timer = threading.Timer(max(seconds, 0.0), self._strike)

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

    def _strike(self) -> None:
        with self._lock:
            self.expired = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            # Of the plain socket: the TLS layer's own would wait for the reader.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _waiting_on(connection: Any) -> None:
    watch: Watch | None = getattr(_local, "watch", None)
    if watch is not None:
        watch.follow(connection)


class WatchedHTTPConnection(HTTPConnection):
    def getresponse(self) -> Any:
        _waiting_on(self)
        return super().getresponse()


class WatchedHTTPSConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        _waiting_on(self)
        return super().getresponse()


class WatchedHTTPConnectionPool(HTTPConnectionPool):
    ConnectionCls = WatchedHTTPConnection


class WatchedHTTPSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = WatchedHTTPSConnection


_POOLS = {"http": WatchedHTTPConnectionPool, "https": WatchedHTTPSConnectionPool}


class WatchedAdapter(HTTPAdapter):
    """The adapter of requests whose connections tell the thread's watch that they are waited on."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, as requests does, of connections that can be watched."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = dict(_POOLS)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pools to a proxy likewise."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if set(manager.pool_classes_by_scheme) == set(_POOLS) and not _is_socks(manager):
            manager.pool_classes_by_scheme = dict(_POOLS)
        return manager


def _is_socks(manager: Any) -> bool:
    return "socks" in type(manager).__name__.lower()
