"""The errors of the blocking half: also those of requests, and fit to travel between processes.

`ProcessPoolExecutor`, Dask and the like pickle what a task raises. requests' own errors lose their
answer there, and the requests and answers that errors carry hold credentials; those stay behind.

What requests and urllib3 raise keeps its class and its causes; its text names the classes and the
connection pool of those libraries, and is replaced.
"""

import http.client
import re
import socket
from collections.abc import Iterable
from functools import partial
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from infra_core.runtime import (
    error_chain,
    is_secret_name,
    parse_retry_after,
    redact_secrets,
    sanitize_url,
)

from . import _messages as messages
from ._errors import DeadlineExceeded, OutcomeUnknown, PrivateAddressError
from ._response.status import clean_reason, status_text
from ._sync_wire import BadAnswer
from .engine.network_settings import NetworkSettings, Proxy

__all__ = [
    "READ_RAW",
    "HTTPError",
    "InvalidRedirect",
    "SyncDeadlineExceeded",
    "SyncOutcomeUnknown",
    "SyncPrivateAddressError",
    "Timeout",
    "TooManyRedirects",
    "UnsupportedRedirect",
    "WithAnswer",
    "cut_text",
    "fit_to_travel",
    "retell",
    "status_error",
    "tunnel_answer",
    "without_body",
]


class _SentRequest(requests.PreparedRequest):
    """A request that leaves its credentials and its body behind when it is pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        state = {
            "method": self.method,
            "url": sanitize_url(self.url or ""),
            "headers": _kept(self.headers),
        }
        return requests.PreparedRequest, (), state


def _kept(headers: Any) -> CaseInsensitiveDict[str]:
    pairs = (headers or {}).items()
    # The values too: Location and the like may hold URLs with credentials.
    kept = {
        k: redact_secrets(v) if isinstance(v, str) else v for k, v in pairs if not is_secret_name(k)
    }
    return CaseInsensitiveDict(kept)


def _sent(request: Any) -> Any:
    if type(request) is not requests.PreparedRequest:
        return request
    sent = _SentRequest()
    vars(sent).update(vars(request))
    return sent


def fit_to_travel(error: Any) -> Any:
    """Let an error of requests be pickled without credentials, and return it."""
    if isinstance(error, requests.RequestException):
        error.request = _sent(error.request)
    return error


class WithAnswer(requests.RequestException):
    """An error about an answer that came, whose answer is still there after it was pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        carried = ("response", "request")
        fields = {name: value for name, value in vars(self).items() if name not in carried}
        answer = None if self.response is None else _travelling(self.response)
        return partial(type(self), response=answer), self.args, fields


def _travelling(response: requests.Response) -> requests.Response:
    """Return a copy without credentials, and without the answers before it."""
    copy = without_body(response)
    if vars(response).get("_content") is not False:  # unread, it may never end
        vars(copy).update({name: getattr(response, name) for name in _OF_THE_BODY})
    return copy


def without_body(response: requests.Response) -> requests.Response:
    """Return what is left, without credentials, of an answer whose body could not be read."""
    left = requests.Response()
    left.status_code = response.status_code
    left.reason = clean_reason(response.status_code, response.reason)
    left.url, left.headers = sanitize_url(response.url or ""), _kept(response.headers)
    left.request, left.raw = _sent(response.request), BytesIO()
    return left


_OF_THE_BODY = ("_content", "encoding", "elapsed")


class HTTPError(WithAnswer, requests.HTTPError):
    """An answer that is not a success; a `requests.HTTPError` that can be pickled.

    Attributes:
        retry_after: Seconds that the server asked to wait, or None.
    """

    retry_after: float | None = None


def status_error(
    response: requests.Response,
    method: str | None = None,
    url: str | None = None,
    max_backoff: float | None = None,
) -> HTTPError:
    """Return the error for an answer that is not a success."""
    text = status_text(
        getattr(response.request, "method", None) or method or "",
        response.url or url or "",
        response.status_code,
        response.reason,
        response.headers,
        max_backoff=max_backoff,
    )
    error = HTTPError(text, response=response)
    error.retry_after = parse_retry_after(response.headers)
    return error


class TooManyRedirects(WithAnswer, requests.TooManyRedirects):
    """More redirects than the session follows."""


class InvalidRedirect(WithAnswer, requests.exceptions.InvalidURL):
    """A redirect to what is not a URL."""


class UnsupportedRedirect(WithAnswer, requests.exceptions.InvalidSchema):
    """A redirect that leads away from http and https."""


class SyncPrivateAddressError(PrivateAddressError, requests.ConnectionError):
    """The refusal of `public_only` as users of requests catch it."""

    @classmethod
    def of(cls, error: PrivateAddressError, url: str) -> "SyncPrivateAddressError":
        """Return it for the refusal of a request."""
        host = error.host or urlsplit(url).hostname or ""
        return cls(host, error.address, error.reason, error.remedy)


class SyncDeadlineExceeded(DeadlineExceeded, requests.Timeout):
    """The deadline as users of requests catch it."""

    def __init__(self, message: str) -> None:
        requests.Timeout.__init__(self, message)


class SyncOutcomeUnknown(OutcomeUnknown, requests.RequestException):
    """The lost answer as users of requests catch it."""

    def __init__(self, method: str, url: str, cause: BaseException) -> None:
        super().__init__(method, url, fit_to_travel(cause))
        self.request = getattr(cause, "request", None)


READ_RAW = "stream() and response.raw"
"""How to read a body undecoded."""

_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3}[^\r\n]{0,60})")
# What connecting itself raises, below the errors of PySocks.
_CONNECTING = (ConnectionRefusedError, socket.gaierror, OSError)

Timeout = float | tuple[float, float] | None
"""Seconds for connecting and for each wait for bytes, or a pair of both."""


def retell(error: requests.RequestException, url: str, timeout: Timeout) -> None:
    """Give an error a text for people, and take the secrets out of those that it wraps."""
    chain = list(error_chain(error, suppressed=True))
    url = getattr(error.request, "url", None) or url
    text = _text(error, chain, url, timeout)
    for link in (link for link in chain if not isinstance(link, WithAnswer)):
        texts = tuple(redact_secrets(arg) if isinstance(arg, str) else arg for arg in link.args)
        if texts != link.args:
            link.args = texts
        # Dask pickles what an error wraps with its attributes, such as urllib3's url.
        for name, value in list(vars(link).items()):
            if isinstance(value, str) and (clean := redact_secrets(value)) != value:
                setattr(link, name, clean)
    if text is None and not all(isinstance(arg, str) for arg in error.args):
        text = redact_secrets(str(error))  # what it wraps may hold locks and sockets
    if text is not None:
        error.args = (text,)


def _text(
    error: requests.RequestException,
    chain: list[BaseException],
    url: str,
    timeout: Timeout,
) -> str | None:
    where = _where(url)
    proxy = _proxy_of(chain, url)
    if proxy is not None:
        met = _text_of_proxy(error, chain, proxy, where)
        if met is not None:
            return met
        where = messages.through_proxy(where, proxy.where)
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if isinstance(error, WithAnswer):
        return None  # our own text
    if isinstance(error, requests.exceptions.InvalidSchema):
        _, _, target = str(error).partition(" for ")  # it may be that of a redirect
        target = sanitize_url(target.strip("'\"") or url)
        return f"{target!r} cannot be requested: a URL begins with http:// or https://"
    if isinstance(error, requests.ConnectTimeout):
        return messages.connect_timeout_text(where, connect)
    if isinstance(error, requests.Timeout) or _first(chain, urllib3.exceptions.ReadTimeoutError):
        return messages.silence_text(where, read)
    return _connection_text(chain, where) if isinstance(error, requests.ConnectionError) else None


def cut_text(url: str, error: BaseException) -> str:
    """Say why a body did not come whole."""
    malformed = _first(error_chain(error), BadAnswer)
    where = _where(url)
    return (
        f"{where} {messages.CUT_SHORT}"
        if malformed is None
        else messages.invalid_text(where, malformed)
    )


def _proxy_of(chain: list[BaseException], url: str) -> Proxy | None:
    """Return the proxy that a failed request went through."""
    try:
        named = NetworkSettings.read().proxy_for(url)
    except ValueError:
        named = None
    for link in chain:
        pool: Any = link.pool if isinstance(link, urllib3.exceptions.PoolError) else None
        used = getattr(pool, "proxy", None)
        if used is not None:  # it may be that of the session or the call
            found = Proxy(used.scheme, used.host, used.port or 0, variable="the argument proxies")
            return named if named is not None and named.where == found.where else found
    socks = any(type(link).__module__ == "socks" for link in chain)
    return named if named is not None and named.is_socks and socks else None


def tunnel_answer(chain: list[BaseException]) -> str | None:
    """Return what a proxy answered to CONNECT, such as `403 Forbidden`."""
    for link in chain:
        if isinstance(link, OSError) and (found := _TUNNEL.search(str(link))):
            return found[1]
    return None


def _text_of_proxy(
    error: requests.RequestException, chain: list[BaseException], proxy: Proxy, where: str
) -> str | None:
    """Return the text for what the proxy itself did, None for what lies behind it."""
    answer = tunnel_answer(chain)
    if answer is not None:
        return messages.proxy_refused_text(proxy.where, proxy.variable, answer, where)
    of_socks = [link for link in chain if type(link).__module__ == "socks"]
    if of_socks and type(of_socks[0]).__name__ != "ProxyConnectionError":
        return messages.proxy_refused_text(proxy.where, proxy.variable, str(of_socks[0]), where)
    if not (proxy.is_socks or isinstance(error, requests.exceptions.ProxyError)):
        return None
    inner = next((link for link in chain if type(link) in _CONNECTING), None)
    reason = messages.connect_text(proxy.where, inner or _cause(chain) or error)
    return messages.proxy_connect_text(proxy.variable, reason)


def _connection_text(chain: list[BaseException], where: str) -> str | None:
    if _first(chain, http.client.RemoteDisconnected):
        return f"{where} {messages.BROKEN_OFF}"
    if broken := _first(chain, http.client.HTTPException):
        return messages.invalid_text(where, broken)
    cause = _cause(chain)
    if cause is None:
        return None
    if _first(chain, urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError):
        return messages.connect_text(where, cause)
    return messages.broken_text(where, messages.reason_of(cause))


def _first(chain: Iterable[BaseException], *kinds: type[BaseException]) -> BaseException | None:
    return next((link for link in chain if isinstance(link, kinds)), None)


def _cause(chain: list[BaseException]) -> BaseException | None:
    """Return the first error of the system; those of requests are such by their class alone."""
    return _first((e for e in chain if not isinstance(e, requests.RequestException)), OSError)


def _where(url: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2].lower()
    port = 443 if parts.scheme == "https" else 80
    return place if place.rpartition(":")[2].isdigit() else f"{place}:{port}"
