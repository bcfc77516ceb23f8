"""Telemetry: what may be sent, what arrives, and what happens to what does not."""

import gzip
import json
import logging
import math
import os
import re
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.azure.exceptions import ConfigurationError
from infra_core.azure.monitoring import (
    TELEMETRY_EVENTS,
    RunLogWriter,
    TelemetryClient,
    TelemetryConfig,
    TelemetryEvent,
    _http_transport,
)
from infra_core.azure.monitoring._envelope import MAX_ITEM_BYTES, Item, encode_item, shorten
from infra_core.azure.monitoring._http_transport import IngestionTransport
from infra_core.azure.monitoring._ingestion import Answer, judge
from infra_core.azure.monitoring._sender import SenderLimits
from infra_core.azure.monitoring.testing import IngestionServer, reply
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime import RetryPolicy

SOON = 10.0
QUICK = SenderLimits(
    batch_seconds=0.02,
    retry=RetryPolicy(max_retries=4, backoff=0.001, max_backoff=0.5),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[IngestionServer]:
    """A server that speaks the ingestion protocol, reached without any proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with IngestionServer() as running:
        yield running


Connect = Callable[..., TelemetryClient]


@pytest.fixture
def connect(server: IngestionServer) -> Iterator[Connect]:
    """Make clients of the server, closed at the end."""
    clients: list[TelemetryClient] = []

    def factory(limits: SenderLimits = QUICK, **options: Any) -> TelemetryClient:
        config = TelemetryConfig(server.connection_string)
        client = TelemetryClient(config=config, limits=limits, **options)
        clients.append(client)
        return client

    yield factory
    for client in clients:
        client.close(0)


# What may be tracked


def test_events_are_those_of_0_7() -> None:
    """The enum and the set of names agree."""
    assert {event.value for event in TelemetryEvent} == TELEMETRY_EVENTS
    assert len(TELEMETRY_EVENTS) == 15


@pytest.mark.parametrize("name", ["progress", "Progress", " PROGRESS ", TelemetryEvent.PROGRESS])
def test_names_are_normalised(name: str) -> None:
    """Case and surrounding blanks do not matter."""
    client = TelemetryClient(config=TelemetryConfig(backend="log"))
    assert client.validate_event(name) is TelemetryEvent.PROGRESS
    assert client.validate_event("upload-attempt") is TelemetryEvent.UPLOAD_ATTEMPT


def test_an_unknown_event_is_refused_with_those_allowed() -> None:
    """The message lists the names there are."""
    client = TelemetryClient(config=TelemetryConfig(backend="log"))
    with pytest.raises(ValueError, match=r"'explode' is not one of: completed,.*upload_success"):
        client.track_event("explode")


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"batch_id": 7}, "batch_id must be a string"),
        ({"job_id": b"x"}, "job_id must be a string"),
        ({"slug": 1.0}, "slug must be a string"),
        ({"metadata": [1]}, "metadata must be a mapping"),
        ({"metadata": {1: 2}}, "metadata keys must be strings"),
    ],
)
def test_ids_and_metadata_are_checked(properties: dict[str, Any], message: str) -> None:
    """Wrong types are the caller's mistake and raise."""
    client = TelemetryClient(config=TelemetryConfig(backend="log"))
    with pytest.raises(ValueError, match=message):
        client.track_event("progress", **properties)


def test_a_client_without_config_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It still works, from the environment, and says what to pass."""
    monkeypatch.delenv("APPLICATIONINSIGHTS_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("APPINSIGHTS_INSTRUMENTATIONKEY", raising=False)
    with pytest.warns(DeprecationWarning, match="from_env"):
        TelemetryClient()


# Settings


def test_the_prefixed_variable_wins_over_the_plain_ones() -> None:
    """Prefix, then connection string, then instrumentation key; blank ones do not count."""
    env = {
        "CRAWLER_APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=a",
        "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=b",
        "APPINSIGHTS_INSTRUMENTATIONKEY": "c",
    }
    found = []
    for name in [*env, ""]:
        found.append(TelemetryConfig.from_env_with_prefix("CRAWLER", env=env).connection_string)
        env[name] = "  "
    assert found == ["InstrumentationKey=a", "InstrumentationKey=b", "c", None]


def test_from_env_ignores_prefixed_variables() -> None:
    """Another service's settings are not ours."""
    env = {"CRAWLER_APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=a"}
    assert TelemetryConfig.from_env(env=env) == TelemetryConfig(None, enabled=False)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("k", "https://dc.services.visualstudio.com/v2.1/track"),
        ("InstrumentationKey=k", "https://dc.services.visualstudio.com/v2.1/track"),
        (
            "instrumentationkey=k;IngestionEndpoint=https://weu.in.example/;LiveEndpoint=https://l",
            "https://weu.in.example/v2.1/track",
        ),
        ("'InstrumentationKey=\"k\";;'", "https://dc.services.visualstudio.com/v2.1/track"),
        (
            "InstrumentationKey=k;EndpointSuffix=ai.contoso.com;Location=weu",
            "https://weu.dc.ai.contoso.com/v2.1/track",
        ),
        *(
            (
                f"InstrumentationKey=k;IngestionEndpoint=https://a.example/b{path}",
                "https://a.example/b/v2.1/track",
            )
            for path in ["", "/", "//", "/v2.1/track", "/v2.1/track/", "/v2/track"]
        ),
    ],
)
def test_the_endpoint_comes_from_the_connection_string(text: str, url: str) -> None:
    """IngestionEndpoint, else EndpointSuffix, else the global endpoint."""
    ingestion = TelemetryConfig(text).ingestion()
    assert (ingestion.key, ingestion.url) == ("k", url)


@pytest.mark.parametrize(
    "text",
    [
        "IngestionEndpoint=https://a.example",
        "InstrumentationKey=k;IngestionEndpoint=a",
        "InstrumentationKey=k;InstrumentationKey=other",
        "InstrumentationKey=k;EndpointSuffix=ai.contoso.com/path",
        "InstrumentationKey=k;EndpointSuffix=ai.contoso.com;Location=a/b",
        "InstrumentationKey=k;EndpointSuffix=a..b",
        "InstrumentationKey=k;other",
        "InstrumentationKey:k",
        "InstrumentationKey=k,IngestionEndpoint=https://a.example/",
        "k;IngestionEndpoint:https://a.example/",
    ],
)
def test_an_unusable_connection_string_is_refused_without_showing_it(text: str) -> None:
    """A mistake in the settings shows at the start, not in the night."""
    with pytest.raises(ConfigurationError, match="Application Insights connection string"):
        TelemetryClient(config=TelemetryConfig(text))


def test_the_connection_string_does_not_show_in_repr() -> None:
    """Secrets never show."""
    config = TelemetryConfig("InstrumentationKey=abcdef")
    assert "abcdef" not in repr(config) + repr(config.ingestion())


def test_an_unknown_backend_is_refused() -> None:
    """The message lists the backends."""
    with pytest.raises(ConfigurationError, match="applicationinsights, otel, log"):
        TelemetryConfig(backend="carrier pigeon")  # type: ignore[arg-type]


# The log


def test_events_are_logged_when_nothing_is_configured(caplog: pytest.LogCaptureFixture) -> None:
    """The log backend writes every event, and nothing at construction."""
    with caplog.at_level(logging.INFO, logger="crawler.azure.telemetry"):
        client = TelemetryClient(config=TelemetryConfig.from_env(env={}), service_name="crawler")
        assert caplog.records == []
        client.track_event(TelemetryEvent.STARTED, batch_id="b", metadata={"n": 1}, path=Path("p"))
        client.track_error("failed", error=ValueError("x"))
    stats = client.stats()
    assert not any((stats.tracked, stats.delivered, stats.pending, stats.retried, stats.dropped))
    first, second = caplog.records
    payload = json.loads(first.getMessage().removeprefix("telemetry_event "))
    assert payload == {
        "service": "crawler",
        "event": "started",
        "batch_id": "b",
        "job_id": None,
        "slug": None,
        "metadata": {"n": 1, "path": "p"},
    }
    assert (first.levelname, second.levelname) == ("INFO", "ERROR")
    assert second.getMessage().startswith("telemetry_error ")
    assert client.flush(0)


def test_a_handler_of_the_log_may_track_what_it_is_given(
    server: IngestionServer, connect: Connect
) -> None:
    """What it tracks is sent and not logged: that would have no end."""
    client = connect(logger_name="tests.of.a.handler")
    given: list[str] = []

    class Tracking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            given.append(record.getMessage())
            client.track_custom_event("log", error=True, text=record.name)

    logger, handler = logging.getLogger("tests.of.a.handler"), Tracking()
    logger.addHandler(handler)
    try:
        client.track_error("failed")
        client.track_error("failed")
    finally:
        logger.removeHandler(handler)
    assert client.flush(SOON)
    assert sorted(server.names()) == ["failed", "failed", "log", "log"]
    assert [text.partition(" ")[0] for text in given] == ["telemetry_error", "telemetry_error"]


def test_a_disabled_client_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """`enabled=False` switches off log and delivery, and still validates."""
    client = TelemetryClient(config=TelemetryConfig("InstrumentationKey=k", enabled=False))
    with caplog.at_level(logging.INFO):
        client.track_event("started")
    assert caplog.records == []
    with pytest.raises(ValueError, match="is not one of"):
        client.track_event("explode")


def test_secrets_are_redacted_in_log_and_item(
    server: IngestionServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the log nor the wire carries a token."""
    client = connect()
    with caplog.at_level(logging.INFO):
        client.track_event(
            "progress",
            slug="https://a.example/?sig=SECRET1",
            metadata={"password": "SECRET2", "deep": {"url": "https://u:SECRET3@h/"}},
        )
    assert client.flush(SOON)
    assert "SECRET" not in caplog.text + json.dumps(server.items)


# Delivery


def test_an_event_arrives_as_a_custom_event(server: IngestionServer, connect: Connect) -> None:
    """Ids, service and metadata are dimensions; numbers are measurements as well."""
    client = connect(service_name="crawler")
    client.track_event(
        TelemetryEvent.COMPLETED, batch_id="b", job_id="j", metadata={"duration_ms": 1500, "a": {}}
    )
    assert client.flush(SOON)
    [item] = server.items
    assert item["name"] == "Microsoft.ApplicationInsights.Event"
    assert item["iKey"] == "00000000-0000-4000-8000-000000000000"
    assert item["tags"]["ai.cloud.role"] == "crawler"
    assert item["data"]["baseType"] == "EventData"
    assert item["data"]["baseData"] == {
        "ver": 2,
        "name": "completed",
        "properties": {
            "a": "{}",
            "batch_id": "b",
            "duration_ms": "1500",
            "job_id": "j",
            "service": "crawler",
        },
        "measurements": {"duration_ms": 1500.0},
    }
    [batch] = server.batches
    assert batch.path == "/v2.1/track"
    assert batch.headers["content-encoding"] == "gzip"
    assert client.stats().delivered == 1


def test_nothing_is_sent_at_construction(server: IngestionServer, connect: Connect) -> None:
    """No false `started`, no connection, no thread before the first event."""
    before = threading.active_count()
    client = connect()
    assert client.flush(SOON)
    assert (server.batches, client.stats().tracked) == ([], 0)
    assert threading.active_count() == before


def test_an_error_with_an_exception_arrives_with_its_stack(
    server: IngestionServer, connect: Connect
) -> None:
    """`track_error` sends the event, and the exception for the failure views."""
    client = connect()
    try:
        raise ValueError("no such token=SECRET")
    except ValueError as error:
        client.track_error("failed", batch_id="b", error=error)
    assert client.flush(SOON)
    event, exception = server.items
    assert event["data"]["baseData"]["properties"]["severity"] == "error"
    assert exception["data"]["baseType"] == "ExceptionData"
    [details] = exception["data"]["baseData"]["exceptions"]
    assert details["typeName"] == "builtins.ValueError"
    assert "test_an_error_with_an_exception" in details["stack"]
    assert "SECRET" not in json.dumps(server.items)


def test_events_of_a_moment_travel_in_one_request(
    server: IngestionServer, connect: Connect
) -> None:
    """Many events, few requests, in order."""
    client = connect()
    for number in range(500):
        client.track_event("progress", metadata={"n": number})
    assert client.flush(SOON)
    numbers = [int(item["data"]["baseData"]["properties"]["n"]) for item in server.items]
    assert numbers == list(range(500))
    assert len(server.batches) < 50


def test_a_full_batch_leaves_at_once(server: IngestionServer, connect: Connect) -> None:
    """By its items or its bytes; what is no full batch waits for more."""
    client = connect(SenderLimits(batch_seconds=600, batch_items=3))
    for _ in range(4):
        client.track_event("progress")
    assert server.wait_for_items(3)
    large = connect(SenderLimits(batch_seconds=600, batch_bytes=2_000))
    large.track_event("progress", text="x" * 3_000)
    assert server.wait_for_items(4)
    assert client._exporter is not None
    changed = client._exporter._worker.changed  # the answer may come after the items
    with changed:
        assert changed.wait_for(lambda: client.stats().pending == 1, SOON)


def test_events_arrive_without_flush(server: IngestionServer, connect: Connect) -> None:
    """An incomplete batch is sent after a moment."""
    connect().track_event("started")
    assert server.wait_for_items(1, SOON)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 0])
def test_passing_failures_are_retried(
    status: int, server: IngestionServer, connect: Connect
) -> None:
    """Overload, server errors and resets cost time, not events."""
    server.plan(reply(status), reply(status))
    client = connect()
    client.track_event("started")
    assert client.flush(SOON)
    stats = client.stats()
    assert server.names() == ["started"]
    assert (stats.delivered, stats.dropped, stats.pending) == (1, 0, 0)
    assert stats.retried == 2 or status == 0  # a reused connection is tried again at once


def test_only_the_items_refused_by_a_206_are_sent_again(
    server: IngestionServer, connect: Connect
) -> None:
    """Of a partial success the passing failures are retried, the lasting ones are counted."""
    client = connect(QUICK)
    gate = threading.Event()
    server.plan(reply(200, hold=gate), reply(206, {0: 500, 2: 400}))
    client.track_event("started")
    assert server.wait_for_batches(1)
    for number in range(4):
        client.track_event("progress", metadata={"n": number})
    gate.set()
    assert not client.flush(SOON), "an item was lost, and flush says so"
    assert [len(batch.items) for batch in server.batches] == [1, 4, 1]
    assert server.batches[2].items[0]["data"]["baseData"]["properties"]["n"] == "0"
    stats = client.stats()
    assert (stats.tracked, stats.delivered, stats.retried) == (5, 4, 1)
    assert stats.dropped_by_reason == {"item_400": 1}


@pytest.mark.parametrize("status", [302, 303, 407, 408, 425, 500, 501, 505, 511, 599])
def test_what_says_nothing_of_the_items_is_sent_again(
    status: int, server: IngestionServer, connect: Connect
) -> None:
    """A proxy's page to sign in at, and any failure of a server: nothing is lost by them."""
    server.plan(reply(status))
    client = connect(QUICK)
    client.track_event("started")
    assert client.flush(SOON)
    assert (client.stats().delivered, client.stats().retried) == (1, 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "http_400"),
        (401, "http_401"),
        (404, "http_404"),
        (402, "quota_http_402"),
        (439, "quota_http_439"),
    ],
)
def test_lasting_refusals_are_counted_with_their_reason(
    status: int,
    reason: str,
    server: IngestionServer,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What cannot be delivered is not retried, but counted and logged."""
    server.plan(reply(status))
    client = connect()
    client.track_event("started")
    assert not client.close(SOON)
    assert client.stats().dropped_by_reason == {reason: 1}
    assert len(server.batches) == 1
    assert reason in caplog.text


def test_a_short_retry_after_is_kept_to(server: IngestionServer, connect: Connect) -> None:
    """A quota with a Retry-After within reason is waited out."""
    server.plan(reply(439, retry_after="0.05"))
    client = connect()
    client.track_event("started")
    assert client.flush(SOON)
    assert client.stats().retried == 1


def test_a_retry_after_beyond_reason_ends_the_retries(
    server: IngestionServer, connect: Connect
) -> None:
    """A day is too long to wait: the events are counted as lost."""
    server.plan(reply(429, retry_after="86400"))
    client = connect()
    client.track_event("started")
    assert not client.flush(SOON)
    assert client.stats().dropped_by_reason == {"retries_exhausted:http_429": 1}


def test_retries_are_finite(server: IngestionServer, connect: Connect) -> None:
    """After the last retry the items are counted as lost, with the last cause."""
    server.plan(*[reply(503)] * 20)
    client = connect()
    client.track_event("started")
    assert not client.flush(SOON)
    assert client.stats().dropped_by_reason == {"retries_exhausted:http_503": 1}


def test_an_endpoint_without_a_listener_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A refused connection never raises: it is counted."""
    config = TelemetryConfig("InstrumentationKey=k;IngestionEndpoint=http://127.0.0.1:9/")
    client = TelemetryClient(config=config, limits=QUICK)
    client.track_event("started")
    assert not client.close(SOON)
    assert client.stats().dropped_by_reason == {"retries_exhausted:ConnectionRefusedError": 1}


def test_a_batch_that_is_too_large_is_split(server: IngestionServer, connect: Connect) -> None:
    """413 halves the batch until it passes."""
    client = connect()
    gate = threading.Event()
    server.plan(reply(200, hold=gate), reply(413), reply(413))
    client.track_event("started")
    assert server.wait_for_batches(1)
    for _ in range(4):
        client.track_event("progress")
    gate.set()
    assert client.flush(SOON)
    assert len(server.items) == 5
    assert client.stats().delivered == 5


def test_redirects_within_the_host_are_followed_and_remembered(
    server: IngestionServer, connect: Connect
) -> None:
    """308 moves the endpoint; later batches go there at once."""
    server.plan(reply(308, location="/moved/v2.1/track"))
    client = connect()
    client.track_event("started")
    assert client.flush(SOON)
    client.track_event("completed")
    assert client.flush(SOON)
    assert [batch.path for batch in server.batches] == [
        "/v2.1/track",
        "/moved/v2.1/track",
        "/moved/v2.1/track",
    ]


def test_redirects_elsewhere_are_not_followed(server: IngestionServer, connect: Connect) -> None:
    """Telemetry goes to Azure Monitor or nowhere."""
    server.plan(reply(308, location="https://evil.example/v2.1/track"))
    client = connect()
    client.track_event("started")
    assert not client.flush(SOON)
    assert client.stats().dropped_by_reason == {"http_308": 1}


def test_a_kept_connection_that_the_server_resets_loses_nothing(
    server: IngestionServer, connect: Connect
) -> None:
    """The batch goes over another one, and no flush waits out a backoff for that."""
    client = connect()
    client.track_event("started")
    assert client.flush(SOON)
    server.plan(reply(0))
    client.track_event("completed")
    assert client.flush(SOON)
    assert server.names() == ["started", "completed"]
    assert (client.stats().delivered, client.stats().dropped) == (2, 0)


def test_a_journal_has_every_event_before_it_is_sent(
    server: IngestionServer, connect: Connect, tmp_path: Path
) -> None:
    """What is in the queue when a process is killed is on record in the run log."""
    server.plan(*[reply(503)] * 20)
    client = connect(journal=RunLogWriter(tmp_path, azure_client=None))
    client.track_event("progress", batch_id="b", metadata={"n": 1})
    client.track_error("failed")
    first, second = (tmp_path / "_logs" / "run.log").read_text().splitlines()
    line = json.loads(first)
    assert (line["event"], line["name"], line["batch_id"]) == ("telemetry", "progress", "b")
    assert line["metadata"] == {"n": 1}
    assert json.loads(second)["level"] == "ERROR"


def test_a_journal_that_cannot_be_written_does_not_raise(
    connect: Connect, server: IngestionServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A full disk costs the record, not the event."""
    (tmp_path / "_logs").write_text("a file, not a folder")
    client = connect(journal=RunLogWriter(tmp_path, azure_client=None))
    client.track_event("started")
    assert client.flush(SOON)
    assert server.names() == ["started"]
    assert "missing from the journal" in caplog.text


def test_a_proxy_is_honoured(server: IngestionServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY gets the request with the whole URL; NO_PROXY goes around it."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, server.url)
    config = TelemetryConfig("InstrumentationKey=k;IngestionEndpoint=http://ingest.example/")
    with TelemetryClient(config=config, limits=QUICK) as client:
        client.track_event("started")
        assert client.flush(SOON)
    assert server.batches[0].path == "http://ingest.example/v2.1/track"


def test_events_and_metrics_of_ones_own_name_arrive(
    server: IngestionServer, connect: Connect
) -> None:
    """In the envelopes of the service; the fixed names are checked as before."""
    client = connect()
    client.track_custom_event("page.saved", job_id=" j ", service="other", bytes=7)
    client.track_custom_event("page.lost", error=True)
    client.track_metric("queue", 5, stage="fetch", name="n", self="s")
    assert client.flush(SOON)
    saved, lost, queue = (item["data"]["baseData"] for item in server.items)
    assert (saved["name"], saved["measurements"]) == ("page.saved", {"bytes": 7})
    assert (saved["properties"]["service"], saved["properties"]["job_id"]) == ("other", "j")
    assert (lost["name"], lost["properties"]["severity"]) == ("page.lost", "error")
    assert server.items[2]["data"]["baseType"] == "MetricData"
    assert queue["metrics"][0]["name"] == "queue"
    assert queue["metrics"][0]["value"] == 5
    assert queue["properties"]["stage"] == "fetch"
    with pytest.raises(ValueError, match="is not one of"):
        client.track_event("page.saved")
    with pytest.raises(ValueError, match="names no event or metric"):
        client.track_custom_event(" ")
    for number in (float("nan"), float("inf"), 10**400):
        with pytest.raises(ValueError, match="pass a finite number"):
            client.track_metric("queue", number)


def test_an_event_is_printed_as_its_name() -> None:
    """As in 0.7, in logs and file names."""
    assert str(TelemetryEvent.STARTED) == f"{TelemetryEvent.STARTED}" == "started"


@pytest.mark.parametrize(
    "body",
    [
        b'{"itemsReceived":3,"itemsAccepted":2,"errors":[{"index":Infinity,"statusCode":500}]}',
        b'{"itemsReceived":3,"itemsAccepted":2,"errors":[{"index":NaN,"statusCode":500}]}',
        b'{"itemsReceived":3,"itemsAccepted":2,"errors":[{"index":-1,"statusCode":500}]}',
        b'{"itemsReceived":3,"itemsAccepted":2,"errors":[{"index":"x","statusCode":500}]}',
        b'{"itemsReceived":3,"itemsAccepted":2,"errors":[{"index":7,"statusCode":500}]}',
        b'{"errors":[{"index":Infinity,"statusCode":500}]}',
        b'{"itemsAccepted":2,"errors":[{"index":1%s,"statusCode":500}]}' % (b"0" * 400),
        b'{"itemsAccepted":1%s,"errors":[null]}' % (b"0" * 400),
        b'{"errors":[null]}',
        b'{"errors":"x"}',
        b'{"itemsReceived":3,"itemsAccepted":2,"errors":[]}',
        b"[]",
        b"<html>Sign in</html>",
    ],
)
def test_nonsense_in_an_answer_loses_nothing(body: bytes) -> None:
    """What may not have been accepted is sent again; a 200 has all, unless it speaks of errors."""
    for status in (200, 206):
        verdict = judge(Answer(status, body), 3)
        assert (verdict.retry, verdict.delivered, verdict.dropped) == ([0, 1, 2], [], {})
    whole = b'{"itemsReceived":3,"itemsAccepted":3,"errors":[null]}'
    assert [judge(Answer(200, answer), 3).delivered for answer in (whole, b"{}")] == [[0, 1, 2]] * 2


def test_nonsense_beside_what_can_be_read_is_left_aside() -> None:
    """The count of accepted items shows that everything else has arrived."""
    body = (
        b'{"itemsReceived":3,"itemsAccepted":2,"errors":[{"index":1.0,"statusCode":503},'
        b'{"index":Infinity,"statusCode":500}]}'
    )
    verdict = judge(Answer(206, body), 3)
    assert (verdict.retry, verdict.delivered) == ([1], [0, 2])


class _Trickle(BaseHTTPRequestHandler):
    """Answers, and never comes to an end."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.asked.append(self.path)
        try:
            if self.path.startswith("/head"):
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not server.over.wait(0.02):
                    self.wfile.write(b"X-More: 1\r\n")
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
                while not server.over.wait(0.02):
                    self.wfile.write(b" " * 100)
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def trickle() -> Iterator[Any]:
    """A server whose answers never end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Trickle) as server:
        server.over, server.asked = threading.Event(), []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def test_an_answer_that_trickles_has_a_bound(trickle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its status is there the batch is tried again; after that the status counts."""
    monkeypatch.setattr(_http_transport, "_BODY_SECONDS", 0.1)
    url = f"http://127.0.0.1:{trickle.server_address[1]}"
    head = IngestionTransport(f"{url}/head", total=0.2)
    assert head.send([b"{}"]) == Answer(0, error="TimeoutError")
    body = IngestionTransport(f"{url}/body", total=60)
    answer = body.send([b"{}"])
    assert judge(answer, 1).delivered == [0]
    for transport in (head, body):
        transport.close()


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress, bytes])
@pytest.mark.parametrize("named", [True, False])
def test_an_answer_that_a_proxy_encoded_is_read(
    encode: Callable[[bytes], bytes], named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it was asked not to; or all that arrived would be sent again."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answer = b'{"itemsReceived":1,"itemsAccepted":1,"errors":[]}'
    headers = {"Content-Encoding": "gzip"} if named and encode is gzip.compress else {}
    with FaultyOrigin() as origin:
        origin.add("/v2.1/track", encode(answer), headers=headers)
        transport = IngestionTransport(origin.url("/v2.1/track"))
        assert transport.send([b"{}"]) == Answer(200, answer)
        transport.close()


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "127.0.0.1:{port}"},
        {"all_proxy": "http://127.0.0.1:{port}"},
    ],
)
def test_proxies_are_those_of_all_other_requests(
    server: IngestionServer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Forms that curl takes; NO_PROXY with a port."""
    port = urlsplit(server.connection_string.partition("IngestionEndpoint=")[2]).port
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(port=port))
    transport = IngestionTransport("http://ingestion.invalid/v2.1/track")
    assert transport.send([b"{}"]).status == 400  # from the server: it knows no such item
    transport.close()
    monkeypatch.setenv("no_proxy", "ingestion.invalid:80")
    assert transport.send([b"{}"]).status == 0
    transport.close()


def test_an_unreadable_206_is_tried_again() -> None:
    """Some items were refused and which is unknown: better twice than lost."""
    assert judge(Answer(206, b"oops"), 2).retry == [0, 1]
    assert judge(Answer(206, b'{"errors": []}'), 2).delivered == [0, 1]


def test_events_are_delivered_where_no_thread_can_be_started(
    server: IngestionServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very end of the interpreter the caller delivers, with one try."""

    class Refused(threading.Thread):
        def start(self) -> None:
            if self.name == "infra-core-telemetry":
                raise RuntimeError("can't create new thread at interpreter shutdown")
            super().start()

    monkeypatch.setattr(threading, "Thread", Refused)
    server.plan(reply(200), reply(503))
    client = connect()
    client.track_event("started")
    client.track_event("completed")
    monkeypatch.undo()
    stats = client.stats()
    assert (stats.delivered, stats.pending) == (1, 0)
    assert stats.dropped_by_reason == {"closed:http_503": 1}


# Bounds


def test_tracking_never_waits_for_the_network(
    server: IngestionServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """While the server hangs, tracking goes on; what does not fit pushes out the oldest."""
    gate = threading.Event()
    server.plan(reply(200, hold=gate))
    limits = SenderLimits(queue_items=10, batch_seconds=0.01)
    client = connect(limits)
    client.track_event("started")
    assert server.wait_for_batches(1)
    for number in range(100):
        client.track_event("progress", metadata={"n": number})
    stats = client.stats()
    assert stats.dropped_by_reason == {"queue_full": 90}
    logged = re.findall(r"telemetry: (\d+) events? lost so far, reason queue_full", caplog.text)
    assert logged == ["1", "2", "4", "8", "16", "32", "64"]
    assert stats.tracked == stats.delivered + stats.pending + stats.dropped == 101
    assert not client.flush(0.01), "it is bounded"
    gate.set()
    assert client.flush(SOON)
    assert server.items[-1]["data"]["baseData"]["properties"]["n"] == "99"


def test_the_queue_is_bounded_by_memory_too(server: IngestionServer, connect: Connect) -> None:
    """Large items push out others before their number does."""
    gate = threading.Event()
    server.plan(reply(200, hold=gate))
    client = connect(SenderLimits(queue_bytes=20_000, batch_seconds=0.01))
    client.track_event("started")
    assert server.wait_for_batches(1)
    for _ in range(10):
        client.track_event("progress", metadata={"text": "x" * 5_000})
    assert client.stats().dropped_by_reason["queue_full"] >= 6
    gate.set()


def test_exceptions_count_in_the_memory_of_the_queue(
    server: IngestionServer, connect: Connect
) -> None:
    """With message and stack, which may be long."""
    limits = SenderLimits(queue_bytes=1_000_000, batch_bytes=2_000_000, batch_seconds=600)
    client = connect(limits)
    for _ in range(9):
        client.track_error("failed", cause=ValueError("x" * 100_000))
    stats = client.stats()
    assert 2 < stats.pending <= 10
    assert stats.dropped_by_reason == {"queue_full": 18 - stats.pending}


def test_the_thread_ends_when_idle_and_comes_back(
    server: IngestionServer, connect: Connect
) -> None:
    """A client that is not used costs no thread."""
    client = connect(SenderLimits(batch_seconds=0.01, idle_seconds=0.01))
    for name in ("started", "completed"):
        client.track_event(name)
        assert client.flush(SOON)
        sender: Any = client._exporter
        thread = sender._worker._thread
        if thread is not None:
            thread.join(SOON)
        assert sender._worker._thread is None
    assert server.names() == ["started", "completed"]


def test_flush_waits_for_as_long_as_is_asked(server: IngestionServer, connect: Connect) -> None:
    """Without end as well; what is no number of seconds is refused."""
    client = connect()
    client.track_event("started")
    for timeout, kind in ((math.nan, ValueError), ("5", TypeError), (None, TypeError)):
        with pytest.raises(kind, match=r"timeout=.*: pass seconds, or math\.inf"):
            client.flush(timeout)  # type: ignore[arg-type]
    assert client.flush(math.inf)
    client.track_event("started")
    assert client.close(1e300)
    assert len(server.items) == 2


def test_events_after_close_are_counted(server: IngestionServer, connect: Connect) -> None:
    """A closed client delivers nothing more, says so, and raises nothing."""
    client = connect()
    assert client.close(SOON)
    client.track_event("started")
    assert client.stats().dropped_by_reason == {"closed": 1}


def test_close_accounts_for_what_it_leaves(server: IngestionServer, connect: Connect) -> None:
    """What was queued when time was up is counted as dropped, the rest as pending."""
    gate = threading.Event()
    server.plan(reply(503, hold=gate))
    client = connect()
    client.track_event("started")
    assert server.wait_for_batches(1)
    client.track_event("completed")
    assert not client.close(0.01)
    assert client.stats().dropped_by_reason == {"closed": 1}
    gate.set()
    sender: Any = client._exporter
    with sender._worker.changed:
        assert sender._worker.changed.wait_for(lambda: not sender._pending(), SOON)
    assert client.stats().dropped_by_reason == {"closed": 1, "closed:http_503": 1}


def test_flush_does_not_wait_for_our_own_backoff(server: IngestionServer, connect: Connect) -> None:
    """Who flushes gets another try at once, unless the server asked for patience."""
    server.plan(reply(503))
    policy = RetryPolicy(max_retries=3, backoff=3600, max_backoff=3600, jitter=False)
    client = connect(SenderLimits(batch_seconds=0.001, retry=policy))
    client.track_event("started")
    assert server.wait_for_batches(1)
    assert client.flush(SOON)
    assert server.names() == ["started"]


# Envelopes


def test_long_values_are_cut_visibly() -> None:
    """The cut text is as long as allowed and says how much is missing."""
    item = Item("progress", "2026-01-01T00:00:00Z", "s", {"n" * 200: "v" * 10_000})
    data = json.loads(encode_item(item, "k"))["data"]["baseData"]
    [(name, value)] = data["properties"].items()
    assert len(name) == 150
    assert len(value) == 8_192
    assert value.endswith(" characters cut off>")


@given(text=st.text(max_size=200), limit=st.integers(40, 300))
def test_shortened_texts_fit(text: str, limit: int) -> None:
    """No text is longer than its limit, and short ones are untouched."""
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text or len(text) > limit


@settings(max_examples=30, deadline=None)
@given(
    properties=st.dictionaries(
        st.text(max_size=300), st.text(max_size=50).map(lambda t: t * 300), max_size=300
    )
)
def test_every_item_fits_its_limit(properties: dict[str, str]) -> None:
    """Whatever the properties, the item is valid JSON of at most 64 KB."""
    item = Item("progress", "2026-01-01T00:00:00Z", "s", properties, {"m": 1.0})
    encoded = encode_item(item, "k")
    assert len(encoded) <= MAX_ITEM_BYTES
    assert json.loads(encoded)["data"]["baseData"]["name"] == "progress"


@pytest.mark.parametrize("text", ["a", "漢", '"', "\\", "\x01", "\ud800"])
@pytest.mark.parametrize("count", [1, 250])
def test_every_exception_fits_the_limit_of_an_item(text: str, count: int) -> None:
    """What its characters take in JSON counts; the stack is cut last, the names are kept."""
    details = ("ValueError", text * 40_000, text * 80_000)
    names = [f"{number}{text * 200}" for number in range(count)]
    item = Item(
        "failed", "t", "s", dict.fromkeys(names, text * 9_000), dict.fromkeys(names, 1.0),
        exception=details,
    )  # fmt: skip
    encoded = encode_item(item, "k")
    assert len(encoded) <= MAX_ITEM_BYTES
    data = json.loads(encoded)["data"]["baseData"]
    [error] = data["exceptions"]
    assert error["typeName"] == "ValueError"
    assert error["stack"].endswith("characters cut off>")
    assert not error["hasFullStack"]
    assert len(error["stack"]) > 3 * len(error["message"]) >= 3 * 30


def test_the_ids_of_a_span_are_those_of_the_operation() -> None:
    """By which the service joins what belongs together."""
    ids = {"trace_id": "1f", "span_id": "2f"}
    tags = json.loads(encode_item(Item("progress", "t", "s", operation=ids), "k"))["tags"]
    assert (tags["ai.operation.id"], tags["ai.operation.parentId"]) == ("1f", "2f")
    assert "ai.operation.id" not in json.loads(encode_item(Item("progress", "t", "s"), "k"))["tags"]


def test_left_out_properties_are_counted() -> None:
    """More than 200 properties are too many; the item says how many are missing."""
    item = Item("progress", "t", "s", {f"p{number}": "v" for number in range(230)})
    properties = json.loads(encode_item(item, "k"))["data"]["baseData"]["properties"]
    assert properties["infra_core.truncated"] == "30 more properties"


# Answers


@given(
    status=st.one_of(st.sampled_from([0, -1, 200, 206, 400, 402, 413, 429]), st.integers(100, 599)),
    body=st.one_of(
        st.binary(max_size=50),
        st.lists(st.tuples(st.integers(-2, 12), st.integers(0, 700)), max_size=8).map(
            lambda errors: json.dumps(
                {"errors": [{"index": i, "statusCode": s} for i, s in errors]}
            ).encode()
        ),
    ),
    retry_after=st.one_of(st.none(), st.floats(0, 1e6)),
    count=st.integers(1, 10),
)
def test_every_item_of_every_answer_is_counted_once(
    status: int, body: bytes, retry_after: float | None, count: int
) -> None:
    """Delivered, to be retried, or dropped with a reason: exactly one of them."""
    verdict = judge(Answer(status, body, retry_after), count)
    judged = [*verdict.delivered, *verdict.retry, *verdict.dropped]
    assert sorted(judged) == list(range(count))
    assert all(verdict.dropped.values())


# Processes


def run_python(code: str, *arguments: str, timeout: float = 50.0) -> str:
    """Run code in a new interpreter with warnings as errors, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_last_event_before_exit_arrives(server: IngestionServer) -> None:
    """A script that tracks and ends, without flush or close, loses nothing."""
    run_python(
        """
        import sys
        from infra_core.azure.monitoring import TelemetryClient, TelemetryConfig
        client = TelemetryClient(config=TelemetryConfig(sys.argv[1]))
        for number in range(1200):
            client.track_event("progress", metadata={"n": number})
        client.track_event("completed")
        """,
        server.connection_string,
    )
    assert len(server.items) == 1201
    assert server.names()[-1] == "completed"


def test_an_event_tracked_by_an_exit_handler_arrives(server: IngestionServer) -> None:
    """Also one that is tracked after the client's own exit handler ran."""
    run_python(
        """
        import atexit, sys
        atexit.register(lambda: client.track_event("completed"))
        from infra_core.azure.monitoring import TelemetryClient, TelemetryConfig
        client = TelemetryClient(config=TelemetryConfig(sys.argv[1]))
        client.track_event("started")
        """,
        server.connection_string,
    )
    assert server.names() == ["started", "completed"]


def test_the_end_of_the_process_is_not_held_up_for_long(server: IngestionServer) -> None:
    """Where the server hangs the interpreter ends within the bound, and says once what was lost."""
    gate = threading.Event()
    server.plan(*[reply(200, hold=gate)] * 3)
    out = run_python(
        """
        import sys, logging, multiprocessing.util  # it has exit handlers of its own
        logging.basicConfig(stream=sys.stdout)
        from infra_core.azure.monitoring import TelemetryClient, TelemetryConfig
        from infra_core.azure.monitoring._sender import SenderLimits
        client = TelemetryClient(
            config=TelemetryConfig(sys.argv[1]), limits=SenderLimits(exit_seconds=0.2)
        )
        client.track_event("started")
        """,
        server.connection_string,
        timeout=30,
    )
    gate.set()
    assert out.count("1 event undelivered at exit") == 1


@pytest.mark.posix
def test_a_forked_child_sends_its_own_events_only(server: IngestionServer) -> None:
    """After a fork the child delivers what it tracks, and not what its parent had queued."""
    run_python(
        """
        import os, sys, warnings
        from infra_core.azure.monitoring import TelemetryClient, TelemetryConfig
        warnings.simplefilter("ignore")  # that forking with threads is unwise, we know
        client = TelemetryClient(config=TelemetryConfig(sys.argv[1]))
        client.track_event("started")
        assert client.flush(20)
        client.track_event("progress")
        child = os.fork()
        if child == 0:
            client.track_event("completed")
            assert client.stats().tracked == 1
            os._exit(0 if client.flush(20) else 1)
        _, status = os.waitpid(child, 0)
        assert status == 0
        """,
        server.connection_string,
    )
    assert sorted(server.names()) == ["completed", "progress", "started"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_last_event_and_line_of_a_worker_process_arrive(
    method: str, server: IngestionServer, tmp_path: Path
) -> None:
    """Workers of multiprocessing leave without atexit; what they track and log arrives."""
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    script = tmp_path / "work.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, pathlib, shutil, sys
            from infra_core.azure.monitoring import RunLogWriter, TelemetryClient, TelemetryConfig

            class Copies:
                def is_configured(self):
                    return True

                def upload_file(self, path):
                    shutil.copy(path, "mirrored.log")

            def work(connection_string):
                log = RunLogWriter(pathlib.Path("."), azure_client=Copies(), mirror_interval=60)
                log.write("first")
                assert log.flush(20)
                log.write("last")  # a minute later, but for the exit
                client = TelemetryClient(config=TelemetryConfig(connection_string))
                client.track_event("completed")

            if __name__ == "__main__":
                context = multiprocessing.get_context(sys.argv[2])
                worker = context.Process(target=work, args=(sys.argv[1],))
                worker.start()
                worker.join()
                assert worker.exitcode == 0
            """
        )
    )
    subprocess.run(
        [sys.executable, str(script), server.connection_string, method],
        check=True, timeout=50, cwd=tmp_path,
    )  # fmt: skip
    assert server.names() == ["completed"]
    lines = (tmp_path / "mirrored.log").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["first", "last"]


def test_a_property_may_be_named_self(server: IngestionServer, connect: Connect) -> None:
    """As in the lines of a run log."""
    client = connect(QUICK)
    client.track_event("started", self="me")
    client.track_error("failed", self="me")
    assert client.flush(SOON)
    found = [item["data"]["baseData"]["properties"]["self"] for item in server.items]
    assert found == ["me", "me"]
