"""Every private name of aiohttp and httpx that this package uses, and why no public one does.

A test looks each of them up (`test_private_names.py`), so that a release which renames one is
noticed before it is installed by users. The methods `_get` and `_release` of connectors are
overridden in `connections`: aiohttp has no hook for "this connection is about to be used again"
and "this connection is given back". Those of `ResponseHandler` are overridden in `_protocol`: its
timer cannot be replaced otherwise.
"""

from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx

__all__ = ["mounts_of", "protocols_of", "send_once", "use_protocol"]


def use_protocol(connector: aiohttp.BaseConnector, factory: Callable[[], Any]) -> None:
    """Let a connector make its connections with a protocol of ours.

    aiohttp takes no such argument.
    """
    connector._factory = factory  # type: ignore[assignment]


def protocols_of(connector: aiohttp.BaseConnector) -> Iterator[Any]:
    """Yield the protocols of all connections that are open, idle and in use.

    Closing a connector sends close_notify to TLS peers and does not wait for them, so that sockets
    are left to the garbage collector where the loop ends first.
    """
    for entries in connector._conns.values():
        for entry in entries:
            yield entry[0]
    yield from connector._acquired


def send_once(session: aiohttp.ClientSession) -> None:
    """Keep a session from sending GET, PUT and the like again when a connection breaks.

    aiohttp does so by itself: a second request that no retry policy knows of.
    """
    session._retry_connection = False


def mounts_of(client: httpx.AsyncClient) -> Any:
    """Return the transports mounted on a client; httpx takes them and shows them nowhere."""
    return client._mounts
