"""The blocking half through sessions: of requests, of the user, of those who mock them."""

import gzip
import logging
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
import requests_mock
import responses
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from infra_core.http import (
    InvalidRequestError,
    OutcomeUnknown,
    RequestsHttpClient,
    ResponseTooLarge,
    fetch,
    request,
    request_async,
    stream,
)
from infra_core.http.testing import Fault, FaultyOrigin, hang_up, redirect, status, truncate
from infra_core.runtime.testing import fast_time

SECRET = "s3cr3t-value"


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        running.add("/page", b"hello", content_type="text/plain; charset=utf-8")
        yield running


def sent(origin: FaultyOrigin, name: str) -> list[str]:
    return [v for key, v in origin.requests[-1].raw_headers if key.lower() == name.lower()]


# A partial of a function of ours: another process need not find this file to unpickle it.
_fail = partial(
    request,
    max_retries=0,
    headers={"Authorization": f"Bearer {SECRET}", "X-Trace": "t"},
    timeout=5,
)


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("GET", status(404, body=b"why")),
        ("GET", status(429, retry_after="7")),
        ("POST", status(500)),
        ("GET", hang_up()),
        ("POST", hang_up()),
        ("GET", truncate(2)),
        ("POST", truncate(2)),
        ("GET", redirect("/f")),
        ("GET", redirect("ftp://h/x")),
    ],
)
def test_errors_survive_pickle_without_credentials(
    origin: FaultyOrigin, method: str, fault: Fault
) -> None:
    """With type, text, status and the body of the answer."""
    origin.add("/f", b"hello", always=fault)
    with pytest.raises(requests.RequestException) as caught:
        _fail(method, origin.url(f"/f?sig={SECRET}"))
    data = pickle.dumps(caught.value)
    assert SECRET.encode() not in data
    copy: Any = pickle.loads(data)
    assert repr(type(copy)) == repr(type(caught.value))
    assert str(copy) == str(caught.value)
    assert getattr(copy, "retry_after", None) == getattr(caught.value, "retry_after", None)
    if isinstance(caught.value, requests.HTTPError):
        answer: Any = caught.value.response
        assert copy.response.status_code == answer.status_code
        assert copy.response.text == answer.text
        assert copy.response.request.headers["X-Trace"] == "t"


def test_errors_come_back_from_a_process(origin: FaultyOrigin) -> None:
    """As they were raised there."""
    origin.add("/f", b"hello", always=status(404, body=b"why"))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(requests.HTTPError) as caught:
            pool.submit(_fail, "GET", origin.url("/f")).result(60)
        assert caught.value.response.text == "why"
        origin.add("/l", b"hello", always=hang_up())
        with pytest.raises(OutcomeUnknown):
            pool.submit(_fail, "POST", origin.url("/l")).result(60)


def test_a_method_of_a_client_may_have_any_letter_case(origin: FaultyOrigin) -> None:
    """With a body and without: servers know no method in lower case."""
    with RequestsHttpClient() as client:
        client.request("get", origin.url("/page"))
        client.request("post", origin.url("/page"), json={})
        with client.streamed("get", origin.url("/page")):
            pass
    assert [request.method for request in origin.requests] == ["GET", "POST", "GET"]


def test_a_lost_answer_is_an_error_of_requests(origin: FaultyOrigin) -> None:
    """So that `except requests.RequestException` catches it."""
    origin.add("/l", b"hello", always=hang_up())
    with pytest.raises(requests.RequestException) as caught:
        request("POST", origin.url("/l"))
    assert isinstance(caught.value, OutcomeUnknown)


def test_a_final_failure_is_logged_once(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """At ERROR, and each retry before it at WARNING."""
    origin.add("/f", b"", always=status(503))
    seen: list[Any] = []
    with fast_time(), pytest.raises(requests.HTTPError):
        fetch(origin.url(f"/f?sig={SECRET}"), max_retries=2, on_retry=seen.append)
    levels = [r.levelno for r in caplog.records if r.name == "infra_core.http"]
    assert levels == [logging.WARNING, logging.WARNING, logging.ERROR]
    assert SECRET not in caplog.text
    assert [details.attempt for details in seen] == [1, 2]
    assert isinstance(seen[0].error, requests.HTTPError)


def test_a_reason_phrase_cannot_steer_a_terminal_nor_show_secrets(origin: FaultyOrigin) -> None:
    """It is the server's."""
    origin.add("/f", b"", always=status(403))
    with pytest.raises(requests.HTTPError, match=r"^GET http://.* answered 403 Forbidden: check"):
        fetch(origin.url("/f"), max_retries=0)


@pytest.mark.parametrize(
    ("params", "added"),
    [
        ({}, ""),
        ({"b": "2"}, "&b=2"),
        ([("b", "2")], "&b=2"),
        ("b=2", "&b=2"),
        (b"b=2", "&b=2"),
        ({"b": None, "c": True, "d": [1, "x y&"]}, "&b=&c=true&d=1&d=x+y%26"),
    ],
)
async def test_params_are_added_to_the_query(origin: FaultyOrigin, params: Any, added: str) -> None:
    """Empty ones add nothing and take nothing away; both halves write values alike."""
    request("GET", origin.url("/page?a=1"), params=params)
    assert origin.requests[-1].path == "/page?a=1" + added
    with stream("GET", origin.url("/page?a=1"), params=params) as response:
        assert response.status_code == 200
    assert origin.requests[-1].path == "/page?a=1" + added
    await request_async("GET", origin.url("/page?a=1"), params=params)
    assert origin.requests[-1].path == "/page?a=1" + added


def test_a_header_of_none_is_not_sent(origin: FaultyOrigin) -> None:
    """Neither ours nor that of the session, as requests has it."""

    def factory() -> requests.Session:
        session = requests.Session()
        session.headers["X-Of-Session"] = "1"
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        headers = {"accept": None, "x-of-session": None, "X-Mine": "2"}
        fetch(origin.url("/page"), headers=headers, client=client)
        assert (sent(origin, "Accept"), sent(origin, "X-Of-Session")) == ([], [])
        assert sent(origin, "X-Mine") == ["2"]
        with stream("POST", origin.url("/page"), headers=headers, client=client, json=1):
            assert sent(origin, "X-Of-Session") == []


@pytest.mark.parametrize("timeout", [5, 5.0, (5, 5), (5, None), (None, 5), None])
def test_a_timeout_is_seconds_or_a_pair(origin: FaultyOrigin, timeout: Any) -> None:
    """For connecting and for reading, with a deadline or without."""
    assert fetch(origin.url("/page"), timeout=timeout) == "hello"
    assert fetch(origin.url("/page"), timeout=timeout, deadline=9) == "hello"
    with pytest.raises(InvalidRequestError):
        fetch(origin.url("/page"), timeout=(5, 0))


def test_reconfigure_keeps_the_factory_of_its_own(origin: FaultyOrigin) -> None:
    """As in 0.7; another one takes its place."""

    def factory() -> requests.Session:
        session = requests.Session()
        session.headers["X-Whose"] = "mine"
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        client.reconfigure()
        fetch(origin.url("/page"), client=client)
        assert sent(origin, "X-Whose") == ["mine"]
        client.reconfigure(session_factory=requests.Session)
        fetch(origin.url("/page"), client=client)
        assert sent(origin, "X-Whose") == []


def test_netrc_is_for_requests_without_credentials(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header of the call, of the session, `auth` and the URL win over it."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login bob password hunter2\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    url = origin.url("/page")
    with RequestsHttpClient() as client:
        fetch(url, client=client)
        assert sent(origin, "Authorization") == ["Basic Ym9iOmh1bnRlcjI="]
        fetch(url, client=client, headers={"authorization": "Bearer mine"})
        assert sent(origin, "Authorization") == ["Bearer mine"]
        fetch(url.replace("://", "://u:p@"), client=client)
        assert sent(origin, "Authorization") == ["Basic dTpw"]
        client.request("GET", url, auth=("me", "too"))
        assert sent(origin, "Authorization") == ["Basic bWU6dG9v"]

    def quiet() -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        return session

    with RequestsHttpClient(session_factory=quiet) as client:
        fetch(url, client=client)
        assert sent(origin, "Authorization") == []


def test_hooks_and_authentication_of_a_session_take_part(origin: FaultyOrigin) -> None:
    """At each hop, and in the encoding that a hook sets."""
    origin.add("/old", b"", always=redirect("/page"))
    origin.add("/text", b"\xc1", content_type="text/plain")
    seen: list[int] = []

    def note(response: requests.Response, *_: Any, **__: Any) -> None:
        seen.append(response.status_code)
        if response.url.endswith("/text"):
            response.encoding = "koi8-r"

    def factory() -> requests.Session:
        session = requests.Session()
        session.hooks["response"].append(note)
        session.auth = ("u", "p")
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        assert fetch(origin.url("/old"), client=client) == "hello"
        assert sent(origin, "Authorization") == ["Basic dTpw"]
        assert fetch(origin.url("/text"), client=client) == "\u0430"
    assert [code // 100 for code in seen] == [3, 2, 2]


def test_digest_authentication_answers_the_challenge(origin: FaultyOrigin) -> None:
    """Which sends a second request from within a hook."""
    challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
    denied = status(401)
    origin.add("/d", b"in", faults=[denied], headers={"WWW-Authenticate": challenge})

    def factory() -> requests.Session:
        session = requests.Session()
        session.auth = requests.auth.HTTPDigestAuth("u", "p")
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        answer = request("GET", origin.url("/d"), client=client, max_retries=0)
    assert answer.text == "in"


def test_sessions_that_do_more_are_asked_as_a_whole(origin: FaultyOrigin) -> None:
    """Whichever method they override; redirects stay ours: requests makes a GET of a PUT."""
    origin.add("/old", b"", always=redirect("/page", 302))
    called: list[str] = []

    class Asking(requests.Session):
        def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
            called.append("request")
            return super().request(method, url, *args, **kwargs)

    class Sending(requests.Session):
        def send(self, request: Any, **kwargs: Any) -> Any:
            called.append("send")
            assert not kwargs["allow_redirects"]  # also one that follows by itself
            return super().send(request, **kwargs)

    class Getting(requests.Session):
        def get(self, url: Any, **kwargs: Any) -> Any:
            called.append("get")
            return super().get(url, **kwargs)

    for kind in (Asking, Sending, Getting):
        with RequestsHttpClient(session_factory=kind) as client:
            called.clear()
            answer = request("PUT", origin.url("/old"), content=b"kept", client=client)
            assert answer.text == "hello"
            assert origin.requests[-1].method == "PUT"
            assert origin.requests[-1].body == b"kept"
            assert fetch(origin.url("/old"), client=client) == "hello"
            with stream("GET", origin.url("/page"), client=client) as unread:
                assert not vars(unread)["_content_consumed"]
                assert b"".join(unread.iter_content(2)) == b"hello"
            assert called


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", 5])
def test_a_header_of_a_session_that_cannot_be_sent_is_refused(
    origin: FaultyOrigin, value: Any
) -> None:
    def factory() -> requests.Session:
        session = requests.Session()
        session.headers["X-Of-Session"] = value
        return session

    client = RequestsHttpClient(session_factory=factory)
    with client, pytest.raises(requests.exceptions.InvalidHeader):
        fetch(origin.url("/page"), client=client, max_retries=0)
    assert origin.requests == []


def test_a_session_follows_redirects_for_its_owner(origin: FaultyOrigin) -> None:
    """Ours are followed by our rule, its owner's by that of requests."""
    origin.add("/old", b"", always=redirect("/page"))
    session = requests.Session()
    with RequestsHttpClient(session_factory=lambda: session) as client:
        assert fetch(origin.url("/old"), client=client) == "hello"
        assert session.get(origin.url("/old")).text == "hello"


def test_an_adapter_of_the_users_own_is_asked() -> None:
    """Its answers are decoded and judged like all others."""

    class Canned(requests.adapters.BaseAdapter):
        def send(self, request: Any, **_: Any) -> requests.Response:  # type: ignore[override]
            answer = requests.Response()
            answer.status_code = 302 if request.url.endswith("/old") else 200
            answer.headers["Location"] = "/new"
            answer._content = b"canned"
            answer.url, answer.request = request.url, request
            return answer

        def close(self) -> None:
            pass

    def factory() -> requests.Session:
        session = requests.Session()
        session.mount("canned://", Canned())
        session.mount("http://h/", Canned())
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        assert fetch("http://h/old", client=client) == "canned"
        assert fetch("canned://h/new", client=client) == "canned"


def test_retries_of_the_session_end_in_an_error_of_requests(origin: FaultyOrigin) -> None:
    """It has a text without secrets, and can be pickled without the pool that it came from."""
    origin.add("/busy", b"", always=status(503))

    def factory() -> requests.Session:
        session = requests.Session()
        retries = Retry(1, status_forcelist=[503], backoff_factor=0)
        session.mount("http://", HTTPAdapter(max_retries=retries))
        return session

    given_up = pytest.raises(requests.exceptions.RetryError, match="too many 503")
    with RequestsHttpClient(session_factory=factory) as client, given_up as caught:
        fetch(origin.url(f"/busy?sig={SECRET}"), client=client, max_retries=0)
    assert origin.count("/busy") == 2
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert SECRET not in str(again)


@responses.activate
def test_mocks_of_responses_are_asked() -> None:
    """With statuses, redirects, codings and bounds."""
    responses.add("GET", "http://h/ok", body=b"mocked", content_type="text/plain")
    responses.add("GET", "http://h/old", status=302, headers={"Location": "http://h/ok"})
    responses.add("POST", "http://h/no", status=404, body=b"why")
    assert fetch("http://h/ok") == "mocked"
    assert fetch("http://h/old") == "mocked"
    assert request("GET", "http://h/ok", max_bytes=6).content == b"mocked"
    with pytest.raises(ResponseTooLarge):
        fetch("http://h/ok", max_bytes=5)
    with pytest.raises(requests.HTTPError):
        request("POST", "http://h/no", json={"a": 1})
    with pytest.raises(requests.ConnectionError):
        fetch("http://h/unknown", max_retries=0)
    with stream("GET", "http://h/ok") as response:
        assert b"".join(response.iter_content(2)) == b"mocked"


@responses.activate
def test_the_words_of_an_error_that_a_mock_raises_stay() -> None:
    """There is no error of the system below it that would say more."""
    responses.add("GET", "http://h/lost", body=requests.ConnectionError("as the test has it"))
    with pytest.raises(requests.ConnectionError, match=r"^as the test has it"):
        fetch("http://h/lost", max_retries=0)


def test_mocks_of_requests_mock_are_asked() -> None:
    """Whichever way they are set up."""
    with requests_mock.Mocker() as mocker:
        mocker.get("http://h/ok", text="mocked")
        mocker.get("http://h/old", status_code=302, headers={"Location": "/ok"})
        mocker.put("http://h/moved", status_code=301, headers={"Location": "/put"})
        mocker.put("http://h/put", text="stored")
        assert fetch("http://h/ok") == "mocked"
        assert fetch("http://h/old") == "mocked"
        assert request("PUT", "http://h/moved", content=b"kept").text == "stored"
        assert mocker.last_request.body == b"kept"
        with stream("GET", "http://h/ok") as response:
            assert response.text == "mocked"


@pytest.mark.parametrize("name", ["get", "request", "send"])
def test_patched_methods_of_sessions_are_called(name: str) -> None:
    """As tests of 0.7's users patch them."""
    answer = requests.Response()
    answer.status_code, answer._content, answer.url = 200, b"patched", "http://h/"
    with mock.patch.object(requests.Session, name, return_value=answer) as patched:
        assert fetch("http://h/") == "patched"
    assert patched.call_count == 1
    if name == "get":
        (url,), options = patched.call_args
        assert url == "http://h/"
        assert set(options) == {"headers", "timeout"}


@pytest.mark.parametrize("way", ["fetch", "request", "max_bytes", "stream"])
def test_one_page_has_one_text(origin: FaultyOrigin, way: str) -> None:
    """Whichever way it came."""
    page = "<meta charset='iso-8859-2'>łódź"
    origin.add("/p", page.encode("iso-8859-2"), content_type="text/html")
    url = origin.url("/p")
    calls: dict[str, Callable[[], str]] = {
        "fetch": lambda: fetch(url),
        "request": lambda: request("GET", url).text,
        "max_bytes": lambda: request("GET", url, max_bytes=1000).text,
        "stream": lambda: _streamed(url),
    }
    assert calls[way]() == page


def _streamed(url: str) -> str:
    with stream("GET", url) as response:
        return response.text


def test_errors_of_every_way_hide_secrets_and_travel(tmp_path: Path) -> None:
    """Streams and the client's own calls included, of every layer that raised them."""
    url = f"http://127.0.0.1:1/x?sig={SECRET}"
    with RequestsHttpClient() as client:
        ways: list[Callable[[], object]] = [
            lambda: client.get(url, headers={"X-Api-Key": SECRET}, timeout=5),
            lambda: client.request("POST", url, headers={"X-Api-Key": SECRET}, json={}),
            lambda: stream("GET", url, client=client).__enter__(),
        ]
        for way in ways:
            with pytest.raises(requests.ConnectionError) as caught:
                way()
            assert SECRET not in str(caught.value)
            assert SECRET.encode() not in pickle.dumps(caught.value)


def test_a_hook_that_reads_the_body_reads_it_whole_or_not_at_all(origin: FaultyOrigin) -> None:
    """It comes decoded as to everybody, and a damaged one is an error there too."""
    whole = gzip.compress(b"one ") + gzip.compress(b"two")
    origin.add("/whole", whole, headers={"Content-Encoding": "gzip"})
    origin.add("/cut", whole[:-9], headers={"Content-Encoding": "gzip"})
    read: list[bytes] = []

    def factory() -> requests.Session:
        session = requests.Session()
        session.hooks["response"].append(lambda answer, **_: read.append(answer.content))
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        assert fetch(origin.url("/whole"), client=client) == "one two"
        with pytest.raises(requests.exceptions.ContentDecodingError):
            fetch(origin.url("/cut"), client=client, max_retries=0)
    assert read == [b"one two"]
