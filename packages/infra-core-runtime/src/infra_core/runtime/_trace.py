"""Ids of the active OpenTelemetry span, for log records; no dependency, no cost without it."""

import sys

__all__ = ["trace_fields"]


def trace_fields() -> dict[str, str]:
    """Return `trace_id` and `span_id` of the active OpenTelemetry span, or an empty mapping.

    Merge it into the `extra` of a log call. The ids are lower-case hexadecimal of 32 and 16
    digits, as W3C Trace Context writes them. Nothing is imported: an application that never
    imported `opentelemetry.trace` has no active span.

    Returns:
        `{"trace_id": ..., "span_id": ...}`, or `{}` when no valid span is active.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    try:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
    except Exception:  # noqa: BLE001 - a half-imported or foreign SDK must not break logging
        return {}
