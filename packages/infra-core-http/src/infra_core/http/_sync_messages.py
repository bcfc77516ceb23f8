"""Failures of requests, told as the asynchronous half tells its own.

What requests and urllib3 raise keeps its class and its causes; its text names the classes and the
connection pool of those libraries, and is replaced.
"""

import http.client
from collections.abc import Iterable
from urllib.parse import urlsplit

import requests
import urllib3

from infra_core.runtime import redact_secrets, sanitize_url

from ._messages import (
    BROKEN_OFF,
    CUT_SHORT,
    broken_text,
    connect_text,
    connect_timeout_text,
    invalid_text,
    peer,
    reason_of,
    silence_text,
)
from ._sync_errors import HTTPError, InvalidRedirect, TooManyRedirects, UnsupportedRedirect

__all__ = ["chain_of", "retell"]

Timeout = float | tuple[float, float] | None


def chain_of(error: BaseException) -> list[BaseException]:
    """Return an error with all that it wraps: causes, contexts, reasons, arguments."""
    found: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        link = pending.pop()
        if isinstance(link, BaseException) and not any(link is known for known in found):
            found.append(link)
            pending += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return found


def retell(error: requests.RequestException, url: str, timeout: Timeout) -> None:
    """Give an error a text for people, and take the secrets out of those that it wraps.

    Args:
        error: What requests raised.
        url: What was asked for, if the error does not tell.
        timeout: As it was given to requests.
    """
    chain = chain_of(error)
    url = getattr(error.request, "url", None) or url
    text = _text(error, chain, url, timeout)
    for link in chain:
        texts = tuple(redact_secrets(arg) if isinstance(arg, str) else arg for arg in link.args)
        if texts != link.args:
            link.args = texts
    if text is not None:
        error.args = (text,)


def _text(
    error: requests.RequestException,
    chain: list[BaseException],
    url: str,
    timeout: Timeout,
) -> str | None:
    where = _where(url)
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if isinstance(error, (HTTPError, InvalidRedirect, TooManyRedirects, UnsupportedRedirect)):
        return None  # our own text
    if isinstance(error, requests.exceptions.InvalidSchema):
        _, _, target = str(error).partition(" for ")  # it may be that of a redirect
        target = sanitize_url(target.strip("'\"") or url)
        return f"{target!r} cannot be requested: a URL begins with http:// or https://"
    if isinstance(error, requests.exceptions.InvalidURL):
        reason = redact_secrets(str(error).removeprefix("Failed to parse: "))
        form = "https://host[:port]/path"
        return f"{sanitize_url(url)!r} is no URL ({reason}): pass it in the form {form}"
    if isinstance(error, requests.exceptions.ProxyError):
        reason = reason_of(_first(chain, OSError, but=requests.RequestException) or error)
        return f"the proxy did not let the request to {where} through ({reason}): check the proxy"
    if isinstance(error, requests.ConnectTimeout):
        return connect_timeout_text(where, connect)
    if isinstance(error, requests.Timeout) or _first(chain, urllib3.exceptions.ReadTimeoutError):
        return silence_text(where, read)
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return f"{where} sent a compressed body that is damaged: its log may tell why"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"{where} {CUT_SHORT}"
    return _connection_text(chain, where) if isinstance(error, requests.ConnectionError) else None


def _connection_text(chain: list[BaseException], where: str) -> str | None:
    if _first(chain, http.client.RemoteDisconnected):
        return f"{where} {BROKEN_OFF}"
    if broken := _first(chain, http.client.HTTPException):
        return invalid_text(where, broken)
    cause = _first(chain, OSError, but=requests.RequestException)
    if cause is None:
        return None
    if _first(chain, urllib3.exceptions.NewConnectionError, urllib3.exceptions.SSLError):
        return connect_text(where, cause)
    return broken_text(where, reason_of(cause))


def _first(
    chain: Iterable[BaseException],
    *kinds: type[BaseException],
    but: type[BaseException] | None = None,
) -> BaseException | None:
    for link in chain:
        if isinstance(link, kinds) and (but is None or not isinstance(link, but)):
            return link
    return None


def _where(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return peer(parts.hostname or "", port or (443 if parts.scheme == "https" else 80))
