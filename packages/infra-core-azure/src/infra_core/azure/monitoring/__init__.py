"""Heartbeats, run logs and telemetry: what tells operators the truth about a run.

`HeartbeatMonitor` says that a run is alive and what it works on, `read_heartbeat` reads that from
outside, `RunLogWriter` keeps the run's log on disk and mirrors it to an append blob, and
`TelemetryClient` delivers validated events to Application Insights. None of them imports an SDK
before it is needed, and all of them work without an Azure account.
"""

from typing import TYPE_CHECKING

from infra_core.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from . import run_log_writer as run_log_writer
    from ._heartbeat import HeartbeatMonitor as HeartbeatMonitor
    from ._heartbeat_reader import (
        HeartbeatState as HeartbeatState,
        HeartbeatStatus as HeartbeatStatus,
        read_heartbeat as read_heartbeat,
    )
    from ._run_log import RunLogWriter as RunLogWriter
    from ._telemetry import TelemetryClient as TelemetryClient
    from ._telemetry_config import TelemetryConfig as TelemetryConfig
    from ._telemetry_events import (
        TELEMETRY_EVENTS as TELEMETRY_EVENTS,
        TelemetryEvent as TelemetryEvent,
    )

__all__ = [
    "TELEMETRY_EVENTS",
    "HeartbeatMonitor",
    "HeartbeatState",
    "HeartbeatStatus",
    "RunLogWriter",
    "TelemetryClient",
    "TelemetryConfig",
    "TelemetryEvent",
    "read_heartbeat",
    "run_log_writer",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "._heartbeat": ["HeartbeatMonitor"],
        "._heartbeat_reader": ["HeartbeatState", "HeartbeatStatus", "read_heartbeat"],
        "._run_log": ["RunLogWriter"],
        "._telemetry": ["TelemetryClient"],
        "._telemetry_config": ["TelemetryConfig"],
        "._telemetry_events": ["TELEMETRY_EVENTS", "TelemetryEvent"],
    },
    submodules=["run_log_writer"],
)
