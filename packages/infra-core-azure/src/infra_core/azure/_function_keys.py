"""The keys that open a function app, kept out of what is shown of its answers.

`redact_secrets` knows a key by the name before it. An answer may repeat the key that it was asked
with alone, so that one is looked for itself, in the forms that JSON, HTML and URLs write it in.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from infra_core.runtime import is_secret_name

if TYPE_CHECKING:
    import httpx

__all__ = ["KEY_HEADER", "change_texts", "keys_in", "keys_sent", "without_keys"]

KEY_HEADER = "x-functions-key"
_SHORTEST = 4  # letters; shorter ones stand in any text


def keys_in(url: object) -> list[str]:
    """Return the keys that stand in the query of a URL, such as its `code`."""
    # `+` is a plus sign in a key and never a blank.
    query = urlsplit(str(url or "")).query.replace("+", "%2B")
    return [text for name, text in parse_qsl(query) if is_secret_name(name)]


def keys_sent(request: "httpx.Request") -> list[str]:
    """Return the keys and tokens that a request was sent with."""
    fields = request.headers.items()
    held = [value.rpartition(" ")[2] for name, value in fields if is_secret_name(name)]
    return [*held, *keys_in(request.url)]


def without_keys(value: Any, *keys: str | None) -> Any:
    """Return text, or what JSON can hold, without keys, in whichever form they stand there.

    Example:
        >>> without_keys({"said": ["no access with a%2Fkey"]}, "a/key")
        {'said': ['no access with <redacted>']}
    """
    known = [key for key in keys if isinstance(key, str) and len(key) >= _SHORTEST]
    forms = "|".join("".join(map(_any_form, key)) for key in known)
    if not forms:
        return value
    found = re.compile(forms, re.IGNORECASE)
    return change_texts(value, lambda text: found.sub("<redacted>", text))


def _any_form(char: str) -> str:
    if char.isalnum():
        return char
    code = ord(char)
    in_url, in_json = rf"%(?:25){{0,4}}{code:02x}", rf"\\{{1,8}}u{code:04x}"
    return rf"(?:\\{{0,8}}{re.escape(char)}|{in_url}|{in_json}|&#(?:{code}|x{code:x});)"


def change_texts(part: Any, change: Callable[[str], str]) -> Any:
    """Return what JSON can hold with each text in it changed, the names of members too."""
    if isinstance(part, str):
        return change(part)
    if isinstance(part, list):
        return [change_texts(inner, change) for inner in part]
    if isinstance(part, dict):
        return {change(name): change_texts(inner, change) for name, inner in part.items()}
    return part
