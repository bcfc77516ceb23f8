"""Requests without a body straight to the engine: cookies and redirects, no object of httpx.

This is the way of nearly every `fetch_async` and download, and several times faster than the one
through `httpx.AsyncClient`, which does the same for everything else.
"""

from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from multidict import CIMultiDict

from ._async_response import HOP_BODY, Response, response_of
from ._cookies import BoundedCookieJar, cookie_header, keep_cookies
from ._redirects import following_of, too_many_redirects
from ._response.redirect import is_redirect
from ._response.status import is_success
from ._response.text import decode_text
from .engine._answer import EngineResponse
from .engine._session import Engine, Timeouts
from .engine._target import Target

if TYPE_CHECKING:
    from ._async_client import LoopClient

__all__ = ["Exchanges", "send_direct"]


class _Exchange(NamedTuple):
    """A request and its answer.

    Attributes:
        method: Of the request.
        target: Of the request.
        headers: Of the request.
        answer: Its body unread, for the last one; read, for the hops before it.
        timeouts: Of the request.
        body: What was read of the answer, as it came.
    """

    method: str
    target: Target
    headers: "CIMultiDict[str]"
    answer: EngineResponse
    timeouts: Timeouts
    body: bytes | None = None

    def request(self) -> httpx.Request:
        """Return the request as httpx knows it."""
        return httpx.Request(
            self.method,
            self.target.url,
            # Bytes, since a cookie may have what is not ASCII.
            headers=[(name.encode(), value.encode()) for name, value in self.headers.items()],
            extensions={"timeout": self.timeouts._asdict()},
        )


class Exchanges:
    """A request, those that its redirects asked for, and the last answer with its body unread."""

    def __init__(self, hops: list[_Exchange], last: _Exchange, default_encoding: Any) -> None:
        self._hops = hops
        self._last = last
        self._default_encoding = default_encoding
        self.target: Target = last.target
        self.answer: EngineResponse = last.answer

    async def text(self) -> str | None:
        """Return the text of a success, None where it is for `response` to find out."""
        answer = self.answer
        if not is_success(answer.status):
            return None
        body = await answer.read()
        if "Content-Encoding" in answer.headers:
            self._last = self._last._replace(body=body)
            return None
        default, kind = self._default_encoding, answer.headers.get("Content-Type")
        if kind is not None and not kind.isascii():
            kind = kind.encode("utf-8", "surrogateescape").decode("latin-1")
        return decode_text(body, kind, None if default == "utf-8" else default)

    async def response(self) -> Response:
        """Return the last answer as httpx knows it, its body unread, its `history` read."""
        *hops, last = [
            response_of(
                exchange.answer,
                exchange.request(),
                body=exchange.body,
                default_encoding=self._default_encoding,
            )
            for exchange in (*self._hops, self._last)
        ]
        for hop in hops:
            await hop.aread_hop()
        last.history = list(hops)
        return last

    async def aclose(self) -> None:
        """Let go of the connection."""
        self.answer.close()


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
) -> Exchanges:
    """Send a request without a body and follow redirects; without a jar each chain has its own."""
    jar = BoundedCookieJar() if jar is None else jar
    if "Cookie" not in headers:
        cookie = cookie_header(jar, target.text)
        if cookie is not None:
            headers = headers.copy()
            headers["Cookie"] = cookie
    done: list[_Exchange] = []
    while True:
        answer = await engine.send(method, target, headers=headers, timeout=timeouts, buffer=buffer)
        exchange = _Exchange(method, target, headers, answer, timeouts)
        try:
            if "Set-Cookie" in answer.headers:
                request = httpx.Request(method, target.url)
                keep_cookies(jar, request, answer.status, answer.raw_headers)
            location = answer.location
            if not is_redirect(answer.status, location) or not here.client.follow_redirects:
                return Exchanges(done, exchange, here.default_encoding)
            if len(done) >= here.client.max_redirects:
                raise too_many_redirects(exchange.request(), len(done))
            following, onward = following_of(
                here.client,
                exchange.request,
                method,
                target.text,
                headers.items(),
                status=answer.status,
                location=location,
                set_cookies=answer.headers.getall("Set-Cookie", ()),
                jar=jar,
            )
            body = await answer.drain(HOP_BODY)
        except BaseException:
            answer.close()
            raise
        done.append(exchange._replace(body=body))
        method, target = following.method, onward
        headers = CIMultiDict(following.headers)
