"""Statuses: where they are, what they mean, what StatusPoller does with them."""

import asyncio
import enum
import logging
import math
import pickle
from collections import UserDict
from dataclasses import FrozenInstanceError, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from infra_core.polling import (
    PollingConfig,
    PollingFailureError,
    PollingTimeoutError,
    StatusExtractor,
    StatusPoller,
    extract_status,
    is_transient,
    retry_after,
    status_at,
)
from infra_core.runtime import clock
from infra_core.runtime.testing import FastTime


class State(enum.Enum):
    RUNNING = "running"
    DONE = "completed"


class Number(enum.IntEnum):
    RUNNING = 1
    COMPLETED = 2


class TextState(str, enum.Enum):
    FAILED = "failed"


@dataclass
class Response:
    status: object
    error_message: str | None = None


async def poll(kind: str, poller: StatusPoller[Any], **options: Any) -> Any:
    if kind == "sync":
        return await asyncio.to_thread(poller.poll, **options)
    return await poller.poll_async(**options)


both = pytest.mark.parametrize("kind", ["sync", "async"])


class TestExtraction:
    @pytest.mark.parametrize(
        ("response", "status"),
        [
            ({"status": "running"}, "running"),
            ({"state": "running"}, "running"),
            ({"runtimeStatus": "Completed"}, "Completed"),
            ({"status": None, "state": "ok"}, "ok"),
            (UserDict({"status": "running"}), "running"),
            (Response("running"), "running"),
            (Response(State.DONE), "completed"),
            ({"status": State.DONE}, "completed"),
            ({"status": Number.COMPLETED}, "COMPLETED"),
            ({"status": TextState.FAILED}, "failed"),
            (State.RUNNING, "running"),
            ("running", "running"),
            ({"status": 3}, "3"),
            ({}, None),
            (None, None),
            (object(), None),
        ],
    )
    def test_usual_shapes(self, response: object, status: str | None) -> None:
        """Mappings, objects and enums, without configuration."""
        assert extract_status(response) == status

    @pytest.mark.parametrize(
        ("path", "response", "status"),
        [
            ("a.b.c", {"a": {"b": {"c": "x"}}}, "x"),
            ("properties.status", {"properties": Response(State.DONE)}, "completed"),
            ("jobs.1.state", {"jobs": [{}, {"state": "x"}]}, "x"),
            ("jobs.0.state", {"jobs": []}, None),
            ("a.b", {"a": None}, None),
            ("a.b", {"a": "text"}, None),
            ("status", Response("x"), "x"),
        ],
    )
    def test_nested_paths(self, path: str, response: object, status: str | None) -> None:
        """Keys, attributes and indexes in any mixture; what is missing is no status."""
        assert status_at(path)(response) == status

    @pytest.mark.parametrize("path", ["", "a..b", ".a", "a."])
    def test_paths_with_holes_are_refused(self, path: str) -> None:
        """At once, not at the first response."""
        with pytest.raises(ValueError, match="empty step"):
            status_at(path)


class TestStatusPoller:
    @both
    @pytest.mark.parametrize("status", ["completed", "succeeded", "failed", "cancelled"])
    async def test_default_terminal_statuses(
        self, time: FastTime, script: Any, kind: str, status: str
    ) -> None:
        """Also "failed" is returned unless failure statuses are named, as in 0.7."""
        fetch = script({"status": "running"}, {"status": status})
        assert await poll(kind, StatusPoller(fetch)) == {"status": status}

    @both
    @pytest.mark.parametrize("answer", [b"completed", {"status": b"Completed"}])
    async def test_a_status_of_bytes_is_decoded(
        self, time: FastTime, script: Any, kind: str, answer: object
    ) -> None:
        """As clients of Redis return it; the poll would never end."""
        assert await poll(kind, StatusPoller(script(b"running", answer))) == answer

    @both
    @pytest.mark.parametrize("status", ["failed", "Cancelled", "CANCELED"])
    async def test_strict_raises_for_failures(
        self, time: FastTime, script: Any, kind: str, status: str
    ) -> None:
        """Without naming them."""
        poller = StatusPoller(script({"status": status}), PollingConfig(strict=True))
        with pytest.raises(PollingFailureError) as caught:
            await poll(kind, poller)
        assert caught.value.status == status

    @both
    async def test_failure_statuses_go_before_terminal_ones(
        self, time: FastTime, script: Any, kind: str
    ) -> None:
        """A status that is both raises."""
        config = PollingConfig(
            terminal_statuses={"failed", "completed"}, failure_statuses={"failed"}
        )
        response = {"status": "failed", "error_message": "no disk"}
        fetch = script({"status": "running"}, response)
        with pytest.raises(PollingFailureError, match="no disk") as caught:
            await poll(kind, StatusPoller(fetch, config, label="job-7"))
        assert caught.value.response is response
        assert caught.value.last_response is response
        assert caught.value.attempts == 2
        assert caught.value.elapsed == pytest.approx(5)
        assert caught.value.label == "job-7"

    @pytest.mark.parametrize(
        ("response", "message"),
        [
            ({"status": "failed", "error_message": "a", "error": "b", "message": "c"}, "a"),
            ({"status": "failed", "error": "b", "message": "c"}, "b"),
            ({"status": "failed", "message": "c"}, "c"),
            ({"status": "failed", "error": {"code": 5, "message": "deep"}}, "deep"),
            (Response("failed", "attribute"), "attribute"),
            ({"status": "failed"}, "the job ended as 'failed'"),
            ({"status": "failed", "error": ""}, "the job ended as 'failed'"),
        ],
    )
    def test_the_message_of_a_failure(self, script: Any, response: object, message: str) -> None:
        """From error_message, error or message, else the status."""
        poller = StatusPoller(script(response), PollingConfig(strict=True))
        with pytest.raises(PollingFailureError, match=f"(^|: ){message}$"):
            poller.poll()

    @pytest.mark.parametrize(
        ("statuses", "response"),
        [
            ({"Done"}, {"status": "DONE "}),
            ({State.DONE}, {"status": "completed"}),
            ({"completed"}, {"status": State.DONE}),
            ({Number.COMPLETED}, {"status": "Completed"}),
            ({"2"}, {"status": 2}),
        ],
    )
    def test_statuses_match_in_any_form(self, script: Any, statuses: Any, response: object) -> None:
        """Letter case, blanks, enum members."""
        config = PollingConfig(terminal_statuses=statuses)
        assert StatusPoller(script(response), config).poll() == response

    def test_named_terminal_statuses_replace_the_defaults(
        self, time: FastTime, script: Any
    ) -> None:
        """Only those end the poll."""
        fetch = script({"status": "completed"}, {"status": "archived"})
        config = PollingConfig(terminal_statuses={"archived"})
        assert StatusPoller(fetch, config).poll() == {"status": "archived"}

    @pytest.mark.parametrize("extractor", ["job.state", lambda r: r["job"]["state"]])
    def test_extractors(self, script: Any, extractor: Any) -> None:
        """A path or a callable."""
        fetch = script({"job": {"state": State.DONE}})
        assert StatusPoller(fetch, status_extractor=extractor).poll()

    def test_backoff_settings_are_honoured(self, time: FastTime, script: Any) -> None:
        """The poller and the functions share one schedule."""
        running = {"status": "running"}
        config = PollingConfig(
            initial_delay=2, poll_interval=5, backoff_multiplier=2, max_backoff=15, timeout=60
        )
        fetch = script(*[running] * 4, {"status": "completed"})
        StatusPoller(fetch, config).poll()
        assert time.slept == [2, 5, 10, 15, 15]

    @both
    async def test_on_poll(self, time: FastTime, script: Any, kind: str) -> None:
        """Sees each response, the failing one included."""
        seen: list[object] = []
        poller = StatusPoller(
            script({"status": "running"}, {"status": "failed"}), PollingConfig(strict=True)
        )
        with pytest.raises(PollingFailureError):
            await poll(kind, poller, on_poll=seen.append)
        assert seen == [{"status": "running"}, {"status": "failed"}]

    @both
    async def test_a_poller_can_be_used_again(self, time: FastTime, script: Any, kind: str) -> None:
        """Each poll has a state of its own."""
        fetch = script({"status": "running"})
        poller = StatusPoller(fetch, PollingConfig(timeout=10))
        for _ in range(2):
            with pytest.raises(PollingTimeoutError) as caught:
                await poll(kind, poller)
            assert caught.value.attempts == 3

    @both
    async def test_a_timeout_names_the_last_status(
        self, time: FastTime, script: Any, kind: str
    ) -> None:
        """In its message and as an attribute, beside the response."""
        poller = StatusPoller(script({"status": "Running"}), PollingConfig(timeout=10))
        with pytest.raises(PollingTimeoutError, match="last status 'Running'") as caught:
            await poll(kind, poller)
        assert caught.value.status == "Running"
        assert caught.value.last_response == {"status": "Running"}

    def test_a_missing_status_is_reported_once(
        self,
        time: FastTime,
        script: Any,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Otherwise one would look for the reason of the timeout for long."""
        monkeypatch.setattr("infra_core.polling._status.trace_fields", lambda: {"trace_id": "7"})
        poller = StatusPoller(script({"progress": 5}), PollingConfig(timeout=20))
        with pytest.raises(PollingTimeoutError):
            poller.poll()
        (record,) = caplog.records
        assert (record.levelno, record.__dict__["trace_id"]) == (logging.WARNING, "7")
        assert "give a status_extractor" in caplog.text

    def test_the_hard_timeout_of_the_configuration(self, script: Any) -> None:
        """Reaches the driver."""
        import threading

        release = threading.Event()

        def hang() -> dict[str, str]:
            release.wait()
            return {"status": "completed"}

        poller = StatusPoller(hang, PollingConfig(timeout=0.06, hard_timeout=True))
        try:
            with pytest.raises(PollingTimeoutError):
                poller.poll()
        finally:
            release.set()


class TestConfig:
    def test_it_is_frozen_and_keyword_only(self) -> None:
        """As in 0.7."""
        config = PollingConfig()
        with pytest.raises(FrozenInstanceError):
            config.timeout = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            PollingConfig(60)  # type: ignore[call-arg]

    def test_sets_become_frozensets(self) -> None:
        """A configuration cannot be changed from outside."""
        statuses = {"completed"}
        config = PollingConfig(terminal_statuses=statuses, failure_statuses={"failed"})
        statuses.add("x")
        assert config.terminal_statuses == frozenset({"completed"})
        assert isinstance(config.failure_statuses, frozenset)
        assert hash(config) == hash(
            PollingConfig(terminal_statuses={"completed"}, failure_statuses={"failed"})
        )

    def test_defaults_of_0_7(self) -> None:
        """Unchanged."""
        config = PollingConfig()
        assert (config.timeout, config.poll_interval, config.initial_delay) == (600, 5, 0)
        assert (config.max_backoff, config.backoff_multiplier) == (60, 1)
        assert config.terminal_statuses is None
        assert config.failure_statuses is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("timeout", 0),
            ("poll_interval", -1),
            ("max_backoff", 0),
            ("backoff_multiplier", 0.9),
            ("initial_delay", -1),
            ("jitter", 2),
            ("max_consecutive_errors", -1),
            ("timeout", math.nan),
        ],
    )
    def test_ranges(self, name: str, value: float) -> None:
        """The message names the argument."""
        with pytest.raises(ValueError, match=name):
            PollingConfig(**{name: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["terminal_statuses", "failure_statuses"])
    def test_one_string_is_no_set_of_statuses(self, name: str) -> None:
        """It would be taken for its letters."""
        with pytest.raises(TypeError, match=r"write \{'completed'\}"):
            PollingConfig(**{name: "completed"})  # type: ignore[arg-type]


class TestSignals:
    def test_statuses_in_every_librarys_way(self) -> None:
        """`.response.status_code`, `.status_code`, `.status`."""
        azure = type("HttpResponseError", (Exception,), {"status_code": 503, "response": None})()
        aiohttp = type("ClientResponseError", (Exception,), {"status": 429})()
        refused = type("ClientResponseError", (Exception,), {"status": 403})()
        assert is_transient(azure)
        assert is_transient(aiohttp)
        assert not is_transient(refused)

    def test_httpx(self) -> None:
        """Transport errors are transient, malformed URLs are not."""
        httpx = pytest.importorskip("httpx")
        assert is_transient(httpx.ReadTimeout("slow"))
        assert is_transient(httpx.ConnectError("refused"))
        assert not is_transient(httpx.UnsupportedProtocol("no scheme"))
        assert not is_transient(httpx.InvalidURL("x"))

    def test_requests(self) -> None:
        """Connection errors and timeouts are transient, invalid URLs are not."""
        requests = pytest.importorskip("requests")
        assert is_transient(requests.ConnectionError("reset"))
        assert is_transient(requests.Timeout("slow"))
        assert not is_transient(requests.exceptions.InvalidURL("x"))

    def test_the_standard_library_and_urllib3(self) -> None:
        """By whatever class a broken connection comes through; not what stays wrong."""
        import http.client
        import socket
        import ssl
        import urllib.error

        urllib3 = pytest.importorskip("urllib3").exceptions
        late = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        cut = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
        broken = [
            http.client.IncompleteRead(b"{"), http.client.BadStatusLine("x"), late, cut,
            urllib3.ProtocolError("broken"), urllib3.ReadTimeoutError(None, "/", "slow"),
            ConnectionResetError(), TimeoutError(),
        ]  # fmt: skip
        for error in broken:
            assert is_transient(error), error
        for error in (late, cut, ConnectionRefusedError(), TimeoutError()):
            assert is_transient(urllib.error.URLError(error)), error
            assert is_transient(urllib3.MaxRetryError(None, "/", error)), error
        lasting = [
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            ssl.SSLCertVerificationError(1, "certificate verify failed"),
            urllib.error.URLError("unknown url type: x"),
            urllib.error.URLError(FileNotFoundError("x")),
        ]
        for error in lasting:
            assert not is_transient(error), error
            assert not is_transient(urllib.error.URLError(error)), error

    def test_unknown_hosts_and_mistakes(self) -> None:
        """Waiting does not help there."""
        import socket

        assert not is_transient(socket.gaierror(-2, "Name or service not known"))
        assert not is_transient(ValueError("bad json"))
        assert not is_transient(FileNotFoundError("token"))

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [(5, 5.0), (0.5, 0.5), (-3, 0.0), (True, None), (math.nan, None), ("5", None)],
    )
    def test_a_retry_after_attribute(self, value: object, seconds: float | None) -> None:
        """Numbers only."""
        assert retry_after(type("R", (), {"retry_after": value})()) == seconds

    @pytest.mark.parametrize(
        ("text", "seconds"), [("17", 17.0), (" 3 ", 3.0), ("soon", None), ("", None)]
    )
    def test_a_retry_after_header(self, text: str, seconds: float | None) -> None:
        """Seconds; what is malformed is passed over."""
        assert retry_after(type("R", (), {"headers": {"Retry-After": text}})()) == seconds

    def test_a_date_in_the_header(self, time: FastTime) -> None:
        """Counted from now; in the past it is zero."""
        now = datetime.fromtimestamp(clock.time(), timezone.utc)
        for delta, low, high in ((90, 88, 91), (-90, 0, 0)):
            text = (now + timedelta(seconds=delta)).strftime("%a, %d %b %Y %H:%M:%S GMT")
            answer = type("R", (), {"headers": {"retry-after": text}})()
            assert low <= (retry_after(answer) or 0) <= high

    def test_plain_values_say_nothing(self) -> None:
        """Bodies have no headers."""
        values: list[object] = [None, {"retry_after": 5}, "x", 3, []]
        for value in values:
            assert retry_after(value) is None


def test_errors_survive_pickling() -> None:
    """With the attributes that process pools hand over."""
    error = PollingTimeoutError("late", {"id": 7})
    error.attempts = 3
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.last_response, again.attempts) == ("late", {"id": 7}, 3)
    failure = pickle.loads(pickle.dumps(PollingFailureError("bad", {"id": 8})))
    assert failure.response == {"id": 8}


def test_extractors_are_recognized_by_their_protocol() -> None:
    """As in 0.7: `isinstance` works, by the call alone."""
    assert isinstance(extract_status, StatusExtractor)
    assert isinstance(status_at("a.b"), StatusExtractor)
    assert not isinstance("a.b", StatusExtractor)
