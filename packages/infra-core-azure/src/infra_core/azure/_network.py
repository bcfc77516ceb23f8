"""The SDK's clients over the network settings of `infra_core.http`: one reading for all of Azure.

Tables, tokens and the SDK's clients that storage gives out go over transports of azure-core,
which know proxies in their plainest form alone and one file of certificates. These here ask
`NetworkSettings` at each request, so that proxies, `NO_PROXY` and certificates count as they do
for blobs, Functions and telemetry.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import aiohttp

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from infra_core.http.engine import (
    NetworkSettings,
    Proxy,
    connector,
    requests_session,
    through,
)

__all__ = ["async_transport", "sync_transport"]


Refused = Callable[[Mapping[str, str]], None]
"""Called with the headers of a request whose credential the service did not accept (401)."""


def sync_transport(refused: Refused | None = None, **options: Any) -> RequestsTransport:
    """Return a transport for a synchronous client of the SDK or of azure-identity.

    Args:
        refused: For a client whose tokens can be renewed.
        **options: Of the client; the transport takes its timeouts from them.
    """
    return _Transport(refused, session=requests_session(), **options)


def async_transport(refused: Refused | None = None, **options: Any) -> "_AsyncTransport":
    """Return a transport for an asynchronous client, which connects on the loop that sends first.

    Args:
        refused: For a client whose tokens can be renewed.
        **options: Of the client; the transport takes its timeouts from them.
    """
    return _AsyncTransport(refused, **options)


class _Transport(RequestsTransport):  # type: ignore[misc] # lazily exported, so untyped
    """The SDK's transport, which reports a refused token before the SDK asks for another."""

    def __init__(self, refused: Refused | None, **options: Any) -> None:
        super().__init__(**options)
        self._refused = refused

    def send(self, request: Any, **options: Any) -> Any:
        """Send a request."""
        response = super().send(request, **options)
        _note_refusal(response, request, self._refused)
        return response


class _AsyncTransport(AioHttpTransport):  # type: ignore[misc] # lazily exported, so untyped
    """The SDK's transport, without a second layer of retries below the SDK's.

    aiohttp repeats a PUT whose connection was dropped, unseen: a conditional write could then be
    refused because of its own first attempt, which looks like the write of somebody else.
    """

    def __init__(self, refused: Refused | None, **options: Any) -> None:
        super().__init__(**options)
        self._refused = refused
        self._settings = NetworkSettings.read()
        self._proxy: Proxy | None = None
        self._made = False

    async def open(self) -> None:
        """Make the session, once; a proxy of SOCKS is a matter of its connector."""
        if not self._made:
            self._made = True
            self.session = aiohttp.ClientSession(
                connector=connector(self._settings, self._proxy),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
            if hasattr(self.session, "_retry_connection"):  # aiohttp's own test client has it
                cast("Any", self.session)._retry_connection = False
        await super().open()

    async def send(self, request: Any, **options: Any) -> Any:
        """Send a request through the proxy that the environment names for its host."""
        proxy = self._settings.proxy_for(request.url)
        self._proxy = proxy
        arguments, headers = through(proxy, request.url, request.headers)
        if headers is not request.headers:
            request.headers.update(headers)
        response = await super().send(request, **{**arguments, **options})
        _note_refusal(response, request, self._refused)
        return response


def _note_refusal(response: Any, request: Any, refused: Refused | None) -> None:
    """Report a refused token, and leave out a challenge that names no more than its scheme.

    Old releases of the SDK's clients raise an IndexError for such a one.
    """
    if response.status_code != 401:
        return
    if refused is not None:
        refused(request.headers)
    if " " not in response.headers.get("WWW-Authenticate", " ").strip():
        response.headers.pop("WWW-Authenticate", None)
