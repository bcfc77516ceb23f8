"""Keeping secrets out of logs, errors and manifests: one set of names, one set of patterns.

When in doubt a value is hidden: a log line that lost a harmless word can be read, a key that was
logged must be rotated.
"""

import re
import string
from collections.abc import Mapping
from functools import cache, lru_cache
from urllib.parse import quote, unquote, unquote_plus

from ._printable import ESCAPED, as_text
from ._secret_names import (
    AFTER,
    AMBIGUOUS_ENDINGS,
    AMBIGUOUS_WORDS,
    ENDINGS,
    HEADERS,
    HINTS,
    WEAK_NAMES,
    WEAK_WORDS,
    WORDS,
    is_secret_name,
)

__all__ = [
    "REDACTED",
    "is_secret_name",
    "redact_headers",
    "redact_sas_tokens",
    "redact_secrets",
    "sanitize_url",
]

REDACTED = "<redacted>"

_QUOTE = r"(?:\\*[\"']|&quot;)"  # escaped in JSON within JSON, or in HTML
_QUOTED = rf"b?(?P<q>{_QUOTE})(?:(?!(?P=q))(?:\\.|[^\n\\]))+"
# As long as a key and with digits: no error code, file name or other word.
_LIKE_A_KEY = r"(?=[\w+/=~-]{0,256}\d)[\w+/=~-]{16,}(?![\w+/=~.-])"


# What stands in front of a word is part of it, unless it is a percent-encoded character or an
# escape that a repr or JSON left in the text (`\\n`, `\\u0026`).
_NO_LETTER = r"[^\W_]"
_NO_NAME = r"[\w-]"


def _standing_alone(first: str, left: str) -> str:
    """Return the condition that a word begins with the letter that was just matched."""
    return (
        rf"(?:(?<!{left}{first})|(?<=%[0-9a-f]{{2}}{first})|(?<=%25[0-9a-f]{{2}}{first})"
        rf"|(?<=\\[nrt]{first})|(?<=\\u0026{first}))"
    )


def _heads() -> str:
    """Return the pattern, for text in lower case, of a secret's name and what follows it.

    The search skips quickly to a letter that begins a name, and tries the names of that letter
    only. The group that matched last says what the value looks like.
    """
    # `user[password]=`, `password[]=`, encoded or not
    brackets = (
        rf"(?:(?:{_QUOTE})?\]|\[\w{{0,32}}\]|%(?:25)*5b\w{{0,32}}%(?:25)*5d|%(?:25)*5d){{0,4}}"
    )
    equals = r"%(?:25)*3d"
    strong = (
        rf"{AFTER}(?:{brackets}(?:(?P<assigned>\s*=\s*)|(?P<encoded>{equals}))"
        rf"|(?P<mapped>(?:{_QUOTE}\s*[:,]|\s*:)\s*)|(?P<element>>))"
    )
    ambiguous = (
        rf"{brackets}(?:(?P<assigned>=)|(?P<encoded>{equals}))"
        rf"|(?P<mapped>{_QUOTE}\s*:\s*)|(?P<odd>(?:{_QUOTE})?\s*[:,]\s*)"
    )
    weak = (
        rf"{brackets}(?:(?P<assigned>=)|(?P<encoded>{equals}))"
        rf"|(?P<weak>(?:{_QUOTE})?\s*[:,]\s*)"
    )
    # names, what must not stand before them, what follows them
    kinds = (
        (("sharedaccesssignature",), "", r"(?P<part>\s*=\s*)"),
        (HEADERS, "", rf"(?P<line>(?:{_QUOTE})?\s*[:=,]\s*)"),
        (ENDINGS, "", strong),
        (AMBIGUOUS_ENDINGS, "", ambiguous),
        (WORDS, _NO_LETTER, strong),
        (AMBIGUOUS_WORDS, _NO_LETTER, ambiguous),
        (WEAK_WORDS, _NO_LETTER, weak),
        (WEAK_NAMES, _NO_NAME, weak),
    )
    branches: dict[str, list[str]] = {}
    for number, (words, left, tail) in enumerate(kinds):
        for first in dict.fromkeys(word[0] for word in words):
            alone = _standing_alone(first, left) if left else ""
            rests = "|".join(word[1:] for word in words if word[0] == first)
            unique = re.sub(r"\(\?P<(\w+)>", rf"(?P<\1_{first}{number}>", tail)
            branches.setdefault(first, []).append(f"{alone}(?:{rests})(?:{unique})")
    return "|".join(f"{first}(?:{'|'.join(rests)})" for first, rests in branches.items())


@cache
def _named() -> tuple[re.Pattern[str], dict[str, re.Pattern[str]]]:
    """Compile, when the first text is to be redacted and not when the module is imported.

    Returns:
        What finds a secret's name with what separates it from its value, and the patterns of
        values by kind of separator.
    """
    # Unquoted values end where URLs and connection strings end them. Closing punctuation belongs
    # to the sentence around it; an `&` that begins no parameter and an inner quote to the value.
    # So does a bracket that only looks like the beginning of a tag.
    bare = (
        rf"(?:{REDACTED}(?![\w%+=~<-])|(?:{REDACTED}|<(?![/a-z!]))*"
        r"(?:<(?!redacted>)[^\s&;\"'<>]+>)?(?:[^\s&;\"'<>,.)\]}\\]|[,.)\]}](?=[^\s\"'<>&;])|'(?=[\w%+/=.~-])"
        r"|&(?!(?:amp;)?[\w.%~-]+=)|\\(?![nrt\"'u]))*)"
    )
    values = {
        "part": rf"{_QUOTED}|[^\s;\"'<>]+",
        "line": (
            rf"{_QUOTED}|(?:bearer|basic|token|apikey|negotiate|sharedkey(?:lite)?)[ ]+[^\s\"',;]+"
            # of a scheme that is not known the whole line, as of `Digest username="a", ...`
            r"|[^\s\"'<][^\n\"']*(?:(?:(?<==)|(?<==\\))\"[^\"\n]*\"[^\n\"']*)*"
        ),
        "assigned": rf"{_QUOTED}|{bare}",
        "encoded": r"(?:(?!%(?:25)*(?:26|3b))[^\s&;\"'<>])+",
        "mapped": rf"{_QUOTED}|[^\s,;&\"'<>\[\]{{}}()\\]+",
        "odd": rf"(?P<q>{_QUOTE})?(?:{_LIKE_A_KEY}|\d{{4,10}}(?![\w.-]))",  # a PIN is short
        "weak": rf"(?P<q>{_QUOTE})?{_LIKE_A_KEY}",
        "element": r"[^<\s][^<]{0,8192}(?=</)",
    }
    # `{"name": "API_KEY", "value": "..."}`, as in lists of settings and of headers
    plain = rf"(?:true|false|null|\d{{1,20}}|{_QUOTE}[^\"'\\]{{0,64}}{_QUOTE})"
    between = rf"{_QUOTE}\w{{1,32}}{_QUOTE}\s*:\s*{plain}\s*,\s*"
    values["pair"] = rf"(?:{between}){{0,4}}{_QUOTE}value{_QUOTE}\s*:\s*"
    # and with the value first
    values["turned"] = (
        rf"(?P<head>{_QUOTE}value{_QUOTE}\s*:\s*)(?:{_QUOTED}(?P=q)|[\w.+/=~-]+)"
        rf"(?P<rest>(?:\s*,\s*{_QUOTE}\w{{1,32}}{_QUOTE}\s*:\s*{plain}){{1,5}})"
    )
    return re.compile(_heads()), {
        kind: re.compile(value, re.IGNORECASE) for kind, value in values.items()
    }


_MAPPED = frozenset({"mapped", "odd", "weak", "element"})
_NAMING = ("mapped", "line")  # what a `value` may follow that is the secret
_ASCII_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}


def _lowered(text: str) -> str:
    """Return the text in lower case, every character at its place."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else text.translate(_ASCII_LOWER)


def _kind(head: re.Match[str]) -> str:
    return str(head.lastgroup).partition("_")[0]


# user:password@ before a host, also where the password holds a slash, `?` or `#`, and also where
# JSON has escaped the slashes or browsers would mend them.
_USER_INFO = re.compile(
    r"((?:https?|wss?|ftps?):[/\\]{1,16}|:\\?/\\?/)(?:[^\s/?#\"<>\\]+|[^\s/?#@:\"<>\\\[]{0,256}:(?!\d*[/?#])[^\s@\"<>]{0,256})@"
)
_BEARER = r"([Bb](?:earer|asic)[ ]+)(?=\S{0,256}[\d=+/_.-]\S)[\w.~+/=-]{8,}"
_JSON_WEB_TOKEN = r"(eyJ(?<![\w-]eyJ))[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"  # noqa: S105 - a pattern
_PRIVATE_KEY = r"(-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----)[^-]+"
# Tokens that services make recognizable, so that scanners find them.
_MARKED = (
    r"(?<![\w-])(?:gh[opsur]_|github_pat_|glpat-|glptt-|xox[abeoprs]-|xapp-|[rs]k_(?:live|test)_"
    r"|AIza|npm_|hf_|sk-(?:proj-|ant-)?|pypi-|dop_v1_|shp(?:at|ca|pa|ss)_|whsec_|ya29\.|SG\.)"
    r"(?=[\w.-]{0,64}\d)[\w-]{16,}(?:\.[\w-]{16,})?"
)
# Addresses that let every client that knows them post there.
_BOT = r"(/bot\d{6,12}:)[\w-]{16,}"
_HOOK = (
    r"(hooks\.slack\.com/\w{1,16}/|discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d+/"
    r"|webhook\.office\.com/webhookb2/)[\w@/-]{16,}"
)
_CURL_USER = r"(\s(?:-[uU][ ]?|--(?:proxy-)?user[ =])[\"']?[^\s:\"']{1,256}:)[^\s\"']+"


@cache
def _nameless() -> tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...]:
    """Compile what finds secrets that no name and equals sign stand before.

    Returns:
        Texts of which one must be there, for a quick look; what finds the secret; what replaces
        it.
    """
    options = "|".join((*ENDINGS, *AMBIGUOUS_ENDINGS, *WORDS, *AMBIGUOUS_WORDS, *WEAK_WORDS))
    option = rf"(?i)(--(?:\w{{1,32}}-){{0,4}}(?:{options})[ ]+)[^\s<-]\S*"
    return (
        (("@",), _USER_INFO, rf"\1{REDACTED}@"),
        (("earer", "asic"), re.compile(_BEARER), rf"\1{REDACTED}"),
        (("eyJ",), re.compile(_JSON_WEB_TOKEN), REDACTED),
        (("PRIVATE KEY",), re.compile(_PRIVATE_KEY), rf"\1{REDACTED}"),
        (("",), re.compile(_MARKED), REDACTED),
        (("/bot",), re.compile(_BOT), rf"\1{REDACTED}"),
        (("hook",), re.compile(_HOOK), rf"\1{REDACTED}"),
        (("curl",), re.compile(_CURL_USER), rf"\1{REDACTED}"),
        (("--",), re.compile(option), rf"\1{REDACTED}"),  # of a command line
    )


# Matches any text: every part is optional.
_URL = re.compile(r"([a-z][a-z0-9+.-]*:)?(//[^/?#]*)?([^?#]*)(\?[^#]*)?", re.IGNORECASE)
_TOO_MANY_SLASHES = re.compile(r"\s*((?:https?|wss?|ftps?):)[/\\]*(?=[^/\\])", re.IGNORECASE)


def redact_secrets(text: str) -> str:
    """Replace every secret in a text by `<redacted>`, wherever it stands.

    Knows tokens, keys and sessions in URLs (`sig`, `code`, `api_key`, `token`, `sid`, `jwt`...,
    in parameters of the query and of the path, also where names, values or both are
    percent-encoded, several times over), user info, header lines and mappings (`Authorization`,
    `x-functions-key`, cookies), connection strings (`AccountKey`, `SharedAccessSignature`,
    `InstrumentationKey`, `Password`), JSON, XML, options of command lines, bearer credentials,
    JSON Web Tokens and tokens that a service marks (`ghp_...`). What is redacted already stays as
    it is.

    Args:
        text: Any text: a message, a traceback, a JSON document. Bytes are decoded, other objects
            are taken as their `str()`.

    Example:
        >>> redact_secrets("GET https://a.example/f?code=abc&id=7 failed")
        'GET https://a.example/f?code=<redacted>&id=7 failed'
    """
    text = _redact_plain(as_text(text))
    if "%" in text:
        text = _RUN.sub(_redact_encoded, text)
    return text


def _redact_plain(text: str) -> str:
    """Hide what can be seen without decoding."""
    lowered = _lowered(text)
    if any(hint in lowered for hint in HINTS):
        if "value" in lowered:
            text = _named()[1]["turned"].sub(_redact_turned, text)
            lowered = _lowered(text)
        text = _redact_named(text, lowered)
    for hints, pattern, replacement in _nameless():
        if any(hint in text for hint in hints):
            text = pattern.sub(replacement, text)
    return text


def _redact_turned(pair: re.Match[str]) -> str:
    """Hide a value where it would be hidden behind what follows it."""
    probe = f'{pair["rest"]}, "value": "0"'
    if not _redact_named(probe, _lowered(probe)).endswith(f'{REDACTED}"'):
        return pair[0]
    quote = pair["q"] or ""
    return f"{pair['head']}{quote}{REDACTED}{quote}{pair['rest']}"


_NO_SECRET = "/etc/passwd"  # noqa: S105 - a file, which errors about paths name
_BEFORE = len("/etc/")


def _redact_named(text: str, lowered: str) -> str:
    """Hide every value that follows a secret's name."""
    heads, values = _named()
    done: list[str] = []
    start = 0
    while (head := heads.search(lowered, start)) is not None:
        kind, begin = _kind(head), head.end()
        if kind in _NAMING and (pair := values["pair"].match(text, begin)):
            begin = pair.end()
        value = values[kind].match(text, begin)
        if kind == "mapped" and text.startswith(_NO_SECRET, head.start() - _BEFORE):
            value = None
        done.append(text[start:begin])
        start = begin
        if value is not None and value.end() > start:
            done.append((value.groupdict().get("q") or "") + REDACTED)
            start = value.end()
    done.append(text[start:])
    return "".join(done)


# What may be one URL, or a part of one; and what separates its parameters.
_RUN = re.compile(r"[^\s\"'<>]+")
_DELIMITER = re.compile(r"([&;?#,])")
_ENCODED = re.compile(r"%(?:[0-9a-f]{2}|u[0-9a-f]{4})", re.IGNORECASE)


def _redact_encoded(run: re.Match[str]) -> str:
    """Hide what only shows when names or values are percent-decoded."""
    text = run[0]
    if _ENCODED.search(text) is None:
        return text
    return "".join(
        _sanitize_parameter(part) if "%" in part else part for part in _DELIMITER.split(text)
    )


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
        name: REDACTED if is_secret_name(as_text(name)) else redact_secrets(value)
        for name, value in headers.items()
    }


def sanitize_url(url: str) -> str:
    """Return a URL that may be logged: without user info, fragment and secret values.

    Never raises, whatever it is given: not for a bad port, not for text that is not a URL, not for
    bytes. Characters that could forge log lines or steer a terminal are percent-encoded.

    Args:
        url: Absolute or relative.

    Example:
        >>> sanitize_url("https://user:pw@a.example:8443/f?code=abc&id=7#top")
        'https://a.example:8443/f?code=<redacted>&id=7'
    """
    text = as_text(url)
    return _remembered(text) if len(text) <= _SHORT else _sanitized(text)


def _sanitized(text: str) -> str:
    if not text.isprintable():
        text = ESCAPED.sub(lambda match: quote(match[0], safe="", errors="surrogatepass"), text)
    if "@" in text:
        text = _TOO_MANY_SLASHES.sub(r"\1//", text, count=1)  # as browsers read `https:/u:p@h`
        text = _USER_INFO.sub(r"\1", text)
    scheme, authority, path, query = _URL.match(text).groups("")  # type: ignore[union-attr]
    if authority:
        authority = "//" + authority[2:].rpartition("@")[2]
    elif scheme and "@" in path and scheme.lower() != "mailto:":
        scheme, path = "", path.rpartition("@")[2]  # user:password@host, written without scheme
    if ";" in path:  # parameters of the path, RFC 3986 section 3.3
        path = "".join(_sanitize_parameter(part) for part in re.split("([/;])", path))
    clean = redact_secrets(f"{scheme}{authority}{path}")
    if not query:
        return clean
    parts = re.split("([&;])", query[1:])
    return f"{clean}?" + "".join(_sanitize_parameter(part) for part in parts)


_remembered = lru_cache(1024)(_sanitized)  # a URL is shown several times while it is at work
_SHORT = 1_000


def _sanitize_parameter(parameter: str) -> str:
    """Hide the value of one `name=value`, also when the secret hides in a URL inside of it."""
    name, equals, value = parameter.partition("=")
    names = _decodings(name)
    if equals and (names is None or any(map(is_secret_name, names))):
        return f"{name}={REDACTED}" if value else parameter
    levels = _decodings(parameter)
    if levels is not None and not any(map(_betrays, levels)):
        return parameter
    if not equals or names is None or any(map(_betrays, names)):
        return REDACTED
    return f"{name}={REDACTED}"


def _betrays(text: str) -> bool:
    """Whether a secret stands in a text, or a secret's name with an equals sign."""
    lowered = _lowered(text)
    if any(hint in lowered for hint in HINTS):
        heads, _ = _named()
        if any(_kind(head) not in _MAPPED for head in heads.finditer(lowered)):
            return True
    return _redact_plain(text) != text


_UNICODE_ESCAPE = re.compile("%u([0-9a-f]{4})", re.IGNORECASE)


def _decodings(text: str) -> list[str] | None:
    """Return a text and what percent-decoding makes of it, again and again.

    Returns:
        None for a text that is still encoded after eight times: that is not an accident.
    """
    levels = [text]
    if "%" not in text and "+" not in text:
        return levels
    for _ in range(8):
        # servers of Microsoft decode %u0073 as well
        plain = _UNICODE_ESCAPE.sub(lambda match: chr(int(match[1], 16)), levels[-1])
        plain = unquote_plus(plain)
        if plain == levels[-1]:
            return levels
        levels.append(plain)
    return levels if unquote(levels[-1]) == levels[-1] else None
