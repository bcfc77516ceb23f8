"""Batch and job ids as table keys: any text, escaped reversibly where a key may not hold it.

Azure forbids slash, backslash, `#`, `?` and control characters in a key and limits it to 1 KiB
("Understanding the Table service data model"). An escape is `!x<hex code point>!`:
keys that need none are stored as they are, so rows written by earlier versions stay where they
were. A quotation mark is legal in a key; it is doubled where it appears in an OData literal.
"""

import re

from ..exceptions import JobRecordError

__all__ = ["MAX_KEY_BYTES", "escape_key", "odata_string", "unescape_key"]

MAX_KEY_BYTES = 1024
"""Most bytes of UTF-16 that a key may have (Azure's limit of 1 KiB)."""

# Lone surrogates and the two non-characters cannot travel as UTF-8 or are refused by parsers.
_FORBIDDEN = re.compile(r"[/\\#?\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|!(?=x)")
_ESCAPED = re.compile(r"!x(10[0-9A-F]{4}|[0-9A-F]{1,5})!")


def escape_key(value: str, *, field: str = "key") -> str:
    """Turn an id into a legal table key; `unescape_key` gives it back.

    Raises:
        JobRecordError: The id, named as `field`, is empty, no text, or too long once escaped.

    Example:
        >>> escape_key("runs/2026#1")
        'runs!x2F!2026!x23!1'
    """
    if not isinstance(value, str):
        raise JobRecordError(
            f"{field} is {value!r:.80}: an id must be text; pass text, such as str(number)",
            field=field,
        )
    if not value:
        raise JobRecordError(f"{field} is empty: give every batch and job an id", field=field)
    key = _FORBIDDEN.sub(lambda match: f"!x{ord(match[0]):X}!", value)
    size = len(key) * 2 if key.isascii() else len(key.encode("utf-16-le"))
    if size > MAX_KEY_BYTES:
        raise JobRecordError(
            f"{field} {value[:40]!r}... takes {size:,} bytes as a table key and the limit is "
            f"{MAX_KEY_BYTES:,} (two per character, more for escaped ones); shorten it or use a "
            "hash of it as the id and keep the full text in a field",
            field=field,
        )
    return key


def unescape_key(key: str) -> str:
    """Turn a table key back into the id it was made from."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), key) if "!x" in key else key


def odata_string(value: str) -> str:
    """Quote text as an OData string literal (quotation marks doubled).

    Example:
        >>> odata_string("it's")
        "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"
