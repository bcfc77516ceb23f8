"""The asynchronous engine: one request over the network, no retries, no redirects, no decoding.

Everything of this project that sends requests from an event loop does it here, so that TLS,
proxies, name look-ups, limits and error texts are the same everywhere. It stands on aiohttp and
speaks in the errors and timeouts of httpx.

An `Engine` belongs to one event loop. Bodies are handed out as the network carries them: still
encoded, with the headers as they came.

Example:
    ::

        engine = Engine(limits=httpx.Limits(max_connections=20))
        response = await engine.send(
            "PUT", "https://example.com/blob", headers={"Content-Type": "text/plain"}, body=b"text"
        )
        print(response.status, response.headers.get("ETag"), await response.read())
        await engine.aclose()
"""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from ._errors import failure_of as failure_of
    from ._session import (
        Engine as Engine,
        EngineResponse as EngineResponse,
        Timeouts as Timeouts,
        timeouts_of as timeouts_of,
    )
    from ._target import Target as Target, target_of as target_of
    from .network_settings import NetworkSettings as NetworkSettings

__all__ = [
    "Engine",
    "EngineResponse",
    "NetworkSettings",
    "Target",
    "Timeouts",
    "failure_of",
    "target_of",
    "timeouts_of",
]

# Lazily: whoever asks for the settings of the network alone pays for no HTTP library.
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "._errors": ["failure_of"],
        "._session": ["Engine", "EngineResponse", "Timeouts", "timeouts_of"],
        "._target": ["Target", "target_of"],
        ".network_settings": ["NetworkSettings"],
    },
)
