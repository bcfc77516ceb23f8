"""Trace ids in log records, with OpenTelemetry and without."""

import subprocess
import sys
import types

import pytest

from infra_core.runtime import trace_fields


def test_without_an_active_span_there_are_no_fields() -> None:
    """Also when OpenTelemetry is installed."""
    pytest.importorskip("opentelemetry.trace")
    assert trace_fields() == {}


def test_the_ids_of_the_active_span_are_hexadecimal() -> None:
    """32 and 16 lower-case digits with leading zeros, as W3C Trace Context writes them."""
    trace = pytest.importorskip("opentelemetry.trace")
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert trace_fields() == {"trace_id": "0" * 29 + "abc", "span_id": "0" * 13 + "def"}
    assert trace_fields() == {}


def test_a_broken_opentelemetry_does_not_break_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else of that name, or one that is half imported, gives no fields."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", types.ModuleType("opentelemetry.trace"))
    assert trace_fields() == {}


def test_opentelemetry_is_never_imported() -> None:
    """Where the application does not use it, neither do we."""
    code = (
        "import sys; from infra_core.runtime import trace_fields; assert trace_fields() == {};"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
