"""One request, sent once over whichever client, whose answer is handed out with its body unread."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from http.cookiejar import CookieJar
from typing import Any, cast

import httpx

from ._async_client import (
    AnyClient,
    AsyncHttpClient,
    LoopClient,
    get_shared_http_client,
    manager_of,
)
from ._call import FIELDS
from ._checks import DEFAULT_TIMEOUT, DefaultTimeout
from ._headers import defaults_beside, merge_headers
from ._intercept import TRUE_CLIENT, interceptor
from ._redirects import send_direct, send_following
from ._transport_httpx import SafeClient, note_plain, with_params
from .engine._answer import EngineResponse
from .engine._target import httpx_target_of, origin_of, target_of

__all__ = ["here_of", "host_turn", "open_answer", "send_once", "turn_at"]

_STOCK_TIMEOUT = httpx.Timeout(5.0)
_STOCK_HEADERS = {
    "accept": "*/*",
    "connection": "keep-alive",
    "user-agent": f"python-httpx/{httpx.__version__}",
}
_NO_GATE = nullcontext()


async def here_of(client: Any) -> LoopClient | None:
    """Return what a client of ours keeps for this loop; None for any that gives out its own."""
    if getattr(type(client), "get_client", None) is not AsyncHttpClient.get_client:
        return None
    return await cast("AsyncHttpClient", client)._here()


def turn_at(here: LoopClient | None, url: str) -> AbstractAsyncContextManager[object]:
    """Return the turn of a URL's host, to be waited for and held; one at once without a bound."""
    if here is None or here.gate is None:
        return _NO_GATE
    base = here.client.base_url
    return here.gate.slot(origin_of(base.join(url)) if base.raw_host else target_of(url).origin)


async def host_turn(url: str, client: AnyClient | None) -> AsyncExitStack | None:
    """Wait for the turn of a URL's host where the client bounds its requests; None where not."""
    gate = turn_at(await here_of(manager_of(client or get_shared_http_client())), url)
    if gate is _NO_GATE:
        return None
    turn = AsyncExitStack()
    await turn.enter_async_context(gate)
    return turn


async def send_once(
    client: Any,
    here: LoopClient | None,
    method: str,
    url: str,
    headers: dict[str, str],
    timeout: Any,
    *,
    fields: Mapping[str, Any] | None = None,
    jar: CookieJar | None = None,
    buffer: int = 65_536,
    whole: bool = False,
) -> "EngineResponse | httpx.Response":
    """Send a request by the fastest way there is, follow redirects, and leave the body unread.

    Cookies come from and go to `jar` on the fast way, that of the client without one. Where all of
    the body will be read at once (`whole`), the plain call of httpx serves if that is what a mock
    has replaced.
    """
    fields = fields or {}
    if here is not None and here.client.is_closed:  # while its turn was waited for
        here = await here_of(client)
    if here is None:
        http, timeout = await _foreign_client(client, timeout)
        headers = _foreign_headers(http, headers)
    else:
        http, timeouts = here.client, here.timeout_of(timeout)
        if not fields and (engine := here.direct_engine()) is not None:
            target = httpx_target_of(url)
            merged = here.headers_with(headers, target)
            jar = here.jar if jar is None else jar
            return await send_direct(
                here, engine, method, target, merged, timeouts, jar=jar, buffer=buffer
            )
        timeout = timeouts.as_httpx()
    # Of other schemes the client may know what to do with them.
    if not isinstance(url, (str, httpx.URL)) or str(url)[:4].lower() == "http":
        httpx_target_of(url)  # says clearly what is wrong with it
    patched = interceptor()
    if whole and (not isinstance(http, TRUE_CLIENT) or patched == "AsyncClient.request"):
        given = {name: fields.get(name) for name in FIELDS}
        return cast(
            "httpx.Response",
            await http.request(method, url, headers=headers, timeout=timeout, **given),
        )
    if patched is not None:
        note_plain(f"{patched} is patched")
    options = {**fields, "headers": headers, "timeout": timeout}
    if isinstance(http, SafeClient):
        return await http.send(http.build_request(method, url, **options), stream=True)
    params = options.pop("params", None)
    request = with_params(http.build_request(method, url, **options), http, url, params)
    return await send_following(http.send, http, request, follow=http.follow_redirects)


@asynccontextmanager
async def open_answer(
    client: AnyClient | None,
    method: str,
    url: str,
    headers: dict[str, str],
    timeout: Any,
    *,
    turn: AsyncExitStack | None = None,
    **options: Any,
) -> AsyncGenerator[EngineResponse | httpx.Response, None]:
    """Wait for the host's turn, send a request once, and close its answer after the block."""
    async with turn or _NO_GATE:
        holder = manager_of(client or get_shared_http_client())
        here = await here_of(holder)
        async with turn_at(here, url) if turn is None else _NO_GATE:
            answer = await send_once(holder, here, method, url, headers, timeout, **options)
            try:
                yield answer
            finally:
                await answer.aclose()


async def _foreign_client(client: Any, timeout: Any) -> tuple[Any, Any]:
    """Return the client of httpx to send through, and the timeout of a call."""
    if hasattr(client, "get_client"):
        return await client.get_client(), timeout
    if isinstance(timeout, DefaultTimeout):
        # A download allows more than the 5 s of httpx, unless somebody has set these.
        is_set = timeout is DEFAULT_TIMEOUT or client.timeout != _STOCK_TIMEOUT
        timeout = client.timeout if is_set else timeout
    return client, timeout


def _foreign_headers(client: Any, own: dict[str, str]) -> dict[str, str]:
    """Return what to send through somebody else's client: the defaults only where it has none."""
    given = getattr(client, "headers", None)
    pairs = given.items() if isinstance(given, httpx.Headers) else ()
    return merge_headers(defaults_beside(pairs, _STOCK_HEADERS.items()), own)
