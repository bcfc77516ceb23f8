"""Redirects as `httpx.Request` and `httpx.Response` know them; the rule is `_response.redirect`."""

from typing import Any

import httpx

from ._response.redirect import BadRedirect, is_redirect, next_request

__all__ = ["leads_elsewhere", "location_of", "redirect_error", "redirected_request"]


def location_of(response: httpx.Response) -> bytes | None:
    """Return the first `Location` header, byte for byte; None without one."""
    for name, value in response.headers.raw:
        if name.lower() == b"location":
            return value
    return None


def leads_elsewhere(response: httpx.Response) -> bool:
    """Whether an answer is a redirect that can be followed."""
    return is_redirect(response.status_code, location_of(response))


def redirect_error(error: BadRedirect, request: httpx.Request) -> httpx.TransportError:
    """Return the error of httpx for a `Location` that cannot be followed."""
    kind = httpx.UnsupportedProtocol if error.reason == "scheme" else httpx.RemoteProtocolError
    return kind(str(error), request=request)


def redirected_request(
    request: httpx.Request, response: httpx.Response, cookies: httpx.Cookies
) -> httpx.Request:
    """Build the request that a redirect asks for.

    Args:
        request: The one that was answered.
        response: A redirect with a Location.
        cookies: The client's jar, which knows what belongs to the new URL.

    Raises:
        httpx.RemoteProtocolError: The Location cannot be followed.
        httpx.UnsupportedProtocol: It leads away from HTTP.
        httpx.LocalProtocolError: The body should be sent again and cannot be.
    """
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in _raw(request)]
    try:
        following = next_request(
            request.method,
            request.url,
            headers,
            status=response.status_code,
            location=location_of(response) or b"",
        )
    except BadRedirect as error:
        raise redirect_error(error, request) from None
    sent = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in following.headers]
    content: Any = None
    if following.keeps_body:
        content, length = _body_again(request)
        if length is not None:
            sent.append((b"Content-Length", length))
    return httpx.Request(
        following.method,
        following.url,
        headers=sent,
        cookies=httpx.Cookies(cookies),
        content=content,
        extensions=request.extensions,
    )


def _raw(request: httpx.Request) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in request.headers.raw if name.lower() != b"cookie"]


def _body_again(request: httpx.Request) -> tuple[Any, bytes | None]:
    """Return the body to send once more, and its length where that cannot be seen from it."""
    try:
        return request.content or None, None
    except httpx.RequestNotRead:
        pass
    stream = request.stream
    if getattr(stream, "_is_stream_consumed", False) and getattr(stream, "_is_generator", False):
        raise httpx.LocalProtocolError(
            f"{request.url.host} redirects a {request.method} whose body was streamed and cannot "
            "be read again: pass the body as bytes, or request the final URL",
            request=request,
        )
    length = request.headers.get("content-length")
    return stream, None if length is None else length.encode("ascii")
