"""Below requests: its adapter, its connections, and which proxy and certificates are used.

Names are looked up as everywhere, targets go out as given, answers are read by us.
`socket.getaddrinfo` blocks its caller for as long as a name server likes, whatever the timeout.
Here it runs in a thread of the resolver's, and the caller waits no longer than for a connection.
"""

import math
import re
import socket
import ssl
import threading
from functools import lru_cache
from importlib.util import find_spec
from time import monotonic
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3  # noqa: F401 - before its parts: another thread may import it
from requests.adapters import HTTPAdapter
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection as urllib3_connection

from ._errors import InvalidRequestError, PrivateAddressError
from ._sync_wire import Answer, within
from ._urls import plain_url
from .engine._addresses import without_escape
from .engine._proxies import address_of
from .engine._tls import trust
from .engine.connections import missing_socks
from .engine.network_settings import NetworkSettings, Proxy
from .engine.resolver import AddressInfo, address_text, lookup, public_only_of

__all__ = ["Adapter", "NetworkSession", "keep_public", "network_of", "read_answers"]


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
        pool = _THEIRS[scheme]
        kind = ours if public_only else _Kind(ours, pool)
        kinds[scheme] = type(pool.__name__, (_AsGiven, pool), {"ConnectionCls": kind})
    return kinds


_THEIRS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
_OURS, _PUBLIC = _pools(public_only=False), _pools(public_only=True)


def read_answers(manager: Any) -> None:
    """Let pools without connections of their own kind read answers as ours do."""
    if getattr(manager, "pool_classes_by_scheme", None) == _THEIRS:
        manager.pool_classes_by_scheme = dict(_OURS)


def keep_public(session: requests.Session) -> None:
    """Let a session connect to public addresses alone, and to no proxy."""
    for prefix, adapter in session.adapters.items():
        manager: Any = getattr(adapter, "poolmanager", None)
        if getattr(manager, "pool_classes_by_scheme", None) not in (_THEIRS, _OURS, _PUBLIC):
            raise InvalidRequestError(
                f"public_only cannot be checked over the adapter {type(adapter).__name__} that is "
                f"mounted for {prefix}, which connects by itself: pass one of the two"
            )
        manager.pool_classes_by_scheme = dict(_PUBLIC)
        manager.clear()
        cast("Any", adapter).proxy_manager_for = _refuse_proxy


def _proxy_url(proxy: Proxy) -> str:
    """Return a proxy in the form in which requests takes it."""
    if proxy.is_socks and find_spec("socks") is None:
        raise missing_socks(proxy)
    return proxy.url


def _refuse_proxy(proxy: str, **_: object) -> Any:
    found = Proxy.parse(proxy, "the session")
    raise PrivateAddressError.behind_proxy("", found.where, found.variable)


@lru_cache(maxsize=1024)
def _place(origin: str) -> tuple[str | None, int | None, str]:
    """Return host, port and scheme of an origin, as urllib3 takes them."""
    parts = urlsplit(origin)
    return parts.hostname, parts.port, parts.scheme


class Adapter(HTTPAdapter):
    """The adapter of requests with our connections, to proxies too; SOCKS has its own.

    `verify` may be a context besides what requests takes.
    """

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, as requests does, of our connections."""
        super().init_poolmanager(*args, **kwargs)
        read_answers(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make the pools to a proxy likewise."""
        if proxy.lower().startswith("https:"):
            settings = NetworkSettings.read()
            kwargs.setdefault("proxy_ssl_context", trust(settings, "requests"))
        manager = super().proxy_manager_for(proxy, **kwargs)
        read_answers(manager)
        return manager

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Return the credentials for a proxy, in UTF-8 as everywhere."""
        login = Proxy.parse(proxy).authorization
        return {} if login is None else {"Proxy-Authorization": login}

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool for a request, without parsing its URL where that is a usual one."""
        plain = None if proxies or cert or isinstance(verify, str) else plain_url(request.url or "")
        if plain is None:
            theirs: Any = super().get_connection_with_tls_context
            return theirs(request, verify, proxies=proxies, cert=cert)
        asked = "CERT_NONE" if verify is False else "CERT_REQUIRED"
        manager: Any = self.poolmanager
        return manager.connection_from_host(*_place(plain[0]), pool_kwargs={"cert_reqs": asked})

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return what stands in the first line of a request, likewise."""
        plain = None if proxies else plain_url(request.url or "")
        return super().request_url(request, proxies) if plain is None else plain[1]

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """Return an answer as requests does, which looks through its headers three times."""
        if "Set-Cookie" in resp.headers or not isinstance(resp.headers, HTTPHeaderDict):
            return super().build_response(req, resp)
        response = requests.Response()
        response.status_code = resp.status
        response.headers.update(resp.headers.itermerged())
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = resp
        response.reason = resp.reason
        response.url = req.url
        response.request = req
        cast("Any", response).connection = self
        return response

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Set up a pool as requests does; a context is handed on as it is."""
        theirs: Any = super().cert_verify
        if not isinstance(verify, ssl.SSLContext):
            theirs(conn, url, verify, cert)
            return
        theirs(conn, url, False, cert)
        if conn.scheme == "https":  # to a proxy perhaps, for a URL without TLS
            conn.cert_reqs = "CERT_REQUIRED"
            conn.conn_kw["ssl_context"] = verify


def network_of(
    session: requests.Session,
    settings: NetworkSettings,
    url: str,
    *,
    proxies: Any = None,
    verify: Any = None,
    cert: Any = None,
) -> dict[str, Any]:
    """Return `proxies`, `verify` and `cert` of a request: those of the call before all others."""
    cert = cert or session.cert
    verify = session.verify if verify is None else verify
    scheme = url.partition(":")[0].lower()
    used = dict(session.proxies)
    if settings.has_proxies and (proxy := settings.proxy_for(url)) is not None:
        used[scheme] = _proxy_url(proxy)
    used.update(proxies or {})
    if verify is True and (scheme == "https" or used):  # perhaps of TLS itself
        # A client's certificate would be loaded into the context of all.
        ours = cert is None and isinstance(session.get_adapter(url), Adapter)
        verify = trust(settings, "requests") if ours else settings.ca_path or True
    return {"proxies": used, "verify": verify, "cert": cert}


class NetworkSession(requests.Session):
    """Proxies and certificates by our reading of the environment; requests' own is switched off.

    netrc is left out: who uses this brings credentials, or means to send none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        for prefix in ("https://", "http://"):
            self.mount(prefix, Adapter())

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Return what requests asks for each request: the call's, the session's, ours."""
        network = network_of(
            self, NetworkSettings.read(), str(url), proxies=proxies, verify=verify, cert=cert
        )
        return {"stream": self.stream if stream is None else stream, **network}
