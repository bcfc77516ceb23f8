"""The first request of a blocking call, with what its session adds to it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import httpx
import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import check_header_validity, to_native_string

from ._cookies import BoundedCookieJar
from ._response.body import length_of
from .engine._pump import Measure
from .engine._target import is_usual, target_of
from .engine.network_settings import NetworkSettings

__all__ = ["prepare", "url_to_ask"]

# As `requests` never has them: mocks, and users of `response.url`, compare texts.
_NO_PATH: Final = re.compile(r"^[a-z]+://[^/?#]+(?=[?#]|$)")
# Without types of their own.
_merge_cookies: Any = requests.cookies.merge_cookies
_native: Any = to_native_string
_prepare_request = requests.Session.prepare_request
_PARTS = ("params", "data", "json", "files", "cookies", "hooks")


def prepare(
    session: requests.Session,
    settings: NetworkSettings,
    method: str,
    url: str,
    headers: dict[str, str],
    options: dict[str, Any],
) -> requests.PreparedRequest:
    """Return a request as `Session.request` would send it, but for its URL and netrc."""
    url, authorization = url_to_ask(url)
    login = options.get("auth") or session.auth
    if login is None:
        login = _Login(_authorization(session, settings, url, headers, authorization))
    if type(session).prepare_request is not _prepare_request:
        return session.prepare_request(_request_of(method, url, headers, login, options))
    if not options and not session.params:
        return _prepared_directly(session, method, url, headers, login)
    bare = url.partition("#")[0].partition("?")[0]
    request = _request_of(method, bare, headers, _At(url, login), options)
    return _framed(session.prepare_request(request))


def _framed(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return a request whose body has one length, where requests says chunked beside it."""
    length = length_of([prepared.headers.get("Content-Length") or ""])
    if length is not None:
        prepared.headers.pop("Transfer-Encoding", None)
        body: Any = prepared.body
        if isinstance(body, Iterator) and not hasattr(body, "read"):
            prepared.body = _measured(body, length)  # type: ignore[assignment]
    return prepared


def _measured(body: Iterable[Any], length: int) -> Iterator[Any]:
    measure = Measure(length)
    yield from map(measure.take, body)
    yield measure.end()


def url_to_ask(url: str) -> tuple[str, str | None]:
    """Return a URL in the form in which the asynchronous half sends it, and its credentials.

    One of another scheme than http and https may have an adapter mounted for it, and stays.
    """
    scheme, mark, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    is_http = scheme.lower() in ("http", "https")
    if is_usual(url) if is_http else mark and scheme[:1].isalpha():
        return url, None
    try:
        target = target_of(url)
    except httpx.UnsupportedProtocol as error:
        kinds = requests.exceptions
        kind = kinds.InvalidURL if is_http else kinds.MissingSchema
        raise kind(str(error)) from None
    except httpx.InvalidURL as error:
        raise requests.exceptions.InvalidURL(str(error)) from None
    return _NO_PATH.sub(r"\g<0>/", target.text), target.authorization


def _request_of(
    method: str, url: str, headers: dict[str, str], login: Any, options: dict[str, Any]
) -> requests.Request:
    given = {name: options[name] for name in _PARTS if options.get(name) is not None}
    return requests.Request(method, url, headers=headers, auth=login, **given)


def _authorization(
    session: requests.Session,
    settings: NetworkSettings,
    url: str,
    headers: dict[str, str],
    of_url: str | None,
) -> str | None:
    """Return the credentials to send where neither call nor session has some."""
    if any(name.lower() == "authorization" for name in headers):
        return None
    if of_url is not None:
        return of_url
    if session.trust_env and settings.netrc_path and "Authorization" not in session.headers:
        return settings.netrc_authorization(httpx.URL(url).raw_host.decode())
    return None


def _prepared_directly(
    session: requests.Session, method: str, url: str, headers: dict[str, str], login: Any
) -> requests.PreparedRequest:
    """Do what `Session.prepare_request` does for a request without body, in a third of the time."""
    prepared = requests.PreparedRequest()
    prepared.headers = CaseInsensitiveDict()
    prepared.method = method
    prepared.url = url
    layers: Any = (session.headers, headers)
    for layer in layers:
        for name, value in layer.items():
            if value is None:
                prepared.headers.pop(name, None)
                continue
            check_header_validity((name, value))
            prepared.headers[_native(name)] = value
    jar: Any = session.cookies
    bounded = isinstance(jar, BoundedCookieJar)
    if session.auth is not None or (jar.may_have(url) if bounded else jar):
        jar = requests.cookies.RequestsCookieJar()
        prepared.prepare_cookies(_merge_cookies(jar, session.cookies))
    prepared.prepare_content_length(None)
    prepared.prepare_auth(login)
    prepared.prepare_hooks(session.hooks)
    return prepared


class _Login(requests.auth.AuthBase):
    """Sends a value of Authorization, and none of netrc, which requests asks by itself."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            r.headers["Authorization"] = self._value
        return r


class _At(requests.auth.AuthBase):
    """Gives a request its URL before it is signed: requests would encode it in its own way."""

    def __init__(self, url: str, login: Any) -> None:
        self._url = url
        self._login = requests.auth.HTTPBasicAuth(*login) if isinstance(login, tuple) else login

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        added = (r.url or "").partition("?")[2]
        url, mark, fragment = self._url.partition("#")
        if added:
            bare, _, query = url.partition("?")
            url = f"{bare}?{query}&{added}" if query else f"{bare}?{added}"
        r.url = url + mark + fragment
        signed: requests.PreparedRequest = self._login(r)
        return signed
