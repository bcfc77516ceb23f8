"""What the keyword arguments of `AsyncHttpClient` ask for, and which way requests can travel."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx

from ._errors import InvalidRequestError
from ._headers import DEFAULT_HEADERS
from .engine.network_settings import NetworkSettings, Proxy

__all__ = [
    "DEFAULT_LIMITS",
    "OWN_TRANSPORT",
    "ROUTES",
    "check_pool",
    "check_public_only",
    "client_headers",
    "network_of",
    "plain_reason",
]

DEFAULT_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)

# Arguments that say where bytes travel, with the values that ask for nothing special.
ROUTES: dict[str, tuple[object, ...]] = {
    "transport": (None,),
    "mounts": (None, {}),
    "app": (None,),
    "proxy": (None,),
    "proxies": (None, {}),
    "http2": (False, None),
    "http1": (True,),
}
OWN_TRANSPORT = ("transport", "app", "proxy", "proxies")
"""Those that take the place of the transport that we would make."""


def plain_reason(options: Mapping[str, Any]) -> str | None:
    """Return which argument the fast transport cannot honour, None when it can honour all."""
    for name, nothing_special in ROUTES.items():
        value = options.get(name, nothing_special[0])
        as_text = name == "proxy" and isinstance(value, (str, httpx.URL))
        if not as_text and value not in nothing_special:
            return f"{name}="
    return None


def check_pool(limits: object) -> None:
    """Refuse a pool in which a request would wait for ever."""
    if not isinstance(limits, httpx.Limits):
        raise InvalidRequestError(f"limits={limits!r} are not httpx.Limits: pass httpx.Limits(...)")
    size = limits.max_connections
    if size is not None and not (isinstance(size, int) and size >= 1):
        raise InvalidRequestError(
            f"max_connections={size!r} lets no request through: pass httpx.Limits with 1 or more, "
            "or None"
        )


def client_headers(given: Any) -> list[tuple[str, str]]:
    """Return the headers of a client: its own, and the defaults for what it does not name."""
    try:
        own = httpx.Headers(given)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"headers= of the client cannot be sent ({error}): pass a mapping of names to values "
            "in ASCII"
        ) from error
    defaults = [(name, value) for name, value in DEFAULT_HEADERS.items() if name not in own]
    code = own.encoding
    return defaults + [(name.decode("ascii"), value.decode(code)) for name, value in own.raw]


def network_of(options: Mapping[str, Any]) -> NetworkSettings:
    """Return proxies and certificates for the arguments of a client."""
    found = NetworkSettings.read() if options.get("trust_env", True) else NetworkSettings()
    proxy = options.get("proxy")
    if isinstance(proxy, (str, httpx.URL)) and proxy:
        given = Proxy.parse(str(proxy), "the argument proxy")
        # As httpx has it: the argument is for all hosts, whatever the environment says.
        return replace(found, http_proxy=given, https_proxy=given, all_proxy=given, no_proxy=())
    return found


def check_public_only(options: Mapping[str, Any]) -> None:
    """Refuse `public_only` together with what connects without asking us."""
    for name in (*OWN_TRANSPORT, "mounts"):
        if options.get(name):
            raise InvalidRequestError(
                f"public_only cannot be checked over {name}=, which connects by itself: pass one "
                "of the two"
            )
