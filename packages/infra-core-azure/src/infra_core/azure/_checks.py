"""Checks of numbers and URLs that callers pass: one form of error for all of the package."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from infra_core.runtime import is_async_function

from .exceptions import ConfigurationError

__all__ = [
    "path_of",
    "require_choice",
    "require_mapping",
    "require_number",
    "require_plain_function",
    "split_url",
    "type_name",
]


def path_of(variable: str, value: str) -> Path:
    """The path that a variable holds, with the home folder for a `~` that no shell has expanded."""
    try:
        return Path(value).expanduser()
    except RuntimeError:  # pathlib's, of its own insides
        raise ConfigurationError(
            f"{variable}={value!r:.200} begins with an unknown home folder; set it to an absolute "
            "path"
        ) from None


def require_choice(name: str, value: object, *known: str) -> None:
    """Refuse what is none of the known words.

    Example:
        >>> require_choice("direction", "left", "up", "down")
        Traceback (most recent call last):
        ValueError: direction='left' is unknown; use up, down
    """
    if value not in known:
        raise ValueError(f"{name}={value!r:.80} is unknown; use {', '.join(known)}")


def require_mapping(name: str, value: object) -> None:
    """Refuse what is not a mapping, nor None; its text is not shown, as headers hold secrets.

    Example:
        >>> require_mapping("labels", ["a"])
        Traceback (most recent call last):
        TypeError: labels is a list, which is not a mapping: pass a dict, or None
    """
    if value is not None and not isinstance(value, Mapping):
        kind = type_name(value)
        raise TypeError(f"{name} is {kind}, which is not a mapping: pass a dict, or None")


def require_number(
    name: str,
    value: object,
    allowed: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
) -> None:
    """Refuse what is not a number, or no `whole` one, or lies out of range; NaN does.

    Example:
        >>> require_number("limit", 0, "1 or more", least=1, whole=True)
        Traceback (most recent call last):
        ValueError: limit=0 is out of range: pass 1 or more
    """
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        kind = "whole number" if whole else "number"
        raise TypeError(f"{name}={value!r:.80} is not a {kind}: pass {allowed}")
    try:
        number = float(value)
    except OverflowError:  # larger than any float
        number = math.nan
    if not (number > above and least <= number <= most):
        raise ValueError(f"{name}={value!r} is out of range: pass {allowed}")


def require_plain_function(name: str, function: object) -> None:
    """Refuse a hook that cannot be called, or whose coroutine would be dropped; None is allowed.

    Example:
        >>> require_plain_function("on_timeout", "print")
        Traceback (most recent call last):
        TypeError: on_timeout='print' cannot be called: pass a function, or None
    """
    if function is not None and not callable(function):
        raise TypeError(f"{name}={function!r:.80} cannot be called: pass a function, or None")
    if is_async_function(function):
        raise TypeError(f"{name} is asynchronous, and is not awaited here: pass a plain function")


def type_name(value: object) -> str:
    """Return the name of a value's type with its article.

    Example:
        >>> type_name(5), type_name("5")
        ('an int', 'a str')
    """
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIO" else f"a {name}"


def split_url(url: str) -> SplitResult:
    """Return the parts of an absolute http(s) URL.

    Raises:
        ValueError: It is none, or names a host that no request can be sent to; says why.

    Example:
        >>> split_url("https://app.example:0/api")
        Traceback (most recent call last):
        ValueError: port 0 cannot be connected to
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it does not begin with https:// or http:// and a host")
    if parts.port == 0:
        raise ValueError("port 0 cannot be connected to")
    if parts.netloc.endswith(":"):
        raise ValueError("a port is missing behind the colon")
    if "\\" in url.partition("?")[0] or "%" in parts.netloc.rpartition("@")[2]:
        raise ValueError("no host holds a backslash or %")
    if any(char.isspace() for char in url):
        raise ValueError("no URL holds a blank")
    parts.hostname.encode("idna")  # an empty label (two dots), or one that is too long
    return parts
