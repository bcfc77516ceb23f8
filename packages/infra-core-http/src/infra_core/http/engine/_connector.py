"""Connections that are used again only while they are in step, and that end with their client."""

import asyncio
from functools import partial
from typing import Any

import aiohttp

from . import _private_names as private
from ._protocol import Protocol

__all__ = ["Connector"]


class Connector(aiohttp.TCPConnector):
    """Direct connections, and those to HTTP proxies.

    A connection whose last answer left something behind (bytes after it, a body not read, a
    request not sent to its end) is ended at once: asking for a clean end would mean to wait
    for the peer. An idle one is looked at again before it is used.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        private.use_protocol(self, partial(Protocol, loop=asyncio.get_running_loop()))

    async def _get(self, key: Any, traces: Any) -> Any:
        while True:
            connection = await super()._get(key, traces)
            if connection is None:
                return None
            protocol: Any = connection.protocol
            if not protocol.should_close and not protocol.has_unread_bytes():
                return connection
            connection.close()

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        transport = protocol.transport
        if transport is not None and (
            should_close or protocol.should_close or transport.get_write_buffer_size()
        ):
            transport.abort()
            should_close = True
        super()._release(key, protocol, should_close=should_close)

    def transports(self) -> list[asyncio.Transport]:
        """All connections that are open, idle and in use."""
        found = [protocol.transport for protocol in private.protocols_of(self)]
        return [transport for transport in found if transport is not None]
