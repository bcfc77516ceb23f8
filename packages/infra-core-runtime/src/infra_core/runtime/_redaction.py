"""Keeping secrets out of logs, errors and manifests: one set of names, one set of patterns.

When in doubt a value is hidden: a log line that lost a harmless word can be read, a key that was
logged must be rotated.
"""

import re
from collections.abc import Mapping
from functools import cache
from urllib.parse import unquote_plus

__all__ = [
    "REDACTED",
    "is_secret_name",
    "redact_headers",
    "redact_sas_tokens",
    "redact_secrets",
    "sanitize_url",
]

REDACTED = "<redacted>"

# Secrets only as the whole name: `status_code`, `partition_key` and `bypass` are none. Of these
# the weak ones mean something else in a mapping: {"code": "NotFound"}, {"key": "a.txt"}.
_WEAK = ("code", "key", "pass", "auth")
_WHOLE = ("sig", "pwd")
# Secrets whatever stands before them: `client_secret`, `x-functions-key`, `AccountKey`.
_KEYS = (
    *("api", "access", "account", "client", "encryption", "functions?", "host", "instrumentation"),
    *("master", "private", "secret", "shared", "signing", "storage", "subscription"),
)
_ENDINGS = (
    *("signature", "token", "secret", "password", "passwd", "passphrase", "credentials?"),
    *(f"{kind}[-_. ]?key[12]?" for kind in _KEYS),
)
# Headers whose value is the rest of the line.
_HEADERS = ("authorization", "cookie")

# One of these is in every name above: a text without any is passed over quickly.
_HINTS = ("sig", "code", "key", "pwd", "pass", "auth", "token", "secret", "credential", "cookie")

_ANY_WHOLE = "|".join((*_WHOLE, *_WEAK))
_ANY_ENDING = "|".join((*_ENDINGS, *_HEADERS))
_QUOTE = r"\\*[\"']"  # escaped in JSON within JSON
_QUOTED = rf"b?(?P<q>{_QUOTE})(?:(?!(?P=q))(?:\\.|[^\n\\]))+"


def _words(*words: str, whole: bool = False) -> str:
    """Return a pattern of those words, for after their first letter.

    The search skips quickly to a letter that begins a word, so the whole pattern begins with one
    class of letters, and the words are then tried by the letter that was found.
    """
    branches = []
    for first in dict.fromkeys(word[0] for word in words):
        rests = "|".join(word[1:] for word in words if word[0] == first)
        left = rf"(?<={first})"
        if whole:
            # Begins after something that is no part of a name, after a percent-encoded character,
            # or after an escape that a repr or JSON left in the text (`\n`, `\u0026`).
            left += (
                rf"(?:(?<![\w-]{first})|(?<=%[0-9a-f]{{2}}{first})|(?<=%25[0-9a-f]{{2}}{first})"
                rf"|(?<=\\[nrt]{first})|(?<=\\u0026{first}))"
            )
        branches.append(f"{left}(?:{rests})")
    return f"(?:{'|'.join(branches)})"


@cache
def _named() -> tuple[re.Pattern[str], dict[str, re.Pattern[str]]]:
    """Compile, when the first text is to be redacted and not when the module is imported.

    Returns:
        What finds a secret's name with what separates it from its value, and the patterns of
        values by kind of separator.
    """
    letters = sorted({word[0] for word in (*_WEAK, *_WHOLE, *_ENDINGS, *_HEADERS)})
    strong = f"(?:{_words(*_ENDINGS)}|{_words(*_WHOLE, whole=True)})"
    heads = (
        rf"[{''.join(letters)}{''.join(letters).upper()}](?i:"
        rf"(?<=s)haredaccesssignature(?P<part>\s*=\s*)"
        rf"|{_words(*_HEADERS)}(?P<line>(?:{_QUOTE})?\s*[:=,]\s*)"
        rf"|{strong}(?:(?P<assigned>\s*=\s*)|(?P<encoded>%(?:25)*3d)"
        rf"|(?P<mapped>(?:{_QUOTE}\s*[:,]|\s*:)\s*))"
        rf"|{_words(*_WEAK, whole=True)}(?:(?P<weak_assigned>=)|(?P<weak_encoded>%(?:25)*3d)"
        rf"|(?P<weak_mapped>(?:{_QUOTE})?\s*[:,]\s*)))"
    )
    # Unquoted values end where URLs and connection strings end them. Closing punctuation belongs
    # to the sentence around it; an `&` that begins no parameter and an inner quote to the value.
    bare = (
        r"(?:[^\s&;\"'<>,.)\]}\\]|[,.)\]}](?=[^\s\"'<>&;])|'(?=[\w%+/=.~-])"
        r"|&(?!(?:amp;)?[\w.%~-]+=)|\\(?![nrt\"'u]))+"
    )
    assigned = rf"{_QUOTED}|{bare}"
    encoded = r"(?:(?!%(?:25)*(?:26|3b))[^\s&;\"'<>])+"
    values = {
        "part": rf"{_QUOTED}|[^\s;\"'<>]+",
        "line": (
            rf"{_QUOTED}|(?:bearer|basic|token|apikey|negotiate|sharedkey(?:lite)?)[ ]+[^\s\"',;]+"
            r"|[^\s\"'<][^\n\"']*"  # of a scheme that is not known the whole line
        ),
        "assigned": assigned,
        "encoded": encoded,
        "mapped": rf"{_QUOTED}|[^\s,;&\"'<>\[\]{{}}()\\]+",
        "weak_assigned": assigned,
        "weak_encoded": encoded,
        # An error code or a file name, unless it looks like a key: long and with digits.
        "weak_mapped": rf"(?P<q>{_QUOTE})?(?=[\w+/=~-]{{0,256}}\d)[\w+/=~-]{{16,}}(?![\w+/=~.-])",
    }
    return re.compile(heads), {
        kind: re.compile(value, re.IGNORECASE) for kind, value in values.items()
    }


# user:password@ before a host, also where the password holds a slash, `?` or `#`, and also where
# JSON has escaped the slashes.
_USER_INFO = re.compile(
    r"(:\\?/\\?/)(?:[^\s/?#\"<>\\]+|[^\s/?#@:\"<>\\\[]{0,256}:(?!\d*[/?#])[^\s@\"<>]{0,256})@"
)
_BEARER = r"([Bb](?:earer|asic)[ ]+)(?=\S{0,256}[\d=+/_.-]\S)[\w.~+/=-]{8,}"
_JSON_WEB_TOKEN = r"(eyJ(?<![\w-]eyJ))[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"  # noqa: S105 - a pattern
_PRIVATE_KEY = r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----)[^-]+"


@cache
def _nameless() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Compile what finds secrets that have no name."""
    return (
        (_USER_INFO, rf"\1{REDACTED}@"),
        (re.compile(_BEARER), rf"\1{REDACTED}"),
        (re.compile(_JSON_WEB_TOKEN), REDACTED),
        (re.compile(_PRIVATE_KEY), rf"\1{REDACTED}"),
    )


_NAME = re.compile(rf"(?:{_ANY_WHOLE}|[\w-]*(?:{_ANY_ENDING}))", re.IGNORECASE)
_URL = re.compile(r"([a-z][a-z0-9+.-]*:)?(//[^/?#]*)?([^?#]*)(\?[^#]*)?", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def is_secret_name(name: str) -> bool:
    """Whether a query parameter, header or setting of that name holds a secret.

    Example:
        >>> is_secret_name("x-functions-key"), is_secret_name("status_code")
        (True, False)
    """
    return _NAME.fullmatch(name.strip()) is not None


def redact_secrets(text: str) -> str:
    """Replace every secret in a text by `<redacted>`, wherever it stands.

    Knows tokens and keys in URLs (`sig`, `code`, `key`, `api_key`, `token`..., percent-encoded
    ones within parameters as well), user info, header lines and mappings (`Authorization`,
    `x-functions-key`, cookies), connection strings (`AccountKey`, `SharedAccessSignature`,
    `InstrumentationKey`, `Password`), JSON, bearer credentials and JSON Web Tokens. What is
    redacted already stays as it is.

    Args:
        text: Any text: a message, a traceback, a JSON document. Bytes are decoded, other objects
            are taken as their `str()`.

    Example:
        >>> redact_secrets("GET https://a.example/f?code=abc&id=7 failed")
        'GET https://a.example/f?code=<redacted>&id=7 failed'
    """
    text = _text(text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        text = _redact_named(text)
    for pattern, replacement in _nameless():
        text = pattern.sub(replacement, text)
    return text


def _redact_named(text: str) -> str:
    """Hide every value that follows a secret's name."""
    heads, values = _named()
    done: list[str] = []
    start = 0
    while (head := heads.search(text, start)) is not None:
        value = values[str(head.lastgroup)].match(text, head.end())
        done.append(text[start : head.end()])
        start = head.end()
        if value is not None:
            done.append((value.groupdict().get("q") or "") + REDACTED)
            start = value.end()
    done.append(text[start:])
    return "".join(done)


def redact_sas_tokens(value: str) -> str:
    """Do what `redact_secrets` does, under the name of infra-core 0.7.

    Example:
        >>> redact_sas_tokens("?sv=2024-08-04&sig=ab%2Fc")
        '?sv=2024-08-04&sig=<redacted>'
    """
    return redact_secrets(value)


def redact_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of HTTP headers that may be logged.

    Example:
        >>> redact_headers({"x-functions-key": "abc", "Accept": "*/*"})
        {'x-functions-key': '<redacted>', 'Accept': '*/*'}
    """
    return {
        name: REDACTED if is_secret_name(_text(name)) else redact_secrets(value)
        for name, value in headers.items()
    }


def sanitize_url(url: str) -> str:
    """Return a URL that may be logged: without user info, fragment and secret values.

    Never raises, whatever it is given: not for a bad port, not for text that is no URL, not for
    bytes. Control characters, which could forge log lines, are percent-encoded.

    Args:
        url: Absolute or relative.

    Example:
        >>> sanitize_url("https://user:pw@a.example:8443/f?code=abc&id=7#top")
        'https://a.example:8443/f?code=<redacted>&id=7'
    """
    text = _CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", _text(url))
    text = _USER_INFO.sub(r"\1", text, count=1)
    match = _URL.match(text)
    if match is None:  # cannot be: every part is optional
        return REDACTED
    scheme, authority, path, query = (part or "" for part in match.groups())
    if authority:
        authority = "//" + authority[2:].rpartition("@")[2]
    elif scheme and "@" in path and scheme.lower() != "mailto:":
        scheme, path = "", path.rpartition("@")[2]  # user:password@host, written without scheme
    clean = redact_secrets(f"{scheme}{authority}{path}")
    if not query:
        return clean
    parts = re.split("([&;])", query[1:])
    return f"{clean}?" + "".join(_sanitize_parameter(part) for part in parts)


def _sanitize_parameter(parameter: str) -> str:
    """Hide the value of one `name=value`, also when the secret hides in a URL inside of it."""
    name, equals, value = parameter.partition("=")
    if equals and is_secret_name(_decodings(name)[-1]):
        return f"{name}={REDACTED}" if value else parameter
    if not any(_betrays(level) for level in _decodings(parameter)):
        return parameter
    if any(_betrays(level) for level in _decodings(name)):
        return REDACTED
    return f"{name}={REDACTED}"


def _betrays(text: str) -> bool:
    """Whether a secret stands in a text, or a secret's name with an equals sign."""
    heads, _ = _named()
    named = any("mapped" not in str(head.lastgroup) for head in heads.finditer(text))
    return named or redact_secrets(text) != text


def _decodings(text: str) -> list[str]:
    """Return a text and what percent-decoding makes of it, once, twice and three times."""
    levels = [text]
    while len(levels) < 4 and (plain := unquote_plus(levels[-1])) != levels[-1]:
        levels.append(plain)
    return levels


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - what is logged must not end the work that logs it
        return f"<{type(value).__name__}>"
