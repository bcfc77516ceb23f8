"""What a function app answers, without I/O: as JSON, and as text without the keys that open it.

`redact_secrets` knows a key by the name before it. An answer may repeat the key that it was asked
with alone, so that one is looked for itself, in the forms that JSON, HTML and URLs write it in.
"""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from infra_core.runtime import is_secret_name, redact_secrets, sanitize_url

if TYPE_CHECKING:
    import httpx

__all__ = [
    "beginning_of", "change_texts", "is_page", "json_of", "json_or_error", "keys_in", "plain",
    "without_keys",
]  # fmt: skip

_SHORTEST_KEY = 4  # letters; shorter ones stand in any text
_SHOWN = 200  # characters of an answer that stand in an error


def _read_json(response: "httpx.Response", **options: Any) -> Any:
    """The JSON of an answer, also in the charset that it names against RFC 8259.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(response.content, **options)
    except UnicodeDecodeError:
        return json.loads(response.text, **options)


def json_of(response: "httpx.Response") -> Any:
    """The JSON of an answer, also where it was serialized twice; `None` for anything else."""
    try:
        value = _read_json(response, object_pairs_hook=_object)
        if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            value = json.loads(value, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: It holds two statuses under one name.
    """
    fields = dict(pairs)
    for name, value in pairs if len(fields) < len(pairs) else ():
        if plain(name) in ("runtimestatus", "status") and value != fields[name]:
            raise ValueError(name)
    return fields


@lru_cache(maxsize=4096)  # the same names in each row of a result
def plain(name: str) -> str:
    """A name as it is compared: `runtimeStatus`, `runtime_status` and `Runtime-Status` are one."""
    return re.sub(r"[\W_]", "", name).lower()


def json_or_error(response: "httpx.Response") -> Any:
    """Return the JSON of an answer, `{}` for an empty body."""
    if not response.content.strip():
        return {}
    try:
        return _read_json(response)
    except json.JSONDecodeError as error:
        kind = response.headers.get("content-type", "no content type")
        raise json.JSONDecodeError(
            f"{sanitize_url(str(response.url))} answered {response.status_code} with {kind}, "
            f"which is not JSON ({error.msg}): check the path, or take the answer as it is "
            "with request()",
            error.doc,
            error.pos,
        ) from None


def is_page(response: "httpx.Response") -> bool:
    """Whether an answer is a page for people, which no function app sends."""
    kind = response.headers.get("content-type", "").lower()
    return "html" in kind or response.content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<"


def beginning_of(response: "httpx.Response") -> str:
    """How an answer begins, for an error: status, kind and first characters, without secrets."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    text = response.content[: 8 * _SHOWN].decode("utf-8", "replace").lstrip("\ufeff")
    shown = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\U0010ffff]", " ", text).split())
    for asked in (*response.history, response):  # a redirect takes the key off the request
        sent = asked.request.headers.items()
        held = [value.rpartition(" ")[2] for name, value in sent if is_secret_name(name)]
        shown = without_keys(shown, *held, *keys_in(asked.request.url))
    shown = redact_secrets(shown)[:_SHOWN]
    status = response.status_code
    return f"{status} ({kind}): {shown!r}" if shown else f"{status} (empty)"


def keys_in(url: object) -> list[str]:
    """Return the keys that stand in the query of a URL, such as its `code`."""
    # `+` is a plus sign in a key and never a blank.
    query = urlsplit(str(url or "")).query.replace("+", "%2B")
    return [text for name, text in parse_qsl(query) if is_secret_name(name)]


def without_keys(value: Any, *keys: str | None) -> Any:
    """Return text, or what JSON can hold, without keys, in whichever form they stand there.

    Example:
        >>> without_keys({"said": ["no access with a%2Fkey"]}, "a/key")
        {'said': ['no access with <redacted>']}
    """
    known = [key for key in keys if isinstance(key, str) and len(key) >= _SHORTEST_KEY]
    if not known:
        return value
    forms = "|".join("".join(map(_any_form, key)) for key in known)
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
