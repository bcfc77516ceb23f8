"""The adapter of requests below our own sessions: answers read by us, waits that can be cut."""

from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ._sync_watch import waiting_on
from ._sync_wire import Answer

__all__ = ["Adapter", "read_answers"]


def _read_answer(connection: Any, getresponse: Any) -> Any:
    waiting_on(connection)
    # Only here: what a proxy says to CONNECT is read by http.client with a class of its own.
    connection.response_class = Answer
    try:
        return getresponse()
    finally:
        del connection.response_class


class _Connection(HTTPConnection):
    def getresponse(self) -> Any:
        return _read_answer(self, super().getresponse)


class _TlsConnection(HTTPSConnection):
    def getresponse(self) -> Any:
        return _read_answer(self, super().getresponse)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_THEIRS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
_OURS = {"http": _Pool, "https": _TlsPool}


def read_answers(adapter: Any) -> None:
    """Let an adapter's connections read answers as ours do, unless they are of a kind of its own.

    Args:
        adapter: Any that a session has mounted.
    """
    manager: Any = getattr(adapter, "poolmanager", None)
    if getattr(manager, "pool_classes_by_scheme", None) == _THEIRS:
        manager.pool_classes_by_scheme = dict(_OURS)


class Adapter(HTTPAdapter):
    """The adapter of requests with our connections, to proxies too; SOCKS has its own."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, as requests does, of our connections."""
        super().init_poolmanager(*args, **kwargs)
        read_answers(self)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pools to a proxy likewise."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if manager.pool_classes_by_scheme == _THEIRS:
            manager.pool_classes_by_scheme = dict(_OURS)
        return manager
