"""Connections that end with their client: none says goodbye on a loop that is gone."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

import aiohttp

__all__ = ["Connector"]


class Connector(aiohttp.TCPConnector):
    """Knows of the TLS connections that aiohttp has closed and that are not closed yet.

    TLS ends with a message each way. A connection that is not kept (its body was left unread, the
    server asked to close it) waits for the peer's while nobody owns it any more: when the loop
    ends first, its socket is left to the garbage collector. The names that begin with an
    underscore are aiohttp's; should a release rename them, connections end as aiohttp ends them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._leaving: WeakSet[asyncio.Transport] = WeakSet()

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        transport = protocol.transport
        if key.is_ssl and transport is not None and (should_close or protocol.should_close):
            self._leaving.add(transport)
        super()._release(key, protocol, should_close=should_close)

    def transports(self) -> list[asyncio.Transport]:
        """All that are open: idle, in use and leaving."""
        kept: Mapping[object, deque[Any]] = getattr(self, "_conns", {})
        idle = [entry[0] for entries in kept.values() for entry in entries]
        protocols = [*idle, *getattr(self, "_acquired", ())]
        found = [protocol.transport for protocol in protocols if protocol.transport is not None]
        return [*found, *self._leaving]
