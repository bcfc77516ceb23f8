"""Delivery through azure-monitor-opentelemetry-exporter, behind the same queue and accounts.

The queue, the thread, `flush` and the delivery at exit are `Sender`'s; only the last step differs.
OpenTelemetry's own batch processor is left out: it loses the events of short jobs
(Azure/azure-sdk-for-python#37228) and counts nothing.
"""

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from infra_core.runtime import redact_secrets

from ..exceptions import ConfigurationError
from ._envelope import MAX_NAME, MAX_PROPERTIES, MAX_VALUE, Item, shorten
from ._ingestion import Answer

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk._logs import ReadableLogRecord

__all__ = ["ExporterTransport"]

_log = logging.getLogger("infra_core.azure.monitoring")
_NANOSECONDS = 1_000_000_000


class ExporterTransport:
    """Gives batches to an `AzureMonitorLogExporter`.

    That is built here, which takes about a second: when the interpreter is ending it can neither
    be imported nor start its threads. A forked child builds its own. What it cannot deliver now
    and finds worth another try it keeps in its own offline storage; here such a batch counts as
    dropped, reason `otel_export_failed`, because it is not known which of its items arrived.
    """

    def __init__(self, connection_string: str, service_name: str) -> None:
        self._connection_string = connection_string
        self._exporter: Any = None
        try:
            self._ready_exporter()
            from opentelemetry.sdk.resources import Resource
        except ImportError as error:
            raise ConfigurationError(
                f"telemetry backend 'otel' needs azure-monitor-opentelemetry-exporter ({error}): "
                'pip install "infra-core-azure[otel]", or choose the backend applicationinsights'
            ) from error
        self._resource = Resource.create({"service.name": service_name})  # starts threads, too

    def encode(self, item: Item) -> "ReadableLogRecord":
        """Make a log record of an item."""
        from opentelemetry._logs import LogRecord, SeverityNumber
        from opentelemetry.sdk._logs import ReadableLogRecord

        attributes: dict[str, Any] = {
            shorten(name, MAX_NAME): shorten(value, MAX_VALUE)
            for name, value in list(item.properties.items())[:MAX_PROPERTIES]
        }
        measurements = dict(item.measurements)
        if item.metric is not None:  # the exporter of logs has no metrics: an event with a number
            measurements[item.name] = item.metric
        if measurements:
            attributes["microsoft.custom_measurements"] = json.dumps(measurements)
        if item.exception is not None:
            kind, message, stack = item.exception
            attributes["exception.type"] = kind
            attributes["exception.message"] = shorten(message or kind, MAX_VALUE)
            attributes["exception.stacktrace"] = stack
        else:
            attributes["microsoft.custom_event.name"] = shorten(item.name, 512)
        failed = item.properties.get("severity") == "error"
        record = LogRecord(
            timestamp=_nanoseconds(item.time),
            context=_context(item),
            severity_number=SeverityNumber.ERROR if failed else SeverityNumber.INFO,
            attributes=attributes,
        )
        return ReadableLogRecord(record, self._resource)

    def send(self, items: "Sequence[ReadableLogRecord]") -> Answer:
        """Export a batch; never raises."""
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        try:
            result = self._ready_exporter().export(items)
        except Exception as error:  # noqa: BLE001 - a foreign library in our thread
            _log.warning(
                "the exporter of Azure Monitor failed: %s: %s",
                type(error).__name__,
                redact_secrets(str(error)),
            )
            return Answer(-1, error=f"otel_{type(error).__name__}")
        if result is LogRecordExportResult.SUCCESS:
            return Answer(200)
        return Answer(-1, error="otel_export_failed")

    def close(self) -> None:
        """Do nothing: the exporter keeps its pool, and what it has stored, for the next batch."""

    def abandon(self) -> None:
        """Leave the exporter to the parent process; a child builds its own."""
        self._exporter = None

    def _ready_exporter(self) -> Any:
        if self._exporter is None:
            from azure.monitor.opentelemetry.exporter import AzureMonitorLogExporter

            try:
                self._exporter = AzureMonitorLogExporter.from_connection_string(
                    self._connection_string,
                    # In all, seconds instead of the minutes of azure-core's defaults: while it
                    # tries again the queue fills up. Then its offline storage takes over.
                    retry_total=3,
                    retry_backoff_max=5,
                )
            except ValueError as error:
                raise ConfigurationError(
                    "the exporter of Azure Monitor refuses the Application Insights connection "
                    f"string ({redact_secrets(str(error)).rstrip('.')}): copy the whole string "
                    "from the resource's overview page into APPLICATIONINSIGHTS_CONNECTION_STRING"
                ) from None
        return self._exporter


def _context(item: Item) -> "Context":
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if "trace_id" not in item.operation:
        # Not empty, for an empty one is taken for none, and the sender's thread has none to offer.
        return set_span_in_context(NonRecordingSpan(SpanContext(0, 0, is_remote=False)), Context())
    span = SpanContext(
        trace_id=int(item.operation["trace_id"], 16),
        span_id=int(item.operation.get("span_id", "0"), 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(span), Context())


def _nanoseconds(time: str) -> int:
    moment = datetime.fromisoformat(time.replace("Z", "+00:00"))
    return int(moment.timestamp() * 1_000_000) * (_NANOSECONDS // 1_000_000)
