"""No secret in any URL, message, header or traceback that leaves the process."""

import string
import time
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.runtime import (
    is_secret_name,
    redact_headers,
    redact_sas_tokens,
    redact_secrets,
    sanitize_url,
)

STRONG_NAMES = [
    "sig",
    "code",
    "api_key",
    "apikey",
    "api-key",
    "key",
    "token",
    "access_token",
    "refresh_token",
    "password",
    "passwd",
    "pwd",
    "secret",
    "client_secret",
    "x-functions-key",
    "AccountKey",
    "SharedAccessKey",
    "signature",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "Ocp-Apim-Subscription-Key",
    "InstrumentationKey",
]
NAMES = [
    *STRONG_NAMES,
    *("session", "sessionid", "session_id", "jsessionid", "PHPSESSID", "ASP.NET_SessionId", "sid"),
    *("connect.sid", "user_session", "jwt", "sas", "bearer", "authkey", "auth_key", "passcode"),
    *("hmac", "otp", "totp", "pin", "id_token", "x-api-key", "auth", "x-auth", "cred", "db_pwd"),
    *("sas_key", "X-JWT-Assertion", "SAMLResponse", "code_verifier", "csrf", "xsrf", "dpop"),
    *("X-Hub-Signature-256", "password2", "password_confirmation", "app_key", "smtp-pass"),
    *("ticket", "oauth_verifier", "pgtId", "pgtIou", "SAMLart", "wresult", "id_token_hint"),
    *("oauth_token", "oauth_signature", "oauth_consumer_key", "client_assertion", "logout_token"),
    *("device_code", "user_code", "authorization_code", "authCode", "verification_code"),
    *("otp_code", "login_ticket", "jsapi_ticket", "connectionstring", "connection_string"),
    *("StorageConnectionString", "connection-string", "conn_str", "sign", "q-signature"),
    *("X-Goog-Signature", "x-oss-signature", "x-oss-credential", "x-cos-security-token"),
    *("AZURE_STORAGE_CONNECTION_STRING", "passkey", "auth_key", "txSecret", "x-obs-security-token"),
    *("user[password]", "token[]", "token[0]", "auth[otp]"),
]
# Secrets as they are in the world, and an end that could not be there by chance.
URL_SAFE = string.ascii_letters + string.digits + "-._~"
secrets = st.text(URL_SAFE, max_size=40).map(lambda text: f"{text}S3CR3T")
anything = st.text(min_size=0, max_size=40).map(lambda text: f"{text}S3CR3T")
names = st.sampled_from(NAMES).flatmap(
    lambda name: st.sampled_from([name, name.upper(), name.lower()])
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/a?sv=1&sig=ab%2Fc%3D&se=2", "https://h/a?sv=1&sig=<redacted>&se=2"),
        ("https://h/f?code=abc==&id=7", "https://h/f?code=<redacted>&id=7"),
        ("https://user:pw@h.example:8443/a#frag", "https://h.example:8443/a"),
        ("https://token@h/a", "https://h/a"),
        ("https://u:p@ss@h/a", "https://h/a"),
        ("/relative?api_key=1", "/relative?api_key=<redacted>"),
        ("//h/a?KEY=1", "//h/a?KEY=<redacted>"),
        ("?sig=1", "?sig=<redacted>"),
        ("https://h/?a=1;password=2;b=3", "https://h/?a=1;password=<redacted>;b=3"),
        ("https://h/?s%69g=1", "https://h/?s%69g=<redacted>"),
        ("https://h/?next=https%3A%2F%2Fx%2F%3Fsig%3D1&b=2", "https://h/?next=<redacted>&b=2"),
        ("https://h/?next=%2568ttps%253A%252F%252Fx%253Fsig%253D1", "https://h/?next=<redacted>"),
        ("https://h:99999/a?sig=1", "https://h:99999/a?sig=<redacted>"),
        ("https://h:port/a?sig=1", "https://h:port/a?sig=<redacted>"),
        ("http://[::1]:80/a?x=1", "http://[::1]:80/a?x=1"),
        ("http://[bad/a?sig=1", "http://[bad/a?sig=<redacted>"),
        ("user:pw@h/a", "h/a"),
        ("https://u:p?ss@h/a?b=1", "https://h/a?b=1"),
        ("https://u:p#ss@h/a?b=1", "https://h/a?b=1"),
        ("postgres://u:pa/ss@h:5432/db", "postgres://h:5432/db"),
        ("https://h:80/?email=a@b", "https://h:80/?email=a@b"),
        ("https://h/?at=x:b@c", "https://h/?at=x:b@c"),
        ("https://[::1]/?a=b@c", "https://[::1]/?a=b@c"),
        ("mailto:someone@h.example", "mailto:someone@h.example"),
        ("https://h/?sig=", "https://h/?sig="),
        ("https://h/?sig%3Dabc=1&b=2", "https://h/?<redacted>&b=2"),
        ("https://h/?sig%3Dabc&b=2", "https://h/?<redacted>&b=2"),
        (
            "https://h/?status_code=404&partition_key=a",
            "https://h/?status_code=404&partition_key=a",
        ),
        ("https://h/a b?q=c d", "https://h/a b?q=c d"),
        ("", ""),
        ("not a url", "not a url"),
        # a secret's name and its equals sign within a value: the value may begin anywhere
        ("https://a.example/?q=token%3D", "https://a.example/?q=<redacted>"),
        ("https://a.example/?q=password%3A", "https://a.example/?q=password%3A"),
        # encoded eight times, and once more: that is no accident
        (f"https://h/?q=a%{'25' * 7}20b", f"https://h/?q=a%{'25' * 7}20b"),
        (f"https://h/?q=a%{'25' * 8}20b", "https://h/?q=<redacted>"),
    ],
)
def test_a_sanitized_url_keeps_everything_but_secrets(url: str, expected: str) -> None:
    """Place and order stay; user info, fragment and secret values go."""
    assert sanitize_url(url) == expected


@pytest.mark.parametrize(
    ("odd", "expected"),
    [(b"https://h/?sig=1\xff", "https://h/?sig=<redacted>"), (None, "None"), (7, "7")],
)
def test_what_is_no_text_is_sanitized_all_the_same(odd: str, expected: str) -> None:
    """Log helpers are handed all kinds of things."""
    assert sanitize_url(odd) == expected


def test_an_object_that_has_no_text_is_sanitized_all_the_same() -> None:
    """Its type is all that can be said of it."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    odd: Any = Broken()
    assert sanitize_url(odd) == redact_secrets(odd) == "<Broken>"


def test_control_characters_cannot_forge_a_log_line() -> None:
    """They are percent-encoded."""
    assert sanitize_url("https://h/a\r\nERROR forged") == "https://h/a%0D%0AERROR forged"


@settings(max_examples=100, deadline=None)
@given(url=st.text() | st.binary() | st.text("htps:/?#[]@&;=%:.\\\"'<>0123456789"))
def test_sanitizing_never_raises(url: str) -> None:
    """Whatever it is given, text comes out, and it is stable."""
    assert isinstance(sanitize_url(url), str)
    assert isinstance(redact_secrets(url), str)


@settings(deadline=None)
@given(name=names, secret=anything, other=st.text(URL_SAFE))
def test_no_secret_parameter_survives_in_a_url(name: str, secret: str, other: str) -> None:
    """Any value, encoded in either way, at any place of the query."""
    for encoded in (quote(secret, safe=""), quote_plus(secret), quote(secret)):
        for query in (
            f"{name}={encoded}",
            f"a={other}&{name}={encoded}&b=2",
            f"a;{name}={encoded}",
        ):
            assert "S3CR3T" not in sanitize_url(f"https://h.example/path?{query}")


@settings(deadline=None)
@given(name=names, secret=anything)
def test_no_secret_survives_in_a_url_within_a_url(name: str, secret: str) -> None:
    """Redirect targets carry keys as well."""
    inner = quote(f"https://x.example/?a=1&{name}={quote(secret, safe='')}&b=2", safe="")
    assert "S3CR3T" not in sanitize_url(f"https://h.example/?a=1&next={inner}&b=2")
    assert "S3CR3T" not in sanitize_url(f"https://h.example/?next={quote(inner)}")


# Names that look like those of secrets, and are none.
HARMLESS = (
    *("pinterest", "spin", "opinion", "session_count", "sessions", "inside", "sidebar", "design"),
    *("assignee", "signed", "signup", "author", "authority", "keyword", "keyboard", "monkey"),
    *("partition_key", "row_key", "sort_key", "idempotency-key", "status_code", "zip_code"),
    *("country_code", "codec", "compass", "bypass", "passenger", "tokens", "max_tokens"),
    *("sasha", "hotpins", "credit", "credits", "bearers", "st", "se", "sp", "sv", "sr"),
    *("q", "page", "id", "next", "filter", "sort", "x", "lang", "utm_source", "v", "name"),
)
plain = st.text(string.ascii_letters + string.digits + "-._~", max_size=12)


def encoded(text: str, times: int, every: bool) -> str:
    """Percent-encode some times over; every character, or those that need it."""
    for _ in range(times):
        text = "".join(f"%{byte:02X}" for byte in text.encode()) if every else quote(text, safe="")
        every = False
    return text


@settings(max_examples=150, deadline=None)
@given(
    name=names,
    secret=secrets,
    query=st.lists(st.tuples(st.sampled_from(HARMLESS), plain), max_size=3),
    at=st.integers(0, 3),
    name_times=st.integers(0, 4),
    value_times=st.integers(0, 4),
    every=st.booleans(),
    place=st.sampled_from(["query", "path", "semicolon", "nested", "text"]),
)
def test_a_secret_never_comes_out_wherever_it_stands(
    name: str,
    secret: str,
    query: list[tuple[str, str]],
    at: int,
    name_times: int,
    value_times: int,
    every: bool,
    place: str,
) -> None:
    """In the query or a parameter of the path, its name and its value encoded up to four times."""
    pair = f"{encoded(name, name_times, every)}={encoded(secret, value_times, every)}"
    others = [f"{key}={value}" for key, value in query]
    if place == "path":
        url = f"https://h.example/a/b;{pair}/c?{'&'.join(others)}"
    elif place == "nested":
        inner = encoded(f"https://i.example/?{pair}", 1 + name_times, False)
        url = f"https://h.example/?{'&'.join([*others, f'next={inner}'])}"
    else:
        others.insert(at, pair)
        url = f"https://h.example/a?{(';' if place == 'semicolon' else '&').join(others)}"
    assert "S3CR3T" not in all_decoded(sanitize_url(url)), url
    line = f'https://h.example:443 "GET {url[17:]} HTTP/1.1" 200 5'  # as urllib3 logs it
    assert "S3CR3T" not in all_decoded(redact_secrets(line)), line


def all_decoded(text: str) -> str:
    """Decode a text until nothing is encoded any more."""
    while (plain := unquote(text)) != text:
        text = plain
    return text


@settings(max_examples=150, deadline=None)
@given(
    path=st.lists(plain, max_size=3),
    query=st.lists(st.tuples(st.sampled_from(HARMLESS), plain), max_size=4),
    spaced=st.booleans(),
)
def test_a_url_without_secrets_comes_out_unchanged(
    path: list[str], query: list[tuple[str, str]], spaced: bool
) -> None:
    """Words that only look like the names of secrets are no reason to hide a value."""
    url = f"https://h.example/{'/'.join(path)}"
    if query:
        url += "?" + "&".join(f"{name}={value}{'%20x' if spaced else ''}" for name, value in query)
    assert sanitize_url(url) == url
    assert redact_secrets(f"GET {url} failed") == f"GET {url} failed"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/a;jsessionid=S3CR3T/b?x=1", "https://h/a;jsessionid=<redacted>/b?x=1"),
        ("https://h/a;v=1;sid=S3CR3T;w=2", "https://h/a;v=1;sid=<redacted>;w=2"),
        ("https://h/a;j%73essionid=S3CR3T", "https://h/a;j%73essionid=<redacted>"),
        ("https://h/?%2573ig=S3CR3T&a=1", "https://h/?%2573ig=<redacted>&a=1"),
        ("https://h/?%u0073ig=S3CR3T", "https://h/?%u0073ig=<redacted>"),
        ("https://h/?si%0Ag=S3CR3T", "https://h/?si%0Ag=<redacted>"),
        ("https://h/?sig%00=S3CR3T", "https://h/?sig%00=<redacted>"),
        ("https://h/?api+key=S3CR3T", "https://h/?api+key=<redacted>"),
        ("https://h/?sig=<S3CR3T>", "https://h/?sig=<redacted>"),
        ("https://h/?sig=<redacted>S3CR3T", "https://h/?sig=<redacted>"),
        ("https://h/?q=%7B%22pin%22%3A%221234%22%7D", "https://h/?q=<redacted>"),
        ("https:///u:S3CR3T@h/", "https://h/"),
        ("https:/u:S3CR3T@h/", "https://h/"),
        (" https:\\\\u:S3CR3T@h/a", "https://h/a"),
        ("https://h/" + "%25" * 20 + "41", "https://h/" + "%25" * 20 + "41"),
        ("https://h/?a=%" + "25" * 20 + "41", "https://h/?a=<redacted>"),
    ],
)
def test_hostile_urls_give_nothing_away(url: str, expected: str) -> None:
    """Names that only a lenient server reads as those of secrets, and places beside the query."""
    assert sanitize_url(url) == expected
    assert "S3CR3T" not in redact_secrets(f"GET {url} failed")


def test_a_name_with_a_tab_in_it_gives_nothing_away() -> None:
    """Browsers take tabs and line breaks out of a URL before they read it."""
    assert sanitize_url("https://h/?si\tg=S3CR3T") == "https://h/?si%09g=<redacted>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run --client-secret S3CR3T -v", "run --client-secret <redacted> -v"),
        ("run --token=S3CR3T", "run --token=<redacted>"),
        ("<AccountKey>S3CR3T</AccountKey>", "<AccountKey><redacted></AccountKey>"),
        ("<td>sig=S3CR3T</td>", "<td>sig=<redacted></td>"),
        ('d["token"] = "S3CR3T"', 'd["token"] = "<redacted>"'),
        ('{"pin": "4711", "otp": 123456}', '{"pin": "<redacted>", "otp": <redacted>}'),
        ("your pin: 4711, thanks", "your pin: <redacted>, thanks"),
        ("pushed with ghp_16C7e42F292c6912E7710c838347Ae178B4a", "pushed with <redacted>"),
        ("curl -u 'me:S3CR3T' -o f", "curl -u 'me:<redacted>' -o f"),
        ("curl --proxy-user me:S3CR3T", "curl --proxy-user me:<redacted>"),
        ('Authorization: Digest a="b", response="S3CR3T"', "Authorization: <redacted>"),
        ('{"name": "API_KEY", "value": "S3CR3T"}', '{"name": "API_KEY", "value": "<redacted>"}'),
        (
            '{"name":"token","type":"string","order":1,"value":"S3CR3T"}',
            '{"name":"token","type":"string","order":1,"value":"<redacted>"}',
        ),
        (
            '{"name": "DB_PASSWORD", "slotSetting": false, "value": "S3CR3T"}',
            '{"name": "DB_PASSWORD", "slotSetting": false, "value": "<redacted>"}',
        ),
        (
            "[{'name': 'Cookie', 'value': 'a=S3CR3T'}, {'name': 'page', 'value': '7'}]",
            "[{'name': 'Cookie', 'value': '<redacted>'}, {'name': 'page', 'value': '7'}]",
        ),
        ('{"value": "S3\\"CR3T", "name": "token"}', '{"value": "<redacted>", "name": "token"}'),
        (
            "{'Value': 'S3CR3T', 'slotSetting': False, 'Key': 'DB_PASSWORD'}, {'value': 7}",
            "{'Value': '<redacted>', 'slotSetting': False, 'Key': 'DB_PASSWORD'}, {'value': 7}",
        ),
        (
            r"{\"value\":\"S3CR3T\",\"type\":\"string\",\"name\":\"API_KEY\"}",
            r"{\"value\":\"<redacted>\",\"type\":\"string\",\"name\":\"API_KEY\"}",
        ),
        (
            '[{"value": "7", "name": "page"}, {"value": 1234, "name": "password"}]',
            '[{"value": "7", "name": "page"}, {"value": <redacted>, "name": "password"}]',
        ),
        ("&quot;token&quot;:&quot;S3CR3T&quot;", "&quot;token&quot;:&quot;<redacted>&quot;"),
        ("the session: closed; auth: basic", "the session: closed; auth: basic"),
        ('{"auth": "basic", "pass": 3}', '{"auth": "basic", "pass": 3}'),
        ("a pin, a session, a key", "a pin, a session, a key"),
    ],
)
def test_secrets_in_other_notations(text: str, expected: str) -> None:
    """Command lines, XML, subscripts, short PINs and tokens that their service marks."""
    assert redact_secrets(text) == expected


KEY = "A1b2C3d4E5f6G7h8I9j0"


@pytest.mark.parametrize(
    "before",
    [
        *("ghp_", "glptt-", "xapp-1-", "sk_live_", "sk_test_", "pypi-", "dop_v1_", "shpat_"),
        *("whsec_", "ya29.a0", f"SG.{KEY}.", "sk-proj-", "npm_", "hf_", "AIza"),
        "https://api.telegram.org/bot123456789:",
        "https://hooks.slack.com/services/T00000000/B00000000/",
        "https://discord.com/api/webhooks/123456789012345678/",
        "https://discordapp.com/api/v9/webhooks/123456789012345678/",
        f"https://a.webhook.office.com/webhookb2/{KEY}@{KEY}/IncomingWebhook/",
    ],
)
def test_tokens_that_their_service_marks_and_addresses_that_are_a_secret(before: str) -> None:
    """Clients log them at INFO, as httpx those of bots."""
    text = f"POST {before}{KEY}"
    for clean in (redact_secrets(text), sanitize_url(f"{before}{KEY}")):
        assert KEY not in clean
    if "://" in before:
        assert redact_secrets(text).startswith(f"POST {before[:24]}")


@settings(deadline=None)
@given(user=anything, password=anything)
def test_no_user_info_survives_in_a_url(user: str, password: str) -> None:
    """Escaped or, but for the delimiters, raw."""
    quoted = f"{quote(user, safe='')}:{quote(password, safe='')}"
    assert "S3CR3T" not in sanitize_url(f"https://{quoted}@h.example/a")
    raw = "".join(f"{user}:{password}".translate({ord(c): None for c in "/?#"}))
    assert "S3CR3T" not in sanitize_url(f"https://{raw}@h.example/a")


@settings(deadline=None)
@given(name=names, secret=secrets, before=st.text(), after=st.text())
def test_no_secret_url_survives_in_a_longer_text(
    name: str, secret: str, before: str, after: str
) -> None:
    """In the middle of whatever else a message says."""
    message = f"{before} GET https://u:{secret}@h.example/a?x=1&{name}={secret}&y=2 {after}"
    assert "S3CR3T" not in redact_secrets(message)
    assert "S3CR3T" not in redact_secrets(repr(message))
    assert "S3CR3T" not in redact_sas_tokens(message)


@settings(deadline=None)
@given(name=names, secret=secrets)
def test_no_secret_survives_in_any_usual_notation(name: str, secret: str) -> None:
    """Assignments, parameters and connection strings, bare and quoted."""
    for text in (
        f"{name}={secret}",
        f"call({name}={secret!r}, timeout=3)",
        f'{{"a": 1, "url": "https://h/?{name}={secret}"}}',
        f"a=1;{name}={secret};b=2",
        f"https%3A%2F%2Fh%2F%3F{name}%3D{secret}%26b%3D2",
        f"https%253A%252F%252Fh%252F%253F{name}%253D{secret}%2526b",
        f"line\\n{name}={secret}\\nline",
        f"https://h/?a=1\\u0026{name}={secret}\\u0026b=2",
        f"&amp;{name}={secret}&amp;b=2",
    ):
        assert "S3CR3T" not in redact_secrets(text), text


@settings(deadline=None)
@given(name=st.sampled_from([n for n in STRONG_NAMES if n not in {"code", "key"}]), secret=secrets)
def test_no_secret_survives_in_mappings_and_header_lines(name: str, secret: str) -> None:
    """JSON, JSON in JSON, Python dicts, header lists of str and bytes, header lines."""
    json = f'{{"{name}": "{secret}", "b": 2}}'
    for text in (
        json,
        json.replace('"', '\\"'),
        repr({name: secret}),
        repr([(name, secret)]),
        repr([(name.encode(), secret.encode())]),
        f"{name}: {secret}",
        f"POST / HTTP/1.1\r\n{name}: {secret}\r\nAccept: */*",
    ):
        assert "S3CR3T" not in redact_secrets(text), text


@settings(deadline=None)
@given(secret=st.text(URL_SAFE, min_size=8).map(lambda text: f"{text}S3CR3T"))
def test_no_credential_survives_in_authorization(secret: str) -> None:
    """Whatever the scheme and the notation."""
    for scheme in (
        "Bearer",
        "bearer",
        "Basic",
        "SharedKey account:",
        "Digest username=x, response",
    ):
        for text in (
            f"Authorization: {scheme}{secret}",
            f"proxy-authorization: {scheme}{secret}\r\nAccept: */*",
            repr({"Authorization": f"{scheme}{secret}"}),
            repr([(b"authorization", f"{scheme}{secret}".encode())]),
        ):
            assert "S3CR3T" not in redact_secrets(text), text
    assert "S3CR3T" not in redact_secrets(f"sent Bearer {secret}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=ab+/c==;EndpointSuffix=x",
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=<redacted>;EndpointSuffix=x",
        ),
        (
            "BlobEndpoint=https://a/;SharedAccessSignature=sv=1&ss=b&sig=ab%2F;TableEndpoint=x",
            "BlobEndpoint=https://a/;SharedAccessSignature=<redacted>;TableEndpoint=x",
        ),
        (
            "InstrumentationKey=0000-11;IngestionEndpoint=https://x/",
            "InstrumentationKey=<redacted>;IngestionEndpoint=https://x/",
        ),
        ("Authorization: SharedKey acc:ab+/c= in it", "Authorization: <redacted> in it"),
        ("Cookie: a=1; b=2\nAccept: x", "Cookie: <redacted>\nAccept: x"),
        (
            "GET https://h/?sig=abc failed, code=xyz.",
            "GET https://h/?sig=<redacted> failed, code=<redacted>.",
        ),
        ("(see https://h/?token=abc)", "(see https://h/?token=<redacted>)"),
        ("postgres://u:pa/ss@h:5432/db", "postgres://<redacted>@h:5432/db"),
        ("password=a&b;x=1", "password=<redacted>;x=1"),
        ("password=it's;x=1", "password=<redacted>;x=1"),
        ('password="two words" x', 'password="<redacted>" x'),
        ("{'code': 'Zm9vYmFyMTIzNDU2Nzg5MA=='}", "{'code': '<redacted>'}"),
        (
            '{"u": "https:\\/\\/u:p@h\\/?sig=abc"}',
            '{"u": "https:\\/\\/<redacted>@h\\/?sig=<redacted>"}',
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIabc+/=\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----<redacted>-----END RSA PRIVATE KEY-----",
        ),
        (
            "Endpoint=sb://h/;SharedAccessKeyName=Root;SharedAccessKey=abc=",
            "Endpoint=sb://h/;SharedAccessKeyName=Root;SharedAccessKey=<redacted>",
        ),
        (
            "ConnectionString=Endpoint=sb://h/;SharedAccessKeyName=Root;SharedAccessKey=abc=",
            "ConnectionString=<redacted>;SharedAccessKeyName=Root;SharedAccessKey=<redacted>",
        ),
        ("{'connection_string': 'UseIt=abc'}", "{'connection_string': '<redacted>'}"),
        ("https://h/login?ticket=ST-1-abc&x=1", "https://h/login?ticket=<redacted>&x=1"),
        ("the access key: abc, in prose", "the access key: <redacted>, in prose"),
        ("export AZURE_CLIENT_SECRET=abc", "export AZURE_CLIENT_SECRET=<redacted>"),
        ("redis://:pw@h:6379/0", "redis://<redacted>@h:6379/0"),
        ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2ln here", "jwt <redacted> here"),
    ],
)
def test_messages_lose_their_secrets_and_nothing_else(text: str, expected: str) -> None:
    """What stands around a secret is kept."""
    assert redact_secrets(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "GET https://h:8080/a/b@2x.png?x=1&status_code=200 -> 404",
        "https://h/a?partition_key=p&sort=name&monkey=1&design=2&se=2026-01-01&sp=r",
        '{"error": {"code": "NotFound", "message": "no such key"}, "status_code": 404}',
        "exit code: 3, error code 17, KeyError: 'a'",
        "{'key': 'reports/2026/a.txt'}",
        "max_tokens=5 tokens: 7 assignee=x compass=n",
        "Basic authentication failed; the bearer is unknown",
        "someone@h.example wrote: https://h/ and other@h.example",
        "http://[::1]:80/a@b",
        "C:\\new\\table\\code",
        "12:30:45 passed",
        "ticket: OPS-1234, {'ticket': 'OPS-1234', 'ticket_id': 7}",
        "AZURE_STORAGE_CONNECTION_STRING: give one with AccountName",
        "https://h/?ticket_id=7&country_code=DE&code_challenge=abc&sign_in=1",
        "https://h/?sig=&x=1, code=",
        "redirects to 'file:///etc/passwd', a URL of scheme 'file'",
        "/etc/passwd: Permission denied",
        '{"value": "404", "name": "code"}, {"value": "EUR", "name": "currency"}',
    ],
)
def test_what_is_no_secret_is_kept(text: str) -> None:
    """Messages stay readable."""
    assert redact_secrets(text) == text


@settings(deadline=None)
@given(
    text=st.text()
    | st.lists(
        st.sampled_from([*NAMES, "=", "&", "'", '"', ": ", "abc", "@", "://", "%3D", " "])
    ).map("".join)
)
def test_what_is_redacted_already_stays_as_it_is(text: str) -> None:
    """Messages may pass through several layers that redact."""
    once = redact_secrets(text)
    assert redact_secrets(once) == once
    clean = sanitize_url(f"https://h/{text}")
    assert sanitize_url(clean) == clean


def test_a_traceback_is_redacted_as_a_whole() -> None:
    """Source lines, messages and values alike."""
    text = (
        "Traceback (most recent call last):\n"
        '  File "a.py", line 1, in fetch\n'
        '    get("https://h/?code=S3CR3T1", headers={"x-functions-key": "S3CR3T2"})\n'
        "httpx.HTTPStatusError: '401' for url 'https://u:S3CR3T3@h/?sig=S3CR3T4&se=1'\n"
    )
    redacted = redact_secrets(text)
    assert "S3CR3T" not in redacted
    assert 'File "a.py", line 1, in fetch' in redacted
    assert "&se=1'" in redacted


def test_the_parameter_of_07_can_be_named() -> None:
    """redact_sas_tokens(value=...) as it was."""
    assert redact_sas_tokens(value="?sig=abc") == "?sig=<redacted>"


def test_headers_are_copied_with_their_secrets_hidden() -> None:
    """By name, and where a harmless header carries a URL with a key."""
    headers = {
        "Authorization": "Bearer abc",
        "X-Functions-Key": "abc",
        "Set-Cookie": "a=b",
        "Location": "https://h/?code=abc&x=1",
        "Accept": "*/*",
    }
    assert redact_headers(headers) == {
        "Authorization": "<redacted>",
        "X-Functions-Key": "<redacted>",
        "Set-Cookie": "<redacted>",
        "Location": "https://h/?code=<redacted>&x=1",
        "Accept": "*/*",
    }
    assert headers["Authorization"] == "Bearer abc"


@pytest.mark.parametrize("name", [*NAMES, "accountKey", "STORAGE_ACCESS_KEY", "Authorization"])
def test_names_of_secrets_are_known_in_any_case(name: str) -> None:
    """Snake, kebab and camel case."""
    assert is_secret_name(name)
    assert is_secret_name(name.upper())


@pytest.mark.parametrize(
    "name",
    [
        *("status_code", "partition_key", "RowKey", "monkey", "tokens", "design", "compass", ""),
        *("ticket_id", "ticketId", "tickets", "support_ticket", "country_code", "zip_code"),
        *("qr_code", "source_code", "code_challenge", "code_challenge_method", "state", "nonce"),
        *("grant_type", "response_type", "session_state", "client_id", "SigAlg", "SAMLRequest"),
        *("RelayState", "signin", "sign_in", "signed", "connection", "connection_id", "Expires"),
        *("X-Amz-SignedHeaders", "X-Amz-Algorithm", "X-Goog-Date", "q-sign-algorithm", "se", "sp"),
        *("q-sign-time", "verification_id", "verified", "Key-Pair-Id", "string", "stringify"),
    ],
)
def test_other_names_are_no_secrets(name: str) -> None:
    """Keys of tables and codes of errors are data."""
    assert not is_secret_name(name)


HOSTILE = (
    *(
        "a",
        "a-",
        "token",
        "token ",
        "a://",
        "a://x:y",
        '"',
        "\\",
        '\\"',
        "%25",
        "sig%3D",
        "&a",
        "eyJ",
    ),
    *(
        "sig=",
        "sig='",
        "authorization:",
        "eyJaaaaaaaa.",
        "basic aaaaaaaa ",
        "'code':'a1a1a1a1",
        "@",
    ),
    *("token[", "token]", "token%5b", "token%255d", "<token>", "--a-", "--token", "%2525"),
    *("%u0073", ";a=%41", "pin:1", "<", "sig=<redacted>", "http:/", "https:\\", "ghp_a", "x-auth-"),
    *('"value": "', '"value": "x", ', '"value":"token","a":true,'),
    *("&quot;token", '"name":"token","a":true,', "authorization: a", 'authorization: =\\"'),
    *("curl -u a:", "/bot1234567:", "SG.a1", "hooks.slack.com/a/"),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    """No input makes the patterns run away: twice the text takes about twice the time."""
    text = piece * (20_000 // len(piece))
    started = time.process_time()
    redact_secrets(text)
    sanitize_url(text)
    assert time.process_time() - started < 2.0
