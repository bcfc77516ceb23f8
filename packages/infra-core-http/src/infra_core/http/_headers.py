"""Headers: the defaults, how they merge, what may be sent, and what must not leave an origin."""

import re
from collections.abc import Collection, Iterable, Mapping

from infra_core.runtime import is_secret_name

from ._errors import InvalidRequestError

__all__ = [
    "DEFAULT_HEADERS",
    "check_method",
    "check_no_body",
    "checked_headers",
    "defaults_beside",
    "merge_headers",
    "survives_redirect",
]

DEFAULT_HEADERS: dict[str, str] = {
    "User-Agent": (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/124.0.0.0 Safari/537.36"
    ),
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Connection": "keep-alive",
}
"""What a request carries unless the client or the caller says otherwise."""

# RFC 9110, section 5.6.2: a method and a header name are tokens.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, section 5.5: no control character but the tab; others than ASCII have no agreed meaning.
_FORBIDDEN = re.compile(r"[^\t\x20-\x7e]")


def check_method(method: str) -> str:
    """Return the method in upper case."""
    if method == "GET":
        return method
    if not isinstance(method, str) or not _TOKEN.fullmatch(method):
        raise InvalidRequestError(
            f"{method!r} is not an HTTP method: pass a word such as 'GET' or 'POST'"
        )
    return method.upper()


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy whose names and values can be sent as they stand.

    Raises:
        InvalidRequestError: A name that is not a token; a value that is not a string, that has line
            breaks or control characters (header injection), or characters outside of ASCII. The
            value is not repeated in the message, it may be a secret.
    """
    if not headers:
        return {}
    if not hasattr(headers, "items"):
        raise InvalidRequestError(
            f"headers of type {type(headers).__name__} are not a mapping: pass one of names to "
            "values, such as {'Accept': '*/*'}"
        )
    checked: dict[str, str] = {}
    for name, value in headers.items():
        text_name = _as_text(name)
        if text_name is None or not _TOKEN.fullmatch(text_name):
            raise InvalidRequestError(
                f"{name!r} is not a header name: use letters, digits and hyphens, without spaces "
                "or colons"
            )
        text = _as_text(value)
        if text is None:
            raise InvalidRequestError(
                f"the value of header {text_name!r} is of type {type(value).__name__}: pass a "
                "string, or leave the header out"
            )
        if _FORBIDDEN.search(text):
            raise InvalidRequestError(
                f"the value of header {text_name!r} has line breaks, control characters or "
                "characters outside of ASCII: strip it, or percent-encode it"
            )
        checked[text_name] = text.strip(" \t")
    return checked


def check_no_body(headers: Mapping[str, str]) -> None:
    """Refuse headers that announce a body for a request without one.

    The server would wait for it, and the caller for the server, until a timeout ends both.

    Raises:
        InvalidRequestError: Content-Length is not 0, or there is a Transfer-Encoding.
    """
    for name, value in headers.items():
        framing = name.lower()
        if framing == "transfer-encoding" or (framing == "content-length" and value.strip("0")):
            raise InvalidRequestError(
                f"the header {name}: {value} announces a body, and the request has none: leave the "
                "header out, or pass the body (content=, data=, json=)"
            )


def _as_text(value: object) -> str | None:
    """Return header text given as str or bytes; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return None


def merge_headers(
    *layers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> dict[str, str]:
    """Merge layers of headers; a later layer wins whatever the letter case of its names.

    Example:
        >>> merge_headers({"User-Agent": "default", "Accept": "*/*"}, {"user-agent": "mine"})
        {'user-agent': 'mine', 'Accept': '*/*'}
    """
    merged: dict[str, tuple[str, str]] = {}
    for layer in layers:
        pairs = layer.items() if isinstance(layer, Mapping) else layer or ()
        for name, value in pairs:
            merged[name.lower()] = (name, value)
    return dict(merged.values())


def defaults_beside(
    given: Iterable[tuple[str, str]], stock: Collection[tuple[str, str]]
) -> dict[str, str]:
    """Return the default headers that a client does not name.

    What its library gives every client (`stock`, in lower case) no caller has set.
    """
    pairs = {(name.lower(), value) for name, value in given}
    named = {name for name, _ in pairs.difference(stock)}
    return {name: value for name, value in DEFAULT_HEADERS.items() if name.lower() not in named}


def survives_redirect(name: str, *, same_origin: bool) -> bool:
    """Whether a header goes along when a redirect is followed.

    Credentials, by the names that `is_secret_name` knows, stay with their origin. The key of an
    Azure function stays with the function: a redirect leads to another resource, which has not
    been asked for with that key.
    """
    if name.lower() == "x-functions-key":
        return False
    return same_origin or not is_secret_name(name)
