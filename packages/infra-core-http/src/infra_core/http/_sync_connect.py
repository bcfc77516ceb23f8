"""Connections below requests: names looked up as everywhere, targets as given, answers read by us.

`socket.getaddrinfo` blocks its caller for as long as a name server likes, whatever the timeout.
Here it runs in a thread of the resolver's, and the caller waits no longer than for a connection.
"""

import math
import re
import socket
import threading
from time import monotonic
from typing import Any

import urllib3  # noqa: F401 - before its parts: another thread may import it
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection as urllib3_connection

from ._sync_wire import Answer, within
from .engine._addresses import without_escape
from .engine._proxies import address_of
from .engine.resolver import AddressInfo, address_text, lookup, public_only_of

__all__ = ["OURS", "PUBLIC", "THEIRS", "read_answers"]


class _LastAnswer(Answer):
    """Of a proxy without a tunnel, which may close the connection though it does not say so."""

    def begin(self) -> None:
        super().begin()
        self.will_close = True


_asked = threading.local()
_SENDABLE = re.compile(r"[!-~]+")


class _AsGiven:
    """To be mixed into urllib3's pools: the target of a request goes out as it was given.

    urllib3 encodes every `%` of a target that has a single one without two digits, brackets too,
    and turns hexadecimal digits into capitals; a signed URL is another one then.
    """

    def urlopen(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Send a request; for urllib3, which has all parameters."""
        _asked.target = url if _SENDABLE.fullmatch(url) and "#" not in url else None
        try:
            return super().urlopen(method, url, *args, **options)  # type: ignore[misc]
        finally:
            _asked.target = None


class _Connecting:
    """To be mixed into urllib3's connections: their socket, what they send and read."""

    public_only = False  # whether hosts without a public address are refused

    def _new_conn(self: Any) -> socket.socket:
        """Look the host up and connect to the first address that takes the connection."""
        seconds = self.timeout if isinstance(self.timeout, (int, float)) else None
        try:
            seconds = within(seconds)
            ends = math.inf if seconds is None else monotonic() + seconds
            infos = _addresses(self._dns_host, self.port, seconds)
            if self.public_only:
                infos = public_only_of(self._dns_host, infos)
            return _connected(infos, ends, self.source_address, self.socket_options)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"connect timed out after {seconds} s") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error

    def send(self: Any, data: Any) -> None:
        """Send a part of a request; for `http.client`."""
        if self.sock is not None and within(None) is not None:
            self.sock.settimeout(within(self.sock.gettimeout()))
        super().send(data)  # type: ignore[misc]

    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:
        """Send the first line; for `http.client`, which has all parameters."""
        given = getattr(_asked, "target", None)
        super().putrequest(method, given or url, *args, **options)  # type: ignore[misc]

    def getresponse(self: Any) -> Any:
        """Return the answer, read by us; for urllib3."""
        # Only here: what a proxy says to CONNECT is read by http.client with a class of its own.
        forwarded = self.proxy is not None and getattr(self, "_tunnel_host", None) is None
        vars(self)["response_class"] = _LastAnswer if forwarded else Answer
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            del vars(self)["response_class"]


def _addresses(host: str, port: int, seconds: float | None) -> list[AddressInfo]:
    host = without_escape(host.strip("[]"))
    # What people replace to have IPv4 alone is urllib3's function of that name.
    family = urllib3_connection.allowed_gai_family()
    if address_of(host) is None:
        return lookup(host, port, timeout=seconds, family=family)
    infos: list[Any] = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    return infos


def _connected(
    infos: list[AddressInfo],
    ends: float,
    source_address: tuple[str, int] | None,
    socket_options: Any,
) -> socket.socket:
    """Try one address after the other, each with its share of the time that is left."""
    failure: OSError = OSError("cannot resolve host (DNS)")
    for position, info in enumerate(infos):
        left = within(None, ends)
        try:
            return urllib3_connection.create_connection(
                (address_text(info[4]), info[4][1]),
                left and left / (len(infos) - position),
                source_address=source_address,
                socket_options=socket_options,
            )
        except OSError as error:
            failure = error
    raise failure


class _Connection(_Connecting, HTTPConnection):
    pass


class _TlsConnection(_Connecting, HTTPSConnection):
    def connect(self) -> None:
        """Connect and shake hands: what fails before the request is a failure to connect."""
        try:
            super().connect()
        except TimeoutError as error:
            late = f"TLS handshake timed out after {self.timeout} s"
            raise ConnectTimeoutError(self, late) from error
        except ConnectionError as error:
            if self.proxy is not None:
                raise
            raise NewConnectionError(self, f"TLS handshake failed: {error}") from error


class _Kind:
    """The class of a pool's connections: ours, but where urllib3's was replaced, as vcrpy does."""

    def __init__(self, ours: type, pool: Any) -> None:
        self._ours = ours
        self._pool = pool

    def __get__(self, *_: object) -> type:
        now: type = self._pool.ConnectionCls
        return self._ours if now.__module__ == "urllib3.connection" else now


def _pools(*, public_only: bool) -> dict[str, Any]:
    """Return the classes of urllib3's pools by scheme, with our connections."""
    kinds: dict[str, Any] = {}
    for scheme, connection in (("http", _Connection), ("https", _TlsConnection)):
        ours = type(connection.__name__, (connection,), {"public_only": public_only})
        pool = THEIRS[scheme]
        kind = ours if public_only else _Kind(ours, pool)
        kinds[scheme] = type(pool.__name__, (_AsGiven, pool), {"ConnectionCls": kind})
    return kinds


THEIRS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
OURS, PUBLIC = _pools(public_only=False), _pools(public_only=True)


def read_answers(manager: Any) -> None:
    """Let pools without connections of their own kind read answers as ours do."""
    if getattr(manager, "pool_classes_by_scheme", None) == THEIRS:
        manager.pool_classes_by_scheme = dict(OURS)
