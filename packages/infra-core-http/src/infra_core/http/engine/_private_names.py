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
from aiohttp.client_proto import ResponseHandler

__all__ = ["NAMES", "mounts_of", "protocols_of", "send_once", "use_protocol"]

NAMES: tuple[tuple[type, str, str], ...] = (
    (aiohttp.BaseConnector, "_get", "look at a connection before it is used again"),
    (aiohttp.BaseConnector, "_release", "end a connection that is not in step"),
    (aiohttp.BaseConnector, "_conns", "idle connections, to end them with their client"),
    (aiohttp.BaseConnector, "_acquired", "connections in use, likewise"),
    (aiohttp.BaseConnector, "_factory", "the class of a connection's protocol"),
    (ResponseHandler, "_reschedule_timeout", "one timer for a connection, not two a request"),
    (ResponseHandler, "_drop_timeout", "likewise"),
    (ResponseHandler, "_on_read_timeout", "what to do when that fires"),
    (ResponseHandler, "_read_timeout", "its seconds"),
    (ResponseHandler, "_payload", "the body whose reader is to hear that the client was closed"),
    (httpx.AsyncClient, "_mounts", "transports that were set on a client"),
    (httpx.AsyncClient, "_build_redirect_request", "where a redirect leads, by our rules"),
    (aiohttp.ClientSession, "_retry_connection", "no second request behind the retry policy"),
)
"""Class, name, purpose. Attributes of instances are looked up on one made for the test."""


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
