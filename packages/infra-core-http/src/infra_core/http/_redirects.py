"""Redirects as httpx knows them, and requests without a body straight to the engine.

The rule is `_response.redirect`. `send_direct` is the way of nearly every `fetch_async` and of
downloads, several times faster than the one through `httpx.AsyncClient`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any

import httpx
from multidict import CIMultiDict

from ._async_response import HOP_BODY, Response, ours, response_of
from ._cookies import cookie_header, keep_cookies
from ._messages import redirects_text
from ._response.redirect import BadRedirect, NextRequest, is_redirect, location_of, next_request
from ._response.status import is_success
from ._response.text import decode_text
from .engine._answer import EngineResponse
from .engine._session import Engine
from .engine._target import Target, Timeouts, httpx_target_of
from .engine.network_settings import NetworkSettings

if TYPE_CHECKING:
    from ._async_client import LoopClient

__all__ = [
    "KnowingHosts",
    "redirected_request",
    "send_direct",
    "send_following",
    "text_of",
    "whole_response",
]


class KnowingHosts(httpx.AsyncClient):
    """A client that knows what belongs to a host; others may have attributes of these names."""

    network = NetworkSettings()
    origin_headers: Callable[[str], Mapping[str, str]] | None = None


_AS_SENT = ("utf-8", "surrogateescape")  # bytes of any encoding come out as they went in


def _following(
    client: httpx.AsyncClient,
    asked: Callable[[], httpx.Request],
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    **answer: Any,
) -> tuple[NextRequest, Target]:
    """Return the request that a redirect asks for, by `next_request`, and its target."""
    kind: type[httpx.TransportError] = httpx.RemoteProtocolError
    if isinstance(client, KnowingHosts):
        answer["login"] = client.network.netrc_authorization
        answer["headers_of"] = client.origin_headers
    try:
        following = next_request(method, url, headers, **answer)
        return following, httpx_target_of(following.url)
    except BadRedirect as error:
        kind = httpx.UnsupportedProtocol if error.reason == "scheme" else kind
        text = str(error)
    except httpx.InvalidURL as error:  # yarl is stricter than httpx about a few hosts
        text = f"{asked().url.raw_host.decode()} redirects to no URL ({error.__cause__})"
    raise kind(text, request=asked())


def _too_many_redirects(request: httpx.Request, limit: int) -> httpx.TooManyRedirects:
    """Return the error for a redirect above the limit."""
    return httpx.TooManyRedirects(redirects_text(limit, request.url), request=request)


async def send_following(
    send: Callable[..., Awaitable[httpx.Response]],
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    follow: bool,
    **options: Any,
) -> httpx.Response:
    """Send a request by httpx's own `send`, redirects by our rules, and leave the body unread."""
    history: list[httpx.Response] = []
    response = ours(await send(request, stream=True, follow_redirects=False, **options))
    while follow and is_redirect(response.status_code, location_of(response.headers.raw)):
        try:
            if len(history) >= client.max_redirects:
                raise _too_many_redirects(response.request, client.max_redirects)
            await (response.aread_hop() if isinstance(response, Response) else response.aread())
            request = redirected_request(client, response.request, response)
        except BaseException:
            await response.aclose()
            raise
        history.append(response)
        response = ours(await send(request, stream=True, auth=None, follow_redirects=False))
        response.history = list(history)
    return response


def redirected_request(
    client: httpx.AsyncClient, request: httpx.Request, response: httpx.Response
) -> httpx.Request:
    """Build the request that a redirect asks for, with the client's cookies."""
    following, _ = _following(
        client,
        lambda: request,
        request.method,
        str(request.url),
        [(name.decode(*_AS_SENT), value.decode(*_AS_SENT)) for name, value in request.headers.raw],
        status=response.status_code,
        location=location_of(response.headers.raw) or b"",
        set_cookies=response.headers.get_list("set-cookie"),
        jar=client.cookies.jar,
    )
    sent = following.headers
    content: Any = None
    if following.keeps_body:
        content, length = _body_again(request)
        if length is not None:
            sent.append(("Content-Length", length))
    return httpx.Request(
        following.method,
        following.url,
        headers=[(name.encode(*_AS_SENT), value.encode(*_AS_SENT)) for name, value in sent],
        content=content,
        extensions=request.extensions,
    )


def _body_again(request: httpx.Request) -> tuple[Any, str | None]:
    """Return the body to send once more, and its length where that cannot be seen from it."""
    try:
        return request.content or None, None
    except httpx.RequestNotRead:
        pass
    stream = request.stream
    if getattr(stream, "_is_stream_consumed", False) and getattr(stream, "_is_generator", False):
        raise httpx.LocalProtocolError(
            f"{request.url.raw_host.decode()} redirects a {request.method} whose body was streamed "
            "and cannot be read again: pass the body as bytes, or request the final URL",
            request=request,
        )
    return stream, request.headers.get("content-length")


async def text_of(answer: EngineResponse) -> str | None:
    """Return the text of a success, None where it is for `whole_response` to find out."""
    if not is_success(answer.status):
        return None
    body = await answer.read()
    if "Content-Encoding" in answer.headers:
        return None
    kind = answer.headers.get("Content-Type")
    if kind is not None and not kind.isascii():
        kind = kind.encode("utf-8", "surrogateescape").decode("latin-1")
    default = answer.default_encoding
    return decode_text(body, kind, None if default == "utf-8" else default)


async def whole_response(answer: EngineResponse) -> Response:
    """Return an answer as httpx knows it, its `history` read."""
    *hops, last = [
        response_of(each, each.request(), default_encoding=answer.default_encoding)
        for each in (*answer.history, answer)
    ]
    for hop in hops:
        await hop.aread_hop()
    last.history = list(hops)
    return last


async def send_direct(
    here: "LoopClient",
    engine: Engine,
    method: str,
    target: Target,
    headers: "CIMultiDict[str]",
    timeouts: Timeouts,
    *,
    jar: CookieJar,
    buffer: int = 65_536,
) -> EngineResponse:
    """Send a request without a body and follow redirects."""
    if "Cookie" not in headers:
        cookie = cookie_header(jar, target.text)
        if cookie is not None:
            headers = headers.copy()
            headers["Cookie"] = cookie
    history: list[EngineResponse] = []
    while True:
        answer = await engine.send(method, target, headers=headers, timeout=timeouts, buffer=buffer)
        try:
            if "Set-Cookie" in answer.headers:
                request = httpx.Request(method, target.url)
                keep_cookies(jar, request, answer.status, answer.raw_headers)
            location = answer.location
            if not is_redirect(answer.status, location) or not here.client.follow_redirects:
                answer.history, answer.default_encoding = history, here.default_encoding
                return answer
            if len(history) >= here.client.max_redirects:
                raise _too_many_redirects(answer.request(), len(history))
            following, onward = _following(
                here.client,
                answer.request,
                method,
                target.text,
                headers.items(),
                status=answer.status,
                location=location,
                set_cookies=answer.headers.getall("Set-Cookie", ()),
                jar=jar,
            )
            await answer.drain(HOP_BODY)
        except BaseException:
            answer.close()
            raise
        history.append(answer)
        method, target, headers = following.method, onward, CIMultiDict(following.headers)
