"""Send one request through a session of requests and follow its redirects by our own rule.

The session's adapters, cookies, authentication and hooks take part, and so do libraries that mock
them; where a redirect leads, what it carries and what a body says is decided as in the
asynchronous half.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import rewind_body

from ._cookies import trimmed
from ._errors import PrivateAddressError, ResponseTooLarge
from ._messages import redirects_text
from ._response.redirect import BadRedirect, NextRequest, is_redirect, next_request
from ._response.status import is_success
from ._sync_adapter import network_of, read_answers
from ._sync_body import attach_decoder, settle_encoding
from ._sync_errors import (
    InvalidRedirect,
    SyncPrivateAddressError,
    Timeout,
    TooManyRedirects,
    UnsupportedRedirect,
    fit_to_travel,
    retell,
    without_body,
)
from ._sync_prepare import prepare
from .engine.network_settings import NetworkSettings

__all__ = ["exchange", "guard"]

# Without types of their own.
_dispatch_hook: Any = requests.hooks.dispatch_hook
_extract_cookies: Any = requests.cookies.extract_cookies_to_jar

_local = threading.local()
# A redirect's body is read so that its connection can be used again, up to this size.
_MAX_REDIRECT_BODY = 65_536
_OWN = {name: getattr(requests.Session, name) for name in ("get", "request", "send")}


def guard(session: Any) -> None:
    """Make a session ready: it follows no redirect itself while a request of ours is under way."""
    if not isinstance(session, requests.Session):
        return  # somebody's stand-in
    for adapter in session.adapters.values():
        read_answers(getattr(adapter, "poolmanager", None))
    original = session.get_redirect_target
    if "get_redirect_target" in vars(session):
        return  # one session for several threads

    def get_redirect_target(resp: requests.Response) -> str | None:
        return None if getattr(_local, "busy", False) else original(resp)

    session.get_redirect_target = get_redirect_target  # type: ignore[method-assign]


@contextmanager
def _busy() -> Iterator[None]:
    before = getattr(_local, "busy", False)
    _local.busy = True
    try:
        yield
    finally:
        _local.busy = before


def exchange(
    session: Any,
    method: str,
    url: str,
    *,
    headers: dict[str, str] | None = None,
    timeout: Timeout | None = None,
    stream: bool = False,
    max_bytes: int | None = None,
    allow_redirects: bool = True,
    **options: Any,
) -> requests.Response:
    """Send a request, and those that redirects ask for, whatever the last status."""
    headers = headers or {}
    sending = _Sending(session, timeout, options)
    if not isinstance(session, requests.Session):
        return sending.as_in_0_7(method, url, headers, stream)
    try:
        with _busy():
            response = sending.first(method, url, headers, stream)
            if not isinstance(response, requests.Response):
                return cast("requests.Response", response)  # of a mock
            if allow_redirects:
                response = sending.follow(response)
        _finish(response, stream, max_bytes)
    except PrivateAddressError as error:
        raise SyncPrivateAddressError.of(error, sending.url or url) from None
    except requests.RequestException as error:
        retell(error, url, timeout)
        fit_to_travel(error)
        raise
    return response


def _finish(response: requests.Response, stream: bool, max_bytes: int | None) -> None:
    """Decode the last answer, and read it unless it is to be streamed."""
    try:
        attach_decoder(response, max_bytes)
        settle_encoding(response, read=not stream)
    except BaseException as error:
        response.close()
        failed = isinstance(error, requests.RequestException)
        if failed and not is_success(response.status_code):
            error.response = without_body(response)  # type: ignore[attr-defined]
        raise


def _lines(response: requests.Response, name: str) -> list[str]:
    """Return the values of a header, which requests joins."""
    raw: Any = getattr(response.raw, "headers", None)
    values: list[str] = raw.getlist(name) if hasattr(raw, "getlist") else []
    return values or ([response.headers[name]] if name in response.headers else [])


def _location(response: requests.Response) -> bytes | None:
    """Return where a redirect leads, byte for byte, None when an answer is not a redirect."""
    value = next(iter(_lines(response, "Location")), None)
    if value is None:
        return None
    # As http.client and we read it; a mock may have what that does not know.
    location = value.encode("latin-1" if max(value, default="") <= "\xff" else "utf-8")
    return location if is_redirect(response.status_code, location) else None


class _Sending:
    """What the requests of one exchange have in common."""

    def __init__(self, session: Any, timeout: Timeout, options: dict[str, Any]) -> None:
        self._session = session
        self._timeout = timeout
        self._options = options
        trusts = getattr(session, "trust_env", False)
        self._settings = NetworkSettings.read() if trusts else NetworkSettings()
        self._by_hand = False  # whether the call or the session has a Cookie header
        self.url = ""  # of the request under way

    def first(self, method: str, url: str, headers: dict[str, str], stream: bool) -> Any:
        """Send the request that was asked for."""
        session, kind = self._session, type(self._session)
        self._by_hand = any(name.lower() == "cookie" for name in (*headers, *session.headers))
        if (
            not vars(session).keys().isdisjoint(("get", "request"))
            or requests.Session.request is not _OWN["request"]
            or kind.get is not _OWN["get"]
        ):  # a mock, or a class of the user's own that answers `get`
            return self.as_in_0_7(method, url, headers, stream)
        if kind.request is not _OWN["request"]:  # a class of the user's own, which does more
            return session.request(
                method, url, headers=headers, timeout=self._timeout, stream=True, **self._options
            )
        prepared = prepare(session, self._settings, method, url, headers, self._options)
        return self._send(prepared)

    def as_in_0_7(
        self, method: str, url: str, headers: dict[str, str], stream: bool
    ) -> requests.Response:
        """Make the call that 0.7 made, which stand-ins and mocks know."""
        given = {**self._options, "headers": headers, "timeout": self._timeout}
        if stream:
            given["stream"] = True
        answer: requests.Response
        if method == "GET" and not self._options:
            answer = self._session.get(url, **given)
        else:
            answer = self._session.request(method, url, **given)
        return answer

    def _send(self, request: requests.PreparedRequest) -> requests.Response:
        session, options = self._session, self._options
        self._bound_cookies(request)
        self.url = request.url or ""
        given = {name: options.get(name) for name in ("proxies", "verify", "cert")}
        network = network_of(session, self._settings, self.url, **given)
        how: dict[str, Any] = {"stream": True, "timeout": self._timeout, **network}
        if "send" in vars(session) or type(session).send is not _OWN["send"]:
            response: requests.Response = session.send(request, allow_redirects=False, **how)
            return response
        started = perf_counter()
        response = session.get_adapter(self.url).send(request, **how)
        response.elapsed = timedelta(seconds=perf_counter() - started)
        attach_decoder(response)  # before a hook reads it
        response = _dispatch_hook("response", request.hooks, response, **how)
        for answer in (*response.history, response):
            if "Set-Cookie" in answer.headers:
                _extract_cookies(session.cookies, answer.request, answer.raw)
        return response

    def follow(self, response: requests.Response) -> requests.Response:
        """Send the requests that redirects ask for, and return the last answer."""
        history: list[requests.Response] = []
        while (location := _location(response)) is not None:
            history.append(response)
            _read_redirect(response)
            if len(history) > self._session.max_redirects:
                text = redirects_text(self._session.max_redirects, response.url)
                raise TooManyRedirects(text, request=response.request, response=response)
            response = self._send(self._next(response, location))
            response.history = list(history)
        return response

    def _next(self, response: requests.Response, location: bytes) -> requests.PreparedRequest:
        request = response.request
        try:
            following = next_request(
                request.method or "GET",
                request.url or "",
                [(_text(name), _text(value)) for name, value in request.headers.items()],
                status=response.status_code,
                location=location,
                set_cookies=_lines(response, "Set-Cookie"),
                jar=self._session.cookies,
                login=self._settings.netrc_authorization,
            )
        except BadRedirect as error:
            kind = UnsupportedRedirect if error.reason == "scheme" else InvalidRedirect
            raise kind(str(error), request=request, response=response) from None
        return _prepared(request, following)

    def _bound_cookies(self, request: requests.PreparedRequest) -> None:
        """Leave out the oldest cookies where there are too many, and what cannot be sent."""
        header = request.headers.get("Cookie")
        if header is None or self._by_hand:
            return
        kept = trimmed(self._session.cookies, header)
        request.headers.pop("Cookie")
        if kept is not None:
            request.headers["Cookie"] = kept


def _prepared(
    request: requests.PreparedRequest, following: NextRequest
) -> requests.PreparedRequest:
    """Return the request that a redirect asks for, as requests sends it."""
    prepared = request.copy()
    prepared.method = following.method
    prepared.url = following.url
    prepared.headers = CaseInsensitiveDict(following.headers)
    if not following.keeps_body:
        prepared.body = None
        return prepared
    body: Any = prepared.body
    if not isinstance(body, (bytes, str, type(None))):
        try:
            rewind_body(prepared)
        except requests.exceptions.UnrewindableBodyError as error:
            raise requests.exceptions.UnrewindableBodyError(
                f"{urlsplit(request.url or '').hostname} redirects a {following.method} whose "
                "body was streamed and cannot be read again: pass the body as bytes, or request "
                "the final URL",
                request=request,
            ) from error
    prepared.prepare_content_length(prepared.body)
    return prepared


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _read_redirect(response: requests.Response) -> None:
    """Read what a redirect says beside its Location, so that the connection can be used again."""
    with suppress(requests.RequestException, ResponseTooLarge):  # that body is not wanted
        attach_decoder(response, _MAX_REDIRECT_BODY)
        _ = response.content
    response.close()
