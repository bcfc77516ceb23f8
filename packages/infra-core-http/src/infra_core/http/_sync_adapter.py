"""The adapter of requests below our own sessions, and which proxy and certificates are used."""

import ssl
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict

from ._errors import InvalidRequestError, PrivateAddressError
from ._sync_connect import OURS, PUBLIC, THEIRS, read_answers
from ._urls import plain_url
from .engine._tls import trust
from .engine.connections import missing_socks
from .engine.network_settings import NetworkSettings, Proxy

__all__ = ["Adapter", "NetworkSession", "keep_public", "network_of"]


def keep_public(session: requests.Session) -> None:
    """Let a session connect to public addresses alone, and to no proxy."""
    for prefix, adapter in session.adapters.items():
        manager: Any = getattr(adapter, "poolmanager", None)
        if getattr(manager, "pool_classes_by_scheme", None) not in (THEIRS, OURS, PUBLIC):
            raise InvalidRequestError(
                f"public_only cannot be checked over the adapter {type(adapter).__name__} that is "
                f"mounted for {prefix}, which connects by itself: pass one of the two"
            )
        manager.pool_classes_by_scheme = dict(PUBLIC)
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
