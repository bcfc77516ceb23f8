"""`fetch`, `request` and `stream`, the blocking half, against a real server on loopback."""

import gzip
import io
import logging
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import requests
from urllib3.util import connection as urllib3_connection

from infra_core.http import (
    DEFAULT_HEADERS,
    DeadlineExceeded,
    HttpError,
    InvalidRequestError,
    OutcomeUnknown,
    RequestsHttpClient,
    ResponseTooLarge,
    fetch,
    request,
    stream,
)
from infra_core.http._sync_adapter import _Connection
from infra_core.http._sync_wire import no_read_after
from infra_core.http.testing import (
    FaultyOrigin,
    chunked_early_end,
    delay,
    hang_up,
    redirect,
    redirect_loop,
    reset_after,
    slow,
    stall,
    status,
    truncate,
)
from infra_core.runtime import clock
from infra_core.runtime.testing import fast_time


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        running.add("/page", b"hello", content_type="text/html; charset=utf-8")
        yield running


def sent(origin: FaultyOrigin, name: str) -> list[str]:
    """Every value of a header of the last request."""
    return [v for key, v in origin.requests[-1].raw_headers if key.lower() == name.lower()]


def test_fetch_returns_the_text(origin: FaultyOrigin) -> None:
    """Of an answer below 400."""
    assert fetch(origin.url("/page")) == "hello"
    assert fetch(origin.url("/page"), deadline=5, max_bytes=5) == "hello"


def test_request_returns_a_response_of_requests(origin: FaultyOrigin) -> None:
    """With query, body and all that requests knows."""
    started = time.perf_counter()
    response = request("post", origin.url("/page"), params={"q": "a"}, json={"a": 1})
    assert 0 <= response.elapsed.total_seconds() <= time.perf_counter() - started
    assert isinstance(response, requests.Response)
    assert (response.status_code, response.text) == (200, "hello")
    assert origin.requests[-1].path == "/page?q=a"
    assert origin.requests[-1].body == b'{"a": 1}'
    request("PUT", origin.url("/page"), content=b"raw")
    assert origin.requests[-1].body == b"raw"
    request("POST", origin.url("/page"), data={"a": "1"}, max_bytes=100)
    assert origin.requests[-1].body == b"a=1"


def test_headers_are_those_of_call_session_and_defaults(origin: FaultyOrigin) -> None:
    """In this order, once each, in any letter case."""
    fetch(origin.url("/page"))
    for name, value in DEFAULT_HEADERS.items():
        assert sent(origin, name) == [value]

    def factory() -> requests.Session:
        session = requests.Session()
        session.headers["user-agent"] = "session"
        return session

    with RequestsHttpClient(session_factory=factory) as client:
        fetch(origin.url("/page"), client=client)
        assert sent(origin, "User-Agent") == ["session"]
        fetch(origin.url("/page"), client=client, headers={"USER-agent": "call"})
        assert sent(origin, "User-Agent") == ["call"]


def test_failures_are_retried_until_one_answer_is_good(origin: FaultyOrigin) -> None:
    """Statuses, resets, short bodies, ends in mid-chunk."""
    faults = [status(500), hang_up(), truncate(2), chunked_early_end(2), reset_after(3)]
    origin.add("/flaky", b"hello", faults=faults)
    with fast_time(jitter=1.0) as time:
        assert fetch(origin.url("/flaky"), max_retries=5, backoff=1, max_backoff=4) == "hello"
    assert time.slept == [1, 2, 4, 4, 4]


def test_a_body_that_is_not_what_it_says_is_retried(origin: FaultyOrigin) -> None:
    """The next copy may be whole."""
    origin.add("/z", b"no gzip", headers={"Content-Encoding": "gzip"})
    with fast_time() as time, pytest.raises(requests.exceptions.ContentDecodingError):
        fetch(origin.url("/z"), max_retries=1)
    assert len(time.slept) == 1


@pytest.mark.parametrize("code", [400, 404, 500, 503])
def test_error_statuses_are_http_errors(origin: FaultyOrigin, code: int) -> None:
    """Of requests, with the response; no secret in the message."""
    origin.add("/bad", b"why", always=status(code, body=b"why"))
    with pytest.raises(requests.HTTPError) as caught:
        fetch(origin.url("/bad?sig=hunter2"), max_retries=0)
    assert caught.value.response.status_code == code
    assert "hunter2" not in str(caught.value)


def test_retry_after_is_honoured_up_to_the_cap(origin: FaultyOrigin) -> None:
    """And raised above it, with the seconds."""
    origin.add("/busy", b"ok", faults=[status(429, retry_after="7"), status(503, retry_after="99")])
    with fast_time() as time:
        with pytest.raises(requests.HTTPError) as caught:
            fetch(origin.url("/busy"), max_backoff=60)
        assert time.slept == [7]
    assert caught.value.retry_after == 99.0  # type: ignore[attr-defined]


def test_statuses_not_listed_are_not_retried(origin: FaultyOrigin) -> None:
    """An empty list retries none."""
    origin.add("/down", b"", always=status(503))
    with pytest.raises(requests.HTTPError):
        fetch(origin.url("/down"), retry_statuses=[])
    assert origin.count("/down") == 1


def test_delay_waits_before_the_request(origin: FaultyOrigin) -> None:
    """Once."""
    with fast_time() as time:
        fetch(origin.url("/page"), delay=3)
    assert time.slept == [3]


@pytest.mark.parametrize("fault", [hang_up(), reset_after(2), truncate(2), stall(), stall(None)])
def test_a_post_whose_answer_is_lost_is_not_sent_again(origin: FaultyOrigin, fault: Any) -> None:
    """`OutcomeUnknown` carries what happened; the server saw one request."""
    origin.add("/do", b"done", always=fault)
    with fast_time(), pytest.raises(OutcomeUnknown) as caught:
        request("POST", origin.url("/do?sig=hunter2"), json={}, timeout=(10, 0.5), max_retries=5)
    assert isinstance(caught.value.cause, requests.RequestException)
    assert caught.value.__cause__ is caught.value.cause
    assert "hunter2" not in str(caught.value)
    assert origin.count("/do") == 1


@pytest.mark.parametrize(("code", "times"), [(500, 1), (502, 1), (504, 1), (429, 3), (503, 3)])
def test_a_post_is_sent_again_only_when_it_did_not_run(
    origin: FaultyOrigin, code: int, times: int
) -> None:
    """429 and 503; other errors come through as HTTPError."""
    origin.add("/do", b"done", always=status(code))
    with fast_time(), pytest.raises(requests.HTTPError):
        request("POST", origin.url("/do"), json={}, max_retries=2)
    assert origin.count("/do") == times


@pytest.mark.parametrize(
    "repeatable", [{"idempotent": True}, {"headers": {"Idempotency-Key": "1"}}]
)
def test_a_repeatable_post_is_sent_again(origin: FaultyOrigin, repeatable: dict[str, Any]) -> None:
    """When the caller says so, or an Idempotency-Key."""
    origin.add("/do", b"done", faults=[hang_up(), status(500)])
    with fast_time():
        assert request("POST", origin.url("/do"), json={}, **repeatable).text == "done"
    assert origin.count("/do") == 3


def test_a_file_as_a_body_is_not_sent_again_empty(origin: FaultyOrigin) -> None:
    """The first attempt used it up, so its failure is the last word."""
    origin.add("/do", b"done", faults=[status(503)])
    with fast_time(), pytest.raises(requests.HTTPError):
        request("PUT", origin.url("/do"), data=io.BytesIO(b"once"))
    assert [sent.body for sent in origin.requests] == [b"once"]


def test_a_post_without_a_connection_is_sent_again() -> None:
    """Nothing reached anybody; the error is a ConnectionError without the secrets of the URL."""
    with FaultyOrigin() as gone:
        url = gone.url("/?sig=hunter2")
    with fast_time() as time, pytest.raises(requests.ConnectionError) as caught:
        request("POST", url, json={}, max_retries=3)
    assert len(time.slept) == 3
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("fault", [truncate(1), status(503)])
def test_a_post_that_was_answered_by_a_redirect_has_run(origin: FaultyOrigin, fault: Any) -> None:
    """What fails after "303 See Other" must not bring the POST again."""
    origin.add("/do", b"", always=redirect("/result", 303))
    origin.add("/result", b"done", always=fault)
    with pytest.raises((OutcomeUnknown, requests.HTTPError)):
        request("POST", origin.url("/do"), json={}, max_retries=3)
    assert origin.count("/do") == 1


@pytest.mark.parametrize("fault", [stall(), stall(2), stall(None), slow(20)])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_call_outlives_its_deadline(origin: FaultyOrigin, fault: Any, method: str) -> None:
    """A server that drips within every timeout included: the socket is shut."""
    origin.add("/hang", b"x" * 1000, always=fault)
    started = clock.monotonic()
    with pytest.raises(DeadlineExceeded if method == "GET" else OutcomeUnknown) as caught:
        request(method, origin.url("/hang"), deadline=0.5, timeout=30)
    assert clock.monotonic() - started < 20
    late = caught.value if method == "GET" else caught.value.__cause__
    assert isinstance(late, requests.Timeout)
    assert isinstance(late, TimeoutError)
    assert isinstance(late, HttpError)


@pytest.mark.parametrize("timeout", [None, 60, 1, (1, None), (60, 1), (None, 60)])
def test_no_step_may_take_longer_than_what_is_left(timeout: Any) -> None:
    """Whether they were given as one or as two; what somebody else's client is told."""
    calls: list[Any] = []

    class StandIn:
        def get(self, url: str, *, headers: dict[str, str], timeout: Any) -> requests.Response:
            calls.append(timeout)
            response = requests.Response()
            response.status_code, response._content = 200, b"mocked"
            return response

    fetch("http://x/", client=StandIn(), timeout=timeout, deadline=30)  # type: ignore[arg-type]
    given = calls[0] if isinstance(timeout, tuple) else (calls[0],)
    asked = timeout if isinstance(timeout, tuple) else (timeout,)
    for before, now in zip(asked, given, strict=True):
        assert (now == 1) if before == 1 else (1 < now <= 30)


def test_nothing_is_sent_after_the_deadline(origin: FaultyOrigin) -> None:
    """A hook that takes long may use up what was left for the next attempt."""
    origin.add("/busy", b"ok", faults=[status(503)])
    with fast_time() as time, pytest.raises(DeadlineExceeded):
        fetch(origin.url("/busy"), deadline=10, on_retry=lambda details: time.advance(20))
    assert origin.count("/busy") == 1


def test_a_hop_after_a_redirect_connects_within_what_is_left(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timeouts of the first request would begin anew."""
    origin.add("/away", faults=[delay(0.5) & redirect("http://127.0.0.2/")])
    connect, seconds = urllib3_connection.create_connection, []

    def note(address: Any, timeout: Any, **options: Any) -> Any:
        seconds.append(timeout)
        if address[0] == "127.0.0.2":
            raise ConnectionRefusedError
        return connect(address, timeout, **options)

    monkeypatch.setattr(urllib3_connection, "create_connection", note)
    with RequestsHttpClient() as client, pytest.raises(requests.ConnectionError):
        fetch(origin.url("/away"), client=client, deadline=30, timeout=60, max_retries=0)
    first, second = seconds
    assert first <= 30
    assert second <= first - 0.5


def test_a_body_is_sent_within_the_deadline() -> None:
    """A server that takes piece after piece meets no timeout."""
    sock = mock.Mock(**{"gettimeout.return_value": 60.0})
    connection = _Connection("127.0.0.1")
    connection.sock = sock
    connection.send(b"x")
    assert not sock.settimeout.called
    with no_read_after(time.monotonic() + 1):
        connection.send(b"x")
    assert sock.settimeout.call_args.args[0] <= 1
    with no_read_after(time.monotonic()), pytest.raises(TimeoutError):
        connection.send(b"x")


def test_a_request_within_a_hook_leaves_the_deadline_of_its_call(origin: FaultyOrigin) -> None:
    """What comes after the hook is cut at the same time as what came before."""
    origin.add("/moved", b"", always=redirect("/hang"))
    origin.add("/hang", b"x" * 1000, always=slow(20))

    def hook(*_: Any, **__: Any) -> None:
        fetch(origin.url("/page"), deadline=60)

    def session() -> requests.Session:
        made = requests.Session()
        made.hooks["response"].append(hook)
        return made

    with RequestsHttpClient(session_factory=session) as client:
        started = clock.monotonic()
        with pytest.raises(DeadlineExceeded):
            fetch(origin.url("/moved"), client=client, deadline=1, timeout=30)
        assert clock.monotonic() - started < 20


def test_a_body_without_a_length_is_not_whole_when_the_deadline_cut_it(
    origin: FaultyOrigin,
) -> None:
    """The end of the connection would look like the end of the body."""
    with FaultyOrigin() as other:
        other.add("/drip", b"x" * 1000, chunked=True, always=slow(20))
        with pytest.raises(DeadlineExceeded):
            fetch(other.url("/drip"), deadline=0.2)


def test_a_deadline_that_is_kept_leaves_the_connection_usable(origin: FaultyOrigin) -> None:
    """The watch is off when the answer is read."""
    with RequestsHttpClient() as client:
        for _ in range(3):
            assert fetch(origin.url("/page"), deadline=5, client=client) == "hello"
    assert origin.connections == 1


def test_no_wait_overshoots_the_deadline(origin: FaultyOrigin) -> None:
    """A wait that would end after it is not begun; the last error comes through."""
    origin.add("/busy", b"", always=status(503, retry_after="5"))
    with fast_time() as time, pytest.raises(requests.HTTPError):
        fetch(origin.url("/busy"), deadline=12, max_retries=9)
    assert time.slept == [5.0, 5.0]


class _Getting(requests.Session):
    """Reads all of a body, as it is not told otherwise."""

    def get(self, url: Any, **kwargs: Any) -> Any:
        return super().get(url, **kwargs)


@pytest.mark.parametrize(
    "make",
    [RequestsHttpClient, requests.Session, lambda: RequestsHttpClient(session_factory=_Getting)],
)
def test_bodies_above_max_bytes_are_refused(origin: FaultyOrigin, make: Any) -> None:
    """By the announced length, in mid-stream, or by what they grow to; over a bare session too."""
    origin.add("/big", b"x" * 1000)
    origin.add("/endless", b"x" * 100_000, chunked=True)
    bomb = gzip.compress(b"\0" * 20_000_000)
    origin.add("/bomb", bomb, headers={"Content-Encoding": "gzip"})
    for path, limit in (("/big", 999), ("/endless", 999), ("/bomb", 1_000_000)):
        with make() as client, pytest.raises(ResponseTooLarge) as caught:
            fetch(origin.url(path), client=client, max_bytes=limit)
        assert caught.value.limit == limit
        assert origin.count(path) == 1


def test_redirects_are_followed_and_loops_end(origin: FaultyOrigin) -> None:
    """As requests does it."""
    origin.add("/old", b"", always=redirect("/page", 301))
    origin.add("/loop", b"", always=redirect_loop())
    response = request("GET", origin.url("/old"))
    assert (response.text, len(response.history)) == ("hello", 1)
    with pytest.raises(requests.TooManyRedirects):
        fetch(origin.url("/loop"))


@pytest.mark.parametrize("factory", [None, requests.Session])
def test_credentials_never_cross_an_origin(origin: FaultyOrigin, factory: Any) -> None:
    """With our sessions and with those of users; cookies follow the jar's rules."""
    secrets = {"x-functions-key": "k", "Authorization": "Bearer t", "api-key": "a"}
    with FaultyOrigin() as other, RequestsHttpClient(session_factory=factory) as client:
        other.add("/page", b"other")
        origin.add("/go", b"", always=redirect(other.url("/page"), 307))
        origin.add("/near", b"", always=redirect("/page", 307))
        fetch(origin.url("/go"), headers=secrets, client=client)
        fetch(origin.url("/near"), headers=secrets, client=client)
        for name in secrets:
            # a function key follows no redirect, the others stay within their origin
            assert (name in origin.requests[-1].headers) == (name != "x-functions-key")
            assert name not in other.requests[-1].headers


def test_malformed_requests_are_refused_before_anything_is_sent(origin: FaultyOrigin) -> None:
    """Methods, headers and URLs, each with its own error and no retry; secrets are not shown."""
    with pytest.raises(InvalidRequestError):
        request("GE T", origin.url("/page"))
    with pytest.raises(InvalidRequestError):
        fetch(origin.url("/page"), headers={"a": "b\r\nc: d"})
    with fast_time() as time:
        for url in ("nonsense", "http://a:99999/", "http://", "ftp://x/?sig=hunter2", "", None):
            with pytest.raises(requests.RequestException) as caught:
                fetch(url)  # type: ignore[arg-type]
            assert isinstance(caught.value, ValueError)
            assert "hunter2" not in str(caught.value)
    assert time.slept == []
    assert origin.requests == []


def test_unknown_hosts_are_not_retried() -> None:
    """DNS will not know them a second later either."""
    with fast_time() as time, pytest.raises(requests.ConnectionError) as caught:
        fetch("http://no-such-host.invalid/?sig=hunter2")
    assert time.slept == []
    assert "hunter2" not in str(caught.value)


def test_retries_are_logged_with_fields_and_without_secrets(
    origin: FaultyOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """One record per retry: url, attempt, status, wait."""
    origin.add("/flaky", b"ok", faults=[status(503), hang_up()])
    with fast_time(jitter=0.5), caplog.at_level(logging.WARNING, "infra_core.http"):
        fetch(origin.url("/flaky?sig=hunter2"))
    records = [r for r in caplog.records if r.name == "infra_core.http"]
    assert [(r.attempt, r.status, r.wait) for r in records] == [(1, 503, 0.5), (2, None, 1.0)]  # type: ignore[attr-defined]
    assert all("hunter2" not in r.getMessage() + str(r.__dict__) for r in records)


def test_stream_gives_the_body_as_it_comes(origin: FaultyOrigin) -> None:
    """Any status, no retry."""
    origin.add("/big", b"x" * 300_000)
    with stream("GET", origin.url("/big")) as response:
        assert sum(len(chunk) for chunk in response.iter_content(10_000)) == 300_000
    with stream("GET", origin.url("/none")) as response:
        assert response.status_code == 404


def test_a_stand_in_for_the_client_gets_the_call_of_0_7() -> None:
    """Anything with get(url, headers=, timeout=)."""
    calls: list[tuple[str, dict[str, str], Any]] = []

    class StandIn:
        def get(self, url: str, *, headers: dict[str, str], timeout: Any) -> requests.Response:
            calls.append((url, headers, timeout))
            response = requests.Response()
            response.status_code, response._content = 200, b"mocked"
            return response

    assert fetch("http://x/", client=StandIn(), headers={"A": "b"}, timeout=3) == "mocked"  # type: ignore[arg-type]
    assert calls == [("http://x/", {**DEFAULT_HEADERS, "A": "b"}, 3)]


def test_a_stand_in_for_the_session_gets_the_call_of_0_7() -> None:
    """Anything with get and close."""
    closed: list[bool] = []

    class StandIn:
        def get(self, url: str, headers: dict[str, str], timeout: Any) -> requests.Response:
            response = requests.Response()
            response.status_code, response._content = 200, b"mocked"
            return response

        def close(self) -> None:
            closed.append(True)

    with RequestsHttpClient(session_factory=StandIn) as client:  # type: ignore[arg-type]
        assert fetch("http://x/", client=client) == "mocked"
    assert closed == [True]
