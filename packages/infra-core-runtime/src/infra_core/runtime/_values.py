"""What error messages need to know of the values that they are about."""

from numbers import Real

from ._printable import as_text
from ._redaction import redact_secrets

__all__ = ["is_async_function", "is_number", "shown"]

_LONGEST = 200


def is_async_function(function: object) -> bool:
    """Whether calling something only makes a coroutine: an async function, or an object with one.

    Example:
        >>> async def hook() -> None: ...
        >>> is_async_function(hook), is_async_function(print)
        (True, False)
    """
    import asyncio

    called = getattr(function, "__call__", None)  # noqa: B004 - of an object, is it asynchronous?
    return any(map(asyncio.iscoroutinefunction, (function, called)))


def is_number(value: object) -> bool:
    """Whether a value is a real number, of whatever library, and not NaN.

    For checks of arguments: what is not a number, such as text from the environment, is refused by
    name, in the place of a `TypeError` from a comparison in the depths.

    Example:
        >>> is_number(5), is_number("5"), is_number(float("nan"))
        (True, False, False)
    """
    return isinstance(value, Real) and value == value  # NaN equals nothing


def shown(value: object) -> str:
    """Return the `repr` of a caller's value, short and without secrets.

    That of a `functools.partial` holds all of its arguments, such as URLs with their signatures.
    """
    text = redact_secrets(as_text(value, repr))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
