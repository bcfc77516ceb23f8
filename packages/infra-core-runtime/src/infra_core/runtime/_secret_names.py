"""Which names mean a secret: one list for query parameters, headers, settings and log fields."""

import re

__all__ = ["is_secret_name"]

# Kinds of keys that are secrets; keys of tables, caches and idempotency are none.
_KEYS = (
    *("access", "account", "api", "app(?:lication)?", "auth", "client", "consumer", "deploy"),
    *("encryption", "functions?", "hmac", "host", "instrumentation", "license", "master"),
    *("private", "sas", "secret", "service", "session", "shared", "signing", "ssh", "storage"),
    *("subscription", "webhook"),
)
# Secrets whatever stands before them: `client_secret`, `x-functions-key`, `JSESSIONID`.
ENDINGS = (
    *("signature", "token", "secret", "password", "passwd", "passphrase", "passcode"),
    *("credentials?", "sess(?:ion)?[-_]?id", "code[-_]?verifier", "samlresponse"),
    *(f"{kind}[-_. ]?key" for kind in _KEYS),
)
# Secrets as a word of their own: `sig`, `x-sig`, `db_pwd`; but not `design`.
WORDS = ("sig", "pwd")
# The same, but in prose they are words like others: "session: closed", "sas: see below".
AMBIGUOUS_WORDS = (
    *("bearer", "creds?", "csrf", "dpop", "hmac", "jwt", "otp", "pin", "psk", "sas", "session"),
    *("sid", "totp", "xsrf"),
)
# Words that mean something else in a mapping: {"auth": "basic"}.
WEAK_WORDS = ("auth", "pass", "assertion")
# Only as the whole name: `status_code` and `partition_key` are none. In a mapping they mean
# something else: {"code": "NotFound"}, {"key": "a.txt"}.
WEAK_NAMES = ("code", "key")
# Headers whose value is the rest of the line.
HEADERS = ("authorization", "cookie")

# What may stand behind a secret's name: `token2`, `X-Hub-Signature-256`, `password_confirmation`.
AFTER = r"(?:[-_]?(?:\d{1,3}|value|hash|confirm(?:ation)?))?"

# One of these is in every name above: a text without any is passed over quickly.
HINTS = (
    *("sig", "code", "key", "pwd", "pass", "auth", "token", "secret", "cred", "cookie", "sess"),
    *("saml", "assertion", "bearer", "srf", "dpop", "hmac", "jwt", "otp", "pin", "psk", "sas"),
    "sid",
)

_WORDS = "|".join((*WORDS, *AMBIGUOUS_WORDS, *WEAK_WORDS))
_ENDINGS = "|".join((*ENDINGS, *HEADERS, "authentication", "aspsessionid[a-z]{0,16}"))
_STRONG = re.compile(
    rf"(?:(?:[\w-]*[_-])?(?:{_WORDS})|[\w-]*(?:{_ENDINGS})|x-auth-[\w-]+){AFTER}", re.IGNORECASE
)
_WEAK = re.compile("|".join((*WEAK_NAMES, *WEAK_WORDS, "session")), re.IGNORECASE)
# `user[password]`, `auth.token`; what separates the parts is no part of a name.
_PARTS = re.compile(r"[\[\].]+")
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")


def is_secret_name(name: str) -> bool:
    """Whether a query parameter, header, setting or log field of that name holds a secret.

    Example:
        >>> is_secret_name("x-functions-key"), is_secret_name("status_code")
        (True, False)
    """
    name = _UNSEEN.sub("", name)
    if _STRONG.fullmatch(name) or name.lower() in WEAK_NAMES:
        return True
    parts = _PARTS.split(name)
    return len(parts) > 1 and any(_STRONG.fullmatch(part) for part in parts)


def is_weak_name(name: str) -> bool:
    """Whether that secret's name has another, harmless meaning in a mapping."""
    return _WEAK.fullmatch(name) is not None
