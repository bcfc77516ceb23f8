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

from infra_core.runtime.lazy import stub_exports

# Lazily: the settings of the network alone import no HTTP library.
__getattr__, __dir__, __all__ = stub_exports(__name__)
