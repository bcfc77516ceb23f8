"""Which proxy and which certificates a request of requests uses, ours and those of others."""

from typing import Any

import requests

from ._sync_adapter import Adapter, proxy_url
from .engine._tls import trust
from .engine.network_settings import NetworkSettings

__all__ = ["NetworkSession", "network_of"]


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
        used[scheme] = proxy_url(proxy)
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
