"""The next request after a redirect: pure, one rule for every way a request can travel."""

import httpx

from infra_core.runtime import sanitize_url

from ._checks import host_problem
from ._headers import survives_redirect
from ._targets import origin_of

__all__ = ["redirected_method", "redirected_request"]

_BODY_HEADERS = frozenset({"content-length", "content-type", "transfer-encoding"})
# Made anew for the next hop: the host, and cookies from the jar.
_HOP_HEADERS = frozenset({"host", "cookie"})


def redirected_method(method: str, status: int) -> str:
    """Return the method of the next request (RFC 9110, section 15.4, as browsers do it)."""
    if status == 303 and method != "HEAD":
        return "GET"
    if status == 302 and method != "HEAD":
        return "GET"
    if status == 301 and method == "POST":
        return "GET"
    return method


def redirected_request(
    request: httpx.Request, response: httpx.Response, cookies: httpx.Cookies
) -> httpx.Request:
    """Build the request that a redirect asks for.

    Headers that may carry credentials are left behind when scheme, host or port change: a
    token that follows a redirect to another server is a leaked token. A function key follows none.
    Body headers go with the body.

    Args:
        request: The one that was answered.
        response: A redirect with a Location.
        cookies: The client's jar, which knows what belongs to the new URL.

    Raises:
        httpx.RemoteProtocolError: The Location cannot be followed.
        httpx.UnsupportedProtocol: It leads away from HTTP.
    """
    method = redirected_method(request.method, response.status_code)
    url = _location(request, response)
    same_origin = origin_of(url) == origin_of(request.url)
    headers = [("Host", url.netloc.decode("ascii"))]
    headers += [
        (name, value)
        for name, value in request.headers.multi_items()
        if name not in _HOP_HEADERS
        and survives_redirect(name, same_origin=same_origin)
        and (method == request.method or name not in _BODY_HEADERS)
    ]
    stream = None if method != request.method else request.stream
    return httpx.Request(
        method,
        url,
        headers=headers,
        cookies=httpx.Cookies(cookies),
        stream=stream,
        extensions=request.extensions,
    )


def _location(request: httpx.Request, response: httpx.Response) -> httpx.URL:
    location = response.headers["location"]
    try:
        url = request.url.join(httpx.URL(location))
        if url.port is not None and not 0 < url.port <= 65_535:
            raise httpx.InvalidURL(f"port {url.port} is not within 1 to 65535")
        problem = host_problem(url.raw_host.decode("ascii")) if url.host else None
        if problem:
            raise httpx.InvalidURL(problem)
    except httpx.InvalidURL as error:
        raise httpx.RemoteProtocolError(
            f"{request.url.host} redirects to {sanitize_url(location[:200])!r}, which is no URL "
            f"({error}): tell its owner",
            request=request,
        ) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx.UnsupportedProtocol(
            f"{request.url.host} redirects to a URL of scheme {url.scheme!r}: only http and https "
            "are followed",
            request=request,
        )
    if url.userinfo:  # a server must not decide which password we send
        url = url.copy_with(userinfo=b"")
    if request.url.fragment and not url.fragment:
        url = url.copy_with(fragment=request.url.fragment)
    return url
