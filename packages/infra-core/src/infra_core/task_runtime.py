"""The task runtime of 0.7; it lives in `infra_core.runtime`."""

from infra_core.runtime import RuntimeCancellationError, RuntimeConfig, TaskRuntime

__all__ = ["RuntimeCancellationError", "RuntimeConfig", "TaskRuntime"]
