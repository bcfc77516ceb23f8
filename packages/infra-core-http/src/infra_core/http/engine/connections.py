"""The network settings for those who call aiohttp or requests themselves, as the SDKs of clouds do.

Example:
    A session of aiohttp for one origin::

        settings = NetworkSettings.read()
        proxy = settings.proxy_for(url)
        async with aiohttp.ClientSession(connector=connector(settings, proxy)) as session:
            arguments, headers = through(proxy, url, headers)
            async with session.get(url, headers=headers, **arguments) as response:
                ...

    One of requests, for all::

        session = requests_session()
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yarl
from multidict import CIMultiDict

from ._connector import Connector
from ._socks import socks_connector
from ._tls import trust
from .network_settings import NetworkSettings, Proxy
from .resolver import Resolver

if TYPE_CHECKING:
    import requests

__all__ = ["connector", "requests_session", "through", "trust"]


def connector(
    settings: NetworkSettings,
    proxy: Proxy | None = None,
    *,
    public_only: bool = False,
    **options: Any,
) -> Connector:
    """Return a connector of aiohttp with our look-ups of names, and for SOCKS where it is used.

    Args:
        settings: Whose certificates are trusted, unless `ssl` is among the options.
        proxy: What all its connections go through; one of HTTP is an argument of each request
            besides (`through`).
        public_only: Whether addresses that are not public are refused.
        **options: Of `aiohttp.TCPConnector`.

    Raises:
        InvalidRequestError: A SOCKS proxy, and the packages for it are not installed.
        OSError: A file or folder of certificates is missing or cannot be read.
    """
    if "ssl" not in options:
        options["ssl"] = trust(settings)
    if proxy is not None and proxy.is_socks:
        return socks_connector(proxy, **options)
    return Connector(resolver=Resolver(public_only=public_only), **options)


def through(
    proxy: Proxy | None, url: str, headers: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return the arguments of `aiohttp.ClientSession.request` for a proxy, and the headers.

    Args:
        proxy: What the request goes through; None for nothing.
        url: Of the request; its scheme decides who is shown the credentials of the proxy.
        headers: Of the request; not changed.
    """
    sent = headers or {}
    if proxy is None or proxy.is_socks:
        return {}, sent
    arguments: dict[str, Any] = {"proxy": yarl.URL(proxy.bare_url)}
    login = proxy.authorization
    if login is None:
        return arguments, sent
    if url[:6].lower() == "https:":  # with CONNECT, and not with the request in the tunnel
        arguments["proxy_headers"] = {"Proxy-Authorization": login}
        return arguments, sent
    more = CIMultiDict(sent)
    more.setdefault("Proxy-Authorization", login)
    return arguments, more


def requests_session() -> "requests.Session":
    """Return a session of requests that looks at the network settings at each request.

    Not thread-safe, as every such session.
    """
    from .._sync_session import NetworkSession

    return NetworkSession()
