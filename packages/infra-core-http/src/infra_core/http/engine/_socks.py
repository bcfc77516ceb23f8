"""SOCKS proxies, which the extra `socks` brings."""

from typing import TYPE_CHECKING, Any

from .._errors import InvalidRequestError

if TYPE_CHECKING:
    import aiohttp

    from .network_settings import Proxy

__all__ = ["missing_socks", "socks_connector", "socks_failures"]


def missing_socks(proxy: "Proxy") -> InvalidRequestError:
    """Return what to raise where the packages for SOCKS are not installed."""
    return InvalidRequestError(
        f"{proxy.variable} names the SOCKS proxy {proxy.where}, and the packages for SOCKS are "
        "not installed: pip install 'infra-core-http[socks]', or name an http:// proxy"
    )


def socks_connector(proxy: "Proxy", **options: Any) -> "aiohttp.TCPConnector":
    """Return an aiohttp connector whose connections go through a SOCKS proxy.

    Args:
        proxy: Which one.
        **options: Of the connector.

    Raises:
        InvalidRequestError: The packages for SOCKS are not installed.
    """
    try:
        from aiohttp_socks import ProxyConnector, ProxyType
    except ImportError:
        raise missing_socks(proxy) from None
    from ._connector import Connector

    class SocksConnector(Connector, ProxyConnector):
        """Ours, on theirs."""

    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    return SocksConnector(
        proxy_type=kind,
        host=proxy.host,
        port=proxy.port,
        username=proxy.username,
        password=proxy.password,
        rdns=proxy.scheme in ("socks4a", "socks5h"),
        **options,
    )


def socks_failures() -> tuple[type[Exception], ...]:
    """Return what a SOCKS proxy's refusals are raised as."""
    from aiohttp_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError

    return ProxyConnectionError, ProxyError, ProxyTimeoutError
