"""The asynchronous half under the names of 0.7's `infra_core.http_async`.

Example:
    ::

        import asyncio
        from infra_core.http.aio import fetch_async

        html = asyncio.run(fetch_async("https://example.com"))
"""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
