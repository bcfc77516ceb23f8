"""Telemetry events: validated at once, delivered in the background, never in the way."""

import json
import logging
import threading
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from infra_core.runtime import clock, trace_fields

from .._checks import require_number, type_name
from ._envelope import MAX_VALUE, Item
from ._plain import Bounds, plain_mapping, without_secrets
from ._protocols import HeartbeatEventWriter
from ._telemetry_config import TelemetryConfig
from ._telemetry_events import (
    TelemetryEvent,
    check_identifier,
    check_metadata,
    check_name,
    to_event,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._sender import Sender, SenderLimits, TelemetryStats, Transport

__all__ = ["TelemetryClient"]

_BOUNDS: Bounds = (4 * MAX_VALUE, 1_000, 8)
_IDS = ("batch_id", "job_id", "slug")


class TelemetryClient:
    """Tracks events in Application Insights and in the log.

    Every event is logged (`telemetry_event {...}`, errors as `telemetry_error {...}`). With a
    connection string it is also sent as a custom event whose `customDimensions` are the ids, the
    service and the metadata as text, and whose `customMeasurements` are the numbers among the
    metadata. Tracking validates, copies and queues; it never waits for the network and never
    raises because of it. `flush` waits, and what is queued when the interpreter ends is delivered
    within five seconds or counted as lost.

    Values over 8,192 characters, names over 150, and items over 64 KB are cut, visibly. Secrets
    are replaced. Where a span of OpenTelemetry is active, its ids become the operation's.

    Args:
        config: Where to send to. Without one the environment is read, which is deprecated.
        service_name: Role of this service on the application map.
        logger_name: Logger of the events, `{service_name}.azure.telemetry` by default.
        limits: Bounds of queue, batches and retries.
        journal: A `RunLogWriter` in which every event is a line, `telemetry`, before it is queued.
            The queue is memory and dies with `kill -9`; with a journal every event is on record.

    Raises:
        ConfigurationError: The connection string is unusable, or `otel` is not installed.

    Example:
        >>> client = TelemetryClient(config=TelemetryConfig(backend="log"), service_name="crawler")
        >>> client.track_event(TelemetryEvent.STARTED, batch_id="batch-1", metadata={"urls": 12})
        >>> client.close()
        True
    """

    def __init__(
        self,
        *,
        config: TelemetryConfig | None = None,
        service_name: str = "infra_core",
        logger_name: str | None = None,
        limits: "SenderLimits | None" = None,
        journal: HeartbeatEventWriter | None = None,
    ) -> None:
        if config is None:
            warnings.warn(
                "TelemetryClient() without a config is deprecated: pass "
                "TelemetryConfig.from_env() or TelemetryConfig.from_env_with_prefix(...)",
                DeprecationWarning,
                stacklevel=2,
            )
            config = TelemetryConfig.from_env()
        if not isinstance(config, TelemetryConfig):  # its value may hold a key
            raise TypeError(
                f"config is {type_name(config)}: pass TelemetryConfig(connection_string)"
            )
        self.config = config
        self.service_name = service_name
        self._logger = logging.getLogger(logger_name or f"{service_name}.azure.telemetry")
        backend = config.resolved_backend()
        self._silent = backend is None
        self._journal = journal
        self._thread = threading.local()
        self._exporter: Sender | None = None
        if backend in {"applicationinsights", "otel"}:
            self._exporter = _make_sender(config, backend, service_name, limits)

    def track_event(self, /, name: TelemetryEvent | str, **properties: Any) -> None:
        """Track an event that dashboards and alerts know.

        Args:
            name: A `TelemetryEvent` or its name.
            **properties: `batch_id`, `job_id`, `slug` and `service` (in place of the client's)
                are strings, `metadata` is a mapping with string keys; everything else joins the
                metadata.

        Raises:
            ValueError: The event is unknown, or an id or the metadata is of the wrong type.
        """
        self._track(to_event(name).value, properties, logging.INFO)

    def track_custom_event(self, name: str, /, *, error: bool = False, **properties: Any) -> None:
        """Track an event of one's own name.

        Args:
            name: Any text, such as `page.saved`; 512 characters are kept.
            error: Whether it is an error; see `track_error`.
            **properties: See `track_event`.

        Raises:
            ValueError: The name is empty, or an id or the metadata is of the wrong type.

        Example:
            >>> client = TelemetryClient(config=TelemetryConfig(backend="log"))
            >>> client.track_custom_event("page.saved", job_id="job-1", bytes=1024)
        """
        self._track(check_name(name), properties, logging.ERROR if error else logging.INFO)

    def track_metric(self, name: str, value: float, /, **properties: Any) -> None:
        """Track a number of one's own name, such as the length of a queue.

        Args:
            name: Any text.
            value: The number, finite.
            **properties: See `track_event`; the dimensions of the metric.

        Raises:
            ValueError: The name is empty or the number is not finite, or an id or the metadata is
                of the wrong type.
            TypeError: The value is not a number.
        """
        require_number("value", value, "a finite number", least=-1.7e308, most=1.7e308)
        self._track(check_name(name), properties, logging.INFO, metric=float(value))

    def track_error(self, /, name: TelemetryEvent | str, **properties: Any) -> None:
        """Track an event that is an error.

        Args:
            name: See `track_event`.
            **properties: See `track_event`. An exception among them is sent with its stack, as an
                item of its own for the service's failure views.

        Raises:
            ValueError: See `track_event`.
        """
        self._track(to_event(name).value, properties, logging.ERROR)

    def validate_event(self, name: TelemetryEvent | str) -> TelemetryEvent:
        """Return the event of a name.

        Raises:
            ValueError: There is no such event; the message lists those there are.
        """
        return to_event(name)

    def flush(self, timeout: float = 5.0) -> bool:
        """Deliver what is queued.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether everything tracked before arrived. Always true when events are only logged.
        """
        return self._exporter is None or self._exporter.flush(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Flush and end; events tracked later are counted as dropped.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            What `flush` returns.
        """
        return self._exporter is None or self._exporter.close(timeout)

    def stats(self) -> "TelemetryStats":
        """Return how many items were delivered, wait, or were dropped and why."""
        from ._sender import TelemetryStats

        if self._exporter is None:
            return TelemetryStats(0, 0, 0, 0, {})
        return self._exporter.stats()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _track(
        self,
        name: str,
        properties: Mapping[str, Any],
        level: int,
        *,
        metric: float | None = None,
    ) -> None:
        rest = dict(properties)
        service = check_identifier("service", rest.pop("service", self.service_name))
        if service is None:
            raise ValueError("service is empty: pass the name of a service, or leave it out")
        ids = {key: check_identifier(key, rest.pop(key, None)) for key in _IDS}
        given = {**check_metadata(rest.pop("metadata", None)), **rest}
        if self._silent:
            return
        metadata = plain_mapping(given, _BOUNDS)
        payload: dict[str, Any] = {"service": service, "event": name}
        if metric is not None:
            payload["value"] = metric
        payload.update((key, value and without_secrets(value)) for key, value in ids.items())
        if metadata:
            payload["metadata"] = metadata
        trace = trace_fields()
        self._write_log(payload, level, trace)
        self._write_journal(payload, level)
        if self._exporter is not None:
            item = _to_item(payload, level, trace)
            self._exporter.put(item)
            if level >= logging.ERROR:
                for value in given.values():
                    if isinstance(value, BaseException):
                        self._exporter.put(_with_exception(item, value))

    def _write_log(self, payload: Mapping[str, Any], level: int, trace: Mapping[str, str]) -> None:
        # A handler of the log may track what it is given: that is not logged, or it would not end.
        if self._logger.isEnabledFor(level) and not getattr(self._thread, "is_logging", False):
            kind = "telemetry_error" if level >= logging.ERROR else "telemetry_event"
            if "value" in payload:
                kind = "telemetry_metric"
            text = json.dumps(payload, ensure_ascii=False)
            self._thread.is_logging = True
            try:
                self._logger.log(level, "%s %s", kind, text, extra={**trace, "telemetry": payload})
            finally:
                self._thread.is_logging = False

    def _write_journal(self, payload: Mapping[str, Any], level: int) -> None:
        if self._journal is None:
            return
        line = {"name" if key == "event" else key: value for key, value in payload.items()}
        line["level"] = logging.getLevelName(level)
        try:
            self._journal.write("telemetry", **line)
        except OSError as error:
            self._logger.warning(
                "telemetry event %r is missing from the journal: %s: %s",
                payload["event"],
                type(error).__name__,
                error,
            )


def _make_sender(
    config: TelemetryConfig, backend: str, service_name: str, limits: "SenderLimits | None"
) -> "Sender":
    from ._sender import Sender, SenderLimits

    transport: Transport
    if backend == "otel":
        from ._otel import ExporterTransport

        transport = ExporterTransport(config.otel_connection_string(), service_name)
    else:
        from ._http_transport import IngestionTransport

        ingestion = config.ingestion()
        transport = IngestionTransport(ingestion.url, ingestion.key)
    return Sender(transport, limits or SenderLimits())


def _to_item(payload: Mapping[str, Any], level: int, trace: Mapping[str, str]) -> Item:
    metadata: Mapping[str, Any] = payload.get("metadata", {})
    properties = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in metadata.items()
    }
    properties |= {key: payload[key] for key in ("service", *_IDS) if payload[key] is not None}
    if level >= logging.ERROR:
        properties["severity"] = "error"
    return Item(
        name=payload["event"],
        time=clock.utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        service=payload["service"],
        properties=properties,
        measurements={
            key: float(value)
            for key, value in metadata.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        },
        operation=dict(trace),
        metric=payload.get("value"),
    )


def _with_exception(item: Item, error: BaseException) -> Item:
    try:
        stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception with a broken __str__
        stack, message = "", "its message cannot be printed"
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return replace(
        item,
        properties={**item.properties, "event": item.name},
        measurements={},
        metric=None,
        exception=(kind, without_secrets(message), without_secrets(stack)),
    )
