"""Whether somebody has put a mock or a probe between httpx and the network.

respx, pytest-httpx, instrumentation and hand-made patches replace functions of httpx or httpcore.
Tests that do so expect requests to pass there, so the fast transport steps aside. The check runs
for every request: a handful of identity comparisons.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType

import httpx

__all__ = ["TRUE_CLIENT", "interceptor"]

TRUE_CLIENT = httpx.AsyncClient  # the name may come to mean a mock

_HOMES = tuple(
    str(Path(spec.origin or "").parent)
    for spec in map(find_spec, ("httpx", "httpcore"))
    if spec is not None
)
_HTTPX_POINTS: tuple[tuple[type, str], ...] = (
    (httpx.AsyncHTTPTransport, "handle_async_request"),  # pytest-httpx
    (httpx.AsyncHTTPTransport, "__init__"),
    (httpx.AsyncClient, "_transport_for_url"),  # respx with using="httpx"
    (httpx.AsyncClient, "_send_single_request"),
    (httpx.AsyncClient, "_send_handling_redirects"),
    (httpx.AsyncClient, "_send_handling_auth"),
    (httpx.AsyncClient, "send"),
    (httpx.AsyncClient, "request"),
    (httpx.AsyncClient, "build_request"),
    (httpx.AsyncClient, "__init__"),
)
# Looked at once somebody has imported httpcore, which costs as much as httpx itself.
_HTTPCORE_POINTS = (
    ("AsyncConnectionPool", "handle_async_request"),  # respx
    ("AsyncHTTPConnection", "handle_async_request"),
)


def _is_original(function: object) -> bool:
    """Whether it is the library's own code, judged by the file that it was compiled from."""
    return isinstance(function, FunctionType) and function.__code__.co_filename.startswith(_HOMES)


def _originals(points: tuple[tuple[type, str], ...]) -> list[tuple[type, str, object]]:
    """Each point with its function; None for a mock that was active before this was looked at."""
    found = [(owner, name, getattr(owner, name, None)) for owner, name in points]
    return [
        (owner, name, function if _is_original(function) else None)
        for owner, name, function in found
        if function is not None
    ]


def _build() -> Callable[[], str | None]:
    client_class = httpx.AsyncClient
    originals = _originals(_HTTPX_POINTS)
    complete = False

    def interceptor() -> str | None:
        """Return the name of the entry point that is patched, None when there is none."""
        nonlocal complete
        if not complete and (httpcore := sys.modules.get("httpcore")) is not None:
            complete = True
            owners = ((getattr(httpcore, owner, None), name) for owner, name in _HTTPCORE_POINTS)
            originals.extend(_originals(tuple((o, n) for o, n in owners if o is not None)))
        for position, (owner, name, original) in enumerate(originals):
            current = getattr(owner, name)
            if current is not original:
                if original is None and _is_original(current):
                    originals[position] = (owner, name, current)
                    continue
                return f"{owner.__name__}.{name}"
        if httpx.AsyncClient is not client_class:
            return "httpx.AsyncClient"
        return None

    return interceptor


interceptor = _build()
