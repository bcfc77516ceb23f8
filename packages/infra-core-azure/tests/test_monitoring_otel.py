"""The backend `otel`: the same client, delivered by Azure Monitor's OpenTelemetry exporter."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from infra_core.azure.exceptions import ConfigurationError
from infra_core.azure.monitoring import TelemetryClient, TelemetryConfig
from infra_core.azure.monitoring.testing import IngestionServer, reply

needs_exporter = pytest.mark.skipif(
    find_spec("azure.monitor") is None,
    reason="needs the extra [otel]",
)


@pytest.fixture
def server() -> Iterator[IngestionServer]:
    """A server that speaks the ingestion protocol."""
    with IngestionServer() as running:
        yield running


def run(code: str, server: IngestionServer, tmp_path: Any) -> str:
    """Run code in a process of its own: the exporter starts threads that outlive everything."""
    prelude = """
        import json, sys
        from infra_core.azure.monitoring import TelemetryClient, TelemetryConfig
        config = TelemetryConfig(sys.argv[1], backend="otel")
        client = TelemetryClient(config=config, service_name="crawler")
    """
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(prelude) + textwrap.dedent(code),
            server.connection_string,
        ],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            # Its statistics of itself and its remote control would go to Microsoft.
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
            "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
            "APPLICATIONINSIGHTS_SDKSTATS_DISABLED": "true",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_exporter
def test_the_last_event_before_exit_arrives_as_a_custom_event(
    server: IngestionServer, tmp_path: Any
) -> None:
    """Without flush or close, with ids, metadata, role and the ids of the active span."""
    run(
        """
        from opentelemetry import trace
        span = trace.NonRecordingSpan(trace.SpanContext(trace_id=1, span_id=2, is_remote=False))
        client.track_event("started", batch_id="b", metadata={"n": 1})
        with trace.use_span(span):
            client.track_event("completed", job_id="j")
        """,
        server,
        tmp_path,
    )
    first, last = server.items
    assert first["data"]["baseType"] == "EventData"
    assert first["data"]["baseData"]["name"] == "started"
    properties = first["data"]["baseData"]["properties"]
    assert (properties["batch_id"], properties["n"], properties["service"]) == ("b", "1", "crawler")
    assert first["tags"]["ai.cloud.role"] == "crawler"
    assert last["data"]["baseData"]["name"] == "completed"
    assert last["tags"]["ai.operation.id"] == f"{1:032x}"
    assert last["tags"]["ai.operation.parentId"] == f"{2:016x}"


@needs_exporter
def test_errors_arrive_as_exceptions_too(server: IngestionServer, tmp_path: Any) -> None:
    """`track_error` with an exception sends its type, message and stack."""
    run(
        """
        try:
            raise ValueError("bad token=SECRET")
        except ValueError as error:
            client.track_error("failed", error=error)
        assert client.close(30)
        """,
        server,
        tmp_path,
    )
    event, exception = server.items
    assert event["data"]["baseData"]["properties"]["severity"] == "error"
    [details] = exception["data"]["baseData"]["exceptions"]
    assert details["typeName"] == "builtins.ValueError"
    assert "SECRET" not in str(server.items)


@needs_exporter
def test_an_exporter_that_raises_loses_its_batch_alone(
    server: IngestionServer, tmp_path: Any
) -> None:
    """The statistics name its error, and what is tracked later is sent."""
    code = """
        exporter = client._exporter.transport._exporter
        export, exporter.export = exporter.export, lambda items: items.missing
        client.track_event("started")
        assert not client.flush(30)
        print(json.dumps(dict(client.stats().dropped_by_reason)))
        exporter.export = export
        client.track_event("completed")
        assert client.flush(30)
    """
    assert run(code, server, tmp_path).split("\n")[0] == '{"otel_AttributeError": 1}'
    assert len(server.items) == 1


@needs_exporter
def test_what_the_exporter_could_not_send_is_counted(
    server: IngestionServer, tmp_path: Any
) -> None:
    """flush says so, the statistics give the reason, and nothing raises."""
    server.plan(reply(400))
    out = run(
        """
        client.track_event("started")
        assert not client.flush(30)
        print(json.dumps(dict(client.stats().dropped_by_reason)))
        """,
        server,
        tmp_path,
    )
    assert out.strip().endswith('{"otel_export_failed": 1}')


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for the backend without having it learns what to install."""
    monkeypatch.setitem(sys.modules, "azure.monitor.opentelemetry.exporter", None)
    config = TelemetryConfig("InstrumentationKey=k", backend="otel")
    with pytest.raises(ConfigurationError, match=r"infra-core-azure\[otel\]"):
        TelemetryClient(config=config)


def test_the_exporter_gets_a_whole_connection_string() -> None:
    """Also when only an instrumentation key was given."""
    assert TelemetryConfig("k").otel_connection_string() == (
        "InstrumentationKey=k;IngestionEndpoint=https://dc.services.visualstudio.com"
    )
