"""Requests without a body straight to the engine: cookies and redirects, no object of httpx.

This is the way of nearly every `fetch_async` and download, and several times faster than the one
through `httpx.AsyncClient`, which does the same for everything else.
"""

from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, NamedTuple

import httpx
from multidict import CIMultiDict

from ._async_response import HOP_BODY, Response, response_of
from ._cookies import BoundedCookieJar, cookie_header, cookie_header_after, keep_cookies
from ._redirects import redirect_error, too_many_redirects
from ._response.redirect import BadRedirect, is_redirect, next_request
from .engine._answer import EngineResponse
from .engine._session import Engine, Timeouts
from .engine._target import Target, target_of

if TYPE_CHECKING:
    from ._async_client import LoopClient

__all__ = ["Exchange", "as_response", "send_direct"]


class Exchange(NamedTuple):
    """A request and its answer.

    Attributes:
        method: Of the request.
        target: Of the request.
        headers: Of the request.
        answer: Its body unread, for the last one; read, for the hops before it.
        body: Of a hop.
    """

    method: str
    target: Target
    headers: "CIMultiDict[str]"
    answer: EngineResponse
    body: bytes | None = None

    def request(self, timeouts: Timeouts) -> httpx.Request:
        """Return the request as httpx knows it."""
        return httpx.Request(
            self.method,
            self.target.url,
            # Bytes, since a cookie may have what is not ASCII.
            headers=[(name.encode(), value.encode()) for name, value in self.headers.items()],
            extensions={"timeout": timeouts._asdict()},
        )


async def send_direct(
    here: "LoopClient",
    engine: Engine,
    method: str,
    target: Target,
    headers: "CIMultiDict[str]",
    timeouts: Timeouts,
    *,
    jar: CookieJar | None,
    buffer: int = 65_536,
) -> list[Exchange]:
    """Send a request without a body and follow redirects; return all exchanges, the last unread.

    Args:
        here: Says whether redirects are followed, and how many.
        engine: Carries the requests.
        method: In upper case.
        target: Where to.
        headers: All of them; not changed.
        timeouts: Of each step of each request.
        jar: Cookies are taken from it and kept in it; None to keep them within the redirects.
        buffer: Bytes that may wait unread.

    Raises:
        httpx.TransportError: As httpx would raise it.
        httpx.TooManyRedirects: More than the client's `max_redirects`.
    """
    if jar is not None and "Cookie" not in headers:
        cookie = cookie_header(jar, target.origin[1], target.text)
        if cookie is not None:
            headers = headers.copy()
            headers["Cookie"] = cookie
    done: list[Exchange] = []
    while True:
        answer = await engine.send(method, target, headers=headers, timeout=timeouts, buffer=buffer)
        exchange = Exchange(method, target, headers, answer)
        try:
            if "Set-Cookie" in answer.headers:
                jar = BoundedCookieJar() if jar is None else jar
                request = httpx.Request(method, target.url)
                keep_cookies(jar, request, answer.status, answer.raw_headers)
            location = answer.location
            if not is_redirect(answer.status, location) or not here.client.follow_redirects:
                done.append(exchange)
                return done
            if len(done) >= here.client.max_redirects:
                raise too_many_redirects(exchange.request(timeouts), len(done))
            previous = headers.get("Cookie")
            try:
                following = next_request(
                    method,
                    target.text,
                    headers.items(),
                    status=answer.status,
                    location=location or b"",
                    origin_headers=here.client.origin_headers,
                )
            except BadRedirect as error:
                raise redirect_error(error, exchange.request(timeouts)) from None
            body = await answer.drain(HOP_BODY)
        except BaseException:
            answer.close()
            raise
        done.append(exchange._replace(body=body))
        method, target = following.method, _target(following.url, done[-1], timeouts)
        headers = CIMultiDict(following.headers)
        headers.pop("Cookie", None)
        login = here.login(target, headers)
        if login is not None:
            headers["Authorization"] = login
        cookie = cookie_header_after(previous, jar or BoundedCookieJar(), following)
        if cookie is not None:
            headers["Cookie"] = cookie


def _target(url: str, last: Exchange, timeouts: Timeouts) -> Target:
    try:
        return target_of(url)
    except httpx.InvalidURL as error:  # yarl is stricter than httpx about a few hosts
        host = last.target.origin[1]
        problem = BadRedirect("url", f"{host} redirects to no URL ({error.__cause__})")
        raise redirect_error(problem, last.request(timeouts)) from None


async def as_response(
    done: list[Exchange], timeouts: Timeouts, default_encoding: object
) -> Response:
    """Return the last answer as httpx knows it, its body unread, its `history` set and read."""
    responses = [
        response_of(
            exchange.answer,
            exchange.request(timeouts),
            body=exchange.body,
            default_encoding=default_encoding,
        )
        for exchange in done
    ]
    last = responses.pop()
    for hop in responses:
        await hop.aread_hop()
    last.history = list(responses)
    return last
