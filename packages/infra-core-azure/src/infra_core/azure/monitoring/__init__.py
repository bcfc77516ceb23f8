"""Heartbeats, run logs and telemetry: whether a run is alive, what it does, what fails.

`HeartbeatMonitor` says that a run is alive and what it works on, `read_heartbeat` reads that from
outside, `RunLogWriter` keeps the run's log on disk and mirrors it to an append blob, and
`TelemetryClient` delivers validated events to Application Insights. None of them imports an SDK
before it is needed, and all of them work without an Azure account.
"""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
