"""Keeping secrets out of logs, errors and manifests: one set of names, one set of patterns.

When in doubt a value is hidden: a log line that lost a harmless word can be read, a key that was
logged must be rotated.
"""

import re
from collections.abc import Mapping
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

# Secrets only as the whole name: `status_code`, `partition_key` and `bypass` are none.
_WHOLE = r"(?:sig|code|key|pwd|pass|auth)"
# Secrets whatever stands before them: `client_secret`, `x-functions-key`, `AccountKey`.
_ENDING = (
    r"(?:signature|token|secret|password|passwd|passphrase|credentials?|cookie|authorization|"
    r"(?:api|access|account|functions?|host|master|client|private|shared|signing|encryption|"
    r"storage|subscription|instrumentation|secret)[-_.]?key[12]?)"
)
_NAME = re.compile(rf"(?:{_WHOLE}|[\w.$-]*{_ENDING})", re.IGNORECASE)

# A name begins after something that is no part of a name, a percent-encoded separator or an
# escape such as a literal `\n` or `&`.
_LEFT = r"(?:(?<![\w-])|(?<=%[0-9a-f]{2})|(?<=%25[0-9a-f]{2})|(?<=\\[nrt])|(?<=\\u0026))"
# A quote is opened (perhaps escaped, in JSON within JSON; perhaps of bytes) and closed alike.
_QUOTED = r"b?(?P<q>\\*[\"'])(?:(?!(?P=q))(?:\\.|[^\n]))+"
# Unquoted values end where URLs and connection strings end them. Closing punctuation belongs to
# the sentence around it, an `&` that begins no parameter and an inner quote belong to the value.
_BARE = (
    r"(?:[^\s&;\"'<>,.)\]}\\]|[,.)\]}](?=[^\s\"'<>&;])|'(?=[\w%+/=.~-])|&(?!(?:amp;)?[\w.%~-]+=)"
    r"|\\(?![nrt\"'u]))+"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # Authorization: Bearer abc; a scheme that is not known hides the rest of the line
        (
            rf"({_LEFT}(?:proxy-)?authorization[\"']?\s*[:=,]\s*)"
            rf"(?:(?P<b>b?)(?P<q>\\*[\"'])(?:(?!(?P=q))(?:\\.|[^\n]))+"
            rf"|(?:bearer|basic|token|apikey|negotiate|sharedkey(?:lite)?)[ ]+[^\s\"',;]+"
            rf"|(?!{REDACTED})[^\s\"'][^\n\"']*)",
            rf"\1\g<b>\g<q>{REDACTED}",
        ),
        # user:password@ before a host, also where the password holds an unescaped slash
        (
            r"([a-z][\w+.-]*://)(?:[^\s/?#\"<>\\]+|[^\s/?#@:\"<>\\\[]*:(?!\d*[/?#])[^\s@\"<>]*)@",
            rf"\1{REDACTED}@",
        ),
        # SharedAccessSignature=sv=...&sig=...; up to the end of the connection string's part
        (rf"({_LEFT}SharedAccessSignature\s*=\s*)[^\s;\"'<>]+", rf"\1{REDACTED}"),
        # sig=..., api_key="...", and percent-encoded: sig%3D... up to %26
        (
            rf"({_LEFT}(?:{_WHOLE}=|[\w.$-]*(?:{_ENDING}|{_LEFT}sig)\s*=\s*)(?:b?(?=\\*[\"'])|))"
            rf"(?:(?P<q>\\*[\"'])(?:(?!(?P=q))(?:\\.|[^\n]))+|{_BARE})",
            rf"\1\g<q>{REDACTED}",
        ),
        (
            rf"({_LEFT}(?:{_WHOLE}|[\w.$-]*{_ENDING})%(?:25)*3D)"
            r"(?:(?!%(?:25)*(?:26|3B))[^\s&;\"'<>])+",
            rf"\1{REDACTED}",
        ),
        # x-functions-key: ..., {"password": "..."}, ('x-api-key', '...')
        (
            rf"({_LEFT}(?:sig|pwd|[\w.$-]*{_ENDING})(?:\\*[\"']\s*[:,]|\s*:)\s*(?:b?(?=\\*[\"'])|))"
            r"(?:(?P<q>\\*[\"'])(?:(?!(?P=q))(?:\\.|[^\n]))+|[^\s,;&\"'<>\[\]{}()\\]+)",
            rf"\1\g<q>{REDACTED}",
        ),
        # {"code": "..."}: an error code unless it looks like a key (long, with digits)
        (
            rf"({_LEFT}(?:code|key|auth|pass)(?:\\*[\"'])?\s*[:,]\s*b?\\*[\"']?)"
            r"(?=[\w+/=.~-]*\d)[\w+/=.~-]{16,}",
            rf"\1{REDACTED}",
        ),
        (r"(\b(?:bearer|basic)[ ]+)(?=\S*[\d=+/_.-]\S)[\w.~+/=-]{8,}", rf"\1{REDACTED}"),
        (r"()\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?", REDACTED),  # a JSON Web Token anywhere
    )
)
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
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_sas_tokens(text: str) -> str:
    """Do what `redact_secrets` does, under the name of infra-core 0.7.

    Example:
        >>> redact_sas_tokens("?sv=2024-08-04&sig=ab%2Fc")
        '?sv=2024-08-04&sig=<redacted>'
    """
    return redact_secrets(text)


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
    if equals and value and is_secret_name(_decoded(name)):
        return f"{name}={REDACTED}"
    plain = _decoded(parameter)
    if redact_secrets(plain) != plain or redact_secrets(parameter) != parameter:
        return f"{name}={REDACTED}" if equals and not is_secret_name(name) else REDACTED
    return parameter


def _decoded(text: str) -> str:
    """Undo percent-encoding, also when it was done two or three times."""
    for _ in range(3):
        plain = unquote_plus(text)
        if plain == text:
            break
        text = plain
    return text


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)
