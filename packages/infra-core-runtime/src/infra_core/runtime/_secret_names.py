"""Which names mean a secret: one list for query parameters, headers, settings and log fields."""

import re
from functools import cache

__all__ = ["is_secret_name"]

# Kinds of keys that are secrets; keys of tables, caches and idempotency are none.
_KEYS = (
    *("access", "account", "api", "app(?:lication)?", "auth", "client", "consumer", "deploy"),
    *("encryption", "functions?", "hmac", "host", "instrumentation", "license", "master"),
    *("private", "sas", "secret", "service", "session", "shared", "signing", "ssh", "storage"),
    *("subscription", "webhook"),
)
# Codes that let somebody in: of OAuth (RFC 6749 and 8628), and of sign-in by mail, phone or app.
_CODES = (
    *("access", "activation", "auth(?:entication|ori[sz]ation)?", "backup", "confirm(?:ation)?"),
    *("device", "login", "mfa", "otp", "pairing", "recovery", "sms", "user", "verif(?:y|ication)"),
)
# Tickets that do; of CAS, WeChat and others. Those of a help desk do not.
_TICKETS = ("access", "auth", "jsapi", "login", "proxy", "session", "verify")
# Secrets whatever stands before them: `client_secret`, `x-functions-key`, `JSESSIONID`.
ENDINGS = (
    *("signature", "token", "secret", "password", "passwd", "passphrase", "passcode"),
    "passkey",
    *("credentials?", "sess(?:ion)?[-_]?id", "verifier", "saml[-_]?(?:response|art(?:ifact)?)"),
    *("wresult", "id[-_]?token[-_]?hint"),  # the token of WS-Federation, that of OpenID Connect
    *(f"{kind}[-_. ]?key" for kind in _KEYS),
    *(f"{kind}[-_]?code" for kind in _CODES),
    *(f"{kind}[-_]?ticket" for kind in _TICKETS),
)
# The same, but in prose a rule may follow: "AZURE_STORAGE_CONNECTION_STRING: must name an account".
AMBIGUOUS_ENDINGS = ("conn(?:ection)?[-_]?str(?:ing)?",)
# Secrets as a word of their own: `sig`, `x-sig`, `db_pwd`; but not `design`.
WORDS = ("sig", "pwd", "pgt(?:id|iou)")
# The same, but in prose they are words like others: "session: closed", "sas: see below".
AMBIGUOUS_WORDS = (
    *("bearer", "creds?", "csrf", "dpop", "hmac", "jwt", "otp", "pin", "psk", "sas", "session"),
    *("sid", "totp", "xsrf"),
)
# Words that mean something else in a mapping: {"auth": "basic"}.
WEAK_WORDS = ("auth", "pass", "assertion")
# Only as the whole name: `status_code`, `partition_key` and `ticket_id` are none. In a mapping they
# mean something else: {"code": "NotFound"}, {"key": "a.txt"}. `ticket` and `pgt` are of CAS, `sign`
# is the signature of Alibaba's and Tencent's URLs.
WEAK_NAMES = ("code", "key", "pgt", "sign", "ticket")
# Headers whose value is the rest of the line.
HEADERS = ("authorization", "cookie")

# What may stand behind a secret's name: `token2`, `X-Hub-Signature-256`, `password_confirmation`.
AFTER = r"(?:[-_]?(?:\d{1,3}|value|hash|confirm(?:ation)?))?"

# One of these is in every name above: a text without any is passed over quickly.
HINTS = (
    *("sig", "code", "key", "pwd", "pass", "auth", "token", "secret", "cred", "cookie", "sess"),
    *("saml", "assertion", "bearer", "srf", "dpop", "hmac", "jwt", "otp", "pin", "psk", "sas"),
    *("sid", "ticket", "verifier", "wresult", "pgt"),
    *("connstr", "conn_str", "conn-str", "nstring", "n_string", "n-string", "ion_str", "ion-str"),
)

_WORDS = "|".join((*WORDS, *AMBIGUOUS_WORDS, *WEAK_WORDS))
_MORE = (*AMBIGUOUS_ENDINGS, *HEADERS, "authentication", "aspsessionid[a-z]{0,16}")
_ENDINGS = "|".join((*ENDINGS, *_MORE))
_WEAK = re.compile("|".join((*WEAK_NAMES, *WEAK_WORDS, "session")), re.IGNORECASE)
# `user[password]`, `auth.token`; what separates the parts is not part of a name.
_PARTS = re.compile(r"[\[\].]+")
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")


@cache
def _strong() -> "re.Pattern[str]":
    # when it is needed: this one takes 2 ms, at each start of a command
    text = rf"(?:(?:[\w-]*[_-])?(?:{_WORDS})|[\w-]*(?:{_ENDINGS})|x-auth-[\w-]+){AFTER}"
    return re.compile(text, re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a query parameter, header, setting or log field of that name holds a secret.

    Example:
        >>> is_secret_name("x-functions-key"), is_secret_name("status_code")
        (True, False)
    """
    name = _UNSEEN.sub("", name)
    if _strong().fullmatch(name) or name.lower() in WEAK_NAMES:
        return True
    parts = _PARTS.split(name)
    return len(parts) > 1 and any(_strong().fullmatch(part) for part in parts)


def is_weak_name(name: str) -> bool:
    """Whether that secret's name has another, harmless meaning in a mapping."""
    return _WEAK.fullmatch(name) is not None
