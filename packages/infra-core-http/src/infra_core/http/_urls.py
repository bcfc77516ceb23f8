"""Joining URLs."""

from infra_core.runtime import sanitize_url

from ._errors import InvalidRequestError

__all__ = ["absolute_url"]


def absolute_url(base: str, *segments: str) -> str:
    """Append path segments to a URL, one slash between each, a query kept at the end.

    Segments are taken as they are: quote what came from outside with `urllib.parse.quote`.

    Args:
        base: A URL; slashes at its end do not count.
        *segments: Slashes at either end do not count; empty ones are left out.

    Raises:
        InvalidRequestError: A part is no text.

    Example:
        >>> absolute_url("https://example.com/api/", "runs", "7")
        'https://example.com/api/runs/7'
    """
    for part in (base, *segments):
        if not isinstance(part, str):
            raise InvalidRequestError(
                f"{sanitize_url(part)!r} of type {type(part).__name__} is no part of a URL: pass "
                "text"
            )
    head, mark, tail = base, "", ""
    for position, character in enumerate(base):
        if character in "?#":
            head, mark, tail = base[:position], character, base[position + 1 :]
            break
    parts = [head.rstrip("/"), *(part for part in (s.strip("/") for s in segments) if part)]
    return ("/".join(parts) or "/") + mark + tail
