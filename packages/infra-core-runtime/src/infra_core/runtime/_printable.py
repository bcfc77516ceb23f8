"""Text that a terminal and a log line show as it is meant, and do not obey."""

import re
from collections.abc import Callable
from typing import Any

__all__ = ["printable"]

# C0, DEL and C1 controls, the soft hyphen, what is invisible or changes the direction of the text
# (UTR 36, CVE-2021-42574), the separators that some programs take for line breaks, lone
# surrogates, which no encoding writes, and the tag characters.
_UNSHOWN = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
ESCAPED = re.compile(f"[{_UNSHOWN}]")
_ESCAPED_BUT_LINES = re.compile(f"(?![\t\n])[{_UNSHOWN}]")


def printable(value: object, *, keep_lines: bool = False) -> str:
    r"""Return text in which every character that is obeyed instead of shown is escaped.

    Escape sequences of a terminal, line breaks that forge a log line, and marks that turn the
    direction of the text around become `\x1b`, `\n`, `\u202e`. Letters of every script, emoji and
    their joiners stay.

    Args:
        value: Any text; bytes are decoded, other objects are taken as their `str()`.
        keep_lines: Leave line feeds and tabs as they are, for texts of several lines.

    Example:
        >>> print(printable("done\x1b[2J\nERROR forged"))
        done\x1b[2J\nERROR forged
    """
    text = as_text(value)
    if text.isprintable():  # by far the most: no character of category C or Z but the space
        return text
    pattern = _ESCAPED_BUT_LINES if keep_lines else ESCAPED
    return pattern.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def as_text(value: Any, show: Callable[[Any], str] = str) -> str:
    """Return any object as text, without raising: what is logged must not end the work."""
    if show is str and isinstance(value, str):
        return value
    try:
        if show is str and isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "replace")
        return show(value)
    except Exception:  # noqa: BLE001 - a broken or endless __str__
        return f"<{type(value).__name__}>"
