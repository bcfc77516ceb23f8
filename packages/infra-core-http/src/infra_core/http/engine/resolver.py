"""Look-ups of host names: in threads of their own, each name asked once at a time.

The system's resolver blocks, for half a minute and more where a name server does not answer. In
the event loop's default executor a dozen such names would hold up every other look-up and all
work on files, and the end of the process. Here a caller waits no longer than it wants to: one
that gives up leaves the thread behind, and a hung look-up does not keep the process from ending.
"""

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

import aiohttp  # noqa: F401 - before its parts: another thread may import it
from aiohttp.abc import AbstractResolver, ResolveResult

from infra_core.runtime import ThreadPool, after_fork_in_child

from .._errors import PrivateAddressError
from ._addresses import reason_not_public, without_escape

__all__ = ["AddressInfo", "Resolver", "address_text", "lookup", "lookup_async", "public_only_of"]

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""What `socket.getaddrinfo` returns: family, type, protocol, canonical name, socket address."""

_Key = tuple[str, int, int, int]
# Threads are made when they are needed; names whose server hangs take up one each.
_pool = ThreadPool("infra-core-dns", 128)
# As aiohttp's own resolver asks: addresses of a family that this machine has none of are no use.
_FLAGS = int(getattr(socket, "AI_ADDRCONFIG", 0))
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class _Shared:
    """A look-up under way, and how many wait for it."""

    def __init__(self, future: "Future[list[AddressInfo]]") -> None:
        self.future = future
        self.waiters = 0


class _Lookups:
    """All that are under way."""

    def __init__(self) -> None:
        self._reset()
        after_fork_in_child(self._reset)  # the threads stay behind, and so would the answers

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[_Key, _Shared] = {}

    def join(self, key: _Key) -> _Shared:
        """Wait with the others for a name, or have it looked up: what has been answered is old."""
        with self._lock:
            shared = self._shared.get(key)
            if shared is None or shared.future.done():
                shared = self._shared[key] = _Shared(_pool.submit(_ask, *key))
            shared.waiters += 1
        return shared

    def leave(self, key: _Key, shared: _Shared) -> None:
        """Wait no longer; a look-up without waiters is not begun, and not joined any more."""
        with self._lock:
            shared.waiters -= 1
            if shared.waiters == 0:
                if self._shared.get(key) is shared:
                    del self._shared[key]
                shared.future.cancel()


_lookups = _Lookups()


def _ask(host: str, port: int, family: int, flags: int) -> list[AddressInfo]:
    # Looked up in the module at each call: tests put functions of their own there.
    try:
        infos: list[Any] = socket.getaddrinfo(
            without_escape(host), port, family=family, type=socket.SOCK_STREAM, flags=flags
        )
    except socket.gaierror as error:
        _check_descriptors(error)
        raise
    found = [info for info in infos if info[0] in _FAMILIES]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no address of IPv4 or IPv6")
    return found


def _check_descriptors(error: socket.gaierror) -> None:
    """Say so when there are too many open files: the C library then knows no name at all."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as full:
        if full.errno in (errno.EMFILE, errno.ENFILE):
            number = getattr(socket, "EAI_SYSTEM", socket.EAI_AGAIN)
            raise socket.gaierror(number, os.strerror(full.errno)) from error


def _result(future: "Future[list[AddressInfo]]") -> list[AddressInfo]:
    error = future.exception()
    if isinstance(error, OSError):
        # One each: an exception that is raised in several places gathers their tracebacks.
        raise type(error)(*error.args)
    return future.result()


def lookup(
    host: str, port: int, *, timeout: float | None, family: int = 0, flags: int = 0
) -> list[AddressInfo]:
    """Return the addresses of a host, waiting for them in this thread."""
    key = (host, port, family, flags)
    shared = _lookups.join(key)
    try:
        if not wait([shared.future], timeout).done:
            raise TimeoutError(f"no answer about {host!r} from the name server")
        return _result(shared.future)
    finally:
        _lookups.leave(key, shared)


async def lookup_async(
    host: str, port: int, *, family: int = 0, flags: int = _FLAGS
) -> list[AddressInfo]:
    """Return the addresses of a host; cancelled at once when the caller is."""
    key = (host, port, family, flags)
    loop = asyncio.get_running_loop()
    shared = _lookups.join(key)
    arrived: asyncio.Future[None] = loop.create_future()
    shared.future.add_done_callback(_waker(loop, arrived))
    try:
        await arrived
        return _result(shared.future)
    finally:
        _lookups.leave(key, shared)


def _waker(
    loop: asyncio.AbstractEventLoop, arrived: "asyncio.Future[None]"
) -> Callable[[object], None]:
    def settle() -> None:
        if not arrived.done():
            arrived.set_result(None)

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: no caller waits any more
            return

    return wake


def public_only_of(host: str, infos: list[AddressInfo]) -> list[AddressInfo]:
    """Return those addresses that are public.

    A client that connects to one of these, and to none that is looked up again, is safe from a name
    whose address changes between the check and the connection (DNS rebinding).
    """
    found: list[AddressInfo] = []
    refused: tuple[str, str] | None = None
    for info in infos:
        address = str(info[4][0])
        reason = reason_not_public(address)
        if reason is None:
            found.append(info)
        else:
            refused = refused or (address, reason)
    if not found and refused is not None:
        raise PrivateAddressError(host, *refused)
    return found


class Resolver(AbstractResolver):
    """Looks names up for aiohttp."""

    def __init__(self, *, public_only: bool = False) -> None:
        self._public_only = public_only

    async def resolve(
        self, host: str, port: int = 0, family: int = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host in the form that aiohttp wants."""
        infos = await lookup_async(host, port, family=family)
        if self._public_only:
            infos = public_only_of(host, infos)
        return [
            {
                "hostname": host,
                "host": address_text(address),
                "port": address[1],
                "family": kind,
                "proto": protocol,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for kind, _, protocol, _, address in infos
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def address_text(address: tuple[Any, ...]) -> str:
    """Return the address of a socket address, with its zone if it has one."""
    zoned = len(address) > 3 and address[3] and "%" not in address[0]
    return f"{address[0]}%{address[3]}" if zoned else str(address[0])
