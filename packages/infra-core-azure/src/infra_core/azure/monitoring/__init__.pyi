from . import run_log_writer as run_log_writer
from ._heartbeat import HeartbeatMonitor as HeartbeatMonitor
from ._heartbeat_reader import (
    HeartbeatState as HeartbeatState,
    HeartbeatStatus as HeartbeatStatus,
    read_heartbeat as read_heartbeat,
    read_heartbeat_blob as read_heartbeat_blob,
)
from ._protocols import (
    HeartbeatEventWriter as HeartbeatEventWriter,
    HeartbeatFileUploader as HeartbeatFileUploader,
    HeartbeatJsonWriter as HeartbeatJsonWriter,
    HeartbeatUploader as HeartbeatUploader,
    LockLike as LockLike,
    RunLogUploader as RunLogUploader,
    UtcNowFunc as UtcNowFunc,
)
from ._run_log import RunLogWriter as RunLogWriter
from ._sender import SenderLimits as SenderLimits, TelemetryStats as TelemetryStats
from ._telemetry import TelemetryClient as TelemetryClient
from ._telemetry_config import TelemetryConfig as TelemetryConfig
from ._telemetry_events import (
    TELEMETRY_EVENTS as TELEMETRY_EVENTS,
    TelemetryEvent as TelemetryEvent,
)
