"""The pure rules: Retry-After, idempotency, headers, credentials, redirects, URLs."""

import pickle
from contextlib import suppress
from datetime import datetime, timezone

import httpx
import pytest
import requests
import yarl
from hypothesis import example, given, strategies as st

from infra_core.http import (
    DEFAULT_HEADERS,
    DEFAULT_RETRY_STATUSES,
    InvalidRequestError,
    OutcomeUnknown,
    ResponseTooLarge,
    absolute_url,
)
from infra_core.http._async import AsyncDeadlineExceeded
from infra_core.http._headers import (
    check_method,
    checked_headers,
    merge_headers,
    survives_redirect,
)
from infra_core.http._policy import (
    is_idempotent,
    retry_statuses_of,
    status_verdict,
)
from infra_core.http._redirects import redirected_request
from infra_core.http._response.redirect import redirected_method
from infra_core.http._sync import SyncDeadlineExceeded
from infra_core.http._sync_prepare import url_to_ask
from infra_core.http._urls import plain_url
from infra_core.http.engine._target import origin_of, target_of

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_methods_of_rfc_9110_are_idempotent(method: str) -> None:
    """RFC 9110, section 9.2.2."""
    assert is_idempotent(method)


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "MERGE"])
def test_other_methods_are_not_idempotent_unless_said_so(method: str) -> None:
    """By the caller, or by an Idempotency-Key; the caller's word is final both ways."""
    assert not is_idempotent(method)
    assert is_idempotent(method, override=True)
    assert is_idempotent(method, {"idempotency-KEY": "7"})
    assert not is_idempotent(method, {"Idempotency-Key": "7"}, override=False)
    assert not is_idempotent("GET", override=False)


def test_the_default_statuses_are_those_of_0_7() -> None:
    """None means the defaults, an empty list means none."""
    assert {429, 500, 502, 503, 504} == DEFAULT_RETRY_STATUSES
    assert retry_statuses_of(None) == DEFAULT_RETRY_STATUSES
    assert retry_statuses_of([]) == frozenset()


@pytest.mark.parametrize("status", [200, 404, 429, 500, 502, 503, 504])
def test_a_request_that_must_not_run_twice_is_resent_only_when_it_did_not_run(status: int) -> None:
    """429 and 503 say that nothing was done; 500, 502 and 504 do not."""
    verdict = status_verdict(
        status, statuses=frozenset(DEFAULT_RETRY_STATUSES), idempotent=False, retry_after=None
    )
    assert verdict is (status in (429, 503))


def test_the_wait_that_the_server_names_is_the_verdict() -> None:
    """Zero seconds are a wait as well, and not a refusal."""
    verdict = status_verdict(503, statuses=frozenset({503}), idempotent=True, retry_after=0.0)
    assert verdict is not False
    assert verdict == 0.0


def test_headers_merge_without_regard_to_letter_case() -> None:
    """The later layer wins and there is one of each name."""
    merged = merge_headers(DEFAULT_HEADERS, {"user-agent": "mine"}, None)
    assert [v for name, v in merged.items() if name.lower() == "user-agent"] == ["mine"]
    assert merged["Accept"] == DEFAULT_HEADERS["Accept"]


@pytest.mark.parametrize(
    "headers",
    [
        {"a b": "x"},
        {"": "x"},
        {"a:": "x"},
        {"a": "x\r\nInjected: yes"},
        {"a": "x\x00"},
        {"a": "caf\u00e9"},
        {"a": None},
        {"a": 5},
        {7: "x"},
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    """Header injection, control characters, non-ASCII and values of other types: ValueError."""
    with pytest.raises(InvalidRequestError, match="header"):
        checked_headers(headers)


def test_the_value_of_a_refused_header_is_not_repeated() -> None:
    """It may be a secret with a line break at its end."""
    with pytest.raises(InvalidRequestError) as caught:
        checked_headers({"Authorization": "Bearer hunter2\n"})
    assert "hunter2" not in str(caught.value)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", fullmatch=True),
        st.from_regex(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?", fullmatch=True),
        max_size=5,
    )
)
def test_headers_that_can_be_sent_pass_unchanged(headers: dict[str, str]) -> None:
    """Every token as a name, every printable ASCII text as a value."""
    assert checked_headers(headers) == headers


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "G\u00cbT", None, 3])
def test_methods_that_are_no_tokens_are_refused(method: str) -> None:
    """With an error that says what to pass."""
    with pytest.raises(InvalidRequestError, match="method"):
        check_method(method)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "proxy-authorization", "Cookie", "x-functions-key", "api-key",
        "X-API-Key", "apikey", "Ocp-Apim-Subscription-Key", "X-Auth-Token", "PRIVATE-TOKEN",
        "x-goog-api-key", "X-Amz-Security-Token", "aeg-sas-key", "X-Secret", "x-session-id",
        "X-Auth-User", "X-Auth", "X-JWT-Assertion", "X-OTP", "X-Hub-Signature-256", "DPoP", "X-SID",
    ],
)  # fmt: skip
def test_credential_headers_are_known_by_name(name: str) -> None:
    """They are what must not cross an origin."""
    assert not survives_redirect(name, same_origin=False)


@pytest.mark.parametrize(
    "name", ["Accept", "User-Agent", "Content-Type", "Idempotency-Key", "X-Request-Id", "ETag"]
)
def test_other_headers_are_no_credentials(name: str) -> None:
    """They follow redirects."""
    assert survives_redirect(name, same_origin=False)


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("POST", 303, "GET"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
        ("PUT", 301, "PUT"),
        ("PUT", 303, "GET"),
        ("HEAD", 303, "HEAD"),
        ("HEAD", 302, "HEAD"),
        ("GET", 308, "GET"),
    ],
)
def test_redirects_change_methods_as_browsers_do(method: str, status: int, then: str) -> None:
    """RFC 9110, section 15.4."""
    assert redirected_method(method, status) == then


def _redirected(location: str, status: int = 302, **request: str) -> httpx.Request:
    headers = {"x-functions-key": "k", "Authorization": "a", "X-Trace": "t", "Cookie": "c=1"}
    first = httpx.Request(
        request.get("method", "GET"), "https://a.example/x#frag", headers=headers, content=b"body"
    )
    answer = httpx.Response(status, headers={"location": location})
    return redirected_request(httpx.AsyncClient(), first, answer)


@pytest.mark.parametrize(
    "location",
    ["https://b.example/", "http://a.example/", "https://a.example:8443/", "//b.example/x"],
)
def test_credentials_stay_at_home(location: str) -> None:
    """Another host, port or scheme is another origin; a downgrade to http most of all."""
    sent = _redirected(location).headers
    assert "x-functions-key" not in sent
    assert "authorization" not in sent
    assert "cookie" not in sent
    assert sent["x-trace"] == "t"


@pytest.mark.parametrize("location", ["/y", "y", "https://a.example/y", "https://a.example:443/y"])
def test_credentials_follow_within_the_origin(location: str) -> None:
    """The default port, said or not, is the same origin; a function key follows nowhere."""
    following = _redirected(location)
    assert following.headers["authorization"] == "a"
    assert "x-functions-key" not in following.headers
    assert str(following.url).endswith("/y#frag")


def test_a_redirect_to_get_drops_the_body_and_its_headers() -> None:
    """What described the body would lie about an empty one."""
    following = _redirected("/y", 303, method="POST")
    assert following.method == "GET"
    assert "content-length" not in following.headers
    assert _redirected("/y", 307, method="POST").headers["content-length"] == "4"


def test_passwords_in_a_location_are_not_used() -> None:
    """A server must not choose the credentials that we send."""
    assert _redirected("https://user:pw@b.example/").url.userinfo == b""


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("ftp://a.example/", httpx.UnsupportedProtocol),
        ("http://a:99999/", httpx.RemoteProtocolError),
    ],
)
def test_locations_that_lead_nowhere_are_refused(
    location: str, error: type[httpx.TransportError]
) -> None:
    """With the kind of error that httpx has for it."""
    with pytest.raises(error):
        _redirected(location)


@pytest.mark.parametrize(
    ("base", "segments", "joined"),
    [
        ("http://a/b", ("c", "d"), "http://a/b/c/d"),
        ("http://a/b/", ("/c/", "d e"), "http://a/b/c/d e"),
        ("http://a/b?x=1#f", ("c",), "http://a/b/c?x=1#f"),
        ("http://a", ("",), "http://a"),
        ("http://a/b/", (), "http://a/b"),
    ],
)
def test_absolute_url_joins_as_in_0_7(base: str, segments: tuple[str, ...], joined: str) -> None:
    """One slash between parts, the query stays at the end."""
    assert absolute_url(base, *segments) == joined


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "/path", "ftp://a/?sig=hunter2", "http://", "https:///p", "file:///etc"],
)
def test_urls_without_http_or_host_are_refused(url: str) -> None:
    """The error shows the URL without its secrets and says what a URL is."""
    with pytest.raises(
        httpx.UnsupportedProtocol, match="begins with http:// or https://"
    ) as caught:
        target_of(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://a:99999/", "http://a:0/", "http://a:b/", "http://[::1", 7, None]
)
def test_malformed_urls_are_refused(url: str) -> None:
    """Bad ports, hosts and types are an httpx.InvalidURL."""
    with pytest.raises(httpx.InvalidURL):
        target_of(url)


def test_user_info_becomes_basic_authentication_and_leaves_the_url() -> None:
    """As httpx does it, percent-encoding undone."""
    target = target_of("https://us%40er:p%3Aw@host/x#f")
    assert target.authorization == "Basic dXNAZXI6cDp3"
    assert str(target.request_url) == "https://host/x"


def test_errors_survive_a_trip_between_processes() -> None:
    """With all their attributes; and they print no secrets."""
    url = "https://a/x?sig=hunter2"
    originals: list[Exception] = [
        OutcomeUnknown("POST", url, ValueError("cause")),
        ResponseTooLarge(url, 1, 2),
        InvalidRequestError("bad"),
        AsyncDeadlineExceeded("late"),
        SyncDeadlineExceeded("late"),
    ]
    for original in originals:
        copy = pickle.loads(pickle.dumps(original))
        assert type(copy) is type(original)
        assert str(copy) == str(original)
        assert "hunter2" not in str(original) + repr(original) + str(vars(original))
        for name in ("url", "method", "limit", "received"):
            assert getattr(copy, name, None) == getattr(original, name, None)


_TAILS = st.lists(
    st.sampled_from([*"ab-._~!$&'()*+,;=:@%/?#\\\"{}|^`<>[] é", "..", "%41", "%2F", "%e4", "%E4"])
).map("".join)


@given(st.sampled_from(["a.example", "127.0.0.1", "1.2.3", "a-.b", "a:80", "b:8080"]), _TAILS)
@example(host="a.example", tail="?")
def test_what_is_taken_as_it_stands_is_what_libraries_make_of_it(host: str, tail: str) -> None:
    """A URL that is not parsed is one that parsing would not change."""
    url = f"http://{host}/{tail}"
    plain = plain_url(url)
    if plain is None:
        return
    prepared = requests.Request("GET", url).prepare()
    assert prepared.url == url
    assert prepared.path_url == plain[1]
    with suppress(httpx.InvalidURL):
        target = target_of(url)
        parsed = httpx.URL(url.replace("1.2.3", "1.2.0.3"))  # as every resolver reads it
        assert target.url == parsed
        assert target.origin == origin_of(parsed)
        assert target.request_url == yarl.URL(str(parsed), encoded=True)


@pytest.mark.parametrize("url", [r"http://a\@b/", r"http://a\b/", r"http://u:p\@b:80/x?y#z"])
def test_a_backslash_before_the_path_is_refused(url: str) -> None:
    """Browsers and urllib3 ask the host before it, httpx and curl the one behind it."""
    with pytest.raises(httpx.InvalidURL, match="backslash before its path"):
        target_of(url)
    with pytest.raises(requests.exceptions.InvalidURL, match="backslash before its path"):
        url_to_ask(url)
    assert target_of(r"http://a/b\c").origin == ("http", "a", 80)


@given(st.text(max_size=40))
def test_any_text_is_classified(text: str) -> None:
    """Any text is a target or one of two errors."""
    for url in (text, "http://" + text, "https://host/" + text):
        with suppress(httpx.InvalidURL, httpx.UnsupportedProtocol):
            assert target_of(url).origin[0] in ("http", "https")
