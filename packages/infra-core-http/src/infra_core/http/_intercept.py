"""Whether somebody has put a mock or a probe between httpx and the network.

respx, pytest-httpx, instrumentation and hand-made patches replace functions of httpx or httpcore.
Tests that do so expect requests to pass there, so the fast transport steps aside. The check runs
for every request: a handful of identity comparisons.
"""

import sys
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
_POINTS: tuple[tuple[type, str], ...] = (
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
_POOLS = ("AsyncConnectionPool", "AsyncHTTPConnection")  # where respx steps in
_of_httpcore: tuple[tuple[type, str], ...] = ()
_seen: list[object] = []  # by the last look, which found nothing


def _is_original(name: str, function: object) -> bool:
    """Whether it is the library's own code, judged by the file that it was compiled from."""
    return (
        isinstance(function, FunctionType)
        and function.__code__.co_filename.startswith(_HOMES)
        and function.__name__ == name
    )


def interceptor() -> str | None:
    """Return the name of the entry point that is patched, None when there is none."""
    global _of_httpcore, _seen
    # Not imported for this, which costs as much as httpx itself.
    if not _of_httpcore and (httpcore := sys.modules.get("httpcore")) is not None:
        owners = (getattr(httpcore, name, None) for name in _POOLS)  # perhaps half imported
        _of_httpcore = tuple((owner, "handle_async_request") for owner in owners if owner)
    points = _POINTS + _of_httpcore
    found = [getattr(owner, name, None) for owner, name in points]
    if found != _seen:
        for (owner, name), function in zip(points, found, strict=True):
            if function is not None and not _is_original(name, function):
                return f"{owner.__name__}.{name}"
        _seen = found
    return None if httpx.AsyncClient is TRUE_CLIENT else "httpx.AsyncClient"
