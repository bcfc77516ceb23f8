"""Telemetry items in the envelope types of `applicationinsights`, cut to the service's limits.

Only the package's data contracts are used: its channel sends nothing below 500 items, loses the
last ones at exit and calls functions that Python deprecates. The contracts are plain and stay
importable from 3.10 to 3.13; they are imported by the sender's thread, on the first batch.

Limits: https://learn.microsoft.com/azure/azure-monitor/app/api-custom-events-metrics#limits
"""

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MAX_ITEM_BYTES", "Item", "encode_item", "shorten"]

MAX_ITEM_BYTES = 64 * 1024
MAX_NAME = 150
MAX_VALUE = 8_192
MAX_PROPERTIES = 200


@dataclass(frozen=True, slots=True)
class Item:
    """What is known of an event when it is tracked; nothing in it can change afterwards."""

    name: str
    time: str  # ISO 8601, UTC, ending in `Z`
    service: str  # `cloud_RoleName`
    properties: Mapping[str, str] = field(default_factory=dict)  # all that is known of it, as text
    measurements: Mapping[str, float] = field(default_factory=dict)  # numbers among that
    operation: Mapping[str, str] = field(default_factory=dict)  # `trace_id`, `span_id` or nothing
    exception: tuple[str, str, str] | None = None  # type, message and stack
    metric: float | None = None  # the number, where the item is a metric of this name

    @property
    def size(self) -> int:
        """Roughly how much memory it takes, in bytes."""
        properties = sum(len(name) + len(value) for name, value in self.properties.items())
        return 500 + properties + sum(map(len, self.exception or ()))


def shorten(text: str, limit: int) -> str:
    """Cut a text to a number of characters, visibly."""
    if len(text) <= limit:
        return text
    kept = limit
    for _ in range(3):  # the note's own length depends on what it says
        note = f"...<{len(text) - kept} characters cut off>"
        kept = max(0, limit - len(note))
    note = f"...<{len(text) - kept} characters cut off>"
    return (text[:kept] + note)[:limit]


def encode_item(item: Item, key: str) -> bytes:
    """Return an item as JSON, its longest texts cut until it has at most `MAX_ITEM_BYTES`."""
    limit, most = MAX_VALUE, MAX_PROPERTIES
    while len(encoded := _write(item, key, limit, most)) > MAX_ITEM_BYTES and most > 20:
        if limit > 32:
            limit //= 2
        else:  # many properties with long names
            most = 20
    return encoded


def _write(item: Item, key: str, limit: int, most: int) -> bytes:
    # A submodule of the contracts runs the package's __init__ either way; see the module's text.
    from applicationinsights.channel import contracts

    data: Any
    if item.metric is not None:
        data = contracts.MetricData()
        data.metrics = [point := contracts.DataPoint()]
        point.name, point.value, point.count = shorten(item.name, MAX_NAME), item.metric, 1
    elif item.exception is not None:
        kind, message, stack = item.exception
        data = contracts.ExceptionData()
        data.severity_level = contracts.SeverityLevel.error
        data.exceptions = [details := contracts.ExceptionDetails()]
        details.type_name = shorten(kind, 1_024)
        details.message = shorten(message or kind, limit)
        details.has_full_stack = len(stack) <= 4 * limit
        details.stack = shorten(stack, 4 * limit)
    else:
        data = contracts.EventData()
        data.name = shorten(item.name, 512)
    data.properties = {
        shorten(name, MAX_NAME): shorten(value, limit)
        for name, value in list(item.properties.items())[:most]
    }
    if left_out := len(item.properties) - len(data.properties):
        data.properties["infra_core.truncated"] = f"{left_out} more properties"
    if item.metric is None:  # a metric has its own number only
        data.measurements = {
            shorten(name, MAX_NAME): value for name, value in list(item.measurements.items())[:most]
        }
    cloud, internal, operation = contracts.Cloud(), contracts.Internal(), contracts.Operation()
    cloud.role = shorten(item.service, 256)
    cloud.role_instance = shorten(socket.gethostname(), 256)
    internal.sdk_version = "infra-core-azure:1"
    if "trace_id" in item.operation:
        operation.id = item.operation["trace_id"]
        operation.parent_id = item.operation.get("span_id")
    envelope = contracts.Envelope()
    envelope.name = data.ENVELOPE_TYPE_NAME
    envelope.time = item.time
    envelope.ikey = key
    envelope.tags = {**cloud.write(), **internal.write(), **operation.write()}
    envelope.data = contracts.Data()
    envelope.data.base_type = data.DATA_TYPE_NAME
    envelope.data.base_data = data
    return json.dumps(envelope.write(), ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )
