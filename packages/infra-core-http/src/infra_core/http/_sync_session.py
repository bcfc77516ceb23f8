"""A session of requests that follows our network settings, for callers that are not ours."""

from typing import Any

import requests

from ._sync_adapter import Adapter, proxy_url
from .engine._tls import shared_context
from .engine.network_settings import NetworkSettings

__all__ = ["NetworkSession"]


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
        settings = NetworkSettings.read()
        merged: dict[str, Any] = dict(
            super().merge_environment_settings(url, proxies, stream, verify, cert)
        )
        scheme = str(url).partition(":")[0].lower()
        proxy = None if merged["proxies"] else settings.proxy_for(str(url))
        if proxy is not None:
            merged["proxies"] = {scheme: proxy_url(proxy)}
        if merged["verify"] is True:
            if merged["cert"] is not None:  # which would be loaded into the context of all
                merged["verify"] = settings.ca_path or True
            elif scheme == "https" or merged["proxies"]:
                merged["verify"] = shared_context(settings, "requests")
        return merged
