"""The events that services may send, and what is checked before one goes out."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from infra_core.runtime import redact_secrets

__all__ = [
    "TELEMETRY_EVENTS",
    "TelemetryEvent",
    "check_identifier",
    "check_metadata",
    "check_name",
    "to_event",
]


class TelemetryEvent(str, Enum):
    """An event that dashboards and alerts know."""

    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    UPLOAD_ATTEMPT = "upload_attempt"
    UPLOAD_SUCCESS = "upload_success"
    UPLOAD_FAILURE = "upload_failure"
    UPLOAD_RETRY = "upload_retry"
    UPLOAD_PERMANENT_ERROR = "upload_permanent_error"
    UPLOAD_TRANSIENT_ERROR = "upload_transient_error"
    RESUME_ASSET_REUSED = "resume_asset_reused"
    RESUME_ASSET_REDOWNLOAD = "resume_asset_redownload"
    CRITICAL_UPLOAD_SUCCESS = "critical_upload_success"
    CRITICAL_UPLOAD_FAILURE = "critical_upload_failure"

    def __str__(self) -> str:
        return self.value


TELEMETRY_EVENTS = frozenset(event.value for event in TelemetryEvent)
"""The names of all events."""


def to_event(name: TelemetryEvent | str) -> TelemetryEvent:
    """Return the event of a name, whatever its case, surrounding blanks, hyphens or spaces."""
    if isinstance(name, TelemetryEvent):
        return name
    if isinstance(name, str):
        normal = name.strip().lower().replace("-", "_").replace(" ", "_")
        if normal in TELEMETRY_EVENTS:
            return TelemetryEvent(normal)
    raise ValueError(
        f"telemetry event {name!r} is not one of: {', '.join(sorted(TELEMETRY_EVENTS))}"
    )


def check_identifier(name: str, value: object) -> str | None:
    """Return an id without blanks around it, `None` for an empty one."""
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    raise ValueError(
        f"{name} must be a string when provided, not {type(value).__name__} ({value!r:.80}): "
        f"pass str({name})"
    )


def check_name(name: object) -> str:
    """Return the name of an event or metric of one's own."""
    if isinstance(name, str) and name.strip():
        return name.strip()
    raise ValueError(f"name={name!r:.80} names no event or metric: pass text, such as 'page.saved'")


def check_metadata(value: object) -> Mapping[str, Any]:
    """Return metadata as a mapping; `None` is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"metadata must be a mapping when provided, not {type(value).__name__} "
            f"({redact_secrets(f'{value!r:.80}')}): pass a dict"
        )
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"metadata keys must be strings, {key!r:.80} is not: pass str(key)")
    return value
