"""What monitoring says: the value at fault, the rule it broke, what to do; no secrets."""

import inspect
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure import monitoring
from infra_core.azure.exceptions import ConfigurationError
from infra_core.azure.monitoring import (
    HeartbeatMonitor,
    RunLogWriter,
    SenderLimits,
    TelemetryClient,
    TelemetryConfig,
    read_heartbeat,
)
from infra_core.azure.monitoring.testing import IngestionServer, reply


def _heartbeat(**settings: Any) -> HeartbeatMonitor:
    return HeartbeatMonitor(Path("unused"), azure_client=None, **settings)


def _log(**settings: Any) -> RunLogWriter:
    return RunLogWriter(Path("unused"), azure_client=None, **settings)


def _read(**settings: Any) -> object:
    return read_heartbeat("unused", **settings)


@pytest.mark.parametrize(
    ("make", "name", "value", "kind"),
    [
        (_heartbeat, "interval_seconds", 0, ValueError),
        (_heartbeat, "interval_seconds", float("inf"), ValueError),
        (_heartbeat, "interval_seconds", 10**10, ValueError),
        (_heartbeat, "interval_seconds", "5", TypeError),
        (_heartbeat, "interval_seconds", None, TypeError),
        (_heartbeat, "slug_timeout_seconds", "5", TypeError),
        (_heartbeat, "stop_timeout", -1, ValueError),
        (_heartbeat, "stop_timeout", None, TypeError),
        (_heartbeat, "force_first_slug_delay", "5", TypeError),
        (_log, "max_bytes", float("nan"), ValueError),
        (_log, "max_bytes", "64MB", TypeError),
        (_log, "keep", 2.5, TypeError),
        (_log, "keep", "5", TypeError),
        (_log, "mirror_interval", None, TypeError),
        (_log, "max_blocks", "5", TypeError),
        (_read, "stale_after", -1, ValueError),
        (_read, "stale_after", float("nan"), ValueError),
        (_read, "stale_after", "5", TypeError),
        (_read, "max_loop_lag", "5", TypeError),
        (SenderLimits, "batch_items", 0, ValueError),
        (SenderLimits, "queue_items", "5", TypeError),
        (SenderLimits, "batch_seconds", float("inf"), ValueError),
        (SenderLimits, "exit_seconds", -1, ValueError),
    ],
)
def test_a_number_that_cannot_be_is_named_with_what_can(
    make: Callable[..., object], name: str, value: Any, kind: type[Exception]
) -> None:
    """When the object is made: a thread that dies of it later reports to no caller."""
    with pytest.raises(kind, match=rf"{name}=.*: pass .*") as caught:
        make(**{name: value})
    assert f"{name}={value!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: _heartbeat().set_slug(Path("a")),  # type: ignore[arg-type]
            "slug=PosixPath('a') is not text: pass str()",
        ),
        (lambda: _heartbeat().set_slug(b"a"), "slug=b'a' is not text"),  # type: ignore[arg-type]
        (lambda: _log(labels=["x"]), "labels is a list, which is not a mapping: pass a dict"),
        (lambda: _log().write_many({"S3CRET": "a"}), "an event is a str: pass dicts, with"),  # type: ignore[dict-item]
        (lambda: _log().write_many([{"event": "a"}, 5]), "an event is an int: pass dicts, with"),  # type: ignore[list-item]
        (lambda: SenderLimits(retry=5), "retry=5 is not a RetryPolicy"),  # type: ignore[arg-type]
        (
            lambda: TelemetryClient(config="InstrumentationKey=S3CRET"),  # type: ignore[arg-type]
            "config is a str: pass TelemetryConfig(connection_string)",
        ),
    ],
)
def test_a_value_of_another_type_is_named(make: Callable[[], object], expected: str) -> None:
    """Before anything was written with it."""
    with pytest.raises(TypeError) as caught:
        make()
    assert expected.replace("PosixPath", type(Path()).__name__) in str(caught.value)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "nourl",
        "https://[::1",
        "https://x:99999",
        "https://x#",
        "https://x?",
        "https://x:",
        "https://x/?sig=S3CRET",
        "https://user:S3CRET@x",
    ],
)
def test_an_ingestion_endpoint_that_is_none_is_refused_at_once(endpoint: str) -> None:
    """With where to get the right one, and without what could be secret."""
    config = TelemetryConfig(f"InstrumentationKey=k;IngestionEndpoint={endpoint}")
    with pytest.raises(ConfigurationError, match=r"IngestionEndpoint=.*overview page") as caught:
        TelemetryClient(config=config)
    assert "S3CRET" not in str(caught.value)


def test_a_key_that_the_exporter_refuses_is_a_matter_of_configuration() -> None:
    """Not the ValueError of a foreign library."""
    pytest.importorskip("azure.monitor.opentelemetry.exporter")
    config = TelemetryConfig("InstrumentationKey=no-uuid", backend="otel")
    with pytest.raises(ConfigurationError, match=r"Invalid instrumentation key.*overview page"):
        TelemetryClient(config=config)


def test_a_connection_string_must_be_text() -> None:
    """A path or a number is a likely mistake."""
    with pytest.raises(ConfigurationError, match="connection string is an int: pass text"):
        TelemetryConfig(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"batch_id": 5}, "batch_id must be a string when provided, not int (5): pass str"),
        ({"metadata": [1]}, "metadata must be a mapping when provided, not list ([1]): pass a"),
        ({"metadata": {1: 2}}, "metadata keys must be strings, 1 is not: pass str(key)"),
    ],
)
def test_a_bad_property_of_an_event_is_shown(properties: dict[str, Any], expected: str) -> None:
    """Name, value and what to pass."""
    client = TelemetryClient(config=TelemetryConfig(backend="log"))
    with pytest.raises(ValueError, match=r"must be") as caught:
        client.track_event("started", **properties)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "1 event lost so far, reason http_400; check the connection string"),
        (402, "reason quota_http_402; the quota or daily cap of Application Insights"),
    ],
)
def test_lost_events_are_logged_with_what_to_do(
    status: int, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The only trace of them that anybody reads."""
    with IngestionServer() as server:
        server.plan(reply(status))
        client = TelemetryClient(config=TelemetryConfig(server.connection_string))
        client.track_event("started")
        assert not client.flush(10)
        client.close()
    assert expected in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a heartbeat: it holds no JSON"),
        (b"\xff", "is not a heartbeat: it holds no JSON"),
        (b"[]", "is not a heartbeat: it holds a list instead of an object"),
        (b"{}", "is not a heartbeat: it has no timestamp"),
    ],
)
def test_a_file_that_is_no_heartbeat_says_so_in_words(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    """Not in those of the JSON parser."""
    path = tmp_path / "heartbeat.json"
    path.write_bytes(content)
    assert read_heartbeat(path).reason == f"{path} {expected}"


class _Leaky:
    def is_configured(self) -> bool:
        return True

    def write_json(self, path: Path, data: object) -> None:
        raise OSError("https://acc.blob.core.windows.net/c?sig=S3CRET refused")


class _Awaited(_Leaky):
    async def write_json(self, path: Path, data: object) -> None:  # type: ignore[override]
        raise AssertionError("never awaited")


def test_the_log_of_a_failed_heartbeat_holds_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the client's error says; the error itself reaches its caller as it is."""
    monitor = HeartbeatMonitor(tmp_path, azure_client=_Leaky())
    monitor.start()
    with pytest.raises(OSError, match="refused"):
        monitor.stop()
    assert "the heartbeat failed: OSError: " in caplog.text
    assert "S3CRET" not in caplog.text


def test_a_beat_holds_no_secret(tmp_path: Path) -> None:
    """A slug may be a URL; the callback gets it as it was set."""
    url, fired = "https://a.example/f?sig=S3CRET&v=2", threading.Event()
    given: list[str] = []

    def on_timeout(slug: str, _: float) -> None:
        given.append(slug)
        fired.set()

    log = RunLogWriter(tmp_path, azure_client=None)
    with HeartbeatMonitor(
        tmp_path,
        azure_client=None,
        log_writer=log,
        on_timeout=on_timeout,
        force_first_slug_timeout=True,
    ) as heartbeat:
        heartbeat.set_slug(url)
        assert fired.wait(10)
    assert given == [url]
    assert json.loads(heartbeat.path.read_text())["slug"] == url.replace("S3CRET", "<redacted>")
    assert "S3CRET" not in log.path.read_text()


def test_an_asynchronous_client_is_named_by_its_class(tmp_path: Path) -> None:
    """Not by an address in memory."""
    monitor = HeartbeatMonitor(tmp_path, azure_client=_Awaited())
    with pytest.raises(TypeError, match=r"_Awaited\.write_json\(\) is asynchronous") as caught:
        monitor.pulse()
    assert " at 0x" not in str(caught.value)


_OF_OTHERS = {"Any", "AbstractEventLoop", "AzureStorageClient", "BaseException", "Callable"} | {
    "Exception", "Iterable", "Literal", "Mapping", "None", "Path", "Self", "TracebackType", "Unpack"
}  # fmt: skip


@pytest.mark.parametrize("name", ["HeartbeatMonitor", "RunLogWriter", "TelemetryClient"])
def test_what_a_signature_names_can_be_imported(name: str) -> None:
    """The bounds that a warning wants raised, for one."""
    methods = dict(inspect.getmembers(getattr(monitoring, name), inspect.isfunction))
    public = [method for member, method in methods.items() if not member.startswith("_")]
    texts = [
        annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        for method in (*public, methods["__init__"])
        for annotation in method.__annotations__.values()
    ]
    named = set(re.findall(r"\b[A-Z]\w+", " ".join(texts))) - _OF_OTHERS
    assert not named - set(dir(monitoring))
