"""Whether somebody has put a mock or a probe between httpx and the network.

respx, pytest-httpx, instrumentation and hand-made patches replace functions of httpx or httpcore.
Whoever did that expects requests to pass there, so the fast transport steps aside. The check runs
for every request: a handful of identity comparisons.
"""

from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import httpcore
import httpx

__all__ = ["TRUE_CLIENT", "interceptor"]

TRUE_CLIENT = httpx.AsyncClient  # the name may come to mean a mock

_HOMES = tuple(str(Path(module.__file__ or "").parent) for module in (httpx, httpcore))
_POINTS: tuple[tuple[type, str], ...] = (
    (httpx.AsyncHTTPTransport, "handle_async_request"),  # pytest-httpx
    (httpx.AsyncHTTPTransport, "__init__"),
    (httpcore.AsyncConnectionPool, "handle_async_request"),  # respx
    (httpcore.AsyncHTTPConnection, "handle_async_request"),
    (httpx.AsyncClient, "_transport_for_url"),  # respx with using="httpx"
    (httpx.AsyncClient, "_send_single_request"),
    (httpx.AsyncClient, "_send_handling_redirects"),
    (httpx.AsyncClient, "_send_handling_auth"),
    (httpx.AsyncClient, "send"),
    (httpx.AsyncClient, "request"),
    (httpx.AsyncClient, "build_request"),
    (httpx.AsyncClient, "__init__"),
)


def _is_original(function: object) -> bool:
    """Whether it is the library's own code, judged by the file that it was compiled from."""
    return isinstance(function, FunctionType) and function.__code__.co_filename.startswith(_HOMES)


def _snapshot() -> tuple[list[tuple[type, str, object]], type]:
    points = [
        (owner, name, getattr(owner, name)) for owner, name in _POINTS if hasattr(owner, name)
    ]
    return points, httpx.AsyncClient


def _build() -> Callable[[], str | None]:
    points, client_class = _snapshot()
    # A mock that was active before this import is recognised by its code, not by comparison.
    originals: list[tuple[type, str, object]] = [
        (owner, name, function if _is_original(function) else None)
        for owner, name, function in points
    ]

    def interceptor() -> str | None:
        """Return the name of the entry point that is patched, None when there is none."""
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
