"""Connections below requests: names looked up as everywhere, addresses checked on request.

`socket.getaddrinfo` blocks its caller for as long as a name server likes, whatever the timeout.
Here it runs in a thread of the resolver's, and the caller waits no longer than for a connection.
"""

import socket
from time import monotonic
from typing import Any

import urllib3  # noqa: F401 - before its parts: another thread may import it
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection as urllib3_connection

from ._sync_wire import within
from .engine._addresses import without_escape
from .engine._proxies import address_of
from .engine.resolver import AddressInfo, address_text, lookup, public_only_of

__all__ = ["Connecting"]


class Connecting:
    """To be mixed into urllib3's connections: how they get their socket.

    Attributes:
        public_only: Whether hosts without a public address are refused.
    """

    public_only = False

    def _new_conn(self: Any) -> socket.socket:
        """Look the host up and connect to the first address that takes the connection.

        Raises:
            NameResolutionError: The host cannot be resolved, or the name server cannot answer now.
            ConnectTimeoutError: All of it took longer than the connect timeout.
            NewConnectionError: No address takes connections.
            PrivateAddressError: `public_only` is set, and the host is not public.
        """
        seconds = self.timeout if isinstance(self.timeout, (int, float)) else None
        try:
            seconds = within(seconds)
            ends = None if seconds is None else monotonic() + seconds
            infos = _addresses(self._dns_host, self.port, seconds)
            if self.public_only:
                infos = public_only_of(self._dns_host, infos)
            return _connected(infos, ends, self.source_address, self.socket_options)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection within {seconds} s") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection: {error}") from error

    def send(self: Any, data: Any) -> None:
        """Send a part of a request; for `http.client`."""
        if self.sock is not None and within(None) is not None:
            self.sock.settimeout(within(self.sock.gettimeout()))
        super().send(data)  # type: ignore[misc]


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
    ends: float | None,
    source_address: tuple[str, int] | None,
    socket_options: Any,
) -> socket.socket:
    """Try one address after the other, each with its share of the time that is left."""
    failure: OSError = OSError("cannot resolve host (DNS)")
    for position, info in enumerate(infos):
        share: float | None = None
        if ends is not None:
            left = ends - monotonic()
            if left <= 0:
                raise TimeoutError("timed out") from failure
            share = left / (len(infos) - position)
        try:
            return urllib3_connection.create_connection(
                (address_text(info[4]), info[4][1]),
                share,
                source_address=source_address,
                socket_options=socket_options,
            )
        except OSError as error:
            failure = error
    raise failure
