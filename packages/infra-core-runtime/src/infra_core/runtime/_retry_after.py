"""How long a server asks to wait, in every form that servers say it."""

import re
from collections.abc import Mapping

from . import clock

__all__ = ["parse_retry_after"]

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?")
# Azure services count milliseconds in these; both are more exact than the standard's header.
_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")


def parse_retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return how many seconds the server asks to wait, from any form of the header.

    `retry-after-ms` and `x-ms-retry-after-ms` (Azure) count milliseconds; `Retry-After` counts
    seconds or names a date (RFC 9110, section 10.2.3). A date that is past gives 0.0. What cannot
    be read counts as absent: a malformed header is no reason to fail.

    Args:
        headers: Of the response; a case-insensitive mapping, or one in lower or title case.
        now: Seconds since the epoch, the current time when None.

    Example:
        >>> parse_retry_after({"Retry-After": "120"}), parse_retry_after({"retry-after-ms": "1500"})
        (120.0, 1.5)
    """
    for name in _MILLISECONDS:
        text = _value(headers, name)
        if _NUMBER.fullmatch(text):
            return float(text) / 1000.0
    text = _value(headers, "retry-after")
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        return float(text)
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        current = datetime.fromtimestamp(clock.time() if now is None else now, timezone.utc)
        return max(0.0, (moment - current).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _value(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        value = headers.get(name.title())
    return str(value or "").strip()
