"""Arguments that every call takes, refused at the call when they make no sense."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from infra_core.runtime import is_number

from ._errors import InvalidRequestError
from ._intercept import TRUE_CLIENT

__all__ = [
    "DEFAULT_TIMEOUT",
    "DefaultTimeout",
    "check_async_client",
    "check_call",
    "check_callable",
    "check_delay",
    "check_sync_client",
    "check_timeout",
]


class DefaultTimeout(float):
    """Seconds for each step where neither the call nor its client says otherwise."""


DEFAULT_TIMEOUT = DefaultTimeout(30.0)
"""That of requests."""

_TEXT_OR_PAIRS = (Mapping, str, bytes, Sequence)


def check_timeout(timeout: object) -> None:
    """Refuse what is not a number of seconds."""
    if timeout is None or timeout is DEFAULT_TIMEOUT or isinstance(timeout, httpx.Timeout):
        return
    if not (is_number(timeout) and 0 < timeout < math.inf):  # type: ignore[operator]
        raise InvalidRequestError(
            f"timeout={timeout!r} must be a positive number of seconds: pass that, or None"
        )


def check_callable(name: str, value: object, remedy: str) -> None:
    """Refuse what cannot be called; None stands for no function."""
    if value is not None and not callable(value):
        raise InvalidRequestError(
            f"{name} of type {type(value).__name__} cannot be called: pass {remedy}"
        )


def check_delay(delay: float) -> None:
    """Refuse what is not a number of seconds to wait."""
    if not (is_number(delay) and 0 <= delay < math.inf):
        raise InvalidRequestError(f"delay={delay!r} must be a number of seconds: pass 0 or more")


def check_call(max_bytes: object, params: object) -> None:
    """Refuse a bound and a query that make no sense; most calls have neither."""
    if max_bytes is not None and not (is_number(max_bytes) and max_bytes >= 0):  # type: ignore[operator]
        raise InvalidRequestError(
            f"max_bytes={max_bytes!r} is not a size: pass bytes, 0 or more, or None for no bound"
        )
    if params is None:
        return
    if not isinstance(params, _TEXT_OR_PAIRS):
        raise InvalidRequestError(
            f"params of type {type(params).__name__} are not a query: pass a mapping such as "
            "{'page': '2'}"
        )
    if isinstance(params, Sequence) and not isinstance(params, (str, bytes)):
        for pair in params:
            if isinstance(pair, (str, bytes)) or not (
                isinstance(pair, Sequence) and len(pair) == 2
            ):
                raise InvalidRequestError(
                    f"params have an item of type {type(pair).__name__} that is not a pair of name "
                    "and value: pass a mapping such as {'page': '2'}, or a list of pairs"
                )


def check_async_client(client: object) -> None:
    """Refuse what is not an asynchronous client."""
    if not hasattr(client, "get_client") and not isinstance(client, TRUE_CLIENT):
        raise InvalidRequestError(
            f"client of type {type(client).__name__} is not an asynchronous HTTP client: pass an "
            "AsyncHttpClient or an httpx.AsyncClient"
        )


def check_sync_client(client: Any) -> None:
    """Refuse a client that cannot be asked from synchronous code."""
    get = getattr(client, "get", None)
    if not callable(get) or inspect.iscoroutinefunction(get):
        raise InvalidRequestError(
            f"client of type {type(client).__name__} has no get() that blocks: pass a "
            "RequestsHttpClient"
        )
