"""The first request of a blocking call, with what its session adds to it."""

import re
from collections.abc import Iterable, Iterator
from http.cookiejar import CookieJar
from typing import Any, Final

import httpx
import requests
from requests.structures import CaseInsensitiveDict
from requests.utils import check_header_validity, to_native_string

from ._cookies import BoundedCookieJar
from ._response.decode import length_of
from .engine._pump import Measure
from .engine._target import is_usual, target_of
from .engine.network_settings import NetworkSettings

__all__ = ["prepare", "url_to_ask"]

# As `requests` never has them: mocks, and users of `response.url`, compare texts.
_NO_PATH: Final = re.compile(r"^[a-z]+://[^/?#]+(?=[?#]|$)")
# Without types of their own.
_jar_of: Any = requests.cookies.cookiejar_from_dict
_merge_hooks: Any = requests.sessions.merge_hooks
_merge_setting: Any = requests.sessions.merge_setting
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
        by_netrc = session.trust_env and settings.netrc_path
        if any(name.lower() == "authorization" for name in headers):
            authorization = None
        elif authorization is None and by_netrc and "Authorization" not in session.headers:
            authorization = settings.netrc_authorization(httpx.URL(url).raw_host.decode())
        login = _Login(authorization)
    given = {name: options[name] for name in _PARTS if options.get(name) is not None}
    request = requests.Request(method, url, headers=headers, auth=login, **given)
    if type(session).prepare_request is not _prepare_request:
        return session.prepare_request(request)
    # Not `Session.prepare_request`: requests would encode the URL in its own way, in three times
    # as long.
    prepared = requests.PreparedRequest()
    prepared.method = method.upper()
    if request.params or session.params:
        url = _with_params(url, _merge_setting(request.params, session.params))
    prepared.url = url
    prepared.headers = _headers(session.headers, headers)
    jar: Any = session.cookies
    may_have = jar.may_have(url) if isinstance(jar, BoundedCookieJar) else jar
    if may_have or request.cookies or not isinstance(login, _Login):
        prepared.prepare_cookies(_cookies(jar, request.cookies))
    if given:
        prepared.prepare_body(request.data, request.files, request.json)
    prepared.prepare_content_length(prepared.body)
    prepared.prepare_auth(login)
    prepared.prepare_hooks(_merge_hooks(request.hooks, session.hooks))
    return _framed(prepared)


def _with_params(url: str, params: Any) -> str:
    """Return a URL with parameters added to its query, encoded as requests does it."""
    if not params:
        return url
    whole, mark, fragment = url.partition("#")
    bare, _, query = whole.partition("?")
    _, _, added = str(requests.Request("GET", bare, params=params).prepare().url).partition("?")
    query = "&".join(part for part in (query, added) if part)
    return f"{bare}?{query}{mark}{fragment}" if query else url


def _headers(*layers: Any) -> CaseInsensitiveDict[str]:
    """Return headers whose later layers win; None takes one out."""
    merged: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for layer in layers:
        for name, value in layer.items():
            if value is None:
                merged.pop(name, None)
                continue
            check_header_validity((name, value))
            merged[_native(name)] = value
    return merged


def _cookies(*layers: Any) -> Any:
    merged: Any = requests.cookies.RequestsCookieJar()
    for layer in layers:
        merged.update(layer if isinstance(layer, CookieJar) else _jar_of(layer or {}))
    return merged


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


class _Login(requests.auth.AuthBase):
    """Sends a value of Authorization, and none of netrc, which requests asks by itself."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            r.headers["Authorization"] = self._value
        return r
