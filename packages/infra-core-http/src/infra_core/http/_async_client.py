"""`AsyncHttpClient`: one httpx client per event loop, fast below, closed with its loop."""

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.cookiejar import CookieJar
from typing import Any, cast

import httpx
from multidict import CIMultiDict

from infra_core.runtime import LoopLocal, redact_library_logs

from ._checks import DefaultTimeout
from ._errors import InvalidRequestError
from ._headers import DEFAULT_HEADERS
from ._intercept import interceptor
from ._limits import AsyncHostGate, rate_of
from ._transport_httpx import FastTransport, PlainTransport, SafeClient, bounded, note_plain
from .engine._private_names import mounts_of
from .engine._session import Engine
from .engine._target import Target, Timeouts, timeouts_of
from .engine._tls import tls_context
from .engine.network_settings import NetworkSettings, Proxy

__all__ = [
    "AnyClient",
    "AsyncHttpClient",
    "LoopClient",
    "close_async_http_client",
    "get_shared_http_client",
    "manager_of",
    "reconfigure_shared_http_client",
    "reset_shared_http_client",
    "set_shared_http_client",
]

_DEFAULT_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)

# Arguments that say where bytes travel, with the values that ask for nothing special.
_ROUTES: dict[str, tuple[object, ...]] = {
    "transport": (None,),
    "mounts": (None, {}),
    "app": (None,),
    "proxy": (None,),
    "proxies": (None, {}),
    "http2": (False, None),
    "http1": (True,),
}
_OWN_TRANSPORT = ("transport", "app", "proxy", "proxies")
"""Those that take the place of the transport that we would make."""


def _plain_reason(options: Mapping[str, Any]) -> str | None:
    """Return which argument the fast transport cannot honour, None when it can honour all."""
    for name, nothing_special in _ROUTES.items():
        value = options.get(name, nothing_special[0])
        as_text = name == "proxy" and isinstance(value, (str, httpx.URL))
        if not as_text and value not in nothing_special:
            return f"{name}="
    return None


def _check_pool(limits: object) -> None:
    """Refuse a pool in which a request would wait for ever."""
    if not isinstance(limits, httpx.Limits):
        raise InvalidRequestError(f"limits={limits!r} are not httpx.Limits: pass httpx.Limits(...)")
    size = limits.max_connections
    if size is not None and not (isinstance(size, int) and size >= 1):
        raise InvalidRequestError(
            f"max_connections={size!r} lets no request through: pass httpx.Limits with 1 or more, "
            "or None"
        )


def _client_headers(given: Any) -> list[tuple[str, str]]:
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


def _network_of(options: Mapping[str, Any]) -> NetworkSettings:
    """Return proxies and certificates for the arguments of a client."""
    found = NetworkSettings.read() if options.get("trust_env", True) else NetworkSettings()
    proxy = options.get("proxy")
    if isinstance(proxy, (str, httpx.URL)) and proxy:
        given = Proxy.parse(str(proxy), "the argument proxy")
        # As httpx has it: the argument is for all hosts, whatever the environment says.
        return replace(found, http_proxy=given, https_proxy=given, all_proxy=given, no_proxy=())
    return found


def _check_public_only(options: Mapping[str, Any]) -> None:
    """Refuse `public_only` together with what connects without asking us."""
    for name in (*_OWN_TRANSPORT, "mounts"):
        if options.get(name):
            raise InvalidRequestError(
                f"public_only cannot be checked over {name}=, which connects by itself: pass one "
                "of the two"
            )


class LoopClient:
    """What an `AsyncHttpClient` keeps for one event loop."""

    def __init__(
        self,
        manager: "AsyncHttpClient",
        options: dict[str, Any],
        gate: AsyncHostGate | None,
        *,
        public_only: bool = False,
    ) -> None:
        self.gate = gate
        self.made_by = httpx.AsyncClient
        self.client: SafeClient
        self.engine: Engine | None = None  # None: all go through plain httpx
        self.default_encoding: Any = options.get("default_encoding", "utf-8")
        self._headers: tuple[Any, CIMultiDict[str]] | None = None
        redact_library_logs()
        self._timeout: Any = None
        options = {"follow_redirects": True, "limits": _DEFAULT_LIMITS, **options}
        if interceptor() == "httpx.AsyncClient":
            self.client = cast("SafeClient", httpx.AsyncClient(**options))  # whatever it is
            return
        options["headers"] = _client_headers(options.get("headers"))
        options["cookies"] = bounded(options.get("cookies"))
        reason = _plain_reason(options)
        network = _network_of(options)
        verify, cert = options.pop("verify", None), options.pop("cert", None)
        limits: httpx.Limits = options["limits"]

        def plain(**more: Any) -> PlainTransport:
            context = tls_context(verify, cert, network)
            return PlainTransport(
                network, public_only=public_only, verify=context, limits=limits, **more
            )

        if reason is None:
            for route in _ROUTES:
                options.pop(route, None)
            own_tls = verify not in (None, True) or cert is not None
            self.engine = Engine(
                limits=limits,
                ssl_context=(lambda: tls_context(verify, cert, network)) if own_tls else None,
                settings=network,
                public_only=public_only,
            )
            transport: httpx.AsyncBaseTransport = FastTransport(self.engine, plain)
            self.client = SafeClient(transport=transport, **options)
        else:
            note_plain(reason)
            if not any(options.get(name) for name in _OWN_TRANSPORT):
                options["transport"] = plain(
                    **{name: options.pop(name) for name in ("http1", "http2") if name in options}
                )
            elif not options.get("transport"):
                options["verify"] = tls_context(verify, cert, network)
            self.client = SafeClient(**options)
        self.client.network = network
        self.client.origin_headers = manager._origin_headers
        self.client.manager = weakref.ref(manager)
        self._timeout = None if "timeout" in options else self.client.timeout
        self._mounts = dict(mounts_of(self.client))

    def direct_engine(self) -> Engine | None:
        """Return the engine when a request without body may skip httpx altogether.

        What is set on the client counts also when it is set later, so it is looked at each time.
        """
        client, engine = self.client, self.engine
        if engine is None or interceptor() is not None:
            return None
        hooks = client.event_hooks
        if (
            client.auth is not None
            or hooks["request"]
            or hooks["response"]
            or client.base_url.raw_host
            or client.params
            or mounts_of(client) != self._mounts
        ):
            return None
        return engine

    def timeout_of(self, timeout: Any) -> Timeouts:
        """Return the timeouts of a call: its own, else the client's, else the default."""
        client = self.client
        if isinstance(timeout, DefaultTimeout) and isinstance(client, SafeClient):
            timeout = timeout if client.timeout is self._timeout else client.timeout
        return timeouts_of(timeout)

    @property
    def jar(self) -> CookieJar:
        """Where the client keeps its cookies."""
        return self.client.cookies.jar

    def headers(self) -> "CIMultiDict[str]":
        """Return the client's own headers, as they are now; not to be changed."""
        current = self.client.headers
        if self._headers is None or self._headers[0] != current.raw:
            # In the letter case in which they were given.
            pairs = ((n.decode("latin-1"), value.decode("latin-1")) for n, value in current.raw)
            self._headers = (current.raw, CIMultiDict(pairs))
        return self._headers[1]

    def headers_with(self, own: Mapping[str, str], target: Target) -> "CIMultiDict[str]":
        """Return the client's headers with those of one request over them; not to be changed."""
        headers = self.headers()
        login = target.authorization or self.client.login(target.origin[1], headers)
        if own or login is not None:
            headers = headers.copy()
            if login is not None:
                headers["Authorization"] = login
            for name, value in own.items():
                headers[name] = value
        return headers

    async def aclose(self) -> None:
        """Close the connections; a mock in the place of the client is taken as it is."""
        closing = self.client.aclose()
        if inspect.isawaitable(closing):
            await closing


class AsyncHttpClient:
    """An HTTP client that may be shared by everything in a process, event loops included.

    Each event loop gets an httpx client and connections of its own, which are closed when the
    loop shuts down (`asyncio.run` does that) or by `close`. Requests travel over a transport
    several times faster than httpx's own, unless they are intercepted (respx, pytest-httpx,
    instrumentation) or ask for what it cannot do; then plain httpx carries them, and a log record
    of `infra_core.http_async` says so once.

    Args:
        max_per_host: Requests under way at once to one scheme, host and port.
        max_per_second_per_host: Requests begun per second to one scheme, host and port, evenly
            spaced; counted over all loops and threads.
        public_only: Refuse hosts whose address is private, loopback, link-local or otherwise not
            public, also after redirects; checked on the address that is connected to. Requests
            that would go through a proxy are refused as well, since it is the proxy that connects.
        origin_headers: Returns the headers that belong to the host of a URL alone, such as keys:
            a redirect away leaves them behind, one to that host brings them.
        **client_kwargs: What `httpx.AsyncClient` takes. `follow_redirects` is True unless said
            otherwise.

    Raises:
        ValueError: For limits that would let nothing through.

    Example:
        Ten requests at once and five per second to each host, with a header of our own::

            client = AsyncHttpClient(
                max_per_host=10, max_per_second_per_host=5, headers={"User-Agent": "crawler/1"}
            )
            html = await fetch_async("https://example.com", client=client)
            await client.close()
    """

    def __init__(
        self,
        *,
        max_per_host: int | None = None,
        max_per_second_per_host: float | None = None,
        public_only: bool = False,
        origin_headers: Callable[[str], Mapping[str, str]] | None = None,
        **client_kwargs: object,
    ) -> None:
        self._origin_headers = origin_headers
        rate = rate_of(max_per_host, max_per_second_per_host)
        _check_pool(client_kwargs.get("limits", _DEFAULT_LIMITS))
        if public_only:
            _check_public_only(client_kwargs)
        limited = max_per_host is not None or rate is not None
        options: dict[str, Any] = dict(client_kwargs)

        def make() -> LoopClient:
            gate = AsyncHostGate(max_per_host, rate) if limited else None
            return LoopClient(self, dict(options), gate, public_only=public_only)

        self._clients = LoopLocal(make, LoopClient.aclose)

    async def _here(self) -> LoopClient:
        here = self._clients.get()
        # A mock took the place of httpx's class, or left it; or somebody closed what is ours.
        if here.made_by is not httpx.AsyncClient or here.client.is_closed is True:
            await self._clients.aclose()
            here = self._clients.get()
        return here

    async def get_client(self) -> httpx.AsyncClient:
        """Return the httpx client of the running event loop; `close` is for us to call."""
        return (await self._here()).client

    async def reconfigure(self, **settings: Any) -> None:
        """Replace all settings; connections of the running loop are closed.

        Args:
            **settings: As for the constructor; those not named return to their defaults.

        Raises:
            ValueError: For limits that would let nothing through.
        """
        old = self._clients
        AsyncHttpClient.__init__(self, **settings)
        await old.aclose()

    async def close(self) -> None:
        """Close the connections of the running loop, and those of loops that are gone.

        The client stays usable: the next request opens new connections.
        """
        await self._clients.aclose()

    async def __aenter__(self) -> SafeClient:
        """Give out the httpx client of the running loop, as 0.7 did; calls take it as `client=`."""
        return (await self._here()).client

    async def __aexit__(self, *_: object) -> None:
        await self.close()


AnyClient = AsyncHttpClient | httpx.AsyncClient
"""What calls take as `client=`."""


def manager_of(client: Any) -> Any:
    """Return the `AsyncHttpClient` behind a client, or a client that has none."""
    if isinstance(client, SafeClient):
        return client.manager() or client
    return client


_lock = threading.Lock()
_shared: AsyncHttpClient | None = None


def get_shared_http_client() -> AsyncHttpClient:
    """Return the client that calls without `client=` use, made on first use."""
    global _shared
    if _shared is None:
        with _lock:
            if _shared is None:
                _shared = AsyncHttpClient()
    return _shared


def set_shared_http_client(client: AsyncHttpClient) -> None:
    """Put another client in the place of the shared one, which is not closed."""
    global _shared
    with _lock:
        _shared = client


def reset_shared_http_client(**client_kwargs: Any) -> None:
    """Replace the shared client by a new one with these settings.

    The old one is closed by its event loops when they shut down, or when it is no longer used.
    """
    set_shared_http_client(AsyncHttpClient(**client_kwargs))


async def reconfigure_shared_http_client(**client_kwargs: Any) -> None:
    """Give the shared client other settings and close its connections on the running loop."""
    await get_shared_http_client().reconfigure(**client_kwargs)


async def close_async_http_client() -> None:
    """Close the shared client's connections on the running loop; it stays usable."""
    if _shared is not None:
        await _shared.close()
